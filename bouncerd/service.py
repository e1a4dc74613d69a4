"""The daemon as one Twisted service: what starts and stops, and in which order.

`MultiService` stops all its children at once; here the listener must close before the lanes
drain, the lanes before the links, and the store last. That order is why this class exists.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from bouncerd.lane import Lane
from bouncerd.site import Site
from bouncerd.store.base import Store

log = Logger()

#: Seconds at a stop for what waits, then for the last answers to callers.
STOP_WITHIN = 10.0
LAST_ANSWERS_WITHIN = 2.0


class CannotStart(Exception):
    """Why the daemon cannot start, in one line for the operator."""


class Token(Protocol):
    """What is kept fresh while the daemon runs: an access token."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the daemon is made of."""

    store: Store
    lanes: Sequence[Lane]
    tokens: Sequence[Token]
    site: Site
    admin: Site


@dataclass(slots=True)
class _Running:
    parts: Parts
    ports: list[IListeningPort] = field(default_factory=list)
    admin_ports: list[IListeningPort] = field(default_factory=list)


Listen = Callable[[str, IProtocolFactory], IListeningPort]


class Bouncerd(Service):
    """Starts and stops the parts that `build` makes.

    They are made when the service starts: twistd has left its first process by then, and given
    up root's rights. `started` is told so.
    """

    def __init__(
        self,
        build: Callable[[], Parts],
        listen: Listen,
        endpoints: tuple[Sequence[str], Sequence[str]],
        clock: IReactorTime,
        fail: Callable[[str], None],
    ) -> None:
        """`endpoints`: the API's, the admin's. `fail` ends the process with a line."""
        self._build = build
        self._listen = listen
        self._api_endpoints, self._admin_endpoints = endpoints
        self._clock = clock
        self._fail = fail
        self._running: _Running | None = None

    def startService(self) -> None:
        """Open the store, listen, and begin to connect; or end the process with one line."""
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
        for token in running.parts.tokens:
            token.start()
        for lane in running.parts.lanes:
            lane.pool.start(lane)
        for endpoint in self._api_endpoints:
            log.info("Serving on {endpoint}", endpoint=endpoint)
        for endpoint in self._admin_endpoints:
            log.info("Health and metrics on {endpoint}", endpoint=endpoint)

    def stopService(self) -> Deferred[None]:
        """Stop in order; fires when all that was taken has its end."""
        super().stopService()  # type: ignore[no-untyped-call]  # likewise
        running, self._running = self._running, None
        if running is None:
            return succeed(None)  # never started, or asked twice
        return Deferred.fromCoroutine(self._stop(running))

    async def _stop(self, running: _Running) -> None:
        parts = running.parts
        log.info("Stopping")
        await _all([_closed(port) for port in running.ports])
        await _all([lane.stop(STOP_WITHIN) for lane in parts.lanes])
        await self._last_answers(parts.site)
        await _all([lane.pool.stop() for lane in parts.lanes])
        for token in parts.tokens:
            token.stop()
        await parts.store.close()
        await _all([_closed(port) for port in running.admin_ports])
        ends = [lane.ledger.ends for lane in parts.lanes]
        for end, count in sorted(
            (end.value, count) for each in ends for end, count in each.items()
        ):
            if count:
                log.info("In all: {count} {what}", count=count, what=end)

    async def _last_answers(self, site: Site) -> None:
        """Let callers have the answers that are being written."""
        by = self._clock.seconds() + LAST_ANSWERS_WITHIN
        while any(channel.requests for channel in site.channels) and self._clock.seconds() < by:
            await deferLater(self._clock, 0.02)


async def _all(waits: Sequence[Deferred[None]]) -> None:
    await DeferredList(list(waits), consumeErrors=True)


def _closed(port: IListeningPort) -> Deferred[None]:
    closed: Deferred[None] = Deferred()
    stopping = port.stopListening()
    if stopping is None:
        closed.callback(None)
    else:
        stopping.addBoth(lambda _: closed.callback(None))
    return closed
