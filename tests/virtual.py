"""Virtual time that is quick with many timers, and exact: each call finds the time it asked for."""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock


class VirtualClock(Clock):
    """A reactor's time. `watch` is called after each call: what must hold at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.watch: Callable[[], None] = _nothing
        self.events = 0
        self._heap: list[tuple[float, int, DelayedCall]] = []
        self._order = count()

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002 -- Twisted's name
        *args: object,
        **kw: object,
    ) -> DelayedCall:
        """Call it in so many seconds."""
        at = self.seconds() + delay
        call = DelayedCall(at, callable, args, kw, _nothing, self._put, self.seconds)
        self._put(call)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:  # noqa: N802 -- Twisted's name
        """List what is still to be called."""
        return list({id(call): call for _, _, call in self._heap if call.active()}.values())

    def advance(self, amount: float) -> None:
        """Let so many seconds pass."""
        by, heap = self.rightNow + amount, self._heap
        while heap and heap[0][0] <= by:
            at, _, call = heappop(heap)
            if not call.active():
                continue
            if call.getTime() > at:  # it was put off
                self._put(call)
                continue
            self.rightNow = max(self.rightNow, at)
            call.called = 1
            call.func(*call.args, **call.kw)
            self.events += 1
            self.watch()
        self.rightNow = by

    def _put(self, call: DelayedCall) -> None:
        heappush(self._heap, (call.getTime(), next(self._order), call))


def _nothing(*_: Any) -> None:
    """Do nothing."""
