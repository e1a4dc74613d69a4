"""Storing what was counted: when, once, and through everything that a store may do."""

import shutil
import tempfile
from pathlib import Path
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.counting import RETRY_WITHIN, STOP_WITHIN, TOGETHER, Counting
from bouncerd.pruning import COUNTS_KEPT, OUTCOMES_KEPT, Pruning
from bouncerd.store.base import Store, StoreUnavailable
from bouncerd.store.sqlite import SQLiteStore
from bouncerd.tallies import DAY, Counts, Tallies
from tests.test_tallies import APP, NOW, ONE, TODAY, a_push

WRITER = "writer"


class Troubled:
    """A store that adds to SQLite, and fails before or after that, or does not answer."""

    def __init__(self) -> None:
        self.real = SQLiteStore(None, None, lambda: NOW)
        self.real.add_server(ONE, "one.example.org", "e@x.org", b"k", 1.0)
        self.trouble = ""  # "before", "after", "silent" or "poison"
        self.calls: list[tuple[int, int]] = []
        self.silenced: list[Deferred[bool]] = []

    def add_counts(self, writer: str, number: int, counts: Counts, now: float) -> Deferred[bool]:
        self.calls.append((number, len(counts)))
        if self.trouble == "before":
            return fail(StoreUnavailable("down"))
        if self.trouble == "poison":
            return fail(ValueError("c0ffee"))
        added = self.real.add_counts(writer, number, counts, now)
        if self.trouble == "after":
            return added.addCallback(lambda _: fail(StoreUnavailable("lost its connection")))
        if self.trouble == "silent":
            self.silenced.append(Deferred())
            return self.silenced[-1]
        return added

    def stored(self) -> int:
        """Return how many outcomes are stored, whatever they are."""
        rows: list[int] = []
        self.real.outcomes(ONE, 0).addCallback(lambda found: rows.extend(r.count for r in found))
        return sum(rows)


class CountingCase(SynchronousTestCase):
    """Tallies, and what stores them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.tallies = Tallies(self.clock.seconds)
        self.store = Troubled()
        self.counting = self.new_counting()
        observer = self.observer = EventLoggingObserver()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def new_counting(self, writer: str = WRITER) -> Counting:
        store = cast(Store, self.store)
        return Counting(store, self.tallies, self.clock, self.clock.seconds, writer)

    def note(self, count: int = 1, kind: str = "delivered", reason: str = "") -> None:
        for _ in range(count):
            self.tallies.note("apns", a_push(realm=None), kind, reason)

    def run_for(self, seconds: int) -> None:
        for _ in range(seconds * 2):
            self.clock.advance(0.5)

    def texts(self) -> list[str]:
        return [
            formatEvent(event)
            for event in self.observer
            if event.get("log_namespace") == "bouncerd.counting"
        ]


class CountingTests(CountingCase):
    """The second in and second out of it."""

    def test_each_second(self) -> None:
        """What happened is stored within a second, and nothing is written when nothing did."""
        self.counting.start()
        self.note(3)
        self.clock.advance(1)
        self.assertEqual(self.store.stored(), 3)
        self.run_for(100)
        self.assertEqual(len(self.store.calls), 1)
        self.note(2)
        self.clock.advance(1)
        self.assertEqual((self.store.stored(), len(self.store.calls)), (5, 2))

    def test_at_the_stop(self) -> None:
        """What happened in the last moment is stored, and the clock is left alone."""
        self.counting.start()
        self.note(3)
        self.successResultOf(self.counting.stop())
        self.assertEqual(self.store.stored(), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_started(self) -> None:
        """A daemon that stops before it started stores what there is."""
        self.note()
        self.successResultOf(self.counting.stop())
        self.assertEqual(self.store.stored(), 1)

    def test_much(self) -> None:
        """Much is stored in several writes, none of them long."""
        for number in range(TOGETHER + 500):
            self.tallies.received(f"{number}", None, 1)
        self.counting.start()
        self.clock.advance(1)
        self.assertEqual(self.store.calls, [(1, TOGETHER), (2, 500)])

    def test_unknown_fate(self) -> None:
        """A write that was stored and reported lost is not counted again by its repetition."""
        self.counting.start()
        self.store.trouble = "after"
        self.note(3)
        self.run_for(10)
        self.note(4)
        self.run_for(60)
        self.store.trouble = ""
        self.run_for(int(RETRY_WITHIN))
        self.assertEqual(self.store.stored(), 7)
        self.assertGreater(len(self.store.calls), 3)

    def test_outage(self) -> None:
        """While the store is down nothing is lost, memory stays, and it is asked seldom."""
        self.counting.start()
        self.store.trouble = "before"
        for _ in range(600):
            self.note(5)
            self.run_for(1)
        self.assertLess(len(self.store.calls), 40)
        self.assertLess(len(self.tallies), 5)
        self.store.trouble = ""
        self.run_for(int(RETRY_WITHIN))
        self.assertEqual(self.store.stored(), 3000)
        calls = len(self.store.calls)
        self.note()
        self.clock.advance(1)
        self.assertEqual(len(self.store.calls), calls + 1)

    def test_stop_in_an_outage(self) -> None:
        """A stop does not wait for a store that is down, and says what was lost."""
        self.counting.start()
        self.store.trouble = "before"
        self.note(3)
        self.clock.advance(1)
        self.note(2, "gone")
        self.successResultOf(self.counting.stop())
        [text] = self.texts()
        self.assertEqual(text, "Lost 3 rows of counts at the stop: StoreUnavailable")

    def test_stop_while_it_hangs(self) -> None:
        """Nor longer than a while for one that does not answer."""
        self.counting.start()
        self.store.trouble = "silent"
        self.note(3)
        self.clock.advance(1)
        stopped = self.counting.stop()
        self.assertNoResult(stopped)
        self.run_for(int(STOP_WITHIN))
        self.successResultOf(stopped)
        self.assertIn("TooLate", self.texts()[0])

    def test_stop_while_it_is_stored(self) -> None:
        """A stop in the middle of a write waits for it, then stores the rest, and nothing twice."""
        self.counting.start()
        self.store.trouble = "silent"
        self.note(3)
        self.clock.advance(1)
        self.note(2)
        stopped = self.counting.stop()
        self.store.trouble = ""
        self.store.silenced[0].callback(True)
        self.successResultOf(stopped)
        self.assertEqual((self.store.stored(), len(self.store.calls)), (5, 2))
        self.assertEqual(self.texts(), [])

    def test_poison(self) -> None:
        """What can never be stored is given up and told, without its words; the rest is stored."""
        self.counting.start()
        self.store.trouble = "poison"
        self.note(3)
        self.clock.advance(1)
        self.store.trouble = ""
        self.note(2)
        self.clock.advance(1)
        self.assertEqual(self.store.stored(), 2)
        self.assertEqual(self.texts(), ["Failed to store 2 rows of counts"])
        self.flushLoggedErrors(ValueError)

    def test_dropped(self) -> None:
        """What was not counted, because too much waited, is told."""
        self.tallies = Tallies(self.clock.seconds, most=2)
        self.counting = self.new_counting()
        self.counting.start()
        for number in range(5):
            self.tallies.received(f"{number}", None, 1)
        self.clock.advance(1)
        self.assertEqual(self.texts(), ["Did not count 3 events: too many counts waited"])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["", "", "before", "after"]),
                st.integers(0, 3),
                st.sampled_from(["delivered", "gone", "retry"]),
                st.integers(0, 40),
                st.booleans(),
            ),
            max_size=25,
        )
    )
    @settings(max_examples=40)
    def test_exactly_once(self, course: list[tuple[str, int, str, int, bool]]) -> None:
        """Whatever fails when, and however often the daemon is restarted: each push counts once."""
        self.setUp()
        self.counting.start()
        expected = 0
        for number, (trouble, count, kind, seconds, restart) in enumerate(course):
            self.store.trouble = trouble
            self.note(count, kind)
            expected += count
            self.run_for(seconds)
            if restart:
                self.store.trouble = ""  # else it is lost, and said so
                self.successResultOf(self.counting.stop())
                self.assertEqual(self.store.stored(), expected)
                self.tallies = Tallies(self.clock.seconds)
                self.counting = self.new_counting(f"writer {number}")
                self.counting.start()
        self.store.trouble = ""
        self.successResultOf(self.counting.stop())
        self.assertEqual(self.store.stored(), expected)


class RestartTests(SynchronousTestCase):
    """A daemon that stops and starts on one file."""

    def test_two_openings(self) -> None:
        """Both add to the same day; what one has added the other knows."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        clock = Clock()
        clock.advance(NOW)
        for number in (1, 2):
            store = SQLiteStore(directory / "bouncerd.db", None, clock.seconds)
            if number == 1:
                store.add_server(ONE, "one.example.org", "e@x.org", b"k", 1.0)
            tallies = Tallies(clock.seconds)
            counting = Counting(store, tallies, clock, clock.seconds)
            counting.start()
            tallies.note("apns", a_push(realm=None), "delivered", "")
            tallies.received(ONE, None, 1)
            clock.advance(1)
            tallies.note("apns", a_push(realm=None), "delivered", "")
            tallies.received(ONE, None, 1)
            self.successResultOf(counting.stop())
            [row] = self.successResultOf(store.outcomes(ONE, TODAY))
            self.assertEqual((row.app, row.kind, row.count), (APP, "delivered", 2 * number))
            [pushes] = self.successResultOf(store.push_counts(ONE, TODAY))
            self.assertEqual((pushes.received, pushes.forwarded), (2 * number, 2 * number))
            again = store.add_counts("w", 1, Counts(), 1.0)
            self.assertEqual(self.successResultOf(again), number == 1)
            self.successResultOf(store.close())


class PruningTests(SynchronousTestCase):
    """Deleting what is old."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.asked: list[tuple[int, int]] = []
        self.answers: list[Deferred[int]] = []
        self.pruning = Pruning(cast(Store, self), self.clock, self.clock.seconds)

    def prune_counts(self, outcomes_before: int, pushes_before: int) -> Deferred[int]:
        self.asked.append((outcomes_before, pushes_before))
        return self.answers.pop(0) if self.answers else succeed(0)

    def test_daily(self) -> None:
        """Soon after the start and once a day the days that are too old are deleted."""
        self.pruning.start()
        self.clock.pump([60, DAY, DAY])
        self.assertEqual(
            self.asked,
            [(day - OUTCOMES_KEPT, day - COUNTS_KEPT) for day in range(TODAY, TODAY + 3)],
        )

    def test_a_little_at_a_time(self) -> None:
        """While there is more it goes on after a pause, in which others write."""
        self.answers = [succeed(500), succeed(500), succeed(3)]
        self.pruning.start()
        self.clock.pump([60] + [0.5] * 20)
        self.assertEqual(len(self.asked), 4)

    def test_failure(self) -> None:
        """When the store is down it is tried again, and only what is not known is logged."""
        self.answers = [fail(StoreUnavailable("down")), fail(ValueError("c0ffee"))]
        self.pruning.start()
        self.clock.pump([60] + [60] * 25)
        self.assertEqual(len(self.asked), 3)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_stop(self) -> None:
        """After the stop nothing is asked, even if an answer comes then."""
        self.answers = [Deferred()]
        waits = self.answers[0]
        self.pruning.start()
        self.clock.advance(60)
        self.pruning.stop()
        waits.callback(500)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.pruning.stop()
