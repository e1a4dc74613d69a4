"""What of a log event may leave the process: our constant texts, known facts, our own lines.

Of our own events: the constant text, and the facts that the vocabulary below names. Of others'
events: a text that we know to be constant, else only who spoke and how loudly. Of an exception:
its class and our own file and line, never its text, its arguments or a variable, since `str(e)`
of everyday errors holds the value that they complain of.
"""

import re
import string
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import NamedTuple

from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure

Fact = str | int | float | bool | None | list[str]
Record = dict[str, Fact]
WITHHELD = "(withheld)"
_NAME = re.compile(r"[!-~]{1,160}")
_PHRASE = re.compile(r"[ -~]{0,160}")
_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{0,600}")

# The facts that may be logged, and the form each must have: a number only, one word, a few words
# of ours, or what the operator wrote or chose. A field that is not here is left out.
_NUMBERS = """
    age attempt bytes capacity cleared count delay delivered devices expired failed full gone
    handed_over left limit links lost pid port pushes queue refused requests retries returned
    seconds servers signal size status stream streams took unknown waiting
"""
_NAMES = """
    account app call code device environment instance kind lane link mode method name
    outcome provider public_key push_id request request_id route schema section server state table
    token topic version
"""
_PHRASES = "hint reason rest subject what when why"
_TEXTS = "address endpoint listen path place problem warning"

#: What an operator may want to be woken for: the field `alert` of an event is one of these.
ALERTS = (
    "credential-refused",
    "certificate-expiry",
    "store-down",
    "lane-shedding",
    "tokens-mostly-bad",
    "pushes-lost",
    "reload-failed",
)
VOCABULARY: dict[str, re.Pattern[str] | None] = {
    **dict.fromkeys(_NUMBERS.split()),
    **dict.fromkeys(_NAMES.split(), _NAME),
    **dict.fromkeys(_PHRASES.split(), _PHRASE),
    **dict.fromkeys(_TEXTS.split(), _TEXT),
    "alert": re.compile("|".join(ALERTS)),
}

# What Twisted says in words that are always the same, and how we say it.
_KNOWN_TEXTS = {
    "Main loop terminated.": "the main loop ended",
    "Received SIGINT, shutting down.": "received SIGINT, stopping",
    "Received SIGTERM, shutting down.": "received SIGTERM, stopping",
    "Server Shut Down.": "stopped",
    "Timing out client: {peer}": "a caller was too slow",
    "Could not reserve EMFILE recovery file descriptor.": "no file descriptor in reserve",
    "Unhandled error in Deferred:": "an error that nobody handled",
    "while verifying certificate": "a certificate could not be verified",
    "twistd {version} ({exe} {pyVersion}) starting up.": "twistd {version} starts",
    "{filename}:{lineno}: {category}: {warning}": "a Python warning",
}
_TEXT_WITHHELD = "(the text of other libraries is not logged)"
_PACKAGE = str(Path(__file__).parent) + "/"
_MOST_FRAMES = 6
_MOST_CAUSES = 4


class Raised(NamedTuple):
    """An exception in an event of ours, where there is no Failure."""

    kind: type[BaseException]
    value: BaseException | None
    tb: TracebackType | None


def recorded(event: LogEvent) -> Record | None:
    """Return what may be written of an event; None if that would say nothing."""
    namespace = event.get("log_namespace")
    module = namespace if isinstance(namespace, str) and _NAME.fullmatch(namespace) else "?"
    level = event.get("log_level") or LogLevel.info
    raised = _raised(event)
    record: Record = {
        "time": _time(event.get("log_time")),
        "level": getattr(level, "name", "info"),
        "module": module,
    }
    text = event.get("log_format")
    if module.partition(".")[0] == "bouncerd":
        facts = _facts(event)
        record["message"] = _filled(text, facts) if isinstance(text, str) else ""
        record |= facts
    elif isinstance(text, str) and text in _KNOWN_TEXTS:
        record["message"] = _filled(_KNOWN_TEXTS[text], _facts(event))
    elif raised is None and level < LogLevel.warn:
        return None
    else:
        record["message"] = _TEXT_WITHHELD
    if raised is not None:
        record |= described(*raised)
    elif isinstance(event.get("category"), str):
        record |= _warned(event["category"], event.get("filename"), event.get("lineno"))
    return record


def described(
    kind: type[BaseException], value: BaseException | None, tb: TracebackType | None
) -> Record:
    """Return an exception's class and where in our own code it passed, and those of its causes."""
    described: Record = {"error": class_name(kind), "where": _where(tb)}
    causes = [
        f"{class_name(type(cause))} {_where(cause.__traceback__)}" for cause in _causes(value)
    ]
    return described | ({"caused_by": causes} if causes else {})


def class_name(kind: type) -> str:
    """Return the name of an exception's class, with its module."""
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    name = f"{module}{kind.__qualname__}"
    return name if _NAME.fullmatch(name) else WITHHELD


def own_place(filename: str, line: int) -> str | None:
    """Return a place in our own code, relative to the package; None for any other code."""
    if not filename.startswith(_PACKAGE):
        return None
    return f"bouncerd/{filename.removeprefix(_PACKAGE)}:{line}"


def _warned(category: str, filename: object, line: object) -> Record:
    place = own_place(filename, line) if isinstance(filename, str) and isinstance(line, int) else ""
    return {"error": category if _NAME.fullmatch(category) else WITHHELD, "where": place or "…"}


def _time(seconds: object) -> str:
    whole, fraction = divmod(seconds if isinstance(seconds, int | float) else 0.0, 1)
    return f"{_second(whole)}.{int(fraction * 1000):03}Z"


@lru_cache(maxsize=1)
def _second(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _facts(event: LogEvent) -> Record:
    return {name: _fact(name, value) for name, value in event.items() if name in VOCABULARY}


def _fact(name: str, value: object) -> Fact:
    """Return a fact if it has the form that the vocabulary asks of it."""
    if value is None or isinstance(value, bool | float) or type(value) is int:
        return value
    if isinstance(value, Enum):
        value = value.name
    elif isinstance(value, Path):
        value = str(value)
    form = VOCABULARY[name]
    return value if form and isinstance(value, str) and form.fullmatch(value) else WITHHELD


def _filled(text: str, facts: Record) -> str:
    """Return a constant text with its facts in place; what is no known fact is withheld."""
    parts: list[str] = []
    for literal, name, form in _parts(text):
        parts.append(literal)
        if name is not None:
            parts.append(_formatted(facts.get(name, WITHHELD), form))
    return "".join(parts)


@lru_cache(maxsize=512)
def _parts(text: str) -> tuple[tuple[str, str | None, str], ...]:
    try:
        parsed = string.Formatter().parse(text)
        return tuple((literal, name, form or "") for literal, name, form, _ in parsed)
    except ValueError:
        return ((text, None, ""),)


def _formatted(fact: Fact, form: str) -> str:
    if not form:
        return str(fact)
    try:
        return format(fact, form)
    except (TypeError, ValueError):
        return str(fact)


def _raised(event: LogEvent) -> Raised | None:
    for key in ("log_failure", "failure", "raised"):
        found = event.get(key)
        if isinstance(found, Failure):
            value = found.value if isinstance(found.value, BaseException) else None
            return Raised(found.type or BaseException, value, found.getTracebackObject())
        if isinstance(found, Raised):
            return found
    return None


def _where(tb: TracebackType | None) -> str:
    """Return our own places of a traceback, outermost first; a row of foreign ones is one dot."""
    places: list[str] = []
    for frame, line in walk_tb(tb):
        place = own_place(frame.f_code.co_filename, line) or "…"
        if places[-1:] != ["…"] or place != "…":
            places.append(place)
    return " ".join(places[-_MOST_FRAMES:]) or "…"


def _causes(value: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_MOST_CAUSES):
        if value is None:
            return
        hidden = None if value.__suppress_context__ else value.__context__
        value = value.__cause__ or hidden
        if value is not None:
            yield value
