"""The one property: whatever a server does, each request submitted ends exactly once.

Hypothesis plays the server, with legal and illegal frames cut anywhere; and h2's own server side
is the oracle for what we send (windows, limits, states, compression).
"""

from collections import Counter
from random import Random
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.settings import SettingCodes, Settings
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.http2 import Answered, Conversation, Ending, Lost
from tests.http2_kit import Peer, a_request

STREAMS = st.sampled_from([1, 1, 3, 3, 5, 7, 9, 11, 0, 2, 101])


@st.composite
def server_frames(draw: st.DrawFn, peer: Peer) -> bytes:
    """Draw one thing that a server may do, most often something legal."""
    credited = draw(STREAMS)
    stream = credited or 1  # hyperframe builds no HEADERS on stream 0; the raw frames below do
    kind = draw(st.integers(0, 13))
    size = draw(st.integers(0, 40))
    if kind <= 3:
        return peer.answer(stream, draw(st.sampled_from([200, 400, 410, 503, 103])), bytes(size))
    if kind == 4:
        return peer.answer(stream, 429, end=False)
    if kind == 5:
        return peer.data(stream, bytes(size), end=draw(st.booleans()))
    if kind == 6:
        return peer.reset(stream, draw(st.sampled_from([0, 2, 7, 8, 11])))
    if kind == 7:
        last = draw(st.sampled_from([0, 1, 3, 5, 2**31 - 1]))
        return peer.goaway(last, draw(st.integers(0, 13)), bytes(size))
    if kind == 8:
        limit, window = draw(st.integers(0, 5)), draw(st.sampled_from([0, 3, 100, 65_535]))
        return peer.settings(max_streams=limit, window=window, table=draw(st.integers(0, 4096)))
    if kind == 9:
        return peer.credit(credited, draw(st.sampled_from([1, 500, 100_000])))
    if kind == 10:
        return peer.ping(ack=draw(st.booleans()))
    if kind == 11:
        return peer.split_answer(stream, 200, draw(st.integers(2, 5)))
    if kind == 12:
        return draw(st.binary(max_size=30))
    return (
        b"\0\0"
        + bytes([size, draw(st.integers(0, 255)), draw(st.integers(0, 255))])
        + bytes(4 + size)
    )


class ExactlyOnceTests(SynchronousTestCase):
    """Submitted means ended, once."""

    @settings(max_examples=300)
    @given(st.data())
    def test_each_request_ends_once(self, data: Any) -> None:
        """Arbitrary frames, segmentations and withdrawals lose no push and end none twice."""
        peer = Peer()
        conversation = Conversation(probe=data.draw(st.booleans()))
        tickets: list[str] = []
        ended: Counter[object] = Counter()

        def note(endings: list[Ending]) -> None:
            ended.update(ending.ticket for ending in endings)

        if data.draw(st.integers(0, 9)):
            note(conversation.receive(peer.settings(max_streams=data.draw(st.integers(0, 6)))))
        for _ in range(data.draw(st.integers(1, 12))):
            for _ in range(data.draw(st.integers(0, 4))):
                if not conversation.draining:
                    tickets.append(f"t{len(tickets)}")
                    body = bytes(data.draw(st.sampled_from([0, 2, 700, 16_384])))
                    conversation.submit(tickets[-1], a_request(body))
            conversation.data_to_send(opening=data.draw(st.booleans()))
            assert conversation.free >= 0
            if tickets and not data.draw(st.integers(0, 5)):
                ending = conversation.withdraw(data.draw(st.sampled_from(tickets)))
                note([] if ending is None else [ending])
            frames = data.draw(server_frames(peer)) + data.draw(server_frames(peer))
            cut = data.draw(st.integers(0, len(frames)))
            note(conversation.receive(frames[:cut]))
            note(conversation.receive(frames[cut:]))
            assert conversation.pending == len(tickets) - ended.total()
        note(conversation.finish("the end"))
        self.assertEqual(ended, Counter(tickets))
        self.assertEqual(conversation.pending, 0)


class OracleServer:
    """h2's server side, which raises on whatever the client may not do."""

    def __init__(self, limit: int, window: int, frame_credit: int) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limit,
                SettingCodes.INITIAL_WINDOW_SIZE: window,
            },
        )
        self.h2.initiate_connection()
        self.frame_credit = frame_credit
        self.bodies: dict[int, int] = {}
        self.complete: list[int] = []
        self.answered: set[int] = set()

    def receive(self, data: bytes) -> None:
        """Take the client's bytes; credit what came, a little later for the slow ones."""
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                self.bodies[event.stream_id] = 0
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] += len(event.data)
                if event.flow_controlled_length:
                    self.h2.increment_flow_control_window(event.flow_controlled_length)
            elif isinstance(event, StreamEnded):
                self.complete.append(event.stream_id)

    def credit(self) -> None:
        """Let each unfinished body go on for a little."""
        for stream_id in self.bodies.keys() - set(self.complete) - self.answered:
            self.h2.increment_flow_control_window(self.frame_credit, stream_id)

    def answer(self, stream_id: int, random: Random) -> None:
        """Answer a request, as one of the providers would."""
        self.complete.remove(stream_id)
        self.answered.add(stream_id)
        headers = [(":status", "200"), ("apns-id", f"{random.random()}")]
        if random.random() < 0.5:
            self.h2.send_headers(stream_id, headers, end_stream=True)
        else:
            self.h2.send_headers(stream_id, headers)
            self.h2.send_data(
                stream_id, b"{}", end_stream=True, pad_length=random.choice([None, 5])
            )


class OracleTests(SynchronousTestCase):
    """What we send is legal, as h2 judges it."""

    @settings(max_examples=60)
    @given(st.data())
    def test_against_the_server_side_of_h2(self, data: Any) -> None:
        """Any limit, window and segmentation: h2 finds no fault, and every push is answered."""
        random = data.draw(st.randoms(use_true_random=False))
        server = OracleServer(
            limit=data.draw(st.integers(1, 20)),
            window=data.draw(st.sampled_from([0, 1, 50, 65_535])),
            frame_credit=data.draw(st.integers(1, 700)),
        )
        client = Conversation(probe=data.draw(st.booleans()))
        sizes = [random.choice([0, 1, 49, 600, 4_000]) for _ in range(30)]
        for number, size in enumerate(sizes):
            client.submit(number, a_request(bytes(size), f"/3/device/{number:02x}".encode()))
        answered: Counter[object] = Counter()
        for turn in range(3_000):
            sent = client.data_to_send()
            cut = random.randrange(len(sent) + 1)
            server.receive(sent[:cut])
            server.receive(sent[cut:])
            server.credit()
            for stream_id in random.sample(server.complete, len(server.complete)):
                if random.random() < 0.7:
                    server.answer(stream_id, random)
            if not turn % 7:
                server.h2.update_settings(
                    {SettingCodes.MAX_CONCURRENT_STREAMS: random.randrange(1, 20)}
                )
            received = server.h2.data_to_send()
            cut = random.randrange(len(received) + 1)
            for ending in client.receive(received[:cut]) + client.receive(received[cut:]):
                assert isinstance(ending, Answered), ending
                answered[ending.ticket] += 1
            if answered.total() == len(sizes):
                break
        self.assertEqual(answered, Counter(range(len(sizes))))
        self.assertEqual(sorted(server.bodies.values()), sorted(sizes))
        self.assertFalse(client.closed)

    def test_lost_when_the_oracle_vanishes(self) -> None:
        """A connection that breaks leaves each push in flight with an unknown fate, no more."""
        server = OracleServer(5, 65_535, 1)
        client = Conversation()
        client.receive(server.h2.data_to_send())
        for number in range(7):
            client.submit(number, a_request())
        server.receive(client.data_to_send())
        endings = client.finish("gone")
        lost = [ending.ticket for ending in endings if isinstance(ending, Lost)]
        self.assertEqual((lost, len(endings)), ([0, 1, 2, 3, 4], 7))
