"""Waiting pushes in a sealed memfd: how one process leaves them to the next, without any disk.

    header   magic, version, how many pushes, bytes that follow, when, their digest; its own CRC
    record   its kind, the length of its head, the length of its body; the head (JSON), the body

A message comes once, before the pushes that share it; its body is content. Reading is strict, and
what cannot be read is not guessed at: `Unreadable` says how many pushes that costs. Nothing here
is pickled, and no error repeats what it was about.
"""

import errno
import fcntl
import json
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from enum import IntEnum
from functools import cache
from hashlib import blake2b
from math import isfinite
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from bouncerd.model import Device, Message, Push
from bouncerd.passing import Waiting

MAGIC = b"bouncerd"
#: Another one means that records cannot be read as they are here. A field that is added with a
#: default needs none: it is missing in what an older process wrote. The header stays as it is.
VERSION = 1
#: Bytes of a whole hand-over, of a record's head, of its body.
MOST, MOST_HEAD, MOST_BODY = 1 << 30, 1 << 16, 1 << 18

_HEADER = struct.Struct(">8sHHIQd32s")
_CRC = struct.Struct(">I")
_RECORD = struct.Struct(">cII")
_MESSAGE, _PUSH = b"M", b"P"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NO_EXECUTION = 0x0008  # MFD_NOEXEC_SEAL, which some hardened kernels insist on

_PLAIN = (str, int, bool, NoneType)

T = TypeVar("T")


class Unreadable(Exception):
    """Why a hand-over cannot be taken up, in our words; `count` pushes were in it, if known."""

    def __init__(self, why: str, count: int = 0) -> None:
        super().__init__(why)
        self.why = why
        self.count = count


@dataclass(frozen=True, slots=True)
class HandOver:
    """What was read. `written` is unix time."""

    waiting: tuple[Waiting, ...]
    written: float


# --- the format


def encode(waiting: Sequence[Waiting], now: float) -> bytes:
    """Spell pushes; `now` is unix time. Raises ValueError for more than could be read again."""
    body = b"".join(_records(waiting))
    if _HEADER.size + _CRC.size + len(body) > MOST:
        raise ValueError("too much to be handed over")
    digest = blake2b(body, digest_size=32).digest()
    header = _HEADER.pack(MAGIC, VERSION, 0, len(waiting), len(body), now, digest)
    return header + _CRC.pack(zlib.crc32(header)) + body


def decode(data: bytes) -> HandOver:
    """Read what `encode` wrote, or raise Unreadable."""
    start = _HEADER.size + _CRC.size
    header = data[: _HEADER.size]
    if len(data) < start or data[_HEADER.size : start] != _CRC.pack(zlib.crc32(header)):
        raise Unreadable("its header is damaged")
    magic, version, _, count, length, written, digest = _HEADER.unpack(header)
    if magic != MAGIC:
        raise Unreadable("it is not a hand-over")
    if version != VERSION:
        raise Unreadable("another version wrote it", count)
    body = memoryview(data)[start:]
    if len(body) != length or blake2b(body, digest_size=32).digest() != digest:
        raise Unreadable("it is damaged", count)
    try:
        waiting = tuple(_pushes(body))
    except _Malformed:
        waiting = ()
    if len(waiting) != count or not isfinite(written):
        raise Unreadable("its records are not as they should be", count)
    return HandOver(waiting, written)


def _records(waiting: Sequence[Waiting]) -> Iterator[bytes]:
    numbers: dict[int, int] = {}  # of messages, by identity: they are shared, not equal by chance
    for each in waiting:
        message = each.push.message
        if id(message) not in numbers:
            numbers[id(message)] = len(numbers)
            yield _record(_MESSAGE, _members(message, "body"), message.body)
        push = {
            **_members(each.push, "device", "message"),
            "device": _members(each.push.device),
            "message": numbers[id(message)],
        }
        yield _record(_PUSH, {**_members(each, "push"), "push": push})


def _record(kind: bytes, head: object, body: bytes = b"") -> bytes:
    text = json.dumps(head, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > MOST_HEAD or len(body) > MOST_BODY:
        raise ValueError("too long a record")
    return _RECORD.pack(kind, len(text), len(body)) + text + body


def _members(noun: Any, *but: str) -> dict[str, object]:
    return {each.name: getattr(noun, each.name) for each in fields(noun) if each.name not in but}


class _Malformed(Exception):
    """A record is not as it should be. Never says what is in it."""


def _pushes(data: memoryview) -> Iterator[Waiting]:
    messages: list[Message] = []
    for kind, head, body in _split(data):
        if kind == _MESSAGE:
            messages.append(_built(Message, head, body=body))
        else:
            push = _mapping(head.pop("push", None))
            number = push.pop("message", None)
            if type(number) is not int or not 0 <= number < len(messages) or body:
                raise _Malformed
            device = _built(Device, _mapping(push.pop("device", None)))
            whole = _built(Push, push, device=device, message=messages[number])
            yield _built(Waiting, head, push=whole)


def _split(data: memoryview) -> Iterator[tuple[bytes, dict[str, Any], bytes]]:
    at = 0
    while at < len(data):
        if len(data) - at < _RECORD.size:
            raise _Malformed
        kind, head_size, body_size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        end = at + head_size + body_size
        sane = head_size <= MOST_HEAD and body_size <= MOST_BODY and end <= len(data)
        if kind not in (_MESSAGE, _PUSH) or not sane:
            raise _Malformed
        head, body = bytes(data[at : at + head_size]), bytes(data[at + head_size : end])
        at = end
        try:
            parsed = json.loads(head)
        except (ValueError, RecursionError):
            raise _Malformed from None
        yield kind, _mapping(parsed), body


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Malformed
    return value


def _built(noun: Callable[..., T], members: Mapping[str, Any], **given: object) -> T:
    """Make a noun of what a record says of it: all that it needs, and nothing else."""
    kinds = _kinds(noun)
    values = dict(given)
    for name, value in members.items():
        if name not in kinds or name in given:
            raise _Malformed
        values[name] = _value(value, kinds[name])
    if _needed(noun) - values.keys():
        raise _Malformed
    return noun(**values)


@cache
def _kinds(noun: Any) -> dict[str, tuple[type, ...]]:
    """Return the types that each field of a noun may have."""
    hints = get_type_hints(noun)
    return {
        name: get_args(hint) if isinstance(hint, UnionType) else (hint,)
        for name, hint in hints.items()
    }


@cache
def _needed(noun: Any) -> frozenset[str]:
    return frozenset(
        each.name
        for each in fields(noun)
        if each.default is MISSING and each.default_factory is MISSING
    )


def _value(value: Any, kinds: tuple[type, ...]) -> object:
    kind = type(value)
    if kind in kinds and kind in _PLAIN:
        return value
    if kind in (int, float) and float in kinds:
        return _finite(value)
    if kind is int and int not in kinds:
        for each in kinds:
            if issubclass(each, IntEnum) and value in _members_of(each):
                return _members_of(each)[value]
    raise _Malformed


@cache
def _members_of(kind: Any) -> dict[int, IntEnum]:
    return {int(member): member for member in kind}


def _finite(number: Any) -> float:
    try:
        if isfinite(number):
            return float(number)
    except OverflowError:
        pass
    raise _Malformed


# --- the memory


def seal(data: bytes) -> int:
    """Put data into a memfd that nobody can change any more; return the descriptor.

    Raises OSError where the kernel has none, or no memory.
    """
    descriptor = _memfd()
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("bouncerd-waiting", flags | _NO_EXECUTION)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 6.3
            raise
        return os.memfd_create("bouncerd-waiting", flags)


def unseal(descriptor: int, most: int = MOST) -> bytes | None:
    """Return what is in a sealed memfd, None if it was taken up before; or raise Unreadable."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        found = os.fstat(descriptor)
    except OSError:
        raise Unreadable("it is not a memfd") from None
    if seals & _SEALS != _SEALS:
        raise Unreadable("it is not sealed")
    if not stat.S_IMODE(found.st_mode):
        return None
    if found.st_size > most:
        raise Unreadable("it is too long")
    pieces, at = [], 0
    while at < found.st_size and (piece := os.pread(descriptor, 1 << 20, at)):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def mark_taken(descriptor: int) -> None:
    """Have nobody take it up again, whoever still has the descriptor.

    The content cannot be changed; the mode of the file can, and nobody else asks for it.
    """
    with suppress(OSError):  # made by another user: then its removal from the store is all there is
        os.fchmod(descriptor, 0)
