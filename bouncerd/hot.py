"""Devices that their provider wants left alone for a while (429; apns.md 4.1, fcm.md 4.3). Pure.

All pushes of such a device wait, whoever sends them; nobody else's. When the time is up one goes
and shows whether it is over.
"""

#: Seconds that a device's others wait for the answer to the first.
PROBE_WITHIN = 5.0


class HotDevices:
    """By token; `now` is in seconds of any one clock. Of many the oldest are forgotten."""

    def __init__(self, longest: float, most: int = 10_000) -> None:
        self._longest = longest
        self._most = most
        self._known: dict[str, tuple[float, int]] = {}  # until when, how often in a row

    def __len__(self) -> int:
        return len(self._known)

    def heated(self, token: str, after: float, now: float) -> float:
        """Take note of a 429 that asks for so many seconds; return how many it will be."""
        until, times = self._known.pop(token, (0.0, 0))
        if until > now + PROBE_WITHIN:
            times -= 1  # of several that were under way together: no news
        wait = max(after, min(after * 2.0 ** min(times, 16), self._longest))
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[token] = max(now + wait, until), times + 1
        return wait

    def wait(self, token: str, now: float) -> float:
        """Return how long (seconds) a push waits unsent; the one that need not is the probe."""
        known = self._known.get(token)
        if known is None:
            return 0.0
        until, times = known
        if now < until:
            return until - now
        self._known[token] = now + PROBE_WITHIN, times
        return 0.0

    def cooled(self, token: str) -> None:
        """Take note that it takes pushes."""
        self._known.pop(token, None)
