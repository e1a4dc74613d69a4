"""What goes into rows and comes out of them: types, checks of values, nouns.

What no database holds (text with NUL or half of a surrogate pair, numbers beyond 64 bits) is
found nowhere, and storing it is a ValueError that does not repeat it.
"""

import hashlib
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, TypeVar

from bouncerd.model import Device, Kind, Realm, SealedDevice, Server

T = TypeVar("T")

Value: TypeAlias = str | int | float | bytes | None
Row: TypeAlias = tuple[Any, ...]
Statement: TypeAlias = tuple[str, tuple[Value, ...]]


class Many(NamedTuple):
    """One statement run for each of several parameters; it has no rows to send back."""

    text: str
    parameters: Sequence[tuple[Value, ...]]


# A write yields statements and is sent their rows.
Script: TypeAlias = Generator[Statement | Many, list[Row], T]

# So many go to the driver at once: a thread that prepares them holds up the others briefly.
_TOGETHER = 500


def in_pieces(text: str, parameters: Iterator[tuple[Value, ...]]) -> Generator[Many, object, None]:
    """Run a statement for many parameters, which are made piece by piece."""
    while piece := list(islice(parameters, _TOGETHER)):
        yield Many(text, piece)


# Nouns, each with its columns in the order that its function reads.

SERVER = (
    *("id", "uuid", "hostname", "contact_email", "key_digest", "deactivated"),
    *("old_key_digest", "old_key_until", "feature_level", "data_at", "users"),
    *("plan_type", "plan_ends_at", "requests_per_minute", "created_at"),
)
REALM = ("id", "uuid", "server_id", "users", "plan_type", "plan_ends_at", "host", "name")
DEVICE = ("id", "kind", "token", "app_id", "registered_at", "user_id", "user_uuid")
SEALED_DEVICE = (
    *("id", "realm_id", "token_id", "kind", "token", "app_id"),
    *("registered_at", "expired_at", "push_account_id"),
)

_KINDS = {kind.value: kind for kind in Kind}


def columns(names: Sequence[str], table: str) -> str:
    """Spell columns of a table for a statement."""
    return ", ".join(f"{table}.{name}" for name in names)


def a_server(row: Row) -> Server:
    """Understand a row that starts with the columns SERVER."""
    values = list(row[: len(SERVER)])
    values[4], values[5] = bytes(row[4]), bool(row[5])
    if row[6] is not None:
        values[6] = bytes(row[6])
    return Server(*values)


def a_realm(row: Row) -> Realm:
    """Understand the columns REALM."""
    return Realm(*row)


def a_device(row: Row) -> Device:
    """Understand the columns DEVICE."""
    return Device(row[0], _KINDS[row[1]], *row[2:])


def a_sealed_device(row: Row) -> SealedDevice:
    """Understand the columns SEALED_DEVICE."""
    return SealedDevice(row[0], row[1], bytes(row[2]), _KINDS[row[3]], *row[4:])


# Values to search for.


def in_range(number: int | None) -> int | None:
    """Return a number, or None (which equals nothing) if no database holds it."""
    return number if number is not None and -(1 << 63) <= number < 1 << 63 else None


def findable(text: str) -> str | None:
    """Return a text, or None (which equals nothing) if no database holds it."""
    return text if _holdable(text) else None


def token_key(kind: Kind, token: str) -> bytes:
    """Return what two spellings of one token have in common (bouncer-api.md 9.2)."""
    spelled = token.lower() if kind == Kind.APNS else token
    return hashlib.sha256(spelled.encode("utf-8", "surrogatepass")).digest()[:16]


# Values to store.


def text(value: str) -> str:
    """Return a text that can be stored."""
    if not _holdable(value):
        raise ValueError("text that no database holds")
    return value


def text_or_null(value: str | None) -> str | None:
    """Return a text that can be stored, or None."""
    return None if value is None else text(value)


def number(value: int | None) -> int:
    """Return a number that can be stored."""
    if value is None or not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a number that no database holds")
    return value


def number_or_null(value: int | None) -> int | None:
    """Return a number that can be stored, or None."""
    return None if value is None else number(value)


def moment(value: float) -> float:
    """Return a time that can be stored and compared: finite."""
    with suppress(OverflowError):  # an integer that no float comes near
        if math.isfinite(value):
            return float(value)
    raise ValueError("a time that no database holds")


def moment_or_null(value: float | None) -> float | None:
    """Return a time that can be stored, or None."""
    return None if value is None else moment(value)


def _holdable(text: str) -> bool:
    if "\0" in text:
        return False
    if text.isascii():
        return True
    # An encoding error would carry the text.
    return not any("\ud800" <= character <= "\udfff" for character in text)
