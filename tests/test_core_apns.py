"""The core scenarios against Apple (apns.md 7.5), reduced; `make soak` plays them in full size."""

from itertools import pairwise

from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes import frames
from bouncerd.fakes.apns import goaway, refuse
from bouncerd.fakes.exchange import Exchange
from bouncerd.fakes.rules import CONNECT, Match
from bouncerd.fakes.server import Connection
from bouncerd.fakes.steps import Close, Greet, Ignore, Settings, limit
from bouncerd.model import Device, Identity, Kind, Push
from tests.faults import LATE
from tests.in_memory import APP, ORG_ID, PHONE, USER, Daemon, result
from tests.scene import Scene
from tests.scenes import AppleScene


class CoreTests(SynchronousTestCase):
    """What a bouncer must get through, each with its own kind of trouble."""

    pushes = 500

    def finish(self, scene: Scene, **ends: int) -> None:
        """End it all; the pushes have come to these ends."""
        scene.stop()
        scene.judge()
        self.assertEqual(scene.totals(), ends)

    def feed(self, scene: Scene, count: int, each: int = 20, gap: float = 0.02) -> None:
        """Bring pushes in calls of twenty, fifty calls a second."""
        for _ in range(count // each):
            scene.send(each, server=scene.random.choice("abcde"))
            scene.clock.advance(gap)

    def test_1_goodbyes_at_random(self) -> None:
        """Two connections, GOAWAY(Shutdown) at random: all delivered, and none twice."""
        scene = AppleScene(token_mode=False, size=2)
        scene.front.on(Match(probability=0.01), goaway("Shutdown"), refuse(503, "Shutdown"))
        scene.start()
        scene.clock.advance(1.5)
        for _ in range(self.pushes // 100):
            self.feed(scene, 100)
            if scene.front.connections and scene.random.random() < 0.5:
                scene.front.connections[0].play(
                    (goaway("Shutdown"),), _whole(scene.front.connections[0])
                )
        # One push in a hundred costs a connection, and one a second is all that is opened.
        scene.clock.advance(20.0 + self.pushes / 30)
        self.assertGreater(len(scene.front.ledger.visits), 3)
        shown = {scene.identity(each) for each in scene.front.ledger.accepted()}
        self.assertEqual(len(scene.front.ledger.accepted()), len(shown))
        self.finish(scene, delivered=self.pushes)

    def test_2_limits_and_rejections(self) -> None:
        """Limit 1, 1000, 1, 1000 in a burst with 5 % rejections: no stall over a second."""
        scene = AppleScene(throttle=True, latency=(0.02, 0.08))
        scene.start()
        scene.clock.advance(1.0)
        rule = scene.front.on(Match(probability=0.05), refuse(400, "BadDeviceToken"))
        scene.send(self.pushes)
        for streams in (1, 1_000, 1, 1_000):
            scene.clock.advance(0.4)
            scene.front.tell(limit(streams))
        scene.clock.advance(self.pushes * 0.1)
        answered = [each.answered_at or 0.0 for each in scene.front.ledger.received]
        gaps = [later - earlier for earlier, later in pairwise(sorted(answered))]
        self.assertLess(max(gaps), 1.0)
        self.finish(scene, delivered=self.pushes - rule.used, gone=rule.used)

    def test_3_ten_bytes_of_window(self) -> None:
        """Windows of ten bytes for two seconds, then as usual: all delivered, few under way."""
        scene = AppleScene(token_mode=False)
        scene.start()
        scene.clock.advance(1.0)
        scene.front.tell(Settings(((frames.INITIAL_WINDOW_SIZE, 10),)))
        scene.clock.advance(0.5)
        scene.send(self.pushes // 5, message=scene.message(b"{" + b" " * 2_000 + b"}"))
        scene.clock.advance(2.0)
        self.assertLessEqual(scene.lane.in_flight, 2 * 65_535 // 2_000)
        scene.front.tell(Settings(((frames.INITIAL_WINDOW_SIZE, 65_535),)))
        scene.clock.advance(20.0)
        self.finish(scene, delivered=self.pushes // 5)

    def test_4_another_key(self) -> None:
        """A reload with another key in mid-burst: on no connection are two keys seen."""
        scene = AppleScene(size=2)
        scene.start()
        self.feed(scene, self.pushes // 2)
        scene.key_id = "KEY2"
        scene.adopt()
        self.feed(scene, self.pushes // 2)
        scene.clock.advance(10.0)
        seen: dict[int, set[str]] = {}
        for received in scene.front.ledger.received:
            seen.setdefault(received.connection, set()).add(received.headers()["authorization"])
        self.assertTrue(all(len(tokens) == 1 for tokens in seen.values()), seen)
        self.assertEqual(len(set.union(*seen.values())), 2)
        self.finish(scene, delivered=scene.accepted)

    def test_5_three_hours(self) -> None:
        """Three hours of traffic, connections of all ages: no 403, no 429, no token too old."""
        scene = AppleScene(size=3, max_age=2_900.0)
        scene.start()
        scene.clock.advance(scene.random.uniform(0, 2_000))
        until = scene.clock.seconds() + 3 * 3600
        while scene.clock.seconds() < until:
            scene.send(1)
            scene.clock.advance(scene.random.uniform(1.0, 60.0))
            if scene.random.random() < 0.02:
                scene.front.tell(goaway("Shutdown"))
        scene.clock.advance(10.0)
        self.assertLessEqual(set(scene.front.ledger.verdicts()), {"200", "ignored"})
        self.finish(scene, delivered=scene.accepted)

    def test_6_a_bad_certificate(self) -> None:
        """Told by GOAWAY: one alert, a connection a minute at most, and a bounded queue."""
        heard = EventLoggingObserver()
        globalLogPublisher.addObserver(heard)
        self.addCleanup(globalLogPublisher.removeObserver, heard)
        scene = AppleScene(token_mode=False, size=2, limit=50)
        refusal = (Greet(), goaway("BadCertificate", 0), Close("fin"))
        scene.front.on(Match(CONNECT), *refusal)
        scene.start()
        for _ in range(20):
            scene.admit("s", [scene.push() for _ in range(10)])
            scene.clock.advance(30.0)
            self.assertLessEqual(scene.lane.waiting, 50)
        self.assertLessEqual(len(scene.network.dials), 21)
        alerts = [event for event in heard if event.get("alert") == "credential-refused"]
        self.assertLessEqual(len(alerts), 1)
        self.assertEqual(scene.totals()["delivered"], 0)
        self.assertEqual(scene.forgotten, [])
        scene.stop()
        scene.judge()

    def test_7_times_of_410(self) -> None:
        """410 of before, at and after the registration: kept, deleted, deleted."""
        for offset, left in ((-1.0, 1), (0.0, 0), (+1.0, 0)):
            with self.subTest(offset=offset):
                daemon = Daemon()
                daemon.enrol()
                phone = _register(daemon)
                registered = daemon.clock.seconds()
                scene = AppleScene(token_mode=False)
                scene.start()
                scene.store = daemon.bouncer.forget
                since = round((registered + offset) * 1000)
                scene.front.on(Match(), refuse(410, "Unregistered", since))
                push = scene.push()
                scene.admit(ORG_ID, [Push(push.id, ORG_ID, phone, push.message, push.expires_at)])
                scene.clock.advance(5.0)
                found = result(daemon.store.find(ORG_ID, Identity(5, USER), None))
                self.assertEqual(len(found.devices), left)
                self.finish(scene, gone=1)

    def test_8_a_black_hole(self) -> None:
        """One of two connections swallows everything: all goes on the other, in due time."""
        scene = AppleScene(token_mode=False, size=2, answer_within=30.0)
        scene.excuses |= LATE
        scene.start()
        scene.clock.advance(2.0)
        deaf = scene.front.connections[0]
        deaf.play((Ignore(),), _whole(deaf))
        self.feed(scene, self.pushes)
        scene.clock.advance(31.0)
        self.assertEqual(scene.totals()["delivered"], self.pushes)
        twice = [identity for identity, heard in scene.heard.items() if len(heard) > 1]
        self.assertGreater(len(twice), 0)
        self.finish(scene, delivered=self.pushes)


def _whole(connection: Connection) -> Exchange:
    return Exchange(connection)


def _register(daemon: Daemon) -> Device:
    """Register a phone; return it as the store has it."""
    user = Identity(5, USER)
    server = result(daemon.store.server(ORG_ID))
    at = daemon.clock.seconds()
    result(daemon.store.register(server.id, user, Kind.APNS, PHONE, APP, at))
    (device,) = result(daemon.store.find(ORG_ID, user, None)).devices
    assert isinstance(device, Device)
    return device
