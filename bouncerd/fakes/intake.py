"""The way in of one connection: can be shut for good, or narrowed to so many bytes a second."""

import socket
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

LARGEST_READ = 65_536  # what Twisted reads at once


class Intake:
    """Reads at full speed, at a rate, or not at all."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._transport: Any = None
        self._rate = 0.0
        self._timer: IDelayedCall | None = None
        self._shut = False

    def shut(self, transport: Any) -> None:
        """Read nothing any more: the client's bytes stay in its own buffers."""
        self._shut = True
        transport.pauseProducing()

    def narrow(self, transport: Any, rate: float, buffer: int) -> None:
        """Read `rate` bytes a second (0: all there is) from a socket buffer of `buffer` bytes."""
        self._transport, self._rate = transport, rate
        below = getattr(transport, "transport", transport)  # TLS's, or itself
        below.bufferSize = int(min(max(rate, 1), LARGEST_READ)) if rate else LARGEST_READ
        handle = getattr(below, "getHandle", lambda: None)()
        if buffer and isinstance(handle, socket.socket):
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)

    def took(self, count: int) -> None:
        """Note bytes that were read; read no others before their time."""
        if not self._rate or self._shut:
            return
        self._transport.pauseProducing()
        wait = count / self._rate
        if self._timer is not None and self._timer.active():
            self._timer.delay(wait)
        else:
            self._timer = self._clock.callLater(wait, self._again)

    def stop(self) -> None:
        """Forget it all: the connection is over."""
        self._shut = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _again(self) -> None:
        if not self._shut:
            self._transport.resumeProducing()
