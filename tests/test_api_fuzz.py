"""Thousands of odd requests: whatever is sent, what comes back is an answer."""

import json
from base64 import b64encode
from collections import Counter
from random import Random
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.api import PREFIX
from tests.in_memory import ANDROID, APP, FORM, KEY, ORG_ID, PHONE, USER, Daemon, basic, spell
from tests.recordings import body_of, load

REALM = "9aa61d0b-8ce5-488d-8e9e-fedc346e6836"
ENDPOINTS = [
    "server/register", "push/register", "push/unregister", "push/unregister/all", "push/notify",
    "push/test_notification", "push/nope", "",
]  # fmt: skip
NAMES = [
    "user_id", "user_uuid", "realm_uuid", "token", "token_kind", "ios_app_id", "gcm_payload",
    "apns_payload", "gcm_options", "android_devices", "apple_devices", "base_payload", "method",
    "zulip_org_id", "zulip_org_key", "hostname", "contact_email", "new_org_key", "", "\0", "ü",
]  # fmt: skip
ODD_TEXTS = [
    "", " ", "0", "1", "2", "-1", "5", "null", "true", "NaN", "1e999", "9" * 20, "9" * 5000, "{",
    "[]", '"', "\0", "\ufffd", "ü", "🎉", "\ud800", "a" * 64, "x" * 5000, USER, USER.upper(), REALM,
    PHONE, ANDROID, APP, ORG_ID, KEY, "chat.example.org", "a@example.org", "a@[::1]", "[::1]:5",
    "xn--", "1,2,x", "1,2,3", "high", "remove", "message", "%s%n", "{0}",
    "'; DROP TABLE devices; --",
]  # fmt: skip
ODD_VALUES = [0, 5, -1, 10**20, 2**63, 0.0, 1.5, 1e308, float("nan"), True, False, None]
HEADERS = ["Content-Type", "Authorization", "Host", "Expect", "Accept", "Cookie", "X-\u00fc"]


class Oddities:
    """Odd requests, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self._bodies = [body_of(each["request"]) for each in load("reference-9.x")[::5]]

    def request(self) -> tuple[str, bytes]:
        """Return a method and a whole request with it."""
        random = self.random
        method = random.choice(["POST"] * 12 + ["GET", "HEAD", "OPTIONS", "PUT", "post", "A!"])
        kind = random.choice([self.form, self.json, self.json, self.recorded, self.junk])
        path = PREFIX + random.choice(ENDPOINTS)
        if kind == self.json and random.random() < 0.8:
            path = PREFIX + "push/notify"
        if random.random() < 0.15:
            path += "?" + self.form().decode("latin-1").replace(" ", "+")[:2000]
        if random.random() < 0.05:
            path = self._bent(path.encode()).translate(None, b" \r\n").decode("latin-1") or "/"
        headers: dict[str, str] = {}
        if random.random() < 0.9:
            headers["Authorization"] = basic()
        body = kind()
        headers |= FORM if kind == self.form else {"Content-Type": "application/json"}
        if random.random() < 0.2:
            name = random.choice(HEADERS)
            headers[name] = self.header()
        if random.random() < 0.1:
            body = self._bent(body)
        return method, spell(method, path, body, headers)

    def form(self) -> bytes:
        names = self.random.choices(NAMES, k=self.random.randrange(9))
        return "&".join(f"{quote(name)}={self._quoted()}" for name in names).encode("latin-1")

    def _quoted(self) -> str:
        text = self.random.choice(ODD_TEXTS)
        return quote(text, errors="surrogatepass") if self.random.random() < 0.9 else "%ff%"

    def json(self) -> bytes:
        body: Any = {
            "user_id": 5, "user_uuid": USER, "token": ANDROID, "token_kind": 2,
            "base_payload": {"realm_name": "x", "realm_uri": "y"}, "gcm_payload": {"event": "x"},
            "apns_payload": {"alert": "x", "custom": {"zulip": {"event": "remove"}}},
        }  # fmt: skip
        for _ in range(self.random.choice([0, 1, 1, 2, 3])):
            body[self.random.choice(NAMES[:12])] = self.value(4)
        if self.random.random() < 0.05:
            body = self.value(3)
        escaped = self.random.random() < 0.5
        return json.dumps(body, ensure_ascii=escaped).encode("utf-8", "surrogatepass")

    def value(self, depth: int) -> Any:
        random = self.random
        if depth and random.random() < 0.5:
            size = random.randrange(4)
            if random.random() < 0.5:
                return [self.value(depth - 1) for _ in range(size)]
            keys = ["time", "event", "custom", "zulip", "zulip_message_ids", "message_ids", "alert",
                    "priority", "aps", "ü", ""]  # fmt: skip
            return {random.choice(keys): self.value(depth - 1) for _ in range(size)}
        return random.choice([random.choice(ODD_TEXTS), random.choice(ODD_VALUES)])

    def recorded(self) -> bytes:
        return self.random.choice(self._bodies)[:100_000]

    def junk(self) -> bytes:
        bracket = self.random.choice([b"[", b'{"a":', b"\xff", b'"', b"--x\r\n"])
        return bracket * self.random.choice([1, 150, 300, 3000])

    def header(self) -> str:
        random = self.random
        junk = b64encode(random.randbytes(random.randrange(40))).decode()
        return random.choice([
            "", "Basic", "Basic " + junk, "Bearer x", "Basic " + b64encode(b"\xff:x").decode(),
            "application/x-www-form-urlencoded; charset=\xff", "multipart/form-data",
            "multipart/form-data; boundary=x", "multipart/form-data; boundary=\"", "100-continue",
            "a" * 300, "\xff", "text/plain", "x:y:z",
        ])  # fmt: skip

    def _bent(self, data: bytes) -> bytes:
        at = self.random.randrange(len(data) + 1)
        return data[:at] + self.random.randbytes(self.random.randrange(3)) + data[at + 1 :]


class FuzzTests(SynchronousTestCase):
    """Nothing that a caller can send makes us fail."""

    def test_odd_requests(self) -> None:
        """Every request is answered, in JSON, and never as if it were our fault."""
        daemon = Daemon()
        daemon.enrol()
        apple = {"token": PHONE, "token_kind": "1", "ios_app_id": APP}
        for phone in [apple, {"token": ANDROID, "token_kind": "2"}]:
            daemon.post_form("push/register", user_id="5", **phone)
        odd = Oddities(9)
        statuses = Counter[int]()
        for _ in range(4000):
            method, request = odd.request()
            if len(daemon.pushes) > 1000:
                del daemon.apns.pushes[:], daemon.fcm.pushes[:]
            if b"100-continue" in request:
                request = request.replace(b"100-continue", b"later")
            answer = daemon.raw(request)
            statuses[answer.status] += 1
            self.assertLess(answer.status, 500, request)
            self.assertTrue(answer.headers["X-Request-Id"], request)
            if method == "HEAD" or answer.status == 204:
                self.assertEqual(answer.body, b"", request)
                continue
            body = answer.json
            self.assertEqual(body["result"] == "success", answer.status == 200, request)
            self.assertIsInstance(body["msg"], str, request)
            self.assertEqual(answer.headers["Content-Type"], "application/json")
        self.assertEqual(set(statuses), {200, 204, 400, 401, 404, 405})
        self.assertGreater(statuses[200], 200)
        self.assertGreater(statuses[400], 1000)
