"""A server's side of HTTP/2 for tests: frames from hyperframe, blocks from hpack, legal or not."""

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from bouncerd.http2 import Conversation, Request, Template

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def a_request(body: bytes = b"{}", path: bytes = b"/3/device/c0ffee") -> Request:
    """Return a push-like request."""
    template = Template("localhost", [("authorization", "bearer x"), ("apns-topic", "org.x.App")])
    return Request(template, path, ((b"apns-id", b"7b1f"),), body)


class Peer:
    """Speaks for the server: builds its frames, and reads the client's."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self._unread = b""

    def settings(self, **values: int) -> bytes:
        """Return SETTINGS: `max_streams`, `window`, `table`, `frame`."""
        codes = {"table": 1, "max_streams": 3, "window": 4, "frame": 5}
        pairs = {codes[name]: value for name, value in values.items()}
        return SettingsFrame(0, settings=pairs).serialize()

    def answer(
        self, stream_id: int, status: int = 200, body: bytes = b"", *, end: bool = True
    ) -> bytes:
        """Return a response, in one HEADERS and perhaps one DATA."""
        block = self.encoder.encode([(":status", str(status)), ("apns-id", f"id-{stream_id}")])
        flags = ["END_HEADERS"] + (["END_STREAM"] if end and not body else [])
        frames = HeadersFrame(stream_id, block, flags=flags).serialize()
        return frames + (self.data(stream_id, body, end=end) if body else b"")

    def status_only(self, stream_id: int, status: int) -> bytes:
        """Return HEADERS with a status of the static table alone: bytes that cost nothing."""
        block = {200: b"\x88", 500: b"\x8e"}[status]
        return b"\0\0\x01\x01\x04" + stream_id.to_bytes(4, "big") + block

    def reset_bytes(self, stream_id: int) -> bytes:
        """Return RST_STREAM(CANCEL) without building an object."""
        return b"\0\0\x04\x03\0" + stream_id.to_bytes(4, "big") + b"\0\0\0\x08"

    def split_answer(self, stream_id: int, status: int, pieces: int) -> bytes:
        """Return a response whose header block is continued, in so many frames."""
        block = self.encoder.encode([(":status", str(status)), ("x", "y" * pieces)])
        size = max(1, len(block) // pieces)
        parts = [block[at : at + size] for at in range(0, len(block), size)]
        frames: list[Frame] = [HeadersFrame(stream_id, parts[0], flags=["END_STREAM"])]
        frames += [ContinuationFrame(stream_id, part) for part in parts[1:]]
        frames[-1].flags.add("END_HEADERS")
        return b"".join(each.serialize() for each in frames)

    def data(self, stream_id: int, body: bytes, *, end: bool = True) -> bytes:
        """Return one DATA frame."""
        return DataFrame(stream_id, body, flags=["END_STREAM"] if end else []).serialize()

    def goaway(self, last: int, code: int = 0, debug: bytes = b"") -> bytes:
        """Return GOAWAY."""
        return GoAwayFrame(0, last, code, additional_data=debug).serialize()

    def reset(self, stream_id: int, code: int) -> bytes:
        """Return RST_STREAM."""
        return RstStreamFrame(stream_id, code).serialize()

    def credit(self, stream_id: int, size: int) -> bytes:
        """Return WINDOW_UPDATE."""
        return WindowUpdateFrame(stream_id, size).serialize()

    def ping(self, *, ack: bool = False) -> bytes:
        """Return PING."""
        return PingFrame(0, b"12345678", flags=["ACK"] if ack else []).serialize()

    def read(self, data: bytes) -> list[Frame]:
        """Return the client's frames (whole ones; the preface is skipped)."""
        data = (self._unread + data).removeprefix(PREFACE)
        frames = []
        while len(data) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            if len(data) < 9 + length:
                break
            frame.parse_body(memoryview(data[9 : 9 + length]))
            frames.append(frame)
            data = data[9 + length :]
        self._unread = data
        return frames


def connected(peer: Peer, *, probe: bool = False, **settings: int) -> Conversation:
    """Return a conversation that has the server's SETTINGS, its own bytes read."""
    conversation = Conversation(probe=probe)
    assert conversation.receive(peer.settings(**settings)) == []
    peer.read(conversation.data_to_send())
    return conversation


def submitted(conversation: Conversation, count: int, body: bytes = b"{}") -> list[str]:
    """Submit so many requests; return their tickets."""
    first = conversation.pending
    tickets = [f"t{first + number}" for number in range(count)]
    for ticket in tickets:
        conversation.submit(ticket, a_request(body))
    return tickets
