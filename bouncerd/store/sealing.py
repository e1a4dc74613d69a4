"""Phones registered end to end (bouncer-api.md 12 and 13): SQL and its rows."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache

from bouncerd.model import Kind, SealedDevice
from bouncerd.store.base import TooMany
from bouncerd.store.rows import (
    SEALED_DEVICE,
    Row,
    Script,
    Statement,
    Value,
    a_sealed_device,
    columns,
    findable,
    in_range,
    number_or_null,
    text,
    text_or_null,
)

# What registers last counts: a token that was found dead under a wrong app can come back.
_REGISTER = """
    INSERT INTO sealed_devices
        (realm_id, token_id, kind, token, app_id, push_account_id, registered_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (realm_id, token_id) DO UPDATE SET
        kind = excluded.kind, token = excluded.token, app_id = excluded.app_id,
        push_account_id = COALESCE(excluded.push_account_id, sealed_devices.push_account_id),
        registered_at = excluded.registered_at, expired_at = NULL
    RETURNING id
"""
_LIVES = """
    SELECT id FROM sealed_devices WHERE realm_id = ? AND token_id = ? AND expired_at IS NULL
"""
# It changes nothing and locks the row, where a database has more than one writer: two phones
# would both be the last one that is allowed.
_LOCK_REALM = "UPDATE realms SET users = users WHERE id = ?"
_COUNT = "SELECT COUNT(*) FROM sealed_devices WHERE realm_id = ? AND expired_at IS NULL"
_FIND = f"""
    SELECT {columns(SEALED_DEVICE, "d")} FROM sealed_devices d
    WHERE d.realm_id = ? AND d.%s IN (%s)
"""  # noqa: S608
_EXPIRE = """
    UPDATE sealed_devices SET expired_at = ?
    WHERE id = ? AND expired_at IS NULL AND registered_at <= ?
    RETURNING id
"""
_EXPIRE_EVERYWHERE = """
    UPDATE sealed_devices SET expired_at = ?
    WHERE token_id = ? AND token = ? AND kind = ? AND COALESCE(app_id, '') = ?
        AND expired_at IS NULL AND registered_at <= ?
    RETURNING id
"""

_AT_ONCE = 256  # searched for by one statement


# Reads.


def by_token_id(realm_id: int, token_ids: Sequence[bytes]) -> list[Statement]:
    """Find a realm's devices by the ids of their tokens."""
    return list(_find(realm_id, "token_id", token_ids))


def by_id(realm_id: int, device_ids: Sequence[int]) -> list[Statement]:
    """Find a realm's devices by row."""
    return list(_find(realm_id, "id", [in_range(device_id) for device_id in device_ids]))


def _find(realm_id: int, column: str, wanted: Sequence[Value]) -> Iterator[Statement]:
    """Search for many values by few statements, and few different ones, which stay prepared."""
    for start in range(0, len(wanted), _AT_ONCE):
        piece = tuple(wanted[start : start + _AT_ONCE])
        places = 1 << (len(piece) - 1).bit_length()
        padding = (None,) * (places - len(piece))
        yield _spelled(column, places), (in_range(realm_id), *piece, *padding)


@cache
def _spelled(column: str, places: int) -> str:
    return _FIND % (column, ", ".join("?" * places))


def the_devices(rows: list[Row]) -> list[SealedDevice]:
    """Understand the rows of `by_token_id` and `by_id`."""
    found = {row[0]: a_sealed_device(row) for row in rows}
    return [found[device_id] for device_id in sorted(found)]


def count(realm_id: int) -> Statement:
    """Count a realm's live devices."""
    return _COUNT, (in_range(realm_id),)


# Writes.


def register(
    realm_id: int,
    token_id: bytes,
    kind: Kind,
    token: str,
    app_id: str | None,
    push_account_id: int | None,
    now: float,
    limit: int | None,
) -> Script[int]:
    """Add a device, or renew and revive it, unless there are as many live ones as allowed."""
    if len(token_id) != 8:
        raise ValueError("a token id that does not have 8 bytes")
    facts = int(kind), text(token), text_or_null(app_id), number_or_null(push_account_id), now
    if limit is not None and not (yield _LIVES, (realm_id, token_id)):
        yield _LOCK_REALM, (in_range(realm_id),)
        [(live,)] = yield count(realm_id)
        if live >= limit:
            raise TooMany
    [(device_id,)] = yield _REGISTER, (realm_id, token_id, *facts)
    return int(device_id)


def expire(device_ids: Sequence[int], registered_before: float, now: float) -> Script[int]:
    """Mark live devices dead by row, unless registered again since."""
    expired = 0
    for device_id in device_ids:
        expired += len((yield _EXPIRE, (now, in_range(device_id), registered_before)))
    return expired


def expire_everywhere(
    kind: Kind, token: str, app_id: str | None, registered_before: float, now: float
) -> Script[int]:
    """Mark a token of one app dead in all realms, unless registered again since."""
    token_id = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()[:8]
    which = token_id, findable(token), int(kind), findable(app_id or "")
    return len((yield _EXPIRE_EVERYWHERE, (now, *which, registered_before)))
