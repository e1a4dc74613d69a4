"""The store on SQLite: one file, one daemon.

Reads run at once in the reactor's thread: they take some microseconds, less than handing them
to a thread would. Writes go through `Writer` and are on disk when acknowledged. The two have a
connection each to a write-ahead log, so neither waits for the other.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads

from bouncerd.model import Found, Identity
from bouncerd.store import file, finding, statements
from bouncerd.store.base import StoreError, StoreUnavailable
from bouncerd.store.rows import Row, Script, Statement
from bouncerd.store.scripted import ScriptedStore
from bouncerd.store.steps import Step, shipped_steps
from bouncerd.store.writer import Trouble, Writer

T = TypeVar("T")

# So long a write waits for another process. A read waits only while a log is being recovered,
# and the reactor with it.
_WRITE_PATIENCE = 2.0  # seconds
_READ_PATIENCE_MS = 50


class SQLiteStore(ScriptedStore):
    """A `Store` in a file, or in memory (path None) for tests.

    It opens the file at once and raises StoreError if that fails; do so in the process that
    will use it, after any fork. Unless `beside` a daemon it holds the file's lock until closed.
    Without a reactor it has no thread, and every Deferred has fired when it is returned.
    """

    def __init__(
        self,
        path: Path | None,
        reactor: IReactorFromThreads | None,
        now: Callable[[], float],
        *,
        beside: bool = False,
        steps: Sequence[Step] | None = None,
        random: Callable[[int], bytes] = os.urandom,
        write_patience: float = _WRITE_PATIENCE,
    ) -> None:
        super().__init__(random)
        if sqlite3.sqlite_version_info < file.OLDEST_SQLITE:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 is needed")
        steps = shipped_steps() if steps is None else steps
        self._path = path
        self._now = now
        self._lock = None if path is None or beside else file.Lock(path)
        try:
            if path is None:
                self._reading = writing = file.connect_in_memory(steps, now)
            else:
                _bring_up_to_date(path, steps, now, locked=self._lock is not None)
                writing = file.connect(path, write_patience)
                self._reading = file.connect(path, write_patience)
                self._reading.execute(f"PRAGMA busy_timeout = {_READ_PATIENCE_MS}")
                self._reading.execute("PRAGMA query_only = ON")
        except BaseException:
            self._release()
            raise
        self._inode = _inode(path)
        self._cursor = self._reading.cursor()
        self._trouble = Trouble("read")
        self._writer = Writer(writing, reactor, self.timings)

    def find(self, uuid: str, identity: Identity | None, realm_uuid: str | None) -> Deferred[Found]:
        """Find a server, any server's realm, and the server's devices of one user, at once."""
        look_up, parameters = finding.find(uuid, identity, realm_uuid)
        return self._read((look_up.text, parameters), look_up.found)

    def open(self) -> Deferred[None]:
        """Return what has fired: the file is open since the store was made."""
        return succeed(None)

    def ping(self) -> Deferred[None]:
        """Ask the database something; fail if it does not answer or its file was replaced."""
        if _inode(self._path) != self._inode:
            return fail(StoreUnavailable("the file was moved or deleted"))
        return self._read(statements.PING, _nothing)

    def close(self) -> Deferred[None]:
        """Commit what was asked for, then let go of the file."""
        return self._writer.stop().addCallback(self._closed)

    def _read_all(
        self, statements: Iterable[Statement], understand: Callable[[list[Row]], T]
    ) -> Deferred[T]:
        rows: list[Row] = []
        began = perf_counter()
        try:
            for statement in statements:
                rows += self._cursor.execute(*statement).fetchall()
        except sqlite3.Error as error:
            reason = file.why(error)
            self._trouble.note(reason)
            return fail(StoreUnavailable(reason))
        self.timings.reads.observe(perf_counter() - began)
        self._trouble.note(None)
        return succeed(understand(rows))

    def _put(self, script: Callable[[], Script[T]], *, long: bool = False) -> Deferred[T]:
        return self._writer.put(script(), long=long)

    def _clock(self) -> Statement:
        return "?", (self._now(),)

    def _closed(self, _: None) -> None:
        self._reading.close()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def _bring_up_to_date(
    path: Path, steps: Sequence[Step], now: Callable[[], float], locked: bool
) -> None:
    """Create or upgrade the file, which needs its lock, if only for as long as that takes."""
    if locked:
        file.prepare(path, steps, now)
    elif not file.is_current(path, steps):
        lock = file.Lock(path)
        try:
            file.prepare(path, steps, now)
        finally:
            lock.release()


def _inode(path: Path | None) -> int | None:
    try:
        return None if path is None else path.stat().st_ino
    except OSError:
        return None


def _nothing(_: list[Row]) -> None:
    return None
