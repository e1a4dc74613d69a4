"""How a process ends: callers get their answers, streams finish, what waits goes on elsewhere.

Where systemd keeps descriptors, what cannot go within a moment is left to the next process. Else
it has some seconds, and what is left then is lost, and said so. Either way no caller is refused
for it: who listens next has the same socket.
"""

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from bouncerd.lane import Lane
from bouncerd.routes import Routes
from bouncerd.site import Site
from bouncerd.succession import Succession

log = Logger()

#: Seconds at a stop for what waits, where it cannot be handed over.
STOP_WITHIN = 10.0
#: Seconds in which as much as can go goes, before the rest is handed over. If the whole service
#: ends and no process follows, systemd forgets what it keeps: then this is all that goes.
WORK_OFF_WITHIN = 2.0
#: Seconds for a connection on which something was asked lately to ask again, and be told goodbye.
QUIET = 1.0
#: Seconds for streams in flight, then for the last answers to callers.
IN_FLIGHT_WITHIN = 5.0
LAST_ANSWERS_WITHIN = 2.0
_LOOK_EVERY = 0.02


class Leaving:
    """The end of the lanes and of the API's connections, in order. Nobody listens any more."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        routes: Routes,
        site: Site,
        succession: Succession,
        clock: IReactorTime,
    ) -> None:
        self._lanes = lanes
        self._routes = routes
        self._site = site
        self._succession = succession
        self._clock = clock

    async def go(self) -> None:
        """Bring every push to an end, and give every caller an answer."""
        self._site.leave(QUIET)
        if not (self._succession.kept and await self._hand_over()):
            await self._work_off()
        await self._until(lambda: not self._site.busy, LAST_ANSWERS_WITHIN)
        self._site.cut_short()
        await self.last_words()

    async def last_words(self) -> None:
        """Let the answers go out that are written, and the connections end."""
        await self._until(lambda: not self._site.channels, LAST_ANSWERS_WITHIN)

    async def _hand_over(self) -> bool:
        """Leave what waits to the next process; False: it could not be."""
        await self._until(self._is_still, WORK_OFF_WITHIN)
        self._site.cut_short()
        self._routes.closed = True
        for lane in self._lanes:
            lane.pause()
        await self._until(lambda: not self._in_flight(), IN_FLIGHT_WITHIN)
        for lane in self._lanes:
            lane.withdraw_all()
        waiting = [each for lane in self._lanes for each in lane.to_pass_on()]
        if waiting and not await self._succession.pass_on(waiting):
            log.warn("What waits could not be handed over: the supervisor did not take it")
            return False
        for lane in self._lanes:
            lane.passed_on()
        if waiting:
            log.info("Handed over {count} pushes to the next process", count=len(waiting))
        await _all([lane.stop(0.0) for lane in self._lanes])
        return True

    async def _work_off(self) -> None:
        """Give what waits some time; what is left is lost."""
        stopped = _all([lane.stop(STOP_WITHIN) for lane in self._lanes])
        await self._until(lambda: stopped.called, STOP_WITHIN)
        await stopped

    def _is_still(self) -> bool:
        """Whether waiting longer would change nothing: what waits, waits for a provider."""
        return not self._site.channels and not self._in_flight()

    def _in_flight(self) -> int:
        return sum(lane.in_flight for lane in self._lanes)

    async def _until(self, condition: Callable[[], bool], within: float) -> None:
        """Wait until it is so, but not for longer; and go on parting from callers."""
        by = self._clock.seconds() + within
        while not condition() and self._clock.seconds() < by:
            await deferLater(self._clock, _LOOK_EVERY)
            self._site.leave(QUIET)


def _all(waits: Sequence[Deferred[None]]) -> Deferred[list[tuple[bool, None]]]:
    return DeferredList(list(waits), consumeErrors=True)
