"""What is read from PostgreSQL: look-ups that wait go together, other reads one by one."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from bouncerd.meters import Timings
from bouncerd.model import Found
from bouncerd.store.base import StoreUnavailable
from bouncerd.store.coalescing import EXECUTE, Asked, parameters, told_apart
from bouncerd.store.dialect import with_parameters
from bouncerd.store.rows import Row, Statement
from bouncerd.store.session import Lost, Run

T = TypeVar("T")

_TOGETHER = 500  # look-ups in one statement at most: its answer is read in one go
_FIND = with_parameters(EXECUTE)


class _Find(NamedTuple):
    asked_at: float
    answer: Deferred[Found]
    asked: Asked


class _Read(NamedTuple):
    asked_at: float
    answer: Deferred[Any]
    statements: Sequence[Statement]
    understand: Callable[[list[Row]], Any]


class Lookups:
    """The reads that wait for a connection. A read that a lost connection took is asked again."""

    def __init__(self, clock: IReactorTime, timings: Timings) -> None:
        self._clock = clock
        self._timings = timings
        self._finds: deque[_Find] = deque()
        self._reads: deque[_Read] = deque()
        self._flight: Sequence[_Find | _Read] = ()

    def __len__(self) -> int:
        """Count those that wait."""
        return len(self._finds) + len(self._reads)

    def find(self, asked: Asked) -> Deferred[Found]:
        """Look up a server, a realm and a user's devices."""
        answer: Deferred[Found] = Deferred()
        self._finds.append(_Find(self._clock.seconds(), answer, asked))
        return answer

    def read(
        self, statements: Sequence[Statement], understand: Callable[[list[Row]], T]
    ) -> Deferred[T]:
        """Run statements, and return what is understood of their rows."""
        answer: Deferred[T] = Deferred()
        self._reads.append(_Read(self._clock.seconds(), answer, statements, understand))
        return answer

    def waits(self) -> bool:
        """Tell whether there is something to read."""
        return bool(self._finds or self._reads)

    async def turn(self, run: Run) -> None:
        """Look up all that waits at once, and do one of the other reads."""
        if self._finds:
            count = min(len(self._finds), _TOGETHER)
            await self._look_up([self._finds.popleft() for _ in range(count)], run)
        if self._reads:
            await self._read(self._reads.popleft(), run)

    def give_up(self, reason: str, asked_before: float = math.inf) -> None:
        """Fail those who wait since then or longer."""
        late: list[_Find | _Read] = [w for w in self._flight if w.asked_at <= asked_before]
        while self._finds and self._finds[0].asked_at <= asked_before:
            late.append(self._finds.popleft())
        while self._reads and self._reads[0].asked_at <= asked_before:
            late.append(self._reads.popleft())
        _fail(late, reason)

    async def _look_up(self, finds: list[_Find], run: Run) -> None:
        self._flight = finds
        began = perf_counter()
        try:
            rows = await run(_FIND, parameters(find.asked for find in finds))
        except Lost:
            self._finds.extendleft(w for w in reversed(finds) if not w.answer.called)
            raise
        except StoreUnavailable as error:
            _fail(finds, str(error))
            return
        finally:
            self._flight = ()
        self._timings.reads.observe(perf_counter() - began)
        for find, found in zip(finds, told_apart(rows, len(finds)), strict=True):
            if not find.answer.called:
                find.answer.callback(found)

    async def _read(self, read: _Read, run: Run) -> None:
        self._flight = (read,)
        began = perf_counter()
        rows: list[Row] = []
        try:
            for statement, values in read.statements:
                rows += await run(with_parameters(statement), values)
        except Lost:
            if not read.answer.called:
                self._reads.appendleft(read)
            raise
        except StoreUnavailable as error:
            _fail([read], str(error))
            return
        finally:
            self._flight = ()
        self._timings.reads.observe(perf_counter() - began)
        if not read.answer.called:
            read.answer.callback(read.understand(rows))


def _fail(waiting: Sequence[_Find | _Read], reason: str) -> None:
    for each in waiting:
        if not each.answer.called:
            each.answer.errback(StoreUnavailable(reason))
