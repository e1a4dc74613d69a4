"""One HTTP/1.1 connection: Twisted's, with a bound on all that a peer can take of us.

What goes beyond a bound is answered in JSON and hung up on.
"""

# ruff: noqa: N802, N815 -- in camelCase is what Twisted calls or reads
# Nor is Twisted's server annotated.
# mypy: allow-untyped-calls

import enum
import select
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel

from bouncerd.envelope import BAD_REQUEST, WireError, render_error

log = Logger()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one peer, or all together, may take. Sizes in bytes, times in seconds."""

    body: int = 256 * 1024
    bodies: Mapping[bytes, int] = field(default_factory=dict)  # by path, where `body` is too small
    long_bodies: int = 12  # at once, of those
    receive_within: float = 60.0  # from a request's first byte to its last
    idle: float = 75.0  # between requests
    linger: float = 2.0  # after its last byte, for a peer we refused to read why
    hang_up: float = 15.0  # to take what we still have for it
    early_reads: int = 64  # reads while its last request is being worked on
    connections: int = 4000

    def limit(self, uri: bytes) -> int:
        """Say how long the body of a request for `uri` may be."""
        path = b"/" + uri.partition(b"?")[0].lstrip(b"/")
        return self.bodies.get(path, self.body)


class Quota(Protocol):
    """How much may be logged."""

    def take(self) -> bool:
        """Say whether one more line may."""


class Place(Protocol):
    """What a channel needs of the site that made it."""

    clock: IReactorTime
    bounds: Bounds
    channels: set["Channel"]
    line_quota: Quota
    leaving: bool

    def next_id(self) -> bytes:
        """Make an id for an answer."""

    def note_refused(self, status: int) -> None:
        """Count an answer to what never became a request."""


class _State(enum.Enum):
    IDLE = "between requests"
    RECEIVING = "a request is coming in"
    WORKING = "a request is being answered"
    REFUSED = "it reads why, we read nothing"
    CLOSING = "what we have for it goes out"


class Channel(HTTPChannel):
    """One connection. `site` is set before it is made."""

    MAX_LENGTH = 16384  # of the request line and of each header
    maxHeaders = 100
    totalHeadersSize = 16384

    site: Place
    transport: Any

    _state = _State.IDLE
    _deaf = False  # in a state in which nothing more is read; asked for each line
    _entered = 0.0  # this state
    _heard = 0.0  # from the peer, since it was refused
    _early = 0

    # --- what Twisted calls

    def connectionMade(self) -> None:
        """Start the clock; have the kernel ask after a peer that fell silent."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpKeepAlive(True)
        self._enter(_State.IDLE)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Take what came in, if we still listen."""
        if self._state is _State.WORKING:
            self._early += 1
            if self._early > self.site.bounds.early_reads:
                self.transport.abortConnection()
                return
        if self._deaf:
            self._heard = self.site.clock.seconds()
        else:
            if self._state is _State.IDLE:
                self._enter(_State.RECEIVING)
            super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """Take a line of a request's head."""
        if not self._deaf:
            if self._state is _State.IDLE:
                self._enter(_State.RECEIVING)
            super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        """Take a piece of a body, or of an early request."""
        if not self._deaf:
            super().rawDataReceived(data)

    def allHeadersReceived(self) -> None:
        """Refuse a body that will be too long before any of it comes, or 100 Continue goes."""
        limit = self.site.bounds.limit(self._path)
        if self.length is not None and self.length > limit:
            self.refuse(413, "Request body too large")
            return
        self.requests[-1].limit = limit
        super().allHeadersReceived()

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Say whether another request may follow, and to the peer if none may."""
        persistent = bool(super().checkPersistence(request, version))
        if persistent and self.site.leaving:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return persistent and not self.site.leaving

    def allContentReceived(self) -> None:
        """Hand the request on."""
        if not self._deaf:
            self._early = 0
            self._enter(_State.WORKING)
            super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        """Be ready for the next one."""
        self._enter(_State.IDLE)
        super().requestDone(request)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002
        """Refuse a head that does not end."""
        self.refuse(400, "Malformed request")

    def loseConnection(self) -> None:
        """Close once all is written."""
        self._enter(_State.CLOSING)
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let go of it."""
        self.site.channels.discard(self)
        super().connectionLost(reason)

    def _respondToBadRequestAndDisconnect(self) -> None:
        # The one place through which Twisted answers what it cannot parse.
        self.refuse(400, "Malformed request")

    # --- ours

    def refuse(self, status: int, msg: str, code: str = BAD_REQUEST) -> None:
        """Answer without looking further, and listen no more."""
        if self._deaf:
            return
        body = render_error(WireError(status, code, msg))
        request_id = self.site.next_id().decode()
        head = (
            f"HTTP/1.1 {status} {RESPONSES[status].decode()}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"X-Request-Id: {request_id}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        # Closed now, the socket would send a peer that is still sending a reset, not the answer.
        self._enter(_State.REFUSED)
        self.site.note_refused(status)
        if self.site.line_quota.take():
            log.info(
                "Request {request_id} refused: {status} {reason}",
                request_id=request_id,
                status=status,
                reason=msg,
            )

    def make_last(self) -> None:
        """Have the answer to the request that is here be the last one."""
        for request in self.requests:
            self.persistent = False
            if not request.startedWriting:
                request.responseHeaders.setRawHeaders(b"Connection", [b"close"])

    def part(self, now: float, quiet: float) -> None:
        """Hang up if no request is here or on its way, nor was in the last `quiet` seconds.

        A peer may always send one at this very moment, and see us gone; HTTP/1.1 has no goodbye
        but an answer. One who has just been here comes back soon, and gets it; of the others
        this looks into the socket last.
        """
        if self._state is _State.IDLE and now - self._entered >= quiet and not self._has_unread():
            self.loseConnection()

    def cut_short(self, reason: str) -> None:
        """Refuse what comes in too slowly; 503, for the peer may ask again."""
        if self._state is _State.RECEIVING:
            self.refuse(503, reason)

    def _has_unread(self) -> bool:
        fileno = getattr(self.transport, "fileno", None)
        if fileno is None:
            return False
        poll = select.poll()
        poll.register(fileno(), select.POLLIN)
        return bool(poll.poll(0))

    @property
    def busy(self) -> bool:
        """Whether a request is here, or on its way."""
        return self._state in (_State.RECEIVING, _State.WORKING)

    def sweep(self, now: float) -> None:
        """End what has gone on for too long; `now` is the clock's seconds."""
        bounds = self.site.bounds
        spent = now - self._entered
        if self._state is _State.IDLE and spent >= bounds.idle:
            self.loseConnection()
        elif self._state is _State.RECEIVING and spent >= bounds.receive_within:
            self.refuse(408, "Request took too long")
        elif self._state is _State.REFUSED and (
            now - self._heard >= bounds.linger or spent >= bounds.receive_within
        ):
            self.loseConnection()
        elif self._state is _State.CLOSING and spent >= bounds.hang_up:
            self.transport.abortConnection()

    def _enter(self, state: _State) -> None:
        self._state = state
        self._deaf = state is _State.REFUSED or state is _State.CLOSING
        self._entered = self._heard = self.site.clock.seconds()
