"""The way out of one connection: several writes gathered into one, or one cut into many."""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Outlet:
    """Collects bytes and writes them on `flush`; can be held, paced, and stopped for good."""

    def __init__(self, write: Callable[[bytes], object], clock: IReactorTime) -> None:
        self._write = write
        self._clock = clock
        self._pending: list[bytes] = []
        self._held = False
        self._size = 0
        self._gap = 0.0
        self._queue = b""  # what the pace holds back
        self._timer: IDelayedCall | None = None

    def add(self, octets: bytes) -> None:
        """Take bytes for the next flush."""
        self._pending.append(octets)

    def flush(self) -> None:
        """Write what was collected, unless held."""
        if self._held or not self._pending:
            return
        octets = b"".join(self._pending)
        self._pending.clear()
        if self._size or self._queue:
            self._queue += octets
            if self._timer is None:
                self._tick()
        else:
            self._write(octets)

    def hold(self) -> None:
        """Write nothing until `release`."""
        self._held = True

    def release(self) -> None:
        """Write everything collected meanwhile, at once."""
        self._held = False
        self.flush()

    def pace(self, size: int, gap: float) -> None:
        """Write `size` bytes at a time, `gap` seconds apart; size 0: all at once again."""
        self.flush()
        self._size, self._gap = size, gap

    def truncate(self, count: int) -> None:
        """Keep only the first `count` of the bytes that wait to be written."""
        self._pending = [b"".join(self._pending)[:count]]

    def stop(self) -> None:
        """Write nothing more, ever."""
        self._held = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        """Write the next piece and come back for the one after."""
        self._timer = None
        size = self._size or len(self._queue)
        piece, self._queue = self._queue[:size], self._queue[size:]
        self._write(piece)
        if self._queue:
            self._timer = self._clock.callLater(self._gap, self._tick)
