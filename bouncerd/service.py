"""The daemon as one Twisted service: what starts and stops, and in which order.

`MultiService` stops all its children at once; here the listener must close before the lanes
drain, the lanes before the links, and the store last. That order is why this class exists.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from bouncerd.counting import Counting
from bouncerd.lane import Lane
from bouncerd.leaving import Leaving
from bouncerd.notifying import Notifier
from bouncerd.observing import Observing
from bouncerd.reloading import Reloader
from bouncerd.routes import Routes
from bouncerd.site import Site
from bouncerd.store.base import Store, StoreError
from bouncerd.succession import Succession

log = Logger()

#: Seconds that the supervisor is asked to wait for the rest of a start or a stop, every second.
MORE_TIME = 20.0

#: Seconds for an alert_command that runs or waits at the end, such as of what the stop has lost.
ALERTS_WITHIN = 5.0


class CannotStart(Exception):
    """Why the daemon cannot start, in one line for the operator."""


class Token(Protocol):
    """What goes on beside the pushes while the daemon runs."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the daemon is made of. `lanes` may change while it runs."""

    store: Store
    lanes: Sequence[Lane]
    tokens: Sequence[Token]
    site: Site
    admin: Site
    routes: Routes
    reloader: Reloader
    observing: Observing
    counting: Counting


@dataclass(slots=True)
class _Running:
    parts: Parts
    ports: list[IListeningPort] = field(default_factory=list)
    admin_ports: list[IListeningPort] = field(default_factory=list)
    succeeding: Deferred[None] = field(default_factory=lambda: succeed(None))


Listen = Callable[[str, IProtocolFactory], IListeningPort]


class Bouncerd(Service):
    """Starts and stops the parts that `build` makes.

    They are made when the service starts: twistd has left its first process by then, and given
    up root's rights.
    """

    def __init__(
        self,
        build: Callable[[], Parts],
        listen: Listen,
        endpoints: tuple[Sequence[str], Sequence[str]],
        clock: IReactorTime,
        fail: Callable[[str], None],
        notifier: Notifier,
        succession: Succession,
    ) -> None:
        """`endpoints`: the API's, the admin's. `fail` ends the process with a line."""
        self._build = build
        self._listen = listen
        self._api_endpoints, self._admin_endpoints = endpoints
        self._clock = clock
        self._fail = fail
        self._notifier = notifier
        self._succession = succession
        self._running: _Running | None = None
        self._state = "starting, the store is not open yet"
        self._tell_call: IDelayedCall | None = None

    def startService(self) -> None:
        """Listen, take up what was left, begin to connect; or end the process with one line.

        It is ready once the store is open, too. One that is not reached yet is waited for:
        callers are told to ask again meanwhile.
        """
        try:
            running = self._running = _Running(self._build())
            for endpoint in self._api_endpoints:
                running.ports.append(self._listen(endpoint, running.parts.site))
            for endpoint in self._admin_endpoints:
                running.admin_ports.append(self._listen(endpoint, running.parts.admin))
        except CannotStart as error:
            self._fail(str(error))
            return
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's
        self._start(running.parts)
        for endpoint in self._api_endpoints:
            log.info("Serving on {endpoint}", endpoint=endpoint)
        for endpoint in self._admin_endpoints:
            log.info("Health and metrics on {endpoint}", endpoint=endpoint)
        succeeding = Deferred.fromCoroutine(self._succeed(running.parts.routes))
        running.succeeding = succeeding.addErrback(_note_fault)
        running.parts.store.open().addCallbacks(self._opened, self._not_opened, (running,))
        self._tell()

    def stopService(self) -> Deferred[None]:
        """Stop in order; fires when all that was taken has its end."""
        super().stopService()  # type: ignore[no-untyped-call]  # likewise
        running, self._running = self._running, None
        if running is None:
            return succeed(None)  # never started, or asked twice
        return Deferred.fromCoroutine(self._stop(running))

    def _start(self, parts: Parts) -> None:
        self._notifier.feed()
        parts.reloader.begins, parts.reloader.ends = self._notifier.reloading, self._reloaded
        parts.observing.health.listening = True
        parts.observing.start()
        parts.counting.start()
        for token in parts.tokens:
            token.start()
        for lane in parts.lanes:
            lane.pool.start(lane)

    async def _succeed(self, routes: Routes) -> None:
        """Take up what was left; not before the reactor runs: until then a SIGTERM just kills."""
        await deferLater(self._clock, 0)
        await self._succession.begin(routes)

    def _reloaded(self) -> None:
        """Say that a reload is over; not that a start is, which may still go on."""
        if not self._state:
            self._notifier.ready()

    def _opened(self, _: object, running: _Running) -> None:
        if self._running is running:
            self._state = ""
            self._notifier.status(self._status(running.parts))
            self._notifier.ready()

    def _not_opened(self, failure: Failure) -> None:
        if self._running is None:
            return  # it stops already, and so does the store
        if failure.check(StoreError) is None:
            log.failure("The store fails to open", failure)
        words = failure.getErrorMessage() if failure.check(StoreError) else "it fails to open"
        # Not from in here: what `_fail` may raise would be this Deferred's, and nobody's.
        self._clock.callLater(0, self._fail, f"store: {words}")

    def _tell(self) -> None:
        """Once a second: tell the supervisor how we are, and that we need more time if we do."""
        self._tell_call = self._clock.callLater(1.0, self._tell)
        if self._state:
            self._notifier.extend(MORE_TIME)
        if self._running is not None:
            self._notifier.status(self._status(self._running.parts))

    def _status(self, parts: Parts) -> str:
        if self._state:
            return "; ".join([self._state, *parts.observing.health.reasons()])
        state = parts.observing.health.state
        providers = [f"{lane.name} {state(lane)}" for lane in parts.lanes]
        waiting = sum(lane.waiting for lane in parts.lanes)
        return "; ".join([f"{waiting} pushes wait", *providers])

    async def _stop(self, running: _Running) -> None:
        parts = running.parts
        log.info("Stopping")
        self._state = "stopping"
        self._notifier.stopping()
        self._notifier.status(self._state)
        self._notifier.extend(MORE_TIME)
        parts.observing.health.stopping = True
        parts.reloader.stop()
        await _all([_closed(port) for port in running.ports])
        await running.succeeding  # what was just read belongs to a lane, or is still kept
        lanes = list(parts.lanes)
        leaving = Leaving(lanes, parts.routes, parts.site, self._succession, self._clock)
        await _whatever_happens(leaving.go())
        await _all([lane.pool.stop() for lane in lanes])
        for token in parts.tokens:
            token.stop()
        await _whatever_happens(parts.counting.stop())
        await _whatever_happens(parts.store.close())
        await _whatever_happens(leaving.last_words())  # to callers who waited for the store
        parts.observing.stop()
        await _whatever_happens(parts.observing.alerts.finished(ALERTS_WITHIN))
        await _all([_closed(port) for port in running.admin_ports])
        _say_ends(parts)
        if self._tell_call is not None and self._tell_call.active():
            self._tell_call.cancel()
        self._notifier.close()


def _say_ends(parts: Parts) -> None:
    """Say what became of all pushes; the books of this process and of the next one fit."""
    books = [*((lane.name, lane.ledger) for lane in parts.lanes), ("none", parts.routes.nowhere)]
    for provider, ledger in books:
        counts = {"accepted": ledger.accepted, "taken_over": ledger.taken_over}
        counts |= {end.value: count for end, count in ledger.ends.items()}
        for what, count in counts.items():
            if count:
                log.info(
                    "In all through {provider}: {count} {what}",
                    provider=provider,
                    count=count,
                    what=what,
                )


async def _all(waits: Sequence[Deferred[None]]) -> None:
    await DeferredList(list(waits), consumeErrors=True)


async def _whatever_happens(step: Awaitable[None]) -> None:
    """Take a step of the stop: the next ones are taken even if it fails."""
    try:
        await step
    except Exception:  # noqa: BLE001 -- likewise
        log.failure("A step of the stop failed")


def _note_fault(failure: Failure) -> None:
    log.failure("What another process left was not taken over", failure)


def _closed(port: IListeningPort) -> Deferred[None]:
    closed: Deferred[None] = Deferred()
    stopping = port.stopListening()
    if stopping is None:
        closed.callback(None)
    else:
        stopping.addBoth(lambda _: closed.callback(None))
    return closed
