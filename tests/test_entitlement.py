"""Who may push: plans, free users, and what servers are told."""

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.entitlement import (
    BASIC,
    BUSINESS,
    COMMUNITY,
    ENTERPRISE,
    LEGACY,
    SELF_MANAGED,
    disallowed,
    judge,
    known_users,
    refusal,
)
from bouncerd.model import Realm, Server

NOW = 1_800_000_000.0
DAY = 86_400.0
LIMIT = (
    "Push notifications access with 10+ users requires signing up for a plan."
    " https://zulip.com/plans/"
)
SERVER = Server(1, "s", "chat.example.org", "a@example.org", b"", feature_level=278, data_at=NOW)
REALM = Realm(1, "r", 1)


class JudgeTests(SynchronousTestCase):
    """May they?"""

    def judged(
        self, server: Server = SERVER, realm: Realm | None = REALM, free_users: int | None = 10
    ) -> tuple[bool, int | None, str]:
        verdict = judge(server, realm, free_users, NOW)
        return verdict.can_push, verdict.expected_end, verdict.reason

    def test_few_users(self) -> None:
        """Up to ten users are free; with eleven an organization needs a plan."""
        few, many = (True, None, "No plan few users"), (False, None, LIMIT)
        for users, told in [(0, few), (10, few), (11, many), (10**9, many)]:
            self.assertEqual(self.judged(realm=replace(REALM, users=users)), told)
            self.assertEqual(self.judged(replace(SERVER, users=users), None), told)

    def test_whose_users(self) -> None:
        """An organization is judged by its own users, a server by those of all."""
        server = replace(SERVER, users=30)
        self.assertTrue(self.judged(server, replace(REALM, users=3))[0])
        self.assertFalse(self.judged(server, None)[0])

    def test_free_users(self) -> None:
        """The operator says how many users are free."""
        realm = replace(REALM, users=25)
        self.assertEqual(self.judged(realm=realm, free_users=25)[0], True)
        can_push, _, reason = self.judged(realm=realm, free_users=24)
        self.assertFalse(can_push)
        self.assertIn("with 24+ users", reason)
        self.assertFalse(self.judged(realm=replace(REALM, users=1), free_users=0)[0])

    def test_no_plans(self) -> None:
        """Where plans are switched off everyone may push, whatever is known of them."""
        for server in [replace(SERVER, data_at=None), replace(SERVER, users=10**6)]:
            for realm in [None, replace(REALM, users=10**6)]:
                self.assertTrue(self.judged(server, realm, free_users=None)[0])

    def test_missing_data(self) -> None:
        """A user count is good for two days; without one nobody pushes free of charge."""
        missing = (False, None, "Missing data")
        for data_at, fresh in [
            (None, False), (NOW, True), (NOW - 2 * DAY, True), (NOW - 2 * DAY - 1, False)
        ]:  # fmt: skip
            server = replace(SERVER, data_at=data_at)
            self.assertEqual(self.judged(server) != missing, fresh, data_at)
            self.assertEqual(self.judged(server, None) != missing, fresh, data_at)
            self.assertEqual(known_users(server, REALM, NOW), 0 if fresh else None)

    def test_active_plan(self) -> None:
        """With a plan of the organization's or the server's, users do not matter."""
        crowd = replace(REALM, users=1000)
        for plan in (LEGACY, BASIC, BUSINESS, ENTERPRISE):
            active = (True, None, "Active plan")
            self.assertEqual(self.judged(realm=replace(crowd, plan_type=plan)), active)
            self.assertEqual(self.judged(replace(SERVER, plan_type=plan), crowd), active)
            self.assertEqual(self.judged(replace(SERVER, plan_type=plan), None), active)
            old = replace(SERVER, plan_type=plan, data_at=None)
            self.assertEqual(self.judged(old, crowd), active)

    def test_no_plan(self) -> None:
        """Self-managed is no plan, nor is a type that nobody has ever given."""
        for plan in (SELF_MANAGED, 1, 0, 99, 200):
            realm = replace(REALM, users=1000, plan_type=plan)
            self.assertEqual(self.judged(realm=realm), (False, None, LIMIT))

    def test_sponsored(self) -> None:
        """The community plan is free for any number of users."""
        crowd, told = replace(REALM, users=1000), (True, None, "Community plan")
        self.assertEqual(self.judged(realm=replace(crowd, plan_type=COMMUNITY)), told)
        self.assertEqual(self.judged(replace(SERVER, plan_type=COMMUNITY), crowd), told)
        # An organization's own plan counts for more than its server's.
        ending = replace(crowd, plan_type=BASIC, plan_ends_at=NOW + DAY)
        self.assertEqual(
            self.judged(replace(SERVER, plan_type=COMMUNITY), ending)[2], "Scheduled end"
        )

    def test_ending_plan(self) -> None:
        """Whoever will lose pushes is told when; few users will not."""
        ending = replace(REALM, users=11, plan_type=BASIC, plan_ends_at=NOW + 1.5)
        self.assertEqual(self.judged(realm=ending), (True, int(NOW) + 1, "Scheduled end"))
        few = replace(ending, users=10)
        self.assertEqual(self.judged(realm=few), (True, None, "Expiring plan few users"))
        unknown = self.judged(replace(SERVER, data_at=None), few)
        self.assertEqual(unknown, (True, int(NOW) + 1, "Scheduled end"))
        server = replace(SERVER, users=11, plan_type=BASIC, plan_ends_at=NOW + DAY)
        self.assertEqual(self.judged(server, None)[1], int(NOW + DAY))

    def test_ended_plan(self) -> None:
        """A plan that is over is none; the server's counts then."""
        over = replace(REALM, users=11, plan_type=BASIC, plan_ends_at=NOW)
        self.assertEqual(self.judged(realm=over), (False, None, LIMIT))
        self.assertEqual(
            self.judged(replace(SERVER, plan_type=BASIC), over), (True, None, "Active plan")
        )
        sponsored = replace(over, plan_type=COMMUNITY)
        self.assertEqual(self.judged(realm=sponsored), (False, None, LIMIT))


class WordsTests(SynchronousTestCase):
    """What servers are told."""

    def test_status(self) -> None:
        """The status names the end of a plan in whole seconds."""
        realm = replace(REALM, users=11, plan_type=BASIC, plan_ends_at=NOW + 0.5)
        self.assertEqual(
            judge(SERVER, realm, 10, NOW).status(),
            {"can_push": True, "expected_end_timestamp": int(NOW)},
        )

    def test_refusal(self) -> None:
        """A server is refused in words that it knows, by its version."""
        verdict = judge(SERVER, replace(REALM, users=11), 10, NOW)
        new, old = refusal(verdict, SERVER), refusal(verdict, replace(SERVER, feature_level=None))
        words = "Your plan doesn't allow sending push notifications."
        self.assertEqual((new.status, new.code), (400, "PUSH_NOTIFICATIONS_DISALLOWED"))
        self.assertEqual(new.msg, f"{words} Reason provided by the server: {LIMIT}")
        self.assertEqual((old.status, old.code, old.msg), (400, "INVALID_ZULIP_SERVER", words))
        self.assertEqual(disallowed(verdict).msg, new.msg)
