"""The reference's recorded answers, and ours to the same requests.

An exchange must be answered alike, and bring the same first attempts to Apple and Google, or be
covered by a rule of `deviations.DEVIATIONS`.
"""

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.registry import Admission
from tests.deviations import DEVIATIONS
from tests.in_memory import Daemon
from tests.recordings import Exchange, headers_of, load, normalised, scenarios
from tests.replay import RECORDED_AT, Replay


class ReferenceTests(SynchronousTestCase):
    """Our answers to what the reference was asked."""

    def test_conformance(self) -> None:
        """A Zulip server cannot tell our answers, nor a phone our pushes, from the reference's."""
        same, different, rules = 0, [], Counter[str]()
        for _name, exchanges in scenarios():
            replay = Replay(exchanges)
            same += replay.same
            different += replay.different
            rules += replay.rules
        self.assertEqual(different, [])
        self.assertEqual(set(rules), {rule.name for rule in DEVIATIONS if rule.seen})
        self.assertEqual((same, rules.total()), (593, 58))

    def test_setups(self) -> None:
        """Each answer is the same after nothing but what it needs: a sample of them."""
        by_id = {each["id"]: each for each in load("reference-9.x")}
        for exchange in list(by_id.values())[::23]:
            replay = Replay([*[by_id[name] for name in exchange["setup"]], exchange])
            self.assertEqual(replay.different, [])

    def test_the_table_is_short(self) -> None:
        """There are few deviations, each with a reason."""
        self.assertLessEqual(len(DEVIATIONS), 15)
        self.assertEqual(len({rule.name for rule in DEVIATIONS}), len(DEVIATIONS))
        for rule in DEVIATIONS:
            self.assertGreater(len(rule.why), 20)

    def test_challenges(self) -> None:
        """Who is not let in is told how to ask, as recorded: WWW-Authenticate, and nowhere else."""
        [exchanges] = [found for name, found in scenarios() if name == "auth/headers"]
        daemon = Replay(exchanges[:1]).daemon
        for exchange in exchanges[1:]:
            request = exchange["request"]
            answer = daemon.send(request["method"], request["path"], b"", headers_of(request))
            if answer.status == exchange["response"]["status"]:
                challenge = exchange["response"]["headers"].get("www-authenticate")
                self.assertEqual(answer.headers["WWW-Authenticate"], challenge, exchange["title"])


class ClientTests(SynchronousTestCase):
    """Requests byte for byte as a real Zulip 9.x server sent them."""

    def test_a_real_server(self) -> None:
        """An unmodified Zulip server enrols, uploads, registers phones, pushes, and leaves."""
        grace = Admission(old_key_grace=0.0)
        daemon = Daemon(at=RECORDED_AT, free_users=10, admission=grace)
        statuses = Counter[int]()
        for each in load("client-9.x"):
            daemon.clock.advance(1)
            statuses[self.compare(daemon, each)] += 1
        self.assertEqual(statuses, Counter({200: 34, 400: 3, 401: 3}))
        self.assertGreater(len(daemon.pushes), 15)

    def compare(self, daemon: Daemon, each: Exchange) -> int:
        head = "".join(f"{name}: {value}\r\n" for name, value in each["headers"])
        request = f"{each['request_line']}\r\n{head}\r\n".encode() + each["body"].encode()
        answer, expected = daemon.raw(request), each["response"]
        self.assertEqual(answer.status, expected["status"], each["id"])
        self.assertEqual(normalised(answer.json), normalised(expected["json"]), each["id"])
        return answer.status
