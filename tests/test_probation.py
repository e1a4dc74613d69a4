"""Who gets one push in flight, and for how long; devices to be left alone; what is said."""

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.hot import PROBE_WITHIN, HotDevices
from bouncerd.probation import Probation
from bouncerd.seldom import ALERT_EVERY, Seldom


class ProbationTests(SynchronousTestCase):
    """Servers by their tokens."""

    def setUp(self) -> None:
        self.probation = Probation(most_servers=50)

    def judged(self, server: str, results: str) -> None:
        """Note results: + for a good token, - for a bad one."""
        for result in results:
            self.probation.judged(server, bad=result == "-")

    def test_mostly_bad(self) -> None:
        """A server all of whose tokens are bad is put on probation after some fifteen."""
        self.judged("junk", "-" * 10)
        self.assertFalse(self.probation.on("junk"))
        self.judged("junk", "-" * 6)
        self.assertTrue(self.probation.on("junk"))
        self.assertEqual(len(self.probation), 1)

    def test_some_bad_are_everyday(self) -> None:
        """A server of whose tokens every third is bad is left alone."""
        self.judged("s1", "+-+" * 100)
        self.assertFalse(self.probation.on("s1"))

    def test_it_ends(self) -> None:
        """When most are good again, in some twenty pushes."""
        self.judged("s1", "-" * 200)
        self.judged("s1", "+" * 16)
        self.assertFalse(self.probation.on("s1"))

    def test_nothing_is_kept_of_the_good(self) -> None:
        """Only servers with bad tokens take memory, and not for ever."""
        self.judged("s1", "+" * 10)
        self.assertEqual(len(self.probation._scores), 0)
        self.judged("s1", "-" + "+" * 20)
        self.assertEqual(len(self.probation._scores), 0)

    def test_bounded(self) -> None:
        """However many servers there are with bad tokens; the worst are remembered."""
        self.judged("junk", "-" * 20)
        for number in range(1_000):
            self.judged(f"s{number}", "-")
        self.assertTrue(self.probation.on("junk"))
        self.assertEqual(len(self.probation._scores), 50)
        for number in range(1_000):
            self.judged(f"s{number}", "-" * 20)
        self.assertEqual(len(self.probation), 50)


class HotDeviceTests(SynchronousTestCase):
    """Devices that get too much."""

    def setUp(self) -> None:
        self.hot = HotDevices(longest=600.0, most=10)

    def test_others_of_the_device_wait(self) -> None:
        """Until its time is up; then one goes, and the others wait for what becomes of it."""
        self.assertEqual(self.hot.heated("a", "s1", 30.0, 0.0), 30.0)
        self.assertEqual(
            (self.hot.wait("a", "s1", 10.0), self.hot.wait("b", "s1", 10.0)), (20.0, 0.0)
        )
        self.assertEqual(self.hot.wait("a", "s1", 30.0), 0.0)
        self.assertEqual(self.hot.wait("a", "s1", 30.0), PROBE_WITHIN)
        self.hot.cooled("a", "s1")
        self.assertEqual((self.hot.wait("a", "s1", 31.0), len(self.hot)), (0.0, 0))

    def test_longer_each_time(self) -> None:
        """But not for pushes that were under way together; ten minutes at most."""
        self.hot.heated("a", "s1", 30.0, 0.0)
        self.assertEqual(self.hot.heated("a", "s1", 30.0, 0.1), 30.0)
        now, waits = 0.0, []
        for _ in range(7):
            now += self.hot.wait("a", "s1", now) + PROBE_WITHIN
            self.hot.wait("a", "s1", now - PROBE_WITHIN)
            waits.append(self.hot.heated("a", "s1", 30.0, now))
        self.assertEqual(waits, [60.0, 120.0, 240.0, 480.0, 600.0, 600.0, 600.0])

    def test_servers_are_told_apart(self) -> None:
        """One that floods a phone does not hold up what others send there."""
        self.hot.heated("a", "flood", 30.0, 0.0)
        self.assertEqual((self.hot.wait("a", "flood", 1.0), self.hot.wait("a", "s1", 1.0)), (29, 0))
        self.hot.cooled("a", "s1")
        self.assertEqual(self.hot.wait("a", "flood", 1.0), 29.0)
        self.hot.heated("a", "s1", 30.0, 10.0)
        self.hot.cooled("a", "flood")
        self.assertEqual(
            (self.hot.wait("a", "flood", 11.0), self.hot.wait("a", "s1", 11.0)), (0, 29)
        )

    def test_bounded(self) -> None:
        """However many devices there are, or servers that flood one."""
        for number in range(100):
            self.hot.heated(f"t{number}", "s1", 30.0, 0.0)
            self.hot.heated("a", f"s{number}", 30.0, 0.0)
        self.assertEqual(len(self.hot), 10)
        self.assertEqual(len(self.hot._known["a"]), 8)
        self.assertEqual(self.hot.wait("a", "another", 0.0), 30.0)


class SeldomTests(SynchronousTestCase):
    """What an operator is told."""

    def test_once_in_ten_minutes(self) -> None:
        """Each subject by itself, and a bounded number of subjects."""
        seldom = Seldom()
        self.assertTrue(seldom.due("a", 0.0))
        self.assertFalse(seldom.due("a", ALERT_EVERY - 1))
        self.assertTrue(seldom.due("b", 1.0))
        self.assertTrue(seldom.due("a", ALERT_EVERY))
        for number in range(1_000):
            seldom.due(str(number), 0.0)
        self.assertLessEqual(len(seldom._said), 100)
