"""Thousands of odd requests to all endpoints: whatever is sent, what comes back is an answer.

Requests begin as the examples of docs/openapi.yaml, and are bent from there.
"""

from base64 import b64encode
from collections import Counter
from copy import deepcopy
from random import Random
from typing import Any
from urllib.parse import quote

from nacl.public import PrivateKey
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.boxes import Boxes
from tests.description import FORM, Operation, operations
from tests.in_memory import (
    ANDROID,
    APP,
    KEY,
    ORG_ID,
    PHONE,
    USER,
    Answer,
    Daemon,
    basic,
    read_answer,
    result,
    spell,
)
from tests.recordings import body_of, load
from tests.test_pages import REALM, bill, upload

ODD_TEXTS = [
    "", " ", "0", "1", "2", "-1", "5", "null", "true", "NaN", "1e999", "9" * 20, "9" * 5000, "{",
    "[]", '"', "\0", "\ufffd", "ü", "🎉", "\ud800", "a" * 64, "x" * 5000, USER, USER.upper(), REALM,
    PHONE, ANDROID, APP, ORG_ID, KEY, "chat.example.org", "a@example.org", "a@[::1]", "[::1]:5",
    "xn--", "1,2,x", "1,2,3", "high", "remove", "message", "%s%n", "{0}", "apns", "fcm",
    "'; DROP TABLE devices; --", "+wKIhyAx/Eg=", "AAAA", "=", "messages_read::hour",
]  # fmt: skip
ODD_VALUES = [0, 1, 2, 5, -1, 10**20, 2**31, 2**63, -(2**63) - 1, 0.0, 1.5, 1e308, float("nan"),
              True, False, None]  # fmt: skip
ODD_NAMES = [
    "method", "server_uuid", "", "\0", "ü", "time", "event", "custom", "zulip", "zulip_message_ids",
    "message_ids", "alert", "priority", "aps", "user_id", "realm_uuid", "10", "push_account_id",
    "device_id", "new_org_key", "extra_data", "subgroup",
]  # fmt: skip
HEADERS = ["Content-Type", "Authorization", "Host", "Expect", "Accept", "Cookie", "X-\u00fc",
           "X-Forwarded-For"]  # fmt: skip
METHODS = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE", "post", "A!"]


class Oddities:
    """Odd requests, the same ones for the same seed."""

    def __init__(self, seed: int, links: list[str]) -> None:
        self.random = Random(seed)
        self._links = links
        self._bodies = [body_of(each["request"]) for each in load("reference-9.x")[::5]]

    def request(self) -> tuple[str, Operation, bytes]:
        """Return a method, what it was meant to be, and a whole request with it."""
        random = self.random
        operation = random.choice(operations())
        method = operation.method if random.random() < 0.9 else random.choice(METHODS)
        sealed = random.choice([*self._links, quote(self.text(), errors="surrogatepass")])
        path = operation.path.replace("{sealed}", sealed)
        if random.random() < 0.1:
            path += "?" + quote(self.text(), safe="=&%", errors="surrogatepass")[:2000]
        if random.random() < 0.03:
            path = self._bent(path.encode()).translate(None, b" \r\n").decode("latin-1") or "/"
        headers = {"Content-Type": operation.encoding or FORM}
        if random.random() < 0.97:
            headers["Authorization"] = basic()
        if random.random() < 0.1:
            headers[random.choice(HEADERS)] = self.header()
        body = b"" if not operation.encoding else self.body(operation)
        if random.random() < 0.05:
            body = self._bent(body)
        return method, operation, spell(method, path, body, headers)

    def body(self, operation: Operation) -> bytes:
        random = self.random
        kind = random.random()
        if kind < 0.05:
            return random.choice(self._bodies)[:100_000]
        if kind < 0.1:
            bracket = random.choice([b"[", b'{"a":', b"\xff", b'"', b"--x\r\n", b"a=b&"])
            return bracket * random.choice([1, 150, 300, 3000])
        values: Any = deepcopy(operation.example)
        for _ in range(random.choice([0, 1, 1, 1, 2, 3])):
            values = self.changed(values)
        return operation.body(values)

    def changed(self, value: Any) -> Any:
        """Change something, deep in a value or all of it."""
        random = self.random
        if random.random() < 0.04 or not value or not isinstance(value, dict | list):
            return self.value(3)
        if isinstance(value, list):
            place = random.randrange(len(value))
            return [*value[:place], self.changed(value[place]), *value[place + 1 :]]
        names = [*value, *random.choices(ODD_NAMES, k=1)]
        name = random.choice(names)
        if name in value and random.random() < 0.2:
            return {each: value[each] for each in value if each != name}
        if isinstance(value.get(name), dict | list) and random.random() < 0.7:
            return {**value, name: self.changed(value[name])}
        return {**value, name: self.value(3)}

    def value(self, depth: int) -> Any:
        random = self.random
        if depth and random.random() < 0.3:
            size = random.randrange(4)
            if random.random() < 0.5:
                return [self.value(depth - 1) for _ in range(size)]
            return {random.choice(ODD_NAMES): self.value(depth - 1) for _ in range(size)}
        return random.choice([self.text(), random.choice(ODD_VALUES)])

    def text(self) -> str:
        return self.random.choice(ODD_TEXTS)

    def header(self) -> str:
        random = self.random
        junk = b64encode(random.randbytes(random.randrange(40))).decode()
        return random.choice([
            "", "Basic", "Basic " + junk, "Bearer x", "Basic " + b64encode(b"\xff:x").decode(),
            "application/x-www-form-urlencoded; charset=\xff", "multipart/form-data",
            "multipart/form-data; boundary=x", "multipart/form-data; boundary=\"", "later",
            "a" * 300, "\xff", "text/plain", "x:y:z", "bouncerd-plan=x", "127.0.0.1, ::1, x",
        ])  # fmt: skip

    def _bent(self, data: bytes) -> bytes:
        at = self.random.randrange(len(data) + 1)
        return data[:at] + self.random.randbytes(self.random.randrange(3)) + data[at + 1 :]


class FuzzTests(SynchronousTestCase):
    """Nothing that a caller can send makes us fail."""

    def setUp(self) -> None:
        boxes = Boxes((bytes(PrivateKey(b"k" * 32)),))
        self.daemon = Daemon(
            requests_per_minute=10**9, boxes=boxes, free_users=10, trusted=(), support="us"
        )
        self.daemon.enrol()
        upload(self.daemon)
        self.links = [bill(self.daemon).json["billing_access_url"].rpartition("/")[2]]

    def ready(self) -> None:
        """Bring back what a request may have ended."""
        daemon, now = self.daemon, self.daemon.clock.seconds()
        server = result(daemon.store.server(ORG_ID))
        if server.deactivated:
            result(daemon.store.reactivate_server(ORG_ID, now))
        apple = {"token": "c0ffee", "token_kind": "1", "ios_app_id": APP}
        for phone in [apple, {"token": ANDROID, "token_kind": "2"}]:
            daemon.post_form("push/register", user_id="17", **phone)
        del daemon.apns.pushes[:], daemon.fcm.pushes[:]

    def ask(self, method: str, request: bytes) -> Answer:
        channel, transport = self.daemon.connect()
        channel.dataReceived(request)
        for _ in range(200):  # what is long is read in slices
            if transport.value():
                break
            self.daemon.clock.advance(0.02)
        channel.connectionLost(Failure(ConnectionDone()))
        return read_answer(transport.value(), method)

    def test_odd_requests(self) -> None:
        """Every request is answered, in JSON, and never as if it were our fault."""
        odd = Oddities(9, self.links)
        statuses, served = Counter[int](), Counter[str]()
        for number in range(6000):
            if number % 20 == 0:
                self.ready()
            method, operation, request = odd.request()
            answer = self.ask(method, request)
            statuses[answer.status] += 1
            self.assertLess(answer.status, 500, request)
            self.assertTrue(answer.headers["X-Request-Id"], request)
            if answer.status == 200:
                served[operation.path] += 1
            if method == "HEAD" or answer.status in (204, 303):
                self.assertEqual(answer.body, b"", request)
            elif "text/html" not in (answer.headers["Content-Type"] or ""):
                self.check(answer, request)
            else:
                self.assertIn("web", operation.about["tags"], request)
        expected = {200, 204, 303, 400, 401, 403, 404, 405, 429}
        self.assertEqual(set(statuses), expected)
        self.assertGreater(statuses[200], 1000)
        self.assertGreater(statuses[400], 1000)
        # Each was served now and then: the requests were not all too odd.
        never = {each.path for each in operations()} - set(served)
        self.assertEqual(never, NEVER_SERVED)

    def check(self, answer: Answer, request: bytes) -> None:
        self.assertEqual(answer.headers["Content-Type"], "application/json", request)
        body = answer.json
        if "version" in body:
            return
        self.assertEqual(body["result"] == "success", answer.status == 200, request)
        self.assertIsInstance(body["msg"], str, request)


# A host that shows a secret, a box that opens, a cookie of ours: nobody guesses those. And a
# link is answered 303.
NEVER_SERVED = {
    "/api/v1/remotes/server/register/verify_challenge",
    "/api/v1/remotes/push/e2ee/register",
    "/remote-billing-login/{sealed}",
    "/plan/",
}
