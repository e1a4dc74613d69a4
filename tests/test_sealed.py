"""What `push/e2ee/*` is asked, as bytes: the contract's texts for everything that may be wrong."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.envelope import WireError
from bouncerd.model import Kind
from bouncerd.sealed import parse_sealed_notify, read_phone, token_id_of
from tests.in_memory import ANDROID, APP, PHONE
from tests.sealing import APPLE, GOOGLE, REALM, asking, base64, for_apple, for_google

INVALID = "Invalid encrypted_push_registration"
ITEM = 'request["push_requests"][0]'

# Any JSON, with our names in it.
NAMES = st.sampled_from([*APPLE, *for_apple(), *for_google(), "device_id", "realm_uuid", "aps"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=10,
)


def without(item: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != name}


class PhoneTests(SynchronousTestCase):
    """What a phone says of itself."""

    def refused(self, opened: bytes | None) -> None:
        error = self.assertRaises(WireError, read_phone, opened)
        self.assertEqual((error.status, error.code, error.msg), (400, "BAD_REQUEST", INVALID))

    def test_token_ids(self) -> None:
        """The ids are those of the published protocol, and depend on the case of the token."""
        vectors = {
            "c0ffee": "+wKIhyAx/Eg=", "C0FFEE": "jS5/TZMf7/8=", "android-token": "RjY0jpbVz/o=",
        }  # fmt: skip
        self.assertEqual({token: base64(token_id_of(token)) for token in vectors}, vectors)
        self.assertEqual(int.from_bytes(token_id_of("c0ffee"), signed=True), -359574906294109112)

    def test_apple(self) -> None:
        """An iPhone says which app it is; what else it says is not for us."""
        phone = read_phone(json.dumps({**APPLE, "new": [1]}).encode())
        self.assertEqual((phone.kind, phone.token, phone.app_id), (Kind.APNS, PHONE, APP))
        self.assertNotIn(PHONE, repr(phone))

    def test_google(self) -> None:
        """An Android phone does not; null is as good as nothing."""
        for said in (GOOGLE, {**GOOGLE, "ios_app_id": None}):
            phone = read_phone(json.dumps(said).encode())
            self.assertEqual((phone.kind, phone.token, phone.app_id), (Kind.FCM, ANDROID, None))

    def test_not_an_object(self) -> None:
        """What is in a box and is no JSON object is a bad registration."""
        text = json.dumps(APPLE)
        for opened in (
            None, b"", b"x", b"[]", b'"x"', b"1", b"null", text[:-1].encode(), b"\xff",
            text.encode() + b"}", text.encode("utf-16"), b"[" * 100_000,
            text.replace(PHONE, "\\ud800").encode(),
            text.replace(str(APPLE["timestamp"]), "NaN").encode(),
        ):  # fmt: skip
            self.refused(opened)

    def test_wrong_members(self) -> None:
        """So is one that lacks something, or has something of another kind."""
        for name in ("token_kind", "token", "timestamp", "ios_app_id"):
            self.refused(json.dumps(without(APPLE, name)).encode())
            if name != "ios_app_id":
                self.refused(json.dumps(without(GOOGLE, name)).encode())
        apple: list[dict[str, Any]] = [
            {"token_kind": "APNS"}, {"token_kind": 1}, {"token_kind": None}, {"token_kind": []},
            {"token": ""}, {"token": "c0ffe"}, {"token": "xy"}, {"token": "é0"}, {"token": 12},
            {"token": None}, {"token": "00" * 2049}, {"token": "c0\0ffe"}, {"token": ["c0"]},
            {"ios_app_id": ""}, {"ios_app_id": None}, {"ios_app_id": "a b"}, {"ios_app_id": "a\n"},
            {"ios_app_id": "ä"}, {"ios_app_id": 5}, {"ios_app_id": "a_b"},
            {"ios_app_id": "a" * 1025}, {"timestamp": "1"}, {"timestamp": 1.0},
            {"timestamp": True}, {"timestamp": None}, {"timestamp": [1]},
        ]  # fmt: skip
        for change in apple:
            self.refused(json.dumps({**APPLE, **change}).encode())
        google = [{"ios_app_id": APP}, {"ios_app_id": ""}, {"token": "x" * 4097}, {"token": "\0"}]
        for other in google:
            self.refused(json.dumps({**GOOGLE, **other}).encode())

    def test_limits(self) -> None:
        """The longest token is taken, and any number as a time."""
        for change in ({"token": "ab" * 2048}, {"timestamp": 10**4000}, {"timestamp": -1}):
            read_phone(json.dumps({**APPLE, **change}).encode())

    @given(JSON | st.fixed_dictionaries(dict.fromkeys(APPLE, SCALARS)))
    def test_any_json(self, said: object) -> None:
        """Whatever is in the box, it is a phone or a bad registration."""
        try:
            read_phone(json.dumps(said).encode())
        except WireError as error:
            self.assertEqual(error.msg, INVALID)


class NotifyTests(SynchronousTestCase):
    """Requests for pushes."""

    def message(self, item: object) -> Any:
        (request,) = parse_sealed_notify(json.dumps(asking(item)).encode()).requests
        return request.message

    def refused(self, item: object, msg: str) -> None:
        self.refused_body(json.dumps(asking(item)).encode(), msg)

    def refused_body(self, body: bytes, msg: str) -> None:
        error = self.assertRaises(WireError, parse_sealed_notify, body)
        self.assertEqual((error.status, error.code, error.msg), (400, "BAD_REQUEST", msg))

    def test_apple(self) -> None:
        """Apple gets the payload as it came, in its order, with the headers that were asked for."""
        aps = {"mutable-content": 1, "alert": {"title": "New notification"}, "sound": "default"}
        item = {**for_apple(priority=5, push_type="background"), "later": 1}
        item["payload"] = {"encrypted_data": "x", "aps": aps, "push_key_id": 2**32 - 1, "new": "ü"}
        message = self.message(item)
        self.assertEqual(message.body.decode(), json.dumps(
            item["payload"], ensure_ascii=False, separators=(",", ":")
        ))  # fmt: skip
        self.assertEqual((message.kind, message.priority, message.push_type, message.expiration),
                         (Kind.APNS, 5, "background", None))  # fmt: skip
        self.assertFalse(message.urgent)
        self.assertTrue(self.message(for_apple()).urgent)

    def test_default_aps(self) -> None:
        """Without `aps` the phone's extension is asked all the same."""
        self.assertEqual(json.loads(self.message(for_apple()).body), {
            "push_key_id": 4022250974,
            "encrypted_data": "c2VjcmV0",
            "aps": {"mutable-content": 1, "alert": {"title": "New notification"}},
        })  # fmt: skip

    def test_google(self) -> None:
        """Google gets texts only, and nothing that we do not know."""
        message = self.message(for_google(priority="normal", aps={"x": 1}))
        self.assertEqual(message.body, b'{"push_key_id":"20","encrypted_data":"c2VjcmV0"}')
        self.assertEqual((message.kind, message.urgent), (Kind.FCM, False))
        self.assertTrue(self.message(for_google()).urgent)

    def test_eleven(self) -> None:
        """An 11.x server names our number for the phone, and the account instead of a key."""
        item = {**without(for_google(), "token_id"), "device_id": 7}
        item["payload"] = {"push_account_id": -10, "encrypted_data": "x"}
        self.assertEqual(self.message(item).body, b'{"push_account_id":"-10","encrypted_data":"x"}')
        apple = {**without(for_apple(), "token_id"), "device_id": 7, "payload": item["payload"]}
        self.assertEqual(json.loads(self.message(apple).body)["push_account_id"], -10)
        (request,) = parse_sealed_notify(json.dumps(asking(apple)).encode()).requests
        self.assertEqual(request.address, 7)
        self.refused(
            {**item, "payload": for_google()["payload"]},
            f'{ITEM}["payload"]["push_account_id"] field is missing: Field required',
        )

    def test_bodies(self) -> None:
        """A body that is no object is told in the words of the other endpoints."""
        model = "SendE2EEPushNotificationPayload"
        self.refused_body(b"\xff", "Malformed payload")
        for body in (b"", b"{", b'{"realm_uuid": NaN}', b"[" * 100_000):
            self.refused_body(body, "Malformed JSON")
        self.refused_body(
            b"[]", f"Invalid request: Input should be a valid dictionary or instance of {model}"
        )

    def test_top(self) -> None:
        """Each of the two members must be there, and be what it is meant to be."""
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"realm_uuid": 5}, 'request["realm_uuid"] is not a string'),
            ({"realm_uuid": None}, 'request["realm_uuid"] is not a string'),
            ({"realm_uuid": "x"}, 'request["realm_uuid"] has invalid format'),
            ({"push_requests": None}, 'request["push_requests"] is not a list'),
            ({"push_requests": {}}, 'request["push_requests"] is not a list'),
        ]
        for change, msg in wrong:
            self.refused_body(json.dumps({**asking(), **change}).encode(), msg)
        for name in ("realm_uuid", "push_requests"):
            body = json.dumps(without(asking(for_apple()), name)).encode()
            self.refused_body(body, f'request["{name}"] field is missing: Field required')
        self.assertEqual(parse_sealed_notify(json.dumps(asking()).encode()).requests, [])

    def test_items(self) -> None:
        """What is wrong with an item is told with its place, and without what it holds."""
        missing = "field is missing: Field required"
        wrong: list[tuple[Any, str]] = [
            ([], f"{ITEM} is not a dict"),
            ("x", f"{ITEM} is not a dict"),
            ({}, f'{ITEM}["token_id"] {missing}'),
            ({**for_apple(), "token_id": 5}, f'{ITEM}["token_id"] is not a string'),
            ({"device_id": "5"}, f'{ITEM}["device_id"] is not an integer'),
            ({"device_id": True}, f'{ITEM}["device_id"] is not an integer'),
            (without(for_apple(), "http_headers"), f'{ITEM}["http_headers"] {missing}'),
            ({**for_apple(), "http_headers": []}, f'{ITEM}["http_headers"] is not a dict'),
            (without(for_apple(), "payload"), f'{ITEM}["payload"] {missing}'),
            ({**for_apple(), "payload": "x"}, f'{ITEM}["payload"] is not a dict'),
            ({**for_google(), "payload": None}, f'{ITEM}["payload"] is not a dict'),
            (for_apple(push_key_id="5"), f'{ITEM}["payload"]["push_key_id"] is not an integer'),
            (for_apple(push_key_id=5.0), f'{ITEM}["payload"]["push_key_id"] is not an integer'),
            (for_apple(push_key_id=True), f'{ITEM}["payload"]["push_key_id"] is not an integer'),
            (for_google(encrypted_data=5), f'{ITEM}["payload"]["encrypted_data"] is not a string'),
            (for_apple(aps=None), f'{ITEM}["payload"]["aps"] is not a dict'),
        ]
        for item, msg in wrong:
            self.refused(item, msg)

    def test_headers(self) -> None:
        """What becomes a header is one of few."""
        headers = f'{ITEM}["http_headers"]'
        value: Any
        for value in (0, 9, "10", 10.0, True, None, [], {}, 2**70):
            self.refused(for_apple(priority=value), f'Invalid {headers}["apns_priority"]')
        for value in ("", "Alert", "alert\n", "widgets", 5, None, ["alert"]):
            self.refused(for_apple(push_type=value), f'Invalid {headers}["apns_push_type"]')
        for value in ("", "High", 10, None, ["high"]):
            self.refused(for_google(priority=value), f'Invalid {ITEM}["fcm_priority"]')
        for name in ("apns_priority", "apns_push_type"):
            item = {**for_apple(), "http_headers": without(for_apple()["http_headers"], name)}
            self.refused(item, f'{headers}["{name}"] field is missing: Field required')
        for priority in (10, 5, 1):
            self.assertEqual(self.message(for_apple(priority=priority)).priority, priority)

    def test_later_items(self) -> None:
        """The place is counted."""
        body = json.dumps(asking(for_apple(), for_google(), 5)).encode()
        self.refused_body(body, 'request["push_requests"][2] is not a dict')

    def test_nothing_shown(self) -> None:
        """Neither tokens' ids nor content are in what a traceback could print."""
        body = json.dumps(asking(for_apple(encrypted_data="canary"))).encode()
        asked = repr(parse_sealed_notify(body))
        self.assertNotIn("canary", asked)
        self.assertNotIn(for_apple()["token_id"], asked)

    @given(JSON)
    def test_any_item(self, item: object) -> None:
        """Whatever an item is, it is a push or a 400."""
        body = json.dumps({"realm_uuid": REALM, "push_requests": [item]}).encode()
        try:
            parse_sealed_notify(body)
        except WireError as error:
            self.assertEqual(error.status, 400)
