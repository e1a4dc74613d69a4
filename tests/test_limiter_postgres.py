"""A limit over several processes, on a real PostgreSQL: each has connections of its own."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults

from bouncerd.limiter import SharedLimiter
from bouncerd.limits import Verdict
from bouncerd.store.postgres import PostgreSQLStore
from tests import postgres

reactor: Any = _reactor

ONE = "11111111-1111-4111-8111-111111111111"


@contextmanager
def a_database() -> Iterator[str]:
    """Have a database for a while."""
    address = postgres.shared().create()
    try:
        yield address
    finally:
        postgres.shared().drop(address)


@asynccontextmanager
async def processes(address: str, count: int) -> AsyncIterator[list[SharedLimiter]]:
    """Have what so many processes would have."""
    stores = [PostgreSQLStore(address, reactor, reactor.seconds) for _ in range(count)]
    try:
        for store in stores:
            await store.open()
        yield [SharedLimiter(store, reactor) for store in stores]
    finally:
        for store in stores:
            await store.close()


def take(limiter: SharedLimiter, limit: int = 1000) -> Deferred[Verdict]:
    """Make a request."""

    async def ask() -> Verdict:
        return await limiter.take(ONE, limit, reactor.seconds() + 30)

    return Deferred.fromCoroutine(ask())


@pytest_twisted.ensureDeferred
async def test_a_flood() -> None:
    """A server that floods three processes has its thousand a minute, within ten."""
    with a_database() as address:
        async with processes(address, 3) as limiters:
            verdicts: list[Verdict] = []
            for _ in range(60):
                asked = [take(limiter) for limiter in limiters for _ in range(10)]
                verdicts += await gatherResults(asked)
            passed = [verdict for verdict in verdicts if verdict.retry_in is None]
            assert 990 <= len(passed) <= 1010
            refused = verdicts[-1]
            assert refused.retry_in is not None
            assert 0 < refused.retry_in < 60.3


@pytest_twisted.ensureDeferred
async def test_changes_hold_everywhere() -> None:
    """What passed in one process is known in the next, as is a limit that is raised."""
    with a_database() as address:
        async with processes(address, 2) as (one, two):
            assert [(await take(one, 3)).remaining for _ in range(3)] == [2, 1, 0]
            assert (await take(two, 3)).retry_in is not None
            assert (await take(two, 5)).remaining == 1
            assert (await take(one, 5)).remaining == 0
