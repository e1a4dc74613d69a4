"""`twistd bouncerd`: its options, and the only place where the reactor is named."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.usage import Options as TwistedOptions

from bouncerd import logs
from bouncerd.building import build
from bouncerd.config import Config, ConfigError, read
from bouncerd.service import Bouncerd, CannotStart

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
        try:
            path = Path(self["config"])
            self.configuration = read(path, self["instance"], now=time.time())
        except ConfigError as error:
            for problem in error.problems:
                print(problem, file=sys.stderr)  # noqa: T201 -- an answer to the operator
            raise SystemExit(1) from None
        warnings = [*self.configuration.warnings]
        if self["check"]:  # a start says so itself, by failing
            warnings += _store_warnings(self.configuration)
        for warning in warnings:
            print(f"{path}: warning: {warning}", file=sys.stderr)  # noqa: T201 -- likewise
        if self["check"]:
            print(f"{path}: fine")  # noqa: T201 -- likewise
            raise SystemExit(0)


def _store_warnings(config: Config) -> list[str]:
    """Say what the configuration's syntax does not: that the store will not open."""
    kind, _, place = config.bouncerd.store.partition(":")
    if kind != "sqlite":
        return ["[bouncerd] store: PostgreSQL is not supported yet; accepted: sqlite:PATH"]
    if not Path(place).parent.is_dir():
        return ["[bouncerd] store: its directory is not there (yet)"]
    return []


class LoggedBouncerd(Bouncerd):
    """The service, which also chooses how twistd logs (by twistd's own `options`)."""

    twistd_options: Mapping[str, object] = {}

    def setServiceParent(self, parent: Any) -> None:
        """Take the application's log over before twistd opens one."""
        if isinstance(parent, Componentized):
            logs.attach(parent, logs.destination(self.twistd_options))
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # Twisted's


def makeService(options: Options) -> Bouncerd:
    """Return the daemon, built but not started."""
    config = options.configuration
    # Twisted's reactor reads the wall clock; a step of it would fire or stall every timer.
    reactor.seconds = time.monotonic
    endpoints = config.bouncerd.listen, config.bouncerd.admin_listen
    service = LoggedBouncerd(lambda: build(config, reactor), listen, endpoints, reactor, _fail)
    service.twistd_options = options.parent or {"nodaemon": True}
    return service


def _fail(problem: str) -> None:
    log.critical("Cannot start: {problem}", problem=problem)
    raise SystemExit(1)


def listen(description: str, factory: IProtocolFactory) -> IListeningPort:
    """Listen now, or raise CannotStart: Twisted's own service would swallow the failure."""
    found: list[Any] = []
    try:
        serverFromString(reactor, description).listen(factory).addBoth(found.append)
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
