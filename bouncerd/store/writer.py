"""One writer for SQLite: what waits is committed together, and acknowledged after that.

The thread it may run in is the only one we own. It touches its own connection and nothing
else; results go back by `callFromThread`.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from bouncerd.meters import Timings
from bouncerd.store.base import Conflict, StoreUnavailable
from bouncerd.store.file import why
from bouncerd.store.rows import Many, Row, Script, Statement

log = Logger()

T = TypeVar("T")

WAITING = 10_000  # writes at most, so that a disk that hangs does not fill the memory
TOGETHER = 256  # writes in one transaction at most, so that another process gets its turn

_UNIQUE = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}


class _Write(NamedTuple):
    script: Script[Any]
    ended: Deferred[Any]
    long: bool
    asked_at: float


class Trouble:
    """Logs when the store begins to fail and when it works again, and not each time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._reason: str | None = None

    def note(self, reason: str | None) -> None:
        """Tell why it failed just now, in our own words, or None if it did not."""
        if reason == self._reason:
            return
        self._reason = reason
        if reason is None:
            log.info("The store can be {what} again", what=self._what)
        else:
            log.error("The store cannot be {what}: {reason}", what=self._what, reason=reason)


class Writer:
    """Runs scripts in the order of `put`, many in a transaction, each undone by itself.

    A long one has a transaction of its own, and what is short and waits goes before it. With a
    reactor it works in a thread of its own. Without, `put` commits before it returns,
    by the same code; that is for tests and for tools.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        reactor: IReactorFromThreads | None,
        timings: Timings | None = None,
    ) -> None:
        self._connection = connection
        self._timings = timings or Timings()
        self._reactor = reactor
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._long: deque[_Write] = deque()
        self._waiting = 0
        self._trouble = Trouble("written")
        self._stopped: Deferred[None] | None = None
        self._thread: threading.Thread | None = None
        if reactor is not None:
            # A daemon thread, so that a start-up that fails later does not hang the process.
            self._thread = threading.Thread(target=self._run, name="store writer", daemon=True)
            self._thread.start()

    def put(self, script: Script[T], *, long: bool = False) -> Deferred[T]:
        """Commit a script, with others unless long; then the Deferred fires with its value."""
        if self._stopped is not None:
            return fail(StoreUnavailable("closed"))
        if self._waiting >= WAITING:
            return fail(StoreUnavailable("too many writes wait for the disk"))
        ended: Deferred[T] = Deferred()
        self._waiting += 1
        self._queue.put(_Write(script, ended, long, perf_counter()))
        if self._thread is None:
            self._turn()
        return ended

    def stop(self) -> Deferred[None]:
        """Commit what waits, then close the connection."""
        if self._stopped is not None:
            return fail(StoreUnavailable("closed"))
        self._stopped = Deferred()
        self._queue.put(None)
        if self._thread is None:
            self._turn()
        return self._stopped

    # In the thread, if there is one.

    def _run(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Commit all short writes that wait, then one long one; False if told to stop."""
        short, stop = self._take()
        if short:
            self._settle(short)
        while self._long:
            self._settle([self._long.popleft()])
            if not stop:
                break
        if stop:
            self._let_go()
            self._deliver(self._end)
        return not stop

    def _settle(self, writes: list[_Write]) -> None:
        began = perf_counter()
        results = self._commit(writes)
        self._deliver(self._acknowledge, writes, results, perf_counter() - began)

    def _take(self) -> tuple[list[_Write], bool]:
        """Take what waits, for some time if nothing does; return what is short, and the stop."""
        short: list[_Write] = []
        while len(short) < TOGETHER and not (self._queue.empty() and (short or self._long)):
            write = self._queue.get()
            if write is None:
                return short, True
            (self._long if write.long else short).append(write)
        return short, False

    def _commit(self, writes: list[_Write]) -> list[Any]:
        """Run all in one transaction; return the value or the Failure of each."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [self._attempt(write.script) for write in writes]
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  (it belongs to those who wait)
            self._undo()
            return [_failure(error) for _ in writes]
        return results

    def _attempt(self, script: Script[Any]) -> Any:
        """Run one script in a savepoint; raise only what undid its neighbours too."""
        self._connection.execute("SAVEPOINT one")
        try:
            result = self._drive(script)
        except Exception as error:
            # On a full or broken disk SQLite may undo the whole transaction by itself.
            if not self._connection.in_transaction:
                raise
            result = _failure(error)
            self._connection.execute("ROLLBACK TO one")
        self._connection.execute("RELEASE one")
        return result

    def _drive(self, script: Script[Any]) -> Any:
        try:
            statement = next(script)
            while True:
                statement = script.send(self._run_one(statement))
        except StopIteration as end:
            return end.value

    def _run_one(self, statement: Statement | Many) -> list[Row]:
        if isinstance(statement, Many):
            self._connection.executemany(*statement)
            return []
        return self._connection.execute(*statement).fetchall()

    def _undo(self) -> None:
        # If even this fails, the failed write is reported already and so will the next be.
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _let_go(self) -> None:
        # Without the checkpoint the next start reads the log: slower, nothing lost.
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def _deliver(self, call: Callable[..., None], *arguments: object) -> None:
        if self._reactor is None:
            call(*arguments)
        else:
            self._reactor.callFromThread(call, *arguments)

    # In the reactor's thread again.

    def _acknowledge(self, writes: list[_Write], results: list[Any], took: float) -> None:
        self._waiting -= len(writes)
        self._time(writes, took)
        failed = [r for r in results if isinstance(r, Failure) and r.check(StoreUnavailable)]
        self._trouble.note(str(failed[0].value) if failed else None)
        for write, result in zip(writes, results, strict=True):
            if isinstance(result, Failure):
                write.ended.errback(result)
            else:
                write.ended.callback(result)

    def _time(self, writes: list[_Write], took: float) -> None:
        now = perf_counter()
        self._timings.flushes.observe(took)
        for write in writes:
            self._timings.writes.observe(now - write.asked_at)

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.join()
        assert self._stopped is not None
        self._stopped.callback(None)


def _failure(error: Exception) -> Failure:
    """Wrap what a script met: our own exceptions as they are, SQLite's in our own words."""
    if not isinstance(error, sqlite3.Error):
        return Failure(error)
    if getattr(error, "sqlite_errorcode", None) in _UNIQUE:
        return Failure(Conflict())
    return Failure(StoreUnavailable(why(error)))
