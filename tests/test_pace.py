"""How fast pushes go: the rate, what slows it down, and how it comes back."""

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.pace import OUTAGE, SLOWEST, TOGETHER, TRICKLE, Pace, StreamCap

RATE = 8_000.0


class RateTests(SynchronousTestCase):
    """The ordinary case."""

    def setUp(self) -> None:
        self.pace = Pace(RATE, 60.0)

    def spend(self, now: float) -> int:
        """Send what may go."""
        count = self.pace.allowed(now)
        self.pace.spend(count, "s1")
        return count

    def test_a_second_at_once_then_the_rate(self) -> None:
        """A burst goes at once up to a second's worth; what follows goes at the rate."""
        self.assertEqual(self.spend(0.0), 8_000)
        self.assertEqual(self.spend(0.0), 0)
        self.assertAlmostEqual(self.pace.wait(0.0), 0.01)
        self.assertEqual(self.spend(0.5), 4_000)
        self.assertEqual(self.spend(100.0), 8_000)

    def test_a_clock_that_stands(self) -> None:
        """Time that does not pass brings nothing."""
        self.spend(5.0)
        self.assertEqual(self.spend(4.0), 0)

    def test_three_devices_slow_it_down(self) -> None:
        """429 for three devices within ten seconds: nothing as long as Google says, then half."""
        for second in range(60):
            self.pace.allowed(float(second))
            self.pace.spend(100, "s1")
        self.assertEqual(self.pace.throttled("s1", "a", 60.0, 60.0), 0.0)
        self.assertEqual(self.pace.throttled("s1", "b", 90.0, 61.0), 0.0)
        self.assertEqual(self.pace.throttled("s1", "b", 60.0, 62.0), 0.0)
        self.assertEqual(self.pace.throttled("s1", "c", 10.0, 63.0), 90.0)
        slow = self.pace.rate_at(63.0 + 90.0)
        self.assertEqual(slow, 50.0)  # it had been 100 a second
        self.assertAlmostEqual(self.pace.rate_at(163.0), slow * 1.1)
        self.assertEqual(self.pace.rate_at(163.0 + 600.0), RATE)

    def test_devices_apart_do_not(self) -> None:
        """The same three over a longer time are three devices, and no more."""
        for number, device in enumerate("abcdef"):
            now = number * TOGETHER
            self.assertEqual(self.pace.throttled("s1", device, 60.0, now), 0.0)
        self.assertEqual(self.pace.rate_at(100.0), RATE)

    def test_one_tenants_devices_do_not(self) -> None:
        """A tenant who floods his own phones does not slow down those whose pushes go."""
        self.pace.throttled("evil", "a", 60.0, 0.0)
        for server in ("s1", "s2", "s3"):
            self.pace.succeeded(server, 1.0)
        for number in range(50):
            self.assertEqual(self.pace.throttled("evil", f"d{number}", 60.0, 2.0), 0.0)

    def test_one_tenants_devices_all_at_once_do_not(self) -> None:
        """Nor if all of them are refused before anybody else can be served."""
        self.pace.allowed(0.0)
        for server in ("s1", "s2", "s3"):
            self.pace.spend(1, server)
        self.pace.allowed(60.0)
        for second in range(9):
            for device in "abcd":
                now = 60.0 + second
                self.assertEqual(self.pace.throttled("evil", device, 60.0, now), 0.0)
        self.pace.throttled("evil2", "e", 60.0, 80.0)  # nor two of them, in one moment
        for device in "abcd":
            self.assertEqual(self.pace.throttled("evil", device, 60.0, 80.0), 0.0)

    def test_two_servers_where_nobody_is_served_are_general(self) -> None:
        """Most of those that have tried since are refused: it is the project."""
        for server in ("s1", "s2", "s3", "s4", "s5"):
            self.pace.spend(1, server)
        self.pace.throttled("s1", "a", 60.0, 1.0)
        self.pace.throttled("s2", "b", 60.0, 1.5)
        self.assertEqual(self.pace.throttled("s1", "c", 60.0, 2.5), 60.0)

    def test_who_sent_long_ago_is_forgotten(self) -> None:
        """Then one server is all there is."""
        self.pace.allowed(0.0)
        self.pace.spend(1, "s2")
        self.pace.allowed(60.0)
        self.pace.allowed(200.0)
        for device in "ab":
            self.pace.throttled("s1", device, 60.0, 200.0)
        self.assertEqual(self.pace.throttled("s1", "c", 60.0, 200.0), 60.0)

    def test_while_most_pushes_go_they_do_not(self) -> None:
        """Some hot devices among many that are served are their own affair."""
        self.pace.throttled("s1", "a", 60.0, 0.0)
        for _ in range(50):
            self.pace.succeeded("s1", 1.0)
        for device in "bcdef":
            self.assertEqual(self.pace.throttled("s1", device, 60.0, 2.0), 0.0)

    def test_there_is_a_least_rate(self) -> None:
        """However often it is halved, it asks now and then."""
        for round_ in range(30):
            for device in "abc":
                self.pace.throttled("s1", device, 10.0, round_ * 20.0)
        self.assertEqual(self.pace.rate_at(29 * 20.0 + 10.0), SLOWEST)

    def test_memory_is_bounded(self) -> None:
        """However many devices and servers meet it."""
        self.pace.throttled("evil", "d", 60.0, 0.0)
        for number in range(5_000):
            self.pace.succeeded(f"s{number}", 0.0)
            self.pace.spend(0, f"s{number}")
            self.pace.throttled("evil", f"d{number}", 60.0, 0.0)
        watch = self.pace._watch
        assert watch is not None
        self.assertLessEqual(len(watch.devices), 1_000)
        self.assertLessEqual(len(watch.served), 1_000)
        self.assertLessEqual(len(self.pace._lately), 1_000)


class OutageTests(SynchronousTestCase):
    """The provider is out, and comes back."""

    def test_ramp(self) -> None:
        """After an outage the rate goes from a trickle to all of it, over a minute."""
        pace = Pace(RATE, 60.0)
        pace.failed(0.0)
        self.assertEqual(pace.rate_at(OUTAGE - 1), RATE)
        self.assertAlmostEqual(pace.rate_at(OUTAGE), RATE * TRICKLE)
        for second in range(600):
            pace.failed(float(second))
        pace.succeeded("s1", 600.0)
        self.assertAlmostEqual(pace.rate_at(600.0), RATE * TRICKLE)
        self.assertAlmostEqual(pace.rate_at(630.0), RATE / 2)
        self.assertEqual(pace.rate_at(660.0), RATE)

    def test_failures_between_successes_are_no_outage(self) -> None:
        """Some answers of 503 among many that are not slow nothing down."""
        pace = Pace(RATE, 60.0)
        for second in range(100):
            pace.failed(float(second))
            pace.succeeded("s1", second + 0.5)
        self.assertEqual(pace.rate_at(100.0), RATE)

    def test_nobody_tried_for_a_while(self) -> None:
        """A failure of an hour ago says nothing of now."""
        pace = Pace(RATE, 60.0)
        pace.failed(0.0)
        self.assertTrue(pace.out(30.0))
        self.assertFalse(pace.out(3_600.0))
        pace.failed(3_600.0)
        self.assertFalse(pace.out(3_605.0))


class StreamCapTests(SynchronousTestCase):
    """Fewer streams, after a server complained."""

    def test_lowered_and_lifted(self) -> None:
        """Three quarters of what was too much, then more each minute, at last no cap."""
        cap = StreamCap()
        cap.lower(100, 0.0)
        self.assertEqual((cap.most(0.0), cap.most(60.0)), (75, 82))
        self.assertIsNone(cap.most(3_600.0))
        self.assertFalse(cap.lowered)

    def test_one_is_the_least(self) -> None:
        """It never stops everything."""
        cap = StreamCap()
        cap.lower(0, 0.0)
        self.assertEqual(cap.most(0.0), 1)
