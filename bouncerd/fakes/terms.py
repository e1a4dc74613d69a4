"""What a client has been told, and what of it it has acknowledged: SETTINGS and GOAWAY.

A client is held to a limit once it has acknowledged it, and to a GOAWAY once it has answered
the PING behind it. Before that, what it does may have crossed ours on the way.
"""

from collections import deque
from collections.abc import Iterable, Mapping

from bouncerd.fakes import frames
from bouncerd.fakes.records import Field

PROBE = b"goneaway"  # the PING behind a GOAWAY
ACKNOWLEDGE_WITHIN = 5.0  # seconds (apns.md 7.4)


class Terms:
    """The terms of one connection. Times are the clock's seconds."""

    def __init__(self) -> None:
        self._unacknowledged: deque[tuple[float, dict[int, int]]] = deque()
        self._settled = False  # the client has acknowledged our first SETTINGS
        self._limit: int | None = None  # acknowledged
        self._announced: int | None = None  # the newest limit sent
        self._last_stream: int | None = None  # of our GOAWAYs, the lowest
        self._goaway_read = False
        self._header_list: int | None = None  # acknowledged

    @property
    def greeted(self) -> bool:
        """Whether our first SETTINGS are out."""
        return self._settled or bool(self._unacknowledged)

    def announce(self, values: Mapping[int, int], now: float) -> None:
        """Note SETTINGS that were just sent."""
        self._unacknowledged.append((now, dict(values)))
        self._announced = values.get(frames.MAX_CONCURRENT_STREAMS, self._announced)

    def acknowledge(self, now: float) -> tuple[dict[int, int], bool]:
        """Note an acknowledgement; return what now binds the client, and whether it was late."""
        if not self._unacknowledged:
            return {}, False
        sent_at, values = self._unacknowledged.popleft()
        self._settled = True
        self._limit = values.get(frames.MAX_CONCURRENT_STREAMS, self._limit)
        self._header_list = values.get(frames.MAX_HEADER_LIST_SIZE, self._header_list)
        return values, now - sent_at > ACKNOWLEDGE_WITHIN

    def overdue(self, now: float) -> bool:
        """Tell whether SETTINGS have gone unacknowledged for too long."""
        return bool(self._unacknowledged) and (
            now - self._unacknowledged[0][0] > ACKNOWLEDGE_WITHIN
        )

    def leave(self, last_stream: int) -> None:
        """Note a GOAWAY that was just sent."""
        if self._last_stream is None or last_stream < self._last_stream:
            self._last_stream = last_stream

    def pong(self, opaque: bytes) -> None:
        """Note the answer to a PING."""
        self._goaway_read = self._goaway_read or opaque == PROBE

    def too_high(self, stream: int) -> bool:
        """Tell whether a stream lies above our GOAWAY."""
        return self._last_stream is not None and stream > self._last_stream

    def object_to_opening(self) -> str | None:
        """Name the rule that a client breaks by opening any stream now."""
        if not self._settled:
            return "stream before SETTINGS"
        return "stream after GOAWAY" if self._goaway_read else None

    def breaks_limit(self, open_streams: int) -> bool:
        """Tell whether the client has more streams open than it agreed to."""
        return self._limit is not None and open_streams > self._limit

    def breaks_header_list(self, fields: Iterable[Field]) -> bool:
        """Tell whether headers are larger than agreed, counted as RFC 9113 6.5.2 has it."""
        return self._header_list is not None and self._header_list < sum(
            len(name) + len(value) + 32 for name, value, _ in fields
        )

    def over_limit(self, open_streams: int) -> bool:
        """Tell whether that is more than we want at the moment, whether it knows or not."""
        return self._announced is not None and open_streams > self._announced
