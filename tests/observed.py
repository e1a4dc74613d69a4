"""A daemon in memory that is observed: its API, its store, and lanes over servers in memory."""

import io
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from twisted.internet.defer import succeed
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from bouncerd.apns import Apns
from bouncerd.bearer import GoogleAssertion, ProviderToken
from bouncerd.calls import Call
from bouncerd.lane import Lane
from bouncerd.ledger import Ledger
from bouncerd.link import Manners
from bouncerd.logs import Observer, observer
from bouncerd.oauth import AccessToken
from bouncerd.observing import Observing
from bouncerd.outcomes import Outcomes
from bouncerd.patience import APNS_PATIENCE
from bouncerd.pool import Pool
from bouncerd.routes import Routes
from bouncerd.site import Site
from tests.in_memory import Daemon, TroubledStore, read_answer, spell
from tests.memory import APP, Server, SimpleProvider, a_push
from tests.names import Nowhere

MANNERS = Manners(answer_within=30, quiet=15)
CLOSING = Manners(answer_within=30, quiet=15, idle_close=180)


def apple_key() -> bytes:
    """Return a key as Apple's are."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class _Assertion(GoogleAssertion):
    def __init__(self) -> None:
        self.token_uri = "https://localhost/token"


class Process:
    """A program that was started."""

    def __init__(self, protocol: ProcessProtocol, arguments: Sequence[str]) -> None:
        self.protocol = protocol
        self.arguments = list(arguments)
        self.signals: list[str] = []

    def signalProcess(self, signal: str) -> None:  # noqa: N802 -- Twisted's name
        """Take note."""
        self.signals.append(signal)

    def end(self, reason: Exception) -> None:
        """End."""
        self.protocol.processEnded(Failure(reason))


class Programs:
    """Starts programs in memory."""

    def __init__(self) -> None:
        self.started: list[Process] = []
        self.fails = False

    def spawn(self, protocol: ProcessProtocol, arguments: Sequence[str]) -> Any:
        """Start one."""
        if self.fails:
            raise OSError(2, "canary")
        self.started.append(Process(protocol, arguments))
        return self.started[-1]


class Observed:
    """`apns` is served by a token, `fcm` says which access token it lacks in `token_problem`."""

    def __init__(self) -> None:
        self.daemon = Daemon(store=TroubledStore)
        self.daemon.enrol()
        self.clock = self.daemon.clock
        self.output = io.StringIO()
        self.log: Observer = observer(self.output)
        self.outcomes = Outcomes(self.log.verbosity)
        self.token_problem = ""
        self.certificates = {"apns:old": 86_400.0}
        self.programs = Programs()
        self.apple, self.google = Server(self.clock), Server(self.clock)
        bearer = ProviderToken("ABC123DEFG", "DEF123GHIJ", apple_key(), self.clock.seconds)
        self.apns = self._lane(Apns("apns", "localhost", bearer), self.apple, MANNERS)
        google = SimpleProvider()
        google.name = "fcm"
        self.fcm = self._lane(google, self.google, CLOSING)
        self.access_token = AccessToken(
            "fcm", _Assertion(), Nowhere(), self.clock, self.clock.seconds
        )
        self.all = [self.apns, self.fcm]
        self.routes = Routes({None: self.apns}, {None: self.fcm})
        self.nowhere = Ledger()
        self.observing = Observing(
            self, self.nowhere, self.daemon.store, self.daemon.site, self.outcomes,
            lambda: self.certificates, self.log, self.clock, self.clock.seconds,
            self.programs.spawn,
        )  # fmt: skip
        self._admin = Site(self.observing.admin, self.clock, self.clock.seconds)

    def _lane(self, provider: Any, server: Server, manners: Manners) -> Lane:
        random = Random(7)
        pool = Pool(provider.name, server.connect, manners, 1, self.clock, random)
        return Lane(
            provider, pool, self.clock, self.clock.seconds, random, lambda *_: succeed(None),
            limit=100, keep_for=600.0, patience=APNS_PATIENCE,
            note=self.outcomes.noting(provider.name, {APP}),
        )  # fmt: skip

    def start(self) -> None:
        """Connect, and begin to look."""
        for lane in self.all:
            lane.pool.start(lane)
        self.clock.pump([0.0, 1.0, 1.0])
        self.observing.start()
        self.observing.health.listening = True

    def admit(self, *tokens: str, app: str = APP) -> Call:
        """Bring a call with a push to each of these."""
        expires_at = self.clock.seconds() + 86_400.0
        pushes = [replace(a_push(each, app=app), expires_at=expires_at) for each in tokens]
        call = self.routes.admit("s1", pushes)
        self.clock.advance(0)
        return call

    def token_state(self, name: str) -> str:
        """Be all lanes: what the access token lacks."""
        return self.token_problem if name == "fcm" else ""

    def token(self, name: str) -> AccessToken | None:
        """Be all lanes: the access token."""
        return self.access_token if name == "fcm" else None

    def ask(self, path: str, method: str = "GET") -> Any:
        """Ask the admin listener."""
        channel = self._admin.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(spell(method, path, b"", {}))
        return read_answer(transport.value(), method)

    def samples(self) -> dict[str, list[Sample]]:
        """Return all samples of the metrics, by name."""
        samples: dict[str, list[Sample]] = {}
        for family in text_string_to_metric_families(self.ask("/metrics").body.decode()):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample)
        return samples

    def value(self, name: str, **labels: str) -> float:
        """Return the one sample with these labels."""
        (found,) = [each for each in self.samples()[name] if labels.items() <= each.labels.items()]
        return float(found.value)
