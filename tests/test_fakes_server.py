"""What the fakes do with frames, and which rules a client can break."""

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from bouncerd.fakes import frames, steps
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Respond, Wait, limit
from tests.fakes_kit import GET, PREFACE, Echo, Laboratory, RawClient, everything


class ConversationTests(Laboratory):
    """An ordinary client sees an ordinary server."""

    def test_settings_first(self) -> None:
        """The first frame is SETTINGS, then the client's are acknowledged."""
        client = RawClient(self.front, greet=False)
        client.write(PREFACE, SettingsFrame(settings={2: 0}))
        self.assertEqual(client.settings, [{3: 10}])
        visit = client.connection.visit
        self.assertEqual((visit.client_settings, visit.settings_acks), ({2: 0}, 1))

    def test_answer(self) -> None:
        """A request is answered on its stream, and its place is free again."""
        answer = self.client.answer(self.ask())
        self.assertEqual(answer.headers, {":status": "200", "server": "echo"})
        self.assertEqual((answer.body, answer.pieces, answer.ended), (b"hello", 1, True))
        self.assertEqual((self.verdicts(), self.broken()), (["200"], []))
        visit = self.client.connection.visit
        self.assertEqual((visit.streams, visit.open_streams, visit.most_streams), (1, 0, 1))

    def test_segmentation(self) -> None:
        """It does not matter how the client's bytes are cut."""
        client = RawClient(self.front, greet=False)
        head = client.headers_frame(GET)
        octets = PREFACE + b"".join(
            frame.serialize() for frame in (SettingsFrame(), SettingsFrame(flags=["ACK"]), head)
        )
        octets += DataFrame(1, data=b"hi", flags=["END_STREAM"]).serialize()
        for at in range(len(octets)):
            client.connection.dataReceived(octets[at : at + 1])
        self.assertEqual(client.answer(1).body, b"hi")

    def test_continuation(self) -> None:
        """Headers may come in several frames."""
        head = self.client.headers_frame(GET, end=True)
        rest = ContinuationFrame(1, data=head.data[3:], flags=["END_HEADERS"])
        self.client.write(HeadersFrame(1, data=head.data[:3], flags=["END_STREAM"]), rest)
        self.assertEqual(self.client.answer(1).status, "200")

    def test_padding(self) -> None:
        """Padded DATA is understood, and its padding is credited too."""
        head = self.client.headers_frame(GET)
        padded = DataFrame(1, data=b"hi", pad_length=10, flags=["END_STREAM", "PADDED"])
        self.client.write(head, padded)
        self.assertEqual(self.client.answer(1).body, b"hi")
        self.assertEqual(self.client.credits, [(0, 13)])

    def test_ping(self) -> None:
        """A PING is answered with its own bytes."""
        self.client.write(PingFrame(opaque_data=b"12345678"))
        self.assertEqual(self.client.pongs, [b"12345678"])

    def test_credit(self) -> None:
        """Body bytes are credited at once: to the connection, and to a stream that goes on."""
        head = self.client.headers_frame(GET)
        self.client.write(head, DataFrame(1, data=b"x" * 100))
        self.assertEqual(self.client.credits, [(0, 100), (1, 100)])
        self.client.write(DataFrame(1, data=b"x" * 100, flags=["END_STREAM"]))
        self.assertEqual(self.client.credits[2:], [(0, 100)])

    def test_client_windows(self) -> None:
        """The fake waits for the client's windows, the stream's and the connection's."""
        client = RawClient(self.front, greet=False)
        client.write(PREFACE, SettingsFrame(settings={4: 10}))
        self.act(Respond(200, body=b"x" * 70_000))
        stream = client.request(GET, b"")
        self.assertEqual(len(client.answer(stream).body), 10)
        client.write(WindowUpdateFrame(stream, window_increment=100_000))
        self.assertEqual(len(client.answer(stream).body), 65_535)
        self.assertFalse(client.answer(stream).ended)
        client.write(WindowUpdateFrame(0, window_increment=100_000))
        self.assertEqual(len(client.answer(stream).body), 70_000)
        self.assertTrue(client.answer(stream).ended)
        self.assertEqual(client.connection.visit.open_streams, 0)

    def test_client_leaves(self) -> None:
        """A client's GOAWAY is noted, and what it still asks is answered."""
        self.client.write(GoAwayFrame(last_stream_id=0))
        self.assertTrue(self.client.connection.visit.goaway_received)
        self.assertEqual(self.client.answer(self.ask()).status, "200")

    def test_lost(self) -> None:
        """When a connection is lost, nothing more happens on it, and the record says so."""
        self.act(Wait(5), Respond(200))
        self.ask()
        self.clock.advance(1)
        self.client.connection.connectionLost()
        self.assertEqual((self.verdicts(), self.clock.getDelayedCalls()), (["dropped"], []))
        self.assertEqual((self.front.connections, self.client.connection.visit.closed_at), ([], 1))


class WindowTests(Laboratory):
    """The client's windows, small, changed and withheld."""

    settings = {frames.INITIAL_WINDOW_SIZE: 10}

    def test_withheld(self) -> None:
        """Credit may be withheld, and given later all at once."""
        self.front.tell(steps.Withhold())
        head = self.client.headers_frame(GET)
        self.client.write(head, DataFrame(1, data=b"x" * 10))
        self.assertEqual(self.client.credits, [])
        self.front.tell(steps.Credit())
        self.client.read()
        self.assertEqual(self.client.credits, [(0, 10), (1, 10)])
        self.client.write(DataFrame(1, data=b"x" * 10, flags=["END_STREAM"]))
        self.assertEqual((self.broken(), self.client.answer(1).body), ([], b"x" * 20))

    def test_overdraft(self) -> None:
        """DATA beyond a stream's window is a violation."""
        self.ask(b"x" * 11)
        self.assertEqual(self.broken(), ["DATA beyond the window"])

    def test_connection_overdraft(self) -> None:
        """DATA beyond the connection's window is a violation, however wide the streams'."""
        front = Echo(self.clock, {frames.INITIAL_WINDOW_SIZE: 1_000_000})
        client = RawClient(front)
        front.tell(steps.Withhold())
        client.write(client.headers_frame(GET))
        for _ in range(4):
            client.write(DataFrame(1, data=b"x" * 16384))
        (violation,) = front.ledger.violations
        self.assertEqual(
            (violation.rule, violation.detail), ("DATA beyond the window", "connection")
        )

    def test_shrunk(self) -> None:
        """A smaller initial window counts for open streams once it is acknowledged."""
        self.front.tell(steps.Withhold())
        self.client.write(self.client.headers_frame(GET), DataFrame(1, data=b"x" * 8))
        self.front.tell(steps.Settings(((frames.INITIAL_WINDOW_SIZE, 4),)))
        self.client.read()
        self.assertEqual(self.broken(), [])
        self.client.write(DataFrame(1, data=b"x"))
        self.assertEqual(self.broken(), ["DATA beyond the window"])


class LimitTests(Laboratory):
    """How many streams the client may have open."""

    settings = {frames.MAX_CONCURRENT_STREAMS: 2}

    def setUp(self) -> None:
        super().setUp()
        self.front.on(Match(), Wait(1), Respond(200))

    def test_too_many(self) -> None:
        """A stream above the limit is refused, and is a violation."""
        streams = [self.ask() for _ in range(3)]
        self.assertEqual([self.client.answer(stream).reset for stream in streams], [None, None, 7])
        self.assertEqual(self.broken(), ["stream above the limit"])
        self.assertEqual(self.client.connection.visit.most_streams, 3)
        self.clock.advance(1)
        self.assertEqual(self.verdicts(), ["200", "200", "reset 7"])

    def test_crossing(self) -> None:
        """A stream that crosses a lowered limit on the wire is refused without blame."""
        self.ask()
        self.client.connection.play((limit(1),), everything(self.client.connection))
        held = self.client.transport.value()
        self.client.transport.clear()
        self.assertEqual(self.client.answer(self.ask()).reset, 7)
        self.assertEqual(self.broken(), [])
        self.client.connection.transport.write(held)  # type: ignore[union-attr]
        self.client.read()
        self.ask()
        self.assertEqual(self.broken(), ["stream above the limit"])

    def test_raised(self) -> None:
        """A raised limit counts once it is acknowledged."""
        self.front.tell(limit(3))
        for _ in range(3):
            self.ask()
        self.clock.advance(1)
        self.assertEqual((self.broken(), self.verdicts()), ([], ["200"] * 3))


class ViolationTests(Laboratory):
    """What clients must not do, each with its name."""

    def test_not_http2(self) -> None:
        """Something that is not HTTP/2 is recorded and hung up on."""
        for octets in (
            b"GET / HTTP/1.1\r\n\r\n",
            PREFACE + PingFrame(opaque_data=b"12345678").serialize(),
        ):
            with self.subTest(octets=octets):
                client = RawClient(self.front, greet=False)
                client.connection.dataReceived(octets)
                self.assertEqual(self.broken(), ["protocol error"])
                self.assertTrue(client.transport.disconnecting)

    def test_protocol_error(self) -> None:
        """A frame that breaks the protocol ends the connection with GOAWAY."""
        self.client.write(WindowUpdateFrame(0, window_increment=2**31 - 1))
        self.assertEqual(self.client.goaways[0].error_code, 3)
        self.assertTrue(self.client.transport.disconnecting)
        self.assertEqual(self.broken(), ["protocol error"])

    def test_before_settings(self) -> None:
        """A stream opened before our SETTINGS were acknowledged is a violation."""
        client = RawClient(self.front, greet=False)
        client.write(PREFACE, SettingsFrame(), client.headers_frame(GET, end=True))
        self.assertEqual(self.broken(), ["stream before SETTINGS"])
        self.assertEqual(client.answer(1).status, "200")

    def test_priority(self) -> None:
        """PRIORITY frames, and priorities within HEADERS, are violations."""
        self.client.write(PriorityFrame(1, stream_weight=5))
        self.assertEqual(self.broken(), ["PRIORITY"])
        head = self.client.headers_frame(GET, end=True)
        head.flags.add("PRIORITY")
        self.client.write(head)
        self.assertEqual(len(self.front.ledger.violations), 2)

    def test_late_acknowledgement(self) -> None:
        """SETTINGS must be acknowledged within five seconds."""
        client = RawClient(self.front, greet=False)
        client.connection.dataReceived(PREFACE + SettingsFrame().serialize())
        self.clock.advance(5.1)
        client.read()
        self.assertEqual(self.broken(), ["SETTINGS acknowledged late"])

    def test_no_acknowledgement(self) -> None:
        """SETTINGS that are never acknowledged are noticed when the connection ends."""
        client = RawClient(self.front, greet=False)
        self.clock.advance(5.1)
        client.connection.connectionLost()
        self.assertEqual(self.broken(), ["SETTINGS never acknowledged"])

    def test_pings(self) -> None:
        """An idle client PINGs every five seconds at most; a busy one as it likes."""
        ping = PingFrame(opaque_data=b"12345678")
        self.client.write(ping)
        self.clock.advance(5)
        self.client.write(ping)
        self.assertEqual(self.broken(), [])
        self.act()
        self.ask()
        self.client.write(ping, ping)
        self.assertEqual(self.broken(), [])
        RawClient(self.front).write(ping, ping)
        self.assertEqual(self.broken(), ["PING too often while idle"])

    def test_idle_pings_unwelcome(self) -> None:
        """Some services want no PING at all of an idle client."""
        self.front.idle_pings = False
        self.client.write(PingFrame(opaque_data=b"12345678"))
        self.assertEqual(self.broken(), ["PING while idle"])

    def test_header_list(self) -> None:
        """Headers above the announced size are a violation."""
        front = Echo(self.clock, {frames.MAX_HEADER_LIST_SIZE: 300})
        client = RawClient(front)
        client.request(GET, b"")
        self.assertEqual(front.ledger.rules_broken(), [])
        client.request([*GET, ("x", "y" * 200)], b"")
        self.assertEqual(front.ledger.rules_broken(), ["header list too large"])

    def test_header_table(self) -> None:
        """A lowered HEADER_TABLE_SIZE must be obeyed once it is acknowledged."""
        self.front.tell(steps.Settings(((frames.HEADER_TABLE_SIZE, 0),)))
        self.client.read()
        self.ask()
        self.assertEqual(self.broken(), ["protocol error"])

    def test_connects(self) -> None:
        """Two connections within a second are remarked on."""
        RawClient(self.front)
        self.clock.advance(1)
        RawClient(self.front)
        rules = [remark.rule for remark in self.front.ledger.remarks]
        self.assertEqual(rules, ["connected again within a second"])
        self.assertEqual([visit.number for visit in self.front.ledger.visits], [1, 2, 3])
