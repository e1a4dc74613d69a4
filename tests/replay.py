"""Sends recorded exchanges to a daemon in memory, and says what came out differently."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bouncerd.registry import Admission
from tests.deviations import DEVIATIONS, Difference
from tests.in_memory import Answer, Daemon, result
from tests.recordings import (
    Exchange,
    attempts,
    body_of,
    first_attempts,
    headers_of,
    json_of,
    outcome,
)

RECORDED_AT = 1_795_338_990.0
DAY = 86_400.0

COMMUNITY, BASIC = 102, 103  # plan types: sponsored, paid


class Replay:
    """Plays a scenario to a daemon of its own, and notes what differs.

    `before` is put before each path: slashes make no difference to anybody.
    """

    def __init__(self, exchanges: Sequence[Exchange], before: str = "") -> None:
        config = exchanges[0].get("server_config") or {}
        limit = config.get("rate_limit", {}).get("max_requests", 1000)
        self.daemon = Daemon(
            requests_per_minute=limit,
            at=RECORDED_AT,
            free_users=10,
            admission=Admission(old_key_grace=0.0),
        )
        self.daemon.apns.outcome = self.daemon.fcm.outcome = outcome(self.daemon.clock.seconds)
        self.before = before
        self.answers: list[Answer] = []
        self.rules: Counter[str] = Counter()
        self.same = 0
        self.different: list[str] = []
        for exchange in exchanges:
            self.play(exchange)

    def play(self, exchange: Exchange) -> None:
        """Send a request, and compare."""
        daemon, request = self.daemon, exchange["request"]
        daemon.clock.advance(0.25)
        if exchange.get("fixture"):
            self._prepare(exchange)
        del daemon.apns.pushes[:], daemon.fcm.pushes[:]
        method, path = request["method"], request["path"]
        answer = daemon.send(method, self.before + path, body_of(request), headers_of(request))
        self.answers.append(answer)
        sent, recorded = self._upstream(exchange)
        earlier = frozenset(self.rules)
        found = Difference(exchange, answer.status, json_of(answer), sent, recorded, earlier)
        if found.is_none:
            self.same += 1
            return
        covered = [rule.name for rule in DEVIATIONS if rule.covers(found)]
        if covered:
            self.rules[covered[0]] += 1
        else:
            self.different.append(found.told())

    def _upstream(self, exchange: Exchange) -> "tuple[Counter[str], Counter[str]]":
        recorded = exchange.get("upstream") or {"apns": [], "fcm": []}
        sent = attempts(self.daemon.pushes, self.daemon.clock.seconds())
        return sent, first_attempts(recorded)

    def _prepare(self, exchange: Exchange) -> None:
        """Bring about by the store what was done to the reference's database by hand."""
        words: str = exchange["fixture"]
        if words == "the last audit upload was three days ago":
            self.daemon.clock.advance(3 * DAY)
            return
        of_server = words.startswith("the server")
        uuid = exchange["request"]["auth"]["org_id"] if of_server else _realm_of(exchange)
        plan = COMMUNITY if "community plan" in words else BASIC
        _, _, day = words.partition(" is to end on ")
        ends_at = datetime.fromisoformat(day).timestamp() if day else None
        now = self.daemon.clock.seconds()
        assert result(self.daemon.store.set_plan(uuid, plan, ends_at, now)), words


def _realm_of(exchange: Exchange) -> str:
    request: Any = exchange["request"]
    if request.get("json"):
        return str(request["json"]["realm_uuid"])
    return str(json.loads(request["form"]["realms"])[0]["uuid"])
