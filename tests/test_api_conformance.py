"""The reference's recorded answers, and ours to the same requests.

An exchange must be answered alike, or be covered by a rule of `recordings.DEVIATIONS`. What needs
endpoints that do not exist yet is passed over (`NOT_YET`), by the recorded answer.
"""

import json
from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.in_memory import Answer, Daemon
from tests.recordings import (
    DEVIATIONS,
    PREFIX,
    Exchange,
    attempts,
    body_of,
    endpoint,
    first_attempts,
    headers_of,
    json_of,
    load,
    normalised,
    outcome,
    scenarios,
)

# Endpoints, and whole scenarios, that come with analytics, plans, deactivation and DNS.
NOT_YET_ENDPOINTS = (
    "server/analytics", "server/deactivate", "server/billing", "server/analytics/status",
)  # fmt: skip
NOT_YET_SCENARIOS = ("push-notify/plans", "rate-limit/three-per-minute")
NOT_YET_ANSWERS = (
    "Your plan doesn't allow sending push notifications.",
    "Your organization is registered to a different Zulip server.",
    "The mobile push notification service registration for your server has been deactivated",
    "API usage exceeded rate limit",
    "Please use your real email address.",
)
NOT_YET_DNS = (" does not exist", "does not have any MX records")


def not_yet(exchange: Exchange) -> bool:
    """Say whether an exchange needs what we do not have yet."""
    body = exchange["response"]["json"] or {}
    msg = body.get("msg", "")
    return (
        endpoint(exchange) in NOT_YET_ENDPOINTS
        or exchange["scenario"] in NOT_YET_SCENARIOS
        or "fixture" in exchange
        or msg.startswith(NOT_YET_ANSWERS)
        or msg.endswith(NOT_YET_DNS)
    )


def without_realm(body: Any) -> Any:
    """Leave out what we say of realms: nothing yet."""
    if isinstance(body, dict) and "realm" in body:
        return {name: value for name, value in body.items() if name != "realm"}
    return body


class Replay:
    """Sends a scenario to a daemon of its own, and notes what differs."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.daemon.apns.outcome = self.daemon.fcm.outcome = outcome(self.daemon.clock.seconds)
        self.rules: Counter[str] = Counter()
        self.same = 0
        self.different: list[str] = []

    def exchange(self, exchange: Exchange) -> None:
        self.daemon.clock.advance(0.25)
        request = exchange["request"]
        del self.daemon.apns.pushes[:], self.daemon.fcm.pushes[:]
        answer = self.daemon.send(
            request["method"], request["path"], body_of(request), headers_of(request)
        )
        self._compare(exchange, answer)
        if "upstream" in exchange and exchange["response"]["status"] == 200:
            self._compare_upstream(exchange, answer)

    def _compare(self, exchange: Exchange, answer: Answer) -> None:
        expected = exchange["response"]
        ours, theirs = json_of(answer), expected["json"]
        if answer.status == expected["status"] and (
            without_realm(normalised(ours)) == without_realm(normalised(theirs))
        ):
            self.same += 1
            return
        covered = [rule.name for rule in DEVIATIONS if rule.covers(exchange, answer)]
        if covered:
            self.rules[covered[0]] += 1
        else:
            self.different.append(
                f"{exchange['id']} ({exchange['title']}): expected {expected['status']}"
                f" {json.dumps(theirs)}, got {answer.status} {json.dumps(ours)}"
            )

    def _compare_upstream(self, exchange: Exchange, answer: Answer) -> None:
        ours = attempts(self.daemon.pushes, self.daemon.clock.seconds())
        theirs = first_attempts(exchange["upstream"])
        if ours != theirs and not any(rule.covers(exchange, answer) for rule in DEVIATIONS):
            self.different.append(f"{exchange['id']}: sent {ours - theirs}, not {theirs - ours}")


class ReferenceTests(SynchronousTestCase):
    """Our answers to what the reference was asked."""

    def test_conformance(self) -> None:
        """A Zulip server cannot tell our answers, nor a phone our pushes, from the reference's."""
        same, different, rules = 0, [], Counter[str]()
        for _name, exchanges in scenarios():
            replay = Replay()
            for exchange in exchanges:
                if not not_yet(exchange):
                    replay.exchange(exchange)
            same += replay.same
            different += replay.different
            rules += replay.rules
        self.assertEqual(different, [])
        self.assertEqual(set(rules), {rule.name for rule in DEVIATIONS if rule.seen})
        self.assertGreater(same, 350)

    def test_authorization(self) -> None:
        """Bad credentials are refused with the recorded words, whatever they try to reach."""
        # Recorded with an endpoint that we do not have yet, so another one stands in for it.
        [exchanges] = [found for name, found in scenarios() if name == "auth/headers"]
        daemon = Replay().daemon
        compared = 0
        for exchange in exchanges:
            request, expected = exchange["request"], exchange["response"]
            headers = headers_of(request)
            if endpoint(exchange) == "server/register":
                daemon.send("POST", request["path"], body_of(request), headers)
                continue
            answer = daemon.send("POST", f"{PREFIX}push/unregister/all", b"", headers)
            if expected["status"] == 200:
                self.assertEqual(answer.json["msg"], "Missing user_id or user_uuid")
            elif "subdomain" not in expected["json"]["msg"]:  # Host is of no interest to us
                self.assertEqual(
                    (answer.status, answer.json), (expected["status"], expected["json"])
                )
                self.assertEqual(
                    answer.headers["WWW-Authenticate"],
                    expected["headers"].get("www-authenticate"),
                )
            compared += 1
        self.assertEqual(compared, len(exchanges) - 1)


class ClientTests(SynchronousTestCase):
    """Requests byte for byte as a real Zulip 9.x server sent them."""

    def test_a_real_server(self) -> None:
        """An unmodified Zulip server enrols, registers phones, pushes, and unregisters them."""
        daemon = Daemon()
        statuses = Counter[int]()
        for each in load("client-9.x"):
            path = each["path"].removeprefix(PREFIX)
            if path in NOT_YET_ENDPOINTS or each["id"] == "client/121":
                continue
            head = "".join(f"{name}: {value}\r\n" for name, value in each["headers"])
            request = f"{each['request_line']}\r\n{head}\r\n".encode() + each["body"].encode()
            answer = daemon.raw(request)
            self.assertEqual(answer.status, each["response"]["status"], each["id"])
            self.assertEqual(
                without_realm(normalised(answer.json)),
                without_realm(normalised(each["response"]["json"])),
                each["id"],
            )
            statuses[answer.status] += 1
        self.assertGreater(statuses[200], 20)
        self.assertGreater(len(daemon.pushes), 15)
