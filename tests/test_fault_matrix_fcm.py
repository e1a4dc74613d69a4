"""Every behaviour of Google's (fcm.md 7.2), one by one."""

from itertools import pairwise
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from bouncerd.bearer import GoogleAssertion
from bouncerd.fakes import frames, steps
from bouncerd.fakes import google_errors as google
from bouncerd.fakes.google_tokens import HANG, Canned, canned_error
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Close, GoAway, Greet, Respond, Wait, limit
from bouncerd.oauth import AccessToken
from tests.fakes_kit import account
from tests.faults import OK
from tests.matrix import Row, shows
from tests.scenes import GoogleScene
from tests.test_fault_matrix_apns import ROWS as APPLES

JSON = google.JSON
#: What Apple's answers mean is Apple's; what connections do is everybody's. Google wants ten
#: seconds before anything of unknown fate is sent again, and has no credentials in a GOAWAY.
H1 = [
    Row("H1", f"{row.id}: {row.what}", row.act, row.end, row.when, row.attempts, row.links,
        row.within + 13.0 * (row.attempts - 1), row.again, row.excuses, {})
    for row in APPLES
    if row.id not in ("R1", "R3", "G4") and "limit" not in row.what and "SETTINGS" not in row.what
    and row.end == "delivered" and not row.others
]  # fmt: skip


def _later(answer: Respond, said: str) -> Respond:
    return google.retry_later(answer, said)


ROWS = [
    *H1,
    Row("F1", "503 without a body", (Respond(503),), attempts=2, within=14.0),
    Row("F1", "HTML", (google.page(500, "Oops"),), attempts=2, within=14.0),
    Row("F1", "details in any order", (google.invalid(
        "x", google.bad_field("message.data", "no"), google.fcm_error("INVALID_ARGUMENT")),),
        "refused"),
    Row("F1", "truncated JSON", (Respond(400, JSON, b'{"error": {"code"'),), "refused"),
    Row("F1", "an unknown code", (google.invalid("x", google.fcm_error("WHATEVER")),), "refused"),
    Row("F1", "a wrong content type", (Respond(404, google.HTML, google.UNREGISTERED.body),),
        "gone"),
    Row("F2", "bad token by field", (google.INVALID_TOKEN,), "gone"),
    Row("F2", "bad token by text", (google.INVALID_TOKEN_BY_TEXT,), "gone"),
    Row("F2", "bad payload", (google.invalid("x", google.bad_field("message.data", "no")),),
        "refused"),
    Row("F2", "too big", (google.TOO_BIG,), "refused"),
    Row("F2", "too big, by Android", (google.ANDROID_TOO_BIG,), "refused"),
    Row("F3", "an expired access token", (google.EXPIRED_ACCESS,), attempts=2, within=8.0),
    Row("F3", "Apple's credential at Google", (google.THIRD_PARTY_AUTH,), attempts=2, within=80.0),
    Row("F4", "another project's token", (google.SENDER_ID_MISMATCH,), "gone"),
    Row("F4", "no permission", (google.NO_PERMISSION,), attempts=2, within=80.0),
    Row("F4", "API not enabled", (google.SERVICE_DISABLED,), attempts=2, within=80.0),
    Row("F5", "unregistered", (google.UNREGISTERED,), "gone"),
    Row("F5", "no such project", (google.NO_PROJECT,), attempts=2, within=80.0),
    Row("F5", "no such page", (google.NO_PAGE,), attempts=2, within=80.0),
    Row("F6", "in 20 s", (_later(google.QUOTA_EXCEEDED, "20"),), attempts=2, within=27.0),
    Row("F6", "at a date", (_later(google.QUOTA_EXCEEDED, "Fri, 15 Jan 2027 08:00:30 GMT"),),
        attempts=2, within=39.0),
    Row("F6", "some time", (google.QUOTA_EXCEEDED,), attempts=2, within=77.0),
    *(Row("F6", f"Retry-After: {said}", (_later(google.QUOTA_EXCEEDED, said),), attempts=2,
          within=77.0) for said in ("0", "-7", "soon")),
    Row("F6", "in 30 years", (_later(google.QUOTA_EXCEEDED, "1000000000"),), "expired"),
    Row("F7", "500", (google.INTERNAL,), attempts=2, within=14.0),
    Row("F7", "502", (google.BAD_GATEWAY,), attempts=2, within=14.0),
    Row("F7", "503", (google.UNAVAILABLE,), attempts=2, within=14.0),
    Row("F7", "503 for 30 s", (_later(google.UNAVAILABLE, "30"),), attempts=2, within=39.0),
    Row("F7", "504", (google.GATEWAY_TIMEOUT,), attempts=2, within=14.0),
    Row("F8", "no name", (Respond(200, JSON, b"{}"),)),
    Row("F8", "an odd name", (Respond(200, JSON, b'{"name": 5}'),)),
    Row("F8", "no JSON", (Respond(200, (), b"<html>"),)),
    Row(
        "H1", "R3: byte by byte", steps.trickle(404, JSON, google.UNREGISTERED.body, 0.005), "gone"
    ),
    Row("H2", "above the limit",
        (GoAway(0, frames.PROTOCOL_ERROR, b"exceeded_max_concurrent_streams"), Close()),
        attempts=2, links=2),
    Row("H2", "too many pings", (GoAway(None, frames.ENHANCE_YOUR_CALM, b"too_many_pings"), OK),
        links=2),
    Row("H3", "SETTINGS late", (Wait(2.0), Greet()), when="connect"),
]  # fmt: skip


class RowTests(SynchronousTestCase):
    """One fault at a time."""

    def test_rows(self) -> None:
        """Each push ends as it should, the books balance at every step, and nobody is offended."""
        for row in ROWS:
            with self.subTest(id=row.id, what=row.what):
                row.play(GoogleScene)


class ServiceTests(SynchronousTestCase):
    """What takes more than one message to see."""

    def begin(self, **others: Any) -> GoogleScene:
        """Begin with a connection."""
        scene = GoogleScene(**others)
        scene.start()
        scene.send(1)
        scene.clock.advance(2.0)
        return scene

    def finish(self, scene: GoogleScene, **ends: int) -> None:
        """End it all; the pushes have come to these ends."""
        scene.stop()
        scene.judge()
        self.assertEqual(scene.totals(), ends)

    @shows("F3")
    def test_expired_token(self) -> None:
        """A token that ran out unseen: everything in flight is sent once more with the next one."""
        scene = self.begin()
        scene.tokens.revoke()
        scene.send(20)
        scene.clock.advance(15.0)
        self.assertEqual(scene.front.ledger.verdicts()["401 UNAUTHENTICATED"], 20)
        self.finish(scene, delivered=21)

    @shows("F3")
    def test_unauthorized_for_ever(self) -> None:
        """401 for ever: each message is tried twice, then a probe a minute; nothing is lost."""
        scene = self.begin()
        scene.front.on(Match(), google.EXPIRED_ACCESS)
        scene.send(12)
        scene.clock.advance(200.0)
        self.assertLessEqual(scene.front.ledger.seen, 1 + 2 * 12 + 12 + 6)
        scene.front.rules.clear()
        scene.clock.advance(380.0)
        self.finish(scene, delivered=13)

    @shows("F6")
    def test_device_quota(self) -> None:
        """One device with too many messages waits; the others do not."""
        scene = self.begin()
        scene.front.on(Match(token="00000001"), google.QUOTA_EXCEEDED, count=1)
        scene.send(20)
        scene.clock.advance(3.0)
        self.assertEqual(scene.totals(), {"delivered": 20})
        scene.clock.advance(80.0)
        self.finish(scene, delivered=21)

    @shows("F6")
    def test_project_quota(self) -> None:
        """A project's quota of 40 a minute: the rest waits for the next minutes."""
        scene = self.begin()
        scene.front.quota = 40
        scene.send(100)
        scene.clock.advance(400.0)
        self.finish(scene, delivered=101)

    @shows("F7")
    def test_ten_failures(self) -> None:
        """Three failures, then success: later each time."""
        scene = self.begin()
        scene.front.on(Match(), google.UNAVAILABLE, count=3)
        (push,) = scene.send(1)
        scene.clock.advance(120.0)
        sent = [sent for sent, _ in scene.times[push.id]]
        gaps = [later - earlier for earlier, later in pairwise(sent)]
        self.assertTrue(all(10 * 2**n <= gap <= 13 * 2**n for n, gap in enumerate(gaps)), gaps)
        self.finish(scene, delivered=2)

    @shows("H2")
    def test_no_pings(self) -> None:
        """An idle connection is never asked whether it lives, and is left in good time."""
        scene = self.begin()
        scene.clock.advance(400.0)
        (visit,) = scene.front.ledger.visits
        self.assertEqual((visit.pings, visit.goaway_sent), (0, []))
        self.finish(scene, delivered=1)

    @shows("H3")
    def test_limit_in_a_burst(self) -> None:
        """The limit falls to one and rises again in mid-burst."""
        scene = self.begin()
        scene.send(400)
        scene.clock.advance(0.03)
        for streams in (1, 100, 1, 100):
            scene.front.tell(limit(streams))
            scene.clock.advance(0.5)
        scene.clock.advance(5.0)
        self.finish(scene, delivered=401)

    @shows("H1")
    def test_refused_connections(self) -> None:
        """Connections that are refused (C4) are tried again; callers do not wait for that."""
        scene = GoogleScene()
        scene.network.weather = "refused"
        scene.start()
        scene.send(3)
        scene.clock.advance(60.0)
        self.assertTrue(all(call.settled.called for call in scene.calls))
        scene.network.weather = "fine"
        scene.clock.advance(70.0)
        self.finish(scene, delivered=3)

    @shows("H1")
    def test_slow_reader(self) -> None:
        """A server that reads little by little (W2) gets little by little."""
        scene = self.begin(answer_within=120.0, quiet=200.0)
        scene.front.tell(steps.Slow(4_000))
        scene.send(100)
        scene.clock.advance(20.0)
        self.finish(scene, delivered=101)


@implementer(IAgent)
class Wire:
    """The way to the token endpoint, in memory; `broken` refuses connections."""

    def __init__(self, scene: "TokenScene") -> None:
        self.broken = False
        self._agent = RequestTraversalAgent(scene.tokens)
        scene.clock.callLater(0.1, self._flush, scene)

    def request(self, *arguments: object, **others: object) -> "Deferred[IResponse]":
        """Send a request."""
        if self.broken:
            return fail(Failure(Refused()))
        asked: Deferred[IResponse] = self._agent.request(*arguments, **others)
        return asked

    def _flush(self, scene: "TokenScene") -> None:
        """Let bytes through, as the clock goes."""
        self._agent.flush()
        if not scene.over:
            scene.clock.callLater(0.1, self._flush, scene)


class TokenScene(GoogleScene):
    """A lane whose access tokens come from Google's endpoint, as in the daemon."""

    over = False

    def start(self) -> None:
        """Fetch a token and connect."""
        given = account()
        assertion = GoogleAssertion(
            given["client_email"],
            given["private_key_id"],
            given["private_key"].encode(),
            given.get("token_uri", "https://oauth2.googleapis.com/token"),
        )
        self.wire = Wire(self)
        self.access = AccessToken("fcm", assertion, self.wire, self.clock, self.now, lambda: 0.5)
        self.access.on_change = self.lane.pump
        self.access.start()
        super().start()

    def current_token(self) -> str | None:
        """Return the access token of now."""
        return self.access.current() if hasattr(self, "access") else None

    def invalidate(self, token: str) -> None:
        """Have it replaced."""
        self.access.invalidate(token)

    def stop(self, within: float = 10.0) -> None:
        """Stop all of it."""
        self.access.stop()
        self.over = True
        super().stop(within)


class TokenEndpointTests(SynchronousTestCase):
    """What Google's token endpoint may do (T1): pushes wait, and go when there is a token."""

    def play(self, *answers: Canned, seconds: float) -> TokenScene:
        """Have the endpoint answer so first; five pushes are delivered in time."""
        scene = TokenScene()
        scene.tokens.script.extend(answers)
        scene.start()
        scene.send(5)
        scene.clock.advance(seconds)
        scene.stop()
        scene.judge()
        self.assertEqual(scene.totals(), {"delivered": 5})
        self.assertEqual(scene.tokens.violations, [])
        return scene

    @shows("T1")
    def test_errors(self) -> None:
        """Errors that pass are asked again in seconds, the operator's own once a minute."""
        for answer, seconds in (
            (Canned(503, b""), 5.0),
            (Canned(500, b"<html>"), 5.0),
            (Canned(429, {}), 5.0),
            (canned_error("internal_failure"), 5.0),
            (canned_error("invalid_grant", "Invalid JWT Signature."), 65.0),
            (canned_error("invalid_client", status=401), 65.0),
            (Canned(200, b"{"), 5.0),
            (Canned(200, {"token_type": "Bearer"}), 5.0),
        ):
            with self.subTest(answer=answer):
                self.play(answer, seconds=seconds)

    @shows("T1")
    def test_many_errors(self) -> None:
        """5xx six times in a row: slower each time, one call at a time."""
        scene = self.play(*[Canned(503, b"")] * 6, seconds=90.0)
        self.assertEqual(len(scene.tokens.calls), 7)

    @shows("T1")
    def test_delay_and_hang(self) -> None:
        """A late answer is waited for; none within ten seconds is as good as none."""
        good = {"access_token": "late", "expires_in": 3599, "token_type": "Bearer"}
        self.play(Canned(200, good, 5.0), Canned(503, b""), seconds=40.0)
        self.play(Canned(200, good, HANG), seconds=20.0)

    @shows("T1")
    def test_refused(self) -> None:
        """An endpoint that refuses connections is asked again."""
        scene = TokenScene()
        scene.start()
        scene.wire.broken = True
        scene.clock.advance(0.5)
        scene.tokens.revoke()
        scene.send(5)
        scene.clock.advance(20.0)
        self.assertEqual(scene.totals(), {})
        scene.wire.broken = False
        scene.clock.advance(70.0)
        scene.stop()
        scene.judge()
        self.assertEqual(scene.totals(), {"delivered": 5})

    @shows("T1")
    def test_lifetimes(self) -> None:
        """Tokens of a second, of 30, of none, of words: pushes go, and nobody is stormed."""
        for lifetime in (1, 30, None, "3599"):
            with self.subTest(lifetime=lifetime):
                scene = TokenScene()
                scene.tokens.expires_in = lifetime
                scene.start()
                for _ in range(12):
                    scene.send(1)
                    scene.clock.advance(10.0)
                calls = len(scene.tokens.calls)
                self.assertTrue(1 <= calls <= 13, calls)
                scene.clock.advance(40.0)
                scene.stop()
                scene.judge()
                self.assertEqual(scene.totals(), {"delivered": 12})
                self.assertEqual(scene.tokens.violations, [])

    @shows("T1")
    def test_revoked_early(self) -> None:
        """A token revoked before its time is replaced by one call, and the messages go again."""
        scene = TokenScene()
        scene.start()
        scene.send(1)
        scene.clock.advance(15.0)
        scene.tokens.revoke()
        scene.send(10)
        scene.clock.advance(15.0)
        scene.stop()
        scene.judge()
        self.assertEqual(scene.totals(), {"delivered": 11})
        self.assertEqual((len(scene.tokens.calls), scene.tokens.violations), (2, []))
