"""Google's FCM front end, as a sender sees it (fcm.md sections 1 to 5 and 7)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from twisted.internet.interfaces import IReactorTime

from bouncerd.fakes import frames
from bouncerd.fakes import google_errors as errors
from bouncerd.fakes.exchange import Exchange
from bouncerd.fakes.fcm_checks import TARGETS, Unacceptable, check_request
from bouncerd.fakes.front import Front
from bouncerd.fakes.google_tokens import TokenEndpoint
from bouncerd.fakes.records import Ledger, Received
from bouncerd.fakes.server import Connection
from bouncerd.fakes.steps import Close, GoAway, Headers, Respond, Script, Step, Wait

NO_LAST_STREAM = 2**31 - 1
FINAL = ("403 SENDER_ID_MISMATCH", "404 UNREGISTERED")
RETRY_AFTER = 10.0  # seconds to leave between an answer that may be retried and the next try
MOST_RETRY_AFTER = 3600.0  # seconds of a `retry-after` that a client is held to
PROBE_AFTER = 60.0  # seconds before asking again whether the operator has mended his credential
CROSSING = 0.5  # seconds that a client may have known of an end before we did
PINGS, PINGS_WITHIN = 2, 300.0  # that an otherwise silent client may send in so many seconds
MINUTE = 60.0
REMEMBERED = 10_000  # messages not accepted, to know a retry by

# What tokens with these beginnings are answered, as in the recorded exchanges of the reference.
PREFIXES: Mapping[str, Respond] = {
    "fcm-unregistered": errors.UNREGISTERED,
    "fcm-senderid": errors.SENDER_ID_MISMATCH,
    "fcm-quota": errors.QUOTA_EXCEEDED,
    "fcm-invalid": errors.INVALID_ARGUMENT,
    "fcm-badtoken": errors.INVALID_TOKEN,
    "fcm-auth": errors.THIRD_PARTY_AUTH,
    "fcm-503": errors.UNAVAILABLE,
    "fcm-500": errors.INTERNAL,
}


@dataclass(slots=True)
class Session:
    """What Google remembers of one connection: when it was last used (the clock's seconds)."""

    used_at: float
    pings: list[float] = field(default_factory=list)  # since it was last used


@dataclass(frozen=True, slots=True)
class Unaccepted:
    """A message that was not accepted: why, when it may come again, how many 401s it met."""

    verdict: str
    at: float
    not_before: float
    unauthorized: int


@dataclass(frozen=True, slots=True)
class GoIfIdle:
    """End a connection that was idle for so many seconds; else look again when it may be."""

    seconds: float

    def run(self, exchange: Exchange) -> None:
        """Send GOAWAY and close, or wait on."""
        connection = exchange.connection
        idle = connection.front.clock.seconds() - connection.session.used_at
        script: tuple[Step, ...] = (GoAway(debug=b"session_timed_out", probe=False), Close())
        if connection.visit.open_streams or idle < self.seconds:
            script = (Wait(max(self.seconds - idle, 1.0)), self)
        connection.play(script, exchange)


class Fcm(Front):
    """A stand-in for `fcm.googleapis.com`, for one project.

    `tokens` is the endpoint whose access tokens are good here; without one any bearer will do.
    `idle_after` and `oldest` (seconds) are when a connection is ended, as Google does. `quota`,
    settable, is how many messages the project may send in a minute: a fixed one, that begins
    with the first message after the last one's end. (4xx other than 429 count too.)
    """

    name = "fcm"
    connection_credit = 983_041
    idle_pings = False
    over_limit: Script = (
        GoAway(code=frames.PROTOCOL_ERROR, debug=b"exceeded_max_concurrent_streams"),
        Close(),
    )

    def __init__(
        self,
        clock: IReactorTime,
        project: str,
        tokens: TokenEndpoint | None = None,
        *,
        latency: tuple[float, float] = (0.030, 0.150),
        seed: int = 0,
        idle_after: float = 240.0,
        oldest: float = 3600.0,
        prefixes: bool = True,
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(clock, latency=latency, seed=seed, ledger=ledger)
        self.project = project
        self.tokens = tokens
        self.prefixes = prefixes
        self._path = f"/v1/projects/{project}/messages:send"
        self._idle_after = idle_after
        self._oldest = oldest
        self.quota: int | None = None
        self._minute = -MINUTE
        self._spent = 0
        self._unaccepted: dict[bytes, Unaccepted] = {}  # by their bodies
        self._mended_at = float("-inf")

    # -- what connections call

    def opened(self, connection: Connection) -> None:
        """Begin a session, and see to it that the connection ends one day."""
        connection.session = Session(self.clock.seconds())
        idle, retire = (
            GoIfIdle(self._idle_after),
            (
                Wait(self._oldest),
                GoAway(NO_LAST_STREAM, probe=False),
                Wait(1.0),
                GoAway(debug=b"max_age"),
            ),
        )
        connection.play((Wait(self._idle_after), idle), Exchange(connection))
        connection.play(retire, Exchange(connection))

    def first_settings(self, _connection: Connection) -> Mapping[int, int]:
        """Return Google's SETTINGS."""
        return {
            frames.MAX_CONCURRENT_STREAMS: 100,
            frames.INITIAL_WINDOW_SIZE: 1_048_576,
            frames.MAX_HEADER_LIST_SIZE: 16_384,
        }

    def echo(self, _received: Received) -> Headers:
        """Return no headers of Google's own."""
        return ()

    def settled(self, connection: Connection, received: Received) -> None:
        """Remember what was not accepted, so that a retry is known when it comes."""
        connection.session.used_at = now = self.clock.seconds()
        if received.accepted:
            self._unaccepted.pop(received.body, None)
            self.mended()
            return
        if len(self._unaccepted) >= REMEMBERED:
            self._unaccepted.clear()
        before = self._unaccepted.get(received.body)
        # When a client has learnt that it lost a connection, we do not know: later than it asked.
        since = received.at if received.verdict == "dropped" else now
        self._unaccepted[received.body] = Unaccepted(
            received.verdict,
            since,
            since + self._wait(received),
            (before.unauthorized if before else 0) + (received.verdict[:3] == "401"),
        )

    def mended(self) -> None:
        """Hear that credentials are good (again): what was refused for them may come sooner."""
        self._mended_at = self.clock.seconds()

    def pinged(self, connection: Connection) -> None:
        """End a connection whose client PINGs though it has nothing to say."""
        session, now = connection.session, self.clock.seconds()
        if connection.visit.open_streams:
            session.pings.clear()
            return
        since = max(now - PINGS_WITHIN, session.used_at)
        session.pings = [at for at in session.pings if at >= since]
        session.pings.append(now)
        if len(session.pings) > PINGS:
            calm = GoAway(code=frames.ENHANCE_YOUR_CALM, debug=b"too_many_pings", probe=False)
            connection.play((calm, Close()), Exchange(connection))

    def judge(self, connection: Connection, received: Received) -> Script:
        """Read a message and answer it by the book."""
        lines = {name: value for name, value, _ in received.fields}
        connection.session.used_at = self.clock.seconds()
        self._watch(connection, received, lines)
        refusal = self._check_caller(connection, received, lines)
        if refusal is not None:
            return (refusal,)
        try:
            content = json.loads(received.body)
        except ValueError:
            return (errors.invalid("Invalid JSON payload received. Expected a value."),)
        try:
            message = check_request(content)
        except Unacceptable as unacceptable:
            if unacceptable.rule:
                self.violate(unacceptable.rule, connection, received)
            return (unacceptable.answer,)
        received.token = next(message[target] for target in TARGETS if target in message)
        if not self._within_quota():
            return (errors.QUOTA_EXCEEDED,)
        return self._accept(received.token)

    def _within_quota(self) -> bool:
        """Count a message; tell whether this minute has room for it."""
        if self.quota is None:
            return True
        now = self.clock.seconds()
        if now >= self._minute + MINUTE:
            self._minute, self._spent = now, 0
        if self._spent >= self.quota:
            return False  # a refused one does not count
        self._spent += 1
        return True

    def _wait(self, received: Received) -> float:
        """Return the seconds that must pass before a message of this fate may come again."""
        verdict = received.verdict
        if verdict in ("withdrawn", "dropped"):
            return RETRY_AFTER - CROSSING
        if verdict[:3] in ("401", "403", "404"):
            return PROBE_AFTER
        if verdict[:1] != "5" and verdict[:3] != "429":
            return 0.0  # among them what certainly was not looked at
        said = dict(received.said).get("retry-after", "")
        return max(RETRY_AFTER, min(self._asked(said), MOST_RETRY_AFTER))

    def _asked(self, retry_after: str) -> float:
        """Read a `retry-after`: seconds or a date; what is neither asks for nothing."""
        if retry_after.isdecimal():
            return float(retry_after)
        try:
            return parsedate_to_datetime(retry_after).timestamp() - self._wall()
        except ValueError:
            return 0.0

    def _wall(self) -> float:
        return self.clock.seconds() if self.tokens is None else self.tokens.now()

    def _check_caller(
        self, connection: Connection, received: Received, lines: dict[bytes, bytes]
    ) -> Respond | None:
        """Check everything outside the body."""
        path = lines.get(b":path", b"").decode("latin-1")
        if lines.get(b":method") != b"POST" or not path.startswith("/v1/projects/"):
            return errors.NO_PAGE
        scheme, _, token = lines.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return errors.NO_CREDENTIALS
        if self.tokens is not None and not self.tokens.accepts(token):
            if self.tokens.knows(token):
                self.violate("expired access token used", connection, received)
            return errors.EXPIRED_ACCESS
        if path != self._path:
            return errors.NO_PROJECT
        if not lines.get(b"content-type", b"").startswith(b"application/json"):
            return errors.invalid("Content type is not JSON")
        return None

    def _accept(self, token: str) -> Script:
        """Accept a message, or treat it as the beginning of its token says."""
        if self.prefixes and token.startswith("fcm-"):
            for beginning, answer in PREFIXES.items():
                if token.startswith(beginning):
                    return (answer,)
        number, tail = self.random.getrandbits(50), self.random.getrandbits(64)
        body = b'{\n  "name": "projects/%s/messages/0:%016d%%%016x"\n}\n' % (
            self.project.encode(),
            number,
            tail,
        )
        return (Respond(200, errors.JSON, body, pieces=1 + number % 2, empty_end=number % 3 == 0),)

    def _watch(self, connection: Connection, received: Received, lines: dict[bytes, bytes]) -> None:
        """Record what a good client does not do, whatever the answer will be."""
        if b"authorization" in lines and not received.never_indexed(b"authorization"):
            self.violate("authorization not never-indexed", connection, received)
        if b"host" in lines and b":authority" in lines:
            self.violate("both host and :authority", connection, received)
        before = self._unaccepted.get(received.body)
        if before is None:
            return
        not_before = before.not_before
        if before.verdict[:3] in ("403", "404") and self._mended_at >= before.at:
            not_before = min(not_before, before.at + RETRY_AFTER)
        early = self.clock.seconds() < not_before
        if before.verdict[:3] == "400" or before.verdict in FINAL:
            self.violate("refused message sent again", connection, received)
        elif before.verdict[:3] == "401":
            if before.unauthorized > 1 and early:
                self.violate("401 retried more than once", connection, received)
        elif early:
            self.violate("retried too soon", connection, received)
