"""The error codes that servers act upon (bouncer-api.md 16): each is provoked here, over HTTP."""

from ipaddress import ip_network
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.model import Found, Identity
from bouncerd.store.sqlite import SQLiteStore
from tests.in_memory import (
    FORM,
    KEY,
    NOW,
    ORG_ID,
    PHONE,
    USER,
    Answer,
    Daemon,
    basic,
    form,
    result,
)
from tests.sealing import (
    APPLE,
    FOREIGN_KEY,
    OTHER_ORG,
    OTHER_REALM,
    REALM,
    add_realm,
    asking,
    for_apple,
    house,
    registration,
)
from tests.test_pages import REALM_ITEM, bill
from tests.test_transfers import USED_UP, ZulipServers

DEACTIVATED = (
    "The mobile push notification service registration for your server has been deactivated"
)
ELSEWHERE = (
    "Your organization is registered to a different Zulip server."
    " Please contact Zulip support for assistance in resolving this issue."
)
NOT_ALLOWED = "Your plan doesn't allow sending push notifications."


class Faulty(SQLiteStore):
    """A store with a mistake in it."""

    def find(self, uuid: str, identity: Identity | None, realm_uuid: str | None) -> Deferred[Found]:
        raise AssertionError("of the programmer's")


class ErrorCodeTests(SynchronousTestCase):
    """A server with a realm, and another one's realm beside it."""

    def setUp(self) -> None:
        self.daemon = house(support="ops@example.org", free_users=10)
        other = self.daemon.enrol(OTHER_ORG, hostname="other.example.org")
        add_realm(self.daemon, other, OTHER_REALM)

    def check(self, answer: Answer, status: int, code: str | None, msg: str, **data: Any) -> None:
        body = {"result": "error", "msg": msg, **data}
        if code is not None:
            body["code"] = code
        self.assertEqual((answer.status, answer.json), (status, body))
        self.assertEqual(answer.headers["Content-Type"], "application/json")

    def enrol(self, **changed: str) -> Answer:
        values = {"zulip_org_id": ORG_ID, "zulip_org_key": KEY, "hostname": "chat.example.org",
                  "contact_email": "admin@example.org", **changed}  # fmt: skip
        return self.daemon.send("POST", "/api/v1/remotes/server/register", form(values), FORM)

    def notify(self, **more: Any) -> Answer:
        return self.daemon.post_json("push/notify", {"user_uuid": USER, **more})

    def test_bad_request(self) -> None:
        """BAD_REQUEST is the code of whatever has no other."""
        answer = self.daemon.post_form("push/unregister", user_id="x", token="x", token_kind="2")
        self.check(answer, 400, "BAD_REQUEST", "user_id is not valid JSON")
        result(self.daemon.store.set_plan(ORG_ID, 103, None, NOW))
        answer = self.daemon.post_json("server/deactivate", {})
        why = "server deactivation with existing plan"
        self.assertEqual((answer.status, answer.json["code"]), (400, "BAD_REQUEST"))
        self.assertEqual(answer.json["error_description"], why)

    def test_request_variable_missing(self) -> None:
        """REQUEST_VARIABLE_MISSING names the parameter."""
        answer = self.daemon.post_form("push/register", user_id="5")
        code = "REQUEST_VARIABLE_MISSING"
        self.check(answer, 400, code, "Missing 'token' argument", var_name="token")

    def test_unauthorized(self) -> None:
        """UNAUTHORIZED, with a challenge, is every way not to be let in."""
        auth = "Zulip server auth failure:"
        uuid = "11111111-1111-4111-8111-111111111111"
        unknown = f"{auth} {uuid} is not registered -- did you run `manage.py register_server`?"
        for header, msg in [
            (None, "Missing authorization header for basic auth"),
            ("Basic x", "Invalid authorization header for basic auth"),
            (basic(uuid), unknown),
            (basic(key="x" * 64), f"{auth} key does not match role {ORG_ID}"),
        ]:
            headers = {} if header is None else {"Authorization": header}
            answer = self.daemon.send("POST", "/api/v1/remotes/push/notify", b"{}", headers)
            self.check(answer, 401, "UNAUTHORIZED", msg)
            self.assertEqual(answer.headers["WWW-Authenticate"], 'Basic realm="zulip"')

    def test_deactivated(self) -> None:
        """A deactivated server is UNAUTHORIZED, but REALM_DEACTIVATED where it registers."""
        self.assertEqual(self.daemon.post_json("server/deactivate", {}).status, 200)
        answer = self.notify()
        self.check(answer, 401, "UNAUTHORIZED", DEACTIVATED)
        self.assertEqual(answer.headers["WWW-Authenticate"], 'Basic realm="zulip"')
        answer = self.enrol()
        self.check(answer, 401, "REALM_DEACTIVATED", DEACTIVATED)
        self.assertIsNone(answer.headers["WWW-Authenticate"])

    def test_invalid_zulip_server(self) -> None:
        """INVALID_ZULIP_SERVER: a wrong key where one registers; a server from before 8.0."""
        msg = f"Zulip server auth failure: key does not match role {ORG_ID}"
        answer = self.enrol(zulip_org_key="x" * 64)
        self.check(answer, 400, "INVALID_ZULIP_SERVER", msg, role=ORG_ID)
        daemon = self.daemon = Daemon(free_users=10)
        daemon.enrol()
        daemon.clock.advance(2 * 3600 + 1)  # the first upload is overdue
        self.check(self.notify(), 400, "INVALID_ZULIP_SERVER", NOT_ALLOWED)

    def test_hostname_already_in_use(self) -> None:
        """HOSTNAME_ALREADY_IN_USE_BOUNCER_ERROR lets 10.x advise a transfer."""
        uuid, name = "11111111-1111-4111-8111-111111111111", "chat.example.org"
        code = "HOSTNAME_ALREADY_IN_USE_BOUNCER_ERROR"
        msg = f"A server with hostname {name} already exists"
        self.check(self.enrol(zulip_org_id=uuid), 400, code, msg, hostname=name)

    def test_rate_limit_hit(self) -> None:
        """RATE_LIMIT_HIT says when to come back, but for the day's challenges."""
        self.daemon = Daemon(requests_per_minute=1, registrations_per_hour=1)
        self.daemon.enrol()
        self.notify()
        msg = "API usage exceeded rate limit"
        self.check(self.notify(), 429, "RATE_LIMIT_HIT", msg, **{"retry-after": 60.0})
        self.enrol()
        self.check(self.enrol(), 429, "RATE_LIMIT_HIT", msg, **{"retry-after": 3600.0})

    def test_the_days_challenges(self) -> None:
        """RATE_LIMIT_HIT of the day's challenges names whom to ask, and no time."""
        self.daemon = Daemon(support="ops@example.org", trusted=[ip_network("192.168.0.0/16")])
        for number in range(31):
            uuid = f"11111111-1111-4111-8111-1111111111{number:02}"
            self.daemon.enrol(uuid, hostname=f"h{number}.example.org")
            answer = self.claim(f"h{number}.example.org", f"203.0.113.{number}")
        self.check(answer, 429, "RATE_LIMIT_HIT", USED_UP)
        self.assertIsNone(answer.headers["Retry-After"])

    def claim(self, hostname: str, client: str = "") -> Answer:
        values = form({"hostname": hostname, "access_token": "A" * 43})
        path = "/api/v1/remotes/server/register/verify_challenge"
        return self.daemon.send("POST", path, values, {**FORM, "X-Forwarded-For": client})

    def test_push_notifications_disallowed(self) -> None:
        """PUSH_NOTIFICATIONS_DISALLOWED gives the reason, for both kinds of pushes."""
        self.daemon = house(users=11, free_users=10)
        reason = (
            "Push notifications access with 10+ users requires signing up for a plan."
            " https://zulip.com/plans/"
        )
        msg = f"{NOT_ALLOWED} Reason provided by the server: {reason}"
        code = "PUSH_NOTIFICATIONS_DISALLOWED"
        self.check(self.notify(realm_uuid=REALM), 400, code, msg)
        self.check(self.daemon.post_json("push/e2ee/notify", asking(for_apple())), 400, code, msg)

    def test_invalid_remote_push_device_token(self) -> None:
        """INVALID_REMOTE_PUSH_DEVICE_TOKEN reaches the app that asked for a test."""
        values = {"token": PHONE, "token_kind": 1, "user_id": 5, "user_uuid": USER,
                  "base_payload": {"realm_name": "x", "realm_uri": "y"}}  # fmt: skip
        answer = self.daemon.post_json("push/test_notification", values)
        msg = "Device not recognized by the push bouncer"
        self.check(answer, 400, "INVALID_REMOTE_PUSH_DEVICE_TOKEN", msg)

    def test_missing_remote_realm(self) -> None:
        """MISSING_REMOTE_REALM makes a server upload its realms, on all three endpoints."""
        uuid = "11111111-1111-4111-8111-111111111111"
        for answer in (
            bill(self.daemon, realm={**REALM_ITEM, "uuid": uuid}),
            self.daemon.post_form("push/e2ee/register", **registration(realm_uuid=uuid)),
            self.daemon.post_json("push/e2ee/notify", asking(realm=uuid)),
        ):
            self.check(answer, 403, "MISSING_REMOTE_REALM", "Organization not registered")

    def test_remote_realm_server_mismatch(self) -> None:
        """REMOTE_REALM_SERVER_MISMATCH_ERROR, wherever a realm of another server is named."""
        of_user = {"user_uuid": USER, "realm_uuid": OTHER_REALM}
        phone = {"token": "x", "token_kind": "2"}
        test = {**of_user, "user_id": 5, "token": "x", "token_kind": 2, "base_payload": {}}
        for answer in (
            bill(self.daemon, realm={**REALM_ITEM, "uuid": OTHER_REALM}),
            self.daemon.post_form("push/register", **of_user, **phone),
            self.daemon.post_form("push/unregister", **of_user, **phone),
            self.daemon.post_form("push/unregister/all", **of_user),
            self.notify(realm_uuid=OTHER_REALM),
            self.daemon.post_json("push/test_notification", test),
            self.daemon.post_form("push/e2ee/register", **registration(realm_uuid=OTHER_REALM)),
            self.daemon.post_json("push/e2ee/notify", asking(realm=OTHER_REALM)),
        ):
            self.check(answer, 403, "REMOTE_REALM_SERVER_MISMATCH_ERROR", ELSEWHERE)

    def test_invalid_bouncer_public_key(self) -> None:
        """INVALID_BOUNCER_PUBLIC_KEY tells the app to be updated."""
        answer = self.daemon.post_form("push/e2ee/register", **registration(key=FOREIGN_KEY))
        self.check(answer, 400, "INVALID_BOUNCER_PUBLIC_KEY", "Invalid bouncer_public_key")

    def test_request_expired(self) -> None:
        """REQUEST_EXPIRED makes the app send a fresh registration."""
        phone = {**APPLE, "timestamp": int(NOW) - 86_401}
        answer = self.daemon.post_form("push/e2ee/register", **registration(phone))
        self.check(answer, 400, "REQUEST_EXPIRED", "Request expired")

    def test_secret_not_prepared(self) -> None:
        """REMOTE_SERVER_VERIFICATION_SECRET_NOT_PREPARED is told *to* us, by a host."""
        self.daemon = Daemon(agent=RequestTraversalAgent(ZulipServers()))
        self.daemon.enrol()
        msg = "The host reported it has no verification secret."
        self.check(self.claim("chat.example.org"), 400, "BAD_REQUEST", msg)

    def test_method_not_allowed(self) -> None:
        """405 has no code, and names the methods."""
        answer = self.daemon.send("GET", "/api/v1/remotes/push/notify")
        self.check(answer, 405, None, "Method Not Allowed", allowed_methods=["POST"])
        answer = self.daemon.send("POST", "/api/v1/remotes/server/analytics/status")
        self.check(answer, 405, None, "Method Not Allowed", allowed_methods=["GET", "HEAD"])

    def test_internal_server_error(self) -> None:
        """500 has no code, and says nothing of what happened."""
        self.daemon = Daemon(store=lambda now: Faulty(None, None, now))
        self.daemon.enrol()
        self.check(self.notify(), 500, None, "Internal server error")
