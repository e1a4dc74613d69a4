"""Phones that registered with their tokens in the clear (bouncer-api.md 9): SQL and its rows."""

from collections.abc import Sequence

from bouncerd.model import Identity, Kind
from bouncerd.store.finding import user
from bouncerd.store.rows import (
    Script,
    Statement,
    findable,
    in_range,
    number,
    text,
    text_or_null,
    token_key,
)

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


def count_devices(server_id: int, identity: Identity, kind: Kind) -> Statement:
    """Count a user's devices of one kind."""
    return _COUNT, (server_id, *user(identity), int(kind))


def register(
    server_id: int, identity: Identity, kind: Kind, token: str, app_id: str | None, now: float
) -> Script[None]:
    """Add a device or renew its time; one known by number becomes one known by UUID."""
    row = int(kind), text(token), token_key(kind, token), text_or_null(app_id), now
    if identity.user_uuid is not None:
        user_id = in_range(identity.user_id)
        if user_id is not None:
            yield _REPLACE_BY_UUID, (server_id, user_id, int(kind), token_key(kind, token))
        yield _REGISTER_BY_UUID, (server_id, text(identity.user_uuid), *row)
    else:
        yield _REGISTER_BY_ID, (server_id, number(identity.user_id), *row)


def unregister(server_id: int, identity: Identity, kind: Kind, token: str) -> Script[bool]:
    """Delete one device of a user."""
    rows = yield _UNREGISTER, (server_id, *user(identity), int(kind), token_key(kind, token))
    return bool(rows)


def unregister_all(server_id: int, identity: Identity) -> Script[int]:
    """Delete all devices of a user."""
    return len((yield _UNREGISTER_ALL, (server_id, *user(identity))))


def forget(server_id: int, device_ids: Sequence[int], registered_before: float) -> Script[int]:
    """Delete a server's devices by row, unless registered again since."""
    forgotten = 0
    for device_id in device_ids:
        rows = yield _FORGET, (in_range(device_id), server_id, registered_before)
        forgotten += len(rows)
    return forgotten


def forget_everywhere(
    kind: Kind, token: str, app_id: str | None, registered_before: float
) -> Script[int]:
    """Delete a token of one app from all servers, unless registered again since."""
    parameters = token_key(kind, token), int(kind), findable(app_id or ""), registered_before
    return len((yield _FORGET_EVERYWHERE, parameters))
