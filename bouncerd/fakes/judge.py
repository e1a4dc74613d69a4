"""h2's part in a fake: it reads every frame of the client, and keeps both sides' stream states.

It is told that stream limits and receive windows are as wide as they go, so that the real ones
can be written, counted and enforced by hand; and its WINDOW_UPDATE frames are thrown away.
"""

from collections import deque

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import NeverIndexedHeaderTuple

from bouncerd.fakes import frames
from bouncerd.fakes.records import Field
from bouncerd.fakes.steps import Headers

__all__ = [
    "DataReceived",
    "Judge",
    "ProtocolError",
    "RemoteSettingsChanged",
    "RequestReceived",
    "StreamEnded",
    "StreamReset",
    "WindowUpdated",
    "read_fields",
]

WIDEST = 2**31 - 1


def read_fields(event: RequestReceived) -> tuple[Field, ...]:
    """List a request's headers, each with whether it came as "never indexed"."""
    return tuple(
        (bytes(line[0]), bytes(line[1]), isinstance(line, NeverIndexedHeaderTuple))
        for line in event.headers
    )


class Judge:
    """One connection as h2 sees it. What it wants written is fetched with `written`."""

    def __init__(self) -> None:
        self._h2 = _wide_open()
        self._kept = b""  # written by h2 before some of its frames had to be dropped
        self._blocked: dict[int, deque[tuple[bytes, bool]]] = {}

    def receive(self, raw: bytes) -> list[Event]:
        """Take one frame; raises ProtocolError for what breaks the protocol."""
        return self._h2.receive_data(raw)

    def written(self) -> bytes:
        """Take the bytes that h2 wants written, in order."""
        written, self._kept = self._kept + self._h2.data_to_send(), b""
        return written

    def widen(self, count: int, stream: int) -> None:
        """Give h2 back the window that a DATA frame took, without a frame to the client."""
        self._kept += self._h2.data_to_send()
        try:
            self._h2.acknowledge_received_data(count, stream)
        except ProtocolError:  # the stream is closed: h2 has credited it itself
            return
        self._h2.clear_outbound_data_buffer()

    def limit_table(self, size: int) -> None:
        """Hold the client to a HEADER_TABLE_SIZE that it has acknowledged."""
        self._h2.decoder.max_allowed_table_size = size

    def encode(self, lines: Headers) -> bytes:
        """Encode a header block for raw writing, in step with h2's own."""
        return self._h2.encoder.encode(lines)

    def headers(self, stream: int, lines: Headers, *, end: bool) -> bool:
        """Send HEADERS; False if the stream is closed already."""
        try:
            self._h2.send_headers(stream, lines, end_stream=end)
        except ProtocolError:
            return False
        return True

    def reset(self, stream: int, code: int) -> bool:
        """Send RST_STREAM; False if the stream is closed already."""
        self._blocked.pop(stream, None)
        try:
            self._h2.reset_stream(stream, code)
        except ProtocolError:
            return False
        return True

    def data(self, stream: int, body: bytes, *, end: bool) -> bool:
        """Send DATA as far as the client's windows go; the rest follows with `unblock`.

        Return whether this ended the stream.
        """
        self._blocked.setdefault(stream, deque()).append((body, end))
        return self._send_blocked(stream)

    def unblock(self) -> list[int]:
        """Send what there is room for by now; return the streams that this ended."""
        return [stream for stream in list(self._blocked) if self._send_blocked(stream)]

    def _send_blocked(self, stream: int) -> bool:
        queue = self._blocked[stream]
        ended = False
        try:
            while queue:
                body, end = queue.popleft()
                room = self._h2.local_flow_control_window(stream)
                size = min(max(room, 0), self._h2.max_outbound_frame_size)
                if body and not size:
                    queue.appendleft((body, end))
                    return False
                if body[size:]:
                    queue.appendleft((body[size:], end))
                ended = end and not body[size:]
                self._h2.send_data(stream, body[:size], end_stream=ended)
        except ProtocolError:  # the client has reset the stream
            ended = False
        self._blocked.pop(stream, None)
        return ended


def _wide_open() -> H2Connection:
    """Make the h2 side: past the preface, limits and windows as wide as they go."""
    h2 = H2Connection(
        H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    h2.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: WIDEST,
            SettingCodes.INITIAL_WINDOW_SIZE: WIDEST,
            SettingCodes.MAX_HEADER_LIST_SIZE: 65536,
        },
    )
    h2.initiate_connection()
    h2.increment_flow_control_window(WIDEST - 65535)
    h2.clear_outbound_data_buffer()
    h2.receive_data(frames.PREFACE)
    return h2
