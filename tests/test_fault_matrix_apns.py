"""Every behaviour of Apple's (apns.md 7.3) that a connection in memory can show, one by one."""

import json

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes import frames, odd, steps
from bouncerd.fakes.apns import goaway, refuse
from bouncerd.fakes.steps import (
    Close,
    Credit,
    GoAway,
    Greet,
    Ignore,
    Reset,
    Respond,
    Settings,
    Wait,
    Withhold,
    limit,
)  # fmt: skip
from tests.faults import LATE, NO_LAST, OK
from tests.matrix import Row
from tests.scenes import AppleScene

GONE = json.dumps({"reason": "Unregistered", "timestamp": 5_000}).encode()
JSON = (("content-type", "application/json"),)
MANY = {"token_mode": False}  # certificate: a thousand streams from the start
TWO = {"token_mode": False, "size": 2}


def _setting(identifier: int, value: int) -> Settings:
    return Settings(((identifier, value),))


ROWS = [
    # The answers (R1).
    Row("R1", "dead for good", (refuse(410, "Unregistered", 5_000),), "gone"),
    Row("R1", "expired token", (refuse(410, "ExpiredToken"),), "gone"),
    Row("R1", "bad token", (refuse(400, "BadDeviceToken"),), "gone"),
    Row("R1", "a payload fault", (refuse(400, "PayloadEmpty"),), "refused"),
    Row("R1", "an unknown reason", (refuse(400, "NeverHeardOf"),), "refused"),
    Row("R1", "a missing body", (Respond(400),), "refused"),
    Row("R1", "an empty body", (Respond(413, empty_end=True),), "refused"),
    Row("R1", "invalid JSON", (Respond(400, JSON, b"{"),), "refused"),
    Row("R1", "many DATA frames", (Respond(410, JSON, GONE, pieces=20),), "gone"),
    Row("R1", "END_STREAM on its own", (Respond(410, JSON, GONE, empty_end=True),), "gone"),
    Row("R1", "trailers", (Respond(410, JSON, GONE, trailers=(("a", "b"),)),), "gone"),
    Row("R1", "500", (refuse(500, "InternalServerError"),), attempts=2, within=14.0),
    Row("R1", "503", (refuse(503, "ServiceUnavailable"),), attempts=2, within=14.0),
    Row("R1", "503 Shutdown", (refuse(503, "Shutdown"),), attempts=2, links=2),
    Row("R1", "429", (refuse(429, "TooManyRequests"),), attempts=2, within=40.0),
    # Late, never, in part (R2, R3).
    Row("R2", "late", (Wait(3.0), OK)),
    Row("R2", "never", steps.SILENCE, attempts=2, within=34.0, others=MANY),
    Row("R2", "after we gave up", (Wait(32.0), Respond(200, regardless=True)), attempts=2,
        within=34.0, others=MANY),
    Row("R3", "stalled before DATA", (Respond(410, JSON, end=False), Wait(2.0),
        steps.Data(GONE, end=True)), "gone"),
    Row("R3", "stalled for ever", (Respond(400, JSON, end=False),), "refused", within=34.0,
        others=MANY),
    Row("R3", "byte by byte", steps.trickle(410, JSON, GONE, 0.05), "gone"),
    # Resets (S1).
    Row("S1", "refused", (Reset(frames.REFUSED_STREAM),), attempts=2),
    *(Row("S1", f"reset {code}", (Reset(code),), attempts=2) for code in (0, 1, 2, 8, 11)),
    Row("S1", "reset after the answer", (OK, Reset(frames.NO_ERROR))),
    Row("S1", "reset after HEADERS 200", (Respond(200, end=False), Reset(2))),
    Row("S1", "refused after HEADERS 400", (Respond(400, end=False), Reset(7)), "refused"),
    Row("S1", "reset after HEADERS 400", (Respond(400, end=False), Reset(8)), "refused"),
    # Goodbyes (G1 to G4).
    Row("G1", "answered, then goodbye", (OK, goaway("Shutdown")), links=2),
    Row("G1", "goodbye, then answered", (goaway("Shutdown"), Wait(2.0), OK), links=2),
    Row("G1", "goodbye for all", (goaway("Shutdown", 0),), attempts=2, links=2),
    Row("G1", "goodbye and gone", (goaway("Shutdown"), Close("fin")), attempts=2, links=2),
    Row("G1", "gone without TLS's word", (GoAway(), Close("cut")), attempts=2, links=2),
    Row("G1", "in plain text", (GoAway(None, 2, b"Stream 5 does not exist"), OK), links=2),
    Row("G1", "above the limit", (GoAway(0, 0, b"Maximum active streams violated"),), attempts=2,
        links=2),
    Row("G1", "never answered, never closed", (goaway("Shutdown"),), attempts=2, links=2,
        within=13.0),
    Row("G2", "announced", (GoAway(NO_LAST, probe=False), Wait(0.3), OK, GoAway()), links=2),
    Row("G2", "announced, then real", (GoAway(NO_LAST, probe=False), Wait(0.3), GoAway(0)),
        attempts=2, links=2),
    Row("G2", "twice", (goaway("Shutdown"), GoAway(), OK), links=2),
    Row("G3", "answer first", (steps.Hold(), OK, goaway("Shutdown"), steps.Release()), links=2),
    Row("G3", "goodbye first", (steps.Hold(), goaway("Shutdown"), OK, steps.Release()), links=2),
    Row("G3", "byte by byte", (steps.Chop(1, 0.001), goaway("Shutdown"), OK), links=2),
    Row("G4", "before anything", (Greet(), goaway("BadCertificateEnvironment", 0), Close("fin")),
        when="connect", links=2, within=62.0),
    Row("G4", "and left open", (Greet(), goaway("BadCertificateEnvironment", 0)),
        when="connect", links=2, within=75.0),
    # Connections that end, or that nobody is at (C1 to C3).
    *(Row("C1", f"{how} at accept", (Close(how),), when="connect", links=2)
      for how in ("abort", "fin", "cut")),
    Row("C1", "fin after SETTINGS", (Greet(), Close("fin")), when="connect", links=2, attempts=2),
    Row("C1", "abort after SETTINGS", (Greet(), Wait(0.04), Close("abort")), when="connect",
        links=2, attempts=2),
    *(Row("C1", f"{how} after a stream", (Close(how),), attempts=2, links=2)
      for how in ("abort", "fin", "cut")),
    Row("C1", "in mid-frame", (OK, Close("cut", after=9)), attempts=2, links=2, again=True),
    Row("C2", "no SETTINGS", (), when="connect", links=2, within=25.0),
    Row("C2", "late SETTINGS", (Wait(5.0), Greet()), when="connect", within=7.0),
    Row("C3", "deaf and dumb", (Ignore(),), attempts=2, links=3, within=34.0, excuses=LATE,
        others=TWO),
    Row("C3", "only PINGs", steps.SILENCE, attempts=2, within=34.0, others=MANY),
    Row("C3", "all but PINGs", (Ignore((frames.PING,)), Wait(1.0), OK), within=3.0),
    # Windows (W1, W2).
    *(Row("W1", f"window {size}", (_setting(frames.INITIAL_WINDOW_SIZE, size), OK, Wait(1.0),
          _setting(frames.INITIAL_WINDOW_SIZE, 65_535)), others=MANY) for size in (0, 1, 10)),
    Row("W1", "negative, then open", (_setting(frames.INITIAL_WINDOW_SIZE, 1), Wait(1.0),
        _setting(frames.INITIAL_WINDOW_SIZE, 2**31 - 1), OK)),
    Row("W1", "no credit for a while", (Withhold(), OK, Wait(2.0), Credit())),
    Row("W2", "slow reads", (steps.Slow(300), OK, Wait(3.0), steps.Slow(0)), excuses=LATE),
    # Settings (M1, M2).
    *(Row("M1", f"limit {count}", (limit(count), OK, Wait(1.0), limit(1000)))
      for count in (0, 1, 5, 1000, 100_000)),
    Row("M1", "one until the first success", (OK,)),
    Row("M2", "larger frames", (_setting(frames.MAX_FRAME_SIZE, 2**24 - 1), OK)),
    Row("M2", "no header table", (_setting(frames.HEADER_TABLE_SIZE, 0), OK)),
    Row("M2", "a table lowered", (_setting(frames.HEADER_TABLE_SIZE, 4096),
        _setting(frames.HEADER_TABLE_SIZE, 64), OK)),
    Row("M2", "a header list of 8000", (_setting(frames.MAX_HEADER_LIST_SIZE, 8000), OK)),
    # Odd frames (X1).
    *(Row("X1", what, (step, OK)) for what, step in odd.LEGAL.items()),
    *(Row("X1", what, (steps.Raw(octets), Wait(0.1)), attempts=2, links=2, excuses=LATE)
      for what, octets in odd.ILLEGAL.items() if what != "a frame that claims 16 MiB"),
    Row("X1", "not SETTINGS first", (steps.Ping(), Greet()), when="connect", links=2),
    Row("X1", "continued", (odd.Fragmented(410, JSON, GONE, fragments=9),), "gone"),
    Row("X1", "padded", (odd.Fragmented(410, JSON, GONE, padding=200, empty=5),), "gone"),
    Row("X1", "some SETTINGS", (*odd.flood(50), OK)),
    Row("X1", "a flood of SETTINGS", odd.flood(1_100), attempts=2, links=2, excuses=LATE),
]  # fmt: skip


class RowTests(SynchronousTestCase):
    """One fault at a time."""

    def test_rows(self) -> None:
        """Each push ends as it should, the books balance at every step, and nobody is offended."""
        for row in ROWS:
            with self.subTest(id=row.id, what=row.what):
                row.play(AppleScene)
