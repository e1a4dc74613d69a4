"""Google's access tokens: always a fresh one at hand, and no storm when there is none."""

import itertools
import json
from collections.abc import Callable
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from treq.testing import RequestTraversalAgent
from twisted.internet import error as network
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import ITransport
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from bouncerd.oauth import AccessToken, AccountRefused, Down, Grant, State, judge
from bouncerd.words import NotConnected

Render = Callable[[Request], bytes | int]
WALL = 1_785_000_000.0


class Assertion:
    """Stands for the service account."""

    token_uri = "https://oauth2.example/token"

    def sign(self, now: float) -> str:
        """Return something to recognise."""
        return f"assertion of {now:.0f}"


class Endpoint(Resource):
    """Google's token endpoint: does what it is told next, and counts."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.script: list[Render] = []
        self.forms: list[dict[bytes, list[bytes]]] = []
        self.issued = 0
        self.lifetime: object = 3600

    def render(self, request: Request) -> bytes | int:
        self.forms.append(request.args or {})
        if self.script:
            return self.script.pop(0)(request)
        self.issued += 1
        return granted(f"ya29.{self.issued}", self.lifetime)


def granted(token: object, lifetime: object = 3600) -> bytes:
    """Return the body that grants a token."""
    return json.dumps(
        {"access_token": token, "expires_in": lifetime, "token_type": "Bearer"}
    ).encode()


def refused(error: str, description: str = "") -> bytes:
    """Return the body that refuses one."""
    return json.dumps({"error": error, "error_description": description}).encode()


def answer(status: int, body: bytes) -> Render:
    """Answer so."""

    def render(request: Request) -> bytes:
        request.setResponseCode(status)
        return body

    return render


def silence(request: Request) -> int:
    """Take the request and say nothing."""
    return NOT_DONE_YET


@implementer(IAgent)
class Unreachable:
    """Stands for a network on which no request gets an answer."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason
        self.asked = 0

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803 (IAgent's)
    ) -> Deferred[IResponse]:
        """Fail at once."""
        self.asked += 1
        return fail(self.reason)


class Laboratory(SynchronousTestCase):
    """An account, an endpoint and a clock, in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.traversal = RequestTraversalAgent(self.endpoint)
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        self.changes: list[str | None] = []
        self.token = self.account(self.traversal)

    def account(self, agent: IAgent) -> AccessToken:
        """Return a keeper of tokens that asks there; half the jitter that there may be."""
        token = AccessToken(
            "fcm", Assertion(), agent, self.clock, lambda: WALL + self.clock.seconds(), lambda: 0.5
        )
        token.on_change = lambda: self.changes.append(token.current())
        return token

    def pump(self) -> None:
        """Let what is written arrive."""
        for _ in range(4):
            self.clock.advance(0)
            self.traversal.flush()

    def start(self) -> None:
        """Start, and let the first exchange happen."""
        self.token.start()
        self.pump()

    def wait(self, seconds: float) -> None:
        """Let time pass in small steps, as it does."""
        steps = max(int(seconds), 1)
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            self.traversal.flush()
        self.pump()

    @property
    def asked(self) -> int:
        """How often the endpoint was asked."""
        return len(self.endpoint.forms)

    def logged(self) -> str:
        """Return all that was logged."""
        return "\n".join(formatEvent(event) for event in self.events)


class ExchangeTests(Laboratory):
    """One exchange."""

    def test_token_is_there_after_the_first_exchange(self) -> None:
        """The endpoint is asked as fcm.md 2.2 says, and its token used."""
        self.assertEqual((self.token.current(), self.token.state), (None, State("starting")))
        self.start()
        self.assertEqual((self.token.current(), self.token.state), ("ya29.1", State("ok")))
        self.assertEqual(self.changes, ["ya29.1"])
        self.assertEqual(
            self.endpoint.forms,
            [
                {
                    b"grant_type": [b"urn:ietf:params:oauth:grant-type:jwt-bearer"],
                    b"assertion": [f"assertion of {WALL:.0f}".encode()],
                }
            ],
        )

    def test_silent_endpoint_is_given_up_after_ten_seconds(self) -> None:
        """An endpoint that hangs does not hang us."""
        self.endpoint.script = [silence]
        self.start()
        self.wait(9.9)
        self.assertEqual(self.token.state, State("starting"))
        self.wait(0.2)
        self.assertEqual(self.token.state, State("down", "timeout"))
        self.wait(1)
        self.assertEqual(self.token.current(), "ya29.1")

    def test_endpoint_that_stops_in_mid_answer_is_hung_up_on(self) -> None:
        """The ten seconds are for the whole answer; the connection is closed."""
        ends: list[Failure] = []

        def half(request: Request) -> int:
            request.write(granted("ya29.half")[:20])
            request.notifyFinish().addErrback(ends.append)
            return NOT_DONE_YET

        self.endpoint.script = [half]
        self.start()
        self.wait(10.1)
        self.assertEqual(self.token.state, State("down", "timeout"))
        self.assertEqual(len(ends), 1)

    def test_answer_that_does_not_end_is_hung_up_on(self) -> None:
        """An endpoint cannot fill our memory."""
        self.endpoint.script = [answer(200, b" " * 70_000 + granted("ya29.big"))]
        self.start()
        self.assertEqual(self.token.state, State("down", "an answer that does not end"))

    def test_answer_that_breaks_off(self) -> None:
        """Half an answer is none."""

        def break_off(request: Request) -> int:
            request.setHeader(b"content-length", b"500")
            request.write(b'{"access_token": ')
            cast(ITransport, request.transport).loseConnection()
            return NOT_DONE_YET

        self.endpoint.script = [break_off]
        self.start()
        self.assertEqual(self.token.state, State("down", "an answer that broke off"))

    def test_unreachable_endpoint_is_named_by_class(self) -> None:
        """What went wrong on the network is told by the names of the exceptions, no more."""
        secret = Failure(network.ConnectionRefusedError("secret.example"))
        for reason, told in (
            (network.ConnectionRefusedError("secret.example"), "ConnectionRefusedError"),
            (ResponseNeverReceived([secret]), "ResponseNeverReceived: ConnectionRefusedError"),
            (NotConnected("the proxy refuses: 403"), "the proxy refuses: 403"),
        ):
            token = self.account(Unreachable(reason))
            token.start()
            self.assertEqual(token.state, State("down", told))
            token.stop()
        self.assertNotIn("secret", self.logged())

    def test_redirects_are_not_followed(self) -> None:
        """An assertion goes to no address but the account's."""

        def elsewhere(request: Request) -> bytes:
            request.redirect(b"https://elsewhere.example/")
            return b""

        self.endpoint.script = [elsewhere]
        self.start()
        self.assertEqual(self.token.state, State("refused", "unknown error (HTTP 302)"))
        self.assertEqual(self.asked, 1)


class JudgingTests(SynchronousTestCase):
    """What the endpoint's answers mean: every row of fcm.md 2.2."""

    def test_refusals_that_the_operator_must_mend(self) -> None:
        """A documented code is told, and of its text what it is about."""
        clock = (
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable"
            " timeframe. Check your iat and exp values in the JWT claim."
        )
        for error, description, told in (
            ("invalid_grant", "Invalid JWT Signature.", "its key was deleted or disabled"),
            ("invalid_grant", clock, "is this host's clock right?"),
            ("invalid_grant", "Invalid grant: account not found", "no such account"),
            ("invalid_grant", "The account has been deleted", "no such account"),
            ("invalid_grant", "tulip", ""),
            ("invalid_client", "The OAuth client was not found.", ""),
            ("unauthorized_client", "", ""),
            ("invalid_scope", "", ""),
        ):
            for status in (400, 401):
                with self.assertRaises(AccountRefused) as caught:
                    judge(status, refused(error, description))
                wanted = f"{error} ({told})" if told else error
                self.assertEqual(str(caught.exception), wanted)

    def test_unknown_refusals_are_not_repeated(self) -> None:
        """A code that is not documented stays where it came from."""
        bodies = (b"", b"<html>", b"[]", refused("tulip"), json.dumps({"error": {"a": 1}}).encode())
        for body in bodies:
            with self.assertRaises(AccountRefused) as caught:
                judge(404, body)
            self.assertEqual(str(caught.exception), "unknown error (HTTP 404)")

    def test_passing_troubles(self) -> None:
        """Statuses and codes that Google calls temporary are tried again."""
        for status in (408, 429, 500, 502, 503, 504):
            for body in (b"<html>", refused("invalid_grant")):
                self.assertRaises(Down, judge, status, body)
        for word in ("internal_failure", "server_error", "temporarily_unavailable"):
            self.assertRaises(Down, judge, 400, refused(word))
            self.assertRaises(Down, judge, 400, refused("invalid_grant", word))

    def test_lifetimes(self) -> None:
        """The endpoint's word counts, also in quotes; said or believed, there is a bound."""
        for said, lifetime in (
            (3599, 3599.0),
            ("30", 30.0),
            (1, 1.0),
            (None, 600.0),
            ("soon", 600.0),
            (True, 600.0),
            (10**30, 43_200.0),
        ):
            self.assertEqual(judge(200, granted("ya29.x", said)), Grant("ya29.x", lifetime))
        self.assertEqual(judge(200, b'{"access_token": "t"}'), Grant("t", 600.0))

    def test_grants_that_cannot_be_used(self) -> None:
        """A token that is missing, run out, or would break a header is none."""
        for token in (None, "", 5, "a b", "a\r\nb", "é", "x" * 5000):
            self.assertRaises(Down, judge, 200, granted(token))
        for lifetime in (0, -1):
            self.assertRaises(Down, judge, 200, granted("ya29.x", lifetime))
        self.assertRaises(Down, judge, 200, b'{"access_token": "t", "token_type": "mac"}')
        for body in (b"", b"<html>", b"[]"):
            self.assertRaises(Down, judge, 200, body)

    def test_token_is_not_shown(self) -> None:
        """A traceback or a log line with a grant gives nothing away."""
        self.assertNotIn("ya29", repr(Grant("ya29.secret", 60.0)))

    @given(st.integers(100, 599), st.binary(max_size=200))
    def test_any_answer_is_judged(self, status: int, body: bytes) -> None:
        """Whatever comes back, it is a grant or one of the two refusals, in our own words."""
        try:
            judge(status, body)
        except (Down, AccountRefused) as refusal:
            self.assertTrue(str(refusal).startswith(("HTTP ", "unknown error (HTTP ", "an answer")))


class KeepingTests(Laboratory):
    """The token over time."""

    def test_token_is_replaced_early_and_the_old_one_used_until_then(self) -> None:
        """Five to six minutes before its end the next is fetched; nobody notices."""
        self.start()
        self.wait(3600 - 331)
        self.assertEqual((self.asked, self.token.current()), (1, "ya29.1"))
        self.wait(2)
        self.assertEqual((self.asked, self.token.current()), (2, "ya29.2"))
        self.assertEqual(self.changes, ["ya29.1", "ya29.2"])

    def test_old_token_serves_until_30_seconds_before_its_end(self) -> None:
        """While Google's endpoint is down the old token is used, not longer; the log tells."""
        self.start()
        self.endpoint.script = [answer(503, b"")] * 20
        self.wait(3569)
        self.assertEqual((self.token.current(), self.token.state.name), ("ya29.1", "down"))
        self.assertIn("the old one is still good", self.logged())
        self.wait(2)
        self.assertIsNone(self.token.current())
        self.assertEqual(self.changes, ["ya29.1", None])
        self.assertIn("the access token has run out", self.logged())

    def test_new_token_is_announced_after_an_outage(self) -> None:
        """When the endpoint is back, pushes go on."""
        self.endpoint.script = [answer(503, b"")] * 3
        self.start()
        self.assertEqual(self.token.state, State("down", "HTTP 503"))
        self.wait(10)
        self.assertEqual((self.token.state, self.changes), (State("ok"), ["ya29.1"]))
        self.assertIn("gives access tokens again", self.logged())

    def test_back_off_doubles_to_a_minute(self) -> None:
        """An endpoint that is down is asked less and less often, once a minute at last."""
        agent = Unreachable(network.ConnectionRefusedError())
        token = self.account(agent)
        token.start()
        asked_at = [0.0]
        while self.clock.seconds() < 400:
            before = agent.asked
            self.clock.advance(0.25)
            if agent.asked > before:
                asked_at.append(self.clock.seconds())
        gaps = [after - before for before, after in itertools.pairwise(asked_at)]
        self.assertEqual(gaps[:8], [0.75, 1.5, 3.0, 6.0, 12.0, 24.0, 45.0, 45.0])
        token.stop()

    def test_outage_is_logged_once(self) -> None:
        """An outage of an hour is not sixty lines."""
        self.endpoint.script = [answer(503, b"")] * 100
        self.start()
        self.wait(600)
        self.assertEqual(self.logged().count("no new access token"), 1)

    def test_refused_account_is_tried_every_minute(self) -> None:
        """The operator's fault is told by the state, and seen to be mended within a minute."""
        self.endpoint.script = [answer(400, refused("invalid_grant", "Invalid JWT Signature."))] * 2
        self.start()
        wanted = State("refused", "invalid_grant (its key was deleted or disabled)")
        self.assertEqual(self.token.state, wanted)
        self.wait(59)
        self.assertEqual(self.asked, 1)
        self.wait(2)
        self.assertEqual((self.asked, self.token.state), (2, wanted))
        self.wait(60)
        self.assertEqual((self.token.current(), self.token.state), ("ya29.1", State("ok")))

    def test_refused_account_is_an_alert(self) -> None:
        """The operator is woken once when Google refuses the account; not by an outage."""
        self.endpoint.script = [
            answer(503, b""),
            answer(400, refused("invalid_grant")),
            answer(503, b""),
            answer(400, refused("invalid_grant")),
        ]
        self.start()
        self.wait(200)
        self.assertEqual(self.logged().count("no new access token"), 4)
        alerts = [event for event in self.events if "alert" in event]
        self.assertEqual(
            [(each["alert"], each["account"], each["reason"]) for each in alerts],
            [("credential-refused", "fcm", "invalid_grant")],
        )

    def test_short_lived_tokens_make_no_storm(self) -> None:
        """Tokens good for half a minute are used and replaced; never more often than every 10 s."""
        self.endpoint.lifetime = 30
        self.start()
        self.wait(14)
        self.assertEqual((self.asked, self.token.current()), (1, "ya29.1"))
        self.wait(2)
        self.assertEqual((self.asked, self.token.current()), (2, "ya29.2"))
        self.endpoint.lifetime = 1
        self.wait(120)
        self.assertLessEqual(self.asked, 16)

    def test_nothing_secret_is_logged(self) -> None:
        """Neither assertion nor token nor the endpoint's words are in the log."""
        self.endpoint.script = [
            answer(400, refused("tulip", "tulip")),
            answer(503, b"tulip"),
            answer(200, granted("tulip tulip")),
        ]
        self.start()
        self.wait(200)
        self.assertEqual(self.token.current(), "ya29.1")
        self.assertNotRegex(self.logged(), "tulip|ya29|assertion of")


class InvalidatingTests(Laboratory):
    """A token that FCM refused."""

    def test_refused_token_is_replaced_at_once(self) -> None:
        """A token revoked early is not used again, and a new one is fetched."""
        self.start()
        self.wait(60)
        self.token.invalidate("ya29.1")
        self.assertIsNone(self.token.current())
        self.pump()
        self.assertEqual(self.token.current(), "ya29.2")

    def test_many_refusals_of_one_token_are_one_refresh(self) -> None:
        """A hundred pushes in flight find the token revoked: it is replaced once."""
        self.start()
        self.wait(60)
        for _ in range(100):
            self.token.invalidate("ya29.1")
        self.pump()
        self.token.invalidate("ya29.1")
        self.pump()
        self.assertEqual((self.asked, self.token.current()), (2, "ya29.2"))

    def test_never_more_often_than_every_ten_seconds(self) -> None:
        """If Google refuses each new token, its endpoint does not suffer."""
        self.start()
        for _ in range(60):
            current = self.token.current()
            if current is not None:
                self.token.invalidate(current)
            self.wait(1)
        self.assertLessEqual(self.asked, 7)
        self.assertGreaterEqual(self.asked, 6)

    def test_refusal_during_a_refresh_waits_for_it(self) -> None:
        """There is one exchange at a time."""
        self.start()
        self.endpoint.script = [silence]
        self.wait(3600 - 329)
        self.assertEqual(self.asked, 2)
        self.token.invalidate("ya29.1")
        self.wait(5)
        self.assertEqual((self.asked, self.token.current()), (2, None))
        self.wait(7)
        self.assertEqual((self.asked, self.token.current()), (3, "ya29.2"))

    def test_listeners_are_not_called_back_from_within(self) -> None:
        """Whoever reports a refused token is not told of it while doing so."""
        self.start()
        self.changes.clear()
        self.token.invalidate("ya29.1")
        self.assertEqual(self.changes, [])


class StoppingTests(Laboratory):
    """The end."""

    def test_nothing_is_left_behind(self) -> None:
        """After a stop no timer runs, whatever was under way."""
        self.start()
        self.token.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_exchange_under_way_is_given_up(self) -> None:
        """A stop does not wait for Google, nor count as its failure."""
        self.endpoint.script = [silence]
        self.start()
        self.token.stop()
        self.pump()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.token.state, self.logged()), (State("starting"), ""))

    def test_refusal_after_the_stop_asks_nothing(self) -> None:
        """A late answer from FCM starts nothing new."""
        self.start()
        self.token.stop()
        self.token.invalidate("ya29.1")
        self.pump()
        self.assertEqual(self.asked, 1)
