"""Breakers: when an app's pushes stop being tried, and whose fault it is."""

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.breaker import FIRST_PROBE, IN_A_ROW, LONGEST_PROBE, Breakers

APP, OTHER = "org.example.app", "org.other"


class BreakerTests(SynchronousTestCase):
    """One credential, a few apps."""

    def setUp(self) -> None:
        self.breakers = Breakers(most_apps=5)

    def refused(self, times: int = IN_A_ROW, server: str = "s1") -> None:
        """Note refusals."""
        for _ in range(times):
            self.breakers.refused(APP, server, 0.0)

    def test_some_refusals_open_nothing(self) -> None:
        """One odd device, or a few, does not stop an app."""
        self.refused(IN_A_ROW - 1)
        self.assertEqual(self.breakers.wait(APP, 0.0), 0.0)
        self.breakers.succeeded(APP, "s1")
        self.refused(IN_A_ROW - 1)
        self.assertEqual(self.breakers.wait(APP, 0.0), 0.0)

    def test_open_lets_one_probe_through(self) -> None:
        """While it is open one push a minute asks whether the operator has acted."""
        self.refused()
        self.assertEqual(self.breakers.wait(APP, 10.0), FIRST_PROBE - 10.0)
        self.assertEqual(self.breakers.wait(OTHER, 10.0), 0.0)
        self.assertEqual(self.breakers.wait(APP, FIRST_PROBE), 0.0)
        self.assertEqual(self.breakers.wait(APP, FIRST_PROBE), FIRST_PROBE)
        self.breakers.succeeded(APP, "s1")
        self.assertEqual(self.breakers.wait(APP, FIRST_PROBE), 0.0)

    def test_probes_get_rarer(self) -> None:
        """The longer it lasts the more seldom, every quarter of an hour at last."""
        self.refused(IN_A_ROW + 1)
        self.assertEqual(self.breakers.wait(APP, 0.0), 2 * FIRST_PROBE)
        self.refused(50)
        self.assertEqual(self.breakers.wait(APP, 0.0), LONGEST_PROBE)

    def test_one_servers_refusals_open_nothing_for_others(self) -> None:
        """Where others have succeeded it may have registered what no credential can serve."""
        self.breakers.succeeded(APP, "s1")
        self.refused(50, "evil")
        self.assertEqual((self.breakers.wait(APP, 0.0), self.breakers.open), (0.0, set()))
        self.refused(1, "s1")
        self.assertGreater(self.breakers.wait(APP, 0.0), 0.0)
        self.breakers.succeeded(APP, "s2")
        self.refused(50, "evil")
        self.assertEqual(self.breakers.wait(APP, 0.0), 0.0)

    def test_the_only_server(self) -> None:
        """Where nobody else succeeded what it meets is the app's."""
        self.breakers.succeeded(APP, "s1")
        self.refused()
        self.assertGreater(self.breakers.wait(APP, 0.0), 0.0)

    def test_a_strangers_app_is_not_the_credentials_fault(self) -> None:
        """Where others succeed, an app that never did is its tenant's invention."""
        self.assertTrue(self.breakers.is_the_credentials(OTHER))
        self.breakers.succeeded(APP, "s1")
        self.assertFalse(self.breakers.is_the_credentials(OTHER))
        self.assertTrue(self.breakers.is_the_credentials(APP))

    def test_inventions_do_not_push_out_real_apps(self) -> None:
        """However many apps tenants invent, those that work stay known, and memory is bounded."""
        self.breakers.succeeded(APP, "s1")
        for number in range(1_000):
            self.breakers.refused(f"invented.{number}", "s1", 0.0)
        self.assertLessEqual(len(self.breakers._apps), 5)
        self.assertFalse(self.breakers.is_the_credentials("invented.1"))
        self.assertTrue(self.breakers.is_the_credentials(APP))
