"""Providers in memory, for links, pools and lanes: no sockets, one clock, frames by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hyperframe.frame import DataFrame, HeadersFrame
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from bouncerd.apns import goaway_outcome
from bouncerd.endings import Ending
from bouncerd.http2 import Request, Response
from bouncerd.link import Link
from bouncerd.model import (
    Delivered,
    Device,
    Gone,
    Kind,
    Message,
    Misconfigured,
    Outcome,
    Push,
    Refused,
    Retry,
)
from tests.http2_kit import Peer, a_request


@dataclass
class Received:
    """One request as the server saw it."""

    stream_id: int
    path: str
    body: bytes


class Connection:
    """The server's side of one connection, and the client's transport."""

    negotiatedProtocol: bytes | None = b"h2"  # noqa: N815 -- Twisted's name

    def __init__(self, clock: Clock) -> None:
        self.peer = Peer()
        self.requests: list[Received] = []
        self.frames: list[str] = []
        self.writes = 0
        self.open = True
        self.aborted = False
        self.deaf = False  # reads nothing: the transport's buffer fills
        self.client: Link | None = None
        self._clock = clock
        self._unfinished: dict[int, Received] = {}

    # what the client's side calls

    def write(self, data: bytes) -> None:
        """Read the client's frames."""
        self.writes += 1
        for frame in self.peer.read(data):
            self.frames.append(type(frame).__name__.removesuffix("Frame"))
            if isinstance(frame, HeadersFrame):
                fields: Any = dict(self.peer.decoder.decode(frame.data))
                self._unfinished[frame.stream_id] = Received(
                    frame.stream_id, str(fields[":path"]), b""
                )
            elif isinstance(frame, DataFrame):
                request = self._unfinished[frame.stream_id]
                request.body += frame.data
                if "END_STREAM" in frame.flags:
                    self.requests.append(self._unfinished.pop(frame.stream_id))

    def loseConnection(self) -> None:  # noqa: N802
        """Close: the client said goodbye."""
        self._clock.callLater(0, self.lose, ConnectionDone())

    def abortConnection(self) -> None:  # noqa: N802
        """Close at once."""
        self.aborted = True
        self._clock.callLater(0, self.lose, ConnectionLost())

    def registerProducer(self, producer: Link, streaming: bool) -> None:  # noqa: N802
        """Take note of nothing."""

    def unregisterProducer(self) -> None:  # noqa: N802
        """Take note of nothing."""

    # what a test says

    def lose(self, reason: Exception | None = None) -> None:
        """Break the connection."""
        if self.open:
            self.open = False
            assert self.client is not None
            self.client.connectionLost(Failure(reason or ConnectionLost()))

    def say(self, frames: bytes) -> None:
        """Send the client frames."""
        assert self.client is not None
        self.client.dataReceived(frames)

    def answer_all(self, status: int = 200, body: bytes = b"") -> int:
        """Answer each request that waits, in one read; return how many."""
        waiting, self.requests = self.requests, []
        if waiting:
            self.say(b"".join(self.peer.answer(each.stream_id, status, body) for each in waiting))
        return len(waiting)


class Server:
    """Accepts connections (`settings`: said at once; None: silence), or refuses them."""

    def __init__(self, clock: Clock, **settings: int) -> None:
        self.clock = clock
        self.settings: dict[str, int] | None = settings or {"max_streams": 100}
        self.refusing = False
        self.connections: list[Connection] = []
        self.dials: list[float] = []

    def connect(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        """Be dialed (pool.Connect)."""
        self.dials.append(self.clock.seconds())
        if self.refusing:
            return fail(Failure(ConnectError()))
        connection = Connection(self.clock)
        link = factory.buildProtocol(None)  # type: ignore[arg-type]
        assert isinstance(link, Link)
        connection.client = link
        link.makeConnection(connection)
        self.connections.append(connection)
        if self.settings is not None:
            connection.say(connection.peer.settings(**self.settings))
        return succeed(link)

    @property
    def open(self) -> list[Connection]:
        """The connections that live."""
        return [each for each in self.connections if each.open]

    def answer_all(self, status: int = 200, body: bytes = b"") -> int:
        """Answer whatever waits on any connection."""
        return sum(each.answer_all(status, body) for each in self.open)


class Ear:
    """A ticket that keeps what it hears."""

    def __init__(self) -> None:
        self.endings: list[Ending] = []

    def ended(self, ending: Ending) -> None:
        """Keep it."""
        self.endings.append(ending)


OUTCOMES: dict[int, Callable[[], Outcome]] = {
    200: Delivered,
    410: lambda: Gone("Unregistered", 5.0),
    404: lambda: Gone("BadDeviceToken"),
    400: lambda: Refused("PayloadTooLarge"),
    503: lambda: Retry("ServiceUnavailable"),
    429: lambda: Retry("TooManyRequests", after=40.0),
    401: lambda: Misconfigured("InvalidProviderToken", spoiled=True),
    403: lambda: Misconfigured("InvalidProviderToken"),
    500: lambda: Retry("Shutdown", spoiled=True),
}


class SimpleProvider:
    """A provider whose answers mean what their status says."""

    name = "apns"

    def __init__(self) -> None:
        self.ready = True
        self.fails = False

    def session(self, now: float) -> object:
        """Keep nothing."""
        return object()

    def request(self, session: object, push: Push, now: float) -> Request | Outcome:
        """Put the push's id in the path."""
        if self.fails:
            raise RuntimeError("canary")
        if not push.device.token:
            return Refused("PayloadEmpty")
        return a_request(push.message.body, f"/{push.device.token}".encode())

    def outcome(self, session: object, push: Push, response: Response, now: float) -> Outcome:
        """Read the status."""
        return OUTCOMES[response.status]()

    def goodbye(self, debug: bytes) -> Retry | Misconfigured | None:
        """Read what Apple says."""
        return goaway_outcome(debug)


APP = "org.example.app"


def a_push(
    token: str = "c0ffee", server: str = "s1", *, urgent: bool = True, app: str = APP
) -> Push:
    """Return a push that is good for a day from the clock's zero."""
    device = Device(1, Kind.APNS, token, app, 0.0, user_id=5)
    message = Message(Kind.APNS, b"{}", urgent=urgent)
    return Push("0e6f1b9c-7b5c-4b43-9f1a-64f1d7a6b111", server, device, message, 86_400.0)
