"""How much the client may send us: its flow-control windows, counted by us (RFC 9113 5.2).

h2 is told that the windows are as large as can be, so that a window may be withheld, changed
or made negative by hand, and a client that overdraws one is recorded instead of disconnected.
"""

from collections.abc import Iterator

DEFAULT_WINDOW = 65535


class Allowance:
    """The client's windows on one connection, and the credit it is owed."""

    def __init__(self) -> None:
        self._initial = DEFAULT_WINDOW
        self._connection = DEFAULT_WINDOW
        self._streams: dict[int, int] = {}  # what is left of each open stream's window
        self._owed: dict[int, int] = {}
        self._prompt = True

    def grant(self, increment: int) -> None:
        """Count credit for the connection that was written by other means."""
        self._connection += increment

    def acknowledged(self, initial: int) -> None:
        """Move all stream windows: the client has acknowledged a new initial size."""
        for stream in self._streams:
            self._streams[stream] += initial - self._initial
        self._initial = initial

    def opened(self, stream: int) -> None:
        """Begin a stream's window."""
        self._streams[stream] = self._initial

    def closed(self, stream: int) -> None:
        """Forget a stream's window; what the connection is owed for it stays owed."""
        self._streams.pop(stream, None)
        self._owed.pop(stream, None)

    def spend(self, stream: int, count: int, *, last: bool) -> str | None:
        """Charge a DATA frame; name the window it overdrew, if any."""
        self._connection -= count
        self._owed[0] = self._owed.get(0, 0) + count
        left = self._streams.get(stream)
        if left is not None:
            self._streams[stream] = left - count
            if not last:
                self._owed[stream] = self._owed.get(stream, 0) + count
        if self._connection < 0 and count:
            return "connection"
        return "stream" if left is not None and left < count and count else None

    def due(self) -> Iterator[tuple[int, int]]:
        """Take the credit to write now, as (stream, increment); nothing while withheld."""
        if not self._prompt or not self._owed:
            return
        owed, self._owed = self._owed, {}
        for stream, increment in owed.items():
            if not increment:
                continue
            if stream == 0:
                self._connection += increment
            elif stream in self._streams:
                self._streams[stream] += increment
            yield stream, increment

    def withhold(self) -> None:
        """Give no credit until `resume`."""
        self._prompt = False

    def resume(self) -> Iterator[tuple[int, int]]:
        """Credit promptly again; take what is owed."""
        self._prompt = True
        return self.due()
