"""HTTP/2 frames: bytes in, whole frames out (RFC 9113, section 4 and 6).

Knows the layout of frames and what makes one illegal by itself; nothing of streams' states.
"""

import struct
from collections.abc import Iterator

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY_FLAG = 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x3
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 0x6, 0x7, 0x8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x9, 0xB

MAX_FRAME = 16_384
MAX_HEADER_BLOCK = 65_536
MAX_WINDOW = 2**31 - 1
INITIAL_WINDOW = 65_535

_FRAME = struct.Struct(">HBBBL")  # length (16 and 8 bits), type, flags, stream
_U32 = struct.Struct(">L")
_STREAM_MASK = MAX_WINDOW  # by chance the same number

pack_u32 = _U32.pack
pack_head = _FRAME.pack

#: One frame: type, flags, stream, payload (unpadded), and the length that flow control counts.
Frame = tuple[int, int, int, bytes, int]


class ProtocolFault(Exception):
    """The peer broke the protocol: the connection ends with this error code."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return one frame as bytes."""
    size = len(payload)
    return pack_head(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def u32(payload: bytes) -> int:
    """Read the four bytes that are the whole payload of RST_STREAM and WINDOW_UPDATE."""
    if len(payload) != 4:
        raise ProtocolFault(FRAME_SIZE_ERROR, "a frame of another length than 4")
    value: int = _U32.unpack(payload)[0]
    return value


def goaway(payload: bytes) -> tuple[int, int, bytes]:
    """Read a GOAWAY: last stream, error code, debug data."""
    if len(payload) < 8:
        raise ProtocolFault(FRAME_SIZE_ERROR, "a GOAWAY shorter than 8 bytes")
    last_id, code = struct.unpack_from(">LL", payload)
    return last_id & _STREAM_MASK, code, payload[8:]


class FrameReader:
    """Cuts a byte stream into frames, and joins a header block that was continued."""

    def __init__(self) -> None:
        self._kept = b""
        self._block: tuple[int, int, bytearray] | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield each whole frame; raise ProtocolFault at the first illegal one."""
        if self._kept:
            data = self._kept + data
        position, size = 0, len(data)
        while size - position >= 9:
            high, low, kind, flags, stream_id = _FRAME.unpack_from(data, position)
            length = high << 8 | low
            if length > MAX_FRAME:
                raise ProtocolFault(FRAME_SIZE_ERROR, "a frame over the limit")
            end = position + 9 + length
            if end > size:
                break
            whole = self._frame(kind, flags, stream_id & _STREAM_MASK, data[position + 9 : end])
            if whole is not None:
                yield whole
            position = end
        self._kept = data[position:]

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> Frame | None:
        length = len(payload)
        if self._block is not None or kind == CONTINUATION:
            return self._continued(kind, flags, stream_id, payload)
        if kind in (HEADERS, DATA):
            if flags & PADDED:
                payload = _unpadded(payload)
            if kind == HEADERS:
                if flags & PRIORITY_FLAG:
                    payload = payload[5:]
                if not flags & END_HEADERS:
                    self._block = (flags, stream_id, bytearray(payload))
                    return None
        return kind, flags, stream_id, payload, length

    def _continued(self, kind: int, flags: int, stream_id: int, payload: bytes) -> Frame | None:
        if self._block is None or kind != CONTINUATION or stream_id != self._block[1]:
            raise ProtocolFault(PROTOCOL_ERROR, "a header block was not continued as begun")
        first_flags, stream_id, block = self._block
        block += payload
        # An empty fragment costs its sender nothing, and would never reach the limit.
        if len(block) > MAX_HEADER_BLOCK or (not payload and not flags & END_HEADERS):
            raise ProtocolFault(ENHANCE_YOUR_CALM, "header fields over the limit")
        if not flags & END_HEADERS:
            return None
        self._block = None
        return HEADERS, first_flags, stream_id, bytes(block), 0


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ProtocolFault(PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]


class ReceiveWindow:
    """What the server may still send us on the connection: credited for ever (apns.md 5.3)."""

    def __init__(self) -> None:
        self.size = INITIAL_WINDOW

    def take(self, count: int) -> bytes:
        """Count bytes that came; return the WINDOW_UPDATE that is due, if any."""
        self.size -= count
        if self.size < 0:
            raise ProtocolFault(FLOW_CONTROL_ERROR, "more data than the connection's window")
        if self.size >= INITIAL_WINDOW // 2:
            return b""
        credit, self.size = INITIAL_WINDOW - self.size, INITIAL_WINDOW
        return frame(WINDOW_UPDATE, 0, 0, pack_u32(credit))
