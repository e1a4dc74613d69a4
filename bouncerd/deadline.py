"""Waiting for a Deferred, but only until a given time.

Nothing that is waited for is ever cancelled: a push goes on when its caller is answered, and a
cancelled query would break its connection.
"""

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

_T = TypeVar("_T")


class TooLate(Exception):
    """It did not come in time. It may still come, and nobody will hear of it."""


def until(by: float, clock: IReactorTime, awaited: Deferred[_T]) -> Deferred[_T]:
    """Hand on a result that is there `by` then (the clock's seconds), else fail with TooLate."""
    if awaited.called and not awaited.paused:
        return awaited
    answer: Deferred[_T] = Deferred()

    def arrived(result: _T) -> None:
        if timer.active():
            timer.cancel()
            answer.callback(result)

    def failed(reason: Failure) -> None:
        if timer.active():
            timer.cancel()
            answer.errback(reason)

    delay = max(0.0, by - clock.seconds())
    timer = clock.callLater(delay, lambda: answer.errback(TooLate()))
    awaited.addCallbacks(arrived, failed)
    return answer
