"""What legacy pushes say to Apple and Google (bouncer-api.md 10, 11, 9.7)."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.envelope import WireError
from bouncerd.legacy import apns_message, build_test_message, checked_apns, checked_gcm, fcm_message
from bouncerd.model import Kind

NOW = 1_800_000_000.75
BASE = {"server": "chat.example.org", "realm_id": 2, "realm_uri": "u", "realm_name": "Org"}

Payload = dict[str, Any]


def apns(payload: Payload) -> Any:
    return json.loads(apns_message(checked_apns(payload, {}), NOW).body)


def fcm(payload: Payload) -> Any:
    return json.loads(fcm_message(checked_gcm(payload), {}).body)


class AppleTests(SynchronousTestCase):
    """What iPhones get."""

    def test_conversion(self) -> None:
        """`custom` moves to the top, all else becomes `aps`, and nothing is escaped."""
        payload = {"alert": {"body": "Grüße 🎉"}, "badge": 0, "custom": {"zulip": {"a": 1}, "b": 2}}
        message = apns_message(payload, NOW)
        self.assertEqual(
            message.body.decode(),
            '{"zulip":{"a":1},"b":2,"aps":{"alert":{"body":"Grüße 🎉"},"badge":0}}',
        )

    def test_custom_cannot_pretend(self) -> None:
        """An `aps` within `custom` does not replace the real one."""
        payload = {"alert": "real", "custom": {"aps": {"alert": "fake"}}}
        self.assertEqual(apns(payload), {"aps": {"alert": "real"}})
        self.assertEqual(apns({}), {"aps": {}})

    def test_headers(self) -> None:
        """A push lives a day, is an alert, and leaves its priority to Apple."""
        message = apns_message({}, NOW)
        self.assertEqual(message.expiration, 1_800_086_400)
        self.assertEqual((message.push_type, message.priority), ("alert", None))

    def test_removals_can_wait(self) -> None:
        """What takes a notification away goes after what brings one."""
        self.assertTrue(apns_message({"custom": {"zulip": {}}}, NOW).urgent)
        self.assertFalse(apns_message({"custom": {"zulip": {"event": "remove"}}}, NOW).urgent)

    def test_zulip_1_6(self) -> None:
        """The oldest servers' pushes are put into today's shape."""
        self.assertEqual(
            apns({"alert": "New PM", "message_ids": [12], "x": 1}),
            {"zulip": {"message_ids": [12]}, "aps": {"alert": "New PM", "badge": 0}},
        )
        error = self.assertRaises(WireError, apns, {"message_ids": [12]})
        self.assertIn("field is missing", error.msg)

    def test_shape(self) -> None:
        """A payload of another shape is refused, and not repeated."""
        bad: list[Payload] = [
            {"custom": None}, {"custom": "hush"}, {"custom": {"zulip": []}},
            {"custom": {"zulip": None}}, {"custom": {"zulip": {"time": "hush"}}},
        ]  # fmt: skip
        for payload in bad:
            error = self.assertRaises(WireError, checked_apns, payload, {})
            self.assertNotIn("hush", error.msg)
        checked_apns({"custom": {"zulip": {"time": "unused"}}}, {"time": None})


class GoogleTests(SynchronousTestCase):
    """What Android phones get."""

    def test_values_become_text(self) -> None:
        """Values are what Python's str() makes of them, as the apps expect."""
        payload: Payload = {
            "s": "ü", "i": 5, "f": 1.5, "e": 1e30, "t": True, "n": None, "big": 10**22,
            "l": [1, "a", None], "d": {"k": "v", "e": {}}, "q": ["ü'\""],
        }  # fmt: skip
        self.assertEqual(
            fcm(payload),
            {
                "s": "ü", "i": "5", "f": "1.5", "e": "1e+30", "t": "True", "n": "None",
                "big": "10000000000000000000000", "l": "[1, 'a', None]",
                "d": "{'k': 'v', 'e': {}}", "q": "['ü\\'\"']",
            },
        )  # fmt: skip
        self.assertEqual(fcm({}), {})

    def test_priority(self) -> None:
        """Messages are urgent, all else is not, unless the server says so."""
        message, other = {"event": "message"}, {"event": "remove"}
        cases: list[tuple[Payload, Payload, bool]] = [
            (message, {}, True), (other, {}, False), ({}, {}, False),
            (message, {"priority": None}, True), (message, {"priority": "normal"}, False),
            (other, {"priority": "high"}, True),
        ]  # fmt: skip
        for payload, options, urgent in cases:
            self.assertEqual(fcm_message(payload, options).urgent, urgent)

    def test_options(self) -> None:
        """Unknown options and priorities are told in the reference's words."""
        cases: list[tuple[Payload, str]] = [
            ({"priority": "low"}, "Invalid GCM option to bouncer: priority 'low'"),
            ({"priority": [1]}, "Invalid GCM option to bouncer: priority [1]"),
            ({"priority": 10, "x": 1}, "Invalid GCM option to bouncer: priority 10"),
            ({"ttl": 5, "a": [1, "ü"]}, 'Invalid GCM options to bouncer: {"ttl":5,"a":[1,"ü"]}'),
        ]
        for options, msg in cases:
            self.assertEqual(self.assertRaises(WireError, fcm_message, {}, options).msg, msg)

    def test_time(self) -> None:
        """A time is a number, or not there."""
        for time in [1, 1.5, None, True]:
            checked_gcm({"time": time})
        for bad in ["1", [], {}]:
            self.assertRaises(WireError, checked_gcm, {"time": bad})


class RemovalTests(SynchronousTestCase):
    """Removals name at most 200 messages."""

    @given(st.lists(st.integers(0, 10**6), min_size=1, max_size=450))
    def test_the_newest(self, ids: list[int]) -> None:
        """The newest 200 are kept, oldest first, on both platforms."""
        removal = {"event": "remove", "zulip_message_ids": ",".join(map(str, ids))}
        newest = ",".join(map(str, sorted(ids)[-200:]))
        self.assertEqual(fcm(removal)["zulip_message_ids"], newest)
        both = apns({"badge": 0, "custom": {"zulip": removal, "x": 1}})
        self.assertEqual(both["zulip"]["zulip_message_ids"], newest)
        self.assertEqual(both["x"], 1)

    def test_only_removals(self) -> None:
        """Other events' lists, and empty ones, are left alone."""
        for payload in [{"zulip_message_ids": "2,x"}, {"event": "remove", "zulip_message_ids": ""}]:
            self.assertEqual(checked_gcm(payload), payload)

    def test_bad_lists(self) -> None:
        """A list that is none is refused, and not repeated."""
        for ids in ["1,hush", [1], 5, "1,," + "9" * 5000]:
            removal = {"event": "remove", "zulip_message_ids": ids}
            error = self.assertRaises(WireError, checked_gcm, removal)
            self.assertNotIn("hush", error.msg)
            self.assertRaises(WireError, checked_apns, {"custom": {"zulip": removal}}, {})


class TestNotificationTests(SynchronousTestCase):
    """Test notifications are worded here."""

    def test_apple(self) -> None:
        """An iPhone shows which organization it is from."""
        base = {**BASE, "realm_url": "https://chat", "event": "mine"}
        body = json.loads(build_test_message(Kind.APNS, base, NOW).body)
        self.assertEqual(
            body["aps"]["alert"],
            {
                "title": "Test notification",
                "body": "This is a test notification from Org (https://chat).",
            },
        )
        self.assertEqual(body["aps"]["sound"], "default")
        self.assertEqual(body["zulip"], {**base, "event": "test"})

    def test_google(self) -> None:
        """An Android phone gets it with high priority and the time."""
        message = build_test_message(Kind.FCM, BASE, NOW)
        data = json.loads(message.body)
        self.assertTrue(message.urgent)
        self.assertEqual(
            (data["event"], data["time"], data["realm_id"]), ("test", "1800000000", "2")
        )

    def test_old_and_new_servers(self) -> None:
        """Either spelling of the organization's URL will do; its name must be there."""
        for missing in ["realm_name", "realm_uri"]:
            base = {name: value for name, value in BASE.items() if name != missing}
            error = self.assertRaises(WireError, build_test_message, Kind.APNS, base, NOW)
            self.assertEqual(error.status, 400)
        build_test_message(Kind.APNS, {"realm_name": "Org", "realm_url": "u"}, NOW)


class PrivacyTests(SynchronousTestCase):
    """Content stays in the message."""

    def test_no_repr(self) -> None:
        """What a push says is in no representation of it."""
        for message in [apns_message({"alert": "hush"}, NOW), fcm_message({"a": "hush"}, {})]:
            self.assertNotIn("hush", repr(message))
