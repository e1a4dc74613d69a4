"""The store on SQLite: one file, one daemon.

Reads run at once in the reactor's thread: they take some microseconds, less than handing them
to a thread would. Writes go through `Writer` and are on disk when acknowledged. The two have a
connection each to a write-ahead log, so neither waits for the other.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads

from bouncerd.model import Device, Identity, Kind, Server
from bouncerd.store import file, statements
from bouncerd.store.base import StoreError, StoreUnavailable
from bouncerd.store.statements import Row, Statement
from bouncerd.store.steps import Step, shipped_steps
from bouncerd.store.writer import Trouble, Writer

T = TypeVar("T")

# So long a write waits for another process. A read waits only while a log is being recovered,
# and the reactor with it.
_WRITE_PATIENCE = 2.0  # seconds
_READ_PATIENCE_MS = 50


class SQLiteStore:
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
        if sqlite3.sqlite_version_info < file.OLDEST_SQLITE:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 is needed")
        steps = shipped_steps() if steps is None else steps
        self._path = path
        self._random = random
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
        self._writer = Writer(writing, reactor)

    def server(self, uuid: str) -> Deferred[Server | None]:
        """Find a server, deactivated ones included."""
        return self._read(statements.server(uuid), statements.the_server)

    def server_by_hostname(self, hostname: str) -> Deferred[Server | None]:
        """Find the active server of exactly this host name."""
        return self._read(statements.server_by_hostname(hostname), statements.the_server)

    def add_server(
        self, uuid: str, hostname: str, contact_email: str, key_digest: bytes, now: float
    ) -> Deferred[None]:
        """Add a server; fail with Conflict if uuid or active host name is taken."""
        script = statements.add_server(uuid, hostname, contact_email, key_digest, now)
        return self._writer.put(script)

    def update_server(
        self, uuid: str, hostname: str, contact_email: str, key_digest: bytes | None, now: float
    ) -> Deferred[None]:
        """Overwrite an active server's facts, and its key unless None."""
        script = statements.update_server(uuid, hostname, contact_email, key_digest, now)
        return self._writer.put(script)

    def lookup(self, uuid: str, identity: Identity) -> Deferred[tuple[Server | None, list[Device]]]:
        """Find a server and its devices of one user."""
        return self._read(statements.lookup(uuid, identity), statements.server_and_devices)

    def register(
        self,
        server_id: int,
        identity: Identity,
        kind: Kind,
        token: str,
        app_id: str | None,
        now: float,
    ) -> Deferred[None]:
        """Add a device, or renew its registration time."""
        script = statements.register(server_id, identity, kind, token, app_id, now)
        return self._writer.put(script)

    def unregister(
        self, server_id: int, identity: Identity, kind: Kind, token: str
    ) -> Deferred[bool]:
        """Delete one device of a user; False if there was none."""
        return self._writer.put(statements.unregister(server_id, identity, kind, token))

    def unregister_all(self, server_id: int, identity: Identity) -> Deferred[int]:
        """Delete all devices of a user, and say how many."""
        return self._writer.put(statements.unregister_all(server_id, identity))

    def forget(
        self, server_id: int, device_ids: Sequence[int], registered_before: float
    ) -> Deferred[int]:
        """Delete those of a server's devices not registered after that, and say how many."""
        # A copy, since the script runs later.
        return self._writer.put(statements.forget(server_id, tuple(device_ids), registered_before))

    def forget_everywhere(
        self, kind: Kind, token: str, app_id: str | None, registered_before: float
    ) -> Deferred[int]:
        """Delete a token of one app from all servers where not registered after that."""
        script = statements.forget_everywhere(kind, token, app_id, registered_before)
        return self._writer.put(script)

    def count_devices(self, server_id: int, identity: Identity, kind: Kind) -> Deferred[int]:
        """Count a user's devices of one platform."""
        statement = statements.count_devices(server_id, identity, kind)
        return self._read(statement, statements.the_count)

    def secret(self) -> Deferred[bytes]:
        """Return the store's 32 random bytes; the first to ask makes them."""
        return self._writer.put(statements.keep_secret(self._random(32)))

    def ping(self) -> Deferred[None]:
        """Ask the database something; fail if it does not answer or its file was replaced."""
        if _inode(self._path) != self._inode:
            return fail(StoreUnavailable("the file was moved or deleted"))
        return self._read(statements.PING, _nothing)

    def close(self) -> Deferred[None]:
        """Commit what was asked for, then let go of the file."""
        return self._writer.stop().addCallback(self._closed)

    def _read(self, statement: Statement, understand: Callable[[list[Row]], T]) -> Deferred[T]:
        try:
            rows = self._cursor.execute(*statement).fetchall()
        except sqlite3.Error as error:
            reason = file.why(error)
            self._trouble.note(reason)
            return fail(StoreUnavailable(reason))
        self._trouble.note(None)
        return succeed(understand(rows))

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
