"""The SQLite file before it serves: its lock, its creation, its upgrades, its connections.

All of it happens while the daemon starts, so it may block, and what goes wrong is a StoreError
of one line that names the file.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from twisted.logger import Logger

from bouncerd.store.base import StoreError
from bouncerd.store.steps import Step, newest

log = Logger()

OLDEST_SQLITE = (3, 37, 0)  # STRICT tables

_WHY = {
    sqlite3.SQLITE_AUTH: "permission denied",
    sqlite3.SQLITE_BUSY: "locked by another process",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_FULL: "no space left",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_LOCKED: "locked by another process",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_NOTADB: "not a database",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_READONLY_DBMOVED: "the file was moved or deleted",
}


def why(error: sqlite3.Error) -> str:
    """Say in our own words what SQLite reports, without anything of what it was asked."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return "closed" if isinstance(error, sqlite3.ProgrammingError) else "refused"
    return _WHY.get(code) or _WHY.get(code & 0xFF) or error.sqlite_errorname


class Lock:
    """The right to be the one daemon on a database file, held until released or killed.

    It is on a file beside the database, since SQLite's own locks are for one transaction, and
    an administrator's tool may write beside the daemon.
    """

    def __init__(self, database: Path) -> None:
        path = database.with_name(database.name + ".lock")
        with _one_line(database):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise StoreError(f"{database}: in use by another bouncerd") from None

    def release(self) -> None:
        """Let another process have it. The file stays: to unlink it would be a race."""
        os.close(self._file)


def prepare(path: Path, steps: Sequence[Step], now: Callable[[], float]) -> None:
    """Create the database or bring it to the newest step; hold its Lock meanwhile."""
    if not exists(path):
        _create(path, steps, now)
        return
    with _connection(path) as connection:
        installed = version(connection, path)
        if installed > newest(steps):
            raise StoreError(
                f"{path}: its schema is version {installed} and this bouncerd knows only up to "
                f"{newest(steps)}: install the newer one again"
            )
        missing = [step for step in steps if step.number > installed]
        if installed and missing:
            _copy(connection, path, installed)
        _apply(connection, path, missing, now)


def is_current(path: Path, steps: Sequence[Step]) -> bool:
    """Tell whether `prepare` would have nothing to do."""
    if not exists(path):
        return False
    with _connection(path) as connection:
        return version(connection, path) == newest(steps)


def exists(path: Path) -> bool:
    """Tell whether there is a database file; no right to know is a StoreError."""
    with _one_line(path):
        return path.exists()


def connect(path: Path, patience: float) -> sqlite3.Connection:
    """Open an existing database for one thread at a time, waiting so many seconds for locks."""
    with _one_line(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=patience,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            configure(connection)
            [(mode,)] = connection.execute("PRAGMA journal_mode = WAL").fetchall()
            if mode != "wal":
                raise StoreError(f"{path}: no write-ahead log on this file system ({mode})")
            # Whether it can be written is asked now, not at the first registration.
            connection.execute("DELETE FROM schema_steps WHERE step < 0")
        except BaseException:
            connection.close()
            raise
    return connection


def connect_in_memory(steps: Sequence[Step], now: Callable[[], float]) -> sqlite3.Connection:
    """Open a new database that ends with its connection, for tests."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _apply(connection, Path(":memory:"), steps, now)
    configure(connection)
    return connection


def configure(connection: sqlite3.Connection) -> None:
    """Set what SQLite forgets from one connection to the next."""
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # What was deleted is overwritten: nobody finds an erased token in the file's free pages.
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA journal_size_limit = 67108864")


def version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the newest step a database has been through; 0 if it is empty."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    if not tables:
        return 0
    if ("schema_steps",) not in tables:
        raise StoreError(f"{path}: a database, but not one of bouncerd's")
    [(installed,)] = connection.execute("SELECT MAX(step) FROM schema_steps").fetchall()
    return int(installed or 0)


def _create(path: Path, steps: Sequence[Step], now: Callable[[], float]) -> None:
    with _filling(path) as connection:
        _apply(connection, path, steps, now)
        connection.execute("PRAGMA journal_mode = WAL")


def _copy(connection: sqlite3.Connection, path: Path, installed: int) -> None:
    """Keep the database as it was before an upgrade, beside itself."""
    kept = path.with_name(f"{path.name}.version-{installed}")
    with _filling(kept) as copy:
        connection.backup(copy)
    log.info("Kept the database as it was before the upgrade: {path}", path=str(kept))


@contextmanager
def _filling(path: Path) -> Iterator[sqlite3.Connection]:
    """Fill a new database under another name, then give it its own: all of it or nothing."""
    fresh = path.with_name(path.name + ".new")
    with _one_line(path):
        _remove(fresh)  # of an earlier attempt that was killed
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with _connection(fresh) as connection:
                yield connection
            fresh.rename(path)
        except BaseException:
            _remove(fresh)
            raise
        _sync_directory(path.parent)


def _remove(database: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def _apply(
    connection: sqlite3.Connection, path: Path, steps: Sequence[Step], now: Callable[[], float]
) -> None:
    """Run steps, each in a transaction of its own.

    Foreign keys are checked at the end of a step and not within: a step may rebuild a table.
    """
    for step in steps:
        try:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.executescript("BEGIN IMMEDIATE;\n" + step.sql)
            connection.execute("INSERT INTO schema_steps VALUES (?, ?)", (step.number, now()))
            if connection.execute("PRAGMA foreign_key_check").fetchall():
                raise StoreError(f"{path}: schema step {step.number} would orphan rows")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            _undo(connection)
            reason = f"schema step {step.number} failed ({why(error)})"
            raise StoreError(f"{path}: {reason}; it stays at the step before") from None
        except StoreError:
            _undo(connection)
            raise


def _undo(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    with _one_line(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
        finally:
            connection.close()


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn what the system or SQLite says of a file into a StoreError."""
    try:
        yield
    except FileNotFoundError:
        raise StoreError(f"{path}: its directory does not exist") from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or type(error).__name__}") from None
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {why(error)}") from None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
