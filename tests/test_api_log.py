"""What is logged of requests: faults of ours, and what callers did wrong; never what they sent."""

import json

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from bouncerd.api import PREFIX
from bouncerd.model import Push, Refused
from tests.in_memory import Daemon, always, basic, spell
from tests.test_api import NOTIFY, ApiTests


class FaultTests(ApiTests):
    """Our own mistakes."""

    def fail_with_content(self, push: Push) -> Refused:
        # As everyday errors do: what they say holds what they fail on.
        return Refused(str(int(push.message.body)))

    def test_a_fault(self) -> None:
        """A fault of ours is a plain 500; the log has its class and place, and no content."""
        self.register_phones()
        self.daemon.apns.outcome = self.fail_with_content
        asked = {**NOTIFY, "apns_payload": {"alert": "hush-canary"}}
        answer = self.daemon.post_json("push/notify", asked)
        self.assertEqual(answer.json, {"result": "error", "msg": "Internal server error"})
        self.error(answer, 500)
        self.assertIn("ValueError", self.log())
        self.assertIn(answer.headers["X-Request-Id"], self.log())
        self.assertNotIn("canary", self.log())

    def test_a_fault_after_hanging_up(self) -> None:
        """A fault that nobody waits for is logged, too."""
        self.register_phones()
        self.daemon.apns.holding = True
        channel, _transport = self.daemon.connect()
        body = json.dumps({**NOTIFY, "apple_devices": ["hush-canary"]}).encode()
        channel.dataReceived(
            spell("POST", PREFIX + "push/notify", body, {"Authorization": basic()})
        )
        channel.connectionLost(Failure(ConnectionDone()))
        self.store.find = None  # type: ignore[method-assign, assignment]
        self.daemon.apns.release()
        self.assertIn("TypeError", self.log())
        self.assertNotIn("canary", self.log())


class LogTests(ApiTests):
    """The access log."""

    def test_success_is_quiet(self) -> None:
        """What went well is not logged, unless the operator wants everything."""
        self.daemon.post_json("push/notify", NOTIFY)
        self.assertEqual(list(self.logged), [])
        self.daemon = Daemon(verbose=True)
        self.daemon.enrol()
        self.daemon.post_json("push/notify", NOTIFY)
        self.assertIn("push/notify by 5c1f8a52-3d0e-4b7e-9a51-0f2f6d1c7a10: 200", self.log())

    def test_failure_is_not(self) -> None:
        """What went wrong is logged by its id, endpoint and status; never by what was sent."""
        self.daemon.post_json("push/notify?canary=1", {"canary": 1})
        self.daemon.send("CANARY", "/canary?canary", b"canary", {"User-Agent": "canary"})
        self.daemon.apns.outcome = always(Refused("x"))
        self.assertIn("push/notify", self.log())
        self.assertIn(": 400 after", self.log())
        self.assertIn("other by nobody: 404", self.log())
        self.assertNotIn("canary", self.log().lower())

    def test_floods(self) -> None:
        """A flood of bad requests does not fill the log; that there was one is in it."""
        for _ in range(200):
            self.daemon.send("POST", PREFIX + "push/notify")
            self.daemon.raw(b"nonsense\r\n\r\n")
        self.assertEqual(len(list(self.logged)), 20)
        self.daemon.clock.advance(1)
        self.daemon.send("POST", PREFIX + "push/notify")
        self.assertIn("380 more requests were not logged", self.log())
