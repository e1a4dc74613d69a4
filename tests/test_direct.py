"""What goes past URL routing is answered as if it did not."""

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.in_memory import (
    ANDROID,
    USER,
    Answer,
    Daemon,
    TroubledStore,
    basic,
    spell,
)
from tests.recordings import scenarios
from tests.replay import Replay

PUSH = b'{"user_uuid": "%s", "gcm_payload": {"event": "x"}}' % USER.encode()
OFTEN = ("/api/v1/remotes/push/notify", "/api/v1/remotes/push/e2ee/notify")
DIRECT, ROUTED = "/api/v1/remotes/push/notify", "//api/v1/remotes/push/notify"
# What is another for each request.
VARYING = ("x-request-id", "x-ratelimit-remaining", "x-ratelimit-reset")


def told(answer: Answer) -> tuple[int, list[tuple[str, str]], Any]:
    """Return all of an answer that is the same for equal requests."""
    fields = [
        (name, value) for name, value in answer.headers.items() if name.lower() not in VARYING
    ]
    return answer.status, fields, answer.json if answer.body else None


class DirectTests(SynchronousTestCase):
    """One request, spelled so that it needs routing, and so that it does not."""

    def setUp(self) -> None:
        self.daemon = Daemon(
            store=TroubledStore, support="help@example.org", requests_per_minute=20
        )
        self.daemon.enrol()
        phone = {"token": ANDROID, "token_kind": "2", "user_uuid": USER}
        self.daemon.post_form("push/register", **phone)

    def send(self, path: str, body: bytes = PUSH, method: str = "POST", **headers: str) -> Answer:
        fields = {"Content-Type": "application/json", "Authorization": basic(), **headers}
        return self.daemon.send(method, path, body, fields)

    def same(self, status: int, body: bytes = PUSH, method: str = "POST", **headers: str) -> None:
        direct = self.send(DIRECT, body, method, **headers)
        self.assertEqual(direct.status, status)
        self.assertEqual(told(direct), told(self.send(ROUTED, body, method, **headers)))

    def test_pushes(self) -> None:
        """A push is made and told of."""
        self.same(200)
        self.assertEqual(len(self.daemon.pushes), 2)

    def test_what_callers_do_wrong(self) -> None:
        """What is wrong with a request is told in the same words."""
        self.same(400, b"{")
        self.same(400, b"{}")
        self.same(401, Authorization="Basic x")
        self.same(405, b"", "GET")
        self.same(204, b"", "OPTIONS")
        self.same(405, b"", "PUT")

    def test_too_many(self) -> None:
        """So is that there were too many."""
        for _ in range(20):
            self.send(DIRECT)
        self.same(429)

    def test_busy(self) -> None:
        """So is that we are busy, for each reason."""
        self.daemon.fcm.room = False
        self.same(503)
        self.daemon.fcm.room = True
        assert isinstance(self.daemon.store, TroubledStore)
        self.daemon.store.down = True
        self.same(503)

    def test_fault(self) -> None:
        """So is that we failed, which is logged without what it says."""
        observer = EventLoggingObserver()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

        class Broken(TroubledStore):
            def find(self, *_: object) -> Deferred[Any]:
                return fail(RuntimeError("c0ffee"))

        self.daemon = Daemon(store=Broken)
        self.same(500)
        faults = [event for event in observer if "failed" in str(event.get("log_format"))]
        self.assertEqual(len(faults), 2)
        self.assertNotIn("c0ffee", str([event.get("reason") for event in faults]))

    def test_spellings(self) -> None:
        """Other spellings of a path are as right or wrong as routing has them."""
        path = DIRECT.removesuffix("push/notify")
        for spelled in ("push/notif%79", "push%2Fnotify", "push/notify?a=b", "push/notify?"):
            self.assertEqual(self.send(path + spelled).status, 200, spelled)
        for spelled in ("push/notify/", "push//notify", "push/./notify", "push/Notify"):
            self.assertEqual(self.send(path + spelled).status, 404, spelled)
        ignored = self.send(DIRECT + "?a=b"), self.send(ROUTED + "?a=b")
        self.assertEqual(told(ignored[0]), told(ignored[1]))
        self.assertEqual(ignored[0].json["ignored_parameters_unsupported"], ["a"])
        self.same(405, b"", "HEAD")

    def test_as_recorded(self) -> None:
        """All that servers were seen to ask is answered alike, limits and all."""
        compared = Counter[int]()
        for _name, exchanges in scenarios():
            direct, routed = Replay(exchanges), Replay(exchanges, "/")
            self.assertEqual(routed.different, direct.different)
            pairs = zip(exchanges, direct.answers, routed.answers, strict=True)
            for exchange, one, other in pairs:
                if exchange["request"]["path"].partition("?")[0] in OFTEN:
                    self.assertEqual(told(one), told(other), exchange["id"])
                    limits = [answer.headers["x-ratelimit-remaining"] for answer in (one, other)]
                    self.assertEqual(limits[0], limits[1], exchange["id"])
                    compared[one.status] += 1
        self.assertGreater(compared.total(), 100)
        self.assertLessEqual({200, 204, 400, 401, 403, 405}, compared.keys())

    def test_hung_up(self) -> None:
        """A push goes on when its caller hangs up, and nothing is written to nobody."""
        self.daemon.fcm.holding = True
        for path in (DIRECT, ROUTED):
            channel, transport = self.daemon.connect()
            fields = {"Content-Type": "application/json", "Authorization": basic()}
            channel.dataReceived(spell("POST", path, PUSH, fields))
            channel.connectionLost(Failure(ConnectionDone()))
            self.daemon.fcm.release()
            self.assertEqual(transport.value(), b"")
        self.assertEqual(len(self.daemon.pushes), 2)
        self.assertEqual(self.flushLoggedErrors(), [])
