"""Health as a balancer and an operator ask for it: at once, and never red for a provider."""

import json
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.store.base import StoreUnavailable
from bouncerd.watch import ALERT_AFTER, LAG_EVERY, Lag, StoreWatch
from tests.observed import Observed


class HealthTests(SynchronousTestCase):
    """The pages."""

    def setUp(self) -> None:
        self.kit = Observed()
        self.kit.start()
        self.addCleanup(self.kit.observing.stop)

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Ask whether it is ready."""
        answer = self.kit.ask("/health/ready")
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        return answer.status, answer.json

    def states(self) -> dict[str, str]:
        """Return the providers' states."""
        return {name: told["state"] for name, told in self.ready()[1]["providers"].items()}

    def test_live(self) -> None:
        """A process that answers is alive, whatever else is wrong."""
        self.kit.observing.health.stopping = True
        answer = self.kit.ask("/health/live")
        self.assertEqual((answer.status, answer.json), (200, {"live": True}))

    def test_ready(self) -> None:
        """It is ready while it listens, its store answers and it does not stop."""
        status, told = self.ready()
        self.assertEqual((status, told["ready"], told["reasons"]), (200, True, []))
        self.assertEqual(self.states(), {"apns": "up", "fcm": "up"})

    def test_not_listening_yet(self) -> None:
        """Before it listens it is not ready."""
        self.kit.observing.health.listening = False
        self.assertEqual(self.ready()[1]["reasons"], ["not listening yet"])

    def test_stopping(self) -> None:
        """Once it stops it is ready no more, so that a balancer looks elsewhere."""
        self.kit.observing.health.stopping = True
        status, told = self.ready()
        self.assertEqual((status, told["reasons"]), (503, ["stopping"]))

    def test_store_down(self) -> None:
        """With a store that does not answer it is not ready, and says why; then it is again."""
        real = self.kit.daemon.store.ping
        watch = self.kit.observing._store_watch
        watch._ping = lambda: fail(StoreUnavailable("the disk is gone"))
        self.kit.clock.advance(1)
        status, told = self.ready()
        self.assertEqual(status, 503)
        self.assertEqual(told["reasons"], ["the store is not reachable (the disk is gone)"])
        watch._ping = real
        self.kit.clock.advance(1)
        self.assertEqual(self.ready()[0], 200)

    def test_store_asked_once_a_second(self) -> None:
        """However often anybody asks, the store is asked once a second."""
        asked: list[None] = []
        watch = self.kit.observing._store_watch

        def ping() -> Deferred[None]:
            asked.append(None)
            return succeed(None)

        watch._ping = ping
        for _ in range(50):
            self.ready()
        self.assertEqual(asked, [])
        self.kit.clock.pump([0.5] * 6)
        self.assertEqual(len(asked), 3)

    def test_provider_down(self) -> None:
        """A provider's outage is told with its reason, and turns nothing red."""
        self.kit.apple.refusing = True
        self.kit.apple.open[0].lose()
        self.kit.clock.pump([1] * 3)
        status, told = self.ready()
        self.assertEqual((status, self.states()["apns"]), (200, "down"))
        self.assertNotEqual(told["providers"]["apns"]["why"], "")
        self.assertEqual(told["providers"]["apns"]["connections_wanted"], 1)

    def test_idle(self) -> None:
        """Connections that were closed because nobody needs them are idle, not down."""
        self.kit.clock.pump([1] * 190)
        self.assertEqual(self.states()["fcm"], "idle")
        self.assertEqual(self.ready()[1]["providers"]["fcm"]["why"], "idle")

    def test_idle_without_a_token(self) -> None:
        """What could not send if it had to is down."""
        self.kit.clock.pump([1] * 190)
        self.kit.token_problem = "access token: refused invalid_grant"
        self.assertEqual(self.states()["fcm"], "down")
        self.assertIn("invalid_grant", self.ready()[1]["providers"]["fcm"]["why"])

    def test_idle_after_trouble(self) -> None:
        """What went to sleep because it could not be reached is down, not idle."""
        self.kit.google.refusing = True
        self.kit.google.open[0].lose()
        self.kit.clock.pump([1] * 400)
        self.assertEqual(self.states()["fcm"], "down")

    def test_head(self) -> None:
        """HEAD has the status and no body, as balancers like it."""
        for path in ("/health/ready", "/health/live", "/metrics"):
            answer = self.kit.ask(path, "HEAD")
            self.assertEqual((answer.status, answer.body), (200, b""), path)
        self.kit.observing.health.stopping = True
        self.assertEqual(self.kit.ask("/health/ready", "HEAD").status, 503)

    def test_other_methods_and_paths(self) -> None:
        """Nothing can be changed here; what is not there says what is."""
        self.assertEqual(self.kit.ask("/health/ready", "POST").status, 405)
        answer = self.kit.ask("/canary")
        self.assertEqual(answer.status, 404)
        self.assertIn("/metrics", answer.json["pages"])
        self.assertNotIn(b"canary", answer.body)


class StoreWatchTests(SynchronousTestCase):
    """How the store is watched."""

    def setUp(self) -> None:
        self.kit = Observed()
        self.clock = Clock()
        self.answers: list[Deferred[None]] = []
        self.worked = 0
        self.watch = StoreWatch(self.ping, self.clock, self.works)
        globalLogPublisher.addObserver(self.kit.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.kit.log)
        self.watch.start()
        self.addCleanup(self.watch.stop)

    def ping(self) -> Deferred[None]:
        """Be the store: silent until told."""
        self.answers.append(Deferred())
        return self.answers[-1]

    def works(self) -> None:
        """Take note."""
        self.worked += 1

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts in the log."""
        lines = map(json.loads, self.kit.output.getvalue().splitlines())
        return [line for line in lines if "alert" in line]

    def fail_for(self, seconds: int) -> None:
        """Fail at each question."""
        for _ in range(seconds):
            if not self.answers[-1].called:
                self.answers[-1].errback(StoreUnavailable("canary is ours"))
            self.clock.advance(1)

    def test_silence(self) -> None:
        """A store that does not answer is a problem after two seconds, and is not asked again."""
        self.assertNotEqual(self.watch.problem, "")
        self.answers[0].callback(None)
        self.assertEqual(self.watch.problem, "")
        self.clock.pump([1] * 4)
        self.assertEqual(self.watch.problem, "the store has not answered for 3 s")
        self.assertEqual(len(self.answers), 2)
        self.answers[1].callback(None)
        self.assertEqual((self.watch.problem, self.worked), ("", 2))

    def test_foreign_errors(self) -> None:
        """Of an error that is not ours only the class is told."""
        self.answers[0].errback(ValueError("canary"))
        self.assertEqual(self.watch.problem, "the store is not reachable (ValueError)")

    def test_alert(self) -> None:
        """A store that fails for ten seconds is one alert, and one more once it works again."""
        self.fail_for(int(ALERT_AFTER))
        self.assertEqual(self.alerts(), [])
        self.fail_for(20)
        (alert,) = self.alerts()
        self.assertEqual((alert["alert"], alert["level"]), ("store-down", "error"))
        self.assertNotIn("cleared", alert)
        self.answers[-1].callback(None)
        self.clock.advance(1)
        cleared = self.alerts()[-1]
        self.assertEqual((cleared["alert"], cleared["cleared"]), ("store-down", True))
        self.assertEqual(cleared["seconds"], 30)

    def test_short_trouble(self) -> None:
        """A blip is no alert, nor is its end."""
        self.fail_for(5)
        self.answers[-1].callback(None)
        self.clock.advance(1)
        self.fail_for(5)
        self.assertEqual(self.alerts(), [])

    def test_stop(self) -> None:
        """Once stopped it asks no more."""
        self.watch.stop()
        self.answers[0].callback(None)
        self.clock.pump([1] * 5)
        self.assertEqual(len(self.answers), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LagTests(SynchronousTestCase):
    """How late the reactor is."""

    def test_on_time(self) -> None:
        """A reactor that is on time has no lag."""
        clock = Clock()
        lag = Lag(clock)
        lag.start()
        clock.pump([LAG_EVERY] * 10)
        self.assertEqual((lag.worst(), lag.histogram.count), (0, 10))

    def test_late(self) -> None:
        """A slow step is seen, told as the worst for about a minute, and then forgotten."""
        clock = Clock()
        lag = Lag(clock)
        lag.start()
        clock.advance(LAG_EVERY + 0.5)
        self.assertAlmostEqual(lag.worst(), 0.5)
        self.assertAlmostEqual(lag.histogram.sum, 0.5)
        clock.pump([LAG_EVERY] * 490)
        self.assertAlmostEqual(lag.worst(), 0.5)
        clock.pump([LAG_EVERY] * 210)
        self.assertAlmostEqual(lag.worst(), 0.0)
        lag.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
