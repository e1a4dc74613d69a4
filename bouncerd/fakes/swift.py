"""A server that says yes to everything, and nothing else, quickly: for load (apns.md 7.3, X2).

Its answers are prepared; it reads frames' headers only, and counts. What it is sent may be
nonsense: the strict fakes are for that.
"""

import struct
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure

from bouncerd.fakes import frames

if TYPE_CHECKING:
    from collections.abc import Callable

_FRAME = struct.Struct(">HBBBL")  # length (16 and 8 bits), type, flags, stream
_ANSWER = b"\0\0\1\1\5%b\x88"  # HEADERS, END_HEADERS and END_STREAM: `:status 200` of the table
STREAMS = 1000


class Swift(ServerFactory["SwiftConnection"]):
    """The service, and what it has counted. `answering`: False keeps all answers back."""

    noisy = False

    def __init__(self, streams: int = STREAMS) -> None:
        self.greeting = frames.settings({frames.MAX_CONCURRENT_STREAMS: streams})
        self.answering = True
        self.connections: list[SwiftConnection] = []
        self.most_connections = 0
        self.most_streams = 0  # at once on one connection
        self.requests = 0
        self.octets = 0  # of bodies

    def buildProtocol(self, _: IAddress | None) -> "SwiftConnection":
        """Build the protocol for a connection just accepted."""
        return SwiftConnection(self)

    def release(self) -> None:
        """Answer what was kept back, and everything from now on."""
        self.answering = True
        for connection in self.connections:
            connection.answer()


class SwiftConnection(Protocol):
    """One client's connection."""

    def __init__(self, service: Swift) -> None:
        self._service = service
        self._pending = b""
        self._begun = False
        self._write: Callable[[bytes], object] = _nowhere
        self._unanswered: list[int] = []

    def connectionMade(self) -> None:
        """Greet the client."""
        assert self.transport is not None
        self._write = self.transport.write
        self._write(self._service.greeting)
        connections = self._service.connections
        connections.append(self)
        self._service.most_connections = max(self._service.most_connections, len(connections))

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - Twisted's
        """Count it out."""
        self._service.connections.remove(self)

    def dataReceived(self, data: bytes) -> None:
        """Take frames; answer each request whose last one is in."""
        buffer, at, taken, acks = self._pending + data, 0, 0, b""
        if not self._begun:
            if len(buffer) < len(frames.PREFACE):
                self._pending = buffer
                return
            self._begun, at = True, len(frames.PREFACE)
        size = len(buffer)
        while size - at >= frames.HEADER_BYTES:
            high, low, kind, flags, stream = _FRAME.unpack_from(buffer, at)
            end = at + frames.HEADER_BYTES + (high << 8 | low)
            if end > size:
                break
            if kind == frames.DATA:
                taken += high << 8 | low
                if flags & frames.END_STREAM:
                    self._unanswered.append(stream)
            elif kind in (frames.SETTINGS, frames.PING) and not flags & frames.ACK:
                acks += _acknowledgement(kind, buffer[at + frames.HEADER_BYTES : end])
            at = end
        self._pending = buffer[at:]
        service = self._service
        service.octets += taken
        service.most_streams = max(service.most_streams, len(self._unanswered))
        credit = frames.window_update(0, taken) if taken else b""
        self._write(acks + credit)
        if service.answering:
            self.answer()

    def answer(self) -> None:
        """Say yes to what waits, in one write."""
        streams, self._unanswered = self._unanswered, []
        self._service.requests += len(streams)
        if streams:
            self._write(b"".join([_ANSWER % stream.to_bytes(4) for stream in streams]))


def _acknowledgement(kind: int, payload: bytes) -> bytes:
    return frames.settings_ack() if kind == frames.SETTINGS else frames.ping(payload, ack=True)


def _nowhere(_: bytes) -> None:
    """Write nothing: there is no connection."""
