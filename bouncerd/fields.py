"""HTTP/2 requests and responses as values, with header fields encoded for HPACK (RFC 7541).

Every field is a literal that is never indexed, without Huffman coding. So no secret enters a
compression table, the encoder has no state, and what many requests share is encoded once
(performance.md 3: Huffman coding and indexing of a 200-byte token was 42 % of a push).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

# Names that stand in HPACK's static table (RFC 7541, appendix A), by index.
_STATIC_NAMES = {
    b"authorization": 23,
    b"content-type": 31,
}
_AUTHORITY, _PATH = b"\x11", b"\x14"  # never indexed, by the names' indexes 1 and 4
_METHOD_POST = b"\x83"
_SCHEME_HTTPS = b"\x87"
_NEVER_INDEXED = 0x10
_SENDABLE = re.compile(rb"(?:[!-~](?:[ -~]*[!-~])?)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")

# Only an empty table can be promised whatever the peer's SETTINGS_HEADER_TABLE_SIZE becomes.
EMPTY_TABLE_UPDATE = b"\x20"


def _integer(value: int, prefix_bits: int, first_byte: int) -> bytes:
    """Encode an integer with a prefix (RFC 7541, 5.1)."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((first_byte | value,))
    encoded = bytearray((first_byte | limit,))
    value -= limit
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _string(text: bytes) -> bytes:
    """Encode a string without Huffman coding; refuse what h2 would have refused for us.

    Fields go past h2's checks, and some values come from tenants (a topic, a token).
    """
    if not _SENDABLE.fullmatch(text):
        raise ValueError("a header field has characters outside visible ASCII")
    return _integer(len(text), 7, 0) + text


@lru_cache(maxsize=64)
def _name(name: bytes) -> bytes:
    """Encode the name of a never-indexed literal; there are few."""
    index = _STATIC_NAMES.get(name)
    if index is not None:
        return _integer(index, 4, _NEVER_INDEXED)
    if not _NAME.fullmatch(name):
        raise ValueError("a header field's name is not a lower-case token")
    return bytes((_NEVER_INDEXED,)) + _string(name)


def literal(name: bytes, value: bytes) -> bytes:
    """Encode one field, never indexed; ValueError (without the value) if it may not be sent."""
    return _name(name) + _string(value)


class Template:
    """The fields that many requests share: a POST to one https authority. Encoded once."""

    __slots__ = ("_head", "_tail")

    def __init__(self, authority: str, fields: Iterable[tuple[str, str]]) -> None:
        self._head = _METHOD_POST + _SCHEME_HTTPS + _AUTHORITY + _string(authority.encode())
        self._tail = b"".join(literal(name.encode(), value.encode()) for name, value in fields)

    def encode(self, path: bytes, fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """Return the whole header block of one request (RFC 9113, 8.3: pseudo-fields first)."""
        own = b"".join([literal(name, value) for name, value in fields])
        return self._head + _PATH + _string(path) + self._tail + own


class Request:
    """One POST: the block of its header fields, encoded, and its body. Both are secret."""

    __slots__ = ("block", "body")

    #: One HEADERS and one DATA frame hold every push: APNs and FCM take 4 KiB payloads.
    MAX_BODY = 16_384

    def __init__(
        self,
        template: Template,
        path: bytes,
        fields: tuple[tuple[bytes, bytes], ...],
        body: bytes,
    ) -> None:
        """Refuse, by a ValueError that holds no value, what must not go on the wire."""
        if len(body) > self.MAX_BODY:
            raise ValueError(f"a body of {len(body)} bytes is over the limit of {self.MAX_BODY}")
        self.block = template.encode(path, fields)
        self.body = body
        if len(self.block) > self.MAX_BODY - 1:
            raise ValueError(f"header fields of {len(self.block)} bytes do not fit a frame")

    def __repr__(self) -> str:
        return f"<Request {len(self.block)}+{len(self.body)} bytes>"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. `complete` is False where the stream ended after the status and before its end."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: bytes = field(repr=False)
    complete: bool = True

    def header(self, name: bytes) -> bytes | None:
        """Return the first field of that (lower-case) name."""
        for known, value in self.headers:
            if known == name:
                return value
        return None
