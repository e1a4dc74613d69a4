"""SQL about servers, plans and the store itself, and what its rows mean; once for all databases.

This module and those beside it (finding, devices, sealing, uploading, counting) know SQL and
nouns; nothing of a driver. A read is a statement whose rows a function here understands. A write
is a script: a generator that yields statements and is sent their rows, all of them run in one
transaction or savepoint, undone together if it raises. So each driver runs it in its own manner.
Statements speak what SQLite and PostgreSQL have in common, with `?` for parameters. A driver
turns a violated unique index into Conflict.
"""

from bouncerd.model import Realm, Server
from bouncerd.store.base import Conflict
from bouncerd.store.rows import (
    REALM,
    SERVER,
    Row,
    Script,
    Statement,
    Value,
    a_realm,
    a_server,
    columns,
    findable,
    in_range,
    moment,
    moment_or_null,
    number,
    number_or_null,
    text,
)
from bouncerd.uploads import Marks

_SERVERS = f"SELECT {columns(SERVER, 's')} FROM servers s"  # noqa: S608
_BY_UUID = f"{_SERVERS} WHERE s.uuid = ?"
_BY_HOSTNAME = f"{_SERVERS} WHERE s.hostname = ? AND s.deactivated = 0"
_REALM_BY_UUID = f"SELECT {columns(REALM, 'r')} FROM realms r WHERE r.uuid = ?"  # noqa: S608
_MARKS = (
    "SELECT realm_count_mark, installation_count_mark, audit_log_mark FROM servers WHERE id = ?"
)

# It changes nothing and locks the row, where a database has more than one writer: what a script
# then reads of it stays so.
_LOCK_SERVER = "UPDATE servers SET users = users WHERE uuid = ?"
_LOCK_REALM = "UPDATE realms SET users = users WHERE uuid = ?"
_INSERT_SERVER = """
    INSERT INTO servers (uuid, hostname, contact_email, key_digest, created_at)
    VALUES (?, ?, ?, ?, ?)
    RETURNING id
"""
_UPDATE_SERVER = """
    UPDATE servers
    SET hostname = ?, contact_email = ?, key_digest = ?, old_key_digest = ?, old_key_until = ?
    WHERE id = ? AND deactivated = 0
"""
_TRANSFER_SERVER = """
    UPDATE servers SET key_digest = ?, old_key_digest = NULL, old_key_until = 0
    WHERE hostname = ? AND deactivated = 0
    RETURNING id, uuid
"""
_DEACTIVATE = "UPDATE servers SET deactivated = 1 WHERE uuid = ? AND deactivated = 0 RETURNING id"
_REACTIVATE = "UPDATE servers SET deactivated = 0 WHERE uuid = ? AND deactivated = 1 RETURNING id"
_SET_PLAN = "UPDATE servers SET plan_type = ?, plan_ends_at = ? WHERE id = ?"
_SET_REALM_PLAN = "UPDATE realms SET plan_type = ?, plan_ends_at = ? WHERE id = ?"
_SET_LIMIT = "UPDATE servers SET requests_per_minute = ? WHERE id = ?"
_INSERT_EVENT = "INSERT INTO server_events (server_id, event, happened_at) VALUES (?, ?, ?)"
_INSERT_REALM_EVENT = "INSERT INTO realm_events (realm_id, event, happened_at) VALUES (?, ?, ?)"

_SECRET = "SELECT secret FROM secret"  # noqa: S105  (a table's name)
_INSERT_SECRET = "INSERT INTO secret (id, secret) VALUES (1, ?) ON CONFLICT DO NOTHING"  # noqa: S105

PING = ("SELECT MAX(step) FROM schema_steps", ())


# Reads.


def server(uuid: str) -> Statement:
    """Find a server by its uuid."""
    return _BY_UUID, (findable(uuid),)


def server_by_hostname(hostname: str) -> Statement:
    """Find the active server of a host name."""
    return _BY_HOSTNAME, (findable(hostname),)


def the_server(rows: list[Row]) -> Server | None:
    """Understand the rows of `server` and `server_by_hostname`."""
    return a_server(rows[0]) if rows else None


def realm(uuid: str) -> Statement:
    """Find a realm by its uuid."""
    return _REALM_BY_UUID, (findable(uuid),)


def the_realm(rows: list[Row]) -> Realm | None:
    """Understand the rows of `realm`."""
    return a_realm(rows[0]) if rows else None


def marks(server_id: int) -> Statement:
    """Find how far a server has uploaded."""
    return _MARKS, (in_range(server_id),)


def the_marks(rows: list[Row]) -> Marks:
    """Understand the rows of `marks`."""
    return Marks(*rows[0]) if rows else Marks()


def the_count(rows: list[Row]) -> int:
    """Understand the rows of a statement that counts."""
    count: int = rows[0][0]
    return count


def secret() -> Statement:
    """Find the store's secret."""
    return _SECRET, ()


def the_secret(rows: list[Row]) -> bytes | None:
    """Understand the rows of `secret`."""
    return bytes(rows[0][0]) if rows else None


# Writes.


def add_server(
    uuid: str, hostname: str, contact_email: str, key_digest: bytes, now: float
) -> Script[None]:
    """Add a server; its uuid and host name must be free."""
    facts = text(uuid), text(hostname), text(contact_email)
    [(server_id,)] = yield _INSERT_SERVER, (*facts, key_digest, now)
    yield _INSERT_EVENT, (server_id, "created", now)


def update_server(
    uuid: str,
    hostname: str,
    contact_email: str,
    key_digest: bytes | None,
    now: float,
    old_key_until: float | None,
) -> Script[None]:
    """Overwrite an active server's facts, and its key unless None."""
    facts = text(hostname), text(contact_email)
    yield _LOCK_SERVER, (findable(uuid),)
    known = the_server((yield server(uuid)))
    if known is None or known.deactivated:
        raise Conflict
    rotated = key_digest is not None and key_digest != known.key_digest
    keys = _rotate(known, key_digest, old_key_until) if rotated else _keys(known)
    yield _UPDATE_SERVER, (*facts, *keys, known.id)
    # Every server registers again at each of its upgrades: what changed nothing is no event.
    if facts != (known.hostname, known.contact_email):
        yield _INSERT_EVENT, (known.id, "updated", now)
    if rotated:
        yield _INSERT_EVENT, (known.id, "key_rotated", now)


def _keys(known: Server) -> tuple[Value, ...]:
    return known.key_digest, known.old_key_digest, known.old_key_until


def _rotate(
    known: Server, key_digest: bytes | None, old_key_until: float | None
) -> tuple[Value, ...]:
    if old_key_until is None:
        return key_digest, None, 0.0
    return key_digest, known.key_digest, moment(old_key_until)


def transfer_server(hostname: str, key_digest: bytes, now: float) -> Script[str | None]:
    """Give the active server of a host name a new key; its earlier ones are dead."""
    found = yield _TRANSFER_SERVER, (key_digest, findable(hostname))
    if not found:
        return None
    [(server_id, uuid)] = found
    yield _INSERT_EVENT, (server_id, "transferred", now)
    return str(uuid)


def deactivate_server(uuid: str, now: float) -> Script[None]:
    """Deactivate a server unless it is."""
    yield from _switch(_DEACTIVATE, uuid, "deactivated", now)


def reactivate_server(uuid: str, now: float) -> Script[None]:
    """Reactivate a server unless it is active; its host name must be free."""
    yield from _switch(_REACTIVATE, uuid, "reactivated", now)


def _switch(statement: str, uuid: str, event: str, now: float) -> Script[None]:
    switched = yield statement, (findable(uuid),)
    if switched:
        yield _INSERT_EVENT, (switched[0][0], event, now)
    elif the_server((yield server(uuid))) is None:
        raise Conflict


def set_plan(uuid: str, plan_type: int, ends_at: float | None, now: float) -> Script[bool]:
    """Set the plan of a server, or else of a realm."""
    plan = number(plan_type), moment_or_null(ends_at)
    yield _LOCK_SERVER, (findable(uuid),)
    known: Server | Realm | None = the_server((yield server(uuid)))
    statements = _SET_PLAN, _INSERT_EVENT
    if known is None:
        yield _LOCK_REALM, (findable(uuid),)
        known = the_realm((yield realm(uuid)))
        statements = _SET_REALM_PLAN, _INSERT_REALM_EVENT
    if known is not None and plan != (known.plan_type, known.plan_ends_at):
        yield statements[0], (*plan, known.id)
        yield statements[1], (known.id, "plan_changed", now)
    return known is not None


def set_requests_per_minute(uuid: str, limit: int | None, now: float) -> Script[bool]:
    """Set or lift a server's own rate limit."""
    limit = number_or_null(limit)
    yield _LOCK_SERVER, (findable(uuid),)
    known = the_server((yield server(uuid)))
    if known is not None and limit != known.requests_per_minute:
        yield _SET_LIMIT, (limit, known.id)
        yield _INSERT_EVENT, (known.id, "limit_changed", now)
    return known is not None


def keep_secret(fresh: bytes) -> Script[bytes]:
    """Store a secret unless there is one, and return the one that is stored."""
    yield _INSERT_SECRET, (fresh,)
    stored = the_secret((yield secret()))
    assert stored is not None
    return stored
