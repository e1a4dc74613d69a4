"""`alert_command`: a program of the operator's that is run when an event is an alert.

It is told three words of ours and the configuration's: never content, never a token, and nothing
that came from outside. At most one runs at a time, so many an hour; whatever it does, nothing here
waits for it.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from bouncerd.redaction import ALERTS, recorded

log = Logger()

#: Seconds that a command may take; how many may start in an hour, and wait.
WITHIN = 30.0
AN_HOUR = 20
WAITING = 20

_HOUR = 3600.0
#: Who an event is about: the first of these fields that it has.
_SUBJECTS = ("subject", "provider", "lane", "account", "section", "path")

#: Starts a program with these arguments; its end is told to the protocol.
Spawn = Callable[[ProcessProtocol, Sequence[str]], IProcessTransport]


class Alert(NamedTuple):
    """What a command is told, as its last three arguments."""

    kind: str  # one of redaction.ALERTS; `KIND:cleared` when it is over
    subject: str
    reason: str


class Result:
    """What the counts of commands are called."""

    DONE, FAILED, DROPPED = "done", "failed", "dropped"


@implementer(ILogObserver)
class Alerts:
    """Runs `command` (a program and its first arguments; none: only counts) for each alert."""

    def __init__(self, clock: IReactorTime, spawn: Spawn, command: Sequence[str] = ()) -> None:
        self.command = tuple(command)
        self.counts: Counter[str] = Counter(dict.fromkeys(ALERTS, 0))
        self.results: Counter[str] = Counter(
            dict.fromkeys((Result.DONE, Result.FAILED, Result.DROPPED), 0)
        )
        self._clock = clock
        self._spawn = spawn
        self._waiting: deque[Alert] = deque()
        self._started_at: deque[float] = deque(maxlen=AN_HOUR)
        self._running: _Run | None = None
        self._told_failure = False
        self._finished: Deferred[None] | None = None
        self._late: IDelayedCall | None = None

    def __call__(self, event: LogEvent) -> None:
        """Take an event; most are none of ours."""
        if "alert" in event:
            alert = read_alert(event)
            if alert is not None:
                self._raised(alert)

    def finished(self, within: float) -> Deferred[None]:
        """Fire once no command runs or waits, or after so many seconds. For the end, once."""
        finished = self._finished = Deferred()
        self._late = self._clock.callLater(within, self._finish)
        self._next()
        return finished

    def _raised(self, alert: Alert) -> None:
        if not alert.kind.endswith(_CLEARED):
            self.counts[alert.kind] += 1
        if not self.command:
            return
        if len(self._waiting) >= WAITING:
            self.results[Result.DROPPED] += 1
            return
        self._waiting.append(alert)
        # Not within a log call: the event must be written first, whatever happens.
        self._clock.callLater(0, self._next)

    def _next(self) -> None:
        if self._running is not None:
            return
        if not self._waiting:
            self._finish()
            return
        alert, now = self._waiting.popleft(), self._clock.seconds()
        if len(self._started_at) == AN_HOUR and now < self._started_at[0] + _HOUR:
            self.results[Result.DROPPED] += 1
            self._next()
            return
        self._started_at.append(now)
        run = self._running = _Run(self._ended)
        try:
            process = self._spawn(run, (*self.command, *alert))
        except Exception as error:  # noqa: BLE001 -- whatever it was: the operator's line
            self._ended(type(error).__name__)
            return
        run.watch(process, self._clock.callLater(WITHIN, run.kill))

    def _finish(self) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            assert self._late is not None
            if self._late.active():
                self._late.cancel()
            finished.callback(None)

    def _ended(self, problem: str) -> None:
        self._running = None
        self.results[Result.FAILED if problem else Result.DONE] += 1
        if problem and not self._told_failure:
            log.error("alert_command failed: {reason}; told once until it works", reason=problem)
        self._told_failure = bool(problem)
        self._clock.callLater(0, self._next)


_CLEARED = ":cleared"


def read_alert(event: LogEvent) -> Alert | None:
    """Return what may be told of an event; None if it is no alert."""
    record = recorded(event)
    if record is None or record.get("alert") not in ALERTS:
        return None
    kind = str(record["alert"]) + (_CLEARED if record.get("cleared") is True else "")
    subject = next((record[name] for name in _SUBJECTS if name in record), "")
    reason = record.get("reason") or record["message"]
    return Alert(kind, str(subject), str(reason))


class _Run(ProcessProtocol):
    """One run of the command; what it prints goes nowhere."""

    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self._process: IProcessTransport | None = None
        self._limit: IDelayedCall | None = None
        self._killed = False

    def watch(self, process: IProcessTransport, limit: IDelayedCall) -> None:
        """Take note of what ends it."""
        self._process, self._limit = process, limit

    def kill(self) -> None:
        """End it: its time is up."""
        self._killed = True
        try:
            if self._process is not None:
                self._process.signalProcess("KILL")
        except ProcessExitedAlready:
            pass

    def processEnded(self, reason: Failure) -> None:  # noqa: N802 -- Twisted's name
        """Hear that it has ended."""
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        if reason.check(ProcessDone):
            self._ended("")
        elif self._killed:
            self._ended("it took too long")
        else:
            status = getattr(reason.value, "exitCode", None)
            self._ended(f"exit status {status}" if status is not None else "killed by a signal")


def spawner(reactor: object, environ: Mapping[str, str] = os.environ) -> Spawn:
    """Return what starts programs: with a path to find others, and nothing else of ours."""

    def spawn(protocol: ProcessProtocol, arguments: Sequence[str]) -> IProcessTransport:
        env = {"PATH": environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            process: IProcessTransport = reactor.spawnProcess(  # type: ignore[attr-defined]
                protocol,
                arguments[0],
                arguments,
                env,
                path="/",
                childFDs={0: nothing, 1: nothing, 2: nothing},
            )
        finally:
            os.close(nothing)
        return process

    return spawn
