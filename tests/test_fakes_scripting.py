"""Scripts in JSON say the same as scripts in Python, and bytes are cut into frames rightly."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes import frames, steps
from bouncerd.fakes.apns import goaway, refuse
from bouncerd.fakes.google_errors import UNREGISTERED
from bouncerd.fakes.odd import ILLEGAL, Fragmented
from bouncerd.fakes.rules import Match
from bouncerd.fakes.scripting import STEPS, read_match, read_script


class ScriptTests(SynchronousTestCase):
    """What the admin port is sent."""

    def test_every_step(self) -> None:
        """Each kind of step can be written as an object."""
        cases: list[tuple[dict[str, Any], steps.Step]] = [
            ({"step": "wait", "seconds": 0.5}, steps.Wait(0.5)),
            (
                {"step": "respond", "status": 400, "headers": [["a", "b"]], "body": "x"},
                steps.Respond(400, (("a", "b"),), b"x"),
            ),
            ({"step": "data", "body": "é", "end": True}, steps.Data("é".encode(), end=True)),
            ({"step": "reset", "code": 7}, steps.Reset(7)),
            (
                {"step": "goaway", "last_stream": 3, "code": 2, "debug": "x"},
                steps.GoAway(3, 2, b"x"),
            ),
            ({"step": "settings", "values": [[3, 1]]}, steps.Settings(((3, 1),))),
            ({"step": "limit", "streams": 1}, steps.limit(1)),
            ({"step": "greet"}, steps.Greet()),
            ({"step": "raw", "octets": "x"}, steps.Raw(b"x")),
            ({"step": "ping", "opaque": "12345678"}, steps.Ping(b"12345678")),
            ({"step": "close", "how": "cut", "after": 3}, steps.Close("cut", 3)),
            ({"step": "hold"}, steps.Hold()),
            ({"step": "release"}, steps.Release()),
            ({"step": "chop", "size": 1, "gap": 0.1}, steps.Chop(1, 0.1)),
            ({"step": "withhold"}, steps.Withhold()),
            ({"step": "credit"}, steps.Credit()),
            ({"step": "ignore", "kinds": [6]}, steps.Ignore((6,))),
            ({"step": "slow", "rate": 100}, steps.Slow(100)),
            ({"step": "fragmented", "status": 200, "padding": 9}, Fragmented(200, padding=9)),
            ({"step": "odd", "frame": "a short PING"}, steps.Raw(ILLEGAL["a short PING"])),
            (
                {"step": "refuse", "status": 410, "reason": "Unregistered", "timestamp": 5},
                refuse(410, "Unregistered", 5),
            ),
            ({"step": "leave", "reason": "Shutdown"}, goaway("Shutdown")),
            ({"step": "google", "error": "unregistered"}, UNREGISTERED),
        ]
        self.assertEqual([item["step"] for item, _ in cases], list(STEPS))
        for item, step in cases:
            with self.subTest(item=item):
                self.assertEqual(read_script([item]), (step,))

    def test_match(self) -> None:
        """A match is an object with the members of a match."""
        self.assertEqual(read_match({"token": "ab", "nth": 3}), Match(token="ab", nth=3))
        self.assertEqual(read_match({}), Match())


class SplitterTests(SynchronousTestCase):
    """The way in."""

    octets = (
        frames.PREFACE
        + frames.settings({3: 1})
        + frames.headers(1, b"block")
        + frames.data(1, b"x" * 300, end_stream=True)
        + frames.goaway(1, 2, b"debug")
        + frames.ping(b"12345678")
        + frames.rst_stream(1, 8)
    )

    @given(st.lists(st.integers(0, len(octets)), max_size=12).map(sorted))
    def test_segmentation(self, cuts: list[int]) -> None:
        """The same frames come out, however the bytes are cut."""
        whole = list(frames.Splitter().feed(self.octets))
        splitter = frames.Splitter()
        pieces = [self.octets[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
        found = [frame for piece in pieces for frame in splitter.feed(piece)]
        self.assertEqual(found, whole)
        self.assertEqual(b"".join(frame.raw for frame in found), self.octets[24:])

    @given(st.binary(min_size=1))
    def test_rubbish(self, octets: bytes) -> None:
        """What is not the preface is recognised at its first wrong byte."""
        splitter = frames.Splitter()
        if frames.PREFACE.startswith(octets[: len(frames.PREFACE)]):
            list(splitter.feed(octets[: len(frames.PREFACE)]))
        else:
            with self.assertRaises(frames.NotHttp2):
                list(splitter.feed(octets))
