"""Calls that go on and on, for tests of what happens to a daemon meanwhile."""

import secrets

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from tests.house import House, a_message, reactor

PHONES = 10


async def hears(house: House, words: str, times: int = 1) -> None:
    """Wait until the log says something."""
    for _ in range(400):
        assert house.child is not None
        assert house.child.poll() is None, house.log()
        if house.log().count(words) >= times:
            return
        await deferLater(reactor, 0.05)
    raise AssertionError(f"never said: {words}\n{house.log()}")


class Load:
    """Calls, one after the other in each of some threads, until told to stop."""

    def __init__(self, house: House) -> None:
        self.sent = 0
        self._house = house
        self._stopped = False
        self._threads: list[Deferred[None]] = []

    def start(self, threads: int = 4) -> None:
        """Begin."""
        self._threads = [Deferred.fromCoroutine(self._call()) for _ in range(threads)]

    async def more(self, pushes: int) -> None:
        """Go on until so many more were taken."""
        until = self.sent + pushes
        while self.sent < until:
            await deferLater(reactor, 0.01)

    async def stop(self) -> None:
        """End."""
        self._stopped = True
        await DeferredList(self._threads, fireOnOneErrback=True)

    async def _call(self) -> None:
        while not self._stopped:
            status, answer = await self._house.call("push/notify", body=a_message())
            assert status == 200, answer
            self.sent += int(answer["total_apple_devices"])


async def furnished(house: House) -> None:
    """Start, with a server and a user with many iPhones."""
    house.ini += "[limits]\nrequests_per_minute = 1000000\n"
    await house.start()
    await house.enrol()
    for _ in range(PHONES):
        await house.add_phone(secrets.token_hex(32), 1)


async def delivered(house: House, count: int) -> None:
    """Wait until so many pushes were delivered, and see that none went another way."""
    ended = 'bouncerd_pushes_ended_total{end="%s",provider="apns"}'
    for _ in range(200):
        if await house.metric(ended % "delivered") >= count:
            break
        await deferLater(reactor, 0.05)
    for end, wanted in (("delivered", count), ("lost", 0), ("unknown", 0), ("expired", 0)):
        assert await house.metric(ended % end) == wanted, end
