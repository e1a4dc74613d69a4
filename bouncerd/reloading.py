"""SIGHUP: the configuration and all files that it names are read again, and what changed is used.

Everything is read, checked and made before anything is touched: with any mistake in it the old
configuration goes on. What cannot change while the process runs is named.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from bouncerd.config import Config, ConfigError, Daemon
from bouncerd.lanes import Lanes

log = Logger()

#: The keys of [bouncerd] that a reload applies; all others need a restart.
LIVE = frozenset({"keep_for", "terms_url", "support", "log_level", "alert_command"})
_SECTIONS = ("limits", "registration", "entitlement", "e2ee")
#: What a log line has room for.
_ROOM = 150


def _nothing() -> None:
    """Nobody is told."""


class Reloader:
    """Reads the configuration again when asked to.

    `read` reads it (or raises ConfigError); `appliers` are told what has become of it.
    """

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config],
        lanes: Lanes,
        appliers: Sequence[Callable[[Config], None]],
        clock: IReactorTime,
    ) -> None:
        #: Told around a reload: systemd wants to know.
        self.begins: Callable[[], None] = _nothing
        self.ends: Callable[[], None] = _nothing
        self._config = config
        self._read = read
        self._lanes = lanes
        self._appliers = appliers
        self._clock = clock
        self._asked: IDelayedCall | None = None
        self._stopped = False

    def ask(self) -> None:
        """Reload soon; asked again before that, once. While the process stops: not at all."""
        if self._asked is None and not self._stopped:
            self._asked = self._clock.callLater(0, self._reload)

    def stop(self) -> None:
        """Reload no more, and give up what a reload began."""
        self._stopped = True
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None
        self._lanes.stay()

    # --- within

    def _reload(self) -> None:
        self._asked = None
        self.begins()
        try:
            self._read_and_apply()
        except ConfigError as error:
            _refused(error.problems)
        except Exception:  # noqa: BLE001 -- the daemon must go on, whatever is wrong
            log.failure("A reload failed", alert="reload-failed", subject="configuration")
        finally:
            self.ends()

    def _read_and_apply(self) -> None:
        config, old = self._read(), self._config
        in_force = _running(config, old)
        change = self._lanes.prepare(in_force)
        for applier in self._appliers:
            applier(in_force)
        self._lanes.apply(change)
        self._config = in_force
        _tell(config, old)


def on_hangup(reactor: Any, ask: Callable[[], None]) -> None:
    """Ask at each SIGHUP from now on, but stop where it says that our terminal was closed."""
    had_terminal = os.isatty(0)

    def hung_up(_number: int, _frame: object) -> None:
        # A handler of Python's runs between any two of its steps: it only wakes the reactor.
        lost = had_terminal and not os.isatty(0)
        reactor.callFromThread(reactor.stop if lost else ask)

    signal.signal(signal.SIGHUP, hung_up)


def heed_no_more() -> None:
    """Let signals that ask for a stop, or a reload, do nothing from now on: the process stops."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ignored)


def _ignored(_number: int, _frame: object) -> None:
    """Go on. (SIG_IGN would be passed on to children.)"""


def _refused(problems: Sequence[str]) -> None:
    for problem in problems:
        log.error("Not reloaded: {problem}", problem=problem)
    log.error(
        "The old configuration goes on, the new one has mistakes: {count}",
        count=len(problems),
        alert="reload-failed",
        subject="configuration",
        reason=_short(problems[0]),
    )


def _running(new: Config, old: Config) -> Config:
    """Return what is in force: `new`, but for what needs a restart."""
    kept = {name: getattr(old.bouncerd, name) for name in _names(Daemon) if name not in LIVE}
    return replace(new, bouncerd=replace(new.bouncerd, **kept))


def _tell(new: Config, old: Config) -> None:
    for warning in new.warnings:
        if warning not in old.warnings:
            log.warn("{path}: warning: {warning}", path=str(new.path), warning=warning)
    changed = list(_changed(new, old))
    log.info("Reloaded: {what}", what=_short(", ".join(changed)) or "nothing has changed")
    restart = [each for each in _changed_keys(new, old) if each not in LIVE]
    if restart:
        what = _short(", ".join(restart))
        log.warn("Changed in [bouncerd], but needs a restart: {what}", what=what)
    copies = [each for each in new.copies if not _belongs(each, changed)]
    if copies:
        log.warn(
            "Unchanged, because systemd copies LoadCredential= files only at start (after changing"
            " them, restart instead): {what}",
            what=_short(", ".join(copies)),
        )


def _changed(new: Config, old: Config) -> Iterator[str]:
    """Name each section that a reload applies, and that is not what it was."""
    if any(name in LIVE for name in _changed_keys(new, old)):
        yield "[bouncerd]"
    yield from (f"[{name}]" for name in _SECTIONS if getattr(new, name) != getattr(old, name))
    before = {each.name: each for each in old.providers}
    after = {each.name: each for each in new.providers}
    for name in (*after, *(name for name in before if name not in after)):
        if name not in before:
            yield f"[{name}] is new"
        elif name not in after:
            yield f"[{name}] is gone"
        elif before[name] != after[name]:
            yield f"[{name}]"


def _changed_keys(new: Config, old: Config) -> list[str]:
    return [
        name
        for name in _names(Daemon)
        if getattr(new.bouncerd, name) != getattr(old.bouncerd, name)
    ]


def _names(kind: type[Daemon]) -> list[str]:
    return [each.name for each in fields(kind)]


def _belongs(copy: str, changed: Sequence[str]) -> bool:
    """Say whether a copied file ("[apns] key_file") is of a section that changed."""
    return any(each.startswith(copy.partition(" ")[0]) for each in changed)


def _short(text: str) -> str:
    """Cut what the log has no room for, and what is no plain character."""
    plain = "".join(each if " " <= each <= "~" else "?" for each in text)
    return plain if len(plain) <= _ROOM else f"{plain[:_ROOM]}..."
