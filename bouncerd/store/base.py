"""The store as the rest of the daemon sees it: one interface, and how it fails.

Knows nouns and Deferreds; nothing of SQL or of a database.
"""

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from bouncerd.model import Device, Identity, Kind, Server


class StoreError(Exception):
    """The store cannot be opened; the text is one line for the operator."""


class Conflict(Exception):
    """Another row already has what must be unique."""


class StoreUnavailable(Exception):
    """The store cannot answer now, and has not said that anything was stored. Ask later."""


class Store(Protocol):
    """Servers and their devices.

    A read may have fired when it returns. A write fires once it would survive a power cut, and
    every read asked for after that sees it. Any of them may fail with StoreUnavailable.

    Text with NUL or half of a surrogate pair and numbers beyond 64 bits are found nowhere; to
    store them fails with ValueError, which does not repeat them. Texts are compared exactly
    (UUIDs: spell them canonically), except the tokens of APNs, which have no case. Times are
    unix seconds. Devices are scoped to one server, by its row id, except `forget_everywhere`.
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
        self, uuid: str, hostname: str, contact_email: str, key_digest: bytes | None, now: float
    ) -> Deferred[None]:
        """Overwrite an active server's facts, and its key unless None.

        Fail with Conflict if another active server has the host name, or if there is no active
        server of this uuid (any more).
        """

    def lookup(self, uuid: str, identity: Identity) -> Deferred[tuple[Server | None, list[Device]]]:
        """Find a server and its devices of one user, by either of the user's ids, oldest first."""

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

    def secret(self) -> Deferred[bytes]:
        """Return the store's 32 random bytes, the same for ever and for all its processes."""

    def ping(self) -> Deferred[None]:
        """Ask the database something; fail if it does not answer."""

    def close(self) -> Deferred[None]:
        """Finish what was asked for, then let go of the database."""
