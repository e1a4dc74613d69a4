"""Restart after restart under load: no caller is refused, no push is lost, none comes twice.

Three restarts here; a hundred with BOUNCERD_SOAK=1.
"""

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
import pytest_twisted
import treq
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool, ResponseNeverReceived

from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Respond
from tests.house import ORG_ID, ORG_KEY, USER, a_message, reactor
from tests.supervised import SupervisedHouse

RESTARTS = 100 if os.environ.get("BOUNCERD_SOAK") == "1" else 3
# How many callers there are of each kind, and how long each waits between two calls, in seconds.
FRESH, KEPT, SLOW = (6, 0.0, 0.2), (6, 0.0, 0.2), (4, 0.5, 2.5)
IPHONE, ANDROID = "ab" * 32, "fGl0:android"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[SupervisedHouse]:
    """Return a supervised house that lets one server ask often."""
    house = SupervisedHouse(tmp_path)
    house.ini += "[limits]\nrequests_per_minute = 1000000\n"
    yield house
    pytest_twisted.blockon(Deferred.fromCoroutine(house.close()))


@dataclass
class Callers:
    """Zulip servers, as far as one house can tell: each asks, waits for the answer, asks again."""

    house: SupervisedHouse
    running: bool = True
    numbers: Iterator[int] = field(default_factory=itertools.count)
    random: Random = field(default_factory=lambda: Random(4))
    accepted: list[str] = field(default_factory=list)
    statuses: "Counter[int]" = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)  # no answer: refused, reset, hung up
    crossed: int = 0  # a call on a connection that was idle crossed our goodbye: asked again
    longest: float = 0.0  # seconds to an answer

    def start(self) -> "list[Deferred[None]]":
        """Start all of them."""
        one, many = Agent(reactor), Agent(reactor, pool=HTTPConnectionPool(reactor))
        calls = []
        for agent, (count, least, most) in ((one, FRESH), (many, KEPT), (many, SLOW)):
            calls += [self._call_on(agent, least, most) for _ in range(count)]
        return [Deferred.fromCoroutine(call) for call in calls]

    async def _call_on(self, agent: Agent, least: float, most: float) -> None:
        while self.running:
            content = f"message {next(self.numbers)}"
            while not await self._push(agent, content):
                await deferLater(reactor, 0.2)
            await deferLater(reactor, self.random.uniform(least, most))

    async def _push(self, agent: Agent, content: str) -> bool:
        """Push; False: it must be asked again, as a real server does."""
        began = time.monotonic()
        try:
            url = f"http://127.0.0.1:{self.house.port}/api/v1/remotes/push/notify"
            response = await treq.post(
                url, json=a_message(content), auth=(ORG_ID, ORG_KEY), agent=agent, timeout=20
            )
            await response.content()
        except ResponseNeverReceived:
            self.crossed += 1
            return False
        except Exception as fault:  # noqa: BLE001 -- whatever it was: the caller had no answer
            self.faults.append(type(fault).__name__)
            return False
        self.statuses[response.code] += 1
        self.longest = max(self.longest, time.monotonic() - began)
        if response.code == 200:
            self.accepted.append(content)
        return bool(response.code != 503)


def shown(house: SupervisedHouse) -> "list[Counter[str]]":
    """Return what each phone has shown, and how often."""
    return [
        Counter(each.json()["aps"]["alert"]["body"] for each in house.apns.ledger.accepted()),
        Counter(each.json()["message"]["data"]["content"] for each in house.fcm.ledger.accepted()),
    ]


@pytest_twisted.ensureDeferred
async def test_restarts_under_load(house: SupervisedHouse) -> None:
    """Every push that was accepted arrives once, whichever process it was in."""
    await house.start()
    await house.enrol()
    await house.add_phone(IPHONE, 1, **USER)
    await house.add_phone(ANDROID, 2, **USER)
    unwell = Respond(503, body=b'{"reason":"ServiceUnavailable"}')
    rule = house.apns.on(Match(probability=0.05), unwell)
    callers = Callers(house)
    calls = callers.start()
    gaps = []
    for number in range(RESTARTS):
        if number == RESTARTS - 1:
            house.apns.rules.remove(rule)
        await deferLater(reactor, 0.5)
        began = time.monotonic()
        await house.unit.end()
        run = await house.unit.start()
        assert run.ready_at is not None, house.log()
        gaps.append(run.ready_at - began)
    callers.running = False
    for success, fault in await DeferredList(calls, consumeErrors=True):
        assert success, fault
    await house.providers("up", "up")
    for _ in range(4000):
        if all(len(each) >= len(callers.accepted) for each in shown(house)):
            break
        await deferLater(reactor, 0.05)
    await house.stop()
    books = house.books()
    print(  # noqa: T201 -- the figures of a soak
        f"\n{RESTARTS} restarts, {len(callers.accepted)} calls, answers {dict(callers.statuses)},"
        f" no answer {Counter(callers.faults)}, crossed {callers.crossed},"
        f" longest {callers.longest:.2f} s,"
        f" restart {sum(gaps) / len(gaps):.2f} s (longest {max(gaps):.2f}), books {dict(books)}"
    )
    assert callers.faults == []
    assert set(callers.statuses) <= {200, 503}, callers.statuses
    expected = Counter(callers.accepted)
    for phone in shown(house):
        assert phone == expected, (expected - phone, phone - expected)
    assert books["handed_over"] == books["taken_over"]
    assert books["lost"] == books["unknown"] == books["expired"] == 0
    assert books["delivered"] == 2 * len(callers.accepted)
