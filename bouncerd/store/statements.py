"""Every SQL statement and what its rows mean, written once for all databases.

Knows SQL and nouns; nothing of a driver. A read is a statement whose rows a function here
understands. A write is a script: a generator that yields statements and is sent their rows, all
of them run in one transaction or savepoint, undone together if it raises. So each driver runs
it in its own manner. Statements speak what SQLite and PostgreSQL have in common, with `?` for
parameters. A driver turns a violated unique index into Conflict.

What no database holds (text with NUL or half of a surrogate pair, numbers beyond 64 bits) is
found nowhere, and storing it is a ValueError that does not repeat it.
"""

import hashlib
from collections.abc import Generator, Sequence
from typing import Any, TypeAlias, TypeVar

from bouncerd.model import Device, Identity, Kind, Server
from bouncerd.store.base import Conflict

T = TypeVar("T")

Value: TypeAlias = str | int | float | bytes | None
Row: TypeAlias = tuple[Any, ...]
Statement: TypeAlias = tuple[str, tuple[Value, ...]]
Script: TypeAlias = Generator[Statement, list[Row], T]

_BY_UUID = """
    SELECT id, uuid, hostname, contact_email, key_digest, deactivated
    FROM servers WHERE uuid = ?
"""
_BY_HOSTNAME = """
    SELECT id, uuid, hostname, contact_email, key_digest, deactivated
    FROM servers WHERE hostname = ? AND deactivated = 0
"""

# Not ordered by the database: sorting the two or three rows of a user here costs less.
_LOOKUP = """
    SELECT s.id, s.uuid, s.hostname, s.contact_email, s.key_digest, s.deactivated,
           d.id, d.kind, d.token, d.app_id, d.registered_at, d.user_id, d.user_uuid
    FROM servers s
    LEFT JOIN devices d ON d.server_id = s.id AND (d.user_uuid = ? OR d.user_id = ?)
    WHERE s.uuid = ?
"""

_INSERT_SERVER = """
    INSERT INTO servers (uuid, hostname, contact_email, key_digest, created_at)
    VALUES (?, ?, ?, ?, ?)
    RETURNING id
"""
_UPDATE_SERVER = """
    UPDATE servers SET hostname = ?, contact_email = ?, key_digest = ?
    WHERE id = ? AND deactivated = 0
"""
_INSERT_EVENT = "INSERT INTO server_events (server_id, event, happened_at) VALUES (?, ?, ?)"

# A conflict names one index, so a device has a statement for each of the two. The first
# spelling of a token and its app stay (bouncer-api.md 9.2, 9.3); only the time is renewed.
_REGISTER = """
    INSERT INTO devices (server_id, {user}, kind, token, token_key, app_id, registered_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (server_id, {user}, kind, token_key) WHERE {user} IS NOT NULL
    DO UPDATE SET registered_at = excluded.registered_at
"""
_REGISTER_BY_UUID = _REGISTER.format(user="user_uuid")
_REGISTER_BY_ID = _REGISTER.format(user="user_id")
_REPLACE_BY_UUID = """
    DELETE FROM devices WHERE server_id = ? AND user_id = ? AND kind = ? AND token_key = ?
"""
_UNREGISTER = """
    DELETE FROM devices
    WHERE server_id = ? AND (user_uuid = ? OR user_id = ?) AND kind = ? AND token_key = ?
    RETURNING id
"""
_UNREGISTER_ALL = """
    DELETE FROM devices WHERE server_id = ? AND (user_uuid = ? OR user_id = ?) RETURNING id
"""
_FORGET = """
    DELETE FROM devices WHERE id = ? AND server_id = ? AND registered_at <= ? RETURNING id
"""
_FORGET_EVERYWHERE = """
    DELETE FROM devices
    WHERE token_key = ? AND kind = ? AND COALESCE(app_id, '') = ? AND registered_at <= ?
    RETURNING id
"""
_COUNT = """
    SELECT COUNT(*) FROM devices
    WHERE server_id = ? AND (user_uuid = ? OR user_id = ?) AND kind = ?
"""

_SECRET = "SELECT secret FROM secret"  # noqa: S105  (a table's name)
_INSERT_SECRET = "INSERT INTO secret (id, secret) VALUES (1, ?) ON CONFLICT DO NOTHING"  # noqa: S105

PING = ("SELECT MAX(step) FROM schema_steps", ())


# Reads.


def server(uuid: str) -> Statement:
    """Find a server by its uuid."""
    return _BY_UUID, (_findable(uuid),)


def server_by_hostname(hostname: str) -> Statement:
    """Find the active server of a host name."""
    return _BY_HOSTNAME, (_findable(hostname),)


def the_server(rows: list[Row]) -> Server | None:
    """Understand the rows of `server` and `server_by_hostname`."""
    return _server(rows[0]) if rows else None


def lookup(uuid: str, identity: Identity) -> Statement:
    """Find a server and its devices of one user."""
    return _LOOKUP, (*_user(identity), _findable(uuid))


def server_and_devices(rows: list[Row]) -> tuple[Server | None, list[Device]]:
    """Understand the rows of `lookup`."""
    if not rows:
        return None, []
    devices = [_device(row) for row in rows if row[6] is not None]
    if len(devices) > 1:
        devices.sort(key=_age)
    return _server(rows[0]), devices


def count_devices(server_id: int, identity: Identity, kind: Kind) -> Statement:
    """Count a user's devices of one kind."""
    return _COUNT, (server_id, *_user(identity), int(kind))


def the_count(rows: list[Row]) -> int:
    """Understand the rows of `count_devices`."""
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
    facts = _storable(uuid), _storable(hostname), _storable(contact_email)
    [(server_id,)] = yield _INSERT_SERVER, (*facts, key_digest, now)
    yield _INSERT_EVENT, (server_id, "created", now)


def update_server(
    uuid: str, hostname: str, contact_email: str, key_digest: bytes | None, now: float
) -> Script[None]:
    """Overwrite an active server's facts, and its key unless None."""
    facts = _storable(hostname), _storable(contact_email)
    known = the_server((yield server(uuid)))
    if known is None or known.deactivated:
        raise Conflict
    rotated = key_digest is not None and key_digest != known.key_digest
    yield _UPDATE_SERVER, (*facts, key_digest if rotated else known.key_digest, known.id)
    # Every server registers again at each of its upgrades: what changed nothing is no event.
    if facts != (known.hostname, known.contact_email):
        yield _INSERT_EVENT, (known.id, "updated", now)
    if rotated:
        yield _INSERT_EVENT, (known.id, "key_rotated", now)


def register(
    server_id: int, identity: Identity, kind: Kind, token: str, app_id: str | None, now: float
) -> Script[None]:
    """Add a device or renew its time; one known by number becomes one known by UUID."""
    app_id = None if app_id is None else _storable(app_id)
    row = int(kind), _storable(token), _token_key(kind, token), app_id, now
    if identity.user_uuid is not None:
        user_id = _in_range(identity.user_id)
        if user_id is not None:
            yield _REPLACE_BY_UUID, (server_id, user_id, int(kind), _token_key(kind, token))
        yield _REGISTER_BY_UUID, (server_id, _storable(identity.user_uuid), *row)
    elif _in_range(identity.user_id) is not None:
        yield _REGISTER_BY_ID, (server_id, identity.user_id, *row)
    else:
        raise ValueError("a user id that no database holds")


def unregister(server_id: int, identity: Identity, kind: Kind, token: str) -> Script[bool]:
    """Delete one device of a user."""
    rows = yield _UNREGISTER, (server_id, *_user(identity), int(kind), _token_key(kind, token))
    return bool(rows)


def unregister_all(server_id: int, identity: Identity) -> Script[int]:
    """Delete all devices of a user."""
    return len((yield _UNREGISTER_ALL, (server_id, *_user(identity))))


def forget(server_id: int, device_ids: Sequence[int], registered_before: float) -> Script[int]:
    """Delete a server's devices by row, unless registered again since."""
    forgotten = 0
    for device_id in device_ids:
        rows = yield _FORGET, (_in_range(device_id), server_id, registered_before)
        forgotten += len(rows)
    return forgotten


def forget_everywhere(
    kind: Kind, token: str, app_id: str | None, registered_before: float
) -> Script[int]:
    """Delete a token of one app from all servers, unless registered again since."""
    parameters = _token_key(kind, token), int(kind), _findable(app_id or ""), registered_before
    return len((yield _FORGET_EVERYWHERE, parameters))


def keep_secret(fresh: bytes) -> Script[bytes]:
    """Store a secret unless there is one, and return the one that is stored."""
    yield _INSERT_SECRET, (fresh,)
    stored = the_secret((yield secret()))
    assert stored is not None
    return stored


# Rows and values.

_KINDS = {kind.value: kind for kind in Kind}


def _server(row: Row) -> Server:
    return Server(row[0], row[1], row[2], row[3], bytes(row[4]), bool(row[5]))


def _device(row: Row) -> Device:
    return Device(row[6], _KINDS[row[7]], row[8], row[9], row[10], row[11], row[12])


def _age(device: Device) -> int:
    return device.id


def _user(identity: Identity) -> tuple[str | None, int | None]:
    """Spell an identity for a search, in the order (uuid, number); NULL equals nothing."""
    user_uuid = identity.user_uuid
    return user_uuid and _findable(user_uuid), _in_range(identity.user_id)


def _in_range(number: int | None) -> int | None:
    return number if number is not None and -(1 << 63) <= number < 1 << 63 else None


def _findable(text: str) -> str | None:
    return text if _holdable(text) else None


def _storable(text: str) -> str:
    if not _holdable(text):
        raise ValueError("text that no database holds")
    return text


def _holdable(text: str) -> bool:
    if "\0" in text:
        return False
    if text.isascii():
        return True
    # An encoding error would carry the text.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _token_key(kind: Kind, token: str) -> bytes:
    """Return what two spellings of one token have in common (bouncer-api.md 9.2)."""
    spelled = token.lower() if kind == Kind.APNS else token
    return hashlib.sha256(spelled.encode("utf-8", "surrogatepass")).digest()[:16]
