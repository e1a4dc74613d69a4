"""Apple's scene and Google's: what scene.py leaves open."""

import re
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bouncerd.apns import Apns
from bouncerd.bearer import ProviderToken
from bouncerd.endings import Answered, Ending, Lost
from bouncerd.fakes.apns import CERTIFICATE, TOKEN, Temper
from bouncerd.fakes.apns import Apns as Apple
from bouncerd.fakes.bearers import Key
from bouncerd.fakes.fcm import Fcm as Google
from bouncerd.fakes.google_tokens import TokenEndpoint
from bouncerd.fakes.records import Received
from bouncerd.fcm import Fcm
from bouncerd.model import Kind, Message
from bouncerd.patience import APNS_PATIENCE, FCM_PATIENCE, Patience
from bouncerd.pool import Pool
from bouncerd.providers import APNS_MANNERS, FCM_MANNERS
from bouncerd.routes import Routes
from tests.fakes_kit import account
from tests.scene import Scene, WatchedLane, refusal

UNHEARD = {"retried too soon", "401 retried more than once", "refused message sent again"}
PROJECT = "fake-project"
_KEYS = {
    f"KEY{number}": ec.derive_private_key(2**200 + number, ec.SECP256R1()) for number in (1, 2)
}
KNOWN, OTHER = (Key(key_id, "TEAM1", key.public_key()) for key_id, key in _KEYS.items())


def pem(key_id: str) -> bytes:
    """Write a key as Apple hands it out."""
    return _KEYS[key_id].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class AppleScene(Scene):
    """A lane to Apple. `manners` are those of the daemon, but for what a test names."""

    front: Apple
    key_id = "KEY1"

    def __init__(
        self,
        seed: int = 0,
        *,
        token_mode: bool = True,
        size: int = 1,
        limit: int = 10_000,
        latency: tuple[float, float] = (0.01, 0.05),
        throttle: bool = False,
        patience: Patience = APNS_PATIENCE,
        tls: tuple[Any, Any] | None = None,
        **manners: Any,
    ) -> None:
        self.token_mode = token_mode
        self._size = size
        self._limit = limit
        self._latency = latency
        self._throttle = throttle
        self.patience = patience
        self._manners = replace(APNS_MANNERS, **({"probe": token_mode} | manners))
        super().__init__(seed, tls=tls)

    def build_front(self, seed: int) -> Apple:
        """Make Apple, of either kind of credential."""
        return Apple(
            self.clock,
            mode=TOKEN if self.token_mode else CERTIFICATE,
            keys=(KNOWN, OTHER),
            now=self.now,
            seed=seed,
            latency=self._latency,
            temper=Temper(throttle_on_reject=self._throttle),
        )

    def build_pool(self) -> Pool:
        """Make a pool to Apple."""
        connect = self.network.connect
        return Pool("apns", connect, self._manners, self._size, self.clock, self.random, refusal)

    def build_provider(self) -> Apns:
        """Make the provider, with a key or without."""
        key_id = self.key_id
        bearer = ProviderToken(key_id, "TEAM1", pem(key_id), self.clock.seconds)
        return Apns("apns", "localhost", bearer if self.token_mode else None)

    def build_lane(self) -> WatchedLane:
        """Make a lane to Apple."""
        return WatchedLane(
            self.build_provider(), self.pool, self.clock, self.now, self.random, self.forget,
            limit=self._limit, keep_for=600.0, patience=self.patience, note=self.note,
        )  # fmt: skip

    def build_routes(self) -> Routes:
        """Have all apps go to it."""
        return Routes({None: self.lane}, {})

    def message(self, body: bytes = b"{}") -> Message:
        """Make an alert."""
        return Message(Kind.APNS, body, push_type="alert", priority=5)

    def identity(self, received: Received) -> str:
        """Read the `apns-id`."""
        return str(received.headers()["apns-id"])


class GoogleScene(Scene):
    """A lane to Google, with an access token that is simply there (see oauth.py for the rest)."""

    front: Google
    token: str | None
    patience = FCM_PATIENCE

    def __init__(
        self,
        seed: int = 0,
        *,
        size: int = 1,
        limit: int = 10_000,
        latency: tuple[float, float] = (0.01, 0.05),
        tls: tuple[Any, Any] | None = None,
        **manners: Any,
    ) -> None:
        self._size = size
        self._limit = limit
        self._latency = latency
        self._manners = replace(FCM_MANNERS, **manners)
        super().__init__(seed, tls=tls)

    def build_front(self, seed: int) -> Google:
        """Make Google, and a token to begin with."""
        self.tokens = TokenEndpoint(self.clock, account(), now=self.now)
        self.token = self.tokens.issue()
        return Google(self.clock, PROJECT, self.tokens, seed=seed, latency=self._latency)

    def build_pool(self) -> Pool:
        """Make a pool to Google."""
        connect = self.network.connect
        return Pool("fcm", connect, self._manners, self._size, self.clock, self.random, refusal)

    def build_provider(self) -> Fcm:
        """Make the provider."""
        return Fcm("fcm", "localhost", PROJECT, self.current_token, self.invalidate)

    def build_lane(self) -> WatchedLane:
        """Make a lane to Google."""
        return WatchedLane(
            self.build_provider(), self.pool, self.clock, self.now, self.random, self.forget,
            limit=self._limit, keep_for=600.0, patience=self.patience, note=self.note,
        )  # fmt: skip

    def build_routes(self) -> Routes:
        """Have all servers go to it."""
        return Routes({}, {None: self.lane})

    def current_token(self) -> str | None:
        """Return the access token of now."""
        return self.token

    def invalidate(self, token: str) -> None:
        """Replace an access token that was refused, a little later."""
        if token == self.token:
            self.token = None
            self.clock.callLater(self.random.uniform(0.1, 4.0), self.renew)

    def renew(self) -> None:
        """Have a good access token again."""
        if self.token is None:
            self.token = self.tokens.issue()
            self.lane.pump()

    def message(self, body: bytes = b'{"content":"hello"}') -> Message:
        """Make a message."""
        return Message(Kind.FCM, body)

    def identity(self, received: Received) -> str:
        """Find it by its device, as far as it has come."""
        found = re.search(rb'"token": *"([0-9a-f]{8})"', received.body)
        return f"{found[1].decode()}-0000-4000-8000-000000000000" if found else ""

    def judge_attempts(self) -> None:
        """Also, ten seconds lie between the end of an attempt, as we know it, and the next one."""
        super().judge_attempts()
        for identity, endings in self.heard.items():
            times = self.times[identity]
            for ending, (_, ended), (sent, _) in zip(endings, times, times[1:], strict=False):
                early = sent < ended + 9.999 and _asks_for_patience(ending)
                assert not early, (identity, ending, ended, sent)
            statuses = [each.response.status for each in endings if isinstance(each, Answered)]
            assert 400 not in statuses[:-1], (identity, endings)
            if len(statuses) < len(endings):
                # What the fake answered to some attempt, and when, is not what we heard.
                self.excuses |= UNHEARD


def _asks_for_patience(ending: Ending) -> bool:
    if not isinstance(ending, Answered):
        return isinstance(ending, Lost)
    return ending.response.status == 429 or ending.response.status >= 500
