"""The core scenarios against Google (fcm.md 7.4), reduced; `make soak` plays them in full size."""

from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes import google_errors as google
from bouncerd.fakes.fcm import NO_LAST_STREAM
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import GoAway, Wait
from bouncerd.model import Identity, Kind, Push
from tests.in_memory import ANDROID, ORG_ID, USER, Daemon, result
from tests.scene import Scene
from tests.scenes import GoogleScene
from tests.test_fault_matrix_fcm import TokenScene


class CoreTests(SynchronousTestCase):
    """What a bouncer must get through, each with its own kind of trouble."""

    pushes = 500

    def finish(self, scene: Scene, **ends: int) -> None:
        """End it all; the pushes have come to these ends."""
        scene.stop()
        scene.judge()
        self.assertEqual(scene.totals(), ends)

    def test_1_hourly_goodbyes(self) -> None:
        """Four connections that say goodbye every two seconds, as Google does each hour."""
        scene = GoogleScene(size=4)
        scene.start()
        scene.clock.advance(4.0)
        per_second = max(self.pushes // 20, 1)
        for second in range(20):
            if second % 2:
                farewell = (GoAway(NO_LAST_STREAM, probe=False), Wait(0.3), GoAway())
                scene.front.tell(*farewell)
            for _ in range(4):
                scene.send(per_second // 4, server=scene.random.choice("abc"))
                scene.clock.advance(0.25)
        scene.clock.advance(60.0)
        self.assertEqual(len(scene.front.ledger.accepted()), scene.accepted)
        self.assertGreater(len(scene.front.ledger.visits), 8)
        self.finish(scene, delivered=scene.accepted)

    def test_2_a_token_that_expires(self) -> None:
        """Tokens live for 60 seconds: each is replaced in time, and no 401 is ever seen."""
        scene = TokenScene()
        scene.tokens.expires_in = 60
        scene.start()
        for _ in range(self.pushes // 10):
            scene.send(10)
            scene.clock.advance(1.5)
        scene.clock.advance(20.0)
        self.assertEqual(set(scene.front.ledger.verdicts()), {"200"})
        self.assertLessEqual(len(scene.tokens.calls), 2 + scene.clock.seconds() / 30)
        self.finish(scene, delivered=scene.accepted)

    def test_3_a_wrong_project(self) -> None:
        """All 404 without a code: nothing deleted, one alert, and hardly anything is sent."""
        heard = EventLoggingObserver()
        globalLogPublisher.addObserver(heard)
        self.addCleanup(globalLogPublisher.removeObserver, heard)
        scene = GoogleScene()
        scene.front.on(Match(), google.NO_PROJECT)
        scene.start()
        for _ in range(20):
            scene.send(self.pushes // 20)
            scene.clock.advance(10.0)
        alerts = [event for event in heard if event.get("alert") == "credential-refused"]
        self.assertEqual((scene.forgotten, len(alerts)), ([], 1))
        self.assertLess(scene.front.ledger.seen, 10 + self.pushes // 20 + 30)
        scene.clock.advance(700.0)
        self.finish(scene, expired=scene.accepted)

    def test_4_dead_tokens(self) -> None:
        """5 % unregistered, 1 % bad tokens, 1 % bad payloads: the first two are deleted."""
        scene = GoogleScene()
        unregistered = scene.front.on(Match(probability=0.05), google.UNREGISTERED)
        bad = scene.front.on(Match(probability=0.01), google.INVALID_TOKEN)
        payload = scene.front.on(Match(probability=0.01), google.INVALID_ARGUMENT)
        scene.start()
        scene.clock.advance(1.0)
        scene.send(self.pushes)
        scene.clock.advance(30.0)
        gone = unregistered.used + bad.used
        self.assertEqual(len(scene.forgotten), gone)
        rest = self.pushes - gone - payload.used
        self.finish(scene, delivered=rest, gone=gone, refused=payload.used)

    def test_5_a_quota(self) -> None:
        """A quota a minute, and five times as many messages: all delivered by minute six or so."""
        scene = GoogleScene()
        scene.front.quota = self.pushes
        scene.start()
        scene.clock.advance(1.0)
        pushes = [scene.push(lasts=590.0) for _ in range(5 * self.pushes)]
        self.assertIsNotNone(scene.admit("s", pushes))
        scene.clock.advance(420.0)
        self.assertEqual(scene.lane.waiting, 0)
        self.finish(scene, delivered=5 * self.pushes)

    def test_6_ten_minutes_of_503(self) -> None:
        """Out for ten minutes: the queue is bounded, what is too old ends, and nobody is rushed."""
        scene = GoogleScene(limit=300)
        scene.front.on(Match(), google.UNAVAILABLE)
        scene.start()
        for _ in range(60):
            scene.admit("s", [scene.push(lasts=120.0) for _ in range(20)])
            scene.clock.advance(10.0)
            self.assertLessEqual(scene.lane.waiting, 300)
        scene.front.rules.clear()
        began = scene.clock.seconds()
        for _ in range(60):
            scene.admit("s", [scene.push() for _ in range(5)])
            scene.clock.advance(5.0)
        accepted = [each.answered_at or 0.0 for each in scene.front.ledger.accepted()]
        self.assertTrue(accepted and accepted[0] < began + 130.0, accepted[:1])
        scene.clock.advance(60.0)
        ends = scene.totals()
        self.assertEqual(set(ends), {"delivered", "expired"})
        self.finish(scene, **ends)

    def test_7_registered_meanwhile(self) -> None:
        """A phone that registers while its message is under way stays, dead or not."""
        for again, left in ((False, 0), (True, 1)):
            with self.subTest(again=again):
                daemon = Daemon(at=1_800_000_000.0)
                daemon.enrol()
                user = Identity(5, USER)
                server = result(daemon.store.server(ORG_ID))
                register = (server.id, user, Kind.FCM, ANDROID, None)
                result(daemon.store.register(*register, daemon.clock.seconds() - 5.0))
                (phone,) = result(daemon.store.find(ORG_ID, user, None)).devices
                scene = GoogleScene()
                scene.store = daemon.bouncer.forget
                scene.front.on(Match(), Wait(2.0), google.UNREGISTERED)
                scene.start()
                scene.clock.advance(1.0)
                push = scene.push()
                scene.admit(ORG_ID, [Push(push.id, ORG_ID, phone, push.message, push.expires_at)])
                scene.clock.advance(1.0)
                if again:
                    result(daemon.store.register(*register, scene.now()))
                scene.clock.advance(5.0)
                found = result(daemon.store.find(ORG_ID, user, None))
                self.assertEqual(len(found.devices), left)
                scene.stop()
                self.assertEqual(scene.totals(), {"gone": 1})
