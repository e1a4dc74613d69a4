"""The HTTP/2 core: frames in, endings out; every request ends exactly once."""

from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.http2 import Answered, Conversation, Lost, Request, Response, Template, Unsent
from tests.http2_kit import Peer, a_request, connected, submitted

REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 7, 8, 2


def frame_names(frames: Sequence[object]) -> list[str]:
    """Return the frames' types, for a comparison that reads as a script."""
    return [type(frame).__name__.removesuffix("Frame") for frame in frames]


class OpeningTests(SynchronousTestCase):
    """When a request may leave."""

    def test_nothing_leaves_before_settings(self) -> None:
        """A request given before the server's SETTINGS waits for them, then goes."""
        peer, conversation = Peer(), Conversation()
        submitted(conversation, 1)
        self.assertEqual(conversation.free, 0)
        self.assertEqual(frame_names(peer.read(conversation.data_to_send())), ["Settings"])
        conversation.receive(peer.settings())
        names = frame_names(peer.read(conversation.data_to_send()))
        self.assertEqual(names, ["Settings", "Headers", "Data"])

    def test_first_frame_must_be_settings(self) -> None:
        """A server that begins with anything but SETTINGS is left, and the request comes back."""
        peer, conversation = Peer(), Conversation()
        (ticket,) = submitted(conversation, 1)
        endings = conversation.receive(peer.ping())
        self.assertEqual(endings, [Unsent(ticket, "connection is draining")])
        self.assertTrue(conversation.closed)

    def test_goaway_in_place_of_settings_keeps_its_reason(self) -> None:
        """The reason of a GOAWAY that stands where SETTINGS should is not thrown away."""
        peer, conversation = Peer(), Conversation()
        conversation.receive(peer.goaway(0, 0, b'{"reason":"BadCertificate"}'))
        self.assertTrue(conversation.closed)
        assert conversation.goaway is not None
        self.assertEqual(conversation.goaway.debug, b'{"reason":"BadCertificate"}')

    def test_limit_is_obeyed_as_it_changes(self) -> None:
        """No more streams are open than the server allows, up and down in flight."""
        peer = Peer()
        conversation = connected(peer, max_streams=2)
        submitted(conversation, 5)
        self.assertEqual(
            frame_names(peer.read(conversation.data_to_send())), ["Headers", "Data"] * 2
        )
        self.assertEqual((conversation.open_streams, conversation.free), (2, 0))
        conversation.receive(peer.settings(max_streams=1) + peer.answer(1))
        self.assertEqual(frame_names(peer.read(conversation.data_to_send())), ["Settings"])
        conversation.receive(peer.settings(max_streams=1000))
        names = frame_names(peer.read(conversation.data_to_send()))
        self.assertEqual(names, ["Settings"] + ["Headers", "Data"] * 3)

    def test_probe_sends_one_until_the_first_answer(self) -> None:
        """A token connection shows its token with one push before it sends the others."""
        peer = Peer()
        conversation = connected(peer, probe=True, max_streams=100)
        submitted(conversation, 3)
        self.assertEqual(len(peer.read(conversation.data_to_send())), 2)
        conversation.receive(peer.answer(1, 500, b"{}"))
        self.assertEqual(len(peer.read(conversation.data_to_send())), 2)
        conversation.receive(peer.answer(3, 403, b"{}"))
        self.assertEqual(conversation.limit, 100)
        self.assertEqual(len(peer.read(conversation.data_to_send())), 2)

    def test_ticket_in_use_is_refused(self) -> None:
        """Two requests under one ticket would end twice."""
        conversation = connected(Peer())
        conversation.submit("t", a_request())
        with self.assertRaises(ValueError):
            conversation.submit("t", a_request())


class FieldTests(SynchronousTestCase):
    """What stands in the header block."""

    def test_block_is_what_was_asked_and_never_indexed(self) -> None:
        """An independent decoder reads the fields, in order, secrets marked never-indexed."""
        peer = Peer()
        conversation = connected(peer)
        template = Template("api.example:443", [("authorization", "bearer " + "j" * 300)])
        request = Request(
            template, b"/3/device/ab", ((b"apns-id", b"1"), (b"x-long", b"v" * 200)), b""
        )
        conversation.submit("t", request)
        headers = peer.read(conversation.data_to_send())[0]
        fields = list(peer.decoder.decode(headers.data))  # type: ignore[attr-defined]
        self.assertEqual(
            [tuple(field) for field in fields],
            [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "api.example:443"),
                (":path", "/3/device/ab"),
                ("authorization", "bearer " + "j" * 300),
                ("apns-id", "1"),
                ("x-long", "v" * 200),
            ],
        )
        self.assertEqual([field.indexable for field in fields], [True, True] + [False] * 5)

    def test_smaller_table_is_confirmed(self) -> None:
        """The block after a lowered table size starts with the size update; the next does not."""
        peer = Peer()
        conversation = connected(peer)
        conversation.receive(peer.settings(table=0))
        submitted(conversation, 2)
        sent = [each for each in peer.read(conversation.data_to_send()) if each.type == 1]
        self.assertEqual([each.data[0] for each in sent], [0x20, 0x83])  # type: ignore[attr-defined]

    def test_hostile_values_are_refused_without_being_quoted(self) -> None:
        """A topic or token with line breaks, NULs or non-ASCII never gets near a header."""
        template = Template("localhost", [])
        for value in (b"a\r\nb", b"a\0", "é".encode(), b" a", b"\x7f"):
            with self.assertRaises(ValueError) as caught:
                Request(template, b"/", ((b"apns-topic", value),), b"")
            self.assertEqual(
                str(caught.exception), "a header field has characters outside visible ASCII"
            )
        for name in (b"Upper", b"", b"a b", b":path"):
            with self.assertRaises(ValueError):
                Request(template, b"/", ((name, b"v"),), b"")

    def test_large_bodies_are_refused(self) -> None:
        """More than one frame of body, or of header fields, is not a push."""
        template = Template("localhost", [])
        with self.assertRaises(ValueError):
            Request(template, b"/", (), bytes(16_385))
        with self.assertRaises(ValueError):
            Request(template, b"/" * 17_000, (), b"")

    def test_nothing_secret_in_a_repr(self) -> None:
        """A traceback that shows these objects shows no token, no path and no content."""
        shown = repr((a_request(b"canary"), Response(200, ((b"x", b"canary"),), b"canary")))
        self.assertNotIn("canary", shown)
        self.assertNotIn("c0ffee", shown)


class AnswerTests(SynchronousTestCase):
    """How responses are read."""

    def answered(self, frames: bytes, step: int = 0) -> Response:
        """Feed the answer to one request, `step` bytes at a time; return the response."""
        conversation = connected(Peer())
        conversation.submit("t", a_request())
        conversation.data_to_send()
        endings = []
        for at in range(0, len(frames), step or len(frames)):
            endings += conversation.receive(frames[at : at + (step or len(frames))])
        (ending,) = endings
        assert isinstance(ending, Answered), ending
        self.assertEqual((conversation.open_streams, conversation.closed), (0, False))
        return ending.response

    def test_accepted(self) -> None:
        """A 200 without a body, as Apple answers."""
        response = self.answered(Peer().answer(1))
        self.assertEqual((response.status, response.body, response.complete), (200, b"", True))
        self.assertEqual(response.header(b"apns-id"), b"id-1")
        self.assertIsNone(response.header(b"retry-after"))

    def test_every_shape_of_a_refusal(self) -> None:
        """Bodies in pieces, an empty last DATA, trailers, 1xx, CONTINUATION: byte by byte too."""
        peer = Peer()
        pieces = b"".join(peer.data(1, bytes([byte]), end=False) for byte in b"reason")
        block = peer.encoder.encode([("grpc-status", "0")])
        trailers = b"\0\0" + bytes([len(block)]) + b"\x01\x05\0\0\0\x01" + block
        for step in (0, 1, 7):
            for body in (pieces + peer.data(1, b""), pieces + trailers):
                fresh = Peer()
                head = fresh.answer(1, 103, end=False) + fresh.answer(1, 410, end=False)
                response = self.answered(head + body, step)
                self.assertEqual((response.status, response.body), (410, b"reason"))
            self.assertEqual(self.answered(Peer().split_answer(1, 404, 9), step).status, 404)

    def test_status_then_cut_off_is_an_answer(self) -> None:
        """A refusal whose body never came is classified by its status, not sent again."""
        for cut in ("reset", "lost", "withdrawn"):
            peer = Peer()
            conversation = connected(peer)
            conversation.submit("t", a_request())
            conversation.data_to_send()
            endings = conversation.receive(peer.answer(1, 410, end=False))
            if cut == "reset":
                endings = conversation.receive(peer.reset(1, INTERNAL_ERROR))
            elif cut == "lost":
                endings = conversation.finish("the connection was lost")
            else:
                ending = conversation.withdraw("t")
                endings = [] if ending is None else [ending]
            (answer,) = endings
            assert isinstance(answer, Answered)
            self.assertEqual((answer.response.status, answer.response.complete), (410, False))

    def test_endless_body_is_cut(self) -> None:
        """Of a body without end only the first 32 KiB are read; the stream is reset."""
        peer = Peer()
        conversation = connected(peer)
        conversation.submit("t", a_request())
        conversation.data_to_send()
        frames = peer.answer(1, 500, end=False) + peer.data(1, bytes(16_384), end=False) * 3
        (ending,) = conversation.receive(frames)
        assert isinstance(ending, Answered)
        self.assertFalse(ending.response.complete)
        self.assertIn("RstStream", frame_names(peer.read(conversation.data_to_send())))

    def test_early_answer_frees_the_stream(self) -> None:
        """A server that answers before it read the body ends the stream; the window comes back."""
        peer = Peer()
        conversation = connected(peer, window=10)
        conversation.submit("t", a_request(bytes(100)))
        conversation.data_to_send()
        endings = conversation.receive(peer.answer(1, 413))
        self.assertIsInstance(endings[0], Answered)
        self.assertIn("RstStream", frame_names(peer.read(conversation.data_to_send())))
        self.assertEqual(conversation._send_window, 65_535 - 10)


class GoAwayTests(SynchronousTestCase):
    """The end of a connection that the server announces."""

    def test_promised_answers_arrive(self) -> None:
        """Streams up to the last one finish; those above and those waiting are given back."""
        peer = Peer()
        conversation = connected(peer, max_streams=3)
        submitted(conversation, 4)
        conversation.data_to_send()
        endings = conversation.receive(peer.goaway(3, 0, b"Shutdown"))
        self.assertEqual(
            endings,
            [
                Unsent("t2", "above the last stream that the server took"),
                Unsent("t3", "connection is draining"),
            ],
        )
        self.assertEqual(conversation.free, 0)
        with self.assertRaises(ValueError):
            conversation.submit("new", a_request())
        endings = conversation.receive(peer.answer(3) + peer.ping() + peer.answer(1, 410, b"{}"))
        self.assertEqual([ending.ticket for ending in endings], ["t1", "t0"])
        self.assertIn("Ping", frame_names(peer.read(conversation.data_to_send())))

    def test_goaway_among_answers_split_anywhere(self) -> None:
        """GOAWAY before, between or after answers in one read, cut at any byte: nothing is lost."""
        for place in range(3):
            size = len(self.exchange(Peer(), place))
            for cut in range(size + 1):
                peer = Peer()
                conversation = connected(peer)
                submitted(conversation, 3)
                conversation.data_to_send()
                data = self.exchange(peer, place)
                endings = conversation.receive(data[:cut]) + conversation.receive(data[cut:])
                ended = {ending.ticket: type(ending) for ending in endings}
                self.assertEqual(ended, {"t0": Answered, "t1": Answered, "t2": Unsent})
                self.assertEqual(len(endings), 3)

    def exchange(self, peer: Peer, place: int) -> bytes:
        """Return two answers with a GOAWAY at one of three places."""
        frames = [peer.answer(1), peer.answer(3, 410, b'{"reason":"Unregistered"}')]
        frames.insert(place, peer.goaway(3, 0, b'{"reason":"Shutdown"}'))
        return b"".join(frames)

    def test_second_goaway_lowers_the_mark_and_keeps_the_reason(self) -> None:
        """GOAWAY(2^31-1), then the real one: the first reason stays, the lowest stream counts."""
        peer = Peer()
        conversation = connected(peer)
        submitted(conversation, 2)
        conversation.data_to_send()
        self.assertEqual(conversation.receive(peer.goaway(2**31 - 1, 0, b"first")), [])
        (ending,) = conversation.receive(peer.goaway(1))
        self.assertEqual(ending.ticket, "t1")
        assert conversation.goaway is not None
        self.assertEqual(conversation.goaway.debug, b"first")
        self.assertEqual(conversation.finish("gone"), [Lost("t0", "gone")])


class ResetTests(SynchronousTestCase):
    """Streams that end one by one."""

    def test_refused_stream_is_unsent(self) -> None:
        """REFUSED_STREAM says that nothing was done: the push may go again for free."""
        peer = Peer()
        conversation = connected(peer)
        submitted(conversation, 2)
        conversation.data_to_send()
        endings = conversation.receive(peer.reset(1, REFUSED_STREAM) + peer.reset(3, CANCEL))
        self.assertEqual(
            endings,
            [
                Unsent("t0", "refused by the server", refused=True),
                Lost("t1", "reset by the server"),
            ],
        )
        self.assertFalse(conversation.closed)

    def test_withdrawal(self) -> None:
        """A push given up resets its stream, or leaves the queue; late frames are ignored."""
        peer = Peer()
        conversation = connected(peer, max_streams=1)
        submitted(conversation, 2)
        conversation.data_to_send()
        self.assertEqual(conversation.withdraw("t1"), Unsent("t1", "withdrawn"))
        self.assertEqual(conversation.withdraw("t0"), Lost("t0", "withdrawn"))
        self.assertIsNone(conversation.withdraw("t0"))
        self.assertEqual(frame_names(peer.read(conversation.data_to_send())), ["RstStream"])
        late = peer.answer(1, 400, b"{}") + peer.credit(1, 10) + peer.reset(1, CANCEL)
        self.assertEqual(conversation.receive(late), [])
        conversation.submit("next", a_request())
        conversation.data_to_send()
        (ending,) = conversation.receive(peer.answer(3))
        self.assertIsInstance(ending, Answered)


class WindowTests(SynchronousTestCase):
    """Flow control, both ways."""

    def test_connection_window_is_waited_for(self) -> None:
        """A push leaves only when its whole body fits; no stream is left half-sent."""
        peer = Peer()
        conversation = connected(peer)
        submitted(conversation, 5, bytes(16_000))
        self.assertEqual(len(peer.read(conversation.data_to_send())), 8)
        self.assertEqual(conversation.free, 0)
        conversation.receive(peer.credit(0, 14_464))
        self.assertEqual(peer.read(conversation.data_to_send()), [])
        conversation.receive(peer.credit(0, 1))
        self.assertEqual(len(peer.read(conversation.data_to_send())), 2)

    def test_tiny_stream_window(self) -> None:
        """With a window of 10 bytes a body goes in pieces, as the server gives credit."""
        peer = Peer()
        conversation = connected(peer, window=10)
        conversation.submit("t", a_request(bytes(25)))
        sizes = [each.body_len for each in peer.read(conversation.data_to_send()) if not each.type]
        conversation.receive(peer.credit(1, 5))
        sizes += [each.body_len for each in peer.read(conversation.data_to_send())]
        conversation.receive(peer.settings(window=100))
        (last,) = [each for each in peer.read(conversation.data_to_send()) if not each.type]
        self.assertEqual([*sizes, last.body_len], [10, 5, 10])
        self.assertIn("END_STREAM", last.flags)

    def test_negative_window(self) -> None:
        """A window lowered below what was used is waited out."""
        peer = Peer()
        conversation = connected(peer, window=20)
        conversation.submit("t", a_request(bytes(30)))
        conversation.data_to_send()
        conversation.receive(peer.settings(window=0))
        self.assertEqual(frame_names(peer.read(conversation.data_to_send())), ["Settings"])
        conversation.receive(peer.credit(1, 20))
        self.assertEqual(peer.read(conversation.data_to_send()), [])
        conversation.receive(peer.credit(1, 10))
        (data,) = peer.read(conversation.data_to_send())
        self.assertEqual(data.body_len, 10)

    def test_connection_window_below_a_body(self) -> None:
        """A server whose connection window never holds a whole push still gets it, in pieces."""
        peer = Peer()
        conversation = connected(peer)
        submitted(conversation, 5, bytes(16_000))
        conversation.data_to_send()
        endings = conversation.receive(b"".join(peer.answer(each) for each in (1, 3, 5, 7)))
        self.assertEqual(len(endings), 4)
        sizes = []
        for _ in range(20):
            sent = [each for each in peer.read(conversation.data_to_send()) if not each.type]
            sizes += [each.body_len for each in sent]
            conversation.receive(peer.credit(0, 1_000))
        self.assertEqual((sum(sizes), max(sizes)), (16_000, 1_535))
        (ending,) = conversation.receive(peer.answer(9))
        self.assertEqual(ending.ticket, "t4")

    def test_five_gibibytes_sent(self) -> None:
        """A connection lives on after far more than 2^31 bytes of credit."""
        peer = Peer()
        conversation = connected(peer)
        request = a_request(bytes(16_000))
        credit = peer.credit(0, 64_000)
        peer.answer(1)  # so that the encoder's table settles: the answers' bytes repeat
        sent = 0
        while sent < 5 * 2**30:
            for ticket in range(4):
                conversation.submit(ticket, request)
            first = conversation._next_id
            assert len(conversation.data_to_send()) > 64_000
            for stream_id in range(first, first + 8, 2):
                conversation.receive(peer.reset_bytes(stream_id))
            conversation.receive(credit)
            sent += 64_000
        self.assertFalse(conversation.closed)
        self.assertGreater(conversation.free, 0)

    def test_five_gibibytes_received(self) -> None:
        """Our own credited keep a server's answers coming, for ever."""
        peer = Peer()
        conversation = connected(peer)
        request = a_request(b"")
        body = bytes(16_384)
        received = credited = 0
        while received < 5 * 2**30:
            conversation.submit("t", request)
            stream_id = conversation._next_id
            conversation.data_to_send()
            head = peer.status_only(stream_id, 500)
            (ending,) = conversation.receive(
                head + peer.data(stream_id, body, end=False) + peer.data(stream_id, body)
            )
            assert isinstance(ending, Answered)
            received += 2 * len(body)
            for each in peer.read(conversation.data_to_send()):
                credited += each.window_increment  # type: ignore[attr-defined]
        self.assertGreaterEqual(credited, received - 65_535)

    def test_more_than_the_window_is_a_fault(self) -> None:
        """A server that ignores our window is left."""
        peer = Peer()
        conversation = connected(peer)
        tickets = submitted(conversation, 3)
        conversation.data_to_send()
        conversation._receive_window.size = 100
        endings = conversation.receive(peer.answer(1, 200, bytes(101)))
        self.assertEqual(sorted(str(ending.ticket) for ending in endings), tickets)
        self.assertTrue(conversation.closed)


class UnforeseenTests(SynchronousTestCase):
    """What no known bytes cause."""

    def test_an_exception_in_mid_read_loses_no_ending(self) -> None:
        """A request whose answer was read before an unforeseen exception is ended with the rest."""
        peer = Peer()
        conversation = connected(peer)
        first, second = submitted(conversation, 2)
        conversation.data_to_send()

        class Odd(bytes):
            """Bytes that cannot be cut after the first frame."""

            def __getitem__(self, part: Any) -> Any:
                if part.start > len(answer):
                    raise MemoryError
                return super().__getitem__(part)

        answer = peer.answer(1)
        with self.assertRaises(MemoryError):
            conversation.receive(Odd(answer + peer.answer(3)))
        endings = conversation.finish("the connection was lost")
        self.assertEqual([ending.ticket for ending in endings], [first, second])
        self.assertIsInstance(endings[0], Answered)


class FaultTests(SynchronousTestCase):
    """What breaks the protocol ends the connection, and every request on it."""

    def test_faults(self) -> None:
        """Each illegal frame: one GOAWAY from us, each request ended, nothing raised."""
        peer = Peer()
        faults = {
            "oversized frame": b"\x00\x40\x01\x00\x00\x00\x00\x00\x01" + bytes(16_385),
            "push promise": b"\x00\x00\x04\x05\x04\x00\x00\x00\x01\x00\x00\x00\x02",
            "headers on a stream never opened": peer.answer(99),
            "headers on an even stream": peer.answer(2),
            "headers on stream 0": b"\x00\x00\x01\x01\x05\x00\x00\x00\x00\x88",
            "data on stream 0": b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x",
            "bad compression": b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\xff",
            "continuation of nothing": b"\x00\x00\x00\x09\x04\x00\x00\x00\x01",
            "interrupted block": b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x88" + peer.ping(),
            "padding over the frame": b"\x00\x00\x02\x01\x0d\x00\x00\x00\x01\x05\x88",
            "short window update": b"\x00\x00\x03\x08\x00\x00\x00\x00\x00\x00\x00\x01",
            "window by zero": b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            "window overflow": peer.credit(0, 2**31 - 1),
            "short reset": b"\x00\x00\x01\x03\x00\x00\x00\x00\x01\x00",
            "short goaway": b"\x00\x00\x01\x07\x00\x00\x00\x00\x00\x00",
            "goaway on a stream": b"\x00\x00\x08\x07\x00\x00\x00\x00\x01" + bytes(8),
            "settings on a stream": b"\x00\x00\x00\x04\x00\x00\x00\x00\x01",
            "odd settings": b"\x00\x00\x05\x04\x00\x00\x00\x00\x00" + bytes(5),
            "bad settings": peer.settings(window=2**31 - 1)[:-4] + b"\xff\xff\xff\xff",
            "short ping": b"\x00\x00\x01\x06\x00\x00\x00\x00\x00\x00",
        }
        for name, data in faults.items():
            conversation = connected(Peer(), max_streams=2)
            submitted(conversation, 3)
            conversation.data_to_send()
            endings = conversation.receive(data)
            ended = sorted((str(ending.ticket), type(ending).__name__) for ending in endings)
            expected = [("t0", "Lost"), ("t1", "Lost"), ("t2", "Unsent")]
            self.assertEqual(ended, expected, name)
            self.assertTrue(conversation.closed, name)
            goodbye = Peer().read(conversation.data_to_send())[-1]
            self.assertEqual(goodbye.type, 7, name)
            self.assertEqual(conversation.receive(peer.answer(1)), [], name)
            self.assertEqual(conversation.finish("again"), [], name)

    def test_malformed_responses_end_their_stream_alone(self) -> None:
        """A response without a status, or a body before it, resets that stream; others go on."""
        peer = Peer()
        conversation = connected(peer)
        submitted(conversation, 4)
        conversation.data_to_send()
        block = peer.encoder.encode([("x", "y")])
        no_status = b"\0\0" + bytes([len(block)]) + b"\x01\x05\0\0\0\x01" + block
        twice = peer.answer(5, 200, end=False) + peer.answer(5, 200, end=False)
        endings = conversation.receive(no_status + peer.data(3, b"x") + twice + peer.answer(7))
        ended = [(ending.ticket, type(ending).__name__) for ending in endings]
        self.assertEqual(
            ended, [("t0", "Lost"), ("t1", "Lost"), ("t2", "Answered"), ("t3", "Answered")]
        )
        self.assertFalse(conversation.closed)

    def test_unknown_frames_and_priority_are_ignored(self) -> None:
        """Extensions do no harm."""
        peer = Peer()
        conversation = connected(peer)
        conversation.submit("t", a_request())
        conversation.data_to_send()
        odd = (
            b"\x00\x00\x03\x0c\x00\x00\x00\x00\x01abc\x00\x00\x05\x02\x00\x00\x00\x00\x01"
            + bytes(5)
        )
        (ending,) = conversation.receive(odd + peer.answer(1))
        self.assertIsInstance(ending, Answered)

    def test_floods_end(self) -> None:
        """A server that sends control frames without end is left; so is an endless header block."""
        for flood in (Peer().ping() * 10_001, b"\x00\x00\x00\x00\x00\x00\x00\x00\x01" * 10_001):
            conversation = connected(Peer())
            conversation.submit("t", a_request())
            conversation.data_to_send()
            conversation.receive(Peer().answer(1, 200, end=False))
            conversation.receive(flood)
            self.assertTrue(conversation.closed)
        conversation = connected(Peer())
        conversation.submit("t", a_request())
        conversation.data_to_send()
        start = b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x88"
        conversation.receive(start + b"\x00\x00\x00\x09\x00\x00\x00\x00\x01")
        self.assertTrue(conversation.closed)

    def test_a_settings_storm_ends_sooner(self) -> None:
        """SETTINGS cost us most, since each may move a thousand windows: a tenth is a flood."""
        peer = Peer()
        conversation = connected(peer)
        conversation.receive(b"".join(peer.settings(window=size) for size in range(1_001)))
        self.assertTrue(conversation.closed)

    def test_pings_both_ways(self) -> None:
        """Signs of life, both ways."""
        peer = Peer()
        conversation = connected(peer)
        conversation.ping()
        self.assertEqual(frame_names(peer.read(conversation.data_to_send())), ["Ping"])
        conversation.receive(peer.ping(ack=True) + peer.ping())
        self.assertFalse(conversation.closed)
        (pong,) = peer.read(conversation.data_to_send())
        self.assertIn("ACK", pong.flags)

    def test_stream_ids_run_out_late(self) -> None:
        """Long before the ids end the connection says that it is time to retire."""
        conversation = connected(Peer())
        self.assertFalse(conversation.exhausted)
        conversation._next_id = 2**30 + 1
        self.assertTrue(conversation.exhausted)
