"""Waiting for something, but not for ever."""

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.deadline import TooLate, until

NOW = 1000.0


class DeadlineTests(SynchronousTestCase):
    """What is there in time, and what is not."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)

    def test_in_time(self) -> None:
        """What comes in time is handed on, good or bad, and leaves no timer behind."""
        slow: Deferred[int] = Deferred()
        failing: Deferred[int] = Deferred()
        answer, bad = (until(NOW + 1, self.clock, each) for each in (slow, failing))
        slow.callback(5)
        failing.errback(Failure(ZeroDivisionError()))
        self.assertEqual(self.successResultOf(answer), 5)
        self.failureResultOf(bad, ZeroDivisionError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.successResultOf(until(NOW - 1, self.clock, succeed(6))), 6)

    def test_too_late(self) -> None:
        """What comes too late, good or bad, is nobody's any more; it was not cancelled."""
        slow: Deferred[int] = Deferred()
        failing: Deferred[int] = Deferred()
        answers = [until(NOW + 1, self.clock, each) for each in (slow, failing)]
        self.clock.advance(1)
        for answer in answers:
            self.failureResultOf(answer, TooLate)
        slow.callback(5)
        failing.errback(Failure(ZeroDivisionError()))
        self.successResultOf(slow)
        self.successResultOf(failing)

    def test_what_waits_itself(self) -> None:
        """What has fired but waits for something else is waited for, too."""
        inner: Deferred[int] = Deferred()
        outer = succeed(1).addCallback(lambda _: inner)
        answer = until(NOW + 1, self.clock, outer)
        self.clock.advance(1)
        self.failureResultOf(answer, TooLate)
