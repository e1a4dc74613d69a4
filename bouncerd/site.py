"""Our HTTP/1.1 server: connections within bounds, requests with an id, and what is logged of them.

Nothing that came in is logged, but for what we know by our own names. Bodies stay in memory: no
disk ever sees one.
"""

# ruff: noqa: N802, N815 -- in camelCase is what Twisted calls or reads
# Nor is Twisted's server annotated.
# mypy: allow-untyped-calls

import itertools
import os
from collections.abc import Callable
from http import HTTPStatus
from io import BytesIO
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import datetimeToString
from twisted.web.resource import IResource

from bouncerd.channel import Bounds, Channel
from bouncerd.envelope import BAD_REQUEST, WireError, render_error
from bouncerd.logs import Verbosity
from bouncerd.meters import HUNG_UP, OTHER, Requests
from bouncerd.redaction import described

log = Logger()

INTERNAL_ERROR = WireError(500, None, "Internal server error")
_BUSY = "The push bouncer is busy; try again later."


class Request(server.Request):
    """One request and its answer. `endpoint` and `caller` are for the log, in our own words."""

    defaultContentType = b"application/json"

    channel: Any
    endpoint = OTHER
    caller = "nobody"
    request_id = b""
    began = 0.0
    limit = 0
    _size = 0

    def getRequestHostname(self) -> bytes:
        """Name the host. It is of no interest here, and some values of Host upset URL routing."""
        return b"localhost"

    def setResponseCode(self, code: int, message: bytes | None = None) -> None:
        """Set the status; Twisted has no words for 429."""
        super().setResponseCode(code, message or HTTPStatus(code).phrase.encode())

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, if that is not more than may come."""
        self._size += len(data)
        site: Site = self.channel.site
        if self._size > self.limit:
            self.channel.refuse(413, "Request body too large")
        elif self._size <= site.bounds.body or self in site.long_bodies:
            super().handleContentChunk(data)
        elif not site.has_room_for(self):
            self.channel.refuse(503, _BUSY)
        else:
            super().handleContentChunk(data)
            site.knows(self).addCallbacks(self._go_on, lambda _: self._stop(503, _BUSY))

    def _go_on(self, is_known: bool) -> None:
        """Let a long body come in from a caller that we know, and from nobody else."""
        if not is_known:
            self._stop(401, "Only a registered server may send this much", "UNAUTHORIZED")

    def _stop(self, status: int, msg: str, code: str = BAD_REQUEST) -> None:
        # What is all here is worked on, and that says what is wrong with it. Or nobody listens.
        if not self.request_id and self.channel is not None:
            self.channel.site.long_bodies.discard(self)
            self.channel.refuse(status, msg, code)

    def finish(self) -> None:
        """End it: its answer is written."""
        self.channel.site.long_bodies.discard(self)
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        """End it: nobody waits for its answer."""
        site: Site = self.channel.site
        site.long_bodies.discard(self)
        if self.request_id:
            site.note(self, HUNG_UP)
        super().connectionLost(reason)

    def process(self) -> None:
        """Answer it; the resource is the same for all paths."""
        site: Site = self.channel.site
        self.site = site
        self.began = site.clock.seconds()
        self.request_id = site.next_id()
        self.responseHeaders.setRawHeaders(b"X-Request-Id", [self.request_id])
        self.responseHeaders.setRawHeaders(b"Date", [site.date()])
        self.prepath = []
        self.postpath = _segments(self.path)
        try:
            self.render(site.resource)
        except Exception:  # noqa: BLE001 -- whatever it was, the caller gets an answer
            self.processingFailed(Failure())

    def processingFailed(self, reason: Failure) -> Failure:
        """Answer 500, and log what it was but not what it said."""
        note_fault(self, reason)
        body = render_error(INTERNAL_ERROR)
        self.setResponseCode(500)
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()
        return reason


def note_fault(request: Request, reason: Failure) -> None:
    """Log a fault of ours: its class, its place, its request. What it says may be content."""
    kind = reason.type or BaseException
    what = described(kind, cast(BaseException, reason.value), reason.getTracebackObject())
    log.error(
        "Request {request_id} to {endpoint} failed: {reason} at {place}",
        request_id=request.request_id.decode(),
        endpoint=request.endpoint,
        reason=what["error"],
        place=what["where"],
    )


def _segments(path: bytes) -> list[bytes]:
    """Split a path as the URL map wants it, leading slashes collapsed; [] if it is no text."""
    whole = unquote_to_bytes(path.lstrip(b"/"))
    try:
        whole.decode()
    except UnicodeDecodeError:
        return []
    return whole.split(b"/")


class LineQuota:
    """So many log lines a second for what callers do wrong: a flood of it must not fill a disk."""

    def __init__(self, clock: IReactorTime, limit: int = 20) -> None:
        self._clock = clock
        self._limit = limit
        self._second = -1
        self._taken = 0

    def take(self) -> bool:
        """Ask for a line; say how many there was no room for, once that is known."""
        second = int(self._clock.seconds())
        if second != self._second:
            missed = self._taken - self._limit
            if missed > 0:
                log.info("{count} more requests were not logged", count=missed)
            self._second, self._taken = second, 0
        self._taken += 1
        return self._taken <= self._limit


class Site(server.Site):
    """Makes channels, and looks after them once a second. `verbosity`: logs what went well, too.

    `knows` says of a request whose head came in whether its caller may send a long body.
    """

    protocol = Channel  # type: ignore[assignment]  # HTTP/1.1 only, without Twisted's switch
    requestFactory = Request

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        now: Callable[[], float],
        bounds: Bounds | None = None,
        *,
        verbosity: Verbosity | None = None,
        knows: Callable[[Request], Deferred[bool]] = lambda _: succeed(True),
    ) -> None:
        # No time-outs of Twisted's: `_sweep` sees to them all, and costs a request nothing.
        super().__init__(resource, reactor=clock, timeout=None, parsePOSTFormSubmission=False)
        self.clock = clock
        self.bounds = bounds or Bounds()
        self.channels: set[Channel] = set()
        self.long_bodies: set[Request] = set()
        self.line_quota = LineQuota(clock)
        self.quiet = False  # at the default level no answer is logged
        self.knows = knows
        self._now = now
        self._verbosity = verbosity or Verbosity()
        self.requests = Requests()
        self.leaving = False
        self._numbers = itertools.count(1)
        self._prefix = os.urandom(4).hex().encode()
        self._date = (0, b"")
        self._sweep_call: IDelayedCall | None = None
        self._full = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make a channel, or hang up on one connection too many."""
        full = len(self.channels) >= self.bounds.connections
        if full != self._full and self.line_quota.take():
            self._full = full
            log.warn("Connections: {count}, full: {full}", count=len(self.channels), full=full)
        if full:
            return None
        channel = super().buildProtocol(addr)
        self.channels.add(channel)
        if self._sweep_call is None:
            self._sweep_call = self.clock.callLater(1.0, self._sweep)
        return channel

    def has_room_for(self, request: Request) -> bool:
        """Say whether there is room for a long body, and keep it; it ends with its request."""
        if request not in self.long_bodies and len(self.long_bodies) >= self.bounds.long_bodies:
            return False
        self.long_bodies.add(request)
        return True

    def leave(self, quiet: float) -> None:
        """Let each connection's next answer be its last; hang up on those that stay quiet.

        They are those on which nothing was asked for so many seconds. It is over when `channels`
        is empty. Nobody listens any more.
        """
        if not self.leaving:
            self.leaving = True
            for channel in self.channels:
                channel.make_last()
        now = self.clock.seconds()
        for channel in list(self.channels):
            channel.part(now, quiet)
            channel.sweep(now)

    def cut_short(self) -> None:
        """Refuse what is still coming in, and hang up on who is quiet."""
        self.leave(0.0)
        for channel in list(self.channels):
            channel.cut_short(_BUSY)

    @property
    def busy(self) -> bool:
        """Whether any request is here, or on its way."""
        return any(channel.busy for channel in self.channels)

    def startFactory(self) -> None:
        """Start. (Twisted's own keeps a clock running for its access log.)"""

    def stopFactory(self) -> None:
        """Stop sweeping."""
        if self._sweep_call is not None:
            self._sweep_call.cancel()
            self._sweep_call = None

    def acceptableProtocols(self) -> list[bytes]:
        """Name what TLS may negotiate."""
        return [b"http/1.1"]

    def getContentFile(self, length: int | None) -> BytesIO:  # noqa: ARG002
        """Make a place for a body."""
        return BytesIO()

    def next_id(self) -> bytes:
        """Make a request's id: unique in a log, short enough to be read out."""
        return b"%s-%x" % (self._prefix, next(self._numbers))

    def date(self) -> bytes:
        """Return the time for a header; the text is made once a second."""
        now = int(self._now())
        if now != self._date[0]:
            self._date = (now, datetimeToString(now))
        return self._date[1]

    def log(self, request: Any) -> None:
        """Note an answer that went out (Twisted's name for it)."""
        self.note(request, request.code)

    def note_refused(self, status: int) -> None:
        """Count an answer to what never became a request."""
        self.requests.note_refused(status)

    def note(self, request: Request, status: int) -> None:
        """Count a request's end; log it, at the default level only if it was no plain success."""
        took = self.clock.seconds() - request.began
        self.requests.note(request.endpoint, status, took)
        plain = 200 <= status < 300 or self.quiet
        if not self._verbosity.verbose and (plain or not self.line_quota.take()):
            return
        emit = log.error if status >= 500 else log.info
        emit(
            "Request {request_id} to {endpoint} by {server}: {status} after {took} ms",
            request_id=request.request_id.decode(),
            endpoint=request.endpoint,
            server=request.caller,
            status=status,
            took=round(took * 1000),
        )

    def _sweep(self) -> None:
        self._sweep_call = None
        now = self.clock.seconds()
        for channel in list(self.channels):
            channel.sweep(now)
        if self.channels:
            self._sweep_call = self.clock.callLater(1.0, self._sweep)
