"""Storing what a server uploads of itself: realms, statistics, audit rows, users (7.3 to 8).

One script, so all of it happens or nothing. Sections are those of bouncer-api.md.
"""

import hashlib
from collections.abc import Iterator, Sequence

from bouncerd.model import Realm
from bouncerd.store.base import DuplicateRealm, OutOfOrder, StoreUnavailable, TooMany
from bouncerd.store.rows import (
    REALM,
    Row,
    Script,
    Value,
    a_realm,
    columns,
    in_pieces,
    in_range,
    moment,
    number,
    number_or_null,
    text,
    text_or_null,
)
from bouncerd.uploads import AuditRow, CountRow, Marks, RealmRow, Upload

# Of a server, those it lists no more included: each upload looks at all of them.
_MOST_REALMS = 20_000
# So many users are as many as any rule cares for, and their sum stays within 64 bits.
_MANY = 10**9

# It changes nothing and locks the row, where a database has more than one writer.
_LOCK = """
    UPDATE servers SET users = users WHERE id = ?
    RETURNING realm_count_mark, installation_count_mark, audit_log_mark,
              version, merge_base, feature_level
"""
_UPDATE = """
    UPDATE servers
    SET realm_count_mark = ?, installation_count_mark = ?, audit_log_mark = ?,
        version = ?, merge_base = ?, feature_level = ?, data_at = COALESCE(?, data_at)
    WHERE id = ?
"""

# What an upload may change of a realm, in the order of `_facts`.
_FACTS = (
    *("local_id", "host", "name", "org_type", "deactivated", "is_system_bot_realm"),
    "authentication_methods",
)
_KNOWN_REALMS = f"""
    SELECT r.id, r.uuid, r.locally_deleted, {columns(_FACTS, "r")}
    FROM realms r WHERE r.server_id = ?
"""  # noqa: S608
_REALMS = f"SELECT {columns(REALM, 'r')} FROM realms r WHERE r.server_id = ?"  # noqa: S608
_CREATE_REALM = f"""
    INSERT INTO realms ({", ".join(_FACTS)}, server_id, uuid, date_created, owner_secret_digest,
                        created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (uuid) DO NOTHING
    RETURNING id
"""  # noqa: S608
_UPDATE_REALM = f"""
    UPDATE realms SET {", ".join(f"{name} = ?" for name in _FACTS)}, locally_deleted = 0
    WHERE id = ?
"""  # noqa: S608
_DELETE_REALM = "UPDATE realms SET locally_deleted = 1 WHERE id = ?"
_INSERT_REALM_EVENT = """
    INSERT INTO realm_events (realm_id, happened_at, event, attribute, old_value, new_value)
    VALUES (?, ?, ?, ?, ?, ?)
"""
_ATTACH = (
    "UPDATE realm_counts SET realm_id = ? WHERE server_id = ? AND realm = ? AND realm_id IS NULL",
    "UPDATE audit_rows SET realm_id = ? WHERE server_id = ? AND realm = ? AND realm_id IS NULL",
)

_INSERT_REALM_COUNT = """
    INSERT INTO realm_counts (server_id, realm, realm_id, property, subgroup, end_time, value)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING
"""
_INSERT_INSTALLATION_COUNT = """
    INSERT INTO installation_counts (server_id, property, subgroup, end_time, value)
    VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING
"""
_INSERT_AUDIT_ROW = """
    INSERT INTO audit_rows (server_id, remote_id, realm, realm_id, event_type, event_time,
                            backfilled, extra_data, humans)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_COUNT_LOCAL_REALM = """
    INSERT INTO local_realms (server_id, realm, users) VALUES (?, ?, ?)
    ON CONFLICT (server_id, realm) DO UPDATE SET users = excluded.users
"""
_COUNT_REALM = """
    UPDATE realms SET users = COALESCE((
        SELECT humans FROM audit_rows
        WHERE realm_id = ? AND humans IS NOT NULL ORDER BY id DESC LIMIT 1
    ), 0) WHERE id = ?
"""
_COUNT_SERVER = """
    UPDATE servers SET users = (SELECT SUM(users) FROM local_realms WHERE server_id = ?)
    WHERE id = ?
"""


def upload(server_id: int, sent: Upload, now: float) -> Script[list[Realm]]:
    """Store an upload, and return its realms as stored."""
    locked = yield _LOCK, (in_range(server_id),)
    if not locked:
        raise StoreUnavailable("the server was deleted meanwhile")
    [(*stored_marks, version, merge_base, feature_level)] = locked
    marks = _move(Marks(*stored_marks), sent)
    software = text_or_null(sent.version), text_or_null(sent.merge_base)
    software_now = *software, number_or_null(sent.feature_level)
    links: dict[int, int] = {}
    attached = False
    if sent.realms is not None:
        links = yield from _synchronize(server_id, sent.realms, now)
        if software_now != (version, merge_base, feature_level):
            attached = True
            yield from _attach(server_id, links)
    yield from _store_rows(server_id, sent, links)
    yield from _count_users(server_id, sent.audit_rows or (), links, attached)
    data_at = None if sent.audit_rows is None else now
    yield _UPDATE, (*marks, *software_now, data_at, server_id)
    if not sent.realms:
        return []
    realms = {row[1]: row for row in (yield _REALMS, (server_id,))}
    return [a_realm(realms[realm.uuid]) for realm in sent.realms]


# The order of rows (7.4).


def _move(marks: Marks, sent: Upload) -> tuple[int, int, int]:
    """Return how far the server is after this upload; OutOfOrder if it is not further on."""
    highest = Marks(**sent.highest)
    return (
        _advance(marks.realm_count, sent.realm_counts, highest.realm_count),
        _advance(marks.installation_count, sent.installation_counts, highest.installation_count),
        _advance(marks.audit_log, sent.audit_rows or (), highest.audit_log),
    )


def _advance(mark: int, rows: Sequence[CountRow | AuditRow], highest: int) -> int:
    last = mark
    for row in rows:
        if row.id <= last:
            raise OutOfOrder
        last = row.id
    if highest and highest <= mark:  # a list of nothing but dropped rows
        raise OutOfOrder
    return number(max(last, highest))


# Realms (7.6).


def _synchronize(server_id: int, realms: Sequence[RealmRow], now: float) -> Script[dict[int, int]]:
    """Make the server's realms what it says; return the row of each by its local number."""
    if len({realm.uuid for realm in realms}) < len(realms):
        raise DuplicateRealm
    known = {row[1]: row for row in (yield _KNOWN_REALMS, (server_id,))}
    if len(known.keys() | {realm.uuid for realm in realms}) > _MOST_REALMS:
        raise TooMany
    links: dict[int, int] = {}
    events: list[tuple[Value, ...]] = []
    updates: list[tuple[Value, ...]] = []
    for realm in realms:
        stored = known.pop(realm.uuid, None)
        if stored is None:
            realm_id = yield from _create(server_id, realm, now)
            events.append((realm_id, now, "created", None, None, None))
        else:
            realm_id = stored[0]
            changes = list(_changes(stored, realm, now))
            events += changes
            updates += [(*_facts(realm), realm_id)] if changes else []
        links[realm.local_id] = realm_id
    missing = [row[0] for row in known.values() if not row[2]]
    events += [(realm_id, now, "deleted", None, None, None) for realm_id in missing]
    yield from in_pieces(_UPDATE_REALM, iter(updates))
    yield from in_pieces(_DELETE_REALM, ((realm_id,) for realm_id in missing))
    yield from in_pieces(_INSERT_REALM_EVENT, iter(events))
    return links


def _create(server_id: int, realm: RealmRow, now: float) -> Script[int]:
    secret = text(realm.owner_secret).encode()
    created = yield (
        _CREATE_REALM,
        (
            *_facts(realm),
            server_id,
            text(realm.uuid),
            moment(realm.date_created),
            hashlib.sha256(secret).digest(),
            now,
        ),
    )
    if not created:  # another server has it
        raise DuplicateRealm
    realm_id: int = created[0][0]
    return realm_id


def _changes(stored: Row, realm: RealmRow, now: float) -> Iterator[tuple[Value, ...]]:
    """Yield an event for each fact that is not as stored."""
    realm_id, _, locally_deleted, *old = stored
    for name, before, after in zip(_FACTS, old, _facts(realm), strict=True):
        if before != after:
            yield realm_id, now, "changed", name, str(before), str(after)
    if locally_deleted:
        yield realm_id, now, "restored", None, None, None


def _facts(realm: RealmRow) -> tuple[Value, ...]:
    return (
        number(realm.local_id),
        text(realm.host),
        text(realm.name),
        number(realm.org_type),
        int(realm.deactivated),
        int(realm.is_system_bot_realm),
        text(realm.authentication_methods),
    )


def _attach(server_id: int, links: dict[int, int]) -> Script[None]:
    """Link rows from before the server named its realms (7.3 step 3)."""
    for statement in _ATTACH:
        realms = ((realm_id, server_id, realm) for realm, realm_id in links.items())
        yield from in_pieces(statement, realms)


# Rows (7.4, 7.5).


def _store_rows(server_id: int, sent: Upload, links: dict[int, int]) -> Script[None]:
    yield from in_pieces(
        _INSERT_REALM_COUNT,
        (
            (server_id, number(row.realm), links.get(row.realm or 0), *_count(row))
            for row in sent.realm_counts
        ),
    )
    yield from in_pieces(
        _INSERT_INSTALLATION_COUNT, ((server_id, *_count(row)) for row in sent.installation_counts)
    )
    yield from in_pieces(
        _INSERT_AUDIT_ROW, (_audit_row(server_id, row, links) for row in sent.audit_rows or ())
    )


def _count(row: CountRow) -> tuple[Value, ...]:
    return text(row.property), text_or_null(row.subgroup), moment(row.end_time), number(row.value)


def _audit_row(server_id: int, row: AuditRow, links: dict[int, int]) -> tuple[Value, ...]:
    return (
        server_id,
        number(row.id),
        number(row.realm),
        links.get(row.realm),
        number(row.event_type),
        moment(row.event_time),
        int(row.backfilled),
        text(row.extra_data),
        None if row.humans is None else _users(row.humans),
    )


# Users (8).


def _count_users(
    server_id: int, rows: Sequence[AuditRow], links: dict[int, int], attached: bool
) -> Script[None]:
    """Count the users of the realms that these rows are about, and so of the server."""
    newest = {row.realm: _users(row.humans) for row in rows if row.humans is not None}
    counted = links.values() if attached else [links[realm] for realm in newest if realm in links]
    yield from in_pieces(_COUNT_REALM, ((realm_id, realm_id) for realm_id in set(counted)))
    if newest:
        yield from in_pieces(
            _COUNT_LOCAL_REALM, ((server_id, realm, users) for realm, users in newest.items())
        )
        yield _COUNT_SERVER, (server_id, server_id)


def _users(humans: int) -> int:
    return min(max(humans, 0), _MANY)
