"""Long work: in pieces, and in turns."""

from collections.abc import Generator

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.deadline import TooLate
from bouncerd.turns import Turns, in_pieces


class BusyClock(Clock):
    """A clock on which a look takes time, as if the work were between two of them."""

    def seconds(self) -> float:
        self.rightNow += 0.001
        return super().seconds()


def steps(count: int, done: list[int]) -> Generator[None, None, str]:
    for number in range(count):
        done.append(number)
        yield
    return "done"


class InPiecesTests(SynchronousTestCase):
    """Work that pauses."""

    def test_pauses(self) -> None:
        """Between two pieces of an upload every other request has its turn."""
        clock, done = BusyClock(), list[int]()
        result = Deferred.fromCoroutine(in_pieces(steps(3, done), clock, by=10))
        turns = []

        def other() -> None:
            turns.append(len(done))
            if not result.called:
                clock.callLater(0, other)

        other()
        clock.advance(0)
        self.assertEqual(self.successResultOf(result), "done")
        self.assertLessEqual({1, 2, 3}, set(turns))

    def test_short(self) -> None:
        """What is short is done at once."""
        done: list[int] = []
        result = Deferred.fromCoroutine(in_pieces(steps(100, done), Clock(), by=10))
        self.assertEqual(self.successResultOf(result), "done")

    def test_too_late(self) -> None:
        """Work that nobody waits for any longer is given up."""
        clock, done = BusyClock(), list[int]()
        result = Deferred.fromCoroutine(in_pieces(steps(1000, done), clock, by=0.1))
        while not result.called:
            clock.advance(0)
        self.failureResultOf(result, TooLate)
        self.assertLess(len(done), 100)

    def test_mistake(self) -> None:
        """What is wrong is told to whoever waits."""

        def broken() -> Generator[None, None, None]:
            yield
            raise ZeroDivisionError

        result = Deferred.fromCoroutine(in_pieces(broken(), Clock(), by=10))
        self.failureResultOf(result, ZeroDivisionError)


class TurnsTests(SynchronousTestCase):
    """Whose turn it is."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock, at_once=2, waiting=3)

    def take(self, key: str, by: float = 10, *, long: bool = False) -> Deferred[None]:
        return Deferred.fromCoroutine(self.turns.take(key, by, long=long))

    def test_at_once(self) -> None:
        """So many at once; who comes later waits, and is served in the order of coming."""
        first, second, third, fourth = (self.take(key) for key in "abcd")
        self.assertTrue(first.called and second.called)
        self.assertFalse(third.called or fourth.called)
        self.turns.give_back("b")
        self.assertTrue(third.called)
        self.assertFalse(fourth.called)
        self.turns.give_back("a")
        self.successResultOf(fourth)

    def test_one_of_each(self) -> None:
        """A server's second upload waits for its first, and keeps no other server waiting."""
        self.take("a")
        again = self.take("a")
        other = self.take("b")
        self.assertEqual((again.called, other.called), (False, True))
        self.turns.give_back("b")
        self.assertFalse(again.called)
        self.turns.give_back("a")
        self.assertTrue(again.called)

    def test_one_long(self) -> None:
        """Long ones go one by one; short ones pass them."""
        self.take("a", long=True)
        long, short = self.take("b", long=True), self.take("c")
        self.assertEqual((long.called, short.called), (False, True))
        self.turns.give_back("c")
        self.assertFalse(long.called)
        self.turns.give_back("a")
        self.assertTrue(long.called)

    def test_too_many(self) -> None:
        """Beyond so many who wait, and for a key that waits already, it is too late at once."""
        for key in "ab":
            self.take(key)
        waiting = self.take("a")
        self.failureResultOf(self.take("a"), TooLate)
        others = [self.take(key) for key in "cd"]
        self.failureResultOf(self.take("e"), TooLate)
        self.assertFalse(any(each.called for each in (waiting, *others)))

    def test_tired(self) -> None:
        """Who waited long enough goes, and is not served after that."""
        self.take("a")
        self.take("b")
        tired, patient = self.take("c", by=5), self.take("d")
        self.clock.advance(5)
        self.failureResultOf(tired, TooLate)
        self.turns.give_back("a")
        self.assertTrue(patient.called)
        self.turns.give_back("b")
        self.turns.give_back("d")
        self.assertTrue(self.take("c").called)
        self.assertEqual(self.clock.getDelayedCalls(), [])
