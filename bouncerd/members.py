"""Members of JSON objects inside form parameters, or the words for what is wrong with them (1.6).

Pure. `where` is the path of the object, as callers are told of it; values are never quoted.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from bouncerd.envelope import WireError, bad_request

_T = TypeVar("_T")
Object = Mapping[str, Any]

BITS_32, BITS_64 = 2**31, 2**63
_FIRST_TIME, _LAST_TIME = -62_135_596_800, 253_402_300_799  # the years 1 to 9999
_MAX_TEXT = 1024  # characters

_NAMES: Mapping[type, str] = {
    int: "an integer",
    str: "a string",
    dict: "a dict",
    bool: "a boolean",
}


def an_object(item: object, where: str, model: str) -> Object:
    """Return an object; `model` is the reference's own name for what it describes."""
    if not isinstance(item, dict):
        # Callers show the name to nobody.
        raise bad_request(
            f"Invalid {where}: Input should be a valid dictionary or instance of {model}"
        )
    return item


def path(where: str, key: str) -> str:
    """Name a member."""
    return f"{where}[{json.dumps(key, ensure_ascii=False)}]"


def missing(where: str, key: str) -> WireError:
    """Build the answer to a member that must be there and is not."""
    return bad_request(f"{path(where, key)} field is missing: Field required")


def typed(value: object, kind: type[_T], name: str, kind_name: str = "") -> _T:
    """Return a value of exactly this type: a bool is no integer here. `name` is its path."""
    if type(value) is not kind:
        raise bad_request(f"{name} is not {kind_name or _NAMES[kind]}")
    return value


def member(row: Object, key: str, kind: type[_T], where: str) -> _T:
    """Return a member that must be there, of exactly this type."""
    if key not in row:
        raise missing(where, key)
    value = row[key]
    return value if type(value) is kind else typed(value, kind, path(where, key))


def integer(row: Object, key: str, where: str, end: int = BITS_32) -> int:
    """Return an integer from -end on that is less than `end`."""
    value: int = member(row, key, int, where)
    return value if -end <= value < end else in_range(value, -end, end, path(where, key))


def in_range(value: int, first: int, end: int, name: str) -> int:
    """Return a number that must be less than `end` and not less than `first`."""
    if not first <= value < end:
        raise bad_request(f"{name} is out of range")
    return value


def time(row: Object, key: str, where: str) -> float:
    """Return unix seconds; an integer is a float here."""
    if key not in row:
        raise missing(where, key)
    value = row[key]
    if type(value) is not float and type(value) is not int:
        raise bad_request(f"{path(where, key)} is not a float")
    if not _FIRST_TIME <= value <= _LAST_TIME:
        raise bad_request(f"{path(where, key)} is out of range")
    return float(value)


def text(row: Object, key: str, where: str) -> str:
    """Return a text that a database can hold."""
    value: str = member(row, key, str, where)
    if len(value) > _MAX_TEXT or "\0" in value:
        storable(value, path(where, key), _MAX_TEXT)
    return value


def storable(value: str, name: str, limit: int | None = None) -> str:
    """Return a text that a database can hold, of at most `limit` characters."""
    if limit is not None and len(value) > limit:
        raise bad_request(f"{name} is too long (limit: {limit} characters)")
    if "\0" in value:
        raise bad_request(f"{name} has invalid format")
    return value
