"""A canary in every field of content, token and key: it must get to the phones and nowhere else."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.api import PREFIX
from bouncerd.model import Gone, Misconfigured, Outcome, Push, Refused, Retry
from bouncerd.store.base import Store
from bouncerd.store.sqlite import SQLiteStore
from tests.in_memory import APP, KEY, USER, Answer, Daemon, always, basic, spell

CANARY = "canary"
# Base64, as 9.x wants it, with the word in it.
APPLE_TOKEN = CANARY + "00"
ANDROID_TOKEN = f"fcm:{CANARY}"

CONTENT: dict[str, Any] = {
    "server": CANARY, "realm_id": 2, "realm_name": CANARY, "realm_url": CANARY, "user_id": 5,
    "sender_email": CANARY, "sender_full_name": CANARY, "sender_avatar_url": CANARY,
    "stream": CANARY, "topic": CANARY, "content": CANARY, CANARY: CANARY, "time": 1_800_000_000,
}  # fmt: skip
NOTIFY = {
    "user_id": 5, "user_uuid": USER,
    "gcm_payload": {**CONTENT, "event": "message"},
    "apns_payload": {"alert": {"title": CANARY, "body": CANARY}, "custom": {"zulip": CONTENT}},
    "android_devices": [ANDROID_TOKEN], "apple_devices": [APPLE_TOKEN],
}  # fmt: skip
TEST = {
    "user_id": 5,
    "user_uuid": USER,
    "token": APPLE_TOKEN,
    "token_kind": 1,
    "base_payload": CONTENT,
}


def in_file(path: Path) -> Callable[[Callable[[], float]], Store]:
    return lambda now: SQLiteStore(path, None, now)


class CanaryTests(SynchronousTestCase):
    """All that can go wrong with a push, and what is left of its content then."""

    def setUp(self) -> None:
        self.daemon = Daemon()
        self.daemon.enrol()
        self.logged = EventLoggingObserver()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)

    def register(self) -> None:
        by = {"user_uuid": USER, "user_id": "5"}
        apple = {"token": APPLE_TOKEN, "token_kind": "1", "ios_app_id": APP}
        self.assertEqual(self.daemon.post_form("push/register", **by, **apple).status, 200)
        self.daemon.post_form("push/register", **by, token=ANDROID_TOKEN, token_kind="2")

    def check_log(self) -> None:
        for event in self.logged:
            self.assertNotIn(CANARY, f"{formatEvent(event)} {event!r}")
            self.assertNotIn(KEY[:20], repr(event))

    def check(self, answer: Answer, status: int) -> None:
        self.assertEqual(answer.status, status)
        if status != 200:
            self.assertNotIn(CANARY.encode(), answer.body + str(answer.headers).encode())
        self.check_log()

    def broken(self) -> Iterator[tuple[str, bytes]]:
        """Yield requests with the content in place and a mistake beside it."""
        changes: list[dict[str, Any]] = [
            {"user_id": "x"}, {"user_id": None, "user_uuid": None}, {"user_uuid": CANARY},
            {"realm_uuid": CANARY}, {"gcm_payload": [CANARY]}, {"apns_payload": CANARY},
            {"apple_devices": [CANARY, 1]}, {"apns_payload": {"custom": CANARY}},
            {"apns_payload": {"custom": {"zulip": {"time": CANARY}}}, "gcm_payload": {}},
            {"gcm_payload": {"event": "remove", "zulip_message_ids": CANARY}},
            {"gcm_payload": {"time": CANARY}}, {"apns_payload": {"message_ids": CANARY}},
        ]  # fmt: skip
        for change in changes:
            yield "push/notify", json.dumps({**NOTIFY, **change}).encode()
        yield "push/notify", json.dumps(NOTIFY).encode()[:-1]
        yield "push/notify", json.dumps(NOTIFY).encode() + b"\xff"
        yield "push/notify", json.dumps([NOTIFY]).encode()
        yield (
            "push/notify",
            json.dumps(NOTIFY).encode().replace(b'"user_id": 5,', b'"user_id": NaN,'),
        )
        changes = [
            {"token": CANARY + "11"}, {"token_kind": CANARY}, {"user_uuid": CANARY},
            {"base_payload": [CANARY]}, {"base_payload": {"x": CANARY}},
        ]  # fmt: skip
        for change in changes:
            yield "push/test_notification", json.dumps({**TEST, **change}).encode()

    def test_bad_requests(self) -> None:
        """A mistake in a request is told without what the request says."""
        self.register()
        headers = {"Authorization": basic(), "Content-Type": "application/json"}
        for endpoint, body in self.broken():
            self.check(self.daemon.send("POST", PREFIX + endpoint, body, headers), 400)
            wrong = {**headers, "Authorization": basic(key=CANARY)}
            self.check(self.daemon.send("POST", PREFIX + endpoint, body, wrong), 401)
        self.assertEqual(self.daemon.pushes, [])

    def test_bad_registrations(self) -> None:
        """Nor are tokens repeated."""
        for values in [
            {"token": CANARY, "token_kind": "1"}, {"token": CANARY, "token_kind": "9"},
            {"token": CANARY, "token_kind": CANARY}, {"token": CANARY + "00", "token_kind": "1"},
            {"token": ANDROID_TOKEN, "token_kind": "2", "user_uuid": CANARY},
        ]:  # fmt: skip
            for endpoint in ["push/register", "push/unregister"]:
                self.check(self.daemon.post_form(endpoint, **{"user_id": "5", **values}), 400)

    def test_every_outcome(self) -> None:
        """Whatever Apple and Google say, it is not said to anybody else."""
        outcomes: list[Outcome] = [
            Refused("x"), Retry("x"), Misconfigured("x"), Gone("x"), Gone("x", since=2e9),
        ]  # fmt: skip
        for outcome in outcomes:
            self.register()
            self.daemon.apns.outcome = self.daemon.fcm.outcome = always(outcome)
            self.check(self.daemon.post_json("push/test_notification", TEST), 200)
            self.check(self.daemon.post_json("push/notify", NOTIFY), 200)

    def test_no_room(self) -> None:
        """Nor when there is no room for it."""
        self.register()
        self.daemon.apns.room = False
        self.check(self.daemon.post_json("push/notify", NOTIFY), 503)

    def test_faults(self) -> None:
        """Nor when something raises with the content in its hands."""
        self.register()
        for raising in [_value_error, _key_error, _unicode_error, _chained]:
            self.daemon.apns.outcome = raising
            self.check(self.daemon.post_json("push/notify", NOTIFY), 500)
        self.assertIn("UnicodeDecodeError", "".join(formatEvent(event) for event in self.logged))

    def test_hanging_up(self) -> None:
        """Nor when the caller is gone by then."""
        self.register()
        self.daemon.apns.holding = True
        channel, _transport = self.daemon.connect()
        body = json.dumps(NOTIFY).encode()
        channel.dataReceived(
            spell("POST", PREFIX + "push/notify", body, {"Authorization": basic()})
        )
        channel.connectionLost(Failure(ConnectionDone()))
        self.daemon.apns.outcome = _value_error
        self.assertRaises(ValueError, self.daemon.apns.release)
        self.check_log()

    def test_half_a_request(self) -> None:
        """Nor when it never came in whole."""
        channel, _transport = self.daemon.connect()
        body = json.dumps(NOTIFY).encode()
        request = spell("POST", PREFIX + "push/notify", body, {"Authorization": basic()})
        channel.dataReceived(request[:-1])
        self.daemon.clock.pump([1.0] * 70)
        channel.connectionLost(Failure(ConnectionDone()))
        self.check_log()

    def test_the_store(self) -> None:
        """Of a push nothing is stored; of an org key only a digest."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(directory.name) / "store"
        self.daemon = Daemon(store=in_file(path))
        self.daemon.enrol()
        self.register()
        content = json.loads(json.dumps(NOTIFY).replace(CANARY, "parrot"))
        self.daemon.apns.outcome = always(Gone("x"))
        self.assertEqual(self.daemon.post_json("push/notify", content).status, 200)
        for file in path.parent.glob(path.name + "*"):
            self.assertNotIn(b"parrot", file.read_bytes())
            self.assertNotIn(KEY.encode(), file.read_bytes())


def _value_error(push: Push) -> Outcome:
    return Refused(str(int(push.message.body)))


def _key_error(push: Push) -> Outcome:
    return {b"": Refused("x")}[push.message.body]


def _unicode_error(push: Push) -> Outcome:
    return Refused((push.message.body + b"\xff").decode())


def _chained(push: Push) -> Outcome:
    try:
        return _key_error(push)
    except KeyError as error:
        raise RuntimeError(push.message.body) from error
