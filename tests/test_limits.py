"""How many requests a Zulip server may make in a minute."""

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.limits import MINUTE, SlidingLog
from tests.in_memory import KEY, NOW, ORG_ID, USER, Answer, Daemon, basic, result, spell

OTHER = "64ca9374-34d7-48ef-9606-db19c23866fc"


class SlidingLogTests(SynchronousTestCase):
    """The count itself."""

    @given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 40)), max_size=60))
    def test_exact(self, asked: list[tuple[str, float]]) -> None:
        """In no minute, wherever it begins, do more than the limit pass; and never fewer."""
        log, now = SlidingLog(60.0), 0.0
        passed: dict[str, list[float]] = {"a": [], "b": []}
        for key, later in asked:
            now += later
            counted = [each for each in passed[key] if each > now - 60.0]
            verdict = log.take(key, 3, now)
            self.assertEqual(verdict.retry_in is None, len(counted) < 3)
            if verdict.retry_in is None:
                passed[key].append(now)
                self.assertEqual(verdict.remaining, 2 - len(counted))
                self.assertEqual(verdict.free_in, 60.0)
            else:
                self.assertEqual(verdict.remaining, 0)
                self.assertAlmostEqual(verdict.retry_in, counted[0] + 60.0 - now)
                self.assertAlmostEqual(verdict.free_in, counted[-1] + 60.0 - now)

    def test_memory(self) -> None:
        """Who is refused costs nothing, who is idle is forgotten, and there is a bound to keys."""
        log = SlidingLog(60.0, most_keys=10)
        for second in range(1000):
            log.take("busy", 5, second / 1000)
        self.assertEqual(len(log._passed["busy"]), 5)
        for number in range(100):
            log.take(f"{number}", 5, 30.0)
        self.assertLessEqual(len(log), 11)
        log.take("last", 5, 200.0)
        self.assertEqual(len(log), 1)

    def test_a_lower_limit(self) -> None:
        """A limit that the operator lowers holds at once, for what passed before it, too."""
        log = SlidingLog(60.0)
        for second in range(10):
            log.take("a", 10, float(second))
        verdict = log.take("a", 2, 10.0)
        self.assertEqual(verdict.retry_in, 8.0 + 60.0 - 10.0)
        self.assertEqual(log.take("a", 2, 68.5).remaining, 0)
        self.assertIsNotNone(log.take("a", 0, 500.0).retry_in)
        self.assertEqual(log.take("a", 1, 500.5).remaining, 0)


class ServerLimitTests(SynchronousTestCase):
    """What a Zulip server notices."""

    def setUp(self) -> None:
        self.daemon = Daemon(requests_per_minute=3)
        self.daemon.enrol()

    def ask(self, org_id: str = ORG_ID, path: str = "push/unregister/all") -> Answer:
        headers = {"Authorization": basic(org_id)}
        return self.daemon.post_form(path, headers, user_uuid=USER)

    def counted(self, answer: Answer) -> tuple[str | None, ...]:
        names = ("Limit", "Remaining", "Reset")
        return tuple(answer.headers[f"X-RateLimit-{name}"] for name in names)

    def test_headers(self) -> None:
        """Every answer to a known server says how many requests are left, and until when."""
        first = self.ask()
        self.assertEqual(self.counted(first), ("3", "2", str(int(NOW + MINUTE))))
        self.daemon.clock.advance(10.5)
        wrong = self.ask(path="push/unregister")
        self.assertEqual(wrong.status, 400)
        self.assertEqual(self.counted(wrong), ("3", "1", str(int(NOW + 10.5 + MINUTE))))

    def test_refusal(self) -> None:
        """One too many is told when to come again, on every endpoint, and is not counted."""
        for _ in range(3):
            self.daemon.clock.advance(1)
            self.assertEqual(self.ask().status, 200)
        self.daemon.clock.advance(7.5)
        for path in ("push/unregister/all", "push/notify", "push/e2ee/register"):
            answer = self.ask(path=path)
            self.assertEqual(answer.status, 429)
            self.assertEqual(
                answer.json,
                {
                    "result": "error",
                    "msg": "API usage exceeded rate limit",
                    "code": "RATE_LIMIT_HIT",
                    "retry-after": 50.5,
                },
            )
            self.assertEqual(answer.headers["Retry-After"], "50.5")
            self.assertEqual(self.counted(answer), ("3", "0", str(int(NOW + 3 + MINUTE))))
        self.daemon.clock.advance(50.5)
        self.assertEqual(self.ask().status, 200)

    def test_words(self) -> None:
        """The status line says what a 429 is."""
        channel, transport = self.daemon.connect()
        for _ in range(4):
            transport.clear()
            fields = {"Authorization": basic(), "Content-Type": "application/json"}
            path = "/api/v1/remotes/push/notify"
            channel.dataReceived(spell("POST", path, b"{", fields))
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 429 Too Many Requests\r\n"))

    def test_what_is_not_limited(self) -> None:
        """Other servers, wrong keys, wrong methods and unauthenticated calls have no part in it."""
        self.daemon.enrol(OTHER, hostname="other.example.org")
        for _ in range(5):
            self.ask()
        self.assertEqual(self.ask(OTHER).status, 200)
        wrong = self.daemon.post_form(
            "push/unregister/all", {"Authorization": basic(ORG_ID, "x" * 64)}, user_uuid=USER
        )
        self.assertEqual(wrong.status, 401)
        self.assertEqual(self.counted(wrong), (None, None, None))
        for method, status in [("GET", 405), ("OPTIONS", 204)]:
            answer = self.daemon.send(method, "/api/v1/remotes/push/notify")
            self.assertEqual((answer.status, self.counted(answer)), (status, (None, None, None)))

    def test_own_limit(self) -> None:
        """The operator gives a server another limit, which holds at its next request."""
        changed = self.daemon.store.set_requests_per_minute(ORG_ID, 5, NOW)
        self.assertTrue(result(changed))
        self.assertEqual([self.ask().status for _ in range(6)], [200] * 5 + [429])
        self.assertEqual(self.counted(self.ask())[0], "5")
        result(self.daemon.store.set_requests_per_minute(ORG_ID, None, NOW))
        self.assertEqual(self.counted(self.ask())[0], "3")

    def test_many_at_once(self) -> None:
        """The first hour of a server's life in one minute: exactly the limit passes."""
        daemon = Daemon()
        daemon.enrol()
        statuses = []
        for _ in range(1010):
            answer = daemon.post_form("push/unregister/all", user_uuid=USER)
            statuses.append(answer.status)
        self.assertEqual(statuses, [200] * 1000 + [429] * 10)

    def test_overload_is_no_limit(self) -> None:
        """When we are busy the answer is 503, which servers repeat, and never 429."""
        phone = {"token": "fcm", "token_kind": "2", "user_id": "5"}
        self.daemon.post_form("push/register", **phone)
        self.daemon.fcm.room = False
        answer = self.daemon.post_json("push/notify", {"user_id": 5, "gcm_payload": {"event": "x"}})
        self.assertEqual(answer.status, 503)
        self.assertTrue(re.fullmatch("[0-9]+", answer.headers["Retry-After"] or ""))
        self.assertEqual(self.counted(answer)[1], "1")
        self.assertNotIn(KEY, answer.body.decode())
