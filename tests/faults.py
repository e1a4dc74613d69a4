"""What can go wrong upstream, by the names of the protocol's test doubles: R1 is an odd answer.

A storm (storm.py) draws from these lists. What needs real TLS, or figures, is in the fault
matrix alone (test_fault_matrix_apns.py, test_fault_matrix_fcm.py).
"""

from dataclasses import dataclass, field

from bouncerd.fakes import frames, odd, steps
from bouncerd.fakes import google_errors as google
from bouncerd.fakes.apns import goaway, refuse
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import (
    Close,
    Credit,
    GoAway,
    Greet,
    Ignore,
    Reset,
    Respond,
    Script,
    Settings,
    Wait,
    Withhold,
    limit,
)  # fmt: skip

OK = Respond(200)
NO_LAST = 2**31 - 1
#: A fake that reads nothing, or holds its bytes back, cannot hear acknowledgements in time.
LATE = frozenset({"SETTINGS acknowledged late", "SETTINGS never acknowledged"})
STALE = frozenset({"provider token older than 60 minutes"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to go wrong. `when`: at a "request", at "connect", on "live" connections, in the
    "weather" (the network's, or the credential's: storm.py knows by `name`).

    `excuses` are violations at the fake that it brings about itself.
    """

    id: str
    when: str
    act: Script = ()
    name: str = ""
    match: Match = field(default_factory=Match)
    excuses: frozenset[str] = frozenset()


def _requests(id_: str, *acts: Script, excuses: frozenset[str] = frozenset()) -> list[Fault]:
    return [Fault(id_, "request", act, excuses=excuses) for act in acts]


def _connects(id_: str, *acts: Script, excuses: frozenset[str] = frozenset()) -> list[Fault]:
    return [Fault(id_, "connect", act, excuses=excuses) for act in acts]


def _live(id_: str, *acts: Script, excuses: frozenset[str] = frozenset()) -> list[Fault]:
    return [Fault(id_, "live", act, excuses=excuses) for act in acts]


def _window(size: int) -> Settings:
    return Settings(((frames.INITIAL_WINDOW_SIZE, size),))


JSON = (("content-type", "application/json"),)

#: What both providers' connections may do (fcm.md 7.2, H1).
WIRE: list[Fault] = [
    *_requests("R2", (Wait(1.0), OK), (Wait(40.0), OK), steps.SILENCE),
    *_requests("R2", (Wait(16.0), Respond(200, regardless=True))),  # after the client gave up
    *_requests("R3", (Respond(503, end=False), Wait(2.0), Reset(frames.CANCEL))),
    *_requests("R3", (Respond(200, end=False), Wait(3.0), steps.Data(b"{}", end=True))),
    *_requests("S1", (Reset(frames.REFUSED_STREAM),), (Reset(frames.CANCEL),)),
    *_requests("S1", (Reset(frames.INTERNAL_ERROR),), (Reset(frames.PROTOCOL_ERROR),)),
    *_requests("S1", (Reset(frames.ENHANCE_YOUR_CALM),), (Reset(frames.NO_ERROR),)),
    *_requests("S1", (OK, Reset(frames.NO_ERROR)), (Respond(503, end=False), Reset(2))),
    Fault("S2", "request", (Reset(frames.REFUSED_STREAM),), match=Match(above=3)),
    *_requests("G1", (OK, goaway("Shutdown")), (goaway("Shutdown"), Wait(0.5), OK)),
    *_requests("G1", (GoAway(1), Close("fin")), (GoAway(0), Wait(0.1), Close("abort"))),
    *_requests("G1", (GoAway(None, frames.INTERNAL_ERROR, b"plain text"), OK)),
    *_requests("G1", (GoAway(None, frames.ENHANCE_YOUR_CALM), Wait(2.0), Close("cut"))),
    *_live("G1", (goaway("Shutdown"),), (GoAway(0), Close("abort"))),
    *_requests("G2", (GoAway(NO_LAST, probe=False), Wait(0.2), OK, goaway("Shutdown"))),
    *_requests("G2", (goaway("Shutdown"), GoAway())),
    *_live("G2", (GoAway(NO_LAST, probe=False), Wait(0.5), GoAway())),
    *_requests(
        "G3", (steps.Hold(), OK, goaway("Shutdown"), Wait(0.3), steps.Release()), excuses=LATE
    ),
    *_requests(
        "G3", (steps.Hold(), goaway("Shutdown"), OK, Wait(0.3), steps.Release()), excuses=LATE
    ),
    *_requests("G3", (steps.Chop(7, 0.001), goaway("Shutdown"), OK), excuses=LATE),
    *_connects("C1", (Close("abort"),), (Close("fin"),), (Greet(), Close("fin"))),
    *_connects("C1", (Greet(), Wait(0.2), Close("abort")), (Greet(), Close("cut", after=11))),
    *_requests("C1", (Close("abort"),), (Close("fin"),), (OK, Close("cut", after=11))),
    *_connects("C2", (), (Wait(4.0), Greet()), (Ignore(),), excuses=LATE),
    *_requests("C3", (Ignore(),), (Ignore((frames.PING,)),), excuses=LATE),
    *_live(
        "C3",
        (Ignore(),),
        (Ignore((frames.PING, frames.HEADERS, frames.DATA, frames.RST_STREAM)),),
        excuses=LATE,
    ),
    Fault("C4", "weather", name="refused"),
    Fault("C4", "weather", name="silent"),
    Fault("C4", "weather", name="slow"),
    Fault("C4", "weather", name="crowded"),
    *_requests("W1", (_window(0), OK, Wait(4.0), _window(65_535))),
    *_requests("W1", (_window(1), OK, Wait(0.2), _window(65_535))),
    *_requests("W1", (_window(10), OK, Wait(1.0), _window(65_535))),
    *_requests("W1", (_window(65_535), OK), (_window(2**31 - 1), OK)),
    *_requests("W1", (_window(10**6), Withhold(), OK, Wait(6.0), Credit())),
    *_live("W1", (Withhold(), Wait(3.0), Credit()), (_window(30), Wait(2.0), _window(65_535))),
    *_requests("W2", (steps.Slow(900), OK, Wait(8.0), steps.Slow(0)), excuses=LATE),
    *_live("W2", (steps.Slow(4_000), Wait(5.0), steps.Slow(0)), excuses=LATE),
    *_requests("M1", (limit(0), OK, Wait(6.0), limit(1000)), (limit(1), OK), (limit(5), OK)),
    *_requests("M1", (limit(1000), OK), (limit(100_000), OK)),
    *_live("M1", (limit(1), Wait(2.0), limit(1000)), (limit(0), Wait(3.0), limit(100))),
    *_live("M2", (Settings(((frames.MAX_FRAME_SIZE, 2**24 - 1),)),)),
    *_live("M2", (Settings(((frames.HEADER_TABLE_SIZE, 0),)),)),
    *_requests("M2", (Settings(((frames.HEADER_TABLE_SIZE, 100),)), OK)),
    *_requests("M2", (Settings(((frames.MAX_HEADER_LIST_SIZE, 8_000),)), OK)),
    *(Fault("X1", "live", (steps.Raw(octets),), excuses=LATE) for octets in odd.ILLEGAL.values()),
    *(Fault("X1", "request", (step, OK)) for step in odd.LEGAL.values()),
    *_requests("X1", (odd.Fragmented(200, fragments=4),), (odd.Fragmented(200, padding=30),)),
    *_requests("X1", (odd.Fragmented(503, body=b"x" * 50, padding=200, empty=3),)),
    *_live("X1", odd.flood(20), odd.flood(1_100), excuses=LATE),
    *_requests("X1", (steps.Ping(), OK)),
]

#: Apple's own.
APPLE: list[Fault] = [
    *WIRE,
    *_requests("R1", (refuse(503, "ServiceUnavailable"),), (refuse(503, "Shutdown"),)),
    *_requests("R1", (refuse(500, "InternalServerError"),), (refuse(429, "TooManyRequests"),)),
    *_requests("R1", (refuse(410, "Unregistered", 5_000),), (refuse(400, "PayloadTooLarge"),)),
    *_requests("R1", (refuse(400, "NeverHeardOf", pieces=9),), (Respond(400, body=b"{"),)),
    *_requests("R1", (Respond(410, empty_end=True),), (Respond(503),), (Respond(599),)),
    *_requests("R1", (refuse(400, "BadDeviceToken", trailers=(("a", "b"),)),)),
    *_requests("R1", (refuse(410, "ExpiredToken", empty_end=True),), (Respond(302, body=b"<p>"),)),
    *_requests("R3", steps.trickle(410, JSON, b'{"reason":"Unregistered"}', 0.05)),
    *_requests("G1", (goaway("BadCertificate", last_stream=0), Close("fin"))),
    *_connects("G4", (Greet(), goaway("BadCertificateEnvironment", 0), Close("fin"))),
    *_connects("G4", (Greet(), goaway("BadCertificateEnvironment", 0))),
    *_requests("M1", (refuse(400, "BadDeviceToken"), limit(1))),
    Fault("A1", "weather", name="fast", excuses=STALE),
    Fault("A1", "weather", name="revoked"),
    *_requests("A1", (refuse(403, "InvalidProviderToken"),)),
    *_requests("A1", (refuse(403, "UnrelatedKeyIdInToken"),)),
    *_requests("A1", (refuse(403, "BadEnvironmentKeyIdInToken"),)),
    *_requests("A1", (refuse(429, "TooManyProviderTokenUpdates"),)),
    *_requests("A1", (refuse(400, "TopicDisallowed"),)),
    Fault("A3", "weather", name="wedged", excuses=STALE),
]

#: Google's own.
GOOGLE: list[Fault] = [
    *(Fault("H1", each.when, each.act, each.name, each.match, each.excuses) for each in WIRE),
    *_requests("F1", (google.INTERNAL,), (google.page(502, "Oops"),), (Respond(503),)),
    *_requests("F1", (Respond(400, google.JSON, b'{"error":'),), (Respond(500, body=b"\xff"),)),
    *_requests("F2", (google.INVALID_TOKEN,), (google.INVALID_TOKEN_BY_TEXT,), (google.TOO_BIG,)),
    *_requests("F2", (google.ANDROID_TOO_BIG,), (google.INVALID_ARGUMENT,)),
    *_requests("F3", (google.EXPIRED_ACCESS,), (google.THIRD_PARTY_AUTH,)),
    Fault("F3", "weather", name="revoked"),
    *_requests("F4", (google.SENDER_ID_MISMATCH,), (google.NO_PERMISSION,)),
    *_requests("F4", (google.SERVICE_DISABLED,)),
    *_requests("F5", (google.UNREGISTERED,), (google.NO_PROJECT,), (google.NO_PAGE,)),
    *_requests("F6", (google.QUOTA_EXCEEDED,)),
    *(
        Fault("F6", "request", (google.retry_later(google.QUOTA_EXCEEDED, said),))
        for said in ("12", "0", "-5", "1000000000", "soon")
    ),
    Fault("F6", "weather", name="quota"),
    *_requests("F7", (google.UNAVAILABLE,), (google.BAD_GATEWAY,), (google.GATEWAY_TIMEOUT,)),
    *_requests("F7", (google.retry_later(google.UNAVAILABLE, "15"),)),
    *_requests("F8", (Respond(200, google.JSON, b"{}"),), (Respond(200, body=b"<html>"),)),
    *_requests("F8", (Respond(200, google.JSON, b'{"name": 5}'),)),
    Fault("T1", "weather", name="no token"),
    *_requests("H2", (GoAway(None, 1, b"exceeded_max_concurrent_streams"), Close())),
    *_live("H2", (GoAway(None, frames.ENHANCE_YOUR_CALM, b"too_many_pings"), Close())),
    *_live("H3", (limit(1), Wait(2.0), limit(100))),
    *_connects("H3", (Wait(2.0), Greet())),
]
