"""The store on SQLite: one file, one daemon.

Reads run at once in the reactor's thread: they take some microseconds, less than handing them
to a thread would. Writes go through `Writer` and are on disk when acknowledged. The two have a
connection each to a write-ahead log, so neither waits for the other.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads

from bouncerd.model import Found, Identity, Kind, Realm, SealedDevice, Server
from bouncerd.store import devices, file, finding, sealing, statements, uploading
from bouncerd.store.base import StoreError, StoreUnavailable
from bouncerd.store.rows import Row, Statement
from bouncerd.store.steps import Step, shipped_steps
from bouncerd.store.writer import Trouble, Writer
from bouncerd.uploads import Marks, Upload

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

    def find(self, uuid: str, identity: Identity | None, realm_uuid: str | None) -> Deferred[Found]:
        """Find a server, any server's realm, and the server's devices of one user, at once."""
        look_up, parameters = finding.find(uuid, identity, realm_uuid)
        return self._read((look_up.text, parameters), look_up.found)

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
        self,
        uuid: str,
        hostname: str,
        contact_email: str,
        key_digest: bytes | None,
        now: float,
        old_key_until: float | None = None,
    ) -> Deferred[None]:
        """Overwrite an active server's facts, and its key unless None."""
        facts = uuid, hostname, contact_email
        return self._writer.put(statements.update_server(*facts, key_digest, now, old_key_until))

    def transfer_server(self, hostname: str, key_digest: bytes, now: float) -> Deferred[str | None]:
        """Give the active server of this host name a new key, and return its uuid."""
        return self._writer.put(statements.transfer_server(hostname, key_digest, now))

    def deactivate_server(self, uuid: str, now: float) -> Deferred[None]:
        """Deactivate a server, if it is not; fail with Conflict if there is none."""
        return self._writer.put(statements.deactivate_server(uuid, now))

    def reactivate_server(self, uuid: str, now: float) -> Deferred[None]:
        """Reactivate a server; fail with Conflict if its host name is taken."""
        return self._writer.put(statements.reactivate_server(uuid, now))

    def set_plan(
        self, uuid: str, plan_type: int, ends_at: float | None, now: float
    ) -> Deferred[bool]:
        """Set the plan of the server or the realm of this uuid; False if there is neither."""
        return self._writer.put(statements.set_plan(uuid, plan_type, ends_at, now))

    def set_requests_per_minute(self, uuid: str, limit: int | None, now: float) -> Deferred[bool]:
        """Set a server's own rate limit (None: as configured for all); False if unknown."""
        return self._writer.put(statements.set_requests_per_minute(uuid, limit, now))

    def realm(self, uuid: str) -> Deferred[Realm | None]:
        """Find a realm, whatever its server."""
        return self._read(statements.realm(uuid), statements.the_realm)

    def marks(self, server_id: int) -> Deferred[Marks]:
        """Return how far a server has uploaded."""
        return self._read(statements.marks(server_id), statements.the_marks)

    def upload(self, server_id: int, upload: Upload, now: float) -> Deferred[list[Realm]]:
        """Store an upload, all of it or nothing."""
        return self._writer.put(uploading.upload(server_id, upload, now), long=True)

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
        script = devices.register(server_id, identity, kind, token, app_id, now)
        return self._writer.put(script)

    def unregister(
        self, server_id: int, identity: Identity, kind: Kind, token: str
    ) -> Deferred[bool]:
        """Delete one device of a user; False if there was none."""
        return self._writer.put(devices.unregister(server_id, identity, kind, token))

    def unregister_all(self, server_id: int, identity: Identity) -> Deferred[int]:
        """Delete all devices of a user, and say how many."""
        return self._writer.put(devices.unregister_all(server_id, identity))

    def forget(
        self, server_id: int, device_ids: Sequence[int], registered_before: float
    ) -> Deferred[int]:
        """Delete those of a server's devices not registered after that, and say how many."""
        # A copy, since the script runs later.
        return self._writer.put(devices.forget(server_id, tuple(device_ids), registered_before))

    def forget_everywhere(
        self, kind: Kind, token: str, app_id: str | None, registered_before: float
    ) -> Deferred[int]:
        """Delete a token of one app from all servers where not registered after that."""
        script = devices.forget_everywhere(kind, token, app_id, registered_before)
        return self._writer.put(script)

    def count_devices(self, server_id: int, identity: Identity, kind: Kind) -> Deferred[int]:
        """Count a user's devices of one platform."""
        return self._read(devices.count_devices(server_id, identity, kind), statements.the_count)

    def register_sealed(
        self,
        realm_id: int,
        token_id: bytes,
        kind: Kind,
        token: str,
        app_id: str | None,
        push_account_id: int | None,
        now: float,
        limit: int | None = None,
    ) -> Deferred[int]:
        """Add a device of a realm, or renew and revive the one of this token id."""
        facts = kind, token, app_id, push_account_id
        return self._writer.put(sealing.register(realm_id, token_id, *facts, now, limit))

    def sealed_devices(
        self, realm_id: int, token_ids: Sequence[bytes]
    ) -> Deferred[list[SealedDevice]]:
        """Find a realm's devices by token id, expired ones included, oldest first."""
        return self._read_all(sealing.by_token_id(realm_id, token_ids), sealing.the_devices)

    def sealed_devices_by_id(
        self, realm_id: int, device_ids: Sequence[int]
    ) -> Deferred[list[SealedDevice]]:
        """Find a realm's devices by row id, expired ones included, oldest first."""
        return self._read_all(sealing.by_id(realm_id, device_ids), sealing.the_devices)

    def expire_sealed(
        self, device_ids: Sequence[int], registered_before: float, now: float
    ) -> Deferred[int]:
        """Mark those live devices dead that were not registered after that; say how many."""
        return self._writer.put(sealing.expire(tuple(device_ids), registered_before, now))

    def expire_sealed_everywhere(
        self, kind: Kind, token: str, app_id: str | None, registered_before: float, now: float
    ) -> Deferred[int]:
        """Mark a token of one app, as spelled, dead in all realms; say how many were not."""
        script = sealing.expire_everywhere(kind, token, app_id, registered_before, now)
        return self._writer.put(script)

    def count_sealed(self, realm_id: int) -> Deferred[int]:
        """Count a realm's live devices."""
        return self._read(sealing.count(realm_id), statements.the_count)

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
        return self._read_all((statement,), understand)

    def _read_all(
        self, statements: Iterable[Statement], understand: Callable[[list[Row]], T]
    ) -> Deferred[T]:
        rows: list[Row] = []
        try:
            for statement in statements:
                rows += self._cursor.execute(*statement).fetchall()
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
