"""One persistent HTTP/2 connection to a provider: the Twisted shell round http2.py.

Bytes in and out, deadlines, signs of life, age. What the requests mean, and when to connect
again, is for others (lane.py, pool.py).
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol as Interface
from typing import cast

from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from bouncerd.endings import Ending, GoAway
from bouncerd.http2 import Conversation, Request
from bouncerd.words import words

log = Logger()


@dataclass(frozen=True, slots=True)
class Manners:
    """How a provider wants its connections treated (apns.md 5.6, fcm.md 5). Seconds throughout."""

    answer_within: float  # of a request, from when it was given to the link
    quiet: float  # nothing heard for so long with requests in flight: ask for a sign of life
    pong_within: float = 10.0
    idle_ping: float | None = None  # ask an idle connection as often; None: never
    idle_close: float | None = None  # close an idle connection after; None: never
    max_age: float = 86_400.0
    drain_within: float = 10.0  # after GOAWAY, for what it promised
    ready_within: float = 20.0  # TLS handshake and SETTINGS
    probe: bool = False  # one request until the first answer (http2.Conversation)
    silent_deadlines: int = 3  # unanswered requests in a row that prove a dead connection


class Ticket(Hashable, Interface):
    """What a request is given to a link for: told its ending, exactly once."""

    def ended(self, ending: Ending) -> None:
        """Take the ending. Must not raise."""


class Transport(Interface):
    """What the link needs of the TLS (in tests: in-memory) transport under it."""

    negotiatedProtocol: bytes | None  # noqa: N815 -- Twisted's name

    def write(self, data: bytes) -> None:
        """Send."""

    def loseConnection(self) -> None:  # noqa: N802 -- Twisted's name
        """Close when all is written."""

    def abortConnection(self) -> None:  # noqa: N802 -- Twisted's name
        """Close now."""

    def registerProducer(self, producer: "Link", streaming: bool) -> None:  # noqa: N802
        """Have the link paused while the peer does not read."""

    def unregisterProducer(self) -> None:  # noqa: N802 -- Twisted's name
        """No longer."""


class Owner(Interface):
    """Who made the link: told what becomes of it."""

    def link_ready(self, link: "Link") -> None:
        """Hear that requests may be given to it."""

    def link_roomy(self, link: "Link") -> None:
        """Hear that it may have room for more; what is given to it now goes out with this turn."""

    def link_silent(self, link: "Link") -> None:
        """Hear that a request's time is up, and that nothing was answered since it was sent."""

    def link_draining(self, link: "Link") -> None:
        """Hear that it takes nothing more, and will close."""

    def link_lost(self, link: "Link", why: str) -> None:
        """Hear that it is gone; all its requests have ended."""


@implementer(IHandshakeListener, IPushProducer)
class Link(Protocol):
    """A connection: give it requests while `free`; each one's ticket hears its ending."""

    transport: Transport | None  # type: ignore[assignment]  # ITransport lacks what TLS offers

    def __init__(
        self, clock: IReactorTime, manners: Manners, owner: Owner, spread: float = 1.0
    ) -> None:
        """`spread` scales the maximum age, so that links made together do not end together."""
        self._clock = clock
        self._manners = manners
        self._owner = owner
        self._max_age = manners.max_age * spread
        self._conversation = Conversation(probe=manners.probe)
        self._deadlines: dict[Ticket, float] = {}
        self._tick_call: IDelayedCall | None = None
        self._flush_call: IDelayedCall | None = None
        self._close_at: float | None = None
        self._ping_sent_at: float | None = None
        self._silent = 0  # deadlines of requests since whose sending nothing was answered
        self._answers_then = 0
        self._answered_at = self._busy_since = float("-inf")
        self._reading = False
        self._paused_at: float | None = None
        self._told_ready = self._told_draining = self._closing = False
        self._why = ""
        self.session: object = None  # what the provider keeps for one connection
        self.useful = False  # its pool says so once a push was judged on its merits
        self.born = self.heard = self.used = clock.seconds()
        self.sent_at = float("-inf")  # of the latest request

    def __repr__(self) -> str:
        conversation = self._conversation
        state = "ready" if self.ready else "draining" if conversation.draining else "not ready"
        return (
            f"<Link {state}, {conversation.open_streams} of {conversation.limit} streams,"
            f" {conversation.answers} answers>"
        )

    # --- for its owner

    @property
    def ready(self) -> bool:
        """Whether it takes requests: the server's SETTINGS came, and nobody says goodbye."""
        return self._conversation.ready and not self._conversation.draining

    @property
    def draining(self) -> bool:
        """Whether it takes nothing more, and will close."""
        return self._conversation.draining

    @property
    def free(self) -> int:
        """How many requests it would send at once now."""
        return 0 if self._paused_at is not None else self._conversation.free

    @property
    def answers(self) -> int:
        """How many requests were answered on it."""
        return self._conversation.answers

    @property
    def farewell(self) -> str:
        """Why we end it, "" while we do not."""
        return self._why

    @property
    def in_flight(self) -> int:
        """How many requests it holds that have not ended."""
        return self._conversation.pending

    @property
    def goaway(self) -> GoAway | None:
        """The server's first GOAWAY."""
        return self._conversation.goaway

    def send(self, ticket: Ticket, request: Request) -> None:
        """Give it a request: written at the end of this reactor turn."""
        if not self._conversation.pending:
            self._busy_since = self._clock.seconds()
        self._conversation.submit(ticket, request)
        self.used = self.sent_at = self._clock.seconds()
        self._deadlines[ticket] = self.used + self._manners.answer_within
        self._flush_soon()

    def withdraw(self, ticket: Ticket) -> None:
        """Give a request up: it ends now, unless it has ended already."""
        ending = self._conversation.withdraw(ticket)
        if ending is not None:
            self._tell([ending])
            self._after_event()
            self._flush_soon()

    def drain(self, why: str) -> None:
        """Take nothing more; close when what is in flight has ended, or its time is up."""
        self._why = self._why or why
        self._tell(self._conversation.drain())
        self._after_event()

    def abort(self, why: str) -> None:
        """End everything at once: the connection is not to be trusted."""
        self._why = self._why or why
        if self.transport is not None:
            self.transport.abortConnection()

    # --- for Twisted

    def connectionMade(self) -> None:
        """Say the preface; it waits behind the TLS handshake."""
        assert self.transport is not None
        self.transport.registerProducer(self, True)
        self._flush()
        self._tick_call = self._clock.callLater(1.0, self._tick)

    def handshakeCompleted(self) -> None:
        """Refuse a peer that chose another protocol: something in between intercepts TLS."""
        assert self.transport is not None
        if self.transport.negotiatedProtocol not in (None, b"", b"h2"):
            self.abort("ALPN chose another protocol than h2 (a TLS-intercepting proxy?)")

    def dataReceived(self, data: bytes) -> None:
        """Take bytes: tell who was answered, then write once for all that follows from it."""
        self.heard = self._clock.seconds()
        self._ping_sent_at = None
        self._reading = True
        try:
            endings = self._conversation.receive(data)
            if self.answers != self._answers_then:
                self._answers_then, self._answered_at, self._silent = self.answers, self.heard, 0
            if endings:
                self._tell(endings)
            self._after_event()
        finally:
            self._reading = False
        self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End what is left, in its right way."""
        why = self._why or words(reason, self.transport)
        for call in (self._tick_call, self._flush_call):
            if call is not None and call.active():
                call.cancel()
        self._tell(self._conversation.finish("the connection was lost"))
        self._owner.link_lost(self, why)

    def pauseProducing(self) -> None:
        """Open no more streams: the peer does not read."""
        if self._paused_at is None:
            self._paused_at = self._clock.seconds()

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused_at = None
        self._owner.link_roomy(self)
        self._flush_soon()

    def stopProducing(self) -> None:
        """Do nothing: connectionLost follows."""

    # --- within

    def _tell(self, endings: list[Ending]) -> None:
        # The oldest last: each that has to go again is put in front of the others of its server.
        for ending in reversed(endings):
            ticket = cast(Ticket, ending.ticket)
            self._deadlines.pop(ticket, None)
            try:
                ticket.ended(ending)
            except Exception:  # noqa: BLE001 -- the others must hear their endings all the same
                log.failure("A ticket failed to take its ending")

    def _after_event(self) -> None:
        """Tell the owner what changed, and close what is finished."""
        conversation = self._conversation
        if conversation.ready and not self._told_ready:
            self._told_ready = True
            self._owner.link_ready(self)
        if conversation.closed and not self._closing:
            self._why = self._why or f"it broke the protocol: {conversation.why}"
        if conversation.draining or conversation.closed:
            if not self._told_draining:
                self._told_draining = True
                self._close_at = self._clock.seconds() + self._manners.drain_within
                self._owner.link_draining(self)
            if not conversation.pending:
                self._close()
        else:
            self._owner.link_roomy(self)

    def _close(self) -> None:
        """Say goodbye; `_tick` aborts if the peer does not close its side in time."""
        if self._closing:
            return
        self._closing = True
        self._tell(self._conversation.finish("the connection was closed"))
        self._flush()
        self._close_at = self._clock.seconds() + self._manners.pong_within
        if self.transport is not None:
            self.transport.unregisterProducer()
            if self._conversation.ready:
                self.transport.loseConnection()
            else:  # perhaps in mid-handshake, where TLS would wait for it to end
                self.transport.abortConnection()

    def _flush_soon(self) -> None:
        if not self._reading and self._flush_call is None:
            self._flush_call = self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        if self._flush_call is not None:
            if self._flush_call.active():
                self._flush_call.cancel()
            self._flush_call = None
        data = self._conversation.data_to_send(opening=self._paused_at is None)
        if data and self.transport is not None:
            self.transport.write(data)

    def _tick(self) -> None:
        """Look after the connection, once a second."""
        self._tick_call = self._clock.callLater(1.0, self._tick)
        now = self._clock.seconds()
        why = self._verdict(now)
        if why:
            self.abort(why)
            return
        self._give_up_late(now)
        if self.ready:
            self._keep(now)
        self._flush()

    def _verdict(self, now: float) -> str:
        """Say why the connection is dead or useless, if it is."""
        manners = self._manners
        if self._close_at is not None and now >= self._close_at:
            return "the peer did not finish in time after the goodbye"
        if not self._conversation.ready and now >= self.born + manners.ready_within:
            return "no HTTP/2 SETTINGS in time"
        if self._ping_sent_at is not None and now >= self._ping_sent_at + manners.pong_within:
            return "no answer to a PING in time"
        deaf_since = self._paused_at if self._conversation.ready else None  # else: the handshake
        if deaf_since is not None and now >= deaf_since + manners.answer_within:
            return "the peer has stopped reading"
        if self._silent >= manners.silent_deadlines:
            return "requests in a row without an answer"
        return ""

    def _give_up_late(self, now: float) -> None:
        late: dict[Ticket, float] = {}
        for ticket, deadline in self._deadlines.items():
            if deadline > now:
                break
            late[ticket] = deadline
        # The deadline starts when the link gets the request, so that no stream leaks. It tells of
        # the connection only if nothing else was answered meanwhile.
        unanswered_since = self._answered_at + self._manners.answer_within
        silent = sum(deadline >= unanswered_since for deadline in late.values())
        if silent:
            self._silent += silent
            self._owner.link_silent(self)  # before anybody looks for a link to repeat them on
        for ticket in late:
            self.withdraw(ticket)

    def _keep(self, now: float) -> None:
        """Ask for a sign of life when it is due; retire by age, by idleness, by stream ids."""
        manners = self._manners
        busy = self._conversation.open_streams > 0
        quiet = manners.quiet if busy else manners.idle_ping
        last = max(self.heard, self._busy_since if busy else self.used)
        if self._conversation.exhausted or now >= self.born + self._max_age:
            self.drain("its age")
        elif not busy and manners.idle_close is not None and now >= self.used + manners.idle_close:
            self.drain("idle")
        elif quiet is not None and now >= last + quiet and self._ping_sent_at is None:
            self._ping_sent_at = now
            self._conversation.ping()
