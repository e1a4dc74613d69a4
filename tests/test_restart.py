"""Restarts under a supervisor that plays systemd: nothing is lost, nothing is sent twice."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from bouncerd import handover
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Respond
from bouncerd.passing import Waiting
from tests.house import TOPIC, House, a_message, reactor
from tests.memory import a_push
from tests.supervised import NAME, SupervisedHouse

IPHONE, ANDROID = "ab" * 32, "fGl0:android"
DONE = ("delivered", "gone", "refused", "expired", "returned", "unknown", "handed_over", "lost")

Rent = Callable[..., SupervisedHouse]


@pytest.fixture
def rent(tmp_path: Path) -> Iterator[Rent]:
    """Return a way to get a supervised house, which is torn down afterwards."""
    houses: list[House] = []

    def let(endpoint: str = "index=0", **options: Any) -> SupervisedHouse:
        houses.append(SupervisedHouse(tmp_path, endpoint, **options))
        return houses[-1]  # type: ignore[return-value]

    yield let
    for house in houses:
        pytest_twisted.blockon(Deferred.fromCoroutine(house.close()))


async def furnished(house: SupervisedHouse) -> SupervisedHouse:
    """Start it, with a server that has two phones."""
    await house.start()
    await house.enrol()
    await house.add_phone(IPHONE, 1)
    await house.add_phone(ANDROID, 2)
    return house


async def push(house: SupervisedHouse, content: str) -> dict[str, Any]:
    """Push to both phones; it must be accepted."""
    status, answer = await house.call("push/notify", body=a_message(content))
    assert status == 200, answer
    return answer


def arrived(house: SupervisedHouse) -> list[str]:
    """What the iPhone has shown."""
    return [each.json()["aps"]["alert"]["body"] for each in house.apns.ledger.accepted()]


async def arrives(house: SupervisedHouse, *contents: str) -> None:
    """Wait until just these have been shown."""
    for _ in range(600):
        if len(arrived(house)) >= len(contents):
            break
        await deferLater(reactor, 0.05)
    assert sorted(arrived(house)) == sorted(contents), house.log()


def balanced(books: Mapping[str, int]) -> bool:
    """Tell whether every push of all runs together has one end."""
    taken = books["accepted"] + books["taken_over"]
    return taken == sum(books[end] for end in DONE)


@pytest.mark.parametrize("endpoint", ["index=0", "name=bouncerd.socket"])
@pytest_twisted.ensureDeferred
async def test_what_waits_goes_to_the_next_process(rent: Rent, endpoint: str) -> None:
    """Pushes that Apple could not be given are taken from the next process, once each."""
    house = await furnished(rent(endpoint, abstract=endpoint == "index=0"))
    await house.apple_goes()
    for number in range(5):
        await push(house, f"message {number}")
    await house.waiting(5)
    assert await house.stop() == -signal.SIGTERM
    assert [each.name for each in house.unit.kept] == [NAME]
    assert {"STOPPING=1", "READY=1"} <= set(house.unit.run.told)
    house.apple_returns()
    await house.start()
    await arrives(house, *(f"message {number}" for number in range(5)))
    assert house.unit.kept == []
    await house.stop()
    books = house.books()
    assert books["handed_over"] == books["taken_over"] == 5
    assert (books["lost"], balanced(books)) == (0, True), books
    assert "message 3" not in house.log()


@pytest_twisted.ensureDeferred
async def test_a_stop_without_a_store(rent: Rent) -> None:
    """Where nothing is kept, what waits has some seconds; what it loses is told before the end."""
    house = rent()
    house.unit.manner.store_max = 0
    told = house.directory / "told"
    command = f"""alert_command = sh -c "sleep 0.3; echo $0 $1 >> {told}"\n"""
    house.ini = house.ini.replace("[bouncerd]\n", "[bouncerd]\n" + command)
    await furnished(house)
    house.apns.on(Match(), Respond(429, (("retry-after", "40"),), b'{"reason":"TooManyRequests"}'))
    await push(house, "message")
    await house.waiting(1)
    await house.stop()
    assert "No descriptor store" in house.log()
    (line,) = [line for line in house.lines() if line.get("alert") == "pushes-lost"]
    assert "lost 1 pushes" in line["message"], line
    books = house.books()
    assert (books["lost"], books["handed_over"], balanced(books)) == (1, 0, True), books
    assert told.read_text() == "pushes-lost apns\n"


@pytest_twisted.ensureDeferred
async def test_a_supervisor_that_falls_silent(rent: Rent) -> None:
    """A hand-over that is not confirmed is none: it is worked off, and nobody sends it twice."""
    house = await furnished(rent())
    await house.apple_goes()
    await push(house, "message")
    await house.waiting(1)
    house.unit.manner.answers_barriers = False
    house.unit.manner.forgetful = True
    house.unit.run.signal(signal.SIGTERM)
    await house.unit.until(lambda: bool(house.unit.kept))
    house.apple_returns()
    await house.unit.ended()
    await arrives(house, "message")
    house.unit.manner.answers_barriers = True
    await house.start()
    await push(house, "another")
    await arrives(house, "message", "another")


@pytest_twisted.ensureDeferred
async def test_killed_while_it_takes_over(rent: Rent) -> None:
    """Killed before it asked for their removal, a process leaves them all; it waits for that."""
    house = await furnished(rent())
    await house.apple_goes()
    await push(house, "message")
    await house.waiting(1)
    await house.stop()
    house.apple_returns()
    house.unit.launch()
    await house.unit.kill()
    (kept,) = house.unit.kept
    house.unit.manner.holding = True  # whatever is said is not acted upon
    house.unit.launch()
    await house.providers("up", "up")
    await deferLater(reactor, 0.5)
    assert (arrived(house), house.unit.kept) == ([], [kept]), "it could still be sent again"
    house.unit.manner.holding = False
    house.unit.listen_to_it()
    await arrives(house, "message")
    assert house.unit.kept == []


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_taken_over(rent: Rent) -> None:
    """What is damaged, of another version, or too late, is lost in one clear line each."""
    house = rent()
    now = time.time()
    good = handover.encode([Waiting(a_push(IPHONE, app=TOPIC), now + 60)], now)
    late = handover.encode([Waiting(a_push(IPHONE), now - 1)] * 3, now - 600)
    broken = good[:-1] + bytes([good[-1] ^ 1])
    for data in (good, late, broken, b"nonsense" * 20):
        house.unit.keep(NAME, handover.seal(data))
    ours, theirs = os.pipe()
    house.unit.keep(NAME, theirs)
    house.unit.manner.store_max = 8
    await house.start()
    await house.unit.until(lambda: len(house.apns.ledger.accepted()) == 1)
    os.close(ours)
    assert house.unit.kept == []
    lost = [line["message"] for line in house.lines() if line.get("alert") == "pushes-lost"]
    assert len(lost) == 4, lost
    assert sum("of unknown count" in line for line in lost) == 2, lost
    await house.stop()
    books = house.books()
    assert (books["taken_over"], books["lost"]) == (5, 4), books
    assert balanced(books)


@pytest_twisted.ensureDeferred
async def test_killed_in_the_middle(rent: Rent) -> None:
    """SIGKILL loses what waits, and nothing else: the next process serves at once."""
    house = await furnished(rent())
    house.apns.on(Match(), Respond(429, body=b'{"reason":"TooManyRequests"}'), count=1)
    await push(house, "lost")
    await house.waiting(1)
    await house.unit.kill()
    assert house.unit.kept == []
    await house.start()
    await push(house, "here")
    await arrives(house, "here")


@pytest_twisted.ensureDeferred
async def test_connections_end_politely(rent: Rent) -> None:
    """At a stop, a connection in use gets its answer and a goodbye; an idle one is closed."""
    house = await furnished(rent())
    house.apns.latency = (0.5, 0.5)
    idle = socket.create_connection(("127.0.0.1", house.port))
    answer = Deferred.fromCoroutine(house.call("push/notify", body=a_message()))
    await deferLater(reactor, 0.2)
    house.unit.run.signal(signal.SIGTERM)
    await deferLater(reactor, 0.1)
    idle.sendall(b"GET /api/v1/remotes/server/analytics/status HTTP/1.1\r\nHost: x\r\n\r\n")
    idle.setblocking(False)
    await house.unit.ended()
    assert (await answer)[0] == 200
    head = idle.recv(65536).partition(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"http/1.1 401"), head
    assert b"connection: close" in head.split(b"\r\n")
    assert idle.recv(1) == b""
    idle.close()
