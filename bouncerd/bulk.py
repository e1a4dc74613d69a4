"""Long forms and long JSON lists, decoded a piece at a time (bouncer-api.md 1.3, 7.3).

Pure. Each function is a generator that yields wherever others may have their turn, a millisecond
or so apart whatever is sent, and returns what it is about.
"""

import codecs
import re
from collections.abc import Callable, Generator
from typing import Generic, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

from bouncerd.envelope import WireError, bad_request, parse_json, parse_json_at
from bouncerd.forms import MAX_FIELDS, URLENCODED, Form, read_form, urlencoded

_T = TypeVar("_T")

#: Work that pauses, and what it results in.
InPieces: TypeAlias = Generator[None, None, _T]

_PIECE = 16 * 1024  # bytes of a form at once
_WINDOW = 32 * 1024  # characters of a list looked at at once; half of it must hold one row
_ROWS = 50  # at once
_LONGEST_MULTIPART = 256 * 1024  # bytes; no server sends its data like that
_LONGEST_SCALAR = 64 * 1024  # characters
_LONGEST_NAME = 4096  # bytes of a parameter's name: it may be part of the answer


def read_long_form(content: bytes, content_type: str, query: bytes) -> InPieces[Form]:
    """Do what `forms.read_form` does, for bodies of megabytes."""
    if content_type.partition(";")[0].strip().lower() != URLENCODED:
        if len(content) > _LONGEST_MULTIPART:
            raise bad_request(f"Send this much as {URLENCODED}")
        return read_form(content, content_type, query)
    fields = dict(urlencoded(query)) if query else {}
    fields.update((yield from _fields(content)))
    return Form(fields)


def _fields(content: bytes) -> InPieces[dict[str, str]]:
    fields: dict[str, str] = {}
    start = 0
    for _ in range(MAX_FIELDS):
        end = content.find(b"&", start)
        if end == -1:
            end = len(content)
        if end > start:
            equals = content.find(b"=", start, end)
            if equals == -1:
                equals = end
            if equals - start > _LONGEST_NAME:
                raise bad_request("The name of a parameter is too long")
            name = yield from _unquoted(content, start, equals)
            fields[name] = yield from _unquoted(content, equals + 1, end)
        if end == len(content):
            return fields
        start = end + 1
    raise bad_request("Too many parameters")


def _unquoted(content: bytes, start: int, end: int) -> InPieces[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = []
    while start < end:
        stop = min(start + _PIECE, end)
        if stop < end:  # not between a % and its digits
            cut = content.rfind(b"%", stop - 2, stop)
            stop = stop if cut == -1 else cut
        texts.append(decoder.decode(unquote_to_bytes(content[start:stop].replace(b"+", b" "))))
        start = stop
        yield
    texts.append(decoder.decode(b"", final=True))
    return "".join(texts)


def read_scalar(form: Form, name: str) -> object:
    """Return a parameter that is JSON and short; None if it was not sent."""
    text = form.maybe_text(name)
    if text is None:
        return None
    if len(text) > _LONGEST_SCALAR:
        raise bad_request(f"{name} is too long (limit: {_LONGEST_SCALAR} characters)")
    try:
        return parse_json(text)
    except ValueError:
        raise _not_json(name) from None


def read_list(
    name: str, text: str, read: Callable[[object, str], _T], limit: int
) -> InPieces[list[_T]]:
    """Return what `read` makes of each item of a parameter that is a JSON list.

    `read` gets an item and its path. If it raises a WireError, that is raised unless the
    parameter is no JSON at all or has more than `limit` items.
    """
    items = _Items(name, read, limit)
    begin = _BEGIN.match(text)
    if begin is None:
        raise _not_a_list(name, text)
    end = begin.end()
    if not begin[1]:  # not empty
        end = yield from _read_items(text, end, items)
    if _SPACE.fullmatch(text, end) is None:
        raise _not_json(name)
    if items.mistake is not None:
        raise items.mistake
    return items.found


class _Items(Generic[_T]):
    """What was read so far, and the first mistake in it."""

    def __init__(self, name: str, read: Callable[[object, str], _T], limit: int) -> None:
        self.name = name
        self.found: list[_T] = []
        self.mistake: WireError | None = None
        self.count = 0
        self._read = read
        self._limit = limit

    def take(self, item: object) -> None:
        if self.count == self._limit:
            raise bad_request(f"{self.name} is too long (limit: {self._limit} rows)")
        if self.mistake is None:
            try:
                self.found.append(self._read(item, f"{self.name}[{self.count}]"))
            except WireError as mistake:
                self.mistake = mistake
        self.count += 1


# Bounded, so that no match takes long: nobody sends more white space.
_SPACE = re.compile(r"[ \t\n\r]{0,1000}")
_BEGIN = re.compile(r"[ \t\n\r]{0,1000}\[[ \t\n\r]{0,1000}(\]?)")
_NEXT = re.compile(r"[ \t\n\r]{0,1000}([,\]])[ \t\n\r]{0,1000}")


def _read_items(text: str, position: int, items: _Items[_T]) -> InPieces[int]:
    """Read items and the bracket after them; return where that ends."""
    start, window = position, text[position : position + _WINDOW]
    while True:
        if position - start > _WINDOW // 2:
            start, window = position, text[position : position + _WINDOW]
            yield
        try:
            item, end = parse_json_at(window, position - start)
        except ValueError:
            raise _not_json(items.name, cut=start + _WINDOW < len(text)) from None
        items.take(item)
        if items.count % _ROWS == 0:
            yield
        mark = _NEXT.match(text, start + end)
        if mark is None:
            raise _not_json(items.name)
        position = mark.end()
        if mark[1] == "]":
            return position


def _not_a_list(name: str, text: str) -> WireError:
    if len(text) <= _LONGEST_SCALAR:
        try:
            parse_json(text)
        except ValueError:
            return _not_json(name)
    return bad_request(f"{name} is not a list")


def _not_json(name: str, *, cut: bool = False) -> WireError:
    also = f", or a row of it is longer than {_WINDOW // 2} characters" if cut else ""
    return bad_request(f"{name} is not valid JSON{also}")
