"""What we do for Zulip servers: remember their users' phones, push to those.

Knows the store and the routes to Apple and Google; nothing of HTTP. What a caller did wrong is a
WireError. Times named `by` are the clock's seconds, `now()` is unix time.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bouncerd import identifiers, legacy, wire
from bouncerd.calls import Call, Saturated
from bouncerd.deadline import TooLate, until
from bouncerd.entitlement import PLANS, judge, refusal
from bouncerd.envelope import bad_request
from bouncerd.model import Device, Gone, Identity, Kind, Message, Push, Realm, Server
from bouncerd.routes import Routes
from bouncerd.store.base import Store, StoreUnavailable
from bouncerd.tallies import Tallies

log = Logger()

_T = TypeVar("_T")
_Messages: TypeAlias = tuple[Message | None, Message | None]  # for Apple, for Google

# After the answer's time is up: how long (seconds) the one look after sending may still take.
# Servers hang up 15 s after they asked.
_LAST_LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator decided (design.md 5). `keep_for` is in seconds."""

    keep_for: float
    devices_per_user: int  # per kind
    support: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """The server that asks, what it asks about, and when it wants an answer.

    `realm` is the realm that the request names if this server has uploaded it, else None.
    """

    server: Server
    devices: list[Device]
    by: float
    realm: Realm | None = None


class Bouncer:
    """The bouncer's verbs, one coroutine each; `forget` is for the lanes."""

    def __init__(
        self,
        store: Store,
        routes: Routes,
        clock: IReactorTime,
        now: Callable[[], float],
        rules: Rules,
        new_id: Callable[[], object] = uuid4,
        *,
        free_users: int | None = None,
        tallies: Tallies | None = None,
    ) -> None:
        self._store = store
        self._routes = routes
        self._clock = clock
        self._now = now
        self.rules = rules
        self._new_id = new_id
        self.free_users = free_users
        self._tallies = tallies

    async def set_plan(self, uuid: str, plan: int, ends_at: float | None) -> bool:
        """Give the server or the realm of this uuid a plan (bouncer-api.md 2); False if unknown.

        It holds from the next call on, until `ends_at` (unix seconds; None: for good).
        """
        if plan not in PLANS:
            raise ValueError("no such plan")
        known = identifiers.canonical_uuid(uuid)
        return known is not None and await self._store.set_plan(known, plan, ends_at, self._now())

    # --- phones

    async def register(self, caller: Caller, asked: wire.Registration) -> None:
        """Remember a phone."""
        mine = [device for device in caller.devices if device.kind is asked.kind]
        limit = self.rules.devices_per_user
        if len(mine) >= limit and not any(_is(device, asked.kind, asked.token) for device in mine):
            raise bad_request(f"Too many devices are registered for this user (limit: {limit})")
        server_id, now = caller.server.id, self._now()
        await self._in_time(
            caller.by,
            self._store.register(
                server_id, asked.identity, asked.kind, asked.token, asked.app_id, now
            ),
        )

    async def unregister(self, caller: Caller, asked: wire.Unregistration) -> None:
        """Forget a phone of a user."""
        deleted = self._store.unregister(caller.server.id, asked.identity, asked.kind, asked.token)
        if not await self._in_time(caller.by, deleted):
            raise bad_request("Token does not exist")

    async def unregister_all(self, caller: Caller, asked: wire.UserRequest) -> None:
        """Forget all phones of a user."""
        deleted = self._store.unregister_all(caller.server.id, asked.identity)
        await self._in_time(caller.by, deleted)

    # --- pushes

    async def notify(self, caller: Caller, asked: wire.Notify) -> wire.Notified:
        """Push to all phones of a user, and say which of those the caller listed we do not have.

        Once pushes were admitted nothing makes this fail: the caller would ask, and push, again.
        """
        verdict = judge(caller.server, caller.realm, self.free_users, self._now())
        if not verdict.can_push:
            raise refusal(verdict, caller.server)
        devices, doubled = without_doubles(caller.devices)
        realm = None if caller.realm is None else caller.realm.uuid
        pushes = self._pushes(caller.server, devices, self._messages(devices, asked), realm)
        call = self._routes.admit(caller.server.uuid, pushes) if pushes else None
        await self._settled(caller.by, call, self._dropped(caller.server, doubled))
        if self._tallies is not None:
            self._tallies.received(caller.server.uuid, realm, len(devices))
        deleted = _deleted(asked, devices)
        if any(deleted) or (call is not None and call.delivered < len(pushes)):
            # The caller deletes what is listed here, of all its users. So look again, for phones
            # that were registered or found dead meanwhile; and in doubt list none.
            left = await self._left(caller, asked.identity)
            deleted = ([], []) if left is None else _deleted(asked, left)
        return wire.Notified(
            sum(device.kind is Kind.FCM for device in devices),
            sum(device.kind is Kind.APNS for device in devices),
            *deleted,
            realm=None if caller.realm is None else verdict.status(),
        )

    async def test_notification(self, caller: Caller, asked: wire.TestNotification) -> None:
        """Push a test to one phone."""
        devices = without_doubles(caller.devices)[0]
        found = [device for device in devices if _is(device, asked.kind, asked.token)]
        if not found:
            raise wire.unrecognised_device()
        message = legacy.build_test_message(found[0].kind, asked.base_payload, self._now())
        messages = (message, None) if message.kind is Kind.APNS else (None, message)
        pushes = self._pushes(caller.server, found, messages, counted=False)
        if pushes:
            await self._settled(caller.by, self._routes.admit(caller.server.uuid, pushes), None)

    def _messages(self, devices: Iterable[Device], asked: wire.Notify) -> _Messages:
        """Encode once for each platform among the devices; nothing is sent before all is well."""
        apns = fcm = None
        if any(device.kind is Kind.FCM for device in devices):
            options = asked.gcm_options if self._routes.configured(Kind.FCM) else {}
            fcm = legacy.fcm_message(asked.gcm_payload, options)
        if any(device.kind is Kind.APNS for device in devices):
            apns = legacy.apns_message(asked.apns_payload, self._now())
        return apns, fcm

    def _pushes(
        self,
        server: Server,
        devices: Iterable[Device],
        messages: _Messages,
        realm: str | None = None,
        *,
        counted: bool = True,
    ) -> list[Push]:
        apns, fcm = messages
        expires_at = self._now() + self.rules.keep_for
        pushes = []
        for device in devices:
            message = apns if device.kind is Kind.APNS else fcm
            if device.kind is Kind.APNS and not device.app_id:
                log.warn(
                    "Device {device} of {server} has no app id: skipped",
                    device=device.id,
                    server=server.uuid,
                )
            elif message is not None:
                push_id = str(self._new_id())
                facts = push_id, server.uuid, device, message, expires_at
                pushes.append(Push(*facts, realm, counted))
        return pushes

    def _dropped(self, server: Server, doubled: Sequence[Device]) -> Deferred[int] | None:
        """Delete rows by number that have a twin by UUID, unless registered again meanwhile."""
        if not doubled:
            return None
        newest = max(device.registered_at for device in doubled)
        dropped = self._store.forget(server.id, [device.id for device in doubled], newest)
        return dropped.addErrback(_not_forgotten)

    async def _settled(self, by: float, call: Call | None, dropped: Deferred[int] | None) -> None:
        """Wait for what a caller waits for, but not longer than it does."""
        try:
            if call is not None:
                await until(by, self._clock, call.settled)
            if dropped is not None:
                await until(by, self._clock, dropped)
        except TooLate:
            if call is not None:
                call.answered = True  # so that a stop returns none of it: the caller has its 200
        if call is not None and call.returned:
            raise Saturated

    async def _left(self, caller: Caller, user: Identity) -> list[Device] | None:
        by = max(caller.by, self._clock.seconds()) + _LAST_LOOK
        looked = self._store.find(caller.server.uuid, user, None)
        try:
            return (await until(by, self._clock, looked)).devices
        except (StoreUnavailable, TooLate) as reason:
            log.warn("Could not look for deleted devices: {reason}", reason=type(reason).__name__)
            return None

    def _in_time(self, by: float, awaited: Deferred[_T]) -> Deferred[_T]:
        return until(by, self._clock, awaited)

    # --- dead tokens

    def forget(self, push: Push, gone: Gone, sent_at: float) -> Deferred[None]:
        """Forget a phone that its provider calls dead; never fails.

        Only a provider that says since when speaks for everyone who registered the token (for
        the same app) before. Any other word may be due to how this caller registered it.
        """
        forgotten = Deferred.fromCoroutine(self._forget(push, gone, sent_at))
        return forgotten.addErrback(_not_forgotten).addCallback(lambda _: None)

    async def _forget(self, push: Push, gone: Gone, sent_at: float) -> int:
        device = push.device
        if device.sealed:
            return await self._expire(device, gone, sent_at)
        if gone.since is not None:
            return await self._store.forget_everywhere(
                device.kind, device.token, device.app_id, gone.since
            )
        server = await self._store.server(push.server)
        return 0 if server is None else await self._store.forget(server.id, [device.id], sent_at)

    async def _expire(self, device: Device, gone: Gone, sent_at: float) -> int:
        """Mark one that registered end to end; what it registered in the clear is another row."""
        now = self._now()
        if gone.since is None:
            return await self._store.expire_sealed([device.id], sent_at, now)
        return await self._store.expire_sealed_everywhere(
            device.kind, device.token, device.app_id, gone.since, now
        )


def _deleted(asked: wire.Notify, devices: Sequence[Device]) -> tuple[list[str], list[str]]:
    android = wire.deleted_android(asked.android_devices, devices)
    return android, wire.deleted_apple(asked.apple_devices, devices)


def without_doubles(devices: Sequence[Device]) -> tuple[Sequence[Device], list[Device]]:
    """Split off what is registered twice for one user, by number and by UUID (9.6 step 3)."""
    by_number = [device for device in devices if device.user_uuid is None]
    if not by_number or len(by_number) == len(devices):
        return devices, []
    by_uuid = {_key(device) for device in devices if device.user_uuid is not None}
    doubled = [device for device in by_number if _key(device) in by_uuid]
    return [device for device in devices if device not in doubled], doubled


def _key(device: Device) -> tuple[Kind, str]:
    return device.kind, _token_key(device.kind, device.token)


def _token_key(kind: int, token: str) -> str:
    """Return what two spellings of one token have in common (9.2)."""
    return token.lower() if kind == Kind.APNS else token


def _is(device: Device, kind: int, token: str) -> bool:
    return device.kind == kind and _token_key(kind, device.token) == _token_key(kind, token)


def _not_forgotten(reason: Failure) -> int:
    # Its class only: what it says may hold a token.
    log.warn("Could not forget a device: {reason}", reason=type(reason.value).__name__)
    return 0
