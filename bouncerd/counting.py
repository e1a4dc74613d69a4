"""Storing what `tallies` adds up: each second when there is something, and at a stop.

What is taken from the tallies gets a number, and is tried until it is stored under that number,
so that it is counted once, whatever became of the attempts that failed.
"""

from collections.abc import Callable
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bouncerd.deadline import TooLate, until
from bouncerd.store.base import Store, StoreUnavailable
from bouncerd.tallies import Counts, Tallies

log = Logger()

#: Seconds between two looks, between attempts at most, and for all of it at a stop.
FLUSH_EVERY = 1.0
RETRY_WITHIN = 30.0
STOP_WITHIN = 3.0
#: Rows in one write: it takes some ten milliseconds, and lookups go on meanwhile.
TOGETHER = 1000


class Counting:
    """Takes from the tallies and gives to the store. Times are the clock's, `now` is unix time."""

    def __init__(
        self,
        store: Store,
        tallies: Tallies,
        clock: IReactorTime,
        now: Callable[[], float],
        writer: str | None = None,
    ) -> None:
        """`writer` is a name that no other process has, nor this one after a restart."""
        self._store = store
        self._tallies = tallies
        self._clock = clock
        self._now = now
        self._writer = writer or str(uuid4())
        self._number = 0
        self._taken = Counts()  # under that number; not stored yet, as far as we know
        self._wait = FLUSH_EVERY
        self._call: IDelayedCall | None = None
        self._flushing: Deferred[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin to store."""
        self._call = self._clock.callLater(self._wait, self._flush)

    def stop(self) -> Deferred[None]:
        """Store what there is; fires when that is done, or has failed or takes too long."""
        self._stopping = True
        if self._call is not None and self._call.active():
            self._call.cancel()
        return Deferred.fromCoroutine(self._last())

    async def _last(self) -> None:
        by = self._clock.seconds() + STOP_WITHIN
        try:
            if self._flushing is not None:
                await until(by, self._clock, self._flushing)
            await until(by, self._clock, Deferred.fromCoroutine(self._store_all()))
        except (StoreUnavailable, TooLate) as reason:
            log.error(
                "Lost {count} rows of counts at the stop: {reason}",
                count=len(self._taken) + len(self._tallies),
                reason=type(reason).__name__,
            )

    def _flush(self) -> None:
        """Store what there is, then wait for more: longer and longer while the store fails."""
        self._flushing = Deferred()

        def stored(_: None) -> None:
            self._wait = FLUSH_EVERY

        def failed(reason: Failure) -> None:
            if not reason.check(StoreUnavailable):  # which has told the operator
                log.failure("Failed to store counts", reason)
            self._wait = min(2 * self._wait, RETRY_WITHIN)

        def go_on(_: object) -> None:
            if not self._stopping:
                self.start()
            flushing, self._flushing = self._flushing, None
            assert flushing is not None
            flushing.callback(None)

        done = Deferred.fromCoroutine(self._store_all())
        done.addCallbacks(stored, failed).addBoth(go_on)

    async def _store_all(self) -> None:
        """Store until nothing is left; raise StoreUnavailable if something has to wait."""
        while True:
            if not self._taken:
                self._taken = self._tallies.take(TOGETHER)
                self._number += 1
            if not self._taken:
                return
            await self._store_taken()
            self._taken = Counts()
            self._say_dropped()

    async def _store_taken(self) -> None:
        try:
            await self._store.add_counts(self._writer, self._number, self._taken, self._now())
        except StoreUnavailable:
            raise
        except Exception:  # noqa: BLE001 -- what can never be stored must not stop the rest
            log.failure("Failed to store {count} rows of counts", count=len(self._taken))

    def _say_dropped(self) -> None:
        dropped, self._tallies.dropped = self._tallies.dropped, 0
        if dropped:
            log.error("Did not count {count} events: too many counts waited", count=dropped)
