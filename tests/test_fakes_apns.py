"""The stand-in for Apple answers as Apple does, push by push."""

import json
import uuid
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes.apns import CERTIFICATE, Apns, Temper, goaway, refuse
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Close, Respond
from tests.fakes_apple import BEARER, BODY, AppleDesk
from tests.fakes_kit import NOW, TOPIC, RawClient, push_lines


class AcceptedTests(SynchronousTestCase):
    """A push that Apple takes."""

    def test_shape(self) -> None:
        """The answer is one HEADERS frame that ends the stream, with the push's id echoed."""
        push_id = str(uuid.uuid4())
        answer = AppleDesk().push(apns_id=push_id)
        self.assertEqual(answer.headers, {":status": "200", "apns-id": push_id})
        self.assertEqual((answer.ended, answer.pieces), (True, 0))

    def test_id_is_made(self) -> None:
        """A push without an id is given one."""
        made = AppleDesk().push().headers["apns-id"]
        self.assertEqual(str(uuid.UUID(made)), made)

    def test_sandbox(self) -> None:
        """The sandbox adds an id to look up in Apple's console; production does not."""
        self.assertIn("apns-unique-id", AppleDesk(sandbox=True).push().headers)

    def test_first_settings(self) -> None:
        """With a provider token, one stream is allowed until the first success, then 1000."""
        desk = AppleDesk()
        self.assertEqual(desk.client.settings, [{1: 4096, 3: 1, 4: 65535, 5: 16384, 6: 8000}])
        desk.push(token="aa40b" + "0" * 59)
        self.assertEqual(len(desk.client.settings), 1)
        desk.push()
        desk.push()
        self.assertEqual(desk.client.settings[1:], [{3: 1000}])

    def test_certificate_settings(self) -> None:
        """With a certificate, 1000 streams are allowed from the start."""
        self.assertEqual(AppleDesk(mode=CERTIFICATE).client.settings[0][3], 1000)

    def test_record(self) -> None:
        """The fake remembers what it was sent: token, topic, headers and body."""
        desk = AppleDesk()
        desk.push()
        (received,) = desk.apns.ledger.received
        self.assertEqual((received.token, received.topic), ("ab" * 32, TOPIC))
        self.assertEqual(received.json(), json.loads(BODY))
        self.assertTrue(received.accepted)
        self.assertTrue(received.never_indexed(b"authorization"))
        self.assertFalse(received.never_indexed(b"apns-topic"))
        self.assertEqual(desk.broken(), [])


class RefusedTests(SynchronousTestCase):
    """A push that Apple does not take."""

    def test_shape(self) -> None:
        """A refusal says its reason in JSON, and echoes the id."""
        push_id = str(uuid.uuid4())
        answer = AppleDesk().push(apns_id=push_id, apns_priority="7")
        self.assertEqual(answer.status, "400")
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(answer.headers["apns-id"], push_id)
        self.assertEqual(answer.body, b'{"reason":"BadPriority"}')
        self.assertTrue(answer.ended)

    def test_reasons(self) -> None:
        """Each thing that can be wrong with a push has Apple's own name."""
        cases: list[tuple[str, dict[str, Any]]] = [
            ("400 BadMessageId", {"apns_id": str(uuid.uuid4()).upper()}),
            ("405 MethodNotAllowed", {":method": "GET"}),
            ("404 BadPath", {":path": "/4/device/" + "ab" * 32}),
            ("400 MissingDeviceToken", {":path": "/3/device/"}),
            ("400 BadDeviceToken", {":path": "/3/device/xyz"}),
            ("400 BadDeviceToken", {":path": "/3/device/abc"}),
            ("400 MissingTopic", {"apns_topic": None}),
            ("400 BadCollapseId", {"apns_collapse_id": "x" * 65}),
            ("400 BadPriority", {"apns_push_type": "background"}),
            ("400 BadPriority", {"apns_push_type": "background", "apns_priority": "10"}),
            ("200", {"apns_push_type": "background", "apns_priority": "5"}),
            ("400 InvalidPushType", {"apns_push_type": "shout"}),
            ("400 BadExpirationDate", {"apns_expiration": "tomorrow"}),
            ("200", {"apns_expiration": "0"}),
            ("403 MissingProviderToken", {"authorization": None}),
            ("200", {"apns_collapse_id": "x" * 64}),
        ]
        for expected, others in cases:
            with self.subTest(expected=expected, others=others):
                self.assertEqual(AppleDesk().verdict(**others), expected)

    def test_doubled_header(self) -> None:
        """A header that is sent twice is refused as such."""
        desk = AppleDesk()
        lines = [*push_lines(BEARER), ("apns-topic", TOPIC)]
        answer = desk.client.answer(desk.client.request(lines, BODY))
        self.assertEqual(answer.body, b'{"reason":"DuplicateHeaders"}')

    def test_sizes(self) -> None:
        """A payload has 1 to 4096 bytes, for VoIP 5120."""
        desk = AppleDesk()
        for size, others, status in (
            (0, {}, "400"),
            (4096, {}, "200"),
            (4097, {}, "413"),
            (5120, {"apns_push_type": "voip", "apns_topic": TOPIC + ".voip"}, "200"),
            (5121, {"apns_push_type": "voip", "apns_topic": TOPIC + ".voip"}, "413"),
        ):
            with self.subTest(size=size):
                self.assertEqual(desk.push(body=b"x" * size, **others).status, status)
        self.assertEqual(desk.broken(), ["payload too large"])

    def test_prefixes(self) -> None:
        """The beginnings of tokens choose answers, as in the recorded exchanges."""
        for prefix, verdict in (
            ("aa410", "410 Unregistered"),
            ("aa40b", "400 BadDeviceToken"),
            ("aa40d", "400 DeviceTokenNotForTopic"),
            ("aa40c", "400 TopicDisallowed"),
            ("aa429", "429 TooManyRequests"),
            ("aa500", "500 InternalServerError"),
            ("aa503", "503 ServiceUnavailable"),
            ("aa403", "403 ExpiredProviderToken"),
            ("aa413", "413 PayloadTooLarge"),
            ("aa411", "200"),
        ):
            with self.subTest(prefix=prefix):
                self.assertEqual(AppleDesk().verdict(token=prefix + "0" * 59), verdict)

    def test_dropping_prefix(self) -> None:
        """One beginning makes the connection go away without an answer."""
        desk = AppleDesk()
        desk.push(token="aa0c1" + "0" * 59)
        self.assertTrue(desk.client.transport.disconnecting)
        self.assertEqual(desk.apns.ledger.received[0].verdict, "dropped")

    def test_gone_timestamp(self) -> None:
        """A 410 says since when the token is dead, in milliseconds."""
        answer = AppleDesk().push(token="aa410" + "0" * 59)
        self.assertEqual(json.loads(answer.body)["timestamp"], NOW * 1000)

    def test_throttling(self) -> None:
        """When so minded, a refusal lowers the limit to one stream until the next success."""
        desk = AppleDesk()
        desk.apns.temper = Temper(throttle_on_reject=True)
        desk.push()
        desk.push(token="aa410" + "0" * 59)
        desk.push(token="aa40b" + "0" * 59)
        desk.push()
        self.assertEqual([one.get(3) for one in desk.client.settings], [1, 1000, 1, 1000])


class DeclaredTokenTests(SynchronousTestCase):
    """Device tokens that the fake was told about."""

    def setUp(self) -> None:
        self.desk = AppleDesk()
        self.desk.apns.declare("aa" * 32, TOPIC)
        self.desk.apns.declare("bb" * 32, TOPIC, "sandbox")
        self.desk.apns.declare("cc" * 32, TOPIC, unregistered_at=NOW - 60)

    def test_other_app(self) -> None:
        """A token of another app is not for this topic."""
        verdict = self.desk.verdict(token="aa" * 32, apns_topic="org.example.other")
        self.assertEqual(verdict, "400 DeviceTokenNotForTopic")

    def test_other_environment(self) -> None:
        """A sandbox token in production is just a bad token."""
        self.assertEqual(self.desk.verdict(token="bb" * 32), "400 BadDeviceToken")

    def test_unregistered(self) -> None:
        """A dead token is gone since the time declared."""
        answer = self.desk.push(token="cc" * 32)
        self.assertEqual(
            json.loads(answer.body), {"reason": "Unregistered", "timestamp": (NOW - 60) * 1000}
        )

    def test_strict(self) -> None:
        """Undeclared tokens are welcome, unless the fake is told to be strict."""
        self.assertEqual(self.desk.verdict(), "200")
        self.desk.apns.temper.strict_tokens = True
        self.assertEqual(self.desk.verdict(), "400 BadDeviceToken")
        self.assertEqual(self.desk.verdict(token="aa" * 32), "200")

    def test_topics(self) -> None:
        """A credential may be limited to some apps; a push type's suffix does not count."""
        self.desk.apns.temper.topics = frozenset({TOPIC})
        voip = {"apns_push_type": "voip", "apns_topic": TOPIC + ".voip"}
        self.assertEqual(self.desk.verdict(**voip), "200")
        self.assertEqual(self.desk.verdict(apns_topic="x.y"), "400 TopicDisallowed")


class ViolationTests(SynchronousTestCase):
    """What a good client does not do is recorded, whatever it is answered."""

    def test_indexed_secrets(self) -> None:
        """A path or a bearer that may end up in a compression table is a violation."""
        desk = AppleDesk()
        block = desk.client.encoder.encode(push_lines(BEARER))
        head = desk.client.headers_frame([])
        head.data = block
        desk.client.write(head)
        desk.client.write(_end(head.stream_id))
        self.assertEqual(
            desk.broken(), [":path not never-indexed", "authorization not never-indexed"]
        )

    def test_host(self) -> None:
        """`host` beside `:authority` is a violation, though Apple minds neither."""
        desk = AppleDesk()
        self.assertEqual(desk.push(host="api.push.apple.com").status, "200")
        self.assertEqual(desk.broken(), ["both host and :authority"])

    def test_topic(self) -> None:
        """A push without a topic is a violation even where a certificate could stand in."""
        desk = AppleDesk(mode=CERTIFICATE)
        desk.push(apns_topic=None)
        self.assertEqual(desk.broken(), ["topic missing"])

    def test_repeated_id(self) -> None:
        """The same id twice is only remarked on: a retry does that."""
        desk, push_id = AppleDesk(), str(uuid.uuid4())
        desk.push(apns_id=push_id)
        desk.push(apns_id=push_id)
        self.assertEqual(desk.broken(), [])
        self.assertEqual([one.rule for one in desk.apns.ledger.remarks], ["apns-id seen before"])


class ScriptedTests(SynchronousTestCase):
    """Rules replace what Apple would have said."""

    def test_once(self) -> None:
        """A rule with a count is obeyed that often, then the book again."""
        desk = AppleDesk()
        rule = desk.apns.on(Match(token="ab"), refuse(503, "Shutdown"), count=2)
        self.assertEqual(
            [desk.verdict() for _ in range(3)], ["503 Shutdown", "503 Shutdown", "200"]
        )
        self.assertEqual(rule.used, 2)

    def test_by_topic_and_number(self) -> None:
        """Rules match topics, and the n-th push of a connection."""
        desk = AppleDesk()
        desk.apns.on(Match(topic="x.y"), refuse(400, "BadTopic"))
        desk.apns.on(Match(connection=1, nth=2), Respond(200, name="second"))
        self.assertEqual(desk.verdict(apns_topic="x.y"), "400 BadTopic")
        self.assertEqual(desk.verdict(), "second")
        self.assertEqual(desk.verdict(), "200")

    def test_wrong_certificate(self) -> None:
        """A GOAWAY can follow the first SETTINGS, as for a certificate of the other environment."""
        clock = Clock()
        apns = Apns(clock, mode=CERTIFICATE)
        apns.on(
            Match(event="connect"),
            *apns.greeting,
            goaway("BadCertificateEnvironment", 0),
            Close(),
        )
        client = RawClient(apns, greet=False)
        client.read()
        self.assertEqual(
            client.goaways[0].additional_data, b'{"reason": "BadCertificateEnvironment"}'
        )
        self.assertEqual(client.goaways[0].last_stream_id, 0)
        self.assertTrue(client.transport.disconnecting)

    def test_latency(self) -> None:
        """Answers take their time and come out of order, the same way every time."""
        clock = Clock()
        apns = Apns(clock, mode=CERTIFICATE)
        client = RawClient(apns)
        streams = [client.request(push_lines(BEARER), BODY) for _ in range(20)]
        order: list[int] = []
        while len(order) < 20:
            clock.advance(0.001)
            client.read()
            order += [s for s in streams if client.answer(s).ended and s not in order]
        self.assertNotEqual(order, streams)
        times = [one.answered_at or 0 for one in apns.ledger.received]
        self.assertTrue(min(times) >= 0.02 and max(times) <= 0.0811, times)


def _end(stream: int) -> bytes:
    """Make the DATA frame that ends a request."""
    return len(BODY).to_bytes(3) + b"\x00\x01" + stream.to_bytes(4) + BODY
