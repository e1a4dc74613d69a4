"""What is looked at all the time, so that nobody has to wait who asks: the store, the reactor.

Both tick on the reactor's clock and cost it some microseconds a second.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bouncerd.meters import LAG, Histogram
from bouncerd.store.base import StoreUnavailable

log = Logger()

#: Seconds between two looks at the store, for its answer, and of failing until the operator hears.
STORE_EVERY = 1.0
STORE_WITHIN = 2.0
ALERT_AFTER = 10.0
#: Seconds between two looks at the reactor; whatever takes longer than that is seen for sure.
LAG_EVERY = 0.1
#: The worst lag is kept for so many stretches of so many seconds.
STRETCHES, STRETCH = 6, 10.0


class Ticker(ABC):
    """Does something every so often while it runs, the first time at once."""

    def __init__(self, clock: IReactorTime, every: float) -> None:
        self._clock = clock
        self._every = every
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin."""
        self._run()

    def stop(self) -> None:
        """End."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    @abstractmethod
    def tick(self) -> None:
        """Do it. Must not raise."""

    def _run(self) -> None:
        self._call = self._clock.callLater(self._every, self._run)
        self.tick()


class StoreWatch(Ticker):
    """Whether the store answers; `problem` says in our words why it does not, "" if it does."""

    def __init__(
        self,
        ping: Callable[[], "Deferred[None]"],
        clock: IReactorTime,
        works: Callable[[], None] = lambda: None,
    ) -> None:
        """`works` is called when it answers for the first time, or again."""
        super().__init__(clock, STORE_EVERY)
        self.problem = "the store was not asked yet"
        self._ping = ping
        self._works = works
        self._asked_at: float | None = None  # of a ping that has no answer yet
        self._failing_since: float | None = None
        self._alerted = False

    def tick(self) -> None:
        """Ask, unless the last question is still open. (A query is never given up: see there.)"""
        now = self._clock.seconds()
        if self._asked_at is None:
            self._asked_at = now
            maybeDeferred(self._ping).addCallbacks(self._answered, self._failed)
        elif now >= self._asked_at + STORE_WITHIN:
            self._enter(f"the store has not answered for {now - self._asked_at:.0f} s")

    def _answered(self, _: None) -> None:
        self._asked_at = None
        if self.problem:
            self._enter("")
            self._works()

    def _failed(self, failure: Failure) -> None:
        self._asked_at = None
        # What StoreUnavailable says is our own; of anything else, its class only.
        ours = failure.check(StoreUnavailable) and str(failure.value)
        self._enter(f"the store is not reachable ({ours or type(failure.value).__name__})")

    def _enter(self, problem: str) -> None:
        self.problem = problem
        now = self._clock.seconds()
        if not problem:
            if self._alerted and self._failing_since is not None:
                self._all_clear(now - self._failing_since)
            self._failing_since, self._alerted = None, False
            return
        if self._failing_since is None:
            self._failing_since = now
        if now >= self._failing_since + ALERT_AFTER and not self._alerted:
            self._alerted = True
            log.error(
                "The store has been failing for {seconds} s: {reason}",
                alert="store-down",
                subject="store",
                reason=problem,
                seconds=round(now - self._failing_since),
            )

    def _all_clear(self, seconds: float) -> None:
        log.info(
            "The store works again after {seconds} s",
            alert="store-down",
            cleared=True,
            subject="store",
            seconds=round(seconds),
        )


class Lag(Ticker):
    """How late the reactor calls us, in seconds: what a single slow step costs everybody else."""

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(clock, LAG_EVERY)
        self.histogram = Histogram(LAG)
        self._due: float | None = None
        self._worst: list[tuple[int, float]] = []  # of each stretch of time, the newest last

    def tick(self) -> None:
        """Compare when this is with when it should have been."""
        now = self._clock.seconds()
        if self._due is not None:
            late = max(now - self._due, 0.0)
            self.histogram.observe(late)
            self._note_worst(int(now // STRETCH), late)
        self._due = now + LAG_EVERY

    def stop(self) -> None:
        """End."""
        super().stop()
        self._due = None

    def worst(self) -> float:
        """Return the worst of the last minute, about."""
        oldest = int(self._clock.seconds() // STRETCH) - STRETCHES
        return max((late for stretch, late in self._worst if stretch > oldest), default=0.0)

    def _note_worst(self, stretch: int, late: float) -> None:
        if self._worst and self._worst[-1][0] == stretch:
            self._worst[-1] = stretch, max(late, self._worst[-1][1])
        else:
            self._worst = [*self._worst[1 - STRETCHES :], (stretch, late)]
