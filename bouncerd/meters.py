"""What is counted while the daemon works, cheaply; `metrics` spells it when somebody asks.

Pure, and for one thread. An observation is a search in a short list and two additions.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

#: Upper bounds in seconds: of answers to callers, of the store's work, of the reactor's lag.
ANSWERS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 60.0)
STORE = (0.00005, 0.0001, 0.00025, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0)
LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

#: What an endpoint is called that is none of ours: a path is the caller's text.
OTHER = "other"
#: Stands for a status where the caller hung up before its answer.
HUNG_UP = 499


class Histogram:
    """How often values lay below each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value in."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Return the counts as Prometheus wants them: each bound, and how many were not over it."""
        return list(self._cumulative())

    def _cumulative(self) -> Iterator[tuple[str, float]]:
        below = 0
        for bound, count in zip(self._bounds, self._counts, strict=False):
            below += count
            yield str(bound), below
        yield "+Inf", self.count


@dataclass(slots=True)
class Timings:
    """How long (seconds) the store's answers took: a read; a write, its wait included; a commit."""

    reads: Histogram = field(default_factory=lambda: Histogram(STORE))
    writes: Histogram = field(default_factory=lambda: Histogram(STORE))
    flushes: Histogram = field(default_factory=lambda: Histogram(STORE))


class Requests:
    """Requests by endpoint and status, and how long their answers took."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int], int] = {}
        self.seconds: dict[str, Histogram] = {}

    def note(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one that was answered. `endpoint` is a name of ours."""
        key = endpoint, status
        self.counts[key] = self.counts.get(key, 0) + 1
        histogram = self.seconds.get(endpoint)
        if histogram is None:
            histogram = self.seconds[endpoint] = Histogram(ANSWERS)
        histogram.observe(seconds)

    def note_refused(self, status: int) -> None:
        """Count one that was refused before it was all there."""
        self.counts[OTHER, status] = self.counts.get((OTHER, status), 0) + 1

    def total(self) -> int:
        """Return how many there were."""
        return sum(self.counts.values())

    def failed(self) -> int:
        """Return how many of them were no success."""
        return sum(count for (_, status), count in self.counts.items() if status >= 400)
