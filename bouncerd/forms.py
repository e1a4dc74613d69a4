"""Form parameters: from bytes to named text and checked values (bouncer-api.md 1.3, 1.6).

Pure: a body, its content type and a query string in, a Form out.
"""

from collections.abc import Iterable
from urllib.parse import parse_qsl

from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    PushMultipartParser,
    parse_options_header,
)

from bouncerd.envelope import bad_request, parse_json

URLENCODED = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
MAX_FIELDS = 1000


class Form:
    """The parameters of one request, and which of them nobody asked for.

    Ask in the order the contract lists them: the first failure is the whole answer.
    """

    def __init__(self, fields: dict[str, str]) -> None:
        self._fields = fields
        self._asked: set[str] = set()

    @property
    def ignored(self) -> list[str]:
        """Name what was sent and never asked for."""
        return [name for name in self._fields if name not in self._asked]

    def maybe_text(self, name: str) -> str | None:
        """Return a parameter, or None if it was not sent."""
        self._asked.add(name)
        return self._fields.get(name)

    def text(self, name: str) -> str:
        """Return a parameter that must be there."""
        value = self.maybe_text(name)
        if value is None:
            raise bad_request(
                f"Missing '{name}' argument", code="REQUEST_VARIABLE_MISSING", var_name=name
            )
        return value

    def limited(self, name: str, limit: int) -> str:
        """Return a required parameter of at most `limit` characters."""
        value = self.text(name)
        if len(value) > limit:
            raise bad_request(f"{name} is too long (limit: {limit} characters)")
        return value

    def fixed(self, name: str, length: int) -> str:
        """Return a required parameter of exactly `length` characters."""
        return _of_length(name, self.text(name), length)

    def maybe_fixed(self, name: str, length: int) -> str | None:
        """Return a parameter of exactly `length` characters, or None if it was not sent."""
        value = self.maybe_text(name)
        return None if value is None else _of_length(name, value, length)

    def integer(self, name: str) -> int:
        """Return a required parameter that is a JSON integer."""
        return _integer(name, self.text(name))

    def maybe_integer(self, name: str) -> int | None:
        """Return a parameter that is a JSON integer, or None if it was not sent."""
        value = self.maybe_text(name)
        return None if value is None else _integer(name, value)


def read_form(content: bytes, content_type: str, query: bytes) -> Form:
    """Gather the parameters of body and query; the body's win, and of equal names the last."""
    media_type = content_type.partition(";")[0].strip().lower()
    fields = dict(urlencoded(query)) if query else {}
    if media_type == URLENCODED:
        fields.update(urlencoded(content))
    elif media_type == _MULTIPART:
        fields.update(_multipart(content, content_type))
    return Form(fields)


def unasked(content: bytes, content_type: str, query: bytes) -> list[str]:
    """Name the parameters of a request whose body is read as JSON, whatever it says it is."""
    if not query and not content_type.lower().startswith(URLENCODED):
        return []
    return read_form(content, content_type, query).ignored


def _of_length(name: str, value: str, length: int) -> str:
    if len(value) != length:
        raise bad_request(f"{name} is not length {length}")
    return value


def _integer(name: str, text: str) -> int:
    try:
        value = parse_json(text)
    except ValueError:
        raise bad_request(f"{name} is not valid JSON") from None
    if type(value) is not int:  # a bool is no integer here
        raise bad_request(f"{name} is not an integer")
    return value


def urlencoded(content: bytes) -> list[tuple[str, str]]:
    """Return the parameters of a query string or of a short body."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if text.count("&") >= MAX_FIELDS:
        raise bad_request("Too many parameters")
    return parse_qsl(text, keep_blank_values=True, encoding="utf-8", errors="replace")


def _multipart(content: bytes, content_type: str) -> list[tuple[str, str]]:
    boundary = parse_options_header(content_type)[1].get("boundary", "")
    try:
        return list(_parts(content, boundary))
    except (MultipartError, ValueError):
        raise bad_request("Malformed multipart body") from None


def _parts(content: bytes, boundary: str) -> Iterable[tuple[str, str]]:
    # The push parser keeps everything in memory: a request never touches a disk.
    limits = {"max_segment_count": MAX_FIELDS}
    name: str | None = None
    value = bytearray()
    with PushMultipartParser(boundary, content_length=len(content), **limits) as parser:
        for event in parser.parse(content):
            if isinstance(event, (bytes, bytearray)):
                value += event
            elif event is None:
                if name is not None:
                    yield name, value.decode("utf-8", "replace")
            else:  # a part begins; one with a file name is an upload, and no parameter
                name = event.name if event.filename is None else None
                value.clear()
