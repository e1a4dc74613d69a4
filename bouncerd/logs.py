"""Where log lines go, and everything that is made one: JSON for journald, text for a terminal.

One observer for all that is logged, ours or not; `redaction` decides what of it is written. What
bypasses Twisted's logging is captured too: Python's own, warnings, and uncaught exceptions.
"""

import json
import logging
import sys
import syslog
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import blake2b
from types import TracebackType
from typing import Any, Protocol, TextIO

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile
from zope.interface import implementer

from bouncerd.redaction import Raised, Record, class_name, recorded

Level = Any  # one of LogLevel's constants, which Twisted does not annotate


LEVELS = ("normal", "verbose")


class Output(Protocol):
    """Where lines go: a stream, a rotated file, the system's log."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


def short_hash(key: bytes, text: str) -> str:
    """Return a name for a secret: the same under the same key, and telling nothing of it."""
    return blake2b(text.encode(), key=key, digest_size=6, person=b"bouncerd.log").hexdigest()


class Verbosity:
    """Whether each call and each push gets a line: asked on the hot path, changed by a reload."""

    __slots__ = ("verbose",)

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose


@implementer(ILogObserver)
class Observer:
    """Writes each event from `level` on as one line, for people or as JSON; never raises.

    `lines` counts what was written, by level. `verbosity` is for those who log a lot.
    """

    def __init__(self, output: Output, human: bool, level: Level = LogLevel.info) -> None:
        self._output = output
        self._render = _line if human else _json
        self.level = level
        self.verbosity = Verbosity()
        self.lines: Counter[str] = Counter()
        self._heard = 0

    def set_level(self, name: str) -> None:
        """Log as `log_level` says: `normal` or `verbose`."""
        self.verbosity.verbose = name == "verbose"
        self.level = LogLevel.debug if self.verbosity.verbose else LogLevel.info

    def hears(self, log: Logger) -> bool:
        """Say whether what is logged comes here: then it is written by our rules only."""
        before = self._heard
        log.debug("Is anybody there?")
        return self._heard > before

    def __call__(self, event: LogEvent) -> None:
        self._heard += 1
        if (event.get("log_level") or LogLevel.info) < self.level:
            return
        # A full disk, a closed terminal or an event that breaks us must not stop a push.
        try:
            record = recorded(event)
            if record is not None:
                self._output.write(self._render(record) + "\n")
                self._output.flush()
                self.lines[str(record["level"])] += 1
        except Exception:  # noqa: BLE001, S110
            pass


def observer(
    output: Output | None = None,
    human: bool | None = None,
    level: Level = LogLevel.info,
) -> Observer:
    """Return an observer that writes to `output`, or to standard error as it is now.

    Lines are for people if that is a terminal, JSON otherwise, unless `human` says.
    """
    chosen = output or sys.stderr
    isatty: Callable[[], bool] = getattr(chosen, "isatty", bool)
    return Observer(chosen, isatty() if human is None else human, level)


def attach(
    application: Componentized,
    output: Output | None = None,
    human: bool | None = None,
    level: Level = LogLevel.info,
) -> Observer:
    """Make twistd log an application through an observer of ours, and capture the rest."""
    chosen = observer(output, human, level)
    application.setComponent(ILogObserver, chosen)
    capture(chosen)
    return chosen


def destination(options: Mapping[str, object]) -> Output | None:
    """Return where twistd's own options send lines (--syslog, --logfile); None: standard error."""
    if options.get("syslog"):
        return _Syslog(str(options.get("prefix") or "bouncerd"))
    name = str(options.get("logfile") or "")
    if name == "-" or (options.get("nodaemon", True) and not name):  # unknown: no twistd
        return None
    rotated: Output = LogFile.fromFullPath(
        name or "twistd.log", rotateLength=10_000_000, maxRotatedFiles=5, defaultMode=0o640
    )
    return rotated


def capture(observe: Callable[[LogEvent], object]) -> Callable[[], None]:
    """Send what bypasses Twisted's logging to an observer; return what undoes that.

    Python's warnings and `logging`, and exceptions that nobody caught: in the main thread, in
    other threads, and where Python can only ignore them.
    """
    handler = _LoggingHandler(observe)
    root = logging.getLogger()
    before = (sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning)
    raise_before = logging.raiseExceptions

    def undo() -> None:
        root.removeHandler(handler)
        sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning = before
        logging.raiseExceptions = raise_before

    def uncaught(
        kind: type[BaseException], value: BaseException | None, tb: TracebackType | None
    ) -> None:
        observe(_event("python", LogLevel.critical, raised=Raised(kind, value, tb)))

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            uncaught(args.exc_type, args.exc_value, args.exc_traceback)

    def show_warning(
        message: Warning | str,  # noqa: ARG001  # the signature is Python's
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,  # noqa: ARG001
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        place = {"category": class_name(category), "filename": filename, "lineno": lineno}
        observe(_event("python.warnings", LogLevel.warn, **place))

    root.addHandler(handler)
    logging.raiseExceptions = False  # it would print the arguments of a record that cannot be
    sys.excepthook = uncaught
    sys.unraisablehook = lambda args: uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    threading.excepthook = uncaught_in_thread
    warnings.showwarning = show_warning
    return undo


class _Syslog:
    """The system's log; journald and syslogd put the time themselves."""

    def __init__(self, prefix: str) -> None:
        syslog.openlog(prefix, syslog.LOG_PID, syslog.LOG_DAEMON)

    def write(self, text: str, /) -> None:
        syslog.syslog(syslog.LOG_INFO, text.rstrip("\n"))

    def flush(self) -> None:
        """Nothing waits."""


class _LoggingHandler(logging.Handler):
    """Python's logging: who spoke and how loudly; the text is not ours, so it is not written."""

    def __init__(self, observe: Callable[[LogEvent], object]) -> None:
        super().__init__()
        self._observe = observe

    def emit(self, record: logging.LogRecord) -> None:
        """Make a log event of a record."""
        raised = Raised(*record.exc_info) if record.exc_info and record.exc_info[0] else None
        self._observe(_event(record.name, _level(record.levelno), raised=raised))


def _level(number: int) -> Level:
    if number >= logging.CRITICAL:
        return LogLevel.critical
    if number >= logging.ERROR:
        return LogLevel.error
    if number >= logging.WARNING:
        return LogLevel.warn
    return LogLevel.info if number >= logging.INFO else LogLevel.debug


def _event(namespace: str, level: Level, **fields: object) -> LogEvent:
    return {
        "log_namespace": f"({namespace})",  # so that none is taken for one of ours
        "log_level": level,
        "log_time": time.time(),
        **fields,
    }


_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


def _json(record: Record) -> str:
    return _encode(record)


def _line(record: Record) -> str:
    told = [str(record[name]) for name in ("error", "where", "caused_by") if name in record]
    clock, level = str(record["time"])[11:19], str(record["level"])
    return " ".join([f"{clock} {level:8} {record['module']}: {record['message']}", *told])
