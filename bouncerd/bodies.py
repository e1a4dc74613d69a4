"""JSON bodies: their parts, of the right type, or the words for what is wrong (bouncer-api.md 1.6).

Pure. A part is named by its path from `request` on; what it holds is content, and is never quoted.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from bouncerd.envelope import bad_request, parse_json

_T = TypeVar("_T")
Object = Mapping[str, Any]
Step = str | int

_NAMES: Mapping[type, str] = {
    int: "an integer",
    str: "a string",
    list: "a list",
    dict: "a dict",
}


def json_object(content: bytes, model: str) -> Object:
    """Return the object that a body is; `model` is the reference's own name for it."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = None
    if text is None:
        raise bad_request("Malformed payload")
    try:
        body = parse_json(text)
    except ValueError:
        raise bad_request("Malformed JSON") from None
    if not isinstance(body, dict):
        # Callers show the name to nobody.
        raise bad_request(
            f"Invalid request: Input should be a valid dictionary or instance of {model}"
        )
    return body


def path(*steps: Step) -> str:
    """Name a part of the body."""
    return "request" + "".join(f"[{json.dumps(step, ensure_ascii=False)}]" for step in steps)


def typed(value: object, kind: type[_T], *steps: Step) -> _T:
    """Return a value that must be of exactly this type: a bool is no integer here."""
    if type(value) is not kind:
        raise bad_request(f"{path(*steps)} is not {_NAMES[kind]}")
    return value


def required(parent: Object, name: str, kind: type[_T], *above: Step) -> _T:
    """Return a member that must be there; `above` are the steps to its parent."""
    if name not in parent:
        raise bad_request(f"{path(*above, name)} field is missing: Field required")
    return typed(parent[name], kind, *above, name)


def optional(parent: Object, name: str, kind: type[_T], *above: Step) -> _T | None:
    """Return a member, or None if it is absent or null."""
    value = parent.get(name)
    return None if value is None else typed(value, kind, *above, name)


def or_empty(parent: Object, name: str, kind: type[_T], *above: Step) -> _T:
    """Return a member, or an empty one if it is absent; null is of the wrong type."""
    return typed(parent[name], kind, *above, name) if name in parent else kind()
