"""A store in SQL: what it is asked as statements and scripts, whatever the database.

A database joins by saying how it runs the statements of a read, and a script.
"""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred

from bouncerd.leasing import Ask, Lease
from bouncerd.meters import Timings
from bouncerd.model import Identity, Kind, Realm, SealedDevice, Server
from bouncerd.store import counting, devices, sealing, statements, uploading
from bouncerd.store.rows import Row, Script, Statement
from bouncerd.tallies import Counts, OutcomeCount, PushCount
from bouncerd.uploads import Marks, Upload

T = TypeVar("T")
P = ParamSpec("P")


class ScriptedStore:
    """All of a `Store` but the hot look-up, and what only its database knows."""

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self.timings = Timings()

    @abstractmethod
    def _read_all(
        self, statements: Iterable[Statement], understand: Callable[[list[Row]], T]
    ) -> Deferred[T]:
        """Run statements, and return what is understood of their rows."""

    @abstractmethod
    def _put(self, script: Callable[[], Script[T]], *, long: bool = False) -> Deferred[T]:
        """Run a script in a transaction. It may be run again if that is undone."""

    @abstractmethod
    def _clock(self) -> Statement:
        """Return an expression for the time in unix seconds, the same for all processes."""

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
        facts = uuid, hostname, contact_email
        return self._write(statements.add_server, *facts, key_digest, now)

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
        return self._write(statements.update_server, *facts, key_digest, now, old_key_until)

    def transfer_server(self, hostname: str, key_digest: bytes, now: float) -> Deferred[str | None]:
        """Give the active server of this host name a new key, and return its uuid."""
        return self._write(statements.transfer_server, hostname, key_digest, now)

    def deactivate_server(self, uuid: str, now: float) -> Deferred[None]:
        """Deactivate a server, if it is not; fail with Conflict if there is none."""
        return self._write(statements.deactivate_server, uuid, now)

    def reactivate_server(self, uuid: str, now: float) -> Deferred[None]:
        """Reactivate a server; fail with Conflict if its host name is taken."""
        return self._write(statements.reactivate_server, uuid, now)

    def set_plan(
        self, uuid: str, plan_type: int, ends_at: float | None, now: float
    ) -> Deferred[bool]:
        """Set the plan of the server or the realm of this uuid; False if there is neither."""
        return self._write(statements.set_plan, uuid, plan_type, ends_at, now)

    def set_requests_per_minute(self, uuid: str, limit: int | None, now: float) -> Deferred[bool]:
        """Set a server's own rate limit (None: as configured for all); False if unknown."""
        return self._write(statements.set_requests_per_minute, uuid, limit, now)

    def realm(self, uuid: str) -> Deferred[Realm | None]:
        """Find a realm, whatever its server."""
        return self._read(statements.realm(uuid), statements.the_realm)

    def marks(self, server_id: int) -> Deferred[Marks]:
        """Return how far a server has uploaded."""
        return self._read(statements.marks(server_id), statements.the_marks)

    def upload(self, server_id: int, upload: Upload, now: float) -> Deferred[list[Realm]]:
        """Store an upload, all of it or nothing."""
        return self._put(partial(uploading.upload, server_id, upload, now), long=True)

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
        return self._write(devices.register, server_id, identity, kind, token, app_id, now)

    def unregister(
        self, server_id: int, identity: Identity, kind: Kind, token: str
    ) -> Deferred[bool]:
        """Delete one device of a user; False if there was none."""
        return self._write(devices.unregister, server_id, identity, kind, token)

    def unregister_all(self, server_id: int, identity: Identity) -> Deferred[int]:
        """Delete all devices of a user, and say how many."""
        return self._write(devices.unregister_all, server_id, identity)

    def forget(
        self, server_id: int, device_ids: Sequence[int], registered_before: float
    ) -> Deferred[int]:
        """Delete those of a server's devices not registered after that, and say how many."""
        # A copy, since the script runs later.
        return self._write(devices.forget, server_id, tuple(device_ids), registered_before)

    def forget_everywhere(
        self, kind: Kind, token: str, app_id: str | None, registered_before: float
    ) -> Deferred[int]:
        """Delete a token of one app from all servers where not registered after that."""
        return self._write(devices.forget_everywhere, kind, token, app_id, registered_before)

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
        return self._write(sealing.register, realm_id, token_id, *facts, now, limit)

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
        return self._write(sealing.expire, tuple(device_ids), registered_before, now)

    def expire_sealed_everywhere(
        self, kind: Kind, token: str, app_id: str | None, registered_before: float, now: float
    ) -> Deferred[int]:
        """Mark a token of one app, as spelled, dead in all realms; say how many were not."""
        facts = kind, token, app_id
        return self._write(sealing.expire_everywhere, *facts, registered_before, now)

    def count_sealed(self, realm_id: int) -> Deferred[int]:
        """Count a realm's live devices."""
        return self._read(sealing.count(realm_id), statements.the_count)

    def add_counts(self, writer: str, number: int, counts: Counts, now: float) -> Deferred[bool]:
        """Add sums to those of the days they are of, once; False: that was done already."""
        return self._write(counting.add, writer, number, counts, now)

    def outcomes(self, server_uuid: str, since_day: int) -> Deferred[list[OutcomeCount]]:
        """Find what a server's pushes met, from a day on."""
        return self._read(counting.outcomes(server_uuid, since_day), counting.the_outcomes)

    def push_counts(self, server_uuid: str, since_day: int) -> Deferred[list[PushCount]]:
        """Find the daily counts of a server and of its realms, from a day on."""
        return self._read(counting.push_counts(server_uuid, since_day), counting.the_push_counts)

    def prune_counts(self, outcomes_before: int, pushes_before: int) -> Deferred[int]:
        """Delete some counts from before these days; 0: there are none left."""
        return self._write(counting.prune, outcomes_before, pushes_before)

    def lease(self, asks: Sequence[Ask], window: float) -> Deferred[list[Lease]]:
        """Take from limits that processes share, by the database's clock."""
        return self._write(counting.lease, tuple(asks), window, self._clock())

    def secret(self) -> Deferred[bytes]:
        """Return the store's 32 random bytes; the first to ask makes them."""
        return self._write(statements.keep_secret, self._random(32))

    def _read(self, statement: Statement, understand: Callable[[list[Row]], T]) -> Deferred[T]:
        return self._read_all((statement,), understand)

    def _write(
        self, script: Callable[P, Script[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        return self._put(partial(script, *args, **kwargs))
