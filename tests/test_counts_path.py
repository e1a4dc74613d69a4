"""From a server's request to the rows that say what became of it."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest_twisted
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.model import Gone, Refused
from bouncerd.store.sqlite import SQLiteStore
from bouncerd.tallies import DAY, PushCount
from tests.house import House, a_message
from tests.in_memory import (
    ANDROID,
    APP,
    NOW,
    ORG_ID,
    PHONE,
    USER,
    Answer,
    Daemon,
    always,
    basic,
    read_answer,
    result,
    spell,
)
from tests.sealing import (
    APPLE,
    GOOGLE,
    REALM,
    add_realm,
    for_apple,
    for_google,
    house,
    notify,
    register,
)

TODAY = int(NOW // DAY)


class PathTests(SynchronousTestCase):
    """One server, in memory, from HTTP to the tables."""

    def setUp(self) -> None:
        self.daemon = Daemon()
        self.server_id = self.daemon.enrol()
        self.daemon.counting.start()

    def add_phones(self) -> None:
        for token, kind in ((PHONE, "1"), (ANDROID, "2")):
            self.daemon.post_form(
                "push/register", token=token, token_kind=kind, user_uuid=USER, ios_app_id=APP
            )

    def notify(self, **more: Any) -> Answer:
        body = {
            "user_uuid": USER,
            "gcm_payload": {"event": "message"},
            "apns_payload": {"alert": "x"},
        }
        return self.daemon.post_json("push/notify", {**body, **more})

    def outcomes(self) -> set[tuple[str, str, str, str, int]]:
        self.daemon.clock.advance(1)
        rows = result(self.daemon.store.outcomes(ORG_ID, 0))
        return {(each.provider, each.app, each.kind, each.reason, each.count) for each in rows}

    def pushes(self) -> list[PushCount]:
        self.daemon.clock.advance(1)
        counts: list[PushCount] = result(self.daemon.store.push_counts(ORG_ID, 0))
        return counts

    def test_delivered(self) -> None:
        """A second after a notification it is known what became of it, and when."""
        self.add_phones()
        self.assertEqual(self.notify().status, 200)
        self.assertEqual(
            self.outcomes(), {("apns", APP, "delivered", "", 1), ("fcm", "", "delivered", "", 1)}
        )
        [row, _] = result(self.daemon.store.outcomes(ORG_ID, TODAY))
        self.assertEqual((row.day, row.first, row.last), (TODAY, NOW, NOW))
        self.assertEqual(self.pushes(), [PushCount(ORG_ID, TODAY, 2, 2)])

    def test_realm(self) -> None:
        """A notification for a realm that is known counts for both."""
        self.add_phones()
        add_realm(self.daemon, self.server_id, REALM)
        self.daemon.fcm.outcome = always(Refused("INVALID_ARGUMENT"))
        self.notify(realm_uuid=REALM)
        self.notify(realm_uuid="11111111-1111-4111-8111-111111111111")
        self.assertEqual(
            self.pushes(), [PushCount(ORG_ID, TODAY, 4, 2), PushCount(REALM, TODAY, 2, 1)]
        )

    def test_why_not(self) -> None:
        """What did not arrive is told with its reason."""
        self.add_phones()
        self.daemon.apns.outcome = always(Gone("Unregistered"))
        self.daemon.fcm.outcome = always(Refused("INVALID_ARGUMENT"))
        self.notify()
        self.assertEqual(
            self.outcomes(),
            {
                ("apns", APP, "gone", "Unregistered", 1),
                ("fcm", "", "refused", "INVALID_ARGUMENT", 1),
            },
        )
        self.assertEqual(self.pushes(), [PushCount(ORG_ID, TODAY, 2, 0)])

    def test_no_section(self) -> None:
        """A push that no section of the configuration serves is told as such."""
        self.add_phones()
        self.daemon.routes.remap({}, {})
        self.notify()
        self.assertEqual(
            {(provider, app, kind) for provider, app, kind, _, _ in self.outcomes()},
            {("none", APP, "refused"), ("none", "", "refused")},
        )

    def test_test_notification(self) -> None:
        """A test notification is an outcome, and is not counted as a push (9.7)."""
        self.add_phones()
        body = {
            "token": PHONE, "token_kind": 1, "user_id": 7, "user_uuid": USER,
            "base_payload": {"realm_name": "x", "realm_uri": "https://chat.example.org"},
        }  # fmt: skip
        self.assertEqual(self.daemon.post_json("push/test_notification", body).status, 200)
        self.assertEqual(self.outcomes(), {("apns", APP, "delivered", "", 1)})
        self.assertEqual(self.pushes(), [])

    def test_refused_calls(self) -> None:
        """A call that is answered 503 comes again, and is counted then."""
        self.add_phones()
        self.daemon.apns.room = False
        self.assertEqual(self.notify().status, 503)
        self.assertEqual(self.pushes(), [])
        self.daemon.apns.room = True
        self.notify()
        self.assertEqual(self.pushes(), [PushCount(ORG_ID, TODAY, 2, 2)])

    def test_nobody(self) -> None:
        """A notification for a user without phones writes nothing."""
        self.assertEqual(self.notify().status, 200)
        self.assertEqual((self.outcomes(), self.pushes()), (set(), []))

    def test_later(self) -> None:
        """What is delivered the day after is forwarded on that day."""
        self.add_phones()
        lanes = self.daemon.apns, self.daemon.fcm
        for lane in lanes:
            lane.holding = True
        channel, transport = self.daemon.connect()
        body = b'{"user_uuid": "%s", "gcm_payload": {"event": "x"}, "apns_payload": {}}'
        fields = {"Authorization": basic(), "Content-Type": "application/json"}
        path = "/api/v1/remotes/push/notify"
        channel.dataReceived(spell("POST", path, body % USER.encode(), fields))
        self.daemon.clock.advance(12)
        self.assertEqual(read_answer(transport.value()).status, 200)
        self.daemon.clock.advance(DAY)
        for lane in lanes:
            lane.release()
        self.assertEqual(
            self.pushes(), [PushCount(ORG_ID, TODAY, 2, 0), PushCount(ORG_ID, TODAY + 1, 0, 2)]
        )

    def test_no_content(self) -> None:
        """Nothing of what was pushed, and no token, is in the tables."""
        self.add_phones()
        self.notify(gcm_payload={"event": "canary"}, apns_payload={"alert": "canary"})
        self.assertTrue(self.outcomes())
        store = self.daemon.store
        assert isinstance(store, SQLiteStore)
        for table in ("outcomes", "push_counts", "count_writers"):
            for row in store._reading.execute(f"SELECT * FROM {table}"):
                for word in ("canary", PHONE, ANDROID):
                    self.assertNotIn(word, str(row))


class SealedPathTests(SynchronousTestCase):
    """A realm whose phones registered end to end."""

    def setUp(self) -> None:
        self.daemon = house()
        self.daemon.counting.start()
        register(self.daemon, APPLE, GOOGLE)

    def test_realm_only(self) -> None:
        """What was asked for and what was sent counts for the realm, and not for its server."""
        self.daemon.fcm.outcome = always(Refused("INVALID_ARGUMENT"))
        notify(self.daemon, for_apple(), for_google(), for_google("not known"))
        self.daemon.clock.advance(1)
        counts = result(self.daemon.store.push_counts(ORG_ID, 0))
        self.assertEqual(counts, [PushCount(REALM, TODAY, 3, 1)])
        rows = result(self.daemon.store.outcomes(ORG_ID, 0))
        self.assertEqual(
            [(each.provider, each.kind, each.count) for each in rows],
            [("apns", "delivered", 1), ("fcm", "refused", 1)],
        )


@pytest_twisted.ensureDeferred
async def test_the_daemon(rent: Callable[..., House]) -> None:
    """What a daemon has counted is in its file after the stop, each push once over two starts."""
    rented = rent()
    for start in (1, 2):
        await rented.start()
        if start == 1:
            await rented.enrol()
            await rented.add_phone("c0ffee" * 10, 1)
            await rented.add_phone("fGl0:APA91b-android-token", 2)
        for _ in range(3):
            status, _ = await rented.call("push/notify", body=a_message("canary"))
            assert status == 200
        await rented.stop()
        file = sqlite3.connect(rented.store_file)
        rows = file.execute("SELECT provider, kind, reason, count FROM outcomes ORDER BY provider")
        assert rows.fetchall() == [
            ("apns", "delivered", "", 3 * start),
            ("fcm", "delivered", "", 3 * start),
        ]
        counts = file.execute("SELECT realm_id, received, forwarded FROM push_counts")
        assert counts.fetchall() == [(0, 6 * start, 6 * start)]
        file.close()
