"""Sharing a limit: what the common log grants."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.leasing import HOLD, Ask, Entry, Lease, grant

NOW, WINDOW = 1_800_000_000.0, 60.0
MICRO = 1_000_000


class Log:
    """A common log, as the database keeps it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.now = NOW

    def ask(self, limit: int, wanted: int, ahead: int = 0, *back: tuple[int, int]) -> Lease:
        lease, self.entries = grant(
            self.entries, Ask("key", limit, wanted, ahead, back), self.now, WINDOW
        )
        return lease


class GrantTests(SynchronousTestCase):
    """One log, asked by several."""

    def setUp(self) -> None:
        self.log = Log()

    def granted(self, *asked: int | tuple[int, int]) -> tuple[int, int]:
        lease = self.log.ask(*asked)  # type: ignore[arg-type]
        return lease.granted, lease.ahead

    def test_slides(self) -> None:
        """What was granted counts for a window, and not a moment longer."""
        self.assertEqual(self.granted(10, 4), (4, 0))
        self.log.now += 30
        self.assertEqual(self.granted(10, 20), (6, 0))
        self.log.now += 29.9
        lease = self.log.ask(10, 1)
        self.assertEqual((lease.granted, lease.left), (0, 0))
        self.assertAlmostEqual(lease.retry_in, 0.1, places=4)
        self.assertAlmostEqual(lease.free_in, 30.1, places=4)
        self.log.now += 0.1
        self.assertEqual(self.granted(10, 20), (4, 0))
        self.log.now += 30
        self.assertEqual(self.granted(10, 20), (6, 0))

    def test_a_little_ahead(self) -> None:
        """While plenty is left, one part in a hundred is granted ahead, over all who ask."""
        self.assertEqual(self.granted(1000, 1, 7), (1, 7))
        self.assertEqual(self.granted(1000, 1, 7), (1, 3))
        self.assertEqual(self.granted(1000, 1, 7), (1, 0))

    def test_the_last_singly(self) -> None:
        """Of the last part in twenty nothing is granted ahead."""
        self.assertEqual(self.granted(1000, 945), (945, 0))
        self.assertEqual(self.granted(1000, 1, 10), (1, 4))
        self.assertEqual(self.granted(1000, 1, 10), (1, 0))
        self.assertEqual(self.log.ask(1000, 100).granted, 49)

    def test_small_limits(self) -> None:
        """A small limit is exact: it is granted singly."""
        self.assertEqual(self.granted(99, 1, 10), (1, 0))

    def test_back(self) -> None:
        """What is given back counts no more, and makes room ahead for others."""
        lease = self.log.ask(1000, 1, 10)
        self.assertEqual(self.granted(1000, 1, 10), (1, 0))
        self.assertEqual(self.log.ask(1000, 0, 0, (lease.entry, 6)).left, 1000 - 1 - 4 - 1)
        self.assertEqual(self.granted(1000, 1, 10), (1, 10))

    def test_back_too_much(self) -> None:
        """Nobody gives back more than he holds, twice, or what is not his."""
        lease = self.log.ask(1000, 5, 10)
        for _ in range(3):
            answer = self.log.ask(1000, 0, 0, (lease.entry, 10**9), (lease.entry + 7, 5))
            self.assertEqual(answer.left, 995)

    def test_a_dead_process(self) -> None:
        """What a dead process held is room ahead soon, and matters no longer than the window."""
        self.assertEqual(self.granted(1000, 1, 10), (1, 10))
        self.log.now += HOLD - 0.1
        self.assertEqual(self.granted(1000, 1, 10), (1, 0))
        self.log.now += 0.1
        self.assertEqual(self.granted(1000, 1, 10), (1, 10))
        self.log.now += WINDOW - HOLD
        self.assertEqual(self.log.ask(1000, 0).left, 1000 - 1 - 11)

    def test_same_moment(self) -> None:
        """Grants of one moment have names of their own."""
        one, two = self.log.ask(1000, 1, 5), self.log.ask(1000, 1, 5)
        self.assertNotEqual(one.entry, two.entry)
        self.log.ask(1000, 0, 0, (one.entry, 5))
        self.assertEqual(self.log.ask(1000, 0, 0, (two.entry, 5)).left, 998)

    def test_lower_limit(self) -> None:
        """A limit that the operator lowers holds at once, for what passed before it, too."""
        for _ in range(10):
            self.log.now += 1
            self.log.ask(10, 1)
        lease = self.log.ask(2, 1)
        self.assertEqual((lease.granted, lease.left), (0, 0))
        self.assertAlmostEqual(lease.retry_in, 8 + WINDOW - 9, places=0)
        self.assertEqual(self.log.ask(0, 1).granted, 0)
        self.assertEqual(self.log.ask(20, 1).left, 9)

    def test_nothing_allowed(self) -> None:
        """A limit of nothing refuses for a window at a time."""
        lease = self.log.ask(0, 1)
        self.assertEqual((lease.granted, lease.retry_in, lease.free_in), (0, WINDOW, WINDOW))
        self.assertEqual(self.log.entries, [])

    def test_another_clock(self) -> None:
        """After the database moved to a host whose clock is late, nobody waits for that."""
        self.log.ask(10, 10)
        self.log.now -= 3600
        lease = self.log.ask(10, 1)
        self.assertEqual(lease.granted, 0)
        self.assertLessEqual(lease.retry_in, WINDOW)
        self.log.now += WINDOW
        self.assertEqual(self.log.ask(10, 10).granted, 10)

    def test_short(self) -> None:
        """A log has a bounded length, whatever passes in a minute."""
        for _ in range(2000):
            self.log.now += 0.1
            self.log.ask(10**9, 1)
        self.assertLessEqual(len(self.log.entries), 242)
        taken = sum(entry.taken for entry in self.log.entries)
        self.assertTrue(600 <= taken <= 603, taken)  # a slice has a quarter of a second

    @given(
        st.integers(0, 300),
        st.lists(
            st.tuples(st.floats(0, 20), st.integers(0, 40), st.integers(0, 40), st.booleans()),
            max_size=50,
        ),
    )
    def test_never_more(self, limit: int, asked: list[tuple[float, int, int, bool]]) -> None:
        """Within any window of the database's time no more is granted than the limit."""
        log = Log()
        grants: list[tuple[float, int]] = []
        held: list[tuple[int, int]] = []
        for later, wanted, ahead, back in asked:
            log.now += later
            returned = [held.pop()] if back and held else []
            lease = log.ask(limit, wanted, ahead, *returned)
            grants.append((log.now, lease.granted + lease.ahead))
            if lease.ahead:
                held.append((lease.entry, 0))
            within = sum(count for at, count in grants if at > log.now - WINDOW)
            self.assertLessEqual(within, limit)
            self.assertTrue(lease.granted == wanted or lease.left == lease.ahead == 0)
            self.assertLessEqual(lease.ahead, limit // 100)
            # Nor less: what is left is told, but for what slices count a moment longer.
            older = sum(count for at, count in grants if at > log.now - WINDOW - 0.26)
            self.assertGreaterEqual(lease.left, limit - older)
            self.assertLessEqual(lease.left, limit - within)
