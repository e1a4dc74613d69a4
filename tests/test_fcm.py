"""Google's API: what a push becomes on the wire, and what every answer means for it."""

import json
from collections.abc import Mapping
from dataclasses import replace

import hpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fcm import Fcm, Session
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

NOW = 1_785_000_000.0
DATA = {"event": "message", "content": 'çaffè "crème"', "zulip_message_id": "17"}
BODY = json.dumps(DATA, ensure_ascii=False, separators=(",", ":")).encode()
MESSAGE = Message(Kind.FCM, BODY)
DEVICE = Device(8, Kind.FCM, "dQw4:APA91b-x_y", None, NOW - 3600)
PUSH = Push("6fe2ea54-7a9e-4f8c-9a0e-8f43bd5c0d10", "a-server", DEVICE, MESSAGE, NOW + 3600)

# The types that Google's errors carry, by the names of fcm.md 4.1.
TYPE = "type.googleapis.com/google."
BAD_TOKEN_FIELD = {
    "@type": f"{TYPE}rpc.BadRequest",
    "fieldViolations": [{"field": "message.token", "description": "Invalid registration token"}],
}
BAD_DATA_FIELD = {
    "@type": f"{TYPE}rpc.BadRequest",
    "fieldViolations": [{"field": "message.data[0].value", "description": "Invalid value"}],
}
DEAD_ON_IOS = {
    "@type": f"{TYPE}firebase.fcm.v1.ApnsError",
    "statusCode": 410,
    "reason": "Unregistered",
}
QUOTA = {"@type": f"{TYPE}rpc.QuotaFailure", "violations": [{"subject": "project:1"}]}
WORDS = {
    *("INVALID_ARGUMENT", "INVALID_ARGUMENT (token)", "INVALID_ARGUMENT (size)"),
    *("UNREGISTERED", "SENDER_ID_MISMATCH", "QUOTA_EXCEEDED", "UNAVAILABLE", "INTERNAL"),
    *("THIRD_PARTY_AUTH_ERROR", "APNS_AUTH_ERROR", "UNSPECIFIED_ERROR", "NOT_FOUND"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "SERVICE_DISABLED"),
}


def fcm_error(code: object) -> dict[str, object]:
    """Return FcmError's detail."""
    return {"@type": f"{TYPE}firebase.fcm.v1.FcmError", "errorCode": code}


def error_info(reason: str) -> dict[str, object]:
    """Return ErrorInfo's detail."""
    return {"@type": f"{TYPE}rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}


def answer(
    status: int,
    name: str = "",
    *details: Mapping[str, object],
    text: str = "",
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Response:
    """Return an error as FCM gives it."""
    error = {"code": status, "message": text, "status": name, "details": list(details)}
    return Response(status, headers, json.dumps({"error": error}).encode())


class Account:
    """Stands for the access token's keeper: one token at a time, and what was refused."""

    def __init__(self, token: str | None = "ya29.first") -> None:
        self.token = token
        self.refused: list[str] = []

    def fcm(self) -> Fcm:
        """Return a provider that asks here."""
        return Fcm("fcm", "fcm.googleapis.com", "p1", lambda: self.token, self.refused.append)


def judged(response: Response) -> Outcome:
    """Return the outcome of a push answered so."""
    fcm = Account().fcm()
    session = fcm.session(NOW)
    fcm.request(session, PUSH, NOW)
    return fcm.outcome(session, PUSH, response, NOW)


def made(push: Push) -> Request | Outcome:
    """Return what a push becomes on a new connection."""
    fcm = Account().fcm()
    return fcm.request(fcm.session(NOW), push, NOW)


def fields(request: Request | Outcome) -> list[tuple[str, str]]:
    """Return the header fields of a request, as the server's HPACK decoder sees them."""
    assert isinstance(request, Request), request
    decoded = hpack.Decoder().decode(request.block, raw=True)
    indexable = {bytes(field[0]) for field in decoded if field.indexable}
    assert b"authorization" not in indexable
    return [(bytes(name).decode(), bytes(value).decode()) for name, value in decoded]


class RequestTests(SynchronousTestCase):
    """What goes to Google."""

    def test_headers(self) -> None:
        """Path and bearer are as FCM wants them; the access token is never indexed."""
        self.assertEqual(
            fields(made(PUSH)),
            [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "fcm.googleapis.com"),
                (":path", "/v1/projects/p1/messages:send"),
                ("authorization", "Bearer ya29.first"),
                ("content-type", "application/json"),
            ],
        )

    def test_message(self) -> None:
        """Token, data and priority are sent, and nothing else (bouncer-api.md 10.3)."""
        for urgent, priority in ((True, "high"), (False, "normal")):
            request = made(replace(PUSH, message=replace(MESSAGE, urgent=urgent)))
            assert isinstance(request, Request)
            message = {"token": DEVICE.token, "data": DATA, "android": {"priority": priority}}
            self.assertEqual(json.loads(request.body), {"message": message})

    @given(st.text(max_size=30))
    def test_any_token_is_json(self, token: str) -> None:
        """A token is opaque: quotes, controls and foreign letters reach Google as they are."""
        request = made(replace(PUSH, device=replace(DEVICE, token=token)))
        assert isinstance(request, Request)
        self.assertEqual(json.loads(request.body)["message"]["token"], token)

    def test_without_an_access_token_nothing_is_made(self) -> None:
        """While there is no access token the provider says so, and a push waits."""
        account = Account(None)
        fcm = account.fcm()
        self.assertFalse(fcm.ready)
        self.assertEqual(fcm.request(fcm.session(NOW), PUSH, NOW), Retry("no access token"))
        account.token = "ya29.late"
        self.assertTrue(fcm.ready)

    def test_new_access_token_is_used_at_once(self) -> None:
        """A connection outlives its access token."""
        account = Account()
        fcm = account.fcm()
        session = fcm.session(NOW)
        for token in ("ya29.first", "ya29.second"):
            account.token = token
            sent = dict(fields(fcm.request(session, PUSH, NOW)))
            self.assertEqual(sent["authorization"], f"Bearer {token}")


class SizeTests(SynchronousTestCase):
    """Google's limit counts keys and values, not JSON."""

    def made(self, data: dict[str, str], *, ascii_only: bool = False) -> Request | Outcome:
        """Return what becomes of a push with these data."""
        body = json.dumps(data, ensure_ascii=ascii_only).encode()
        return made(replace(PUSH, message=Message(Kind.FCM, body)))

    def test_4096_bytes_pass_and_one_more_does_not(self) -> None:
        """The limit holds to the byte; quotes and commas are not counted."""
        self.assertIsInstance(self.made({"key": "x" * 4093}), Request)
        self.assertEqual(self.made({"key": "x" * 4094}), Refused("data over 4096 bytes"))
        many = {f"{number:04}": "x" for number in range(819)}  # 4095 bytes in 9 KB of JSON
        self.assertIsInstance(self.made(many), Request)

    def test_bytes_of_utf8_are_counted(self) -> None:
        """Letters count as long as they are in UTF-8, however the JSON spells them."""
        for ascii_only in (False, True):
            self.assertIsInstance(self.made({"k": "é" * 2047}, ascii_only=ascii_only), Request)
            too_long = self.made({"k": "é" * 2048}, ascii_only=ascii_only)
            self.assertEqual(too_long, Refused("data over 4096 bytes"))

    def test_half_a_surrogate_pair_is_no_accident(self) -> None:
        """Data that JSON can hold and UTF-8 cannot are measured too."""
        self.assertIsInstance(self.made({"k": "\ud800" * 1000}, ascii_only=True), Request)

    def test_message_that_fits_no_frame_is_refused(self) -> None:
        """Control characters swell in JSON; what would not fit is refused, not cut."""
        self.assertEqual(self.made({"k": "\0" * 4000}), Refused("message over the frame size"))


class OutcomeTests(SynchronousTestCase):
    """What Google's answers mean: every row of fcm.md 4.2."""

    def check(self, outcome: Outcome, *responses: Response) -> None:
        """Compare the outcome of each answer."""
        for response in responses:
            self.assertEqual(judged(response), outcome, response.body)

    def test_200_is_delivered(self) -> None:
        """Google took the push, whatever it says beside."""
        for body in (b'{"name": "projects/p1/messages/0:1%2"}', b"{}", b"", b"<html>"):
            self.check(Delivered(), Response(200, (), body))

    def test_bad_registration_token(self) -> None:
        """FcmError with a violation of message.token, or with Google's texts for it: dead."""
        texts = (
            "The registration token is not a valid FCM registration token",
            "Invalid registration token",
        )
        invalid = fcm_error("INVALID_ARGUMENT")
        self.check(
            Gone("INVALID_ARGUMENT (token)"),
            answer(400, "INVALID_ARGUMENT", invalid, BAD_TOKEN_FIELD),
            answer(400, "INVALID_ARGUMENT", BAD_TOKEN_FIELD, BAD_DATA_FIELD, invalid),
            answer(400, "INVALID_ARGUMENT", invalid, text=texts[0]),
            answer(400, "INVALID_ARGUMENT", invalid, text=texts[1]),
            answer(400, "INVALID_ARGUMENT", invalid, DEAD_ON_IOS),
        )

    def test_bad_payload_keeps_the_token(self) -> None:
        """No other 400 deletes anything: a payload bug must not wipe all devices."""
        quoting = 'Invalid value at "The registration token is not a valid FCM registration token"'
        invalid = fcm_error("INVALID_ARGUMENT")
        self.check(
            Refused("INVALID_ARGUMENT"),
            answer(400, "INVALID_ARGUMENT"),
            answer(400, "INVALID_ARGUMENT", invalid),
            answer(400, "INVALID_ARGUMENT", BAD_TOKEN_FIELD),
            answer(400, "INVALID_ARGUMENT", BAD_DATA_FIELD),
            answer(404, "NOT_FOUND", invalid, BAD_TOKEN_FIELD),
            answer(400, "INVALID_ARGUMENT", invalid, BAD_DATA_FIELD),
            answer(400, "INVALID_ARGUMENT", invalid, text=quoting),
            answer(400, "INVALID_ARGUMENT", invalid, {**DEAD_ON_IOS, "reason": "Other"}),
        )

    def test_too_big(self) -> None:
        """Both of Google's texts say that our size check failed."""
        for text in ("Android message is too big", "Message is too large. The maximum is 4K"):
            error = answer(400, "INVALID_ARGUMENT", fcm_error("INVALID_ARGUMENT"), text=text)
            self.check(Refused("INVALID_ARGUMENT (size)"), error)

    def test_firebases_own_credentials(self) -> None:
        """Bad Apple credentials in Firebase are not our token's fault: nothing is refreshed."""
        for code in ("THIRD_PARTY_AUTH_ERROR", "APNS_AUTH_ERROR"):
            self.check(Misconfigured(code), answer(401, "UNAUTHENTICATED", fcm_error(code)))

    def test_token_of_another_project(self) -> None:
        """The device belongs to another Firebase project."""
        error = answer(403, "PERMISSION_DENIED", fcm_error("SENDER_ID_MISMATCH"))
        self.check(Gone("SENDER_ID_MISMATCH"), error)

    def test_lost_role_or_disabled_api(self) -> None:
        """A 403 without FcmError is the operator's matter and deletes nothing."""
        denied = "PERMISSION_DENIED"
        self.check(Misconfigured(denied), answer(403, denied, text="SenderId mismatch"))
        self.check(
            Misconfigured("IAM_PERMISSION_DENIED"),
            answer(403, denied, error_info("IAM_PERMISSION_DENIED")),
        )
        self.check(
            Misconfigured("SERVICE_DISABLED"), answer(403, denied, error_info("SERVICE_DISABLED"))
        )

    def test_unregistered(self) -> None:
        """The device is gone; Google gives no time."""
        error = answer(404, "NOT_FOUND", fcm_error("UNREGISTERED"))
        self.check(Gone("UNREGISTERED"), error, answer(404, "", QUOTA, fcm_error("UNREGISTERED")))

    def test_wrong_project_or_address(self) -> None:
        """A 404 without FcmError never deletes: the project id or the URL is wrong."""
        self.check(Misconfigured("NOT_FOUND"), answer(404, "NOT_FOUND"))
        page = Response(404, (), b"<html>Error 404 (Not Found)!!1</html>")
        self.check(Misconfigured("no error code (404)"), page)
        self.check(Misconfigured("no error code (302)"), replace(page, status=302))

    def test_quota(self) -> None:
        """A 429 waits as long as Google says, else a minute, at least 10 s, at most an hour."""
        for value, wait in ((b"90", 90.0), (b"0", 10.0), (b"9999999", 3600.0), (b"soon", 60.0)):
            headers = ((b"retry-after", value),)
            error = answer(
                429, "RESOURCE_EXHAUSTED", QUOTA, fcm_error("QUOTA_EXCEEDED"), headers=headers
            )
            self.check(Retry("QUOTA_EXCEEDED", wait, about=About.DEVICE), error)
        quota = Retry("RESOURCE_EXHAUSTED", 60.0, about=About.DEVICE)
        self.check(quota, answer(429, "RESOURCE_EXHAUSTED"))

    def test_outages(self) -> None:
        """Server errors and time-outs are tried again, never sooner than after 10 s."""
        self.check(Retry("INTERNAL", 10.0), answer(500, "INTERNAL", fcm_error("INTERNAL")))
        unavailable = answer(503, "UNAVAILABLE", fcm_error("UNAVAILABLE"))
        self.check(Retry("UNAVAILABLE", 10.0), unavailable)
        told = replace(unavailable, headers=((b"retry-after", b"45"),))
        self.check(Retry("UNAVAILABLE", 45.0), told)
        page = b"<html>502 Bad Gateway</html>"
        for status in (408, 499, 500, 502, 503, 504, 599):
            wanted = Retry(f"no error code ({status})", 10.0)
            self.check(wanted, Response(status, (), page), Response(status, (), b"", False))

    def test_server_error_deletes_nothing(self) -> None:
        """A 5xx that calls a token unregistered contradicts itself."""
        error = answer(500, "INTERNAL", fcm_error("UNREGISTERED"))
        self.check(Retry("UNREGISTERED", 10.0), error)

    def test_retryable_code_beside_a_4xx(self) -> None:
        """FcmError's code is the one to act on."""
        self.check(Retry("UNAVAILABLE", 10.0), answer(400, "", fcm_error("UNAVAILABLE")))
        quota = Retry("QUOTA_EXCEEDED", 60.0, about=About.DEVICE)
        self.check(quota, answer(403, "", fcm_error("QUOTA_EXCEEDED")))

    def test_payload_too_large(self) -> None:
        """A 413 is about this message only."""
        self.check(Refused("no error code (413)"), Response(413, (), b"<html>"))

    def test_unknown_codes_go_by_the_class_of_their_status(self) -> None:
        """What is new to us is not retried on 4xx, deletes nothing, and is not repeated."""
        for code in ("TULIP", "", None, 5, ["UNREGISTERED"]):
            for status in (400, 403, 404, 410, 418):
                error = answer(status, "", fcm_error(code))
                self.check(Refused(f"unknown error ({status})"), error)
            self.check(Retry("unknown error (501)", 10.0), answer(501, "", fcm_error(code)))
        self.check(Refused("UNSPECIFIED_ERROR"), answer(400, "", fcm_error("UNSPECIFIED_ERROR")))

    def test_cut_off_refusal_is_not_taken_for_the_operators_fault(self) -> None:
        """Half a 404 may have been about the device: the push ends, nothing else happens."""
        whole = answer(404, "NOT_FOUND", fcm_error("UNREGISTERED"))
        half = replace(whole, body=whole.body[:60], complete=False)
        self.check(Refused("no error code (404)"), half)

    json_values = st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    )
    details = st.fixed_dictionaries(
        {
            "@type": st.sampled_from([f"{TYPE}firebase.fcm.v1.FcmError", "x"]) | json_values,
            "errorCode": st.sampled_from(sorted(WORDS)) | json_values,
            "fieldViolations": json_values,
        }
    )
    errors = st.fixed_dictionaries(
        {
            "message": json_values,
            "status": json_values,
            "details": json_values | st.lists(details | json_values, max_size=3),
        }
    )

    @given(
        st.integers(0, 999),
        st.binary(max_size=100)
        | (json_values | errors).map(lambda value: json.dumps({"error": value}).encode()),
        st.none() | st.binary(max_size=40),
        st.booleans(),
    )
    def test_every_answer_has_an_outcome_in_words_we_know(
        self, status: int, body: bytes, wait: bytes | None, complete: bool
    ) -> None:
        """Whatever comes back, there is an outcome, and nothing of the body is in it."""
        headers = () if wait is None else ((b"retry-after", wait),)
        outcome = judged(Response(status, headers, body, complete))
        reason = getattr(outcome, "reason", "UNREGISTERED")
        own = {f"no error code ({status})", f"unknown error ({status})"}
        self.assertIn(reason, WORDS | own)
        if isinstance(outcome, Retry):
            self.assertTrue(status == 401 or (outcome.after or 0) >= 10)


class AccessTokenTests(SynchronousTestCase):
    """What happens when Google refuses our access token."""

    expired = answer(401, "UNAUTHENTICATED", error_info("ACCESS_TOKEN_EXPIRED"))

    def setUp(self) -> None:
        """Start with one account and one connection."""
        self.account = Account()
        self.fcm = self.account.fcm()
        self.session: Session = self.fcm.session(NOW)

    def refuse(self, push: Push) -> Outcome:
        """Send a push and have Google refuse the access token."""
        self.fcm.request(self.session, push, NOW)
        return self.fcm.outcome(self.session, push, self.expired, NOW)

    def test_first_refusal_refreshes_and_the_push_goes_again(self) -> None:
        """An access token that was revoked early costs one attempt and no push."""
        self.assertEqual(self.refuse(PUSH), Retry("ACCESS_TOKEN_EXPIRED", 0.0))
        self.assertEqual(self.account.refused, ["ya29.first"])

    def test_second_refusal_of_a_push_is_the_operators_matter(self) -> None:
        """With a fresh token refused as well, it was not the token's age."""
        self.refuse(PUSH)
        self.account.token = "ya29.second"
        self.assertEqual(self.refuse(PUSH), Misconfigured("ACCESS_TOKEN_EXPIRED"))
        self.assertEqual(self.account.refused, ["ya29.first", "ya29.second"])

    def test_endpoint_that_gives_the_same_token_again_makes_no_loop(self) -> None:
        """A push is sent again once, also where the refreshed token is the old one."""
        self.refuse(PUSH)
        self.assertEqual(self.refuse(PUSH), Misconfigured("ACCESS_TOKEN_EXPIRED"))

    def test_second_refusal_counts_over_connections(self) -> None:
        """A push that is sent again on another connection is the same push."""
        self.refuse(PUSH)
        self.session = self.fcm.session(NOW)
        self.assertIsInstance(self.refuse(PUSH), Misconfigured)

    def test_delivery_clears_the_record(self) -> None:
        """A push whose repetition went through leaves nothing behind."""
        self.refuse(PUSH)
        self.fcm.request(self.session, PUSH, NOW)
        self.fcm.outcome(self.session, PUSH, Response(200, (), b""), NOW)
        self.assertEqual((self.fcm._bounced, self.session.sent), ({}, {}))

    def test_late_answer_blames_the_token_that_it_was_sent_with(self) -> None:
        """An answer to a push of before the refresh does not cost the new token."""
        self.fcm.request(self.session, PUSH, NOW)
        self.account.token = "ya29.second"
        self.fcm.request(self.session, replace(PUSH, id="another"), NOW)
        self.fcm.outcome(self.session, PUSH, self.expired, NOW)
        self.assertEqual(self.account.refused, ["ya29.first"])

    def test_unreadable_401_counts_too(self) -> None:
        """A 401 need not explain itself."""
        self.fcm.request(self.session, PUSH, NOW)
        outcome = self.fcm.outcome(self.session, PUSH, Response(401, (), b"<html>"), NOW)
        self.assertEqual(outcome, Retry("no error code (401)", 0.0))

    def test_pushes_that_never_come_back_are_forgotten(self) -> None:
        """A connection that loses many pushes does not remember them for ever."""
        for number in range(5000):
            self.fcm.request(self.session, replace(PUSH, id=str(number)), NOW)
        self.assertEqual(len(self.session.sent), 4096)

    def test_answer_to_a_forgotten_push_is_understood(self) -> None:
        """Nothing depends on the memory."""
        outcome = self.fcm.outcome(self.fcm.session(NOW), PUSH, self.expired, NOW)
        self.assertEqual(outcome, Retry("ACCESS_TOKEN_EXPIRED", 0.0))
        self.assertEqual(self.account.refused, [])
