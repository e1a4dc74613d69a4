"""Canaries: random words that stand for content and secrets, and how to recognise them anywhere.

A canary is looked for as it is (whole, and in pieces of eight characters, since texts are cut),
in base64 at each of the three offsets, in hexadecimal, escaped for URLs, JSON, Python and HTML,
and in UTF-16. Letters beyond ASCII are among the canaries, since it is they that get escaped.
"""

import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import quote

PIECE = 8  # characters; what is looked for has as many bytes at least
_LETTERS = "abcdefghijkmnopqrstuvwxyz23456789"
_FOREIGN = "абвгдежзиклмнопрстуфхцчшщэюя"

STORE = "the store"  # where tokens are kept


@dataclass(frozen=True, slots=True)
class Canary:
    """One word: what it stands for, whose it is, and where it may be kept.

    `repeatable`: an answer may repeat it to the tenant whose call says it.
    """

    name: str
    text: str = field(repr=False)
    tenant: str = ""
    kept: frozenset[str] = frozenset()
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """A canary where it must not be. `form` says how it was spelled there."""

    canary: Canary
    place: str
    form: str


def word() -> str:
    """Make a word of letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(24))


def foreign_word() -> str:
    """Make a word of letters beyond ASCII."""
    return "".join(secrets.choice(_FOREIGN) for _ in range(16))


class Cage:
    """Many canaries, and all of them looked for at once: in time that only the data decides."""

    def __init__(self) -> None:
        self._exact: _Windows = {}
        self._folded: _Windows = {}

    def add(self, canary: Canary) -> None:
        """Look for this one, too."""
        for form, by_case, spelled in spellings(canary.text):
            windows = self._exact if by_case else self._folded
            known = spelled if by_case else spelled.lower()
            windows.setdefault(known[:PIECE], []).append((canary, form, known))

    def found_in(self, data: bytes) -> dict[Canary, str]:
        """Return the canaries that are in the data, and how each is spelled there."""
        found: dict[Canary, str] = {}
        for windows, text in ((self._exact, data), (self._folded, data.lower())):
            for start in range(len(text) - PIECE + 1):
                if text[start : start + PIECE] in windows:
                    for canary, form, known in windows[text[start : start + PIECE]]:
                        if text.startswith(known, start):
                            found.setdefault(canary, form)
        return found


# The first bytes of what is looked for, and what that is.
_Windows: TypeAlias = dict[bytes, list[tuple[Canary, str, bytes]]]


def spellings(text: str) -> Iterator[tuple[str, bool, bytes]]:
    """Yield how a text may be spelled: the form's name, whether its case matters, the bytes."""
    plain = text.encode()
    # A piece of what is beyond ASCII has its case folded in no other way than it came.
    for start in range(0, len(text) - PIECE + 1, PIECE):
        yield "plain", not text.isascii(), text[start : start + PIECE].encode()
    for offset in range(3):
        for name, alphabet in (("base64", b"+/"), ("base64 for URLs", b"-_")):
            yield name, True, _base64(plain, offset, alphabet)
    yield "hexadecimal", False, plain.hex().encode()
    yield "escaped for URLs", False, quote(text, safe="").encode()
    yield "escaped for URLs", False, "".join(f"%{byte:02x}" for byte in plain).encode()
    yield "escaped for JSON", False, json.dumps(text)[1:-1].encode()
    units = text.encode("utf-16-be")
    pairs = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
    yield "escaped for JSON", False, "".join(f"\\u{pair}" for pair in pairs).encode()
    yield "escaped by Python", False, "".join(f"\\x{byte:02x}" for byte in plain).encode()
    yield "escaped for HTML", False, "".join(f"&#{ord(each)};" for each in text).encode()
    yield "escaped for HTML", False, "".join(f"&#x{ord(each):x};" for each in text).encode()
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le"):
        yield encoding.upper().replace("-LE", "").replace("-BE", ""), True, text.encode(encoding)


def _base64(plain: bytes, offset: int, alphabet: bytes) -> bytes:
    """Return those characters of its base64 that do not depend on what stands around it."""
    spelled = base64.b64encode(bytes(offset) + plain, alphabet).rstrip(b"=")
    first = -(-offset * 8 // 6)
    return spelled[first : (offset + len(plain)) * 8 // 6]
