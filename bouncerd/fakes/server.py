"""One connection of a fake: an HTTP/2 server that can misbehave on command.

The client's frames are looked at one by one, recorded and given to h2 to judge. Answers are
scripts (`steps.py`), chosen by the service (`front.py`). GOAWAY and SETTINGS are written as
bytes, so that h2 goes on serving what a real server would.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHandshakeListener, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from bouncerd.fakes import frames, judge
from bouncerd.fakes.allowance import Allowance
from bouncerd.fakes.exchange import Exchange
from bouncerd.fakes.intake import Intake
from bouncerd.fakes.outlet import Outlet
from bouncerd.fakes.records import Received, Visit
from bouncerd.fakes.rules import CONNECT, HANDSHAKE
from bouncerd.fakes.steps import Headers, Script, Wait
from bouncerd.fakes.terms import PROBE, Terms

if TYPE_CHECKING:
    from bouncerd.fakes.front import Front

PING_GAP = 5.0  # seconds between the PINGs of an idle client


@implementer(IHandshakeListener)
class Connection(Protocol):
    """One client's connection. `session` is the service's own memory of it."""

    transport: ITCPTransport | None = None
    outlet: Outlet

    def __init__(self, front: "Front", visit: Visit) -> None:
        self.front = front
        self.visit = visit
        self.session: Any = None
        self.allowance = Allowance()
        self.closed = False
        self._clock = front.clock
        self._splitter = frames.Splitter()
        self._judge = judge.Judge()
        self._terms = Terms()
        self._requests: dict[int, Received] = {}  # open streams
        self._given_up: set[int] = set()  # by us, while the client may still be sending
        self._highest = 0
        self._unread: tuple[int, ...] | None = ()  # frame types not to read; None: all
        self._intake = Intake(front.clock)
        self._pinged_at: float | None = None
        self._waiting: set[Exchange] = set()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._requests)} open"
        return f"<Connection {self.visit.number} of {self.front.name}, {state}>"

    # -- what Twisted calls

    def connectionMade(self) -> None:
        """Greet the client. Over TLS this is before the handshake: the bytes wait for it."""
        assert self.transport is not None
        self.outlet = Outlet(self.transport.write, self._clock)
        self.front.connections.append(self)
        self.front.opened(self)
        act = self.front.rules.find(CONNECT, self.visit.number)
        self.play(self.front.greeting if act is None else act, Exchange(self))

    def handshakeCompleted(self) -> None:
        """Note what TLS settled on."""
        negotiated = getattr(self.transport, "negotiatedProtocol", None)
        self.visit.protocol = negotiated.decode("ascii") if negotiated else None
        self.front.secured(self)
        act = self.front.rules.find(HANDSHAKE, self.visit.number)
        if act is not None:
            self.play(act, Exchange(self))

    def dataReceived(self, data: bytes) -> None:
        """Take bytes from the client; write what is due to it."""
        self._intake.took(len(data))
        try:
            for frame in self._splitter.feed(data):
                if self.closed:
                    return
                self._receive(frame)
        except (judge.ProtocolError, frames.NotHttp2) as error:
            self._violate("protocol error", 0, f"{type(error).__name__}: {error}")
            self.close("fin")
        for stream, increment in self.allowance.due():
            self.write(frames.window_update(stream, increment))
        self.flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - Twisted's
        """Close the record: nothing more will be answered."""
        self._end()
        self.visit.closed_at = self._clock.seconds()
        if self in self.front.connections:
            self.front.connections.remove(self)

    # -- what scripts and services call

    def play(self, script: Script, exchange: Exchange) -> None:
        """Run a script: up to its first wait now, the rest after it."""
        for index, step in enumerate(script):
            if self.closed or self._terms.too_high(exchange.stream):
                break
            if type(step) is Wait:
                rest = script[index + 1 :]
                exchange.timer = self._clock.callLater(step.seconds, self._wake, rest, exchange)
                self._waiting.add(exchange)
                break
            step.run(exchange)
        self.flush()

    def greet(self) -> None:
        """Send the service's first frames."""
        self.send_settings(self.front.first_settings(self))
        if self.front.connection_credit:
            self.write(frames.window_update(0, self.front.connection_credit))
            self.allowance.grant(self.front.connection_credit)

    def send_settings(self, values: Mapping[int, int]) -> None:
        """Write SETTINGS; they bind the client once it has acknowledged them."""
        self.write(frames.settings(values))
        self._terms.announce(values, self._clock.seconds())

    def goaway(self, last_stream: int | None, code: int, debug: bytes, *, probe: bool) -> None:
        """Write GOAWAY; streams above its last one are not looked at from now on."""
        last = self._highest if last_stream is None else last_stream
        self._terms.leave(last)
        self.visit.goaway_sent.append(last)
        self.write(frames.goaway(last, code, debug))
        if probe:
            self.write(frames.ping(PROBE))
        for stream in [stream for stream in self._requests if self._terms.too_high(stream)]:
            self._pass_over(stream)

    def settle(self, received: Received, verdict: str) -> bool:
        """Record what a request is answered; False if that was settled before."""
        return self.front.ledger.settle(received, verdict, self._clock.seconds())

    def send_headers(self, stream: int, lines: Headers, *, end: bool, regardless: bool) -> None:
        """Send HEADERS, unless the client has reset the stream (`regardless` sends them still)."""
        if regardless:
            self.write(frames.headers(stream, self._judge.encode(lines), end_stream=end))
        elif not self._judge.headers(stream, lines, end=end):
            return
        if end:
            self._finished(stream)

    def send_data(self, stream: int, body: bytes, *, end: bool, regardless: bool) -> None:
        """Send DATA as soon as the client's windows have room (`regardless`: now)."""
        if regardless:
            self.write(frames.data(stream, body, end_stream=end))
        elif self._judge.data(stream, body, end=end):
            self._finished(stream)

    def reset(self, stream: int, code: int) -> None:
        """Send RST_STREAM, also after a whole response."""
        if not self._judge.reset(stream, code):
            self.write(frames.rst_stream(stream, code))
        self._given_up.add(stream)
        self._finished(stream)

    def write(self, octets: bytes) -> None:
        """Add bytes behind everything written so far."""
        self._collect()
        self.outlet.add(octets)

    def flush(self) -> None:
        """Hand to the transport what was written since the last time."""
        if not self.closed:
            self._collect()
            self.outlet.flush()

    def ignore(self, kinds: tuple[int, ...] | None) -> None:
        """Read no frames of these types; None: read nothing at all, the socket included."""
        self._unread = kinds
        if kinds is None and self.transport is not None:
            self._intake.shut(self.transport)

    def slow_down(self, rate: float, buffer: int) -> None:
        """Read only so many bytes a second; see `steps.Slow`."""
        self._intake.narrow(self.transport, rate, buffer)

    def encode(self, lines: Headers) -> bytes:
        """Encode a header block for frames that are written by hand."""
        return self._judge.encode(lines)

    def raw_answer(self, stream: int, octets: bytes) -> None:
        """Write a whole answer that was framed by hand."""
        self.write(octets)
        self._finished(stream)

    def close(self, how: str, after: int | None = None) -> None:
        """End the connection; see `steps.Close`."""
        if self.closed or self.transport is None:
            return
        self._collect()
        if after is not None:
            self.outlet.truncate(after)
        self.outlet.release()
        self._end()
        if how == "abort":
            self.transport.abortConnection()
        elif how == "cut":
            getattr(self.transport, "transport", self.transport).loseConnection()
        else:
            self.transport.loseConnection()

    # -- reading

    def _receive(self, frame: frames.Frame) -> None:
        """Look at one frame, then let h2 judge it."""
        if self._unread is None or frame.kind in self._unread or not self._look(frame):
            return
        for event in self._judge.receive(frame.raw):
            self._happen(event)

    def _look(self, frame: frames.Frame) -> bool:
        """Note what h2 would not tell of a frame; False: h2 is not to see it."""
        kind = frame.kind
        if kind == frames.HEADERS:
            self._look_at_headers(frame)
        elif kind == frames.DATA:
            last = bool(frame.flags & frames.END_STREAM)
            overdrawn = self.allowance.spend(frame.stream, len(frame.payload), last=last)
            if overdrawn is not None:
                self._violate("DATA beyond the window", frame.stream, overdrawn)
            if frame.stream in self._given_up:
                return False  # h2 would answer it with one more RST_STREAM
        elif kind == frames.SETTINGS:
            self._look_at_settings(frame)
        elif kind == frames.PRIORITY:
            self._violate("PRIORITY", frame.stream)
        elif kind == frames.PING:
            self._look_at_ping(frame)
        elif kind == frames.GOAWAY:
            self.visit.goaway_received = True
            return False  # h2 would hear nothing after it
        return True

    def _look_at_settings(self, frame: frames.Frame) -> None:
        if not frame.flags & frames.ACK:
            self.visit.client_settings.update(frames.parse_settings(frame.payload))
            return
        self.visit.settings_acks += 1
        values, late = self._terms.acknowledge(self._clock.seconds())
        if late:
            self._violate("SETTINGS acknowledged late", 0)
        if frames.INITIAL_WINDOW_SIZE in values:
            self.allowance.acknowledged(values[frames.INITIAL_WINDOW_SIZE])
        if frames.HEADER_TABLE_SIZE in values:
            self._judge.limit_table(values[frames.HEADER_TABLE_SIZE])

    def _look_at_headers(self, frame: frames.Frame) -> None:
        if frame.flags & frames.PRIORITY_FLAG:
            self._violate("PRIORITY", frame.stream)
        if frame.stream <= self._highest:
            return
        self._highest = frame.stream
        self.visit.streams += 1
        rule = self._terms.object_to_opening()
        if rule is not None:
            self._violate(rule, frame.stream)

    def _look_at_ping(self, frame: frames.Frame) -> None:
        if frame.flags & frames.ACK:
            self._terms.pong(frame.payload)
            return
        now, before = self._clock.seconds(), self._pinged_at
        self.visit.pings += 1
        self._pinged_at = now
        self.front.pinged(self)
        if self._requests:
            return
        if not self.front.idle_pings:
            self._violate("PING while idle", 0)
        elif before is not None and now - before < PING_GAP:
            self._violate("PING too often while idle", 0)

    def _happen(self, event: object) -> None:
        """Act on what h2 made of a frame."""
        if isinstance(event, judge.RequestReceived):
            self._request(event)
        elif isinstance(event, judge.DataReceived):
            if event.flow_controlled_length:
                self._judge.widen(event.flow_controlled_length, event.stream_id)
            received = self._requests.get(event.stream_id)
            if received is not None:
                received.body += event.data
        elif isinstance(event, judge.StreamEnded):
            self._answer(event.stream_id)
        elif isinstance(event, judge.StreamReset):
            received = self._requests.get(event.stream_id)
            if received is not None and self.settle(received, "withdrawn"):
                self.front.settled(self, received)
            self._finished(event.stream_id)
        elif isinstance(event, judge.WindowUpdated | judge.RemoteSettingsChanged):
            for stream in self._judge.unblock():
                self._finished(stream)

    def _request(self, event: judge.RequestReceived) -> None:
        """Begin a stream: record its headers, refuse it if it is one too many."""
        stream = event.stream_id
        fields = judge.read_fields(event)
        received = Received(self.visit.number, stream, self._clock.seconds(), fields)
        self.front.ledger.receive(received)
        self._requests[stream] = received
        if self._terms.too_high(stream):
            self._pass_over(stream)
            return
        self.allowance.opened(stream)
        count = self.visit.open_streams = len(self._requests)
        self.visit.most_streams = max(self.visit.most_streams, count)
        if self._terms.breaks_limit(count):
            self._violate("stream above the limit", stream, f"{count} open")
        if self._terms.breaks_header_list(fields):
            self._violate("header list too large", stream)
        if self._terms.over_limit(count):
            self.play(self.front.over_limit, Exchange(self, stream, received))

    def _answer(self, stream: int) -> None:
        """Ask the service what to do with a complete request, and do it."""
        received = self._requests.get(stream)
        if received is not None:
            script = self.front.answer(self, received, (stream + 1) // 2)
            self.play(script, Exchange(self, stream, received))

    # -- the ends of things

    def _finished(self, stream: int) -> None:
        """Free the place that a stream took."""
        self._requests.pop(stream, None)
        self.visit.open_streams = len(self._requests)
        self.allowance.closed(stream)

    def _pass_over(self, stream: int) -> None:
        """Give up a stream above our GOAWAY, without a word."""
        self.settle(self._requests[stream], "ignored")
        self._given_up.add(stream)
        self._finished(stream)

    def _wake(self, rest: Script, exchange: Exchange) -> None:
        self._waiting.discard(exchange)
        self.play(rest, exchange)

    def _collect(self) -> None:
        """Take what h2 wrote. Before our first SETTINGS it waits: they come first."""
        if self._terms.greeted:
            written = self._judge.written()
            if written:
                self.outlet.add(written)

    def _violate(self, rule: str, stream: int, detail: str = "") -> None:
        self.front.ledger.violate(rule, self.visit, stream, self._clock.seconds(), detail)

    def _end(self) -> None:
        """Stop everything that was going to happen on this connection."""
        if self.closed:
            return
        self.closed = True
        self.outlet.stop()
        self._intake.stop()
        for exchange in self._waiting:
            if exchange.timer is not None:
                exchange.timer.cancel()
        self._waiting.clear()
        if self._terms.overdue(self._clock.seconds()):
            self._violate("SETTINGS never acknowledged", 0)
        requests, self._requests = self._requests, {}
        for received in requests.values():
            if self.settle(received, "dropped"):
                self.front.settled(self, received)
