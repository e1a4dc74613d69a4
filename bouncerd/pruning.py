"""Deleting counts that are old: daily, a little at a time, so that nobody waits for it."""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bouncerd.store.base import Store, StoreUnavailable
from bouncerd.tallies import DAY

log = Logger()

#: How many days what pushes met is kept, and how many pushes there were: today not included.
OUTCOMES_KEPT = 30
COUNTS_KEPT = 400

# Seconds from the start to the first time, between two parts of it, and after it could not be done.
_FIRST = 60.0
_PAUSE = 0.5
_AGAIN = 600.0


class Pruning:
    """Prunes the store while it runs. Many processes may do so at once."""

    def __init__(self, store: Store, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._now = now
        self._call: IDelayedCall | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin, when the start is over."""
        self._later(_FIRST)

    def stop(self) -> None:
        """End."""
        self._stopped = True
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _later(self, seconds: float) -> None:
        if not self._stopped:
            self._call = self._clock.callLater(seconds, self._prune)

    def _prune(self) -> None:
        today = int(self._now() // DAY)
        pruned = self._store.prune_counts(today - OUTCOMES_KEPT, today - COUNTS_KEPT)
        pruned.addCallbacks(lambda rows: _PAUSE if rows else DAY, _failed).addCallback(self._later)


def _failed(reason: Failure) -> float:
    if not reason.check(StoreUnavailable):
        log.failure("Failed to delete old counts", reason)
    return _AGAIN
