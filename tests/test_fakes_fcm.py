"""The stand-in for FCM answers as Google does, message by message."""

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes import google_errors as errors
from bouncerd.fakes.credentials import make_account
from bouncerd.fakes.fcm import Fcm
from bouncerd.fakes.google_tokens import TokenEndpoint
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Wait
from tests.fakes_kit import NOW, Answer, Lines, RawClient

PATH = "/v1/projects/fake-project/messages:send"
ACCOUNT = make_account()
DATA = {"event": "message", "content": "hello"}


class Desk:
    """A fake, a client, a clock, and an access token."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.tokens = TokenEndpoint(self.clock, ACCOUNT, now=lambda: NOW + self.clock.seconds())
        self.fcm = Fcm(self.clock, "fake-project", self.tokens, latency=(0, 0))
        self.client = RawClient(self.fcm)
        self.access = self.tokens.issue()

    def post(self, body: bytes, **others: Any) -> Answer:
        """Send one request and return its answer."""
        lines: dict[str, str | None] = {
            ":method": "POST",
            ":scheme": "https",
            ":authority": "fcm.googleapis.com",
            ":path": PATH,
            "authorization": f"Bearer {self.access}",
            "content-type": "application/json; charset=utf-8",
        }
        lines |= {name.replace("_", "-"): value for name, value in others.items()}
        shown: Lines = [(name, value) for name, value in lines.items() if value is not None]
        return self.client.answer(self.client.request(shown, body))

    def send(self, **message: Any) -> Answer:
        """Send one message; to "token-1" and with some data unless it says otherwise."""
        content = {"token": "token-1", "data": DATA} | message
        return self.post(json.dumps({"message": content}).encode())

    def error(self, answer: Answer) -> dict[str, Any]:
        """Return the error object of an answer."""
        error = json.loads(answer.body)["error"]
        assert str(error["code"]) == answer.status
        return dict(error)

    def broken(self) -> list[str]:
        """Name the rules that the client broke."""
        return self.fcm.ledger.rules_broken()


class AcceptedTests(SynchronousTestCase):
    """A message that FCM takes."""

    def test_shape(self) -> None:
        """The answer names the message within the project."""
        desk = Desk()
        answer = desk.send()
        self.assertEqual(answer.headers[":status"], "200")
        self.assertEqual(answer.headers["content-type"], "application/json; charset=UTF-8")
        self.assertRegex(
            json.loads(answer.body)["name"],
            r"\Aprojects/fake-project/messages/0:[0-9]+%[0-9a-f]+\Z",
        )
        self.assertEqual((answer.ended, desk.broken()), (True, []))
        self.assertEqual(desk.fcm.ledger.received[0].token, "token-1")

    def test_frames_vary(self) -> None:
        """The body comes in one frame or several, and sometimes with an empty last one."""
        desk = Desk()
        pieces = {desk.send().pieces for _ in range(30)}
        self.assertEqual(pieces, {1, 2, 3})

    def test_settings(self) -> None:
        """100 streams, a wide stream window, and a connection window to match."""
        desk = Desk()
        self.assertEqual(desk.client.settings, [{3: 100, 4: 1_048_576, 6: 16_384}])
        self.assertEqual(desk.client.credits, [(0, 983_041)])

    def test_everything_allowed(self) -> None:
        """Both spellings of fields, both cases of priorities, fractions of seconds."""
        for android in (
            {"priority": "high", "ttl": "86400s"},
            {"priority": "NORMAL", "ttl": "0.5s", "collapse_key": "x"},
            {"collapseKey": "x", "data": {"a": "b"}},
        ):
            with self.subTest(android=android):
                self.assertEqual(Desk().send(android=android).status, "200")


class RefusedTests(SynchronousTestCase):
    """A message that FCM does not take."""

    def test_body(self) -> None:
        """The error body has Google's layout, details with their types."""
        desk = Desk()
        self.assertEqual(
            json.loads(desk.send(token="fcm-unregistered-1").body),
            {
                "error": {
                    "code": 404,
                    "message": "Requested entity was not found.",
                    "status": "NOT_FOUND",
                    "details": [
                        {
                            "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
                            "errorCode": "UNREGISTERED",
                        }
                    ],
                }
            },
        )

    def test_prefixes(self) -> None:
        """The beginnings of tokens choose answers, as in the recorded exchanges."""
        for prefix, verdict in (
            ("fcm-unregistered", "404 UNREGISTERED"),
            ("fcm-senderid", "403 SENDER_ID_MISMATCH"),
            ("fcm-quota", "429 QUOTA_EXCEEDED"),
            ("fcm-invalid", "400 INVALID_ARGUMENT"),
            ("fcm-auth", "401 THIRD_PARTY_AUTH_ERROR"),
            ("fcm-503", "503 UNAVAILABLE"),
            ("fcm-500", "500 INTERNAL"),
            ("fcm-other", "200"),
        ):
            with self.subTest(prefix=prefix):
                desk = Desk()
                desk.send(token=prefix + "-xyz")
                self.assertEqual(desk.fcm.ledger.received[0].verdict, verdict)

    def test_data_that_is_no_string(self) -> None:
        """A number among the data fails the whole message, and is a violation."""
        desk = Desk()
        error = desk.error(desk.send(data={"a": "b", "n": 12}))
        self.assertEqual(error["status"], "INVALID_ARGUMENT")
        self.assertEqual(
            error["message"], "Invalid value at 'message.data[1].value' (TYPE_STRING), 12"
        )
        violation = error["details"][0]["fieldViolations"][0]
        self.assertEqual(violation["field"], "message.data[1].value")
        self.assertEqual(desk.broken(), ["data that is no string"])

    def test_size(self) -> None:
        """Keys and values have 4096 bytes of UTF-8 together."""
        self.assertEqual(Desk().send(data={"ab": "é" * 2047}).status, "200")
        desk = Desk()
        answer = desk.send(data={"abc": "é" * 2047})
        self.assertIn("too large", desk.error(answer)["message"])
        self.assertEqual(desk.broken(), ["data over 4096 bytes"])

    def test_messages(self) -> None:
        """What else can be wrong with a message is a 400 that names the field."""
        messages: tuple[dict[str, Any], ...] = (
            {"data": {"from": "x"}},
            {"data": {"google.x": "x"}},
            {"data": {"gcm": "x"}},
            {"data": []},
            {"topic": "also"},
            {"token": 5},
            {"android": {"priority": "urgent"}},
            {"android": {"ttl": 60}},
            {"android": {"ttl": "2419201s"}},
            {"android": {"tll": "60s"}},
            {"dta": {}},
        )
        for message in messages:
            with self.subTest(message=message):
                desk = Desk()
                self.assertEqual(desk.error(desk.send(**message))["code"], 400)

    def test_bodies(self) -> None:
        """What is no message at all is a 400 too."""
        for body in (b"", b"{", b"[]", b"{}", b'{"message": {"data": {}}}', b'{"massage": {}}'):
            with self.subTest(body=body):
                self.assertEqual(Desk().post(body).status, "400")

    def test_addresses(self) -> None:
        """Another project is a JSON 404 without FCM's own word; another path is a page."""
        desk = Desk()
        error = desk.error(desk.post(b"{}", **{":path": PATH.replace("fake", "other")}))
        self.assertNotIn("details", error)
        self.assertEqual(desk.error(desk.post(b"{}", content_type="text/plain"))["code"], 400)
        answer = desk.post(b"{}", **{":path": "/fcm/send"})
        self.assertEqual(answer.status, "404")
        self.assertTrue(answer.headers["content-type"].startswith("text/html"))


class AccessTests(SynchronousTestCase):
    """Whom FCM takes a caller for."""

    def reason(self, desk: Desk, **others: Any) -> str:
        """Send something; return the reason of the 401."""
        error = desk.error(desk.post(b"{}", **others))
        self.assertEqual(error["status"], "UNAUTHENTICATED")
        return str(error["details"][0]["reason"])

    def test_missing(self) -> None:
        """Without a bearer there is nothing to check."""
        self.assertEqual(self.reason(Desk(), authorization=None), "CREDENTIALS_MISSING")

    def test_unknown(self) -> None:
        """A token that was never handed out is refused."""
        desk = Desk()
        self.assertEqual(self.reason(desk, authorization="Bearer x"), "ACCESS_TOKEN_EXPIRED")
        self.assertEqual(desk.broken(), [])

    def test_expired(self) -> None:
        """An expired token is refused, and using it is a violation."""
        desk = Desk()
        desk.clock.advance(3600)
        desk.client = RawClient(desk.fcm)  # the first one is idle for too long
        self.assertEqual(self.reason(desk), "ACCESS_TOKEN_EXPIRED")
        self.assertEqual(desk.broken(), ["expired access token used"])

    def test_revoked(self) -> None:
        """Tokens may be revoked early."""
        desk = Desk()
        desk.tokens.revoke()
        self.assertEqual(self.reason(desk), "ACCESS_TOKEN_EXPIRED")

    def test_any(self) -> None:
        """Without a token endpoint, any bearer will do."""
        desk = Desk()
        desk.fcm.tokens = None
        desk.access = "anything"
        self.assertEqual(desk.send().status, "200")


class ConnectionTests(SynchronousTestCase):
    """How Google treats connections."""

    def test_idle(self) -> None:
        """A connection that is idle for four minutes is ended."""
        desk = Desk()
        desk.clock.advance(200)
        desk.send()
        desk.clock.advance(239)
        desk.client.read()
        self.assertEqual(desk.client.goaways, [])
        desk.clock.pump([1] * 3)
        desk.client.read()
        self.assertEqual(desk.client.goaways[0].additional_data, b"session_timed_out")
        self.assertTrue(desk.client.transport.disconnecting)

    def test_not_idle(self) -> None:
        """A connection with a stream open is not idle."""
        desk = Desk()
        desk.fcm.on(Match(), Wait(1000), errors.INTERNAL)
        desk.send()
        desk.clock.pump([1] * 300)
        desk.client.read()
        self.assertEqual(desk.client.goaways, [])

    def test_age(self) -> None:
        """After an hour a connection is ended gently: two GOAWAYs, open streams finished."""
        desk = Desk()
        desk.fcm.on(Match(), Wait(3600), *desk.fcm._accept("x"))
        desk.send()
        desk.clock.pump([10] * 362)
        desk.client.read()
        lasts = [goaway.last_stream_id for goaway in desk.client.goaways]
        self.assertEqual(lasts, [2**31 - 1, 1])
        self.assertEqual(desk.fcm.ledger.received[0].verdict, "200")

    def test_too_many_streams(self) -> None:
        """More than 100 streams end the connection."""
        desk = Desk()
        desk.fcm.on(Match())
        for _ in range(101):
            desk.send()
        (goaway,) = desk.client.goaways
        self.assertEqual(goaway.error_code, 1)
        self.assertEqual(goaway.additional_data, b"exceeded_max_concurrent_streams")
        self.assertEqual(desk.broken(), ["stream above the limit"])


class RetryTests(SynchronousTestCase):
    """Retries that Google asks callers not to make are violations."""

    def test_refused(self) -> None:
        """What was refused as a message is not to be sent again."""
        desk = Desk()
        desk.send(token="fcm-senderid-1")
        desk.clock.advance(100)
        desk.send(token="fcm-senderid-2")
        self.assertEqual(desk.broken(), [])
        desk.send(token="fcm-senderid-1")
        self.assertEqual(desk.broken(), ["refused message sent again"])

    def test_too_soon(self) -> None:
        """After a 5xx or a 429, ten seconds are to pass."""
        desk = Desk()
        desk.send(token="fcm-503-1")
        desk.clock.advance(10)
        desk.send(token="fcm-503-1")
        self.assertEqual(desk.broken(), [])
        desk.clock.advance(9)
        desk.send(token="fcm-503-1")
        self.assertEqual(desk.broken(), ["retried too soon"])

    def test_unauthenticated(self) -> None:
        """A 401 may be retried once."""
        desk = Desk()
        desk.tokens.revoke()
        desk.send()
        desk.send()
        self.assertEqual(desk.broken(), [])
        desk.send()
        self.assertEqual(desk.broken(), ["401 retried more than once"])


class ScriptedTests(SynchronousTestCase):
    """Rules replace what Google would have said."""

    def test_variants(self) -> None:
        """Every documented answer can be had, by name, as long as a rule lasts."""
        desk = Desk()
        for name, answer in errors.ERRORS.items():
            with self.subTest(name=name):
                desk.fcm.on(Match(token="token-"), answer, count=1)
                self.assertEqual(desk.send(token=f"token-{name}").body, answer.body)

    def test_retry_after(self) -> None:
        """Any answer can carry a `retry-after`, sensible or not."""
        desk = Desk()
        for value in ("30", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "soon"):
            desk.fcm.on(Match(), errors.retry_later(errors.QUOTA_EXCEEDED, value), count=1)
            self.assertEqual(desk.send(token=value).headers["retry-after"], value)
