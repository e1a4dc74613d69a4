"""What a Zulip server uploads, and what it and its users have of it."""

import json
from typing import Any
from uuid import UUID, uuid5

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.entitlement import BASIC, COMMUNITY
from tests.in_memory import (
    APP,
    FORM,
    ORG_ID,
    PHONE,
    USER,
    Answer,
    Daemon,
    TroubledStore,
    basic,
    result,
)
from tests.recordings import scenarios
from tests.replay import Replay
from tests.test_analytics import AUDIT, COUNT, REALM

REALM_UUID = str(REALM["uuid"])
OTHER_ID = "774a2d7e-0f5b-40fe-a973-abe080674e8f"
DAY = 86_400.0
NOTIFY = {"user_id": 5, "user_uuid": USER, "realm_uuid": REALM_UUID}
DISALLOWED = "Your plan doesn't allow sending push notifications."


def humans(count: int, row_id: int = 1, realm: int = 2) -> dict[str, Any]:
    """Tell in an audit row how many humans a realm has."""
    data = {"10": {"11": {"100": 1, "400": count - 1}}}
    return {**AUDIT, "id": row_id, "realm": realm, "extra_data": data}


def counts(*ids: int, **members: Any) -> list[dict[str, Any]]:
    return [{**COUNT, "id": number, "end_time": number * 3600.0, **members} for number in ids]


def a_realm(number: int) -> dict[str, Any]:
    uuid = UUID(str(uuid5(UUID(REALM_UUID), str(number))).replace("-5", "-4", 1), version=4)
    return {**REALM, "id": number, "uuid": str(uuid)}


class UploadTests(SynchronousTestCase):
    """A daemon at which one server, or two, are enrolled."""

    free_users: int | None = 10

    def setUp(self) -> None:
        self.daemon = Daemon(store=TroubledStore, free_users=self.free_users)
        self.daemon.enrol()

    def parameters(self, **lists: Any) -> dict[str, str]:
        fields = {"realm_counts": [], "installation_counts": [], **lists}
        return {name: json.dumps(value) for name, value in fields.items() if value is not None}

    def upload(self, org_id: Any = ORG_ID, **lists: Any) -> Answer:
        """Upload as servers since 8.0 do."""
        sent = {"realmauditlog_rows": [], "realms": [REALM], "version": "9.2",
                "merge_base": "", "api_feature_level": 278, **lists}  # fmt: skip
        headers = {"Authorization": basic(org_id)}
        return self.daemon.post_form("server/analytics", headers, **self.parameters(**sent))

    def accepted(self, **lists: Any) -> dict[str, Any]:
        answer = self.upload(**lists)
        self.assertEqual(answer.status, 200, answer.body)
        realms: dict[str, Any] = answer.json["realms"]
        return realms

    def refused(self, answer: Answer) -> str:
        self.assertEqual((answer.status, answer.json["code"]), (400, "BAD_REQUEST"))
        return str(answer.json["msg"])

    def status(self, org_id: str = ORG_ID) -> tuple[int, ...]:
        answer = self.daemon.send(
            "GET", "/api/v1/remotes/server/analytics/status", b"", {"Authorization": basic(org_id)}
        )
        self.assertEqual(answer.status, 200)
        names = "last_realm_count_id", "last_installation_count_id", "last_realmauditlog_id"
        self.assertEqual(set(answer.json), {"result", "msg", *names})
        return tuple(answer.json[name] for name in names)


class StatusTests(UploadTests):
    """How far a server has uploaded."""

    def test_new(self) -> None:
        """A new server begins at the beginning."""
        self.assertEqual(self.status(), (0, 0, 0))

    def test_methods(self) -> None:
        """It is read by GET and HEAD, with credentials."""
        path = "/api/v1/remotes/server/analytics/status"
        post = self.daemon.send("POST", path)
        self.assertEqual((post.status, post.json["allowed_methods"]), (405, ["GET", "HEAD"]))
        head = self.daemon.send("HEAD", path, b"", {"Authorization": basic()})
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(self.daemon.send("GET", path).status, 401)
        self.assertEqual(self.daemon.send("OPTIONS", path).headers["Allow"], "GET, HEAD")
        asked = self.daemon.send("GET", path + "?x=1", b"", {"Authorization": basic()})
        self.assertEqual(asked.json["ignored_parameters_unsupported"], ["x"])

    def test_moves_on(self) -> None:
        """A server sends each row once, those that are dropped included."""
        rows = [*counts(3, 4), *counts(9, property="of_the_future::day")]
        self.accepted(realm_counts=rows, installation_counts=counts(5),
                      realmauditlog_rows=[humans(3, 7)])  # fmt: skip
        self.assertEqual(self.status(), (9, 5, 7))
        self.accepted(realm_counts=counts(10))
        self.assertEqual(self.status(), (10, 5, 7))


class StoringTests(UploadTests):
    """Uploads one after another."""

    def test_answer(self) -> None:
        """A server learns for each organization of its upload whether it may push."""
        can = {"can_push": True, "expected_end_timestamp": None}
        self.assertEqual(self.accepted(), {REALM_UUID: can})
        other = a_realm(3)
        self.assertEqual(
            self.accepted(realms=[REALM, other]), {REALM_UUID: can, other["uuid"]: can}
        )
        self.assertEqual(self.accepted(realms=[]), {})
        self.assertEqual(self.accepted(realms=None), {})

    def test_again(self) -> None:
        """The same rows are refused, an upload without rows never is (7.7)."""
        for _ in range(2):
            self.accepted()
        uploads: list[dict[str, Any]] = [
            {"realm_counts": counts(1, 2)},
            {"installation_counts": counts(1, 2)},
            {"realmauditlog_rows": [humans(3)]},
        ]
        for rows in uploads:
            self.accepted(**rows)
            self.assertEqual(self.refused(self.upload(**rows)), "Data is out of order.")
        # Tables made anew have higher ids: what is known is dropped without a word.
        self.accepted(realm_counts=[{**COUNT, "id": 100, "end_time": 3600.0}])
        self.assertEqual(self.status()[0], 100)
        # Tables cut off have lower ones, and upload nothing until ids pass the mark.
        self.assertEqual(
            self.refused(self.upload(realm_counts=counts(50))), "Data is out of order."
        )

    def test_all_or_nothing(self) -> None:
        """Of a refused upload nothing is kept."""
        answer = self.upload(
            realm_counts=counts(1), realmauditlog_rows=[{**humans(3), "event_type": 1}]
        )
        self.assertEqual(self.refused(answer), "Invalid event type.")
        self.assertEqual(self.status(), (0, 0, 0))
        self.assertIsNone(result(self.daemon.store.realm(REALM_UUID)))
        server = result(self.daemon.store.server(ORG_ID))
        self.assertEqual((server.feature_level, server.data_at), (None, None))

    def test_old_server(self) -> None:
        """A server before 8.0 sends counts, and nothing of itself."""
        parameters = self.parameters(realm_counts=counts(1), installation_counts=counts(1))
        answer = self.daemon.post_form("server/analytics", **parameters)
        self.assertEqual(answer.json, {"result": "success", "msg": "", "realms": {}})
        self.assertEqual(self.status(), (1, 1, 0))

    def test_unknown_parameters(self) -> None:
        """What a newer server sends beside is named, and does no harm."""
        answer = self.daemon.post_form(
            "server/analytics", {}, **self.parameters(), surprise="1", and_more="2"
        )
        self.assertEqual(answer.json["ignored_parameters_unsupported"], ["and_more", "surprise"])

    def test_strangers(self) -> None:
        """Nothing of a body is looked at before its sender is known."""
        for headers, status in [({}, 401), ({"Authorization": basic(OTHER_ID)}, 401)]:
            answer = self.daemon.send(
                "POST", "/api/v1/remotes/server/analytics", b"realm_counts=x", {**FORM, **headers}
            )
            self.assertEqual(answer.status, status)

    def test_long(self) -> None:
        """The longest upload there is comes through; other endpoints take no such body."""
        rows = {
            "realm_counts": counts(*range(1, 10_001)),
            "installation_counts": counts(*range(1, 10_001)),
            "realmauditlog_rows": [humans(9, number) for number in range(1, 10_001)],
        }
        self.accepted(**rows)
        self.assertEqual(self.status(), (10_000, 10_000, 10_000))
        too_long = self.daemon.post_form("push/register", token="x" * 300_000)
        self.assertEqual(too_long.status, 413)


class RealmTests(UploadTests):
    """Organizations."""

    def test_another_servers(self) -> None:
        """A cloned server is told so; nobody can act for another server's organization."""
        self.accepted()
        self.daemon.enrol(OTHER_ID, hostname="other.example.org")
        again = self.upload(OTHER_ID, realms=[a_realm(9), REALM], realm_counts=counts(1))
        self.assertEqual(self.refused(again), "Duplicate registration detected.")
        self.assertEqual(self.status(OTHER_ID), (0, 0, 0))
        headers = {"Authorization": basic(OTHER_ID)}
        user = {"user_uuid": USER, "realm_uuid": REALM_UUID}
        phone = {**user, "token": PHONE, "token_kind": "1"}
        for answer in [
            self.daemon.post_form("push/register", headers, **phone, ios_app_id=APP),
            self.daemon.post_form("push/unregister", headers, **phone),
            self.daemon.post_form("push/unregister/all", headers, **user),
            self.daemon.post_json("push/notify", NOTIFY, headers),
            self.daemon.post_json("push/test_notification", {
                **NOTIFY, "token": PHONE, "token_kind": 1, "base_payload": {}}, headers),
        ]:  # fmt: skip
            self.assertEqual(answer.status, 403)
            self.assertEqual(answer.json["code"], "REMOTE_REALM_SERVER_MISMATCH_ERROR")

    def test_twice(self) -> None:
        """A new one that comes twice is refused; of a known one the last counts."""
        new = a_realm(3)
        answer = self.upload(realms=[REALM, new, {**new, "id": 4}])
        self.assertEqual(self.refused(answer), "Duplicate registration detected.")
        self.accepted()
        self.accepted(realms=[REALM, {**REALM, "name": "Last"}])
        self.assertEqual(result(self.daemon.store.realm(REALM_UUID)).name, "Last")

    def test_unknown(self) -> None:
        """A legacy push for an organization that was never uploaded goes, and tells nothing."""
        self.accepted()
        answer = self.daemon.post_json("push/notify", {**NOTIFY, "realm_uuid": a_realm(7)["uuid"]})
        self.assertEqual((answer.status, answer.json["realm"]), (200, None))


class EntitlementTests(UploadTests):
    """Who may push, as servers are told."""

    def notified(self, status: int = 200) -> Any:
        answer = self.daemon.post_json("push/notify", NOTIFY)
        self.assertEqual(answer.status, status, answer.body)
        return answer.json

    def test_before_the_first_upload(self) -> None:
        """A server that never uploaded is refused as too old for it, after its first hours."""
        self.notified()
        self.daemon.clock.advance(2 * 3_600.0 + 1)
        answer = self.notified(400)
        self.assertEqual((answer["code"], answer["msg"]), ("INVALID_ZULIP_SERVER", DISALLOWED))

    def test_few_users(self) -> None:
        """With ten users pushes are free, and the answer says so."""
        self.accepted(realmauditlog_rows=[humans(10)])
        told = {"can_push": True, "expected_end_timestamp": None}
        self.assertEqual(self.notified()["realm"], told)

    def test_many_users(self) -> None:
        """The eleventh user needs a plan; when it leaves again, pushes go again."""
        told = self.accepted(realmauditlog_rows=[humans(11)])[REALM_UUID]
        self.assertEqual(told, {"can_push": False, "expected_end_timestamp": None})
        answer = self.notified(400)
        self.assertEqual(answer["code"], "PUSH_NOTIFICATIONS_DISALLOWED")
        self.assertIn("10+ users", answer["msg"])
        self.accepted(realmauditlog_rows=[humans(10, 2)])
        self.notified()

    def test_old_data(self) -> None:
        """Who stops uploading is refused after two days, until the next upload."""
        self.accepted()
        self.daemon.clock.advance(2 * DAY)
        self.notified()
        self.daemon.clock.advance(1)
        reason = " Reason provided by the server: Missing data"
        self.assertEqual(self.notified(400)["msg"], DISALLOWED + reason)
        self.accepted(realmauditlog_rows=None)  # security alerts only: no user counts
        self.notified(400)
        self.accepted()
        self.notified()

    def set_plan(self, uuid: str, plan: int, ends_at: float | None = None) -> bool:
        done: bool = result(
            Deferred.fromCoroutine(self.daemon.bouncer.set_plan(uuid, plan, ends_at))
        )
        return done

    def test_plans(self) -> None:
        """A plan that the operator gives holds from the next call on, and as long as it says."""
        self.accepted(realmauditlog_rows=[humans(30)])
        for uuid in (REALM_UUID.upper(), ORG_ID):
            self.assertTrue(self.set_plan(uuid, COMMUNITY))
            self.notified()
            self.assertTrue(self.set_plan(uuid, 100))
            self.notified(400)
        end = self.daemon.clock.seconds() + 10
        self.set_plan(REALM_UUID, BASIC, end)
        told = {"can_push": True, "expected_end_timestamp": int(end)}
        self.assertEqual(self.notified()["realm"], told)
        self.assertEqual(self.accepted()[REALM_UUID], told)
        self.daemon.clock.advance(10)
        self.notified(400)

    def test_no_such_plan(self) -> None:
        """A plan for nobody, or that there is not, is told to whoever gives it."""
        self.assertFalse(self.set_plan(OTHER_ID, BASIC))
        self.assertFalse(self.set_plan("nobody", BASIC))
        self.assertIsInstance(
            self.failureResultOf(
                Deferred.fromCoroutine(self.daemon.bouncer.set_plan(ORG_ID, 7, None))
            ).value,
            ValueError,
        )

    def test_not_enforced(self) -> None:
        """Phones may be registered, tested and unregistered without a plan."""
        user = {"user_uuid": USER, "user_id": "5"}
        phone = {**user, "token": PHONE, "token_kind": "1"}
        test = {"user_id": 5, "user_uuid": USER, "token": PHONE, "token_kind": 1,
                "base_payload": {"realm_name": "x", "realm_uri": "https://x"}}  # fmt: skip
        for answer in [
            self.daemon.post_form("push/register", {}, **phone, ios_app_id=APP),
            self.daemon.post_json("push/test_notification", test),
            self.daemon.post_form("push/unregister", {}, **phone),
        ]:
            self.assertEqual(answer.status, 200, answer.body)


class NoPlansTests(EntitlementTests):
    """The same where plans are switched off."""

    free_users = None

    def notified(self, status: int = 200) -> Any:
        return super().notified(200)

    def test_before_the_first_upload(self) -> None:
        """Whoever is registered may push."""
        self.daemon.clock.advance(30 * DAY)
        self.notified()

    def test_many_users(self) -> None:
        """However many they are."""
        told = self.accepted(realmauditlog_rows=[humans(1000)])[REALM_UUID]
        self.assertTrue(told["can_push"])
        self.notified()

    def test_old_data(self) -> None:
        """Whatever they upload."""
        self.accepted()
        self.daemon.clock.advance(30 * DAY)
        self.notified()

    def test_plans(self) -> None:
        """Whatever plan they have or had."""
        self.accepted(realmauditlog_rows=[humans(30)])
        self.set_plan(REALM_UUID, BASIC, 1.0)
        self.assertIsNone(self.notified()["realm"]["expected_end_timestamp"])


class RecordedTests(SynchronousTestCase):
    """What the reference answered."""

    def test_recordings(self) -> None:
        """Uploads and plans are answered as by the reference, but where we say why not."""
        same = 0
        for name, exchanges in scenarios():
            if name.startswith("server-analytics") or name == "push-notify/plans":
                replay = Replay(exchanges)
                self.assertEqual(replay.different, [])
                same += replay.same
        self.assertGreaterEqual(same, 110)
