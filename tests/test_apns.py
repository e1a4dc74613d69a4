"""Apple's API: what a push becomes on the wire, and what every answer means for it."""

import json
from dataclasses import replace

import hpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.apns import Apns, Session, goaway_outcome
from bouncerd.bearer import GENERATION, ProviderToken
from bouncerd.http2 import Request, Response
from bouncerd.model import (
    About,
    Delivered,
    Device,
    Gone,
    Kind,
    Message,
    Misconfigured,
    Outcome,
    Push,
    Refused,
    Retry,
)
from tests.test_bearer import START, apple_key

BODY = b'{"zulip":{"event":"message"},"aps":{"badge":0}}'
MESSAGE = Message(Kind.APNS, BODY, expiration=1_785_086_400, push_type="alert")
DEVICE = Device(7, Kind.APNS, "C0ffee00", "org.example.App", START - 3600)
PUSH = Push("6fe2ea54-7a9e-4f8c-9a0e-8f43bd5c0d10", "a-server", DEVICE, MESSAGE, START + 3600)

# apns.md 4.1, row by row. A reason not named here is one that Apple does not document.
TOKEN = {400: ["BadDeviceToken", "DeviceTokenNotForTopic"], 410: ["Unregistered", "ExpiredToken"]}
PAYLOAD = {
    400: [
        "BadCollapseId",
        "BadExpirationDate",
        "BadMessageId",
        "BadPriority",
        "DuplicateHeaders",
        "InvalidPushType",
        "MissingDeviceToken",
        "PayloadEmpty",
    ],
    404: ["BadPath"],
    405: ["MethodNotAllowed"],
    413: ["PayloadTooLarge"],
}
CONFIG = {
    400: ["BadTopic", "MissingTopic", "TopicDisallowed"],
    403: [
        "Forbidden",
        "MissingProviderToken",
        "BadEnvironmentKeyIdInToken",
        "BadEnvironmentKeyInToken",
    ],
}
CONFIG_AND_LINK = {403: ["BadCertificate", "BadCertificateEnvironment", "InvalidProviderToken"]}
RETRY = {500: ["InternalServerError"], 503: ["ServiceUnavailable"]}
RETRY_AND_LINK = {
    400: ["IdleTimeout"],
    403: ["UnrelatedKeyIdInToken"],
    503: ["Shutdown"],
}
BROADCAST_ONLY = ["FeatureNotEnabled", "BadChannelId", "ChannelNotRegistered", "TopicMismatch"]
HOT = Retry("TooManyRequests", 30.0, about=About.DEVICE)
DOCUMENTED = {
    reason
    for table in (TOKEN, PAYLOAD, CONFIG, CONFIG_AND_LINK, RETRY, RETRY_AND_LINK)
    for reasons in table.values()
    for reason in reasons
} | {"ExpiredProviderToken", "TooManyRequests", "TooManyProviderTokenUpdates"}


def with_token(clock: Clock | None = None) -> Apns:
    """Return a provider that authenticates by token."""
    seconds = (clock or Clock()).seconds
    bearer = ProviderToken("ABC123DEFG", "DEF123GHIJ", apple_key(), seconds)
    return Apns("apns", "api.push.apple.com", bearer)


def with_certificate() -> Apns:
    """Return a provider that authenticates by its TLS certificate."""
    return Apns("apns:cert", "localhost:2197", None)


def sent(made: Request | Outcome) -> list[tuple[str, str]]:
    """Return the header fields of a request, as the server's HPACK decoder sees them."""
    assert isinstance(made, Request), made
    fields = hpack.Decoder().decode(made.block, raw=True)
    indexable = {bytes(field[0]) for field in fields if field.indexable}
    assert indexable <= {b":method", b":scheme"}, indexable
    return [(bytes(name).decode(), bytes(value).decode()) for name, value in fields]


def answer(status: int, reason: object = None, **more: object) -> Response:
    """Return an answer as Apple gives it."""
    body = b"" if reason is None else json.dumps({"reason": reason, **more}).encode()
    return Response(status, ((b":status", b"%d" % status), (b"apns-id", PUSH.id.encode())), body)


def judged(response: Response, session: Session | None = None, apns: Apns | None = None) -> Outcome:
    """Return the outcome of a push answered so."""
    apns = apns or with_token()
    return apns.outcome(session or apns.session(START), PUSH, response, START + 60)


class RequestTests(SynchronousTestCase):
    """What goes to Apple."""

    def made(self, push: Push, apns: Apns | None = None) -> Request | Outcome:
        """Return what a push becomes on a new connection."""
        apns = apns or with_token()
        return apns.request(apns.session(START), push, START)

    def test_push_with_token_authentication(self) -> None:
        """Path, bearer, topic, type, id and expiration are there; nothing secret is indexed."""
        apns = with_token()
        session = apns.session(START)
        request = apns.request(session, PUSH, START)
        assert session.adoption is not None
        self.assertEqual(
            sent(request),
            [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "api.push.apple.com"),
                (":path", "/3/device/C0ffee00"),
                ("authorization", session.adoption.authorization),
                ("apns-topic", "org.example.App"),
                ("apns-push-type", "alert"),
                ("apns-id", PUSH.id),
                ("apns-expiration", "1785086400"),
            ],
        )
        assert isinstance(request, Request)
        self.assertEqual(request.body, BODY)

    def test_push_with_certificate_authentication(self) -> None:
        """With a certificate there is no authorization header; the topic is sent all the same."""
        names = [name for name, _ in sent(self.made(PUSH, with_certificate()))]
        self.assertNotIn("authorization", names)
        self.assertIn("apns-topic", names)

    def test_optional_headers_follow_the_message(self) -> None:
        """Priority goes out when set; expiration and type stay out when not."""
        message = Message(Kind.APNS, BODY, priority=5)
        fields = dict(sent(self.made(replace(PUSH, message=message))))
        self.assertEqual(fields["apns-priority"], "5")
        self.assertNotIn("apns-expiration", fields)
        self.assertNotIn("apns-push-type", fields)

    def test_expiration_0_is_sent(self) -> None:
        """Zero means "now or never" to Apple, not "unset"."""
        message = replace(MESSAGE, expiration=0)
        fields = dict(sent(self.made(replace(PUSH, message=message))))
        self.assertEqual(fields["apns-expiration"], "0")

    def test_pushes_of_one_kind_share_their_header_fields(self) -> None:
        """What is the same for many pushes is encoded once; what differs is not mixed up."""
        apns = with_token()
        session = apns.session(START)
        other = replace(DEVICE, app_id="org.example.Other")
        for push in (PUSH, PUSH, replace(PUSH, device=other), PUSH):
            topic = dict(sent(apns.request(session, push, START)))["apns-topic"]
            self.assertEqual(topic, push.device.app_id)
        self.assertEqual(len(session.templates), 2)

    def test_app_ids_do_not_fill_the_memory(self) -> None:
        """A server that registers ever new app ids costs bounded memory."""
        apns = with_token()
        session = apns.session(START)
        for number in range(600):
            device = replace(DEVICE, app_id=f"org.example.App{number}")
            apns.request(session, replace(PUSH, device=device), START)
        self.assertLessEqual(len(session.templates), 256)

    def test_new_generation_replaces_the_bearer_of_every_push(self) -> None:
        """After 35 minutes the connection's pushes carry the new token, all of them."""
        clock = Clock()
        apns = with_token(clock)
        session = apns.session(START)
        before = dict(sent(apns.request(session, PUSH, START)))["authorization"]
        clock.advance(GENERATION)
        after = dict(sent(apns.request(session, PUSH, START + GENERATION)))["authorization"]
        self.assertNotEqual(before, after)
        self.assertEqual(len(session.templates), 1)

    def test_is_always_ready(self) -> None:
        """Nothing has to be fetched before a push to Apple can be made."""
        self.assertTrue(with_token().ready and with_certificate().ready)


class UnsendableTests(SynchronousTestCase):
    """What never goes out, and what becomes of it."""

    def made(self, **changes: object) -> Request | Outcome:
        """Return what becomes of a push whose device is changed so."""
        device = replace(DEVICE, **changes)  # type: ignore[arg-type]
        apns = with_token()
        return apns.request(apns.session(START), replace(PUSH, device=device), START)

    def with_message(self, body: bytes, push_type: str | None = None) -> Request | Outcome:
        """Return what becomes of a push with this payload."""
        message = Message(Kind.APNS, body, push_type=push_type)
        apns = with_token()
        return apns.request(apns.session(START), replace(PUSH, message=message), START)

    def test_token_that_is_not_hex_is_dead(self) -> None:
        """A token that Apple could only call bad is given up without asking."""
        for token in ("", "abc", "xyz1", "ab cd", "ab\r\nx: y", "ab/../..", "ab" * 201, "été0"):
            self.assertEqual(self.made(token=token), Gone("malformed token"), token)

    def test_tokens_of_any_length_are_sent_as_stored(self) -> None:
        """Nothing is assumed of a token's length or case."""
        for token in ("ab", "AbCd", "0f" * 100, "Ab" * 200):
            self.assertIn((":path", f"/3/device/{token}"), sent(self.made(token=token)))

    def test_app_id_cannot_smuggle_headers(self) -> None:
        """An app id that is missing, or would break a header, refuses the push; it is not sent."""
        for app_id in (None, "", "a\r\nauthorization: x", "a\nb", "a b", "été", "a\0", "a" * 256):
            self.assertEqual(self.made(app_id=app_id), Refused("no usable app id"), app_id)

    def test_push_type_cannot_smuggle_headers(self) -> None:
        """Nor can a push type."""
        made = self.with_message(BODY, "alert\r\nx: y")
        self.assertEqual(made, Refused("unusable header field"))

    def test_payload_over_4096_bytes_is_refused(self) -> None:
        """Apple's limit is kept on our side; a VoIP push may be longer."""
        self.assertIsInstance(self.with_message(b"x" * 4096), Request)
        self.assertEqual(self.with_message(b"x" * 4097), Refused("PayloadTooLarge"))
        self.assertIsInstance(self.with_message(b"x" * 5120, "voip"), Request)
        self.assertEqual(self.with_message(b"x" * 5121, "voip"), Refused("PayloadTooLarge"))

    def test_empty_payload_is_refused(self) -> None:
        """A push without a body is nobody's message."""
        self.assertEqual(self.with_message(b""), Refused("PayloadEmpty"))

    @given(
        st.just("c0ffee") | st.text(max_size=20),
        st.just("org.example.App") | st.text(max_size=20),
        st.none() | st.text(max_size=10),
    )
    def test_nothing_a_tenant_chooses_raises_or_breaks_the_headers(
        self, token: str, app_id: str, push_type: str | None
    ) -> None:
        """Any token, app id and push type make a well-formed request or an outcome."""
        device = replace(DEVICE, token=token, app_id=app_id)
        message = Message(Kind.APNS, BODY, push_type=push_type)
        apns = with_certificate()
        made = apns.request(
            apns.session(START), replace(PUSH, device=device, message=message), START
        )
        if isinstance(made, Request):
            names = {":method", ":scheme", ":authority", ":path", "apns-topic", "apns-id"}
            self.assertLessEqual({name for name, _ in sent(made)}, names | {"apns-push-type"})


class OutcomeTests(SynchronousTestCase):
    """What Apple's answers mean: every row of apns.md 4.1."""

    def check(self, table: dict[int, list[str]], expected: type, *, spoiled: bool = False) -> None:
        """Compare the outcome of each reason in a table."""
        for status, reasons in table.items():
            for reason in reasons:
                wanted = expected(reason, spoiled=True) if spoiled else expected(reason)
                self.assertEqual(judged(answer(status, reason)), wanted, reason)

    def test_200_is_delivered(self) -> None:
        """Apple took the push."""
        self.assertEqual(judged(answer(200)), Delivered())

    def test_dead_tokens(self) -> None:
        """The token is dead for this app."""
        self.check(TOKEN, Gone)

    def test_impossible_pushes(self) -> None:
        """This message can never go; its device is kept."""
        self.check(PAYLOAD, Refused)

    def test_operators_faults(self) -> None:
        """The credential or the app is wrong: pushes are kept, the operator is told."""
        self.check(CONFIG, Misconfigured)
        self.check(CONFIG_AND_LINK, Misconfigured, spoiled=True)

    def test_passing_troubles(self) -> None:
        """Later, or on another connection, the same push may go."""
        self.check(RETRY, Retry)
        self.check(RETRY_AND_LINK, Retry, spoiled=True)

    def test_hot_device_waits_half_a_minute(self) -> None:
        """A device with too many pushes in a row gets its next after 30 s at least."""
        self.assertEqual(judged(answer(429, "TooManyRequests")), HOT)

    def test_too_many_tokens_are_about_the_credential(self) -> None:
        """The link is left; if others hear the same, all that goes with the key has to wait."""
        reason = "TooManyProviderTokenUpdates"
        wanted = Retry(reason, spoiled=True, about=About.CREDENTIAL)
        self.assertEqual(judged(answer(429, reason)), wanted)

    def test_retry_after_is_honoured(self) -> None:
        """Apple documents no Retry-After, but if one comes it counts, an hour at most."""
        for value, wait in ((b"120", 120.0), (b"999999", 3600.0), (b"soon", None), (b"0", None)):
            response = replace(
                answer(503, "ServiceUnavailable"), headers=((b"retry-after", value),)
            )
            self.assertEqual(judged(response), Retry("ServiceUnavailable", wait))
        response = replace(answer(429, "TooManyRequests"), headers=((b"retry-after", b"5"),))
        self.assertEqual(judged(response), HOT)

    def test_unregistered_since(self) -> None:
        """The time that Apple gives, in milliseconds, tells a token that came back from a dead."""
        response = answer(410, "Unregistered", timestamp=int(START - 50) * 1000)
        self.assertEqual(judged(response), Gone("Unregistered", START - 50))

    def test_senseless_timestamps_count_as_absent(self) -> None:
        """Text, negative times and times to come do not decide on a token's end."""
        times: tuple[object, ...] = ("soon", -5, 0, None, True, [], 1e30, (START + 900) * 1000)
        for timestamp in times:
            response = answer(410, "Unregistered", timestamp=timestamp)
            self.assertEqual(judged(response), Gone("Unregistered"), timestamp)

    def test_apples_clock_may_be_a_little_ahead(self) -> None:
        """A token cannot have died after the answer came."""
        response = answer(410, "Unregistered", timestamp=(START + 120) * 1000)
        self.assertEqual(judged(response), Gone("Unregistered", START + 60))

    def test_only_a_410_carries_a_time(self) -> None:
        """A timestamp beside another reason is not Apple's."""
        response = answer(400, "BadDeviceToken", timestamp=int(START) * 1000)
        self.assertEqual(judged(response), Gone("BadDeviceToken"))

    def test_unknown_reasons_go_by_their_status_and_are_not_repeated(self) -> None:
        """A reason that is new to us never deletes a token, and its text goes nowhere."""
        for reason in [*BROADCAST_ONLY, "tulip", "", 5, ["Unregistered"], {"a": 1}]:
            self.assertEqual(judged(answer(400, reason)), Refused("unknown reason (400)"))
            self.assertEqual(judged(answer(410, reason)), Refused("unknown reason (410)"))
            hot = Retry("unknown reason (429)", 30.0, about=About.DEVICE)
            self.assertEqual(judged(answer(429, reason)), hot)
            self.assertEqual(judged(answer(500, reason)), Retry("unknown reason (500)"))

    def test_reason_with_a_foreign_status_goes_by_the_status(self) -> None:
        """A server error that calls a token unregistered deletes nothing."""
        self.assertEqual(judged(answer(500, "Unregistered")), Retry("Unregistered (500)"))
        self.assertEqual(judged(answer(403, "Unregistered")), Refused("Unregistered (403)"))

    def test_bodies_that_say_nothing_go_by_their_status(self) -> None:
        """No body, no JSON, half a body: still an answer."""
        for body in (b"", b"<html>no</html>", b'{"reason": "Unregist', b"null", b"[]", b"{}"):
            for complete in (True, False):
                response = Response(400, (), body, complete)
                self.assertEqual(judged(response), Refused("no reason (400)"))
                self.assertEqual(judged(replace(response, status=503)), Retry("no reason (503)"))
                self.assertEqual(judged(replace(response, status=200)), Delivered())

    def test_410_without_a_reason_is_believed_only_of_apple(self) -> None:
        """A 410 whose body was lost ends the token; one of some web server does not."""
        self.assertEqual(judged(answer(410)), Gone("no reason (410)"))
        self.assertEqual(judged(Response(410, (), b"", False)), Refused("no reason (410)"))

    def test_answers_that_no_apns_gives_are_the_operators_matter(self) -> None:
        """A redirect means that the configured address is not Apple's."""
        self.assertEqual(judged(answer(302)), Misconfigured("no reason (302)"))
        self.assertEqual(judged(answer(204)), Delivered())

    @given(
        st.integers(0, 999),
        st.binary(max_size=200)
        | st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        ).map(lambda value: json.dumps({"reason": value, "timestamp": value}).encode()),
        st.none() | st.binary(max_size=40),
        st.booleans(),
    )
    def test_every_answer_has_an_outcome_in_words_we_know(
        self, status: int, body: bytes, wait: bytes | None, complete: bool
    ) -> None:
        """Whatever comes back, there is an outcome, and nothing of the body is in it."""
        headers = () if wait is None else ((b"retry-after", wait),)
        outcome = judged(Response(status, headers, body, complete))
        reason = getattr(outcome, "reason", "no reason")
        known = reason.removesuffix(f" ({status})")
        self.assertIn(known, DOCUMENTED | {"no reason", "unknown reason"})


class ConnectionTests(SynchronousTestCase):
    """What answers say about the connection they came on."""

    def test_expired_token_is_tried_again_on_another_connection(self) -> None:
        """A connection whose token Apple calls expired is wedged: the push goes elsewhere."""
        clock = Clock()
        apns = with_token(clock)
        session = apns.session(START)
        clock.advance(GENERATION)
        later = START + GENERATION
        self.assertEqual(
            apns.outcome(session, PUSH, answer(403, "ExpiredProviderToken"), later),
            Retry("ExpiredProviderToken", spoiled=True),
        )

    def test_newest_token_called_expired_is_the_host_clocks_fault(self) -> None:
        """Where a new connection would only show the same token, the operator is told why."""
        apns = with_token()
        session = apns.session(START)
        expired = answer(403, "ExpiredProviderToken")
        self.assertEqual(
            judged(expired, session, apns),
            Misconfigured("ExpiredProviderToken (host clock)", spoiled=True),
        )

    def test_token_that_apple_took_before_is_not_the_clocks_fault(self) -> None:
        """One odd connection does not make the host's clock wrong."""
        apns = with_token()
        session = apns.session(START)
        judged(answer(200), session, apns)
        self.assertEqual(
            judged(answer(403, "ExpiredProviderToken"), apns.session(START), apns),
            Retry("ExpiredProviderToken", spoiled=True),
        )

    def test_expired_token_where_a_certificate_authenticates(self) -> None:
        """An answer that makes no sense here is tried elsewhere."""
        self.assertEqual(
            judged(answer(403, "ExpiredProviderToken"), apns=with_certificate()),
            Retry("ExpiredProviderToken", spoiled=True),
        )

    def test_three_internal_errors_in_a_row_spoil_the_connection(self) -> None:
        """A connection that answers nothing but 500 is replaced; one failure among many is not."""
        apns = with_token()
        session = apns.session(START)
        error = answer(500, "InternalServerError")
        for spoiled in (False, False, True):
            outcome = judged(error, session, apns)
            self.assertEqual(outcome, Retry("InternalServerError", spoiled=spoiled))
        for between in (answer(200), answer(400, "BadDeviceToken"), answer(500, "tulip")):
            judged(between, session, apns)
            outcome = judged(error, session, apns)
            self.assertEqual(outcome, Retry("InternalServerError"))


class GoawayTests(SynchronousTestCase):
    """What Apple says when it closes a connection (apns.md 5.5)."""

    def test_refused_credentials_are_the_operators_matter(self) -> None:
        """A wrong certificate is not taken for a network error, in JSON or in plain text."""
        for reason in ("BadCertificateEnvironment", "BadCertificate", "InvalidProviderToken"):
            wanted = Misconfigured(reason, spoiled=True)
            self.assertEqual(goaway_outcome(json.dumps({"reason": reason}).encode()), wanted)
            self.assertEqual(goaway_outcome(reason.encode() + b"\n"), wanted)

    def test_passing_troubles_are_named(self) -> None:
        """A server that shuts down, and a limit we overran, are known by name."""
        self.assertEqual(goaway_outcome(b'{"reason":"Shutdown"}'), Retry("Shutdown", spoiled=True))
        self.assertEqual(
            goaway_outcome(b"Maximum active streams violated for this endpoint."),
            Retry("stream limit", spoiled=True, about=About.STREAMS),
        )

    def test_routine_and_unknown_say_nothing(self) -> None:
        """Recycling without a word, strange words, and reasons about a single push."""
        for debug in (
            b"",
            b"{}",
            b'{"reason":5}',
            b'{"reason":"tulip"}',
            b"Stream 5 does not exist",
        ):
            self.assertIsNone(goaway_outcome(debug))
        self.assertIsNone(goaway_outcome(b'{"reason":"BadDeviceToken"}'))

    @given(st.binary(max_size=300))
    def test_no_debug_data_raise(self, debug: bytes) -> None:
        """Whatever Apple says there, it is classified."""
        outcome = goaway_outcome(debug)
        self.assertTrue(outcome is None or outcome.reason in {*DOCUMENTED, "stream limit"})
