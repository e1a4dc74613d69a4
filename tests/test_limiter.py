"""A limit over several processes: they share a table, one clock ticks, answers take their time."""

import random
from collections import deque
from collections.abc import Sequence
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.deadline import TooLate
from bouncerd.leasing import HOLD, Ask, Entry, Lease, grant
from bouncerd.limiter import REFUSED_FOR, OwnLimiter, SharedLimiter
from bouncerd.limits import MINUTE, Verdict
from bouncerd.store.base import Store, StoreUnavailable

KEY = "11111111-1111-4111-8111-111111111111"
NOW = 1_800_000_000.0


class Table:
    """The database: a log for each key, and its own clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.logs: dict[str, list[Entry]] = {}
        self.questions = 0

    def lease(self, asks: Sequence[Ask], window: float) -> list[Lease]:
        self.questions += 1
        leases = []
        for ask in asks:
            now = NOW + self.clock.seconds()
            lease, self.logs[ask.key] = grant(self.logs.get(ask.key, []), ask, now, window)
            leases.append(lease)
        return leases


class Process:
    """One process: its limiter, and what it let through, when (by the one true clock)."""

    def __init__(self, table: Table, latency: float = 0.002) -> None:
        self.table = table
        self.latency = latency
        self.down = False
        self.silent = False
        self.limiter = SharedLimiter(cast(Store, self), table.clock)
        self.verdicts: list[Verdict] = []
        self.passed: list[float] = []
        self.failures: list[type[BaseException]] = []

    def lease(self, asks: Sequence[Ask], window: float) -> Deferred[list[Lease]]:
        """Answer for the store: half of the time is the question's way."""
        answer: Deferred[list[Lease]] = Deferred()
        if self.silent:
            return answer
        clock, half = self.table.clock, self.latency / 2

        def arrived() -> None:
            if self.down:
                answer.errback(StoreUnavailable("down"))
            else:
                leases = self.table.lease(asks, window)
                clock.callLater(half, answer.callback, leases)

        clock.callLater(half, arrived)
        return answer

    def take(self, limit: int = 1000, key: str = KEY, within: float = 12.0) -> None:
        """Make a request."""

        def judged(verdict: Verdict) -> None:
            self.verdicts.append(verdict)
            if verdict.retry_in is None:
                self.passed.append(self.table.clock.seconds())

        by = self.table.clock.seconds() + within
        asked = Deferred.fromCoroutine(_awaited(self.limiter, key, limit, by))
        asked.addCallbacks(judged, lambda failure: self.failures.append(failure.type))

    @property
    def last(self) -> Verdict:
        return self.verdicts[-1]


async def _awaited(limiter: SharedLimiter, key: str, limit: int, by: float) -> Verdict:
    return await limiter.take(key, limit, by)


class SharedCase(SynchronousTestCase):
    """Three processes on one table."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.table = Table(self.clock)
        self.processes = [Process(self.table) for _ in range(3)]
        self.one, self.two, self.three = self.processes

    def run_for(self, seconds: float, step: float = 0.001) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def all_passed(self) -> list[float]:
        return sorted(at for process in self.processes for at in process.passed)


def most_within(times: Sequence[float], window: float) -> int:
    """Return how many times at most lie within one window, wherever it begins."""
    inside: deque[float] = deque()
    most = 0
    for at in times:
        inside.append(at)
        while inside[0] <= at - window:
            inside.popleft()
        most = max(most, len(inside))
    return most


class SharedLimiterTests(SharedCase):
    """What a Zulip server notices whose requests go to several processes."""

    def test_flood(self) -> None:
        """A server that floods three processes has its thousand a minute, within ten."""
        for _ in range(6000):
            for process in self.processes:
                process.take()
            self.clock.advance(0.001)
        self.run_for(0.1)
        self.assertTrue(990 <= len(self.all_passed()) <= 1010, len(self.all_passed()))

    def test_flood_of_minutes(self) -> None:
        """In no minute, wherever it begins, do more pass than one in a hundred too many."""
        for _ in range(170 * 25):
            for process in self.processes:
                process.take()
            self.clock.advance(0.04)
        passed = self.all_passed()
        most = most_within(passed, MINUTE)
        self.assertTrue(990 <= most <= 1010, most)
        self.assertTrue(2970 <= len(passed) <= 3030, len(passed))

    def test_one_process_gets_it_all(self) -> None:
        """What others held and do not use is given back: it is not lost to the server."""
        for process in self.processes:
            for _ in range(4):
                process.take()
                self.run_for(0.01)
        self.run_for(2 * HOLD, 0.1)
        for _ in range(2000):
            self.one.take()
            self.clock.advance(0.001)
        self.run_for(0.1)
        self.assertEqual(len(self.all_passed()), 1000)

    def test_few_questions(self) -> None:
        """A server that is far from its limit costs a question for every few requests."""
        for _ in range(600):
            self.one.take()
            self.run_for(0.1, 0.05)
        self.assertEqual(len(self.one.passed), 600)
        self.assertLess(self.table.questions, 600 / 8)

    def test_a_high_limit(self) -> None:
        """Under a limit that is far away next to nothing is asked."""
        for _ in range(20_000):
            self.one.take(limit=10**9)
            self.clock.advance(0.001)
        self.run_for(0.1)
        self.assertEqual(len(self.one.passed), 20_000)
        self.assertLess(self.table.questions, 20)

    def test_together(self) -> None:
        """Requests that come while a question is under way go with the next one."""
        for number in range(500):
            self.one.take(key=f"server {number % 50}")
        self.run_for(0.01)
        self.assertEqual((len(self.one.passed), self.table.questions), (500, 2))

    def test_headers(self) -> None:
        """What is told to be left goes down by one each time, also between questions."""
        lefts = []
        for _ in range(30):
            self.one.take()
            self.run_for(0.1, 0.05)
            self.assertEqual(self.one.last.limit, 1000)
            self.assertEqual(self.one.last.free_in, MINUTE)
            lefts.append(self.one.last.remaining)
        self.assertEqual(lefts, list(range(999, 969, -1)))

    def test_headers_know_others(self) -> None:
        """What passed elsewhere is left out once somebody asks, and what others hold."""
        for _ in range(100):
            self.one.take()
        self.run_for(0.1)
        self.two.take()
        self.run_for(0.1)
        self.assertTrue(889 <= self.two.last.remaining <= 899)

    def test_refusal(self) -> None:
        """One too many is told when to come again, and by all processes the same."""
        for _ in range(5):
            self.one.take(limit=5)
        self.run_for(10, 0.1)
        for process in (self.one, self.two):
            process.take(limit=5)
            self.run_for(0.1)
            self.assertEqual(process.last.remaining, 0)
            assert process.last.retry_in is not None
            self.assertAlmostEqual(process.last.retry_in, 50.0, places=0)
            self.assertAlmostEqual(process.last.free_in, 50.0, places=0)
        self.run_for(50.3, 0.1)
        self.two.take(limit=5)
        self.run_for(0.1)
        self.assertIsNone(self.two.last.retry_in)

    def test_refusals_cost_nothing(self) -> None:
        """A server that goes on after its limit does not reach the database each time."""
        self.one.take(limit=1)
        self.run_for(0.01)
        before = self.table.questions
        for _ in range(1000):
            self.one.take(limit=1)
            self.clock.advance(0.001)
        self.assertLessEqual(self.table.questions - before, 1 / REFUSED_FOR + 1)
        retries = [each.retry_in for each in self.one.verdicts[-20:]]
        self.assertEqual(retries, sorted(map(float, filter(None, retries)), reverse=True))

    def test_another_limit(self) -> None:
        """A limit that the operator changes holds at the next request, both ways."""
        for _ in range(4):
            self.one.take(limit=3)
        self.run_for(0.01)
        self.assertIsNotNone(self.one.last.retry_in)
        self.one.take(limit=1000)
        self.run_for(0.01)
        self.assertEqual((self.one.last.retry_in, self.one.last.remaining), (None, 996))
        self.one.take(limit=1000)  # holds some by now
        self.run_for(0.01)
        self.one.take(limit=2)
        self.run_for(0.01)
        self.assertIsNotNone(self.one.last.retry_in)

    def test_store_down(self) -> None:
        """Who cannot be counted is told to come again: all that wait, and those who come then."""
        self.one.down = True
        for _ in range(3):
            self.one.take()
        self.run_for(0.01)
        self.assertEqual(self.one.failures, [StoreUnavailable] * 3)
        self.one.down = False
        self.one.take()
        self.run_for(0.01)
        self.assertEqual(len(self.one.passed), 1)

    def test_store_silent(self) -> None:
        """Nobody waits for a store longer than for an answer."""
        self.one.silent = True
        self.one.take(within=5.0)
        self.run_for(4.9, 0.1)
        self.assertEqual(self.one.failures, [])
        self.run_for(0.2, 0.1)
        self.assertEqual(self.one.failures, [TooLate])

    def test_a_dead_process(self) -> None:
        """What a process held when it was killed matters for a window at most."""
        for _ in range(5):
            self.one.take()
            self.run_for(0.1, 0.05)
        self.one.down = True
        self.run_for(MINUTE, 0.5)
        for _ in range(1100):
            self.two.take()
        self.run_for(0.1)
        self.assertEqual(len(self.two.passed), 1000)

    def test_memory(self) -> None:
        """Servers that are idle are forgotten, and then there is nothing left to do."""
        for number in range(200):
            self.one.take(key=f"server {number}")
            self.one.take(key=f"server {number}")
            self.clock.advance(0.005)
        self.assertEqual(len(self.one.limiter), 200)
        self.run_for(2 * HOLD + 1, 0.5)
        self.assertEqual(len(self.one.limiter), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fair(self) -> None:
        """One server's flood takes nothing from another's limit."""
        for _ in range(2000):
            self.one.take()
            self.clock.advance(0.0005)
        self.one.take(key="another")
        self.run_for(0.01)
        self.assertIsNone(self.one.last.retry_in)

    @given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([3, 50, 200, 1000]))
    @settings(max_examples=15)
    def test_global(self, seed: int, count: int, limit: int) -> None:
        """Whatever the traffic, delays and processes: no minute has over one percent too many."""
        chance = random.Random(seed)
        self.setUp()
        self.processes = [
            Process(self.table, latency=chance.choice([0.0005, 0.01, 0.3])) for _ in range(count)
        ]
        for _ in range(400):
            process = chance.choice(self.processes)
            for _ in range(chance.choice([0, 1, 1, 2, 30])):
                process.take(limit)
            self.run_for(chance.choice([0.0, 0.05, 0.1, 1.0]), 0.05)
            process.down = chance.random() < 0.02
        self.run_for(1, 0.1)
        # It passes when the answer comes, which may take longer or less long than another.
        most = most_within(self.all_passed(), MINUTE - 0.4)
        self.assertLessEqual(most, limit + limit // 100)


class OwnLimiterTests(SynchronousTestCase):
    """The limiter of one process."""

    def test_at_once(self) -> None:
        """Its verdict is there without waiting for anything."""
        clock = Clock()
        limiter = OwnLimiter(clock)
        for left in (1, 0):
            verdict = self.successResultOf(Deferred.fromCoroutine(limiter.take(KEY, 2, 12.0)))
            self.assertEqual(verdict, Verdict(2, left, MINUTE, None))
        verdict = self.successResultOf(Deferred.fromCoroutine(limiter.take(KEY, 2, 12.0)))
        self.assertEqual(verdict.retry_in, MINUTE)
