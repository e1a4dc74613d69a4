"""What the push endpoints take, and in which words they refuse (bouncer-api.md 9)."""

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.envelope import WireError
from bouncerd.forms import Form
from bouncerd.model import Device, Identity, Kind
from bouncerd.wire import (
    deleted_android,
    deleted_apple,
    parse_notify,
    parse_register,
    parse_test_notification,
    parse_unregister,
    parse_unregister_all,
)

USER = "3f6d2b1e-6a55-4f0e-8b1c-2c9a7f4e5d21"
REALM = "9aa61d0b-8ce5-488d-8e9e-fedc346e6836"
REGISTER = {
    "user_id": "5", "user_uuid": USER, "realm_uuid": REALM, "token": "c0ffee", "token_kind": "1",
    "ios_app_id": "org.example.App",
}  # fmt: skip
TEST: dict[str, Any] = {
    "token": "t", "token_kind": 2, "user_id": 5, "user_uuid": USER, "base_payload": {},
}  # fmt: skip


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


class RegisterTests(SynchronousTestCase):
    """`push/register`, and what `push/unregister` shares with it."""

    def told(self, *missing: str, **changes: str) -> str:
        form = Form(without(REGISTER | changes, *missing))
        return str(self.assertRaises(WireError, parse_register, form).msg)

    def test_good(self) -> None:
        """A phone is taken as sent, its user's and realm's ids in normal form."""
        asked = parse_register(Form(REGISTER | {"user_uuid": USER.upper()}))
        self.assertEqual(asked.identity, Identity(5, USER))
        self.assertEqual(
            (asked.kind, asked.token, asked.app_id), (Kind.APNS, "c0ffee", "org.example.App")
        )
        self.assertNotIn("c0ffee", repr(asked))

    def test_tokens(self) -> None:
        """Apple's tokens are what 9.x or newer bouncers take: base64 or hexadecimal."""
        for token in ["c0ffee", "c0 ff ee", "ab/+cd==", "!!!!", "A" * 4096]:
            parse_register(Form(REGISTER | {"token": token}))
        for token in ["abcde", "üüüü", "c0ffe"]:
            self.assertEqual(self.told(token=token), "Invalid APNS token")
        for token in ["", "a" * 4097, "a\0"]:
            self.assertEqual(self.told(token=token), "Empty or invalid length token")
        android = without(REGISTER, "ios_app_id") | {"token_kind": "2", "token": "ü:_- any"}
        self.assertEqual(parse_register(Form(android)).token, "ü:_- any")

    def test_kinds(self) -> None:
        """A phone is Apple's (1) or Google's (2)."""
        for kind in ["0", "3", "-1", "9" * 30]:
            self.assertEqual(self.told(token_kind=kind), "Invalid token type")
        self.assertEqual(self.told(token_kind="x"), "token_kind is not valid JSON")

    def test_app_ids(self) -> None:
        """An app id is letters, digits, dots and hyphens, and iPhones need one."""
        for app_id in ["", "bad app", "a_b", "ü", "a\n", "a/b", "a\u0661"]:
            self.assertEqual(self.told(ios_app_id=app_id), "ios_app_id has invalid format")
            self.assertEqual(
                self.told(ios_app_id=app_id, token_kind="2"), "ios_app_id has invalid format"
            )
        self.assertIn("too long", self.told(ios_app_id="a" * 1025))
        self.assertEqual(self.told("ios_app_id"), "Missing ios_app_id")
        for app_id in [".", "-", "a" * 300]:
            parse_register(Form(REGISTER | {"ios_app_id": app_id}))
        self.assertIsNone(parse_register(Form(REGISTER | {"token_kind": "2"})).app_id)

    def test_users(self) -> None:
        """A user has a number, a UUID or both; a number that no database holds does not do."""
        self.assertEqual(
            self.told("user_id", "user_uuid", "realm_uuid"), "Missing user_id or user_uuid"
        )
        self.assertEqual(self.told(user_uuid="x"), "user_uuid has invalid format")
        self.assertEqual(
            self.told("user_uuid", "realm_uuid", user_id="9" * 20), "user_id is too large"
        )
        parse_register(Form(REGISTER | {"user_id": "9" * 20}))
        for number in ["-5", "0", "99999999999"]:
            by_number = Form(without(REGISTER, "user_uuid", "realm_uuid") | {"user_id": number})
            self.assertEqual(parse_register(by_number).identity, Identity(int(number), None))

    def test_realms(self) -> None:
        """A realm is named by its UUID, by servers that name their users by UUID, too."""
        self.assertEqual(self.told("user_uuid"), "Missing user_uuid")
        self.assertEqual(self.told(realm_uuid=""), "realm_uuid has invalid format")
        asked = parse_register(Form(REGISTER | {"realm_uuid": REALM.replace("-", "").upper()}))
        self.assertEqual(asked.realm_uuid, REALM)

    def test_order(self) -> None:
        """Of several mistakes the first in the contract's order is told."""
        bad = {"user_id": "x", "token_kind": "y", "ios_app_id": "_", "token": "", "user_uuid": "z"}
        self.assertEqual(self.told(**bad), "user_id is not valid JSON")
        bad["user_id"] = "1"
        self.assertEqual(self.told(**bad), "token_kind is not valid JSON")
        bad["token_kind"] = "7"
        self.assertEqual(self.told(**bad), "ios_app_id has invalid format")
        bad["ios_app_id"] = "a"
        self.assertEqual(self.told(**bad), "Invalid token type")
        bad["token_kind"] = "1"
        self.assertEqual(self.told(**bad), "Empty or invalid length token")
        bad["token"] = "c0ffee"
        self.assertEqual(self.told(**bad), "user_uuid has invalid format")

    def test_unregister(self) -> None:
        """Unregistering takes the same phones and users, in another order of checks."""
        asked = parse_unregister(Form(REGISTER))
        self.assertEqual((asked.identity, asked.token), (Identity(5, USER), "c0ffee"))
        bad = Form({"user_id": "x"})
        self.assertEqual(
            self.assertRaises(WireError, parse_unregister, bad).msg, "Missing 'token' argument"
        )
        self.assertEqual(parse_unregister_all(Form({"user_id": "5"})).identity, Identity(5, None))
        error = self.assertRaises(WireError, parse_unregister_all, Form({}))
        self.assertEqual(error.msg, "Missing user_id or user_uuid")


class NotifyTests(SynchronousTestCase):
    """`push/notify`."""

    def told(self, body: object) -> str:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return str(self.assertRaises(WireError, parse_notify, content).msg)

    def test_defaults(self) -> None:
        """Everything but the user may be left out; unknown keys are ignored."""
        asked = parse_notify(b'{"user_id":5,"surprise":1,"user_uuid":null}')
        self.assertEqual(asked.identity, Identity(5, None))
        self.assertEqual((asked.gcm_payload, asked.apple_devices), ({}, []))

    def test_no_json(self) -> None:
        """A body that is no JSON object is told apart from one that is no text."""
        for content in [b"", b"{", b"[", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":NaN}']:
            self.assertEqual(self.told(content), "Malformed JSON")
        self.assertEqual(self.told(b'{"a":"\xff"}'), "Malformed payload")
        for content in [b"[]", b"1", b"null", b'"x"']:
            self.assertEqual(
                self.told(content),
                "Invalid request: Input should be a valid dictionary or instance of"
                " RemoteServerNotificationPayload",
            )

    def test_types(self) -> None:
        """Types are exact, and the path to a wrong one is told."""
        cases: list[tuple[str, object, str]] = [
            ("user_id", "5", '["user_id"] is not an integer'),
            ("user_id", 5.0, '["user_id"] is not an integer'),
            ("user_id", True, '["user_id"] is not an integer'),
            ("user_uuid", 5, '["user_uuid"] is not a string'),
            ("realm_uuid", [], '["realm_uuid"] is not a string'),
            ("gcm_payload", None, '["gcm_payload"] is not a dict'),
            ("apns_payload", [], '["apns_payload"] is not a dict'),
            ("gcm_options", "x", '["gcm_options"] is not a dict'),
            ("android_devices", None, '["android_devices"] is not a list'),
            ("apple_devices", ["a", 1], '["apple_devices"][1] is not a string'),
            ("user_uuid", "x", '["user_uuid"] has invalid format'),
        ]
        for name, value, msg in cases:
            self.assertEqual(
                self.told({"user_id": 5, "user_uuid": USER, name: value}), "request" + msg
            )

    def test_users(self) -> None:
        """Nobody is no user; a number beyond all databases is one that nobody has."""
        self.assertEqual(self.told({}), "Missing user_id or user_uuid")
        self.assertEqual(self.told({"user_id": 5, "realm_uuid": REALM}), "Missing user_uuid")
        parse_notify(b'{"user_id":' + b"9" * 30 + b"}")

    def test_content_is_not_shown(self) -> None:
        """No representation of a push has what it says, or to which phones."""
        content = b'{"user_id":5,"gcm_payload":{"content":"hush"},"apple_devices":["hush"]}'
        self.assertNotIn("hush", repr(parse_notify(content)))


class TestNotificationTests(SynchronousTestCase):
    """`push/test_notification`."""

    def told(self, body: object) -> str:
        content = json.dumps(body).encode()
        return str(self.assertRaises(WireError, parse_test_notification, content).msg)

    def test_required(self) -> None:
        """All keys but the realm must be there; of those missing the first is told."""
        for name in TEST:
            self.assertEqual(
                self.told(without(TEST, name)),
                f'request["{name}"] field is missing: Field required',
            )
        self.assertEqual(self.told({}), 'request["token"] field is missing: Field required')
        parse_test_notification(json.dumps({**TEST, "realm_uuid": None}).encode())

    def test_unknown_keys(self) -> None:
        """Unknown keys are refused, after everything else."""
        self.assertEqual(
            self.told({**TEST, 'ü"': 1}), 'Argument "ü"" at request["ü\\""] is unexpected'
        )
        self.assertEqual(
            self.told({**TEST, "x": 1, "user_id": None}), 'request["user_id"] is not an integer'
        )


class DeletedTests(SynchronousTestCase):
    """Which tokens a server is told to forget."""

    def devices(self, *tokens: str) -> list[Device]:
        kinds = {"a": Kind.APNS, "f": Kind.FCM}
        return [Device(n, kinds[t[0].lower()], t, None, 0.0) for n, t in enumerate(tokens)]

    def test_unknown_ones(self) -> None:
        """Listed tokens that we do not have are told, sorted, each once; others never are."""
        devices = self.devices("f1", "a1")
        self.assertEqual(
            deleted_android(["f3", "f1", "f2", "f3", "a1"], devices), ["a1", "f2", "f3"]
        )
        self.assertEqual(deleted_apple(["a2", "a1", "f1"], devices), ["a2", "f1"])

    def test_case(self) -> None:
        """Apple's tokens have no case, Google's do; of two spellings the first is kept."""
        devices = self.devices("aBc", "fBc")
        self.assertEqual(deleted_apple(["ABC"], devices), [])
        self.assertEqual(deleted_apple(["ABC", "abc", "ABC"], devices), ["abc"])
        self.assertEqual(deleted_android(["FBC"], devices), ["FBC"])
