"""UUIDs, user ids and tokens as callers write them, and as we store them (bouncer-api.md 9.1)."""

import re
from uuid import UUID

from bouncerd.envelope import bad_request
from bouncerd.model import Identity

_is_canonical = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch

_SIGNED_64 = 2**63


def canonical_uuid(text: str) -> str | None:
    """Return a UUID in lower case with hyphens, or None if it is not one in any spelling."""
    if _is_canonical(text):
        return text
    try:
        return str(UUID(text))
    except ValueError:
        return None


def checked_uuid(text: str, path: str) -> str:
    """Return a UUID in lower case with hyphens; `path` names it to the caller."""
    uuid = canonical_uuid(text)
    if uuid is None:
        raise bad_request(f"{path} has invalid format")
    return uuid


def checked_random_uuid(text: str, path: str) -> str:
    """Return a UUID of version 4, which is what Zulip's are; `path` names it to the caller."""
    uuid = checked_uuid(text, path)
    if UUID(uuid).version != 4:
        raise bad_request(f"{path} has invalid format")
    return uuid


def identity(user_id: int | None, user_uuid: str | None, path: str = "user_uuid") -> Identity:
    """Make an Identity of what was sent; `path` names the UUID to the caller."""
    if user_id is None and user_uuid is None:
        raise bad_request("Missing user_id or user_uuid")
    return Identity(user_id, None if user_uuid is None else checked_uuid(user_uuid, path))


def is_storable(user: Identity) -> bool:
    """Say whether a database could hold this user. One that none could is looked for in vain."""
    return user.user_uuid is not None or -_SIGNED_64 <= (user.user_id or 0) < _SIGNED_64


def realm(realm_uuid: str | None, user: Identity, path: str = "realm_uuid") -> str | None:
    """Return the realm's UUID; servers that send one know their user's UUID, too."""
    if realm_uuid is None:
        return None
    if user.user_uuid is None:
        raise bad_request("Missing user_uuid")
    return checked_uuid(realm_uuid, path)


def is_hex(token: str) -> bool:
    """Say whether a token could be one of Apple's: pairs of hexadecimal digits (9.2)."""
    try:
        bytes.fromhex(token)
    except ValueError:
        return False
    return True
