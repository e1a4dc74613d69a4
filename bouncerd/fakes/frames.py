"""HTTP/2 frames as bytes, in and out, for what an HTTP/2 library would not let a server do.

Reading is ours (nine bytes of header, RFC 9113 section 4.1); writing is hyperframe's. Nothing
here is shared with the product's own framing: a fake that borrowed it would prove nothing.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hyperframe import frame as hyper

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE = range(9)

ACK = 0x1  # SETTINGS and PING
END_STREAM = 0x1  # HEADERS and DATA
PRIORITY_FLAG = 0x20  # HEADERS carrying a priority

HEADER_TABLE_SIZE = 0x1
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
REFUSED_STREAM = 0x7
CANCEL = 0x8
ENHANCE_YOUR_CALM = 0xB


class Frame(NamedTuple):
    """One frame as it came; `raw` is the whole of it, header included."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    raw: bytes


class NotHttp2(ValueError):
    """The client did not begin as an HTTP/2 client does."""


class Splitter:
    """Cuts a client's byte stream into its preface and its frames, however it was segmented."""

    def __init__(self) -> None:
        self._pending = b""
        self._begun = False  # the preface is in
        self._settled = False  # and the first frame, which is SETTINGS

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes; yield each frame that is now complete. Raises NotHttp2."""
        self._pending += data
        if not self._begun:
            if self._pending[: len(PREFACE)] != PREFACE[: len(self._pending)]:
                raise NotHttp2("no connection preface")
            if len(self._pending) < len(PREFACE):
                return
            self._begun, self._pending = True, self._pending[len(PREFACE) :]
        buffer, at = self._pending, 0
        try:
            while len(buffer) - at >= HEADER_BYTES:
                end = at + HEADER_BYTES + int.from_bytes(buffer[at : at + 3])
                if end > len(buffer):
                    break
                stream = int.from_bytes(buffer[at + 5 : at + 9]) & 0x7FFFFFFF
                start, at = at, end
                payload = buffer[start + HEADER_BYTES : end]
                if not self._settled and (buffer[start + 3] != SETTINGS or buffer[start + 4] & ACK):
                    raise NotHttp2("the first frame is not SETTINGS")
                self._settled = True
                yield Frame(
                    buffer[start + 3], buffer[start + 4], stream, payload, buffer[start:end]
                )
        finally:
            self._pending = buffer[at:]


def settings(values: Mapping[int, int]) -> bytes:
    """Write a SETTINGS frame; the order of `values` is kept."""
    return hyper.SettingsFrame(settings=dict(values)).serialize()


def settings_ack() -> bytes:
    """Write the acknowledgement of a SETTINGS frame."""
    return hyper.SettingsFrame(flags=["ACK"]).serialize()


def goaway(last_stream: int, code: int, debug: bytes = b"") -> bytes:
    """Write a GOAWAY frame."""
    return hyper.GoAwayFrame(
        last_stream_id=last_stream, error_code=code, additional_data=debug
    ).serialize()


def window_update(stream: int, increment: int) -> bytes:
    """Write a WINDOW_UPDATE frame; stream 0 is the connection."""
    return hyper.WindowUpdateFrame(stream, window_increment=increment).serialize()


def rst_stream(stream: int, code: int) -> bytes:
    """Write an RST_STREAM frame."""
    return hyper.RstStreamFrame(stream, error_code=code).serialize()


def ping(opaque: bytes, *, ack: bool = False) -> bytes:
    """Write a PING frame of eight opaque bytes."""
    return hyper.PingFrame(opaque_data=opaque, flags=["ACK"] if ack else []).serialize()


def headers(stream: int, block: bytes, *, end_stream: bool = False) -> bytes:
    """Write a HEADERS frame from a header block that is already encoded."""
    flags = ["END_HEADERS", "END_STREAM"] if end_stream else ["END_HEADERS"]
    return hyper.HeadersFrame(stream, data=block, flags=flags).serialize()


def data(stream: int, body: bytes, *, end_stream: bool = False) -> bytes:
    """Write a DATA frame."""
    flags = ["END_STREAM"] if end_stream else []
    return hyper.DataFrame(stream, data=body, flags=flags).serialize()


def parse_settings(payload: bytes) -> dict[int, int]:
    """Read the body of a SETTINGS frame."""
    return dict(struct.iter_unpack("!HL", payload))
