"""A bad day at Apple's, reduced; `make soak` plays it in full size over real TLS."""

from twisted.trial.unittest import SynchronousTestCase

from tests.faults import LATE
from tests.onslaught import SERVERS, onslaught
from tests.scenes import AppleScene


class OnslaughtTests(SynchronousTestCase):
    """Two connections, fifty servers, everything at once."""

    def test_nothing_is_lost(self) -> None:
        """Each push has its end; what was sent twice was cut off first."""
        scene = AppleScene(size=2)
        scene.excuses |= LATE
        scene.start()
        scene.clock.advance(2.0)
        for seconds in onslaught(scene, 2_000):
            scene.clock.advance(seconds)
        scene.stop()
        scene.judge()
        self.assertEqual(scene.accepted, 2_000)
        ends = scene.totals()
        self.assertEqual(set(ends) - {"unknown"}, {"delivered"})
        self.assertLess(ends["unknown"], 20)
        self.assertGreater(len(scene.front.ledger.visits), 8)
        self.assertGreater(len(SERVERS), 49)
