"""What Apple may do to connections and credentials, where it takes more than one push to see."""

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes import frames, steps
from bouncerd.fakes.apns import refuse
from bouncerd.fakes.exchange import Exchange
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Credit, Reset, Settings, Withhold, limit
from tests.faults import LATE, STALE
from tests.matrix import shows
from tests.scene import Scene
from tests.scenes import KNOWN, AppleScene

WIDE = Settings(((frames.INITIAL_WINDOW_SIZE, 10**6),))


class ConnectionTests(SynchronousTestCase):
    """What takes more than one push to see."""

    def finish(self, scene: Scene, **ends: int) -> None:
        """End it all; the pushes have come to these ends."""
        scene.stop()
        scene.judge()
        self.assertEqual(scene.totals(), ends)

    @shows("S2")
    def test_refused_above(self) -> None:
        """All streams above the third are refused: new connections carry three each, paced."""
        scene = AppleScene(token_mode=False)
        scene.front.on(Match(above=3, connection=1), Reset(frames.REFUSED_STREAM))
        scene.start()
        scene.clock.advance(1.0)
        scene.send(20)
        scene.clock.advance(60.0)
        refused = scene.front.ledger.verdicts()["reset 7"]
        self.assertTrue(17 <= refused <= 17 * 80, refused)  # no hot loop
        scene.front.rules.clear()
        scene.clock.advance(30.0)
        self.finish(scene, delivered=20)

    @shows("C4")
    def test_refused_connections(self) -> None:
        """Connections that are refused are tried again, ever slower, and never twice a second."""
        scene = AppleScene()
        scene.network.weather = "refused"
        scene.start()
        scene.send(5)
        scene.clock.advance(300.0)
        self.assertTrue(8 <= len(scene.network.dials) <= 20, len(scene.network.dials))
        self.assertTrue(all(call.settled.called for call in scene.calls))
        scene.network.weather = "fine"
        scene.clock.advance(70.0)
        self.finish(scene, delivered=5)

    @shows("C4")
    def test_late_accept(self) -> None:
        """A server that accepts after some seconds is waited for."""
        scene = AppleScene()
        scene.network.weather = "slow"
        scene.start()
        scene.send(5)
        scene.clock.advance(8.0)
        self.assertEqual(len(scene.network.dials), 1)
        self.finish(scene, delivered=5)

    @shows("C4")
    def test_counted_connections(self) -> None:
        """Eight links are opened a second apart, which a server may insist on."""
        scene = AppleScene(size=8)
        scene.front.door.most_per_second = 1
        scene.start()
        scene.clock.advance(12.0)
        door = scene.front.door
        self.assertEqual((door.busiest_second, door.turned_away), (1, 0))
        self.assertEqual(len(scene.front.connections), 8)
        self.finish(scene)

    @shows("C4")
    def test_turned_away(self) -> None:
        """A server that turns everybody away is not stormed, and served when it opens."""
        scene = AppleScene(size=4)
        scene.front.door.most_per_second = 0
        scene.start()
        scene.send(3)
        scene.clock.advance(120.0)
        self.assertTrue(5 <= scene.front.door.turned_away <= 12, scene.front.door.turned_away)
        scene.front.door.most_per_second = None
        scene.clock.advance(70.0)
        self.finish(scene, delivered=3)

    @shows("W1")
    def test_connection_window(self) -> None:
        """The connection's window is spent while the streams' are wide: no more are begun."""
        scene = AppleScene(token_mode=False)
        scene.start()
        scene.clock.advance(1.0)
        scene.front.tell(WIDE, Withhold())
        scene.clock.advance(1.0)
        scene.send(40, message=scene.message(b"{" + b" " * 4_000 + b"}"))
        scene.clock.advance(2.0)
        self.assertEqual(len(scene.front.ledger.accepted()), 16)
        # One more is begun when nothing else is under way: a window below one body may stay so.
        self.assertEqual(scene.front.connections[0].visit.streams, 17)
        scene.front.tell(Credit())
        scene.clock.advance(3.0)
        self.finish(scene, delivered=40)

    @shows("W1", "S1")
    def test_reserved_and_never_sent(self) -> None:
        """What was reserved of the connection's window for bodies that never went is free again."""
        scene = AppleScene(token_mode=False)
        scene.start()
        scene.clock.advance(1.0)
        scene.front.tell(Settings(((frames.INITIAL_WINDOW_SIZE, 10),)))
        scene.clock.advance(0.2)
        for _ in range(30):
            scene.send(2, message=scene.message(b"{" + b" " * 4_000 + b"}"))
            scene.clock.advance(0.1)
            connection = scene.front.connections[0]
            for stream in range(1, 2 * connection.visit.streams, 2):
                connection.play((Reset(frames.REFUSED_STREAM),), Exchange(connection, stream))
        scene.front.tell(Settings(((frames.INITIAL_WINDOW_SIZE, 65_535),)), Withhold())
        scene.clock.advance(3.0)
        self.assertGreaterEqual(len(scene.front.ledger.accepted()), 16)
        scene.front.tell(Credit())
        scene.clock.advance(5.0)
        self.finish(scene, delivered=60)

    @shows("C3")
    def test_only_pings(self) -> None:
        """One of two connections answers nothing but PINGs: what hung there goes on the other."""
        scene = AppleScene(token_mode=False, size=2)
        scene.front.on(Match(connection=1))
        scene.start()
        scene.clock.advance(2.0)
        for _ in range(20):
            scene.send(2)
            scene.clock.advance(3.0)
        scene.clock.advance(40.0)
        self.assertIsNotNone(scene.front.ledger.visits[0].closed_at)
        self.finish(scene, delivered=40)

    @shows("C3")
    def test_only_pings_alone(self) -> None:
        """The only connection is left after three requests in vain; those are lost with it."""
        scene = AppleScene(token_mode=False)
        scene.front.on(Match(connection=1))
        scene.start()
        scene.clock.advance(1.0)
        for _ in range(4):
            scene.send(1)
            scene.clock.advance(10.0)
        scene.clock.advance(45.0)
        self.assertIsNotNone(scene.front.ledger.visits[0].closed_at)
        self.finish(scene, delivered=1, unknown=3)

    @shows("W2")
    def test_slow_reader(self) -> None:
        """A server that reads little by little gets little by little, and nothing is lost."""
        scene = AppleScene(token_mode=False, answer_within=120, quiet=200)
        scene.excuses |= LATE
        scene.start()
        scene.clock.advance(1.0)
        scene.front.tell(steps.Slow(20_000))
        scene.send(60, message=scene.message(b"{" + b" " * 4_000 + b"}"))
        scene.clock.advance(4.0)
        self.assertTrue(10 <= len(scene.front.ledger.accepted()) <= 25)
        scene.clock.advance(60.0)
        self.finish(scene, delivered=60)

    @shows("M1", "X2")
    def test_limits_in_a_burst(self) -> None:
        """A limit that falls and rises in mid-burst is obeyed; with 1000, a thousand go at once."""
        scene = AppleScene(token_mode=False, latency=(0.5, 0.6))
        scene.start()
        scene.clock.advance(1.0)
        scene.send(1_500, message=scene.message())
        scene.clock.advance(0.3)
        self.assertEqual(scene.front.connections[0].visit.most_streams, 1_000)
        for streams in (1, 5, 0, 1_000):
            scene.front.tell(limit(streams))
            scene.clock.advance(1.0)
        scene.clock.advance(4.0)
        self.finish(scene, delivered=1_500)


class CredentialTests(SynchronousTestCase):
    """What Apple may say of provider tokens (A1, A3)."""

    def begin(self) -> AppleScene:
        """Begin with a connection on which a push has gone through."""
        scene = AppleScene()
        scene.start()
        scene.send(1)
        scene.clock.advance(2.0)
        return scene

    @shows("A1")
    def test_clock(self) -> None:
        """Apple's clock is ahead for a minute: pushes wait, one alert's worth of tries, then go."""
        scene = self.begin()
        scene.excuses |= STALE
        scene.front.skew = 7_200.0
        scene.send(5)
        scene.clock.advance(60.0)
        refused = scene.front.ledger.verdicts()
        self.assertLessEqual(sum(refused.values()), 16, refused)
        scene.front.skew = 0.0
        scene.clock.advance(400.0)
        self.assertEqual(scene.totals(), {"delivered": 6})
        scene.stop()
        scene.judge()

    @shows("A3")
    def test_wedge(self) -> None:
        """A connection that answers 500 for ever after an expired token is left."""
        scene = self.begin()
        scene.excuses |= STALE
        scene.front.skew = 7_200.0
        scene.send(1)
        scene.clock.advance(0.5)
        scene.front.skew = 0.0
        scene.send(6)
        scene.clock.advance(200.0)
        self.assertEqual(scene.totals(), {"delivered": 8})
        scene.stop()
        scene.judge()

    @shows("A1")
    def test_unknown_key(self) -> None:
        """A revoked key: one try a minute, nothing deleted, and all goes when it is known again."""
        scene = self.begin()
        scene.front.bearers.revoke("KEY1")
        scene.send(5)
        scene.clock.advance(180.0)
        self.assertLessEqual(scene.front.ledger.seen, 40)
        self.assertEqual(scene.forgotten, [])
        scene.front.bearers.add(KNOWN)
        scene.clock.advance(300.0)
        self.assertEqual(scene.totals()["delivered"], 6)
        scene.stop()
        scene.judge()

    @shows("A1")
    def test_refused_credential(self) -> None:
        """What is wrong with the credential loses no push and deletes no phone."""
        for reason in ("InvalidProviderToken", "UnrelatedKeyIdInToken", "MissingProviderToken",
                       "BadEnvironmentKeyIdInToken", "ExpiredProviderToken"):  # fmt: skip
            with self.subTest(reason=reason):
                scene = self.begin()
                scene.front.on(Match(), refuse(403, reason), count=1)
                scene.send(1)
                scene.clock.advance(90.0)
                self.assertEqual((scene.totals(), scene.forgotten), ({"delivered": 2}, []))
                scene.stop()
                scene.judge()

    @shows("A1")
    def test_too_many_updates(self) -> None:
        """A connection that met TooManyProviderTokenUpdates is replaced."""
        scene = self.begin()
        scene.front.on(Match(connection=1), refuse(429, "TooManyProviderTokenUpdates"))
        scene.send(5)
        scene.clock.advance(30.0)
        self.assertEqual(scene.totals(), {"delivered": 6})
        self.assertEqual(len(scene.front.ledger.visits), 2)
        scene.stop()
        scene.judge()
