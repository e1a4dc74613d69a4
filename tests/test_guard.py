"""The mass-failure guard: when deletions stop, and when they do not."""

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.guard import LEAST, WINDOW, Guard

APP = "org.example.app"


class GuardTests(SynchronousTestCase):
    """What it takes for what is seen."""

    def setUp(self) -> None:
        self.guard = Guard()

    def seen(self, good: int, bad: int, server: str = "s1", now: float = 0.0) -> None:
        """Note results."""
        for _ in range(good):
            self.guard.note(APP, server, now, bad=False)
        for _ in range(bad):
            self.guard.note(APP, server, now, bad=True)

    def test_a_wrong_environment_stops_deletions(self) -> None:
        """Where most tokens of an app are refused, none of it is deleted; other apps are."""
        self.seen(10, LEAST)
        self.assertTrue(self.guard.trips(APP, 0.0))
        self.assertFalse(self.guard.trips("another", 0.0))

    def test_few_results_say_nothing(self) -> None:
        """A handful of dead tokens is deleted as ever."""
        self.seen(0, LEAST - 1)
        self.assertFalse(self.guard.trips(APP, 0.0))

    def test_half_is_not_most(self) -> None:
        """As many that go as fail: they are deleted."""
        self.seen(50, 50)
        self.assertFalse(self.guard.trips(APP, 0.0))

    def test_one_careless_server_stops_nothing_for_others(self) -> None:
        """A server with junk for tokens does not keep the others' dead tokens alive."""
        self.seen(0, 500, "junk")
        self.seen(20, 1, "s2")
        self.assertFalse(self.guard.trips(APP, 0.0))
        self.seen(0, 30, "s3")
        self.assertTrue(self.guard.trips(APP, 0.0))

    def test_two_careless_servers_among_many(self) -> None:
        """What the operator has set wrongly meets most servers."""
        self.seen(0, 500, "junk1")
        self.seen(0, 500, "junk2")
        for number in range(4):
            self.seen(5, 1, f"s{number}")
        self.assertFalse(self.guard.trips(APP, 0.0))

    def test_invented_apps_do_not_push_out_others(self) -> None:
        """However many apps a tenant invents, what is known of one that several use stays."""
        guard = Guard(most_apps=5)
        for number in range(LEAST):
            guard.note(APP, f"s{number % 2}", 0.0, bad=True)
        for number in range(100):
            guard.note(f"invented.{number}", "junk", 1.0, bad=True)
        self.assertTrue(guard.trips(APP, 1.0))

    def test_it_is_over_when_it_is_over(self) -> None:
        """Five minutes after the last failure deletions go on."""
        self.seen(0, 100)
        self.assertTrue(self.guard.trips(APP, WINDOW - 1))
        self.assertFalse(self.guard.trips(APP, WINDOW))
        self.seen(1, 0, now=WINDOW + 1)
        self.assertFalse(self.guard.trips(APP, WINDOW + 1))

    def test_memory_is_bounded(self) -> None:
        """However many apps and servers there are, or time passes."""
        guard = Guard(most_apps=3)
        for number in range(5_000):
            guard.note(f"app{number % 7}", f"s{number}", number * 1.0, bad=True)
        self.assertLessEqual(len(guard._slots), 3)
        for number in range(5_000):
            self.guard.note(APP, f"s{number}", 0.0, bad=True)
        self.assertLessEqual(len(self.guard._slots[APP][0].servers), 1_001)
        self.assertTrue(self.guard.trips(APP, 0.0))

    def test_memory_is_bounded_in_all(self) -> None:
        """A crowd of strangers with an app each and many servers; it is forgotten afterwards."""
        for number in range(60_000):
            self.guard.note(f"app{number % 500}", f"s{number}", number / 300, bad=True)
        self.assertLess(self.counts(), 21_000 + 10 * 500)
        for number in range(3_000):
            self.guard.note(APP, f"s{number}", 10_000.0 + number / 100, bad=True)
        self.assertTrue(self.guard.trips(APP, 10_030.0))
        self.assertGreater(len(self.guard._slots[APP][-1].servers), 900)
        self.assertLess(self.counts(), 4_000)

    def counts(self) -> int:
        """Return how much is remembered."""
        every = self.guard._slots.values()
        return sum(len(slot.servers) for slots in every for slot in slots)
