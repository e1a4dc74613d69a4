"""Removals of one phone that wait together go as one (bouncer-api.md 9.6, 10.1, 11.1). Pure.

Apple and Google keep one push or a few for a phone that is off, so that of several removals some
would be lost; and a phone that comes back need not be woken for each. A removal lists messages:
two of the same user are one that lists both. Nothing else is merged, nor what is sealed, which
is closed to us. All of it is content.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bouncerd.answers import json_object
from bouncerd.envelope import compact
from bouncerd.model import Kind, Message

#: What a removal lists at most (bouncer-api.md 9.6 step 5).
MOST_IDS = 200
#: Removals that are looked at together, and how many of them may turn out not to fit.
MOST_TOGETHER = 16
_MOST_MISFITS = 2
_MOST_BYTES = 4_096
_IDS, _FIRST = "zulip_message_ids", "zulip_message_id"


@dataclass(frozen=True, slots=True, repr=False)
class _Removal:
    """A removal in parts: what it lists, and all the rest."""

    ids: frozenset[int]
    rest: dict[str, Any]  # of the object that holds the ids
    around: dict[str, Any]  # of the object that holds that one (Apple)


def merged(messages: Sequence[Message]) -> tuple[Message, list[int]] | None:
    """Merge what can be with the first: return one message, and the places of what is in it.

    None if that is the first alone. What is not in it must go by itself.
    """
    first = messages[0]
    removal = _read(first)
    if removal is None:
        return None
    best, places, misfits = first, [0], 0
    for place, message in enumerate(messages[1:MOST_TOGETHER], 1):
        together = _together(best, removal, message)
        if together is not None:
            best, removal = together
            places.append(place)
        elif (misfits := misfits + 1) > _MOST_MISFITS:
            break  # a tenant may have us read and compare, but not fifteen for each that goes
    return None if best is first else (best, places)


def _together(one: Message, its: _Removal, other: Message) -> tuple[Message, _Removal] | None:
    """Merge two removals, the first of them already taken apart; None if that cannot be."""
    others = _read(other)
    if others is None or not _alike(one, its, other, others):
        return None
    both = replace(its, ids=its.ids | others.ids)
    if len(both.ids) > MOST_IDS:
        return None
    body = _spelt(one.kind, both)
    if len(body) > _MOST_BYTES:
        return None
    expiration = one.expiration
    if expiration is not None and other.expiration is not None:
        expiration = max(expiration, other.expiration)
    return replace(one, body=body, expiration=expiration), both


def _read(message: Message) -> _Removal | None:
    """Take a removal apart; None for anything else, and for what is not quite as we know it."""
    if len(message.body) > _MOST_BYTES:
        return None
    around: dict[str, Any] = {}
    inner: Any = json_object(message.body)
    if message.kind is Kind.APNS:
        around, inner = inner, inner.get("zulip")
        if not isinstance(inner, dict):
            return None
    ids = inner.get(_IDS)
    if inner.get("event") != "remove" or not isinstance(ids, str):
        return None
    if _FIRST in inner:  # not always one of the others: they may have been cut to the newest
        if not isinstance(inner[_FIRST], int | str):
            return None
        ids = f"{ids},{inner[_FIRST]}"
    numbers = _numbers(ids)
    if numbers is None:
        return None
    rest = {name: value for name, value in inner.items() if name not in (_IDS, _FIRST)}
    return _Removal(numbers, {**rest, _FIRST: _FIRST in inner}, around)


def _numbers(text: str) -> frozenset[int] | None:
    numbers = text.split(",")
    if not text.isascii() or not all(map(str.isdigit, numbers)) or max(map(len, numbers)) >= 20:
        return None
    return frozenset(map(int, numbers))


def _alike(one: Message, its: _Removal, other: Message, others: _Removal) -> bool:
    """Whether they differ in their ids alone: same server, realm, user, headers, badge."""
    return (
        (one.kind, one.urgent, one.priority, one.push_type, one.expiration is None)
        == (other.kind, other.urgent, other.priority, other.push_type, other.expiration is None)
        and its.rest == others.rest
        and {**its.around, "zulip": None} == {**others.around, "zulip": None}
    )


def _spelt(kind: Kind, removal: _Removal) -> bytes:
    ids = sorted(removal.ids)
    inner = {**removal.rest, _IDS: ",".join(map(str, ids))}
    if inner.pop(_FIRST):
        inner[_FIRST] = str(ids[0]) if kind is Kind.FCM else ids[0]
    return compact({**removal.around, "zulip": inner} if kind is Kind.APNS else inner)
