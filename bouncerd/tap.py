"""`twistd bouncerd`: its options, and the only place where the reactor is named."""

import atexit
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.usage import Options as TwistedOptions

from bouncerd import cores, logs
from bouncerd.adopting import Unsuitable, adopt, check
from bouncerd.building import build
from bouncerd.config import Config, ConfigError, read
from bouncerd.notifying import Notifier
from bouncerd.reloading import heed_no_more, on_hangup
from bouncerd.service import Bouncerd, CannotStart, Parts
from bouncerd.store.base import StoreError
from bouncerd.store.kinds import look_at
from bouncerd.succession import Succession, inherited

# The reactor offers more than any of its interfaces alone.
reactor: Any = _reactor
log = Logger()


class Options(TwistedOptions):
    """What `twistd bouncerd` takes."""

    synopsis = "[-c FILE] [--check] [--instance NAME]"
    longdesc = "A push bouncer: Zulip servers on one side, Apple's APNs and Google's FCM beyond."
    optParameters = [
        ["config", "c", "/etc/bouncer.ini", "The configuration file."],
        ["instance", None, "", "What {instance} in an endpoint stands for."],
    ]
    optFlags = [["check", None, "Check the configuration, say what is wrong with it, and exit."]]

    configuration: Config

    def postOptions(self) -> None:
        """Read the configuration; with mistakes in it the process ends here."""
        if self.parent is not None and self.parent.get("logger"):
            problem = "--logger is not taken: bouncerd writes its log itself, without content"
            print(problem, file=sys.stderr)  # noqa: T201 -- an answer to the operator
            raise SystemExit(1)
        try:
            # A daemon changes its directory; what it reads again is where it was.
            self["config"] = str(Path(self["config"]).absolute())
            self.configuration = self.read()
        except ConfigError as error:
            for problem in error.problems:
                print(problem, file=sys.stderr)  # noqa: T201 -- an answer to the operator
            raise SystemExit(1) from None
        warnings = [*self.configuration.warnings]
        if self["check"]:  # a start says so itself, by failing
            warnings += [f"[bouncerd] store: {note}" for note in self._look()]
        for warning in warnings:
            print(f"{self['config']}: warning: {warning}", file=sys.stderr)  # noqa: T201 -- likewise
        if self["check"]:
            print(f"{self['config']}: fine")  # noqa: T201 -- likewise
            raise SystemExit(0)

    def _look(self) -> list[str]:
        """Return what there is to say of the store; without its driver the process ends here."""
        try:
            return look_at(self.configuration.bouncerd.store)
        except StoreError as error:
            problem = f"{self['config']}: [bouncerd] store: {error}"
            print(problem, file=sys.stderr)  # noqa: T201 -- an answer to the operator
            raise SystemExit(1) from None

    def read(self) -> Config:
        """Read the configuration, or raise ConfigError."""
        return read(Path(self["config"]), self["instance"], now=time.time())


class LoggedBouncerd(Bouncerd):
    """The service, which also chooses how twistd logs (by twistd's own `options`)."""

    twistd_options: Mapping[str, object] = {}
    observer: logs.Observer | None = None

    def setServiceParent(self, parent: Any) -> None:
        """Take the application's log over before twistd opens one."""
        if isinstance(parent, Componentized):
            self.observer = logs.attach(parent, logs.destination(self.twistd_options))
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # Twisted's

    def startService(self) -> None:
        """Start, and leave no core file from now on: what is in memory is content."""
        cores.forbid()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Stop; who asks for it twice need not see Twisted's complaint about that."""
        heed_no_more()
        return super().stopService()

    def only_log(self) -> logs.Observer:
        """Return our observer, or raise CannotStart if what is logged goes elsewhere, too.

        Another one (twistd's --logger, another runner than twistd) would write what exceptions
        say: nothing may start then.
        """
        if self.observer is None or not self.observer.hears(log):
            raise CannotStart("the log is not ours: run it by twistd, and without --logger")
        return self.observer


def makeService(options: Options) -> Bouncerd:
    """Return the daemon, built but not started."""
    config = options.configuration
    # Twisted's reactor reads the wall clock; a step of it would fire or stall every timer.
    reactor.seconds = time.monotonic
    endpoints = config.bouncerd.listen, config.bouncerd.admin_listen

    def start() -> Parts:
        parts = build(config, reactor, options.read, service.only_log())
        on_hangup(reactor, parts.reloader.ask)
        return parts

    notifier = Notifier(os.environ, reactor)
    succession = Succession(notifier, inherited(os.environ), time.time)
    twistd_options = options.parent or {"nodaemon": True}

    def fail(problem: str) -> None:
        _fail(problem, in_background=twistd_options.get("statusPipe") is not None)

    service = LoggedBouncerd(start, listen, endpoints, reactor, fail, notifier, succession)
    service.twistd_options = twistd_options
    return service


def _fail(problem: str, *, in_background: bool) -> None:
    log.critical("Cannot start: {problem}", problem=problem)
    if not reactor.running:
        # twistd's first process waits for word of the one in the background: that it has started,
        # or what it raised. Of a SystemExit it would never hear.
        raise CannotStart(problem) if in_background else SystemExit(1)
    # What twistd returns after the reactor has run is zero, and it offers no other way.
    atexit.register(os._exit, 1)
    with suppress(ReactorNotRunning):  # it stops already
        reactor.stop()


def listen(description: str, factory: IProtocolFactory) -> IListeningPort:
    """Listen now, or raise CannotStart: Twisted's own service would swallow the failure."""
    found: list[Any] = []
    try:
        endpoint = serverFromString(reactor, description)
        if isinstance(endpoint, AdoptedStreamServerEndpoint):
            check(endpoint)
            if endpoint.addressFamily == socket.AF_UNIX:
                return adopt(reactor, endpoint, factory)
        endpoint.listen(factory).addBoth(found.append)
    except Unsuitable as error:
        raise CannotStart(f"listen: {description}: {error}") from None
    except LookupError:
        raise CannotStart(f"listen: {description}: no such socket was passed to us") from None
    except Exception as error:  # noqa: BLE001 -- whatever is wrong with it: the operator's line
        found.append(Failure(error))
    port = found[0] if found else Failure(TimeoutError())
    if isinstance(port, Failure):
        # CannotListenError holds the error of the socket, with the system's own words.
        reason = getattr(port.value, "socketError", port.value)
        words = getattr(reason, "strerror", None) or type(reason).__name__
        raise CannotStart(f"listen: {description}: {words}")
    listening: IListeningPort = port
    return listening
