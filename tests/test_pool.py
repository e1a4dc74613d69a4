"""A few links to one provider: dialing, back-off, replacement, idleness."""

from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.link import Manners
from bouncerd.pool import Pool
from tests.http2_kit import a_request
from tests.memory import Ear, Server

APPLE = Manners(answer_within=30, quiet=15)
GOOGLE = Manners(answer_within=15, quiet=20, idle_close=180.0)


class Lane:
    """A lodger that counts."""

    pumped = 0
    without = 0

    def pump(self) -> None:
        """Count."""
        self.pumped += 1

    def no_link(self) -> None:
        """Count."""
        self.without += 1


class PoolTests(SynchronousTestCase):
    """A pool, a clock, and a server in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = Server(self.clock)
        self.lane = Lane()

    def pool(self, manners: Manners = APPLE, size: int = 2) -> Pool:
        """Start a pool."""

        def refusal(debug: bytes) -> str | None:
            return "BadCertificate" if b"BadCertificate" in debug else None

        pool = Pool("apns", self.server.connect, manners, size, self.clock, Random(1), refusal)
        pool.start(self.lane)
        return pool

    def pass_seconds(self, seconds: int) -> None:
        """Let time pass."""
        self.clock.pump([0.0, *([0.5] * (2 * seconds))])

    def test_dials_one_by_one(self) -> None:
        """The links of a pool are opened a second apart, not together."""
        pool = self.pool(size=3)
        self.pass_seconds(5)
        self.assertEqual(self.server.dials, [0.0, 1.0, 2.0])
        self.assertEqual((pool.state().ready, pool.state().why), (3, ""))

    def test_backs_off_while_refused(self) -> None:
        """A provider that is down is tried ever more seldom, then once a minute, until it works."""
        self.server.refusing = True
        pool = self.pool(size=1)
        self.pass_seconds(300)
        gaps = [b - a for a, b in zip(self.server.dials, self.server.dials[1:], strict=False)]
        self.assertTrue(all(gap >= 1.5 for gap in gaps), gaps)
        self.assertTrue(31 <= gaps[-1] <= 61.5, gaps)
        self.assertEqual(pool.state().why, "connection failed")
        self.assertFalse(pool.ready)
        self.server.refusing = False
        self.pass_seconds(62)
        self.assertTrue(pool.ready)

    def test_a_connection_without_answers_counts_as_a_failure(self) -> None:
        """A server that accepts and closes at once is not dialed in a tight loop."""
        self.pool(size=1)
        for _ in range(600):
            self.clock.advance(0.5)
            for connection in self.server.open:
                connection.lose()
        self.assertLess(len(self.server.dials), 18)

    def test_draining_link_is_replaced_while_it_finishes(self) -> None:
        """On GOAWAY the next link is up before the old one's promised answers are in."""
        pool = self.pool(size=1)
        self.pass_seconds(3)
        link, old, ear = pool.pick(), self.server.connections[0], Ear()
        assert link is not None
        link.send(ear, a_request())
        self.pass_seconds(0)
        old.say(old.peer.goaway(1, 0, b'{"reason":"Shutdown"}'))
        self.assertFalse(pool.ready)
        self.assertEqual(self.lane.without, 1)
        self.pass_seconds(1)
        self.assertTrue(pool.ready)
        self.assertIsNot(pool.pick(), link)
        old.answer_all()
        self.assertEqual(len(ear.endings), 1)

    def test_refused_credential_waits_minutes(self) -> None:
        """A GOAWAY that refuses the certificate is not retried every second."""
        pool = self.pool(size=1)
        for _ in range(600):
            for connection in self.server.open:
                if pool.ready:
                    connection.say(connection.peer.goaway(0, 0, b'{"reason":"BadCertificate"}'))
            self.clock.advance(0.5)
        self.assertLess(len(self.server.dials), 12)
        self.assertEqual(pool.state().why, "BadCertificate")

    def test_picks_the_link_with_most_room(self) -> None:
        """Pushes spread over links by what each still takes."""
        pool = self.pool(size=2)
        self.pass_seconds(2)
        first = pool.pick()
        assert first is not None
        first.send(Ear(), a_request())
        self.assertIsNot(pool.pick(), first)

    def test_idle_google_is_let_go_and_comes_back(self) -> None:
        """After three idle minutes nothing is kept, nor dialed; the next push brings it back."""
        pool = self.pool(GOOGLE, size=2)
        self.pass_seconds(190)
        self.assertEqual(self.server.open, [])
        dials = len(self.server.dials)
        self.pass_seconds(600)
        self.assertEqual(len(self.server.dials), dials)
        pool.wake()
        self.pass_seconds(2)
        self.assertTrue(pool.ready)

    def test_stop_waits_for_what_is_in_flight(self) -> None:
        """Stopping drains: the last answers come in, then every link is gone."""
        pool = self.pool(size=2)
        self.pass_seconds(3)
        link, ear = pool.pick(), Ear()
        assert link is not None
        link.send(ear, a_request())
        self.pass_seconds(0)
        stopped = pool.stop()
        self.pass_seconds(1)
        self.assertNoResult(stopped)
        self.server.answer_all()
        self.pass_seconds(1)
        self.successResultOf(stopped)
        self.assertEqual((len(ear.endings), self.server.open), (1, []))
        self.pass_seconds(100)
        self.assertEqual(len(self.server.dials), 2)

    def test_an_idle_link_is_not_replaced_while_others_work(self) -> None:
        """What few pushes leave unused is closed, and not opened again every three minutes."""
        pool = self.pool(GOOGLE, size=2)
        self.pass_seconds(3)
        for _ in range(60):
            link = pool.pick()
            assert link is not None
            link.send(Ear(), a_request())
            self.pass_seconds(1)
            self.server.answer_all()
            self.pass_seconds(19)
        self.assertLess(len(self.server.dials), 4)

    def test_a_good_link_does_not_hide_the_others_failures(self) -> None:
        """Where only one connection is let in, the second is not tried every second."""
        pool = self.pool(size=2)
        self.clock.advance(0.5)
        link = pool.pick()
        assert link is not None
        for _ in range(600):
            link.send(Ear(), a_request())
            self.clock.advance(0.5)
            self.server.answer_all()
            if not link.useful:
                pool.link_useful(link)
            for connection in self.server.open[1:]:
                connection.lose()
        self.assertLess(len(self.server.dials), 20)

    def test_a_refusal_is_what_is_told(self) -> None:
        """The page says what the provider dislikes, not that it closed the connection."""
        pool = self.pool(size=1)
        self.pass_seconds(1)
        connection = self.server.connections[0]
        connection.say(connection.peer.goaway(0, 0, b'{"reason":"BadCertificate"}'))
        connection.lose()
        self.pass_seconds(20)
        self.assertEqual((len(self.server.dials), pool.state().why), (1, "BadCertificate"))

    def test_why_is_of_now(self) -> None:
        """What the page tells is about the last connection, not about one long ago."""
        self.server.refusing = True
        pool = self.pool(GOOGLE, size=1)
        self.assertEqual(pool.state().why, "connecting")
        self.pass_seconds(1)
        self.assertEqual(pool.state().why, "connection failed")
        self.server.refusing = False
        self.pass_seconds(190)
        self.assertEqual((pool.ready, pool.state().why), (False, "idle"))

    def test_a_dial_that_comes_to_nothing(self) -> None:
        """A dial that hangs, or fails in an unforeseen way, is not the last."""
        connect, hung = self.server.connect, []

        def odd(factory: IProtocolFactory) -> "Deferred[IProtocol]":
            hung.append(self.clock.seconds())
            if len(hung) == 1:
                return Deferred()
            if len(hung) == 2:
                raise RuntimeError
            return connect(factory)

        self.server.connect = odd  # type: ignore[method-assign]
        pool = self.pool(size=1)
        self.pass_seconds(29)
        self.assertEqual(hung, [0.0])
        self.pass_seconds(10)
        self.assertTrue(pool.ready)

    def test_a_retired_pool_is_heard_of_no_more(self) -> None:
        """A pool whose work another has finishes what it began, and troubles nobody."""
        pool = self.pool(size=1)
        self.pass_seconds(1)
        link, ear = pool.pick(), Ear()
        assert link is not None
        link.send(ear, a_request())
        self.pass_seconds(0)
        pumped = self.lane.pumped
        retired = pool.retire()
        self.server.answer_all()
        self.pass_seconds(1)
        self.successResultOf(retired)
        self.assertEqual((len(ear.endings), self.server.open), (1, []))
        self.assertEqual((self.lane.pumped, self.lane.without), (pumped, 0))

    def test_pools_of_one_pace(self) -> None:
        """Two pools that take turns dial no faster than one would."""
        first = self.pool(size=3)
        second = Pool("apns", self.server.connect, APPLE, 3, self.clock, Random(1))
        second.follow(first)
        second.start(Lane())
        self.pass_seconds(10)
        self.assertEqual(self.server.dials, [float(n) for n in range(6)])

    def test_a_silent_name_server(self) -> None:
        """A dial that comes to nothing in time is a failure like any other."""
        dials: list[float] = []

        def connect(_factory: IProtocolFactory) -> "Deferred[IProtocol]":
            dials.append(self.clock.seconds())
            return Deferred(lambda d: d.errback(ConnectingCancelledError(None)))

        pool = Pool("apns", connect, APPLE, 1, self.clock, Random(1))
        pool.start(self.lane)
        self.pass_seconds(31)
        self.assertEqual(pool.state().why, "no connection in time")
        self.pass_seconds(300)
        self.assertLess(len(dials), 12)
