"""What we do for phones that registered end to end: remember them, push to them.

Knows the store and the routes; nothing of HTTP. What we push is closed to us, and the Zulip server
that asks for it does not know the tokens that it goes to (bouncer-api.md 12, 13).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias
from uuid import uuid4

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bouncerd.bouncer import Caller, Rules
from bouncerd.boxes import Boxes, decoded
from bouncerd.calls import Call, Saturated
from bouncerd.deadline import TooLate, until
from bouncerd.entitlement import disallowed, judge
from bouncerd.envelope import bad_request
from bouncerd.model import Device, Push, Realm, SealedDevice
from bouncerd.routes import Routes
from bouncerd.sealed import (
    FRESH,
    SealedNotified,
    SealedNotify,
    SealedRegistration,
    SealedRequest,
    invalid_registration,
    missing_realm,
    read_phone,
    stale_registration,
    token_id_of,
    unknown_key,
)
from bouncerd.store.base import Store, StoreUnavailable, TooMany
from bouncerd.tallies import Tallies

log = Logger()

_Address: TypeAlias = str | int  # of a phone, as its server wrote it
_Row: TypeAlias = bytes | int  # what such an address means: a token id, or a number of ours

# Whose phone one is nobody tells us, so devices are limited for a realm as a whole, at as many for
# each of its users as a user may have. It may have gained users since it uploaded their number,
# and one that uploads none is not thereby suspect.
_FEWEST_USERS = 10
_USERS_IF_UNKNOWN = 1000
_KINDS = 2  # the limit is per kind

# After the answer's time is up: how long (seconds) the one look after sending may still take.
_LAST_LOOK = 1.0


class SealedPushes:
    """The verbs for end-to-end encrypted pushes, one coroutine each.

    `free_users` is how many users a realm may have without a plan; None: any number.
    """

    def __init__(
        self,
        store: Store,
        routes: Routes,
        clock: IReactorTime,
        now: Callable[[], float],
        rules: Rules,
        boxes: Boxes,
        free_users: int | None,
        new_id: Callable[[], object] = uuid4,
        *,
        tallies: Tallies | None = None,
    ) -> None:
        self._store = store
        self._routes = routes
        self._clock = clock
        self._now = now
        self.rules = rules
        self.boxes = boxes
        self.free_users = free_users
        self._new_id = new_id
        self._tallies = tallies

    async def register(self, caller: Caller, asked: SealedRegistration) -> int:
        """Remember a phone by what it says in the box; return our number for it."""
        realm = _realm(caller)
        if asked.public_key not in self.boxes:
            raise unknown_key()
        phone = read_phone(self.boxes.open(asked.public_key, asked.box))
        token_id = token_id_of(phone.token)
        if asked.token_id is not None and decoded(asked.token_id) != token_id:
            raise invalid_registration()
        now, limit = self._now(), self._limit(realm)
        if phone.timestamp < now - FRESH:
            raise stale_registration()
        registered = self._store.register_sealed(
            realm.id,
            token_id,
            phone.kind,
            phone.token,
            phone.app_id,
            asked.push_account_id,
            now,
            limit,
        )
        try:
            return await until(caller.by, self._clock, registered)
        except TooMany:
            raise bad_request(
                f"Too many devices are registered for this organization (limit: {limit})"
            ) from None

    async def notify(self, caller: Caller, asked: SealedNotify) -> SealedNotified:
        """Push to phones of a realm, and say which of them we do not have (any more).

        Once pushes were admitted nothing makes this fail: the caller would ask, and push, again.
        """
        realm = _realm(caller)
        verdict = judge(caller.server, realm, self.free_users, self._now())
        if not verdict.can_push:
            raise disallowed(verdict)
        rows = {request.address: _row(request.address) for request in asked.requests}
        found = await self._live(realm, rows.values(), caller.by)
        pushes = self._pushes(caller.server.uuid, realm.uuid, asked.requests, rows, found)
        call = await self._sent(caller, pushes)
        if self._tallies is not None:
            self._tallies.received(None, realm.uuid, len(asked.requests))
        dead: list[str | int] = []
        if len(found) < len(set(rows.values())) or call.delivered < len(pushes):
            # Look again, for phones that were registered or found dead meanwhile; and in doubt
            # list none.
            left = await self._left(caller, realm, rows.values())
            dead = [] if left is None else [each for each, row in rows.items() if row not in left]
        apple = call.delivered_by_apple
        by_number = any(isinstance(address, int) for address in rows)
        return SealedNotified(apple, call.delivered - apple, dead, by_number, verdict.status())

    def _limit(self, realm: Realm) -> int:
        users = max(realm.users, _FEWEST_USERS) if realm.users else _USERS_IF_UNKNOWN
        return _KINDS * self.rules.devices_per_user * users

    async def _live(
        self, realm: Realm, rows: Iterable[_Row], by: float
    ) -> Mapping[_Row, SealedDevice]:
        wanted = list(rows)
        token_ids = [row for row in wanted if isinstance(row, bytes)]
        numbers = [row for row in wanted if isinstance(row, int)]
        found: dict[_Row, SealedDevice] = {}
        if token_ids:
            devices = await until(by, self._clock, self._store.sealed_devices(realm.id, token_ids))
            found |= {device.token_id: device for device in devices}
        if numbers:
            devices = await until(
                by, self._clock, self._store.sealed_devices_by_id(realm.id, numbers)
            )
            found |= {device.id: device for device in devices}
        return {row: device for row, device in found.items() if device.expired_at is None}

    async def _left(
        self, caller: Caller, realm: Realm, rows: Iterable[_Row]
    ) -> Mapping[_Row, SealedDevice] | None:
        by = max(caller.by, self._clock.seconds()) + _LAST_LOOK
        try:
            return await self._live(realm, rows, by)
        except (StoreUnavailable, TooLate) as reason:
            log.warn("Could not look for deleted devices: {reason}", reason=type(reason).__name__)
            return None

    def _pushes(
        self,
        server: str,
        realm: str,
        requests: Iterable[SealedRequest],
        rows: Mapping[_Address, _Row],
        found: Mapping[_Row, SealedDevice],
    ) -> list[Push]:
        """Make the pushes. What is for the other platform can go nowhere; its phone is fine."""
        expires_at = self._now() + self.rules.keep_for
        pushes = []
        for request in requests:
            device = found.get(rows[request.address])
            if device is not None and device.kind is request.message.kind:
                push_id = str(self._new_id())
                facts = push_id, server, _target(device), request.message, expires_at
                pushes.append(Push(*facts, realm))
        return pushes

    async def _sent(self, caller: Caller, pushes: list[Push]) -> Call:
        """Send, and wait for what the caller waits for, but not longer than it does."""
        if not pushes:
            return Call([])
        call = self._routes.admit(caller.server.uuid, pushes)
        try:
            await until(caller.by, self._clock, call.settled)
        except TooLate:
            call.answered = True  # so that a stop returns none of it: the caller has its 200
        if call.returned:
            raise Saturated
        return call


def _realm(caller: Caller) -> Realm:
    """Return the realm asked about. Another server's never gets here: that is another error."""
    if caller.realm is None:
        raise missing_realm()
    return caller.realm


def _row(address: _Address) -> _Row:
    row = decoded(address) if isinstance(address, str) else address
    if row is None:
        raise bad_request("`token_id` is not Base64 encoded")
    return row


def _target(device: SealedDevice) -> Device:
    return Device(
        device.id, device.kind, device.token, device.app_id, device.registered_at, sealed=True
    )
