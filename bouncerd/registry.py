"""Who is a Zulip server of ours: it registers, changes its key, leaves, and may come back.

A server's own calls come with its key or, for `enrol`, as one who may be anybody. What the
operator does needs neither. Times named `by` are the clock's seconds, `now()` is unix time.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bouncerd import enrolment
from bouncerd.basicauth import digest, new_key
from bouncerd.deadline import until
from bouncerd.enrolment import Enrolment
from bouncerd.envelope import WireError, bad_request
from bouncerd.mailboxes import Mailboxes
from bouncerd.model import Server
from bouncerd.store.base import Conflict, Store

log = Logger()

_T = TypeVar("_T")

# Plans that somebody pays for, or was promised (bouncer-api.md 2): not self-managed, community.
_BINDING_PLANS = frozenset({101, 103, 104, 105})


@dataclass(frozen=True, slots=True)
class Admission:
    """What the operator decided about registrations. `old_key_grace` is in seconds."""

    is_open: bool = True
    old_key_grace: float = 600.0
    support: str = ""


class UnknownServer(Exception):
    """There is no server of this id, or none in the state that this needs."""


class PlanActive(Exception):
    """The server has a plan that has not ended."""


class HostnameTaken(Exception):
    """Another active server has the host name by now."""


class Registry:
    """Servers come and go; `mailboxes` None: the domains of contact addresses are not checked."""

    def __init__(
        self,
        store: Store,
        clock: IReactorTime,
        now: Callable[[], float],
        admission: Admission,
        mailboxes: Mailboxes | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._now = now
        self.admission = admission
        self.mailboxes = mailboxes

    # --- what servers ask for

    async def enrol(self, asked: Enrolment, by: float) -> bool:
        """Add or update a server; say whether it is new."""
        if self.mailboxes is not None:
            await self.mailboxes.check(asked.contact_email, by)
        enrolment.check_uuid(asked.uuid)
        known = await self._in_time(by, self._store.server(asked.uuid))
        if known is None:
            if not self.admission.is_open:
                raise self._closed()
            try:
                await self._in_time(by, self._added(asked))
            except Conflict:
                # Two calls at once may have had the same uuid: then it is known by now.
                known = await self._in_time(by, self._store.server(asked.uuid))
                if known is None:
                    raise enrolment.hostname_taken(asked.hostname) from None
        if known is None:
            return True
        await self._update(known, asked, by)
        return False

    async def deactivate(self, server: Server, by: float) -> None:
        """End a server's registration at its own wish."""
        if has_binding_plan(server):
            raise WireError(
                400,
                "BAD_REQUEST",
                "",
                {"error_description": "server deactivation with existing plan"},
            )
        await self._in_time(by, self._store.deactivate_server(server.uuid, self._now()))
        log.info("Server {server} deactivated its registration", server=server.uuid)

    def _added(self, asked: Enrolment) -> Deferred[None]:
        return self._store.add_server(
            asked.uuid, asked.hostname, asked.contact_email, asked.key_digest, self._now()
        )

    async def _update(self, known: Server, asked: Enrolment, by: float) -> None:
        # The key before the latest rotation never does here: it could undo the rotation.
        if not hmac.compare_digest(known.key_digest, asked.key_digest):
            raise enrolment.wrong_key(asked.uuid)
        if known.deactivated:
            raise enrolment.deactivated()
        hostname, contact_email = asked.hostname, asked.contact_email
        now, grace = self._now(), self.admission.old_key_grace
        updated = self._store.update_server(
            asked.uuid,
            hostname,
            contact_email,
            asked.new_key_digest,
            now,
            now + grace if grace > 0 else None,
        )
        try:
            await self._in_time(by, updated)
        except Conflict:
            again = await self._in_time(by, self._store.server(asked.uuid))
            if again is None or again.deactivated:
                raise enrolment.deactivated() from None
            raise enrolment.hostname_taken(hostname) from None

    def _closed(self) -> WireError:
        support = self.admission.support
        contact = f" Contact {support}." if support else ""
        return bad_request(f"This push bouncer is not open to new servers.{contact}")

    # --- what the operator does

    async def end(self, uuid: str, *, force: bool = False) -> None:
        """Deactivate a server; with an active plan only by `force`. Once more changes nothing."""
        server = await self._known(uuid)
        if has_binding_plan(server) and not server.deactivated and not force:
            raise PlanActive
        await self._store.deactivate_server(uuid, self._now())

    async def resume(self, uuid: str) -> None:
        """Reactivate a server: its key, devices and realms are as they were."""
        await self._known(uuid)
        try:
            await self._store.reactivate_server(uuid, self._now())
        except Conflict:
            raise HostnameTaken from None

    async def rotate(self, uuid: str) -> str:
        """Give an active server a new key, and return it; its earlier keys are dead at once."""
        server = await self._known(uuid)
        key = new_key()
        try:
            await self._store.update_server(
                uuid, server.hostname, server.contact_email, digest(key), self._now(), None
            )
        except Conflict:
            raise UnknownServer from None
        return key

    async def _known(self, uuid: str) -> Server:
        server = await self._store.server(uuid)
        if server is None:
            raise UnknownServer
        return server

    def _in_time(self, by: float, awaited: Deferred[_T]) -> Deferred[_T]:
        return until(by, self._clock, awaited)


def has_binding_plan(server: Server) -> bool:
    """Say whether a plan is active that somebody counts on: one that is to end is not."""
    return server.plan_type in _BINDING_PLANS and server.plan_ends_at is None
