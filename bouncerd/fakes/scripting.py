"""Scripts and rules as JSON, for those who are in another process."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from bouncerd.fakes import odd, steps
from bouncerd.fakes.apns import goaway, refuse
from bouncerd.fakes.google_errors import ERRORS
from bouncerd.fakes.rules import Match

# "step" -> what makes it of the other members. Bytes are given as text, tuples as lists.
STEPS: dict[str, Callable[..., steps.Step]] = {
    "wait": steps.Wait,
    "respond": steps.Respond,
    "data": steps.Data,
    "reset": steps.Reset,
    "goaway": steps.GoAway,
    "settings": steps.Settings,
    "limit": steps.limit,
    "greet": steps.Greet,
    "raw": steps.Raw,
    "ping": steps.Ping,
    "close": steps.Close,
    "hold": steps.Hold,
    "release": steps.Release,
    "chop": steps.Chop,
    "withhold": steps.Withhold,
    "credit": steps.Credit,
    "ignore": steps.Ignore,
    "slow": steps.Slow,
    "fragmented": odd.Fragmented,
    "odd": lambda frame: odd.LEGAL.get(frame) or steps.Raw(odd.ILLEGAL[frame]),
    "refuse": refuse,  # as Apple: status, reason, timestamp
    "leave": goaway,  # as Apple: reason, last_stream, code
    "google": lambda error: ERRORS[error],  # by name, as in google_errors.py
}
_BYTES = ("body", "debug", "octets", "opaque")


def read_script(items: Any) -> steps.Script:
    """Make a script of a list of objects; raises ValueError that names the bad one."""
    if not isinstance(items, list):
        raise ValueError("a script is a list of steps")
    return tuple(_read_step(number, item) for number, item in enumerate(items, 1))


def read_match(item: Any) -> Match:
    """Make a match of an object; raises ValueError."""
    if not isinstance(item, dict) or set(item) - {field.name for field in fields(Match)}:
        names = ", ".join(field.name for field in fields(Match))
        raise ValueError(f"a match is an object with some of {names}")
    return Match(**item)


def _read_step(number: int, item: Any) -> steps.Step:
    if not isinstance(item, dict) or item.get("step") not in STEPS:
        raise ValueError(f"step {number}: `step` is one of {', '.join(STEPS)}")
    values = {name: _native(name, value) for name, value in item.items() if name != "step"}
    try:
        return STEPS[item["step"]](**values)
    except (TypeError, KeyError) as error:
        raise ValueError(f"step {number}: {error}") from None


def _native(name: str, value: Any) -> Any:
    """Turn what JSON can say into what a step takes."""
    if isinstance(value, list):
        return tuple(_native("", one) for one in value)
    return value.encode() if name in _BYTES and isinstance(value, str) else value
