"""Several processes of the daemon on one PostgreSQL, as operators and Zulip servers meet them."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests import postgres
from tests.house import ORG_KEY, TOPIC, House, a_message, free_port
from tests.several import Several

Rent = Callable[..., House]
reactor: Any = _reactor

LIMITS = "[limits]\nrequests_per_minute = 1000\n"


@pytest.fixture
def several(rent: Rent) -> Iterator[Several]:
    """Return daemons to be started on a new database."""
    address = postgres.shared().create()
    daemons = Several(rent(), address, LIMITS)
    yield daemons
    daemons.close()
    postgres.shared().drop(address)


async def in_turns(callers: int, call: Callable[[int], Any], count: int) -> list[Any]:
    """Make so many calls, some at a time; return what they return."""
    numbers = iter(range(count))

    async def caller() -> list[Any]:
        return [await call(number) for number in numbers]

    answers = await gatherResults([Deferred.fromCoroutine(caller()) for _ in range(callers)])
    return [answer for each in answers for answer in each]


@pytest_twisted.ensureDeferred
async def test_three_processes(several: Several) -> None:
    """A limit holds for all together; who is deactivated is refused by each at the next call."""
    await several.start(3)
    house = several.at(0)
    await house.enrol()
    await several.at(1).add_phone("ab" * 32, 1)
    status, answer = await several.at(2).call("push/notify", body=a_message())
    assert (status, answer["total_apple_devices"]) == (200, 1)
    other = "6d2f9b63-4e1f-4c8f-8b62-1f3a7e2d8b21"
    await several.at(0).enrol(other, "other.example.org")

    async def ask(number: int) -> int:
        return await several.get(number, "server/analytics/status", (other, ORG_KEY))

    began = time.monotonic()
    statuses = Counter(await in_turns(24, ask, 1200))
    assert time.monotonic() - began < 55
    assert set(statuses) <= {200, 429}, statuses
    assert abs(statuses[200] - 1000) <= 10, statuses

    status, _ = await several.at(0).call("server/deactivate", {"x": "1"})
    assert status == 200
    for number in (1, 2, 0):
        status, answer = await several.at(number).call("push/notify", body=a_message())
        assert status == 401, (number, status, answer)
    assert not _unhandled(house)


@pytest_twisted.ensureDeferred
async def test_database_killed_under_load(rent: Rent) -> None:
    """SIGKILL for PostgreSQL under load: 503 in time, not ready, nothing acknowledged is lost."""
    server = postgres.Server(quick=False, port=free_port())
    server.start()
    daemons = Several(rent(), postgres.Databases(server.dsn()).create())
    try:
        await _killed_under_load(daemons, server)
    finally:
        daemons.close()
        server.remove()


async def _killed_under_load(daemons: Several, server: postgres.Server) -> None:
    await daemons.start(2)
    house = daemons.at(0)
    await house.enrol()
    await house.add_phone("ab" * 32, 1)
    registered: set[str] = set()
    statuses: Counter[int] = Counter()
    pushed: list[int] = []

    async def register(number: int) -> None:
        token = f"{number:064x}"
        form = {"user_id": str(number), "token": token, "token_kind": "1", "ios_app_id": TOPIC}
        began = time.monotonic()
        status, _ = await daemons.at(number).call("push/register", form)
        assert status == 200 or time.monotonic() - began < 6.0  # a loaded machine adds its own
        statuses[status] += 1
        if status == 200:
            registered.add(token)

    async def notify(number: int) -> None:
        status, answer = await daemons.at(number).call("push/notify", body=a_message())
        statuses[status] += 1
        pushed.append(answer.get("total_apple_devices", 0) if status == 200 else 0)

    load = gatherResults(
        [
            Deferred.fromCoroutine(in_turns(8, register, 400)),
            Deferred.fromCoroutine(in_turns(4, notify, 200)),
        ]
    )
    while len(registered) < 60:
        await deferLater(reactor, 0.01)
    server.kill()

    async def red() -> bool:
        return (await daemons.at(0).health())[0] == 503

    await daemons.until(red, 10)
    await deferLater(reactor, 1.0)
    await deferToThread(server.start)
    back = time.monotonic()
    for number in (0, 1):
        await daemons.ready(number, 5.0)
    assert time.monotonic() - back < 5.0
    await load
    assert set(statuses) <= {200, 503}, statuses
    stored = {token for (token,) in postgres.run(daemons.address, "SELECT token FROM devices")}
    assert registered - stored == set()
    await daemons.until(lambda: _delivered(house, sum(pushed)), 10)
    assert not _unhandled(house)


def _unhandled(house: House) -> list[str]:
    """Return the lines of the log that tell of a mistake of ours."""
    words = "nobody handled", "Traceback", '"critical"', "caused_by"
    return [line for line in house.log().splitlines() if any(word in line for word in words)]


async def _delivered(house: House, count: int) -> bool:
    return len(house.apns.ledger.accepted()) >= count
