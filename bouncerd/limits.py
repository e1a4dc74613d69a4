"""How many requests each caller may make in a stretch of time, exactly (bouncer-api.md 1.7).

A sliding log: what was let through is remembered until it is older than the window, so that no
moment exists at which more than the limit went through within one window. Pure: the caller brings
the time, in seconds of any one clock.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass

from bouncerd.envelope import WireError

MINUTE = 60.0
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may pass, and what there is to say of it."""

    limit: int
    remaining: int
    free_in: float  # seconds until nothing of what was let through counts any more
    retry_in: float | None  # seconds until the next request may pass; None: this one does

    def headers(self, now: float) -> Mapping[str, str]:
        """Spell it for an answer; `now` is unix time."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(int(now + self.free_in)),
        }


def too_many_requests(retry_in: float) -> WireError:
    """Build the answer to a server that asks too often. Overload is another matter: 503."""
    return WireError(
        429,
        "RATE_LIMIT_HIT",
        "API usage exceeded rate limit",
        {"retry-after": retry_in},
        {"Retry-After": str(retry_in)},
    )


class SlidingLog:
    """Remembers, for each key, when requests were let through.

    Holds at most a limit's worth of times for a key, nothing of keys that were idle for a window,
    and at most `most_keys` keys: beyond that the one idle for longest is forgotten.
    """

    def __init__(self, window: float, most_keys: int = 100_000) -> None:
        self._window = window
        self._most_keys = most_keys
        self._passed: OrderedDict[str, deque[float]] = OrderedDict()  # the longest idle first

    def __len__(self) -> int:
        """Count the keys remembered."""
        return len(self._passed)

    def take(self, key: str, limit: int, now: float) -> Verdict:
        """Ask for one request. One that is refused does not count."""
        self._drop_idle(now)
        passed = self._passed.get(key, deque())
        while passed and (len(passed) > limit or passed[0] <= now - self._window):
            passed.popleft()
        if len(passed) >= limit:
            return self._refused(passed, limit, now)
        passed.append(now)
        self._passed[key] = passed
        self._passed.move_to_end(key)
        return Verdict(limit, limit - len(passed), self._window, None)

    def _refused(self, passed: deque[float], limit: int, now: float) -> Verdict:
        oldest, newest = (passed[0], passed[-1]) if passed else (now, now)
        return Verdict(limit, 0, newest + self._window - now, oldest + self._window - now)

    def _drop_idle(self, now: float) -> None:
        while self._passed:
            key = next(iter(self._passed))
            newest = self._passed[key][-1] if self._passed[key] else now - self._window
            if newest > now - self._window and len(self._passed) <= self._most_keys:
                return
            del self._passed[key]
