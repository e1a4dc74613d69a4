"""Removals of one phone as one: every message is still taken off its screen."""

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd import legacy
from bouncerd.merging import MOST_IDS, merged
from bouncerd.model import Kind, Message

BASE = {"server": "chat.example.org", "realm_id": 1, "realm_uri": "https://chat", "user_id": 5}


def apple(ids: str, now: float = 0.0, **other: Any) -> Message:
    """Return a removal as a Zulip server sends it to an iPhone."""
    zulip = {**BASE, "event": "remove", "zulip_message_ids": ids, **other}
    return legacy.apns_message({"badge": 0, "custom": {"zulip": zulip}}, now)


def google(ids: str, **other: Any) -> Message:
    """Return one for an Android phone."""
    first = int(ids.split(",", maxsplit=1)[0])
    payload = {**BASE, "event": "remove", "zulip_message_ids": ids, "zulip_message_id": first}
    return legacy.fcm_message({**payload, **other}, {"priority": "normal"})


def listed(message: Message) -> list[int]:
    """Return the messages that a phone takes off its screen."""
    body = json.loads(message.body)
    ids = (body["zulip"] if message.kind is Kind.APNS else body)["zulip_message_ids"]
    return [int(number) for number in ids.split(",")]


class MergingTests(SynchronousTestCase):
    """What becomes one, and what does not."""

    def test_apple(self) -> None:
        """Both lists in one, the later lifetime; all else as each was."""
        one, other = apple("3,5"), apple("4", now=100.0)
        found = merged([one, other])
        assert found is not None
        message, places = found
        self.assertEqual(places, [0, 1])
        self.assertEqual(message.body, apple("3,4,5").body)
        self.assertEqual(replace(message, body=b""), replace(other, body=b""))

    def test_google(self) -> None:
        """Texts stay texts, and the single id is the first."""
        found = merged([google("7"), google("5,6"), google("7,8")])
        assert found is not None
        self.assertEqual(found, (google("5,6,7,8"), [0, 1, 2]))

    def test_others_users_and_realms_stay_apart(self) -> None:
        """One phone may belong to two users of a server."""
        for other in (apple("4", user_id=6), apple("4", realm_id=2), google("4")):
            self.assertIsNone(merged([apple("3"), other]))
        found = merged([apple("3"), apple("4", user_id=6), apple("5")])
        assert found is not None
        self.assertEqual((listed(found[0]), found[1]), ([3, 5], [0, 2]))

    def test_those_that_do_not_fit(self) -> None:
        """A few may; nobody has us read fifteen for each one that goes."""
        odd = [apple("4", user_id=user) for user in (6, 7, 8)]
        self.assertIsNotNone(merged([apple("3"), *odd[:2], apple("5")]))
        self.assertIsNone(merged([apple("3"), *odd, apple("5")]))

    def test_what_is_no_removal_stays_apart(self) -> None:
        """Messages, tests, sealed content, and what only looks like a removal."""
        bodies = (
            b'{"zulip":{"event":"message","zulip_message_ids":"4"}}',
            b'{"zulip":{"event":"remove"}}',
            b'{"zulip":{"event":"remove","zulip_message_ids":"4;5"}}',
            b'{"zulip":{"event":"remove","zulip_message_ids":["4"]}}',
            b'{"zulip":{"event":"remove","zulip_message_ids":""}}',
            b'{"push_key_id":1,"encrypted_data":"AAAA"}',
            b'{"zulip":7}',
            b"[]",
            b"\xff",
        )
        for body in bodies:
            odd = replace(apple("4"), body=body)
            self.assertIsNone(merged([odd, odd]), body)
            self.assertIsNone(merged([apple("3"), odd]), body)
        other_headers = replace(apple("4"), priority=5)
        self.assertIsNone(merged([apple("3"), other_headers]))

    def test_no_more_than_apps_take(self) -> None:
        """Over 200 ids, or 4096 bytes, they go by themselves: none is cut off."""
        many = ",".join(map(str, range(1, MOST_IDS)))
        self.assertIsNotNone(merged([apple(many), apple("900")]))
        self.assertIsNone(merged([apple(many), apple("900,901")]))
        long: dict[str, Any] = {"realm_name": "x" * 3_950}
        self.assertIsNone(merged([apple("1", **long), apple("2,3,4,5,6,7,8,9,10,11,12", **long)]))

    def test_a_first_id_that_was_cut_off_is_kept(self) -> None:
        """The single id need not be one of the list; it is listed then."""
        found = merged([google("7,8", zulip_message_id=2), google("9")])
        assert found is not None
        self.assertEqual(listed(found[0]), [2, 7, 8, 9])

    @given(st.lists(st.sets(st.integers(1, 10**12), min_size=1, max_size=60), min_size=2))
    def test_nothing_is_lost(self, removals: list[set[int]]) -> None:
        """Whatever is merged lists all that its parts list, and no more than a phone takes."""
        make = apple if len(removals) % 2 else google
        messages = [make(",".join(map(str, sorted(ids)))) for ids in removals]
        found = merged(messages)
        if found is not None:
            message, places = found
            union = set().union(*(removals[place] for place in places))
            self.assertEqual(listed(message), sorted(union))
            self.assertEqual(places[0], 0)
            self.assertLessEqual(len(union), MOST_IDS)
