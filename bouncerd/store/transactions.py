"""What is written to PostgreSQL: scripts that wait go into one transaction, each undone by itself.

It commits before it acknowledges. What a lost connection took before its COMMIT is done again,
since nothing of it was stored; after that nobody knows, and who waits is told as much.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from bouncerd.meters import Timings
from bouncerd.store.base import StoreUnavailable
from bouncerd.store.dialect import with_parameters
from bouncerd.store.rows import Many, Row, Script, Statement, Value
from bouncerd.store.session import Again, Lost, ReadOnly, Run

T = TypeVar("T")

_ATTEMPTS = 6  # of a transaction that others are in the way of
_FIRST_PAUSE = 0.01  # seconds, doubled each time


class _Write:
    __slots__ = ("asked_at", "attempts", "ended", "script")

    def __init__(self, asked_at: float, script: Callable[[], Script[Any]]) -> None:
        self.asked_at = asked_at
        self.script = script
        self.ended: Deferred[Any] = Deferred()
        self.attempts = 0


class Transactions:
    """The writes that wait for a connection, in the order they were asked for."""

    def __init__(self, clock: IReactorTime, timings: Timings, together: int) -> None:
        """`together`: writes in one transaction at most."""
        self._clock = clock
        self._timings = timings
        self._together = together
        self._waiting: deque[_Write] = deque()
        self._flight: Sequence[_Write] = ()
        self._alone = 0  # of those that wait, the first ones

    def __len__(self) -> int:
        """Count those that wait."""
        return len(self._waiting)

    def put(self, script: Callable[[], Script[T]]) -> Deferred[T]:
        """Run a script, perhaps several times but for all we know in vain before the last."""
        write = _Write(self._clock.seconds(), script)
        self._waiting.append(write)
        return write.ended

    def waits(self) -> bool:
        """Tell whether there is something to write."""
        return bool(self._waiting)

    async def turn(self, run: Run) -> None:
        """Commit what waits, as much as goes together."""
        writes = self._flight = self._take()
        if not writes:
            return
        began = perf_counter()
        try:
            results = await self._committed(writes, run)
        finally:
            self._flight = ()
        self._timings.flushes.observe(perf_counter() - began)
        for write, result in zip(writes, results, strict=False):
            self._end(write, result)
        if any(isinstance(each, Failure) and each.check(ReadOnly) for each in results):
            raise Lost  # there may be another server to connect to that takes writes

    def give_up(self, reason: str, asked_before: float = math.inf) -> None:
        """Fail those who wait since then or longer; what has begun goes on."""
        late = [write for write in self._flight if write.asked_at <= asked_before]
        while self._waiting and self._waiting[0].asked_at <= asked_before:
            late.append(self._waiting.popleft())
        for write in late:
            if not write.ended.called:
                write.ended.errback(StoreUnavailable(reason))

    def _take(self) -> list[_Write]:
        most = 1 if self._alone else self._together
        self._alone = max(0, self._alone - 1)
        writes: list[_Write] = []
        while self._waiting and len(writes) < most:
            write = self._waiting.popleft()
            if not write.ended.called:
                writes.append(write)
        return writes

    async def _committed(self, writes: list[_Write], run: Run) -> list[Any]:
        """Return the value or the Failure of each; [] if they are to be done again."""
        transaction = _Transaction(run, savepoints=len(writes) > 1)
        try:
            results = [await transaction.attempt(write.script) for write in writes]
            await transaction.commit()
        except Lost:
            if transaction.committing:
                reason = StoreUnavailable("the connection was lost while it was stored")
                for write in writes:
                    self._end(write, Failure(reason))
            else:
                self._put_back(writes)
            raise
        except Again:
            await run("ROLLBACK", ())
            return await self._later(writes)
        except StoreUnavailable as error:
            await run("ROLLBACK", ())
            return [Failure(StoreUnavailable(str(error))) for _ in writes]
        return results

    async def _later(self, writes: list[_Write]) -> list[Failure]:
        """Have them done one by one, after a while; or give up."""
        if len(writes) > 1:
            self._alone = len(writes)
        else:
            [write] = writes
            write.attempts += 1
            if write.attempts >= _ATTEMPTS:
                return [Failure(StoreUnavailable("others were in the way each time"))]
            pause = _FIRST_PAUSE * 2**write.attempts * random.random()  # noqa: S311
            await deferLater(self._clock, pause)
        self._put_back(writes)
        return []

    def _put_back(self, writes: list[_Write]) -> None:
        self._waiting.extendleft(reversed(writes))

    def _end(self, write: _Write, result: Any) -> None:
        if write.ended.called:  # told meanwhile that there was no answer
            return
        self._timings.writes.observe(self._clock.seconds() - write.asked_at)
        if isinstance(result, Failure):
            write.ended.errback(result)
        else:
            write.ended.callback(result)


class _Transaction:
    """One transaction. What has no answer worth waiting for is sent with what comes next."""

    def __init__(self, run: Run, *, savepoints: bool) -> None:
        self._run = run
        self._savepoints = savepoints
        self._owed = "BEGIN;"
        self._begun = False
        self.committing = False

    async def attempt(self, script: Callable[[], Script[Any]]) -> Any:
        """Run a script; return its value, or a Failure if it did nothing."""
        self._owed += "SAVEPOINT one;" if self._savepoints else ""
        try:
            result = await self._drive(script())
        except (Lost, Again):
            raise
        except Exception as error:  # noqa: BLE001  (it belongs to who waits)
            result = Failure(error)
            self._owed += "ROLLBACK TO one;" if self._savepoints else "ROLLBACK;BEGIN;"
        self._owed += "RELEASE one;" if self._savepoints else ""
        return result

    async def commit(self) -> None:
        """Make it last."""
        if self._begun:
            self.committing = True
            await self._ask("COMMIT")

    async def _drive(self, script: Script[Any]) -> Any:
        try:
            statement = next(script)
            while True:
                statement = script.send(await self._run_one(statement))
        except StopIteration as end:
            return end.value

    async def _run_one(self, statement: Statement | Many) -> list[Row]:
        if not isinstance(statement, Many):
            return await self._ask(with_parameters(statement[0]), statement[1])
        if statement.parameters:
            text = ";".join([with_parameters(statement.text)] * len(statement.parameters))
            values = [value for row in statement.parameters for value in row]
            await self._ask(text, values)
        return []

    async def _ask(self, statement: str, values: Sequence[Value] = ()) -> list[Row]:
        owed, self._owed = self._owed, ""
        self._begun = True
        return await self._run(owed + statement, values)
