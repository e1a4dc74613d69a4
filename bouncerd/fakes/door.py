"""Who gets in at a fake: newcomers can be counted, turned away, kept waiting, or refused."""

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime


class Door:
    """The accepting side of a service. Times are the clock's seconds.

    `most_per_second`: more newcomers than that in one second are hung up on (None: all may come).
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.most_per_second: int | None = None
        self.turned_away = 0
        self.knocks: Counter[int] = Counter()  # newcomers, by whole seconds
        self._clock = clock

    @property
    def busiest_second(self) -> int:
        """How many came in the second in which most did."""
        return max(self.knocks.values(), default=0)

    def admits(self) -> bool:
        """Count a newcomer; False: hang up on it."""
        second = int(self._clock.seconds())
        self.knocks[second] += 1
        welcome = self.most_per_second is None or self.knocks[second] <= self.most_per_second
        self.turned_away += not welcome
        return welcome


class Gate:
    """A listening port that can be closed (connections are refused) and opened again.

    `leave_waiting` goes on listening, but takes nobody in: the kernel lets them knock.
    """

    def __init__(self, reactor: Any, port: Any) -> None:
        self._reactor = reactor
        self._port: Any = port
        self.number: int = port.getHost().port

    def refuse(self) -> "Deferred[Any]":
        """Close the port; fires when it is closed."""
        return maybeDeferred(self._port.stopListening)

    def welcome(self) -> None:
        """Listen on the same port again."""
        self._port.port = self.number  # which may have been 0 at first: any
        self._port.startListening()

    def leave_waiting(self, seconds: float) -> None:
        """Accept nobody for so long."""
        self._port.stopReading()
        self._reactor.callLater(seconds, self._port.startReading)
