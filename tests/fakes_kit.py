"""A client of the fakes that writes raw frames and reads raw frames; no HTTP/2 library helps it.

Nothing here comes from the product either: header blocks are hpack's, frames are hyperframe's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes import frames, steps
from bouncerd.fakes.bearers import Key
from bouncerd.fakes.credentials import make_account
from bouncerd.fakes.exchange import Exchange
from bouncerd.fakes.front import Front
from bouncerd.fakes.records import Received
from bouncerd.fakes.rules import Match
from bouncerd.fakes.server import Connection
from bouncerd.fakes.steps import Headers, Respond, Script

NOW = 1_800_000_000.0  # unix seconds
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TOPIC = "org.example.app"
SECRETS = (":path", "authorization", "apns-id")  # sent as never indexed
Lines = list[tuple[str, str]]


@dataclass
class Answer:
    """What came back on one stream, so far."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: int = 0
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> str:
        """The answer's `:status`, "" while there is none."""
        return self.headers.get(":status", "")


class RawClient:
    """One connection to a fake, in memory."""

    def __init__(
        self, front: Front, *, greet: bool = True, transport: StringTransport | None = None
    ) -> None:
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.transport = StringTransport() if transport is None else transport
        connection = front.buildProtocol(None)
        assert connection is not None
        self.connection = connection
        self.connection.makeConnection(self.transport)
        self.answers: dict[int, Answer] = {}
        self.settings: list[dict[int, int]] = []
        self.goaways: list[GoAwayFrame] = []
        self.credits: list[tuple[int, int]] = []
        self.pongs: list[bytes] = []
        self.next_stream = 1
        self._unread = b""
        if greet:
            self.greet()

    def greet(self) -> None:
        """Send what a client sends first."""
        self.write(PREFACE, SettingsFrame(settings={2: 0}))

    def write(self, *parts: bytes | Frame) -> None:
        """Send frames, or bytes, in one segment; read what comes back at once."""
        self.connection.dataReceived(
            b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts)
        )
        self.read()

    def read(self) -> list[Frame]:
        """Parse what the fake has written; acknowledge SETTINGS and PINGs like a good client."""
        self._unread += self.transport.value()
        self.transport.clear()
        frames, owed = [], []
        while len(self._unread) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._unread[:9]))
            if len(self._unread) < 9 + length:
                break
            frame.parse_body(memoryview(self._unread[9 : 9 + length]))
            self._unread = self._unread[9 + length :]
            frames.append(frame)
            owed += self._note(frame)
        if owed:
            self.write(*owed)
        return frames

    def _note(self, frame: Frame) -> list[Frame]:
        """File a frame under what it is; return what it asks of the client."""
        answer = self.answers.setdefault(frame.stream_id, Answer())
        if isinstance(frame, HeadersFrame):
            lines = {str(name): str(value) for name, value in self.decoder.decode(frame.data)}
            (answer.trailers if answer.headers else answer.headers).update(lines)
            answer.ended = "END_STREAM" in frame.flags
        elif isinstance(frame, DataFrame):
            answer.body += frame.data
            answer.pieces += 1
            answer.ended = "END_STREAM" in frame.flags
        elif isinstance(frame, RstStreamFrame):
            answer.reset = frame.error_code
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append(frame)
        elif isinstance(frame, WindowUpdateFrame):
            self.credits.append((frame.stream_id, frame.window_increment))
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.settings.append(dict(frame.settings))
            return [SettingsFrame(flags=["ACK"])]
        elif isinstance(frame, PingFrame):
            if "ACK" in frame.flags:
                self.pongs.append(frame.opaque_data)
            else:
                return [PingFrame(opaque_data=frame.opaque_data, flags=["ACK"])]
        return []

    def headers_frame(self, lines: Lines, *, end: bool = False) -> HeadersFrame:
        """Make the HEADERS of the next stream; `SECRETS` never indexed."""
        block = self.encoder.encode(
            [
                (NeverIndexedHeaderTuple if name in SECRETS else HeaderTuple)(name, value)
                for name, value in lines
            ]
        )
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        frame = HeadersFrame(self.next_stream, data=block, flags=flags)
        self.next_stream += 2
        return frame

    def request(self, lines: Lines, body: bytes) -> int:
        """Send a whole request in one segment; return its stream."""
        head = self.headers_frame(lines)
        self.write(head, DataFrame(head.stream_id, data=body, flags=["END_STREAM"]))
        return head.stream_id

    def answer(self, stream: int) -> Answer:
        """Return what came back on a stream."""
        self.read()
        return self.answers.get(stream, Answer())


def signing_key() -> ec.EllipticCurvePrivateKey:
    """Make a key to sign provider tokens with."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def account() -> dict[str, str]:
    """Return a service account: one for all tests, since its key takes long to make."""
    return make_account()


def known(key: ec.EllipticCurvePrivateKey, key_id: str = "KEY1", team: str = "TEAM1") -> Key:
    """Describe a key to the fake."""
    return Key(key_id, team, key.public_key())


def bearer(
    key: ec.EllipticCurvePrivateKey,
    issued_at: float = NOW,
    key_id: str = "KEY1",
    team: str = "TEAM1",
) -> str:
    """Sign a provider token; the header's value."""
    claims = {"iss": team, "iat": int(issued_at)}
    return "bearer " + jwt.encode(claims, key, "ES256", headers={"kid": key_id})


def push_lines(authorization: str | None, token: str = "ab" * 32, **others: str | None) -> Lines:
    """List the headers of an ordinary push; `others` replaces (None: leaves out) by name."""
    lines: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "https",
        ":authority": "api.push.apple.com",
        ":path": f"/3/device/{token}",
        "authorization": authorization,
        "apns-topic": TOPIC,
        "apns-push-type": "alert",
    }
    lines |= {name.replace("_", "-"): value for name, value in others.items()}
    return [(name, value) for name, value in lines.items() if value is not None]


GET: Lines = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "localhost"),
    (":path", "/"),
]


class Echo(Front):
    """A service that answers 200 with the request's body."""

    name = "echo"

    def __init__(self, clock: Clock, settings: Mapping[int, int] | None = None) -> None:
        super().__init__(clock, latency=(0, 0), seed=0, ledger=None)
        self._settings = {frames.MAX_CONCURRENT_STREAMS: 10} if settings is None else settings

    def first_settings(self, _connection: Connection) -> Mapping[int, int]:
        """Return what the test wants."""
        return self._settings

    def echo(self, _received: Received) -> Headers:
        """Return a header to know the service by."""
        return (("server", "echo"),)

    def judge(self, connection: Connection, received: Received) -> Script:
        """Answer with the body."""
        return (Respond(200, body=received.body),)


class Laboratory(SynchronousTestCase):
    """One service, one client, one clock."""

    settings: Mapping[int, int] | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.front = Echo(self.clock, self.settings)
        self.client = RawClient(self.front)

    def act(self, *act: steps.Step) -> None:
        """Make the next request be answered so."""
        self.front.on(Match(), *act, count=1)

    def ask(self, body: bytes = b"hello") -> int:
        """Send a request; return its stream."""
        return self.client.request(GET, body)

    def broken(self) -> list[str]:
        """Name the rules that the client broke."""
        return self.front.ledger.rules_broken()

    def verdicts(self) -> list[str]:
        """List what the requests were answered."""
        return [received.verdict for received in self.front.ledger.received]


def everything(connection: Connection) -> Exchange:
    """Make the exchange that stands for a whole connection."""
    return Exchange(connection)
