"""A client's side of one HTTP/2 connection, without I/O (RFC 9113).

Bytes in, endings out; requests in, bytes out. Knows HTTP/2; nothing of sockets, clocks, Twisted
or pushes. Each ticket submitted ends exactly once: as `Answered`, as `Unsent` (the server did
not act on it: safe to send again) or as `Lost` (nobody knows).

h2 keeps the preface, SETTINGS and PING (control.py). It hears nothing after GOAWAY, so the answers
that a graceful GOAWAY promises would be lost (apns.md 5.5); left with the connection's window it
stops after 2 GiB, since it never sees our DATA; and its header code costs nine times what a push
needs (performance.md 3). So GOAWAY, windows and request streams are ours. Any error of the peer's
ends the connection and every request on it.
"""

from collections import OrderedDict
from collections.abc import Hashable

from bouncerd import frames
from bouncerd.control import Control
from bouncerd.endings import Answered, Ending, GoAway, Lost, Unsent
from bouncerd.fields import EMPTY_TABLE_UPDATE, Request, Response, Template
from bouncerd.frames import (
    INITIAL_WINDOW,
    MAX_WINDOW,
    FrameReader,
    ProtocolFault,
    ReceiveWindow,
    frame,
    pack_head,
    pack_u32,
)
from bouncerd.headers import HeaderReader
from bouncerd.stream import Stream, status_of

__all__ = ["Answered", "Conversation", "Ending", "GoAway", "Lost", "Request", "Response"]
__all__ += ["Template", "Unsent"]

#: A provider's longest answer is a web page of a few KiB; the rest of a longer one is not read.
MAX_BODY = 32_768
#: Streams in flight, however many more the server would take.
MAX_STREAMS = 1_000
#: The connection retires long before its stream ids end at 2^31-1 (RFC 9113, 5.1.1).
LAST_STREAM_ID = 2**30
#: Frames without any progress of a request that a server may send before it is a flood.
MAX_IDLE_FRAMES = 10_000
#: A full-sized push and its envelope: what `free` reserves for each.
TYPICAL_BODY = 5_120


class Conversation:
    """One connection. `probe`: one stream until the first answer, as Apple asks (apns.md 5.2)."""

    def __init__(self, *, probe: bool = False) -> None:
        self._control = Control()
        self._header_reader = HeaderReader(frames.MAX_HEADER_BLOCK)
        self._probing = probe
        self._reader = FrameReader()
        self._out: list[bytes] = [self._control.preface]
        self._endings: list[Ending] = []
        self._waiting: OrderedDict[Hashable, Request] = OrderedDict()
        self._waiting_bytes = 0
        self._streams: dict[int, Stream] = {}
        self._stream_ids: dict[Hashable, int] = {}
        self._next_id = 1
        self._table_update = b""
        self._initial_window = INITIAL_WINDOW
        self._send_window = INITIAL_WINDOW
        self._starved = 0  # the stream, if any, whose body the connection's window did not hold
        self._receive_window = ReceiveWindow()
        self._idle_frames = 0
        self.ready = False  # the server's SETTINGS have arrived
        self.draining = False  # no new request is taken
        self.closed = False
        self.why = ""  # it was closed
        self.answers = 0
        self.goaway: GoAway | None = None

    # --- what its owner asks and says

    @property
    def open_streams(self) -> int:
        """How many requests are in flight."""
        return len(self._streams)

    @property
    def pending(self) -> int:
        """How many requests have not ended: in flight, or waiting for a stream."""
        return len(self._streams) + len(self._waiting)

    @property
    def limit(self) -> int:
        """How many streams may be open at once now."""
        return min(self._control.max_streams, 1 if self._probing else MAX_STREAMS)

    @property
    def free(self) -> int:
        """How many more requests would be sent at once; 0 before SETTINGS and when draining."""
        if not self.ready or self.draining:
            return 0
        slots = self.limit - len(self._streams) - len(self._waiting)
        room = (self._send_window - self._waiting_bytes) // TYPICAL_BODY
        if slots > room:
            # A window that never grows past a small push must not stop an idle connection.
            slots = max(room, 0 if self._streams or self._waiting else 1)
        return max(slots, 0)

    def submit(self, ticket: Hashable, request: Request) -> None:
        """Take a request; it ends under this ticket. Send what `data_to_send` returns."""
        if self.draining:
            raise ValueError("this connection takes no more requests")
        if ticket in self._waiting or ticket in self._stream_ids:
            raise ValueError("the ticket is in use")
        self._waiting[ticket] = request
        self._waiting_bytes += len(request.body)

    def withdraw(self, ticket: Hashable) -> Ending | None:
        """Give a request up: its ending, or None if it has ended already."""
        if ticket in self._waiting:
            self._waiting_bytes -= len(self._waiting.pop(ticket).body)
            return Unsent(ticket, "withdrawn")
        stream_id = self._stream_ids.get(ticket)
        if stream_id is None:
            return None
        self._reset(stream_id, frames.CANCEL)
        return self._cut_off(stream_id, "withdrawn")

    @property
    def exhausted(self) -> bool:
        """Whether it is time to retire: the stream ids have an end (RFC 9113, 5.1.1)."""
        return self._next_id > LAST_STREAM_ID

    def data_to_send(self, *, opening: bool = True) -> bytes:
        """Return the bytes to write, after opening what streams and windows allow."""
        if opening and self._waiting and self.ready:
            self._open_streams()
        data = b"".join(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes) -> list[Ending]:
        """Take bytes of the server's; return the requests that ended with them."""
        if self.closed:
            return []
        try:
            for kind, flags, stream_id, payload, size in self._reader.feed(data):
                if not self.ready:
                    self._first_received(kind, flags, payload)
                self._received(kind, flags, stream_id, payload, size)
        except ProtocolFault as fault:
            self._endings = self.finish(fault.why, fault.code)
        endings, self._endings = self._endings, []
        return endings

    def ping(self) -> None:
        """Ask for a sign of life; any bytes that come are one."""
        self._out.append(self._control.ping())

    def drain(self) -> list[Ending]:
        """Take no more requests, give back the waiting ones; those in flight may finish."""
        self.draining = True
        returned = [Unsent(ticket, "connection is draining") for ticket in self._waiting]
        self._waiting.clear()
        self._waiting_bytes = 0
        return list(returned)

    def finish(self, why: str, code: int = frames.NO_ERROR) -> list[Ending]:
        """End everything: the connection is gone, or about to be closed by us."""
        if self.closed:
            return []
        # What was noted by a read that an unforeseen exception ended is not to be lost with it.
        endings, self._endings, self.why = self._endings, [], why
        endings += [self._cut_off(stream_id, why) for stream_id in list(self._streams)]
        endings += self.drain()
        self._out.append(frame(frames.GOAWAY, 0, 0, pack_u32(0) + pack_u32(code)))
        self.closed = True
        return endings

    # --- sending

    def _open_streams(self) -> None:
        limit = self.limit
        while self._waiting and len(self._streams) < limit and not self._starved:
            ticket, request = next(iter(self._waiting.items()))
            # The connection's window is reserved for the whole body before the stream opens, so
            # that no stream is left half-sent for want of it (apns.md 5.2 and 5.3). But a window
            # that stays below one body must not stop an idle connection: then it goes in pieces.
            if len(request.body) > self._send_window and self._streams:
                return
            self._waiting.popitem(last=False)
            self._waiting_bytes -= len(request.body)
            self._open(ticket, request)

    def _open(self, ticket: Hashable, request: Request) -> None:
        stream_id = self._next_id
        self._next_id += 2
        block, body = request.block, request.body
        if self._table_update:
            block, self._table_update = self._table_update + block, b""
        size, length = len(block), len(body)
        stream = self._streams[stream_id] = Stream(ticket, self._initial_window)
        self._stream_ids[ticket] = stream_id
        if length > self._send_window:
            self._starved = stream_id
        else:
            self._send_window -= length
        head = pack_head(size >> 8, size & 0xFF, frames.HEADERS, frames.END_HEADERS, stream_id)
        if length <= stream.window and not self._starved:
            stream.window -= length
            data = pack_head(length >> 8, length & 0xFF, frames.DATA, frames.END_STREAM, stream_id)
            self._out += (head, block, data, body)
        else:
            self._out += (head, block)
            stream.unsent = body
            self._send_rest(stream_id, stream)

    def _send_rest(self, stream_id: int, stream: Stream) -> None:
        """Send of a body what the windows allow (the connection's is reserved, as a rule)."""
        starved = stream_id == self._starved
        room = min(stream.window, self._send_window) if starved else stream.window
        chunk = stream.unsent[: max(room, 0)]
        if not chunk:
            return
        if starved:
            self._send_window -= len(chunk)
        stream.unsent = stream.unsent[len(chunk) :]
        stream.window -= len(chunk)
        if starved and not stream.unsent:
            self._starved = 0
        flags = 0 if stream.unsent else frames.END_STREAM
        self._out.append(frame(frames.DATA, flags, stream_id, chunk))

    def _reset(self, stream_id: int, code: int) -> None:
        self._out.append(frame(frames.RST_STREAM, 0, stream_id, pack_u32(code)))

    # --- receiving

    def _received(self, kind: int, flags: int, stream_id: int, payload: bytes, size: int) -> None:
        self._idle_frames += 10 if kind == frames.SETTINGS else 1  # it may move every window
        if self._idle_frames > MAX_IDLE_FRAMES:
            raise ProtocolFault(frames.ENHANCE_YOUR_CALM, "a flood of frames")
        if kind == frames.HEADERS:
            self._headers_received(flags, stream_id, payload)
        elif kind == frames.DATA:
            self._data_received(flags, stream_id, payload, size)
        elif kind == frames.WINDOW_UPDATE:
            self._credit_received(stream_id, frames.u32(payload))
        elif kind == frames.RST_STREAM:
            self._reset_received(stream_id, frames.u32(payload))
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolFault(frames.PROTOCOL_ERROR, "a server push, which we have disabled")
        elif kind in (frames.SETTINGS, frames.PING, frames.GOAWAY):
            if stream_id:
                raise ProtocolFault(frames.PROTOCOL_ERROR, "a frame of the connection on a stream")
            if kind == frames.GOAWAY:
                self._goaway_received(payload)
            else:
                self._control_received(kind, flags, payload)

    def _first_received(self, kind: int, flags: int, payload: bytes) -> None:
        """Insist on SETTINGS; but keep what a GOAWAY in its place says (apns.md 6)."""
        if kind == frames.GOAWAY:
            self._goaway_received(payload)
        if kind != frames.SETTINGS or flags & frames.ACK:
            raise ProtocolFault(frames.PROTOCOL_ERROR, "the first frame is not SETTINGS")

    def _stream(self, stream_id: int) -> Stream | None:
        """Return an open stream, None for one that has ended; others were never opened."""
        stream = self._streams.get(stream_id)
        if stream is None and (stream_id >= self._next_id or not stream_id & 1):
            raise ProtocolFault(frames.PROTOCOL_ERROR, "a frame for a stream that was never opened")
        return stream

    def _headers_received(self, flags: int, stream_id: int, block: bytes) -> None:
        stream = self._stream(stream_id)
        # Blocks of streams that have ended are decoded too: they share the reader's table.
        headers = self._header_reader.read(block)
        if stream is None:
            return
        if stream.status:
            if not flags & frames.END_STREAM:
                self._malformed(stream_id, "a second header block in mid-response")
                return
        else:
            status = status_of(headers)
            if status < 200:
                if not status or flags & frames.END_STREAM:
                    self._malformed(stream_id, "a response without a final status")
                return
            stream.status = status
            stream.headers = tuple(headers)
            self.answers += 1
            self._idle_frames = 0
            if status < 500:
                self._probing = False
        if flags & frames.END_STREAM:
            self._answered(stream_id, stream)

    def _data_received(self, flags: int, stream_id: int, payload: bytes, size: int) -> None:
        stream = self._stream(stream_id)
        self._out.append(self._receive_window.take(size))
        if stream is None:
            return
        if payload:
            self._idle_frames = 0
        if not stream.status:
            self._malformed(stream_id, "a body before its status")
            return
        stream.size += size
        stream.body.append(payload)
        if stream.size > MAX_BODY:
            self._reset(stream_id, frames.CANCEL)
            self._endings.append(self._cut_off(stream_id, "a body over the limit"))
        elif flags & frames.END_STREAM:
            self._answered(stream_id, stream)

    def _control_received(self, kind: int, flags: int, payload: bytes) -> None:
        self._out.append(self._control.received(kind, flags, payload))
        if kind == frames.SETTINGS and not flags & frames.ACK:
            self.ready = True
            if self._control.table_shrank:
                # RFC 7541, 4.2: the next block says so, though our table is always empty.
                self._table_update = EMPTY_TABLE_UPDATE
            delta = self._control.initial_window - self._initial_window
            self._initial_window += delta
            for stream_id, stream in self._streams.items() if delta else ():
                self._widen(stream_id, stream, delta)

    def _widen(self, stream_id: int, stream: Stream, credit: int) -> None:
        stream.window += credit
        if stream.window > MAX_WINDOW:
            raise ProtocolFault(frames.FLOW_CONTROL_ERROR, "a stream's window over 2^31-1")
        if stream.unsent:
            self._send_rest(stream_id, stream)

    def _credit_received(self, stream_id: int, word: int) -> None:
        credit = word & MAX_WINDOW
        if not credit:
            raise ProtocolFault(frames.PROTOCOL_ERROR, "a window widened by 0")
        if stream_id:
            stream = self._stream(stream_id)
            if stream is not None:
                self._widen(stream_id, stream, credit)
            return
        self._send_window += credit
        if self._starved:
            self._send_rest(self._starved, self._streams[self._starved])
        if self._send_window > MAX_WINDOW:
            raise ProtocolFault(frames.FLOW_CONTROL_ERROR, "the connection's window over 2^31-1")

    def _reset_received(self, stream_id: int, code: int) -> None:
        stream = self._stream(stream_id)
        if stream is None:
            return
        self._idle_frames = 0
        if not stream.status and code == frames.REFUSED_STREAM:
            self._forget(stream_id)
            self._endings.append(Unsent(stream.ticket, "refused by the server", refused=True))
        else:
            self._endings.append(self._cut_off(stream_id, "reset by the server"))

    def _goaway_received(self, payload: bytes) -> None:
        """Let what the server promised finish; give back the rest (RFC 9113, 6.8)."""
        last_id, code, debug = frames.goaway(payload)
        if self.goaway is None:
            self.goaway = GoAway(last_id, code, debug)
        for stream_id in [each for each in self._streams if each > last_id]:
            ticket = self._forget(stream_id)
            self._endings.append(Unsent(ticket, "above the last stream that the server took"))
        self._endings += self.drain()

    # --- ending

    def _answered(self, stream_id: int, stream: Stream) -> None:
        if stream.unsent:
            self._reset(stream_id, frames.NO_ERROR)  # the server knows enough: the stream is over
        self._forget(stream_id)
        self._endings.append(Answered(stream.ticket, stream.response(complete=True)))

    def _malformed(self, stream_id: int, why: str) -> None:
        self._reset(stream_id, frames.PROTOCOL_ERROR)
        self._endings.append(self._cut_off(stream_id, why))

    def _cut_off(self, stream_id: int, why: str) -> Ending:
        """End a stream before its time: with a status seen, that is the answer."""
        stream = self._streams[stream_id]
        self._forget(stream_id)
        if stream.status:
            return Answered(stream.ticket, stream.response(complete=False))
        return Lost(stream.ticket, why)

    def _forget(self, stream_id: int) -> Hashable:
        stream = self._streams.pop(stream_id)
        del self._stream_ids[stream.ticket]
        if stream_id == self._starved:
            self._starved = 0
        else:
            self._send_window += len(stream.unsent)  # reserved, and never sent
        return stream.ticket
