"""Taking up what another process left, with a supervisor in memory."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from bouncerd import handover
from bouncerd.ledger import End
from bouncerd.notifying import Notifier
from bouncerd.passing import Waiting
from bouncerd.succession import Succession
from tests.lane_kit import LaneKit
from tests.memory import a_push


class Supervisor(Notifier):
    """One that keeps what it is given, and says so when the test does."""

    def __init__(self, kit: LaneKit) -> None:
        super().__init__({}, kit.clock)
        self.told: list[str] = []
        self.answer: Deferred[bool] = succeed(True)

    def store(self, descriptor: int, name: str) -> None:
        """Keep it."""
        self.told.append(f"store {name}")

    def remove(self, name: str) -> None:
        """Keep it no longer."""
        self.told.append(f"remove {name}")

    def barrier(self, within: float = 0.0) -> "Deferred[bool]":
        """Say so."""
        return self.answer


class TakingUpTests(SynchronousTestCase):
    """A lane that is up, and what was left for it. The test's clock is the wall clock, too."""

    def setUp(self) -> None:
        self.kit = LaneKit(keep_for=60.0)
        self.kit.start()
        self.supervisor = Supervisor(self.kit)

    def left(self, *waiting: Waiting, written: float | None = None) -> int:
        """Return the memory that another process has left."""
        now = self.kit.clock.seconds() if written is None else written
        return handover.seal(handover.encode(waiting, now))

    def take_up(self, *left: int) -> None:
        """Start with these."""
        succession = Succession(self.supervisor, left, self.kit.clock.seconds)
        taking_up = Deferred.fromCoroutine(succession.begin(self.kit.routes))
        self.addCleanup(taking_up.cancel)
        self.kit.clock.advance(0)

    def ends(self) -> dict[str, int]:
        """Return what became of pushes, in the lane and in none."""
        ends = dict(self.kit.ends())
        for end, count in self.kit.routes.nowhere.ends.items():
            if count:
                ends[end.value] = ends.get(end.value, 0) + count
        return ends

    def sent(self) -> int:
        """Return how many were sent, and answer."""
        return self.kit.server.answer_all()

    def closed(self, descriptors: Sequence[int]) -> bool:
        """Tell whether no descriptor is open."""
        return not any(Path(f"/proc/self/fd/{each}").exists() for each in descriptors)

    def test_two_predecessors(self) -> None:
        """What two processes left, one after the other, is sent: all of it, each once."""
        left = [self.left(Waiting(a_push("a"), 60.0)), self.left(Waiting(a_push("b"), 60.0))]
        self.take_up(*left)
        self.assertEqual((self.sent(), self.ends()), (2, {"delivered": 2}))
        self.assertTrue(self.closed(left))

    def test_the_same_memory_twice(self) -> None:
        """A descriptor that is passed twice, or to two processes, is sent once."""
        first = self.left(Waiting(a_push(), 60.0))
        second, third = os.dup(first), os.dup(first)
        self.take_up(first, second)
        self.take_up(third)
        self.assertEqual((self.sent(), self.ends()), (1, {"delivered": 1}))
        self.assertTrue(self.closed([first, second, third]))

    def test_nothing_is_sent_before_it_is_forgotten(self) -> None:
        """Until the supervisor has forgotten it, a crash would have the next process send it."""
        self.supervisor.answer = Deferred()
        self.take_up(self.left(Waiting(a_push(), 60.0)))
        self.assertEqual(self.sent(), 0)
        self.assertEqual(self.supervisor.told[0], "remove bouncerd-waiting")
        self.supervisor.answer.callback(True)
        self.kit.clock.advance(0)
        self.assertEqual(self.sent(), 1)

    def test_a_clock_that_was_set_back(self) -> None:
        """Times of the future are understood: what was due is sent, and ends when it would have."""
        now = self.kit.clock.seconds()
        day = now + 86_400.0
        soon = Waiting(a_push("a"), day + 30.0, day + 5.0)
        at_once = Waiting(a_push("b"), day + 30.0, day - 1.0)
        late = Waiting(a_push("c"), day - 1.0)
        self.take_up(self.left(soon, at_once, late, written=day))
        self.assertEqual((self.sent(), self.ends()), (1, {"delivered": 1, "lost": 1}))
        self.kit.clock.pump([0.5] * 12)
        self.assertEqual(self.sent(), 1)

    def test_a_clock_that_was_set_forward(self) -> None:
        """What is too old by now is lost, and counted: nobody gets yesterday's news."""
        self.take_up(self.left(Waiting(a_push(), 0.5), Waiting(a_push(), 1.0)))
        self.assertEqual((self.sent(), self.ends()), (0, {"lost": 2}))
        self.assertEqual(self.kit.routes.nowhere.taken_over, 2)

    def test_too_much(self) -> None:
        """What the next process would not read is not handed over, but stays ours to send."""
        body = b"x" * (handover.MOST_BODY + 1)
        push = a_push()
        waiting = Waiting(replace(push, message=replace(push.message, body=body)), 60.0)
        succession = Succession(self.supervisor, [], self.kit.clock.seconds)
        passed = Deferred.fromCoroutine(succession.pass_on([waiting]))
        self.assertIs(self.successResultOf(passed), False)
        self.assertEqual(self.supervisor.told, [])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_books(self) -> None:
        """Each push of a hand-over is in both books: as handed over, and as taken over."""
        old = LaneKit()
        old.server.refusing = True
        old.start()
        old.admit(7)
        old.lane.pause()
        left = self.left(*old.lane.to_pass_on())
        old.lane.passed_on()
        self.take_up(left)
        self.assertEqual(self.sent(), 7)
        self.assertEqual(old.lane.ledger.ends[End.HANDED_OVER], self.kit.lane.ledger.taken_over)
        self.assertEqual(self.ends(), {"delivered": 7})
