"""The fakes' doors, slow reading and odd frames; and the server that only says yes."""

from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes import odd, steps
from bouncerd.fakes.fcm import Fcm
from bouncerd.fakes.rules import Match
from bouncerd.fakes.swift import Swift
from tests.fakes_kit import GET, PREFACE, Echo, Laboratory, RawClient


def parsed(octets: bytes) -> list[Frame]:
    """Cut bytes into frames."""
    found = []
    while octets:
        frame, length = Frame.parse_frame_header(memoryview(octets[:9]))
        frame.parse_body(memoryview(octets[9 : 9 + length]))
        found.append(frame)
        octets = octets[9 + length :]
    return found


class SwiftTests(SynchronousTestCase):
    """Frames in, prepared answers out."""

    def setUp(self) -> None:
        self.swift = Swift(streams=7)
        self.connection = self.swift.buildProtocol(None)
        self.transport = StringTransport()
        self.connection.makeConnection(self.transport)

    def say(self, *said: Frame) -> list[Frame]:
        """Say frames, cut anywhere; return what comes back."""
        octets = b"".join(frame.serialize() for frame in said)
        self.connection.dataReceived(octets[:5])
        self.connection.dataReceived(octets[5:])
        answer = self.transport.value()
        self.transport.clear()
        return parsed(answer)

    def test_answers(self) -> None:
        """Each request is answered 200 when its body is in, and its bytes are credited."""
        self.connection.dataReceived(PREFACE)
        (settings,) = self.say(SettingsFrame(flags=["ACK"]))
        assert isinstance(settings, SettingsFrame)
        self.assertEqual(settings.settings, {3: 7})
        head = HeadersFrame(1, b"whatever", flags=["END_HEADERS"])
        credit, answer = self.say(head, DataFrame(1, b"hello", flags=["END_STREAM"]))
        assert isinstance(credit, WindowUpdateFrame)
        assert isinstance(answer, HeadersFrame)
        self.assertEqual((credit.window_increment, answer.stream_id, answer.data), (5, 1, b"\x88"))
        self.assertEqual((self.swift.requests, self.swift.octets), (1, 5))

    def test_kept_back(self) -> None:
        """Answers may be kept back, to see how many requests come at once."""
        self.connection.dataReceived(PREFACE)
        self.transport.clear()
        self.swift.answering = False
        bodies = [DataFrame(stream, b"", flags=["END_STREAM"]) for stream in (1, 3, 5)]
        self.assertEqual(self.say(*bodies), [])
        self.swift.release()
        self.assertEqual(len(parsed(self.transport.value())), 3)
        self.assertEqual((self.swift.most_streams, self.swift.most_connections), (3, 1))

    def test_signs_of_life(self) -> None:
        """SETTINGS and PINGs are acknowledged."""
        self.connection.dataReceived(PREFACE)
        self.transport.clear()
        first, second = self.say(SettingsFrame(), PingFrame(opaque_data=b"12345678"))
        self.assertEqual([first.flags, second.flags], [{"ACK"}, {"ACK"}])


class DoorTests(Laboratory):
    """Who gets in."""

    def test_count(self) -> None:
        """Newcomers are counted by the second; those above the limit are hung up on."""
        self.front.door.most_per_second = 2
        RawClient(self.front)
        self.assertIsNone(self.front.buildProtocol(None))
        self.clock.advance(1)
        RawClient(self.front)
        door = self.front.door
        self.assertEqual((door.busiest_second, door.turned_away), (3, 1))


class SlowTests(Laboratory):
    """Reading at a rate."""

    def test_rate(self) -> None:
        """What was read is made up for by a pause, in which nothing is."""
        self.front.tell(steps.Slow(10))
        self.ask(b"x" * 41)
        transport = self.client.transport
        self.assertEqual(transport.producerState, "paused")
        self.clock.advance(20)
        self.assertEqual(transport.producerState, "producing")
        self.front.tell(steps.Slow(0))
        self.ask()
        self.assertEqual(transport.producerState, "producing")


class OddTests(Laboratory):
    """Frames that few servers write."""

    def test_fragmented(self) -> None:
        """A header block may come in pieces, and everything padded."""
        self.act(odd.Fragmented(410, (("a", "b"),), b"gone", fragments=3, padding=5, empty=2))
        self.client.connection.dataReceived(self.client.headers_frame(GET, end=True).serialize())
        kinds = [type(frame).__name__ for frame in parsed(self.client.transport.value())]
        self.assertEqual(
            kinds, ["HeadersFrame", "ContinuationFrame", "ContinuationFrame", *["DataFrame"] * 3]
        )
        self.assertEqual(self.verdicts(), ["410"])
        self.assertEqual(self.client.connection.visit.open_streams, 0)

    def test_odd(self) -> None:
        """Every odd frame is written as it is, and the connection serves on."""
        for name, step in odd.LEGAL.items():
            with self.subTest(name=name):
                self.front.on(Match(), step, steps.Respond(200), count=1)
                client = RawClient(self.front)
                stream = client.request(GET, b"")
                self.assertEqual(client.answer(stream).status, "200")


class GoogleTests(SynchronousTestCase):
    """Google's own ways to lose patience."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.google = Fcm(self.clock, "p", latency=(0, 0))
        self.client = RawClient(self.google)

    def ping(self) -> None:
        """Send one PING."""
        self.client.write(PingFrame(opaque_data=b"12345678"))

    def test_pings(self) -> None:
        """The third PING within five minutes without a message ends the connection."""
        self.ping()
        self.clock.advance(100)
        self.ping()
        self.assertEqual(self.client.goaways, [])
        self.clock.advance(100)
        self.ping()
        (goaway,) = self.client.goaways
        assert isinstance(goaway, GoAwayFrame)
        self.assertEqual((goaway.error_code, goaway.additional_data), (11, b"too_many_pings"))
        self.assertTrue(self.client.transport.disconnecting)

    def send(self, token: str) -> str:
        """Send a message; return its status."""
        lines = [
            (":method", "POST"), (":scheme", "https"), (":authority", "x"),
            (":path", "/v1/projects/p/messages:send"), ("authorization", "Bearer x"),
            ("content-type", "application/json"),
        ]  # fmt: skip
        body = b'{"message": {"token": "%s"}}' % token.encode()
        return self.client.answer(self.client.request(lines, body)).status

    def test_quota(self) -> None:
        """A project's messages are counted by fixed minutes; those refused are not."""
        self.google.quota = 2
        first = [self.send(f"a{number}") for number in range(4)]
        self.clock.advance(59)
        second = self.send("b")
        self.clock.advance(1)
        third = [self.send(f"c{number}") for number in range(3)]
        self.assertEqual(first, ["200", "200", "429", "429"])
        self.assertEqual((second, third), ("429", ["200", "200", "429"]))

    def test_patience(self) -> None:
        """What was asked of a client in `retry-after` is held against it."""
        said = steps.Respond(503, (("retry-after", "30"),))
        self.google.on(Match(), said, count=1)
        self.send("a")
        self.clock.advance(29)
        self.send("a")
        self.assertEqual(self.google.ledger.rules_broken(), ["retried too soon"])

    def test_echo_has_no_opinion(self) -> None:
        """An ordinary service minds neither."""
        client = RawClient(Echo(self.clock))
        client.write(*[PingFrame(opaque_data=b"12345678")] * 3)
        self.assertEqual(client.goaways, [])
