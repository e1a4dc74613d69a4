"""What the operator's level brings into the log: the minute's sums, or each call and each push."""

import json
from typing import Any

from twisted.logger import Logger, LogPublisher, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.api import PREFIX
from bouncerd.logs import LEVELS, observer, short_hash
from bouncerd.seals import key_for
from tests.in_memory import ORG_ID, result
from tests.memory import APP
from tests.observed import Observed
from tests.test_api import NOTIFY

TOKEN = "c0ffee" * 10


class LevelCase(SynchronousTestCase):
    """An observed daemon, and its log."""

    def setUp(self) -> None:
        self.kit = Observed()
        globalLogPublisher.addObserver(self.kit.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.kit.log)
        self.kit.start()
        self.addCleanup(self.kit.observing.stop)
        self.lines()

    def lines(self) -> list[dict[str, Any]]:
        """Return what was logged since."""
        lines = [json.loads(line) for line in self.kit.output.getvalue().splitlines()]
        self.kit.output.seek(0)
        self.kit.output.truncate()
        return lines

    def push(self, status: int, body: bytes = b"", app: str = APP) -> None:
        """Push once, with this answer of Apple's."""
        self.kit.admit(TOKEN, app=app)
        self.kit.apple.answer_all(status, body)


class SummaryTests(LevelCase):
    """The line a minute."""

    def test_nothing_happened(self) -> None:
        """A daemon that nobody asks anything says nothing."""
        self.kit.clock.pump([1] * 200)
        self.assertEqual(
            [line for line in self.lines() if line["module"] == "bouncerd.summary"], []
        )

    def test_sums(self) -> None:
        """What went well is one line a minute, with the sums of that minute."""
        self.kit.daemon.post_json("push/notify", NOTIFY)
        self.push(200)
        self.push(200)
        self.push(410, b'{"reason": "Unregistered"}')
        self.push(503, b'{"reason": "ServiceUnavailable"}')
        self.assertEqual(self.lines(), [])
        self.kit.clock.advance(60)
        (line,) = [line for line in self.lines() if line["module"] == "bouncerd.summary"]
        told = {name: line[name] for name in ("requests", "failed", "delivered", "gone", "retries")}
        expected = {"requests": 1, "failed": 0, "delivered": 2, "gone": 1, "retries": 1}
        self.assertEqual((told, line["seconds"]), (expected, 60))

    def test_only_what_is_new(self) -> None:
        """Each minute tells of itself."""
        self.push(200)
        self.kit.clock.advance(60)
        self.lines()
        self.kit.daemon.send("GET", "/nothing")
        self.kit.clock.advance(60)
        (line,) = [line for line in self.lines() if line["module"] == "bouncerd.summary"]
        self.assertEqual((line["delivered"], line["requests"], line["failed"]), (0, 1, 1))


class VerboseTests(LevelCase):
    """The line for each call and each push."""

    def setUp(self) -> None:
        super().setUp()
        self.kit.log.set_level("verbose")

    def test_calls(self) -> None:
        """Each call has a line by its id, server, route and status."""
        self.kit.daemon.site._verbosity = self.kit.log.verbosity
        answer = self.kit.daemon.post_json("push/notify", NOTIFY)
        (line,) = [line for line in self.lines() if line["module"] == "bouncerd.site"]
        self.assertEqual(line["request_id"], answer.headers["X-Request-Id"])
        self.assertEqual((line["endpoint"], line["server"]), ("push/notify", ORG_ID))
        self.assertEqual((line["status"], type(line["took"])), (200, int))

    def test_pushes(self) -> None:
        """Each end of a push has a line; its token is a short hash under the store's key."""
        self.push(410, b'{"reason": "Unregistered", "timestamp": 5000}')
        (line,) = [line for line in self.lines() if line["module"] == "bouncerd.outcomes"]
        key = key_for(result(self.kit.daemon.store.secret()), "log")
        expected = {
            "push_id": "0e6f1b9c-7b5c-4b43-9f1a-64f1d7a6b111",
            "server": "s1",
            "provider": "apns",
            "app": APP,
            "kind": "APNS",
            "outcome": "gone",
            "reason": "Unregistered",
            "device": 1,
            "token": short_hash(key, TOKEN),
        }
        self.assertEqual({name: line[name] for name in expected}, expected)

    def test_retries(self) -> None:
        """So has each retry."""
        self.push(503, b'{"reason": "ServiceUnavailable"}')
        (line,) = [line for line in self.lines() if line["module"] == "bouncerd.outcomes"]
        self.assertEqual((line["outcome"], line["reason"]), ("retry", "ServiceUnavailable"))

    def test_no_token_and_no_foreign_text(self) -> None:
        """Neither the token is told, nor an app that a tenant made up, nor a path."""
        self.push(200, app="org.example.canary")
        self.kit.daemon.send("POST", f"{PREFIX}canary")
        text = json.dumps(self.lines())
        self.assertIn('"app": "other"', text)
        self.assertNotIn(TOKEN, text)
        self.assertNotIn("canary", text)

    def test_without_the_key(self) -> None:
        """As long as the store did not give its key, a token has no name at all."""
        self.kit.outcomes.hash_key = None
        self.push(200)
        (line,) = [line for line in self.lines() if line["module"] == "bouncerd.outcomes"]
        self.assertEqual(line["token"], None)

    def test_back_to_normal(self) -> None:
        """The level can be changed back while it runs."""
        self.kit.log.set_level("normal")
        self.push(200)
        self.assertEqual(self.lines(), [])


class ObserverTests(SynchronousTestCase):
    """The observer's own part."""

    def setUp(self) -> None:
        self.kit = Observed()
        self.logger = Logger(namespace="bouncerd", observer=LogPublisher(self.kit.log))

    def test_levels(self) -> None:
        """`verbose` brings what is at debug, too; `normal` does not."""
        for name in LEVELS:
            self.kit.log.set_level(name)
            self.logger.debug("quiet")
        self.assertEqual(len(self.kit.output.getvalue().splitlines()), 1)
        self.assertEqual(self.kit.log.lines, {"debug": 1})

    def test_hears(self) -> None:
        """It knows whether what is logged comes to it, and writes nothing to find out."""
        self.assertTrue(self.kit.log.hears(self.logger))
        elsewhere = Logger(namespace="bouncerd", observer=LogPublisher(observer()))
        self.assertFalse(self.kit.log.hears(elsewhere))
        self.assertEqual(self.kit.output.getvalue(), "")

    def test_a_full_disk_is_no_line(self) -> None:
        """What could not be written is not counted as written."""
        self.kit.output.close()
        self.logger.error("lost")
        self.assertEqual(self.kit.log.lines["error"], 0)
