"""Every way in which the fakes can misbehave, step by step."""

from hyperframe.frame import (
    PingFrame,
    RstStreamFrame,
)

from bouncerd.fakes import frames, steps
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Respond, Wait
from tests.fakes_kit import GET, Laboratory, RawClient, everything


class ResponseScriptTests(Laboratory):
    """Odd answers, all of them legal."""

    def test_pieces(self) -> None:
        """A body may come in many DATA frames."""
        self.act(Respond(400, body=b'{"reason":"x"}', pieces=5))
        answer = self.client.answer(self.ask())
        self.assertEqual((answer.body, answer.pieces), (b'{"reason":"x"}', 5))
        self.assertTrue(answer.ended)

    def test_empty_end(self) -> None:
        """The end of a stream may come in an empty DATA frame."""
        self.act(Respond(400, body=b"x", empty_end=True))
        answer = self.client.answer(self.ask())
        self.assertEqual((answer.body, answer.pieces, answer.ended), (b"x", 2, True))

    def test_empty_body(self) -> None:
        """A body may be nothing but an empty DATA frame."""
        self.act(Respond(400, empty_end=True))
        answer = self.client.answer(self.ask())
        self.assertEqual((answer.body, answer.pieces, answer.ended), (b"", 1, True))

    def test_trailers(self) -> None:
        """A response may end with trailers."""
        self.act(Respond(200, body=b"x", trailers=(("checksum", "1"),)))
        answer = self.client.answer(self.ask())
        self.assertEqual((answer.trailers, answer.ended), ({"checksum": "1"}, True))

    def test_silence(self) -> None:
        """A request may never be answered."""
        self.act()
        self.assertEqual(self.client.answer(self.ask()).status, "")
        self.assertEqual(self.verdicts(), [""])

    def test_stall(self) -> None:
        """An answer may stop after its headers, and go on later."""
        self.act(Respond(400, end=False), Wait(3), steps.Data(b"late", end=True))
        stream = self.ask()
        self.assertEqual(self.client.answer(stream).status, "400")
        self.assertFalse(self.client.answer(stream).ended)
        self.clock.advance(3)
        self.assertEqual(self.client.answer(stream).body, b"late")
        self.assertTrue(self.client.answer(stream).ended)

    def test_trickle(self) -> None:
        """A body may come one byte at a time."""
        self.act(*steps.trickle(400, (), b"abc", 0.5))
        stream = self.ask()
        self.clock.pump([0.5] * 2)
        self.assertEqual(self.client.answer(stream).body, b"ab")
        self.clock.advance(0.5)
        self.assertEqual(
            (self.client.answer(stream).pieces, self.client.answer(stream).ended), (3, True)
        )

    def test_delay(self) -> None:
        """An answer may be late; others overtake it."""
        self.act(Wait(2), Respond(200))
        late, prompt = self.ask(), self.ask()
        self.assertEqual(self.client.answer(prompt).status, "200")
        self.assertEqual(self.client.answer(late).status, "")
        self.clock.advance(2)
        self.assertEqual(self.client.answer(late).status, "200")

    def test_withdrawn(self) -> None:
        """A stream that the client has reset is not answered, unless the script insists."""
        for insists, answered in ((False, []), (True, ["HeadersFrame"])):
            with self.subTest(insists=insists):
                self.act(Wait(2), Respond(200, regardless=insists))
                stream = self.ask()
                self.client.write(RstStreamFrame(stream, error_code=8))
                self.clock.advance(2)
                self.assertEqual([type(one).__name__ for one in self.client.read()], answered)
                self.assertEqual(self.verdicts()[-1], "withdrawn")
        self.assertEqual(self.client.connection.visit.open_streams, 0)
        self.assertEqual(self.client.answer(self.ask()).status, "200")


class StreamScriptTests(Laboratory):
    """Streams that end without an answer, or after one."""

    def test_reset(self) -> None:
        """A stream may be reset with any code."""
        for code in (frames.NO_ERROR, frames.REFUSED_STREAM, frames.CANCEL, 0xFF):
            with self.subTest(code=code):
                self.act(steps.Reset(code))
                self.assertEqual(self.client.answer(self.ask()).reset, code)
                self.assertEqual(self.verdicts()[-1], f"reset {code}")

    def test_reset_after_headers(self) -> None:
        """A stream may be reset in the middle of its answer, or after it."""
        self.act(Respond(200, end=False), steps.Reset(2))
        answer = self.client.answer(self.ask())
        self.assertEqual((answer.status, answer.ended, answer.reset), ("200", False, 2))
        self.act(Respond(200), steps.Reset(0))
        answer = self.client.answer(self.ask())
        self.assertEqual((answer.status, answer.ended, answer.reset), ("200", True, 0))

    def test_refuse_above(self) -> None:
        """All streams after the n-th may be refused."""
        self.front.on(Match(above=2), steps.Reset(frames.REFUSED_STREAM))
        streams = [self.ask() for _ in range(4)]
        resets = [self.client.answer(stream).reset for stream in streams]
        self.assertEqual(resets, [None, None, 7, 7])

    def test_share(self) -> None:
        """A rule may take a share of the requests, the same ones in every run."""
        self.front.on(Match(probability=0.3), steps.Reset(7))
        for _ in range(100):
            self.ask()
        self.assertEqual(self.verdicts().count("reset 7"), 18)

    def test_raw(self) -> None:
        """Any bytes may be written in place of an answer."""
        self.act(steps.Raw(frames.ping(b"rawbytes")), steps.Ping(b"nicebyte"))
        self.client.write(self.client.headers_frame(GET, end=True))
        self.assertEqual((self.client.answer(1).status, self.verdicts()), ("", [""]))


class GoAwayTests(Laboratory):
    """The end of a connection, announced."""

    def test_lower_streams_finish(self) -> None:
        """Streams up to the last one are answered after GOAWAY; those above never are."""
        self.act(Wait(1), Respond(200))
        self.act(Wait(1), Respond(200))
        self.act(steps.GoAway(3, frames.NO_ERROR, b'{"reason":"Shutdown"}'))
        streams = [self.ask() for _ in range(3)]
        (goaway,) = self.client.goaways
        self.assertEqual((goaway.last_stream_id, goaway.error_code), (3, 0))
        self.assertEqual(goaway.additional_data, b'{"reason":"Shutdown"}')
        self.clock.advance(1)
        self.assertEqual(
            [self.client.answer(stream).status for stream in streams], ["200", "200", ""]
        )
        self.assertEqual(self.verdicts(), ["200", "200", "ignored"])
        self.assertFalse(self.client.connection.closed)

    def test_default_last_stream(self) -> None:
        """Without a number, GOAWAY names the highest stream seen."""
        self.ask()
        self.act(steps.GoAway(), Respond(200))
        self.assertEqual(self.client.answer(self.ask()).status, "200")
        self.assertEqual(self.client.goaways[0].last_stream_id, 3)

    def test_open_streams_above(self) -> None:
        """A stream that waits for its answer is given up if GOAWAY names a lower one."""
        self.act(Wait(1), Respond(200))
        stream = self.ask()
        self.front.tell(steps.GoAway(0))
        self.clock.advance(1)
        self.assertEqual(self.client.answer(stream).status, "")
        self.assertEqual(self.verdicts(), ["ignored"])

    def test_in_two_steps(self) -> None:
        """A graceful end: first without a limit, later with the real one."""
        self.front.tell(steps.GoAway(2**31 - 1, probe=False), Wait(1), steps.GoAway())
        self.assertEqual(self.client.answer(self.ask()).status, "200")
        self.clock.advance(1)
        self.client.read()
        self.assertEqual([one.last_stream_id for one in self.client.goaways], [2**31 - 1, 1])

    def test_same_segment(self) -> None:
        """GOAWAY and answers of several streams may share one segment, in any order."""
        self.act(steps.Hold(), Respond(200))
        self.act(steps.GoAway(5, probe=False))
        self.act(Respond(200), steps.Release())
        streams = [self.ask() for _ in range(2)]
        self.client.read()
        self.assertEqual(self.client.transport.value(), b"")
        streams.append(self.ask())
        self.assertEqual(
            [self.client.answer(stream).status for stream in streams], ["200", "", "200"]
        )
        self.assertEqual(len(self.client.goaways), 1)

    def test_after_the_news(self) -> None:
        """Opening a stream is a violation only once the client has read the GOAWAY."""
        client = RawClient(self.front)
        client.connection.play((steps.GoAway(0),), everything(client.connection))
        client.transport.clear()  # the GOAWAY and the PING behind it are still on their way
        client.request(GET, b"")
        self.assertEqual(self.broken(), [])
        client.write(PingFrame(opaque_data=b"goneaway", flags=["ACK"]))
        client.request(GET, b"")
        self.assertEqual(self.broken(), ["stream after GOAWAY"])
        self.assertEqual(self.verdicts(), ["ignored", "ignored"])


class ConnectionScriptTests(Laboratory):
    """Connections that break, stall or crawl."""

    def test_closes(self) -> None:
        """A connection may be closed or aborted in place of an answer."""
        for how in ("fin", "abort", "cut"):
            with self.subTest(how=how):
                client = RawClient(self.front)
                self.act(steps.Close(how))
                client.request(GET, b"")
                self.assertTrue(client.transport.disconnecting)
                self.assertEqual(self.verdicts()[-1], "dropped")

    def test_mid_frame(self) -> None:
        """A connection may end in the middle of a frame."""
        self.act(Respond(200, body=b"hello"), steps.Close(after=5))
        self.client.connection.dataReceived(self.client.headers_frame(GET, end=True).serialize())
        self.assertEqual(len(self.client.transport.value()), 5)
        self.assertTrue(self.client.transport.disconnecting)

    def test_at_accept(self) -> None:
        """A connection may be closed before a word is said, as often as the rule has it."""
        self.front.on(Match(event="connect"), steps.Close("abort"), count=1)
        client = RawClient(self.front, greet=False)
        self.assertEqual((client.read(), client.transport.disconnecting), ([], True))
        self.assertEqual(RawClient(self.front).settings, [{3: 10}])

    def test_late_settings(self) -> None:
        """SETTINGS may come late, and are the first frame all the same."""
        self.front.on(Match(event="connect"), Wait(3), steps.Greet())
        client = RawClient(self.front)
        self.assertEqual(client.read(), [])
        self.clock.advance(3)
        first, second = client.read()
        self.assertEqual(client.settings, [{3: 10}])
        self.assertEqual((first.flags, second.flags), (set(), {"ACK"}))

    def test_chopped(self) -> None:
        """Bytes may leave a few at a time; none is lost and their order is kept."""
        self.front.tell(steps.Chop(7, 0.1))
        stream = self.ask(b"x" * 50)
        self.assertEqual(len(self.client.transport.value()), 0)
        self.clock.advance(0.1)
        self.assertEqual(len(self.client.transport.value()), 7)
        self.clock.pump([0.1] * 20)
        self.assertEqual(self.client.answer(stream).body, b"x" * 50)
        self.front.tell(steps.Chop(0))
        self.assertTrue(self.client.answer(self.ask()).ended)

    def test_deaf(self) -> None:
        """A half-open peer reads nothing and answers nothing."""
        self.front.tell(steps.Ignore())
        self.client.write(PingFrame(opaque_data=b"12345678"))
        self.ask()
        self.assertEqual((self.client.pongs, self.verdicts()), ([], []))
        self.assertEqual(self.client.transport.producerState, "paused")

    def test_no_pongs(self) -> None:
        """A peer may answer everything but PING."""
        self.front.tell(steps.Ignore((frames.PING,)))
        self.client.write(PingFrame(opaque_data=b"12345678"))
        self.assertEqual(self.client.answer(self.ask()).status, "200")
        self.assertEqual(self.client.pongs, [])
