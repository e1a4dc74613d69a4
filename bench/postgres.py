"""Look-ups on PostgreSQL with many devices: CPU of each, latency at a rate, memory, bytes a row.

    python -m bench.postgres [DEVICES] [SECONDS]

Starts a server of its own out of the wheel that the tests use.
"""

import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from txpostgres import txpostgres

from bouncerd.model import Identity
from bouncerd.store.postgres import PostgreSQLStore
from bouncerd.store.rows import DEVICE, SERVER, columns
from tests import postgres

reactor: Any = _reactor

SERVERS = 1000
_FILL_SERVERS = f"""
    INSERT INTO servers (uuid, hostname, contact_email, key_digest, created_at)
    SELECT md5('s' || i)::uuid::text, 'zulip' || i || '.example.org',
           'admin@zulip' || i || '.example.org', sha256(i::text::bytea), 1.0
    FROM generate_series(1, {SERVERS}) i
"""
# Two phones a user: hex tokens of 64 characters with Apple, of 163 with Google.
_FILL_DEVICES = """
    INSERT INTO devices (server_id, user_uuid, kind, token, token_key, app_id, registered_at)
    SELECT 1 + u % {servers}, md5('u' || u)::uuid::text, k,
           CASE k WHEN 1 THEN encode(sha256((u || '-1')::bytea), 'hex')
                  ELSE left(repeat(encode(sha256((u || '-2')::bytea), 'hex'), 3), 163) END,
           substr(sha256((u || '-' || k)::bytea), 1, 16),
           CASE k WHEN 1 THEN 'org.example.app' END, 1.7e9 + u
    FROM generate_series(1, {users}) u, generate_series(1, 2) k
"""
_JOIN = f"""
    SELECT {columns(SERVER, "s")}, {columns(DEVICE, "d")}
    FROM servers s LEFT JOIN devices d ON d.server_id = s.id AND d.user_uuid = %s
    WHERE s.uuid = %s
"""
_SIZES = "SELECT pg_table_size('devices'), pg_indexes_size('devices'), COUNT(*) FROM devices"
_SOME_USERS = """
    SELECT s.uuid, d.user_uuid FROM devices d JOIN servers s ON s.id = d.server_id
    WHERE d.kind = 1 AND d.id % {step} < 2 LIMIT 20000
"""


def fill(address: str, devices: int) -> list[tuple[str, str]]:
    """Fill a database; return some users, each with the server that it is on."""
    statement = _FILL_DEVICES.format(servers=SERVERS, users=devices // 2)
    postgres.run(address, _FILL_SERVERS, statement)
    postgres.run(address, "VACUUM (ANALYZE, FREEZE) devices")
    step = max(2, devices // 20_000)
    return postgres.run(address, _SOME_USERS.format(step=step))


def memory() -> float:
    """Return the resident size of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


async def saturated(store: PostgreSQLStore, users: list[Any], callers: int, seconds: float) -> None:
    """Have so many callers ask without a pause."""
    asked, until, cpu = 0, time.monotonic() + seconds, time.process_time()

    async def caller() -> None:
        nonlocal asked
        while time.monotonic() < until:
            uuid, user = random.choice(users)
            found = await store.find(uuid, Identity(None, user), None)
            assert len(found.devices) == 2
            asked += 1

    await gatherResults([Deferred.fromCoroutine(caller()) for _ in range(callers)])
    cpu = time.process_time() - cpu
    print(
        f"{callers:4} callers: {asked / seconds:8.0f} look-ups/s,"
        f" {cpu / asked * 1e6:6.1f} us of CPU each, {memory():.0f} MB"
    )


async def one_by_one(address: str, users: list[Any], callers: int, seconds: float) -> None:
    """Have as many callers ask by txpostgres as it comes, each look-up by itself."""
    pool = txpostgres.ConnectionPool(None, address, min=4)
    await pool.start()
    asked, until, cpu = 0, time.monotonic() + seconds, time.process_time()

    async def caller() -> None:
        nonlocal asked
        while time.monotonic() < until:
            rows = await pool.runQuery(_JOIN, random.choice(users)[::-1])
            assert len(rows) == 2
            asked += 1

    await gatherResults([Deferred.fromCoroutine(caller()) for _ in range(callers)])
    cpu = time.process_time() - cpu
    pool.close()
    print(
        f"{callers:4} callers: {asked / seconds:8.0f} look-ups/s,"
        f" {cpu / asked * 1e6:6.1f} us of CPU each, one by one"
    )


async def at_rate(store: PostgreSQLStore, users: list[Any], rate: int, seconds: float) -> None:
    """Ask evenly spaced, whether or not the one before was answered."""
    took: list[float] = []
    done: list[Deferred[None]] = []
    due = time.monotonic()

    async def one(due: float) -> None:
        uuid, user = random.choice(users)
        await store.find(uuid, Identity(None, user), None)
        took.append(time.monotonic() - due)

    def ask() -> None:
        nonlocal due
        while due <= time.monotonic():
            done.append(Deferred.fromCoroutine(one(due)))
            due += 1 / rate

    cpu = time.process_time()
    asking = LoopingCall(ask)
    asking.start(1 / rate)
    await deferLater(reactor, seconds)
    asking.stop()
    cpu = time.process_time() - cpu
    await gatherResults(done)
    took.sort()
    p50, p99, worst = took[len(took) // 2], took[len(took) * 99 // 100], took[-1]
    print(
        f"{rate:4}/s: p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms, worst {worst * 1e3:.1f} ms,"
        f" {cpu / seconds:.0%} of a CPU, {memory():.0f} MB"
    )


async def main(devices: int, seconds: float) -> None:
    """Print all figures."""
    server = postgres.Server(shared_buffers="512MB", autovacuum="on")
    server.start()
    address = postgres.Databases(server.dsn()).create()
    store = PostgreSQLStore(address, reactor, time.time)
    await store.open()
    users = fill(address, devices)
    [(table, indexes, count)] = postgres.run(address, _SIZES)
    print(f"{count} devices: {table / count:.0f} bytes each, and {indexes / count:.0f} in indexes")
    print(f"load of this machine before: {os.getloadavg()[0]:.1f}; memory {memory():.0f} MB")
    for callers in (1, 32, 128):
        await saturated(store, users, callers, seconds)
        await one_by_one(address, users, callers, seconds)
    for rate in (100, 500, 1000):
        await at_rate(store, users, rate, seconds)
    await store.close()
    server.remove()


if __name__ == "__main__":
    words = [*sys.argv[1:], "1000000", "5"]
    size, length = (1_000_000, 5.0) if len(sys.argv) == 1 else (int(words[0]), float(words[-1]))
    running = Deferred.fromCoroutine(main(size, length))
    running.addErrback(lambda failure: failure.printTraceback())
    running.addBoth(lambda _: reactor.stop())
    reactor.run()
