"""`push/e2ee/register`, from the form that a server sends to what is remembered."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.bouncer import Rules
from bouncerd.boxes import Boxes
from bouncerd.model import Kind, SealedDevice
from tests.in_memory import ANDROID, APP, NOW, PHONE, Answer, basic, result
from tests.sealing import (
    APPLE,
    CURRENT_KEY,
    FOREIGN_KEY,
    GOOGLE,
    OLD_KEY,
    OTHER_REALM,
    REALM,
    add_realm,
    base64,
    eleven,
    house,
    public,
    registration,
    sealed,
    token_id,
)

SUCCESS = {"result": "success", "msg": ""}
INVALID = "Invalid encrypted_push_registration"


class RegisterTests(SynchronousTestCase):
    """A server hands on what its users' phones have sealed for us."""

    def setUp(self) -> None:
        self.daemon = house()

    def register(self, form: dict[str, str]) -> Answer:
        return self.daemon.post_form("push/e2ee/register", **form)

    def refused(self, form: dict[str, str], status: int, code: str, msg: str, **data: str) -> None:
        answer = self.register(form)
        self.assertEqual(
            (answer.status, answer.json),
            (status, {"result": "error", "msg": msg, "code": code, **data}),
        )
        self.assertEqual(self.count(), 0)

    def count(self) -> int:
        realm_id: int = result(self.daemon.store.realm(REALM)).id
        count: int = result(self.daemon.store.count_sealed(realm_id))
        return count

    def devices(self) -> list[SealedDevice]:
        realm_id = result(self.daemon.store.realm(REALM)).id
        devices: list[SealedDevice] = result(
            self.daemon.store.sealed_devices_by_id(realm_id, range(50))
        )
        return devices

    # --- what is remembered

    def test_phones(self) -> None:
        """A phone of each kind is remembered as it described itself."""
        for phone in (APPLE, GOOGLE):
            answer = self.register(registration(phone))
            self.assertEqual((answer.status, answer.json), (200, SUCCESS))
        apple, google = self.devices()
        self.assertEqual((apple.kind, apple.token, apple.app_id), (Kind.APNS, PHONE, APP))
        self.assertEqual((google.kind, google.token, google.app_id), (Kind.FCM, ANDROID, None))
        self.assertEqual(base64(google.token_id), token_id(ANDROID))

    def test_published_example(self) -> None:
        """The example of the protocol's description is taken."""
        phone = {**APPLE, "token": "c0ffee"}
        self.assertEqual(registration(phone)["token_id"], "+wKIhyAx/Eg=")
        self.assertEqual(self.register(registration(phone)).json, SUCCESS)

    def test_older_key(self) -> None:
        """An app that carries the key before the current one goes on working."""
        self.assertEqual(self.register(registration(key=OLD_KEY)).json, SUCCESS)

    def test_again(self) -> None:
        """A phone that registers again is one phone; what it says last counts."""
        self.register(registration())
        self.daemon.clock.advance(5)
        self.register(registration({**APPLE, "ios_app_id": "org.example.Beta"}))
        (device,) = self.devices()
        self.assertEqual((device.app_id, device.registered_at), ("org.example.Beta", NOW + 5))

    def test_revival(self) -> None:
        """A phone that was taken for dead is back when it registers again."""
        self.register(registration())
        (device,) = self.devices()
        result(self.daemon.store.expire_sealed([device.id], NOW, NOW))
        self.assertEqual(self.count(), 0)
        self.assertEqual(self.register(registration()).json, SUCCESS)
        (again,) = self.devices()
        self.assertEqual((again.id, again.expired_at), (device.id, None))

    def test_other_parameters(self) -> None:
        """Parameters that nobody wants are named."""
        answer = self.register({**registration(), "push_account_id": "x", "y": "z"})
        self.assertEqual(
            answer.json, {**SUCCESS, "ignored_parameters_unsupported": ["push_account_id", "y"]}
        )

    def test_not_entitled(self) -> None:
        """Registering needs no plan."""
        self.daemon = house(free_users=0, users=50)
        self.assertEqual(self.register(registration()).json, SUCCESS)

    # --- the dialect of 11.x

    def test_eleven(self) -> None:
        """An 11.x server is told our number for the phone, each time the same."""
        answers = [self.register(eleven()).json for _ in range(2)]
        (device,) = self.devices()
        self.assertEqual(answers, [{**SUCCESS, "device_id": device.id}] * 2)
        self.assertEqual(device.push_account_id, 10)

    def test_eleven_becomes_twelve(self) -> None:
        """A server that is upgraded and registers its phones anew has them once."""
        number = self.register(eleven()).json["device_id"]
        self.register(registration())
        (device,) = self.devices()
        self.assertEqual((device.id, device.push_account_id), (number, 10))

    def test_eleven_account(self) -> None:
        """An account is an integer that can be stored."""
        form = eleven()
        for value, msg in [
            ("x", "push_account_id is not valid JSON"),
            ('"10"', "push_account_id is not an integer"),
            ("true", "push_account_id is not an integer"),
            ("1.0", "push_account_id is not an integer"),
            (str(2**63), "push_account_id is too large"),
            (str(-(2**63) - 1), "push_account_id is too large"),
        ]:
            self.refused({**form, "push_account_id": value}, 400, "BAD_REQUEST", msg)
        self.assertEqual(self.register({**form, "push_account_id": str(-(2**63))}).status, 200)

    # --- what is refused

    def test_missing(self) -> None:
        """All four parameters are needed."""
        for name in registration():
            form = {key: value for key, value in registration().items() if key != name}
            self.refused(
                form, 400, "REQUEST_VARIABLE_MISSING", f"Missing '{name}' argument", var_name=name
            )

    def test_realm(self) -> None:
        """The realm must be one that this very server has uploaded."""
        form = registration(realm_uuid=OTHER_REALM)
        self.refused(form, 403, "MISSING_REMOTE_REALM", "Organization not registered")
        other = self.daemon.enrol("0d5a6a6a-0b5a-4d5a-8e9e-000000000000", hostname="b.example.org")
        add_realm(self.daemon, other, OTHER_REALM)
        self.refused(
            form,
            403,
            "REMOTE_REALM_SERVER_MISMATCH_ERROR",
            "Your organization is registered to a different Zulip server. Please contact Zulip"
            " support for assistance in resolving this issue.",
        )
        self.refused(
            registration(realm_uuid="x"), 400, "BAD_REQUEST", "realm_uuid has invalid format"
        )

    def test_realm_first(self) -> None:
        """The realm is looked at before the key, and the key before the box."""
        form = registration(key=FOREIGN_KEY, realm_uuid=OTHER_REALM)
        self.refused(form, 403, "MISSING_REMOTE_REALM", "Organization not registered")
        form = registration(key=FOREIGN_KEY, encrypted_push_registration="x")
        self.refused(form, 400, "INVALID_BOUNCER_PUBLIC_KEY", "Invalid bouncer_public_key")

    def test_foreign_key(self) -> None:
        """An app built for another bouncer is told so, in whatever way its key is foreign."""
        for key in (public(FOREIGN_KEY), public(CURRENT_KEY).rstrip("="), "", "ü", "\0"):
            form = registration(bouncer_public_key=key)
            self.refused(form, 400, "INVALID_BOUNCER_PUBLIC_KEY", "Invalid bouncer_public_key")

    def test_not_configured(self) -> None:
        """A bouncer without keys has nobody's."""
        self.daemon = house(boxes=Boxes())
        self.refused(
            registration(), 400, "INVALID_BOUNCER_PUBLIC_KEY", "Invalid bouncer_public_key"
        )

    def test_boxes(self) -> None:
        """A box must be base64, closed to the key that is named, and hold a phone."""
        good = registration()["encrypted_push_registration"]
        for box in (
            "", "x", good[:-1], good.rstrip("=") + "===", good.replace("=", "") + "=", good + " ",
            "\n" + good, sealed(json.dumps(APPLE).encode(), OLD_KEY), "ü", "\0",
            base64(b"x" * 200), sealed(b""), sealed(b"{}"), sealed(b"\xff"),
        ):  # fmt: skip
            if box != good:
                form = registration(encrypted_push_registration=box)
                self.refused(form, 400, "BAD_REQUEST", INVALID)

    def test_token_ids(self) -> None:
        """The token's id must be that of the token in the box."""
        apple = {**APPLE, "token": "c0ffee"}
        for wrong in (
            "jS5/TZMf7/8=", "+wKIhyAx/Eg", "-wKIhyAx_Eg=", "", "x", "ü", "+wKIhyAx/EgA",
            "-359574906294109112", token_id(ANDROID), base64(bytes(32)),
        ):  # fmt: skip
            self.refused(registration(apple, token_id=wrong), 400, "BAD_REQUEST", INVALID)

    def test_freshness(self) -> None:
        """A registration is good for a day; a phone whose clock is ahead is welcome."""
        stale = registration({**APPLE, "timestamp": int(NOW) - 86_401})
        self.refused(stale, 400, "REQUEST_EXPIRED", "Request expired")
        for timestamp in (-(10**400), 0, -1):
            stale = registration({**APPLE, "timestamp": timestamp})
            self.refused(stale, 400, "REQUEST_EXPIRED", "Request expired")
        for timestamp in (int(NOW) - 86_400, int(NOW) + 10**9, 10**400):
            self.assertEqual(
                self.register(registration({**APPLE, "timestamp": timestamp})).status, 200
            )

    def test_token_id_before_freshness(self) -> None:
        """A wrong id is a bad registration, however old."""
        stale = registration({**APPLE, "timestamp": 1}, token_id=token_id(ANDROID))
        self.refused(stale, 400, "BAD_REQUEST", INVALID)

    def test_credentials(self) -> None:
        """Only a known server gets as far as any of this."""
        wrong = {"Authorization": basic(key="x")}
        answer = self.daemon.post_form("push/e2ee/register", wrong, **registration())
        self.assertEqual((answer.status, answer.json["code"]), (401, "UNAUTHORIZED"))

    def test_method(self) -> None:
        """Both endpoints are for POST."""
        for path in ("register", "notify"):
            answer = self.daemon.send("GET", f"/api/v1/remotes/push/e2ee/{path}")
            self.assertEqual((answer.status, answer.json["allowed_methods"]), (405, ["POST"]))

    # --- limits

    def fill(self, count: int) -> list[int]:
        return [
            self.register(registration({**GOOGLE, "token": str(number)})).status
            for number in range(count)
        ]

    def test_limit(self) -> None:
        """A realm has at most as many phones as its users may have; the rest of it goes on."""
        self.daemon = house(rules=Rules(keep_for=60.0, devices_per_user=1), users=11)
        self.assertEqual(self.fill(23), [200] * 22 + [400])
        answer = self.register(registration({**GOOGLE, "token": "22"}))
        self.assertEqual(
            answer.json["msg"],
            "Too many devices are registered for this organization (limit: 22)",
        )
        self.assertEqual(self.register(registration({**GOOGLE, "token": "0"})).status, 200)

    def test_dead_phones_do_not_count(self) -> None:
        """A phone that died leaves its place to another."""
        self.daemon = house(rules=Rules(keep_for=60.0, devices_per_user=1), users=10)
        self.fill(20)
        self.assertEqual(self.register(registration()).status, 400)
        result(self.daemon.store.expire_sealed([self.devices()[0].id], NOW, NOW))
        self.assertEqual(self.register(registration()).status, 200)

    def test_small_realms(self) -> None:
        """A realm that grows has room until its server says that it has grown."""
        self.daemon = house(rules=Rules(keep_for=60.0, devices_per_user=1), users=1)
        self.assertEqual(self.fill(21), [200] * 20 + [400])

    def test_unknown_users(self) -> None:
        """A realm of which nobody knows how large it is gets by."""
        self.daemon = house(rules=Rules(keep_for=60.0, devices_per_user=1))
        self.assertEqual(self.fill(40), [200] * 40)

    # --- whatever is sent

    @given(
        st.dictionaries(
            st.sampled_from([*registration(), "push_account_id"]),
            st.sampled_from([REALM, token_id(PHONE), public(CURRENT_KEY), "", "5", "\0", "=="])
            | st.text(max_size=20),
        ),
        st.booleans(),
    )
    def test_any_form(self, changes: dict[str, str], bare: bool) -> None:
        """Every form is answered, and never as if it were our fault."""
        form = changes if bare else {**registration(), **changes}
        body = {name: value.encode("utf-8", "replace").decode() for name, value in form.items()}
        answer = self.register(body)
        self.assertIn(answer.status, (200, 400, 403))
        self.assertEqual(answer.json["result"], "success" if answer.status == 200 else "error")

    @given(st.dictionaries(st.sampled_from([*APPLE]), st.none() | st.integers() | st.text()))
    def test_any_phone(self, changes: dict[str, Any]) -> None:
        """So is whatever a phone says of itself."""
        phone = {**APPLE, **changes}
        form = registration(phone) if isinstance(phone["token"], str) else registration(APPLE)
        form["encrypted_push_registration"] = sealed(json.dumps(phone).encode())
        self.assertIn(self.register(form).status, (200, 400))

    def test_nothing_logged(self) -> None:
        """Neither a token nor a box is in any log, whatever becomes of it."""
        logged = EventLoggingObserver()
        globalLogPublisher.addObserver(logged)
        self.addCleanup(globalLogPublisher.removeObserver, logged)
        phone = {**GOOGLE, "token": "canary-token"}
        forms = [
            registration(phone), eleven(phone), registration(phone, token_id="canary"),
            registration(phone, encrypted_push_registration="canary"),
            registration({**phone, "timestamp": 1}), registration({**phone, "ios_app_id": "x"}),
        ]  # fmt: skip
        for form in forms:
            answer = self.register(form)
            self.assertNotIn(b"canary", answer.body)
        for event in logged:
            text = f"{formatEvent(event)} {event!r}"
            self.assertNotIn("canary", text)
            self.assertNotIn(token_id("canary-token"), text)
