"""What waits for its next attempt, each with its own timer; known by server, as the queue is.

A push that rests takes room in its lane like one that is queued. So what rests counts when room is
made: else one tenant's hopeless pushes would drive out everybody's fresh ones.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from bouncerd.fair import Queued

Q = TypeVar("Q", bound=Queued)


class Resting(Generic[Q]):
    """Items with timers. `wake` gets each item whose time has come; it rests no longer then."""

    def __init__(self, clock: IReactorTime, wake: Callable[[Q], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._calls: dict[str, dict[Q, IDelayedCall]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Q]:
        for calls in self._calls.values():
            yield from calls

    def due(self) -> Iterator[tuple[Q, float]]:
        """Yield each item and when it wakes, in the clock's seconds."""
        for calls in self._calls.values():
            for item, call in calls.items():
                yield item, call.getTime()

    def counts(self) -> dict[str, int]:
        """Return how many items of each server rest."""
        return {server: len(calls) for server, calls in self._calls.items()}

    def add(self, item: Q, seconds: float) -> None:
        """Wake an item after so many seconds."""
        call = self._clock.callLater(seconds, self._woken, item)
        self._calls.setdefault(item.server, {})[item] = call
        self._size += 1

    def hurry(
        self, wanted: Callable[[Q], bool], after: float, within: float, random: Random
    ) -> None:
        """Wake those that are wanted between so many seconds and so many, not all at once."""
        latest = self._clock.seconds() + within
        for calls in self._calls.values():
            for item, call in calls.items():
                if call.getTime() > latest and wanted(item):
                    call.reset(after + (within - after) * random.random())

    def take(self, server: str) -> Q:
        """Remove and return the item of a server that has rested longest."""
        item = next(iter(self._calls[server]))
        self._remove(item).cancel()
        return item

    def remove(self, due_after: float = float("-inf")) -> list[Q]:
        """Remove and return what would wake later than that, in the clock's seconds."""
        late = [
            item
            for calls in self._calls.values()
            for item, call in calls.items()
            if call.getTime() > due_after
        ]
        for item in late:
            self._remove(item).cancel()
        return late

    def _woken(self, item: Q) -> None:
        self._remove(item)
        self._wake(item)

    def _remove(self, item: Q) -> IDelayedCall:
        calls = self._calls[item.server]
        call = calls.pop(item)
        if not calls:
            del self._calls[item.server]
        self._size -= 1
        return call
