"""What waits for the operator goes out soon when he has acted, and not before."""

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.link import Manners
from bouncerd.patience import APNS_PATIENCE
from bouncerd.pool import Pool
from tests.lane_kit import LaneKit
from tests.memory import Server, SimpleProvider

MANNERS = Manners(answer_within=30, quiet=15)


class OperatorTests(SynchronousTestCase):
    """A credential that was refused, and is mended."""

    def setUp(self) -> None:
        self.kit = LaneKit(keep_for=3600.0)
        self.kit.start()

    def refuse(self, seconds: int) -> None:
        """Refuse whatever comes, for so long."""
        for _ in range(seconds):
            self.kit.server.answer_all(403)
            self.kit.clock.advance(1.0)

    def reload(self) -> Server:
        """Bring a new credential, to another server; return that."""
        server = Server(self.kit.clock)
        pool = Pool("apns", server.connect, MANNERS, 1, self.kit.clock, Random(7))
        self.kit.lane.adopt(SimpleProvider(), pool, APNS_PATIENCE).retire()
        return server

    def test_it_was_mended_at_the_provider(self) -> None:
        """The probe succeeds, and the others follow within seconds, not when their rests are up."""
        self.kit.admit(30)
        self.refuse(400)
        self.assertEqual(self.kit.ends(), {})
        seconds = 0
        while not self.kit.server.answer_all() and seconds < 1_000:
            self.kit.clock.advance(1.0)
            seconds += 1
        for _ in range(16):
            self.kit.clock.advance(1.0)
            self.kit.server.answer_all()
        self.assertEqual(self.kit.ends(), {"delivered": 30})

    def test_a_reload(self) -> None:
        """With a new key all that was refused is tried within seconds."""
        self.kit.admit(30)
        self.refuse(400)
        mended = self.reload()
        for _ in range(16):
            self.kit.clock.advance(1.0)
            mended.answer_all()
        self.assertEqual(self.kit.ends(), {"delivered": 30})

    def test_others_rests_stay(self) -> None:
        """What its provider asked to come later does not come sooner for a reload."""
        self.kit.admit(3)
        self.kit.server.answer_all(503)
        mended = self.reload()
        for _ in range(8):
            self.kit.clock.advance(1.0)
            self.assertEqual(mended.answer_all(), 0)
        self.kit.clock.pump([1.0] * 20)
        self.assertEqual(mended.answer_all(), 3)
