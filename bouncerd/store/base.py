"""The store as the rest of the daemon sees it: one interface, and how it fails.

Knows nouns and Deferreds; nothing of SQL or of a database.
"""

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from bouncerd.leasing import Ask, Lease
from bouncerd.meters import Timings
from bouncerd.model import Found, Identity, Kind, Realm, SealedDevice, Server
from bouncerd.tallies import Counts, OutcomeCount, PushCount
from bouncerd.uploads import Marks, Upload


class StoreError(Exception):
    """The store cannot be opened; the text is one line for the operator."""


class Conflict(Exception):
    """Another row already has what must be unique."""


class OutOfOrder(Exception):
    """A row's id does not exceed all those received before (bouncer-api.md 7.4)."""


class DuplicateRealm(Exception):
    """A realm is known for another server, or comes twice (bouncer-api.md 7.6)."""


class TooMany(Exception):
    """There are as many as are allowed; nothing was added."""


class StoreUnavailable(Exception):
    """The store cannot answer now, and has not said that anything was stored. Ask later."""


class Store(Protocol):
    """Servers, their realms, their devices, and what they upload.

    A read may have fired when it returns. A write fires once it would survive a power cut, and
    every read asked for after that sees it. Any of them may fail with StoreUnavailable.

    Text with NUL or half of a surrogate pair and numbers beyond 64 bits are found nowhere; to
    store them fails with ValueError, which does not repeat them. Texts are compared exactly
    (UUIDs: spell them canonically), except the tokens of APNs, which have no case. Times are
    unix seconds. Devices are scoped to one server or realm, by its row id, except in the two
    calls that end in `everywhere`.

    `timings` counts how long it took, for metrics.
    """

    timings: Timings

    def open(self) -> Deferred[None]:
        """Make it ready: fires once it can be asked, its schema new or upgraded.

        Fails with StoreError if that needs the operator. A database that only cannot be reached
        is tried until it can be, or until closed; whoever asks meanwhile gets StoreUnavailable.
        """

    def find(self, uuid: str, identity: Identity | None, realm_uuid: str | None) -> Deferred[Found]:
        """Find a server, any server's realm, and the server's devices of one user, at once.

        The realm may be another server's: compare its `server_id`. Devices are found by either
        of the user's ids, oldest first.
        """

    def server(self, uuid: str) -> Deferred[Server | None]:
        """Find a server, deactivated ones included."""

    def server_by_hostname(self, hostname: str) -> Deferred[Server | None]:
        """Find the active server of exactly this host name."""

    def add_server(
        self, uuid: str, hostname: str, contact_email: str, key_digest: bytes, now: float
    ) -> Deferred[None]:
        """Add a server; fail with Conflict if uuid or active host name is taken."""

    def update_server(
        self,
        uuid: str,
        hostname: str,
        contact_email: str,
        key_digest: bytes | None,
        now: float,
        old_key_until: float | None = None,
    ) -> Deferred[None]:
        """Overwrite an active server's facts, and its key unless None.

        The key before a new one stays good until a time; None: it is dead at once. Fail with
        Conflict if another active server has the host name, or if there is no active server of
        this uuid (any more).
        """

    def transfer_server(self, hostname: str, key_digest: bytes, now: float) -> Deferred[str | None]:
        """Give the active server of this host name a new key, and return its uuid.

        All its earlier keys are dead at once. None: there is no such server.
        """

    def deactivate_server(self, uuid: str, now: float) -> Deferred[None]:
        """Deactivate a server, if it is not; fail with Conflict if there is none."""

    def reactivate_server(self, uuid: str, now: float) -> Deferred[None]:
        """Reactivate a server, if it is not active.

        Fail with Conflict if there is none, or if another active one has its host name now.
        """

    def set_plan(
        self, uuid: str, plan_type: int, ends_at: float | None, now: float
    ) -> Deferred[bool]:
        """Set the plan of the server or the realm of this uuid; False if there is neither."""

    def set_requests_per_minute(self, uuid: str, limit: int | None, now: float) -> Deferred[bool]:
        """Set a server's own rate limit (None: as configured for all); False if unknown."""

    def realm(self, uuid: str) -> Deferred[Realm | None]:
        """Find a realm, whatever its server."""

    def marks(self, server_id: int) -> Deferred[Marks]:
        """Return how far a server has uploaded (bouncer-api.md 7.2)."""

    def upload(self, server_id: int, upload: Upload, now: float) -> Deferred[list[Realm]]:
        """Store an upload, all of it or nothing (bouncer-api.md 7.3 to 7.6, 8).

        Rows known already are dropped silently. The marks move to the last row of each list or
        to `highest` if that is more; its keys are the names of the fields of `Marks`. Return
        the realms of this upload as they are now stored, in its order.

        Fail with OutOfOrder if ids do not increase from the server's marks on, and with
        DuplicateRealm if a realm comes twice or is another server's.
        """

    def register(
        self,
        server_id: int,
        identity: Identity,
        kind: Kind,
        token: str,
        app_id: str | None,
        now: float,
    ) -> Deferred[None]:
        """Add a device, or renew its registration time (bouncer-api.md 9.3).

        With both ids, a row of the number is replaced by one of the UUID. First spelling and
        app of a known device stay as they are.
        """

    def unregister(
        self, server_id: int, identity: Identity, kind: Kind, token: str
    ) -> Deferred[bool]:
        """Delete one device of a user; False if there was none."""

    def unregister_all(self, server_id: int, identity: Identity) -> Deferred[int]:
        """Delete all devices of a user, and say how many."""

    def forget(
        self, server_id: int, device_ids: Sequence[int], registered_before: float
    ) -> Deferred[int]:
        """Delete those of a server's devices not registered after that, and say how many."""

    def forget_everywhere(
        self, kind: Kind, token: str, app_id: str | None, registered_before: float
    ) -> Deferred[int]:
        """Delete a token of one app from all servers where not registered after that."""

    def count_devices(self, server_id: int, identity: Identity, kind: Kind) -> Deferred[int]:
        """Count a user's devices of one platform."""

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
        """Add a device of a realm, or renew and revive the one of this token id (8 bytes).

        Return its row id. What was registered last counts; a `push_account_id` of None leaves
        the one before. Fail with TooMany if it would be one more than `limit` live ones.
        """

    def sealed_devices(
        self, realm_id: int, token_ids: Sequence[bytes]
    ) -> Deferred[list[SealedDevice]]:
        """Find a realm's devices by token id, expired ones included, oldest first."""

    def sealed_devices_by_id(
        self, realm_id: int, device_ids: Sequence[int]
    ) -> Deferred[list[SealedDevice]]:
        """Find a realm's devices by row id, expired ones included, oldest first."""

    def expire_sealed(
        self, device_ids: Sequence[int], registered_before: float, now: float
    ) -> Deferred[int]:
        """Mark those live devices dead that were not registered after that; say how many."""

    def expire_sealed_everywhere(
        self, kind: Kind, token: str, app_id: str | None, registered_before: float, now: float
    ) -> Deferred[int]:
        """Mark a token of one app, as spelled, dead in all realms; say how many were not."""

    def count_sealed(self, realm_id: int) -> Deferred[int]:
        """Count a realm's live devices."""

    def add_counts(self, writer: str, number: int, counts: Counts, now: float) -> Deferred[bool]:
        """Add sums to those of the days they are of; False: that was done already.

        A writer numbers what it adds, upwards, and tries one number until it succeeds: however
        often, and whether or not an attempt that failed was stored, it is added once. What is of
        servers and realms that are not known (any more) is left out.
        """

    def outcomes(self, server_uuid: str, since_day: int) -> Deferred[list[OutcomeCount]]:
        """Find what a server's pushes met, from a day on (`tallies`), oldest day first."""

    def push_counts(self, server_uuid: str, since_day: int) -> Deferred[list[PushCount]]:
        """Find the daily counts of a server and of its realms, from a day on, oldest first."""

    def prune_counts(self, outcomes_before: int, pushes_before: int) -> Deferred[int]:
        """Delete some counts from before these days, a short write; 0: there are none left."""

    def lease(self, asks: Sequence[Ask], window: float) -> Deferred[list[Lease]]:
        """Take from limits that processes share, each of another key; see `leasing`.

        The window is in seconds, by the database's clock. If it fails something may be granted
        that nobody uses, for as long as the window.
        """

    def secret(self) -> Deferred[bytes]:
        """Return the store's 32 random bytes, the same for ever and for all its processes."""

    def ping(self) -> Deferred[None]:
        """Ask the database something; fail if it does not answer."""

    def close(self) -> Deferred[None]:
        """Finish what was asked for, then let go of the database."""
