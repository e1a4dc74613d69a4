"""What servers upload of themselves: whose turn it is, what is stored and answered (section 7)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from bouncerd import analytics
from bouncerd.analytics import Parsed
from bouncerd.bulk import read_long_form
from bouncerd.deadline import until
from bouncerd.entitlement import judge
from bouncerd.envelope import unsupported
from bouncerd.model import Realm, Server
from bouncerd.store.base import DuplicateRealm, OutOfOrder, Store, TooMany
from bouncerd.turns import Turns, in_pieces
from bouncerd.uploads import RealmRow, Upload

Members: TypeAlias = Mapping[str, object]

# Servers wait 90 s for this answer. A 503 changes nothing for them, but no answer at all may
# switch pushes off (section 3).
UPLOAD_WITHIN = 75.0
LONGEST_UPLOAD = 25 * 1024 * 1024  # bytes

_AT_ONCE = 4
_WAITING = 64  # each holds its body in memory
_LONG = 512 * 1024  # bytes; the hourly ones have less. Of longer ones one at a time is enough work


class Uploads:
    """The two analytics endpoints. `free_users` as configured; `now()` is unix time."""

    def __init__(
        self,
        store: Store,
        clock: IReactorTime,
        now: Callable[[], float],
        free_users: int | None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._now = now
        self.free_users = free_users
        self._turns = Turns(clock, _AT_ONCE, _WAITING)

    async def status(self, server: Server, by: float) -> Members:
        """Say how far a server has uploaded."""
        marks = await until(by, self._clock, self._store.marks(server.id))
        return {
            "last_realm_count_id": marks.realm_count,
            "last_installation_count_id": marks.installation_count,
            "last_realmauditlog_id": marks.audit_log,
        }

    async def upload(
        self, server: Server, content: bytes, content_type: str, query: bytes, by: float
    ) -> Members:
        """Store what a server says of itself, and tell it for which of its realms it may push."""
        await self._turns.take(server.uuid, by, long=len(content) > _LONG)
        try:
            form = await in_pieces(read_long_form(content, content_type, query), self._clock, by)
            parsed = await in_pieces(analytics.parse_upload(form), self._clock, by)
            upload = await self._checked(server, parsed, by)
            stored = self._store.upload(server.id, upload, self._now())
        except BaseException:
            self._turns.give_back(server.uuid)
            raise
        # A caller that is tired of waiting does not end its turn: the store is still at it.
        stored.addBoth(self._ended, server.uuid)
        try:
            realms = await until(by, self._clock, stored)
        except OutOfOrder:
            raise analytics.out_of_order() from None
        except DuplicateRealm:
            raise analytics.duplicate_realm() from None
        except TooMany:
            raise analytics.too_many_realms() from None
        named = _named(upload.realms or (), realms)
        return {"realms": await self._told(server, named, by), **unsupported(form.ignored)}

    async def _checked(self, server: Server, parsed: Parsed, by: float) -> Upload:
        marks = await until(by, self._clock, self._store.marks(server.id))
        upload = await in_pieces(analytics.check(parsed, marks), self._clock, by)
        if upload.realms is None:
            return upload
        return replace(upload, realms=await self._without_repeats(server, upload.realms, by))

    async def _without_repeats(
        self, server: Server, realms: Sequence[RealmRow], by: float
    ) -> Sequence[RealmRow]:
        """Drop all but the last of a realm that comes twice, if it is this server's already."""
        counts = Counter(realm.uuid for realm in realms)
        if len(counts) == len(realms):
            return realms
        last = {realm.uuid: realm for realm in realms}
        for uuid in [uuid for uuid, count in counts.items() if count > 1]:
            known = await until(by, self._clock, self._store.realm(uuid))
            if known is None or known.server_id != server.id:
                raise analytics.duplicate_realm()
        return list(last.values())

    async def _told(self, server: Server, realms: Sequence[Realm], by: float) -> Members:
        # What decides has just changed.
        changed = await until(by, self._clock, self._store.server(server.uuid))
        now, free_users = self._now(), self.free_users
        return {
            realm.uuid: judge(changed or server, realm, free_users, now).status()
            for realm in realms
        }

    def _ended(self, result: list[Realm] | Failure, key: str) -> list[Realm] | Failure:
        self._turns.give_back(key)
        return result


def _named(sent: Sequence[RealmRow], stored: Sequence[Realm]) -> list[Realm]:
    """Return the realms that the answer names: of two that claim one number, the last (7.3)."""
    last = set({row.local_id: row.uuid for row in sent}.values())
    return [realm for realm in stored if realm.uuid in last]
