"""How fast pushes may go to a provider that counts them (fcm.md 4.3 and 4.5). Pure.

A token bucket whose rate falls where the provider says so, or has failed for a while, and comes
back step by step. `now` is in seconds of any one clock. Where no rate is given there is none.
"""

import math

#: Devices that must be answered 429 within so many seconds before it is not about them alone.
SEVERAL_DEVICES, TOGETHER = 3, 10.0
#: Every so many seconds after it was slowed down the rate grows by this factor.
RECOVER_EVERY, RECOVER_BY = 10.0, 1.1
#: Seconds without any success after which a provider counts as out; and what it is asked then,
#: as a part of the full rate.
OUTAGE, TRICKLE = 10.0, 1 / 60
#: Pushes a second that are the least.
SLOWEST = 5.0
#: Seconds at least between two looks: what may go then goes together.
GRAIN = 0.01
_MINUTE = 60.0
#: What of a second's rate is remembered a second later: the peak of some ten seconds.
_FADES = 0.8
_MOST = 1_000  # devices and servers that are told apart
#: For so many seconds, or twice as many, a server that sends is remembered.
_LATELY = 60.0
#: Seconds of a watch in which those count as served who had sent before: nobody had time since.
_AT_ONCE = 1.0


class _Watch:
    """What is seen from a first 429 on: is it some devices, or the project?"""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.devices: set[str] = set()
        self.refused: set[str] = set()  # servers
        self.served: set[str] = set()
        self.balance = 0  # answers that say 429, less those that do not
        self.longest = 0.0

    def is_general(self, senders: set[str], now: float) -> bool:
        """Whether it meets enough devices, most pushes, and not only a few of many servers.

        A tenant floods his own devices easily, and all in one moment; that must not slow down the
        `senders` of late.
        """
        if len(self.devices) < SEVERAL_DEVICES or self.balance < 0:
            return False
        if len(self.refused) == 1 and not senders <= self.refused:
            return False
        known = self.refused | self.served
        if now < self.begun + _AT_ONCE:
            known |= senders
        return len(self.refused) * 2 >= len(known)


class Pace:
    """One project's. `rate`: pushes a second; `ramp`: seconds from nothing to all of it."""

    def __init__(self, rate: float | None, ramp: float) -> None:
        self.rate = rate
        self._ramp = ramp
        self._tokens = rate or 0.0
        self._at = -math.inf
        self._slow: tuple[float, float] | None = None  # rate, since when
        self._ramp_from = -math.inf
        #: Whether `succeeded` and `out` have anything to say: else they need not be asked.
        self.troubled = False
        self._failing_since: float | None = None
        self._failed_at = -math.inf
        self._watch: _Watch | None = None
        self._second, self._sent = -math.inf, 0  # begin of a second, what went in it
        self._peak = 0.0
        self._lately: set[str] = set()  # servers that have sent since a moment, and before that
        self._before: set[str] = set()
        self._since = -math.inf

    def allowed(self, now: float) -> int:
        """Return how many may go at once; only where there is a rate."""
        rate = self.rate_at(now)
        elapsed = max(now - self._at, 0.0)
        self._tokens = min(self._tokens + rate * elapsed, max(rate, 1.0))  # a second's burst
        self._at = now
        if now >= self._second + 1.0:
            self._peak = max(self._sent, self._peak * _FADES ** min(now - self._second, 1e3))
            self._second, self._sent = now, 0
        if now >= self._since + _LATELY:
            self._before = self._lately if now < self._since + 2 * _LATELY else set()
            self._lately, self._since = set(), now
        return int(self._tokens + 1e-6)

    def spend(self, count: int, server: str) -> None:
        """Take note of what has gone."""
        self._tokens -= count
        self._sent += count
        if len(self._lately) < _MOST:
            self._lately.add(server)

    def wait(self, now: float) -> float:
        """Return how long (seconds) until the next may go."""
        return max((1.0 - self._tokens) / self.rate_at(now), GRAIN)

    def rate_at(self, now: float) -> float:
        """Return the rate of this moment, in pushes a second."""
        assert self.rate is not None
        full = rate = self.rate
        if self._slow is not None:
            rate = self._slow[0] * RECOVER_BY ** max((now - self._slow[1]) // RECOVER_EVERY, 0.0)
            if rate >= full:
                self._slow, rate = None, full
        if self.out(now):
            rate = min(rate, full * TRICKLE)
        elif now < self._ramp_from + self._ramp:
            rate = min(rate, full * max((now - self._ramp_from) / self._ramp, TRICKLE))
        return max(rate, SLOWEST)

    def out(self, now: float) -> bool:
        """Whether there was no success for a while, and still is none, by all we know."""
        since = self._failing_since
        return since is not None and since + OUTAGE <= now < self._failed_at + _MINUTE

    # --- what is learnt

    def succeeded(self, server: str, now: float) -> None:
        """Take note of an answer on the merits of a push."""
        if self._failing_since is not None:
            if self.out(now):
                self._ramp_from = now
            self._failing_since = None
        if self._watch is not None:
            self._watch.balance -= 1
            if len(self._watch.served) < _MOST:
                self._watch.served.add(server)
            if now >= self._watch.begun + TOGETHER:
                self._watch = None
        self.troubled = self._watch is not None

    def failed(self, now: float) -> None:
        """Take note that the provider cannot serve, or cannot be reached."""
        self.troubled = True
        if self._failing_since is None or now >= self._failed_at + _MINUTE:
            self._failing_since = now
        self._failed_at = now

    def throttled(self, server: str, device: str, after: float, now: float) -> float:
        """Take note of a 429; return for how long (seconds) nobody's push may go, 0 for none."""
        self.troubled = True
        watch = self._watch
        if watch is None or now >= watch.begun + TOGETHER:
            watch = self._watch = _Watch(now)
        if len(watch.devices) < _MOST:
            watch.devices.add(device)
            watch.refused.add(server)
        watch.balance += 1
        watch.longest = max(watch.longest, after)
        if not watch.is_general(self._lately | self._before, now):
            return 0.0
        longest = watch.longest
        self._watch = None
        # Half of what we sent of late, if that is less than we might have.
        rate = min(self.rate_at(now), max(self._peak, self._sent)) / 2
        self._slow = max(rate, SLOWEST), now + longest
        self._tokens = 0.0
        return longest


class StreamCap:
    """How many requests a link may have under way, after a server found them too many.

    It had just changed its mind, and may again: the cap is lifted little by little.
    """

    _UNCAPPED = 1_000

    def __init__(self) -> None:
        self.lowered = False
        self._most, self._since = 0.0, 0.0

    def lower(self, under_way: int, now: float) -> None:
        """Take note that so many were too many."""
        self._most, self._since, self.lowered = max(under_way * 0.75, 1.0), now, True

    def most(self, now: float) -> int | None:
        """Return the cap, None if there is none any more."""
        most = self._most * RECOVER_BY ** ((now - self._since) // _MINUTE)
        if most > self._UNCAPPED:
            self.lowered = False
            return None
        return int(most)
