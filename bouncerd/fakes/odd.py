"""Frames that few servers write and none should: legal oddities, and what breaks the protocol.

For a client each of `ILLEGAL` is a reason to end the connection, none of `LEGAL` is.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame

from bouncerd.fakes import frames
from bouncerd.fakes.steps import Headers, Raw, Script, Settings, Step

if TYPE_CHECKING:
    from bouncerd.fakes.exchange import Exchange


def written(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """Write any frame at all; `length` is what its header claims, if that is not the truth."""
    size = len(payload) if length is None else length
    return size.to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


#: What breaks the protocol on any connection, whatever its streams do.
ILLEGAL: dict[str, bytes] = {
    "a frame over the limit": written(frames.DATA, 0, 1, bytes(16_385)),
    "a frame that claims 16 MiB": written(frames.DATA, 0, 1, b"", 0xFFFFFF),
    "a short PING": written(frames.PING, 0, 0, b"hello"),
    "SETTINGS of five bytes": written(frames.SETTINGS, 0, 0, b"hello"),
    "SETTINGS on a stream": written(frames.SETTINGS, 0, 1, b""),
    "a stream window over 2^31-1": frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}),
    "a window widened by 0": written(frames.WINDOW_UPDATE, 0, 0, bytes(4)),
    "a window widened too far": frames.window_update(0, 2**31 - 1),
    "a short GOAWAY": written(frames.GOAWAY, 0, 0, b"bye"),
    "a short RST_STREAM": written(frames.RST_STREAM, 0, 1, b"no"),
    "DATA on no stream": written(frames.DATA, 0, 0, b"hello"),
    "HEADERS of a stream never opened": frames.headers(2**31 - 1, b"\x88", end_stream=True),
    "a promise": written(frames.PUSH_PROMISE, 0x4, 1, b"\0\0\0\2\x88"),
    "a continuation of nothing": written(9, 0x4, 1, b"\x88"),
    "more padding than frame": written(frames.DATA, 0x8, 1, b"\xffhello"),
    "a header block that hpack cannot read": frames.headers(1, b"\xff\xff\xff\xff\xff\xff"),
    "HTTP/1.1": b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n",
    "noise": bytes(range(255, 0, -1)),
}

#: What a client must pass over.
LEGAL: dict[str, Step] = {
    "an unknown frame on the connection": Raw(written(0xBE, 0xFF, 0, b"extension")),
    "an unknown frame on a stream": Raw(written(0xF0, 0, 1, bytes(1000))),
    "an unknown setting": Settings(((0xFE01, 7),)),
    "empty SETTINGS": Settings(()),
    "a reserved bit": Raw(b"\0\0\x08\x06\0\x80\0\0\0fakefake"),
    "PRIORITY": Raw(written(frames.PRIORITY, 0, 1, b"\0\0\0\0\x10")),
    "an acknowledgement of no PING": Raw(frames.ping(b"unasked!", ack=True)),
}


def flood(count: int) -> Script:
    """Make the script that sends so many SETTINGS at once."""
    return (Settings(((frames.MAX_CONCURRENT_STREAMS, 100),)),) * count


@dataclass(frozen=True, slots=True)
class Fragmented:
    """Answer with the header block in so many frames (HEADERS, CONTINUATION, ...), all padded.

    `empty` is how many empty DATA frames come before the last one.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    fragments: int = 3
    padding: int = 0
    empty: int = 0
    name: str = ""

    def run(self, exchange: "Exchange") -> None:
        """Write the answer."""
        lines = ((":status", str(self.status)), *exchange.echo(), *self.headers)
        block = exchange.connection.encode(lines)
        written = [*self._head(exchange.stream, block), *self._rest(exchange.stream)]
        exchange.connection.raw_answer(
            exchange.stream, b"".join(frame.serialize() for frame in written)
        )
        exchange.settle(self.name or str(self.status), self.headers)

    def _head(self, stream: int, block: bytes) -> list[Frame]:
        size = -(-len(block) // self.fragments)
        first, rest = block[:size], block[size:]
        pieces = [rest[at : at + size] for at in range(0, len(rest), size)]
        flags = [] if self.body or self.empty else ["END_STREAM"]
        head = HeadersFrame(stream, first, flags=flags)
        if self.padding:
            head.flags.add("PADDED")
            head.pad_length = self.padding
        found: list[Frame] = [head, *(ContinuationFrame(stream, piece) for piece in pieces)]
        found[-1].flags.add("END_HEADERS")
        return found

    def _rest(self, stream: int) -> list[Frame]:
        if not self.body and not self.empty:
            return []
        padded = ["PADDED"] if self.padding else []
        last = DataFrame(stream, self.body, flags=[*padded, "END_STREAM"])
        last.pad_length = self.padding
        return [*(DataFrame(stream, b"") for _ in range(self.empty)), last]
