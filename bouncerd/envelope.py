"""The outer form of every answer, and strict JSON (bouncer-api.md 1.3, 1.5, 1.6).

Knows bytes, text and JSON values; nothing of Twisted, of HTTP libraries or of single endpoints.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import NoReturn

# Deeper than this the reference's parser gives up, too. It keeps our own recursion (repr(),
# encoding) far from Python's limit, whatever a caller sends.
MAX_DEPTH = 200

BAD_REQUEST = "BAD_REQUEST"


class WireError(Exception):
    """What a caller did wrong, or what cannot be done for it now, in the words it is answered.

    `msg` and `data` may quote the request, so that neither is part of `str()` or `repr()`.
    """

    def __init__(
        self,
        status: int,
        code: str | None,
        msg: str,
        data: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code)
        self.status = status
        self.code = code
        self.msg = msg
        self.data = data or {}
        self.headers = headers or {}


def bad_request(msg: str, code: str = BAD_REQUEST, **data: object) -> WireError:
    """Build the plain 400."""
    return WireError(400, code, msg, data)


def render_success(data: Mapping[str, object] | None = None, ignored: Iterable[str] = ()) -> bytes:
    """Render a 200's body; `ignored` are parameters the endpoint does not know."""
    body: dict[str, object] = {"result": "success", "msg": ""}
    if data:
        body.update(data)
    body.update(unsupported(ignored))
    return compact(body) + b"\n"


def unsupported(ignored: Iterable[str]) -> Mapping[str, object]:
    """Return the member of a success that names parameters the endpoint does not know."""
    names = sorted(ignored)
    return {"ignored_parameters_unsupported": names} if names else {}


def render_error(error: WireError) -> bytes:
    """Render an error's body."""
    body: dict[str, object] = {"result": "error", "msg": error.msg, **error.data}
    if error.code is not None:
        body["code"] = error.code
    return compact(body) + b"\n"


_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def compact(value: object) -> bytes:
    """Encode JSON without spaces and without escaping what UTF-8 can say."""
    return _encode(value).encode()


def parse_json(text: str) -> object:
    """Parse JSON as RFC 8259 has it; raise ValueError, without the text, for anything else.

    NaN, infinities (1e999, too), lone surrogates, integers of thousands of digits and nesting
    below MAX_DEPTH are not JSON. Of equal keys the last one counts.
    """
    value = _decoded(text)
    if value is _NOT_JSON or not _is_sane(text, value):
        raise ValueError("not JSON")
    return value


def parse_json_at(text: str, start: int) -> tuple[object, int]:
    """Parse the value that begins at `start`, as strictly; return it and where it ends."""
    value, end = _decoded_at(text, start)
    if value is _NOT_JSON or not _is_sane(text[start:end], value):
        raise ValueError("not JSON")
    return value, end


_NOT_JSON = object()


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("infinite")
    return value


def _not_a_number(_text: str) -> NoReturn:
    raise ValueError("not a number")


_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_not_a_number)


def _decoded(text: str) -> object:
    # A JSONDecodeError holds the whole text. Here it is gone before anything else is raised.
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _decoded_at(text: str, start: int) -> tuple[object, int]:
    try:
        return _decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        return _NOT_JSON, start


def _is_sane(text: str, value: object) -> bool:
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        return False
    # Only an escape can make a lone surrogate: what was decoded from UTF-8 holds none. Servers
    # do not escape, so the second look is rare.
    return ("\\ud" not in text and "\\uD" not in text) or _is_encodable(value)


def _is_encodable(value: object) -> bool:
    try:
        compact(value)
    except UnicodeEncodeError:
        return False
    return True


def _is_deeper(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
