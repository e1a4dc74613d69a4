"""Exceptions of every everyday class, raised inside the daemon with content in their hands.

Runs in the daemon's own process, before the daemon (`install`): where content passes, the first
text in it of the form `mishap WHERE KIND ...` makes that place fail in that way.
"""

import decimal
import importlib
import json
import logging
import re
import sqlite3
import sys
import threading
import uuid
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

_NOTHING: dict[str, str] = {}
_ORDER = re.compile(rb"mishap ([a-z]+) ([a-z ]+): ([^\"\\]{0,400})")

#: Where content passes, and the place's name here: in a call, on the way to Apple, on the way back.
PLACES = {
    "call": ("bouncerd.legacy", "apns_message"),
    "request": ("bouncerd.apns", "Apns.request"),
    "outcome": ("bouncerd.apns", "Apns.outcome"),
}


class Odd(Exception):
    """An exception whose own words cannot be had without another one."""

    def __str__(self) -> str:
        raise ValueError(*self.args)

    __repr__ = __str__


def _raise(error: BaseException) -> None:
    raise error


def _chained(text: str) -> None:
    try:
        int(text)
    except ValueError as error:
        raise RuntimeError(text) from error


def _during(text: str) -> None:
    try:
        _NOTHING[text]
    except KeyError:
        _raise(LookupError(text))


def _noted(text: str) -> None:
    error = ValueError("noted")
    error.add_note(text)
    raise error


def _deep(text: str) -> None:
    _deep(text + " ")


def _warned(text: str) -> None:
    warnings.warn(text, stacklevel=1)


def _logged(text: str) -> None:
    logging.getLogger("some.library").error("it said %s", text)
    try:
        int(text)
    except ValueError:
        logging.getLogger("some.library").exception("about %s", text)


def _in_a_thread(text: str) -> None:
    thread = threading.Thread(target=int, args=(text,), name=text)
    thread.start()
    thread.join()


def _unheard(text: str) -> None:
    from twisted.internet.defer import fail  # noqa: PLC0415 -- no reactor before twistd's

    fail(ValueError(text))


def _later(text: str) -> None:
    clock: Any = sys.modules["twisted.internet.reactor"]  # the one that twistd chose
    clock.callLater(0, int, text)


def _told(text: str) -> None:
    from twisted.logger import Logger  # noqa: PLC0415 -- likewise

    Logger("another.library").error("it said {what}", what=text)


class _Unraisable:
    def __init__(self, text: str) -> None:
        self.text = text

    def __del__(self) -> None:
        int(self.text)


#: How a place may fail, each with what it holds.
KINDS: dict[str, Callable[[str], object]] = {
    "value": int,
    "key": lambda text: _NOTHING[text],
    "index": lambda text: _raise(IndexError(text)),
    "attribute": lambda text: getattr(object(), text),
    "type": lambda text: _raise(TypeError(text)),
    "decoding": lambda text: (text.encode() + b"\xff").decode(),
    "encoding": lambda text: (text + "\ud800").encode(),
    "codec": lambda text: b"".decode(text.replace("\0", "")),
    "json": json.loads,
    "file": lambda text: open("/nowhere/" + text, encoding="utf-8"),  # noqa: PTH123, SIM115
    "assertion": lambda text: _raise(AssertionError(text)),
    "import": importlib.import_module,
    "syntax": lambda text: compile(text, text, "exec"),
    "memory": lambda text: _raise(MemoryError(text)),
    "arithmetic": lambda text: decimal.Decimal(text) / 0,
    "uuid": uuid.UUID,
    "database": lambda text: sqlite3.connect(":memory:").execute(text),
    "recursion": _deep,
    "group": lambda text: _raise(ExceptionGroup(text, [ValueError(text)])),
    "cause": _chained,
    "context": _during,
    "note": _noted,
    "odd": lambda text: _raise(Odd(text)),
    "warning": _warned,
    "logging": _logged,
    "foreign log": _told,
    "thread": _in_a_thread,
    "unheard": _unheard,
    "later": _later,
    "unraisable": _Unraisable,
}


def install() -> None:
    """Make the places fail on demand; raise if one of them is not there (any more)."""
    for where, (module, path) in PLACES.items():
        holder: Any = importlib.import_module(module)
        *owners, name = path.split(".")
        for owner in owners:
            holder = getattr(holder, owner)
        setattr(holder, name, _failing(where, getattr(holder, name)))


def _failing(where: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def instead(*arguments: Any, **others: Any) -> Any:
        for argument in arguments:
            ordered = _ORDER.search(_content(argument))
            if ordered and ordered[1].decode() == where:
                KINDS[ordered[2].decode()](ordered[3].decode())
        return method(*arguments, **others)

    return instead


def _content(argument: Any) -> bytes:
    """Return the content that an argument is, or carries."""
    if isinstance(argument, dict):
        return json.dumps(argument, ensure_ascii=False).encode()
    message = getattr(argument, "message", None)
    return b"" if message is None else bytes(message.body)
