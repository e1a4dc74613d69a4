"""Work that is long: who may do it when, and in pieces, so that nothing else waits for it."""

from collections import deque
from typing import NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from bouncerd.bulk import InPieces
from bouncerd.deadline import TooLate, until

_T = TypeVar("_T")

# Seconds of such work in one turn of the reactor, or one step of it if that takes longer. A
# request needs a few turns, and several pieces of work may have theirs in each.
_PIECE = 0.0005


async def in_pieces(work: InPieces[_T], clock: IReactorTime, by: float) -> _T:
    """Do work that pauses, and let others have their turn; raise TooLate if it is not done then."""
    began = clock.seconds()
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: _T = done.value
            return result
        now = clock.seconds()
        if now >= by:
            raise TooLate
        if now - began >= _PIECE:
            await deferLater(clock, 0)
            began = clock.seconds()


class _Place(NamedTuple):
    """Where somebody waits."""

    key: str
    long: bool
    turn: Deferred[None]


class Turns:
    """At most so many at a time, one of each key, and one that is long.

    Others wait, first come first served; but `waiting` at most, and of a key no second one.
    """

    def __init__(self, clock: IReactorTime, at_once: int, waiting: int) -> None:
        self._clock = clock
        self._at_once = at_once
        self._may_wait = waiting
        self._busy: dict[str, bool] = {}  # by key, whether it is long
        self._waiting: deque[_Place] = deque()

    async def take(self, key: str, by: float, *, long: bool = False) -> None:
        """Wait for a turn; raise TooLate if it does not come `by` then or too many wait."""
        if self._is_free(key, long=long):
            self._busy[key] = long
            return
        if len(self._waiting) >= self._may_wait or any(at.key == key for at in self._waiting):
            raise TooLate
        place = _Place(key, long, Deferred())
        self._waiting.append(place)
        try:
            await until(by, self._clock, place.turn)
        except TooLate:
            self._waiting.remove(place)
            raise

    def give_back(self, key: str) -> None:
        """End a turn."""
        del self._busy[key]
        for place in list(self._waiting):
            if self._is_free(place.key, long=place.long):
                self._waiting.remove(place)
                self._busy[place.key] = place.long
                place.turn.callback(None)

    def _is_free(self, key: str, *, long: bool) -> bool:
        if key in self._busy or len(self._busy) >= self._at_once:
            return False
        return not (long and any(self._busy.values()))
