"""The HTTP API as its callers see it: paths, methods, headers, and what goes wrong."""

import json
from email.utils import parsedate
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.api import PREFIX
from bouncerd.model import Found
from tests.in_memory import (
    ANDROID,
    APP,
    FORM,
    ORG_ID,
    PHONE,
    USER,
    Answer,
    Daemon,
    TroubledStore,
    basic,
    form,
    read_answer,
    spell,
)

NOTIFY = {"user_id": 5, "user_uuid": USER}
ENDPOINTS = ["push/register", "push/unregister", "push/unregister/all", "push/notify",
             "push/test_notification"]  # fmt: skip


class ApiTests(SynchronousTestCase):
    """A daemon that one server is enrolled at, and what it logs."""

    def setUp(self) -> None:
        self.daemon = Daemon(store=TroubledStore, support="ops@example.org")
        self.daemon.enrol()
        self.logged = EventLoggingObserver()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)

    @property
    def store(self) -> TroubledStore:
        store = self.daemon.store
        assert isinstance(store, TroubledStore)
        return store

    def register_phones(self) -> None:
        by = {"user_uuid": USER, "user_id": "5"}
        apple = {"token": PHONE, "token_kind": "1", "ios_app_id": APP}
        self.daemon.post_form("push/register", **by, **apple)
        self.daemon.post_form("push/register", **by, token=ANDROID, token_kind="2")

    def log(self) -> str:
        """Return all that was logged, each field of each event."""
        return "\n".join(f"{formatEvent(event)} {event!r}" for event in self.logged)

    def error(self, answer: Answer, status: int) -> Any:
        """Check what all errors share; return the body."""
        self.assertEqual(answer.status, status)
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        self.assertTrue(answer.body.endswith(b"\n"))
        self.assertEqual(answer.json["result"], "error")
        self.assertTrue(answer.json["msg"])
        return answer.json


class RoutingTests(ApiTests):
    """Paths and methods."""

    def test_wrong_methods(self) -> None:
        """A wrong method is told with the right ones, before credentials are asked for."""
        for endpoint in [*ENDPOINTS, "server/register"]:
            for method in ["GET", "PUT", "DELETE", "PATCH", "TRACE", "BREW"]:
                answer = self.daemon.send(method, PREFIX + endpoint)
                body = self.error(answer, 405)
                self.assertEqual(body["allowed_methods"], ["POST"])
                self.assertNotIn("code", body)
                self.assertEqual(answer.headers["Allow"], "POST")

    def test_head(self) -> None:
        """HEAD gets the headers of an answer and no body."""
        answer = self.daemon.send("HEAD", PREFIX + "push/notify")
        self.assertEqual((answer.status, answer.body), (405, b""))
        self.assertEqual(answer.headers["Content-Length"], "73")

    def test_options(self) -> None:
        """OPTIONS needs no credentials, and has no body; enrolling does not have it."""
        answer = self.daemon.send("OPTIONS", PREFIX + "push/notify")
        self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertEqual(answer.headers["Allow"], "POST")
        self.error(self.daemon.send("OPTIONS", PREFIX + "server/register"), 405)

    def test_unknown_paths(self) -> None:
        """What there is not, a newer server is told in JSON, whatever its method."""
        for path in [
            "/", "*", "/nope", "/%ff", "/%00", "/api/v1/remotes", PREFIX, PREFIX + "push/notify/",
            PREFIX + "PUSH/notify", PREFIX + "push/e2ee/nope", "/api/remotes/push/notify",
            "http://host/api/v1/remotes/push/notify", "/../" + PREFIX, PREFIX + "push/./notify",
        ]:  # fmt: skip
            for method in ["GET", "POST", "OPTIONS"]:
                self.error(self.daemon.send(method, path), 404)

    def test_slashes(self) -> None:
        """Leading slashes too many do no harm; nothing is ever redirected."""
        for path in ["//api/v1/remotes/push/notify", "/api/v1/remotes/push%2Fnotify"]:
            self.error(self.daemon.send("POST", path), 401)
        for path in ["/api//v1/remotes/push/notify", "/api/v1/remotes//push/notify"]:
            answer = self.daemon.send("POST", path)
            self.error(answer, 404)
            self.assertNotIn("Location", answer.headers)

    def test_host(self) -> None:
        """The Host header is of no interest, however odd."""
        for host in ["", "a" * 70 + ".example.org", "ü", "[", "xn--a", "a:b:c", "evil.example"]:
            answer = self.daemon.send("POST", PREFIX + "push/notify", b"", {"Host": host})
            self.error(answer, 401)

    def test_method_parameter(self) -> None:
        """A parameter called `method` does not choose one."""
        answer = self.daemon.post_form("push/unregister/all", method="GET", user_id="5")
        self.assertEqual(answer.json["ignored_parameters_unsupported"], ["method"])


class HeaderTests(ApiTests):
    """What every answer carries."""

    def test_request_ids(self) -> None:
        """Every answer has an id of its own, to look up in the log."""
        requests = [
            spell("POST", PREFIX + "push/notify", b"", {}),
            spell("GET", PREFIX + "push/notify", b"", {}),
            spell("OPTIONS", PREFIX + "push/notify", b"", {}),
            spell("GET", "/nope", b"", {}),
            b"nonsense\r\n\r\n",
            spell("POST", "/", b"", {"Content-Length": "9999999"}),
        ]
        answers = [self.daemon.raw(request) for request in requests]
        ids = [answer.headers["X-Request-Id"] for answer in answers]
        self.assertEqual(len(set(ids)), len(requests))
        self.assertTrue(all(ids))
        self.assertIn(ids[0], self.log())

    def test_never_cached(self) -> None:
        """No cache may keep an answer."""
        answer = self.daemon.post_json("push/notify", NOTIFY)
        self.assertEqual(
            answer.headers["Cache-Control"],
            "max-age=0, no-cache, no-store, must-revalidate, private",
        )
        self.assertEqual(parsedate(answer.headers["Expires"])[:4], (2027, 1, 15, 8))  # type: ignore[index]
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        self.assertNotIn("Server", answer.headers)


class AuthenticationTests(ApiTests):
    """Who may ask, and what is checked in which order."""

    def test_every_endpoint(self) -> None:
        """Without credentials no endpoint says more than that."""
        for endpoint in ENDPOINTS:
            answer = self.daemon.send("POST", PREFIX + endpoint, b"{", {})
            self.assertEqual(self.error(answer, 401)["code"], "UNAUTHORIZED")
            self.assertEqual(answer.headers["WWW-Authenticate"], 'Basic realm="zulip"')

    def test_credentials_before_body(self) -> None:
        """What is wrong with a request is told to its server only."""
        wrong = {"Authorization": basic(key="x")}
        for headers in [wrong, {"Authorization": basic(org_id="nobody")}]:
            answer = self.daemon.post_json("push/notify", "nonsense", headers)
            self.assertIn("Zulip server auth failure", self.error(answer, 401)["msg"])
        self.error(self.daemon.post_json("push/notify", "nonsense"), 400)

    def test_repeated_header(self) -> None:
        """Two Authorization headers are none."""
        line = f"Authorization: {basic()}\r\n".encode()
        request = spell("POST", PREFIX + "push/notify", b"", {}).replace(
            b"\r\n", b"\r\n" + 2 * line, 1
        )
        self.assertIn("Invalid authorization", self.error(self.daemon.raw(request), 401)["msg"])

    def test_one_look_up(self) -> None:
        """A push costs one look-up, for the server and its user's phones together."""
        self.register_phones()
        self.store.lookups = 0
        self.assertEqual(self.daemon.post_json("push/notify", NOTIFY).status, 200)
        self.assertEqual(self.store.lookups, 1)
        self.daemon.post_json("push/notify", NOTIFY, {"Authorization": basic(org_id="no uuid")})
        self.assertEqual(self.store.lookups, 1)


class EndpointTests(ApiTests):
    """The endpoints at work."""

    def test_enrol(self) -> None:
        """A new server is created, and updated after that; unknown parameters are named."""
        values = {
            "zulip_org_id": "9aa61d0b-8ce5-488d-8e9e-fedc346e6836", "zulip_org_key": "x" * 64,
            "hostname": "other.example.org", "contact_email": "a@example.org", "b": "1", "a": "",
        }  # fmt: skip
        for created in (True, False):
            answer = self.daemon.send("POST", PREFIX + "server/register", form(values), FORM)
            self.assertEqual(
                answer.json,
                {"result": "success", "msg": "", "created": created,
                 "ignored_parameters_unsupported": ["a", "b"]},
            )  # fmt: skip

    def test_a_push(self) -> None:
        """A message reaches both of a user's phones."""
        self.register_phones()
        answer = self.daemon.post_json("push/notify?x=1", {**NOTIFY, "apple_devices": ["gone"]})
        self.assertEqual(
            answer.json,
            {
                "result": "success", "msg": "", "total_android_devices": 1,
                "total_apple_devices": 1, "realm": None,
                "deleted_devices": {"android_devices": [], "apple_devices": ["gone"]},
                "ignored_parameters_unsupported": ["x"],
            },
        )  # fmt: skip
        self.assertEqual(len(self.daemon.pushes), 2)

    def test_a_test(self) -> None:
        """A test reaches the phone it is for."""
        self.register_phones()
        asked = {"token": ANDROID, "token_kind": 2, "user_id": 5, "user_uuid": USER,
                 "base_payload": {"realm_name": "Org", "realm_uri": "u"}}  # fmt: skip
        self.assertEqual(self.daemon.post_json("push/test_notification", asked).status, 200)
        self.assertEqual(len(self.daemon.fcm.pushes), 1)

    def test_goodbye(self) -> None:
        """Phones are unregistered one by one, and all at once."""
        self.register_phones()
        by = {"user_uuid": USER, "user_id": "5"}
        gone = self.daemon.post_form("push/unregister", **by, token=ANDROID, token_kind="2")
        self.assertEqual(gone.json, {"result": "success", "msg": ""})
        self.assertEqual(self.daemon.post_form("push/unregister/all", **by).status, 200)
        self.assertEqual(
            self.daemon.post_json("push/notify", NOTIFY).json["total_apple_devices"], 0
        )

    def test_multipart(self) -> None:
        """A form may be multipart."""
        parts = "".join(
            f'--xx\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in [("user_id", "5"), ("token", ANDROID), ("token_kind", "2")]
        )
        headers = {"Authorization": basic(), "Content-Type": "multipart/form-data; boundary=xx"}
        body = f"{parts}--xx--\r\n".encode()
        answer = self.daemon.send("POST", PREFIX + "push/register", body, headers)
        self.assertEqual(answer.status, 200)


class BusyTests(ApiTests):
    """Bad times: servers are told to ask again, and do."""

    def busy(self, answer: Answer) -> None:
        self.assertIn("Contact ops@example.org", self.error(answer, 503)["msg"])
        self.assertEqual(answer.headers["Retry-After"], "5")

    def test_no_room(self) -> None:
        """A saturated process takes nothing of a call."""
        self.register_phones()
        self.daemon.apns.room = False
        self.busy(self.daemon.post_json("push/notify", NOTIFY))
        self.assertEqual(self.daemon.pushes, [])

    def test_no_store(self) -> None:
        """A store that fails is no fault of the caller's."""
        self.store.down = True
        self.busy(self.daemon.post_json("push/notify", NOTIFY))
        self.busy(self.daemon.post_form("push/unregister/all", user_id="5"))
        self.assertNotIn("log_failure", self.log())

    def test_a_silent_store(self) -> None:
        """A store that does not answer is not waited for longer than servers wait."""
        self.store.silent = True
        channel, transport = self.daemon.connect()
        channel.dataReceived(
            spell(
                "POST",
                PREFIX + "push/notify",
                json.dumps(NOTIFY).encode(),
                {"Authorization": basic()},
            )
        )
        self.daemon.clock.advance(11.9)
        self.assertEqual(transport.value(), b"")
        self.daemon.clock.advance(0.2)
        self.busy(read_answer(transport.value()))


class HangUpTests(ApiTests):
    """Callers that hang up before they are answered."""

    def setUp(self) -> None:
        super().setUp()
        self.register_phones()
        self.daemon.apns.holding = self.daemon.fcm.holding = True
        self.logged._events.clear()
        self.caller = ORG_ID

    def only_says_so(self) -> None:
        """Check that the log has one line, which is no alarm: that a caller hung up."""
        lines = [(formatEvent(event).split(" ", 2)[2], event["log_level"]) for event in self.logged]
        said = f"to push/notify by {self.caller}: 499 after 0 ms"
        self.assertEqual(lines, [(said, LogLevel.info)])

    def hang_up(self) -> None:
        """Ask for a push, and be gone."""
        channel, _transport = self.daemon.connect()
        body = json.dumps({**NOTIFY, "apns_payload": {"alert": "hush"}}).encode()
        channel.dataReceived(
            spell("POST", PREFIX + "push/notify", body, {"Authorization": basic()})
        )
        channel.connectionLost(Failure(ConnectionDone()))

    def test_the_push_goes_on(self) -> None:
        """The push is made all the same, and nobody is alarmed."""
        self.hang_up()
        self.assertEqual(len(self.daemon.pushes), 2)
        self.daemon.apns.release()
        self.daemon.fcm.release()
        self.only_says_so()

    def test_late_errors(self) -> None:
        """What then cannot be told to anybody is not logged as a fault either."""
        self.hang_up()
        self.daemon.apns.give_back()
        self.daemon.fcm.give_back()
        self.only_says_so()

    def test_a_look_up_goes_on(self) -> None:
        """A query is not cancelled: that would break its connection."""
        asked: list[Deferred[Any]] = []

        class SlowStore(TroubledStore):
            def find(self, *_: object) -> Deferred[Any]:
                asked.append(Deferred(lambda _: asked.clear()))
                return asked[-1]

        self.daemon, self.caller = Daemon(store=SlowStore), "nobody"
        self.hang_up()
        self.assertEqual(len(asked), 1, "it was cancelled")
        asked[0].callback(Found(None))
        self.only_says_so()
