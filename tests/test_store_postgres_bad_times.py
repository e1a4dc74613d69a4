"""PostgreSQL in bad times: killed, gone, silent, read-only, full; on a server of these tests' own.

Whoever asks is told within 5 seconds, what was acknowledged is there, it serves within 5 seconds
once the database is back, and nothing is logged as unhandled (trial fails a test for that).
"""

import time
from collections.abc import Coroutine
from typing import Any, ClassVar

import psycopg2
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.model import Identity, Kind
from bouncerd.store.base import StoreError, StoreUnavailable
from bouncerd.store.postgres import PostgreSQLStore
from tests import postgres
from tests.house import free_port
from tests.proxy import Proxy
from tests.test_store_contract import ALICE, APP, ONE

reactor: Any = _reactor
WITHIN = 5.0  # seconds, as promised


class BadTimesCase(SynchronousTestCase):
    """A server that commits to disk, a database for each test, and a store on it."""

    __test__ = False
    server: ClassVar[postgres.Server]

    @classmethod
    def setUpClass(cls) -> None:  # noqa: N802  (unittest's name)
        super().setUpClass()
        cls.server = postgres.Server(quick=False, port=free_port(), max_connections="12")
        cls.server.start()

    @classmethod
    def tearDownClass(cls) -> None:  # noqa: N802
        cls.server.remove()
        super().tearDownClass()

    def setUp(self) -> None:
        self.databases = postgres.Databases(self.server.dsn())
        self.address = self.databases.create()
        self.addCleanup(lambda: self.databases.drop(self.address))

    def wait(self, waiting: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the reactor."""
        return pytest_twisted.blockon(Deferred.fromCoroutine(waiting))

    async def open(self, address: str = "") -> PostgreSQLStore:
        """Open a store with one server; it is closed after the test."""
        store = PostgreSQLStore(address or self.address, reactor, time.time)
        self.addCleanup(lambda: pytest_twisted.blockon(store.close()))
        await store.open()
        await store.add_server(ONE, "one.example.org", "a@example.org", b"k" * 32, 1.0)
        return store

    def register(self, store: PostgreSQLStore, number: int) -> Deferred[None]:
        return store.register(1, Identity(number, None), Kind.APNS, f"{number:04x}", APP, 1.0)

    async def refused(self, asked: Deferred[Any]) -> str:
        """Assert that it fails in time, and return why."""
        began = time.monotonic()
        try:
            await asked
        except StoreUnavailable as error:
            self.assertLess(time.monotonic() - began, WITHIN)
            return str(error)
        raise AssertionError("it was answered")

    async def serves(self, store: PostgreSQLStore) -> None:
        """Assert that all is well again in time, for reads and writes."""
        await self.reached(store)
        await store.deactivate_server(ONE, 1.0)
        await store.reactivate_server(ONE, 1.0)
        self.assertIsNotNone((await store.find(ONE, ALICE, None)).server)

    async def reached(self, store: PostgreSQLStore) -> None:
        """Assert that the store says in time that it is well."""
        by = time.monotonic() + WITHIN
        while True:
            try:
                await store.ping()
            except StoreUnavailable as error:
                self.assertLess(time.monotonic(), by, str(error))
            else:
                return
            await deferLater(reactor, 0.05)

    def users(self) -> set[int]:
        return {user for (user,) in postgres.run(self.address, "SELECT user_id FROM devices")}

    def stop_others(self) -> None:
        """End all other connections to the database, as an administrator can."""
        postgres.run(
            self.address,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )


class BadTimesTests(BadTimesCase):
    """What callers, operators and the log see of it."""

    __test__ = True

    def tearDown(self) -> None:
        self.server.kill()
        self.server.start()

    def test_killed_under_load(self) -> None:
        """SIGKILL in the middle of registrations: what was acknowledged is there afterwards."""
        self.wait(self._killed_under_load())

    async def _killed_under_load(self) -> None:
        store = await self.open()
        done: set[int] = set()
        failed: list[Any] = []
        for number in range(2000):
            answer = self.register(store, number)
            answer.addCallbacks(lambda _, n=number: done.add(n), failed.append)
            if number % 100 == 0:
                await deferLater(reactor, 0)
            if number == 1000:
                while len(done) < 300:
                    await deferLater(reactor, 0)
                self.server.kill()
                kept = len(done)
        finds = DeferredList([store.find(ONE, ALICE, None) for _ in range(100)], consumeErrors=True)
        await deferLater(reactor, 0.5)
        await deferToThread(self.server.start)
        await self.serves(store)
        await finds
        while len(done) + len(failed) < 2000:
            await deferLater(reactor, 0.01)
        self.assertGreaterEqual(kept, 300)
        self.assertEqual(done - self.users(), set())
        self.assertTrue(all(failure.check(StoreUnavailable) for failure in failed))

    def test_gone_for_long(self) -> None:
        """A server that stays away: who waits is told in time, who comes later is told at once."""
        self.wait(self._gone_for_long())

    async def _gone_for_long(self) -> None:
        store = await self.open()
        self.server.stop()
        asked: list[Deferred[Any]] = [store.find(ONE, ALICE, None), self.register(store, 1)]
        asked.append(store.ping())
        for each in asked:
            self.assertEqual(await self.refused(each), "connection refused")
        began = time.monotonic()
        for _ in range(10):
            self.assertEqual(await self.refused(store.ping()), "connection refused")
            self.assertEqual(await self.refused(self.register(store, 2)), "connection refused")
        self.assertLess(time.monotonic() - began, 0.5)
        await deferToThread(self.server.start)
        await self.serves(store)
        self.assertEqual(self.users(), set())  # who was told 503 asks again, if at all

    def test_restart(self) -> None:
        """A short restart costs nobody an error."""
        self.wait(self._restart())

    async def _restart(self) -> None:
        store = await self.open()
        began = time.monotonic()
        await deferToThread(self.server.stop)
        asked: list[Deferred[Any]] = [store.find(ONE, ALICE, None), self.register(store, 1)]
        answered = DeferredList(asked, consumeErrors=True)
        await deferToThread(self.server.start)
        if time.monotonic() - began > 2.0:
            self.skipTest("this machine is too slow for a short restart")
        self.assertEqual([success for success, _ in await answered], [True, True])
        self.assertEqual(self.users(), {1})

    def test_connections_cut(self) -> None:
        """Idle connections that are cut are made again, before anybody notices."""
        self.wait(self._connections_cut())

    async def _connections_cut(self) -> None:
        store = await self.open()
        for number in range(3):
            self.stop_others()
            await deferLater(reactor, 0.3 * number)
            await store.find(ONE, ALICE, None)
            await self.register(store, number)
        self.assertEqual(self.users(), {0, 1, 2})

    def test_not_there_at_the_start(self) -> None:
        """A daemon may start before its database; it opens the store once that is there."""
        self.wait(self._not_there_at_the_start())

    async def _not_there_at_the_start(self) -> None:
        self.server.stop()
        store = PostgreSQLStore(self.address, reactor, time.time)
        opening = store.open()
        await self.refused(store.ping())
        await deferLater(reactor, 0.3)
        self.assertEqual(await self.refused(store.find(ONE, ALICE, None)), "connection refused")
        self.assertFalse(opening.called)
        await deferToThread(self.server.start)
        await opening
        await store.ping()
        await store.close()

    def test_closed_before_it_opened(self) -> None:
        """A daemon that is stopped while it waits for its database stops."""
        self.wait(self._closed_before_it_opened())

    async def _closed_before_it_opened(self) -> None:
        self.server.stop()
        store = PostgreSQLStore(self.address, reactor, time.time)
        opening = store.open()
        await store.close()
        await self.refused(opening)
        await deferToThread(self.server.start)

    def test_no_such_database(self) -> None:
        """What no waiting helps is said at once, in one line, without the address."""
        for wrong, why in (
            (self.server.dsn("nowhere"), "no such database"),
            (self.server.dsn(user="nobody"), "no such user"),
        ):
            store = PostgreSQLStore(wrong, reactor, time.time)
            error = self.failureResultOf(_settled(store.open()), StoreError)
            self.assertIn(why, str(error.value))
            self.assertNotIn("127.0.0.1", str(error.value))

    def test_read_only(self) -> None:
        """A database that takes no writes still finds; it is not ready, and says why."""
        self.wait(self._read_only())

    async def _read_only(self) -> None:
        store = await self.open()
        self._default("on")
        self.assertIsNotNone((await store.find(ONE, ALICE, None)).server)
        self.assertEqual(await self.refused(store.ping()), "read-only")
        self.assertEqual(await self.refused(self.register(store, 1)), "read-only")
        self._default("off")
        await self.serves(store)

    def _default(self, read_only: str) -> None:
        name = self.address.rpartition("/")[2]
        setting = f"default_transaction_read_only = {read_only}"
        postgres.run(self.server.dsn(), f"ALTER DATABASE {name} SET {setting}" if name else setting)
        self.stop_others()

    def test_out_of_connections(self) -> None:
        """With all connections taken by others it waits for its own, and says why."""
        self.wait(self._out_of_connections())

    async def _out_of_connections(self) -> None:
        store = await self.open()
        taken: list[Any] = []
        for _ in range(12):
            try:
                taken.append(psycopg2.connect(self.server.dsn()))
            except psycopg2.OperationalError:
                break
        cursor = taken[0].cursor()
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'bouncerd'"
        )
        while len(taken) < 12:
            try:
                taken.append(psycopg2.connect(self.server.dsn()))
            except psycopg2.OperationalError:
                await deferLater(reactor, 0.01)
                break
        self.assertEqual(await self.refused(store.ping()), "too many connections")
        for each in taken:
            each.close()
        await self.serves(store)

    def test_locked(self) -> None:
        """A write that another program's lock holds up fails in time; reads go on."""
        self.wait(self._locked())

    async def _locked(self) -> None:
        store = await self.open()
        with postgres.connected(self.address) as other, other.cursor() as cursor:
            cursor.execute("BEGIN; UPDATE servers SET users = users")
            held = store.update_server(ONE, "new.example.org", "e", None, 2.0)
            self.assertIsNotNone((await store.find(ONE, ALICE, None)).server)
            self.assertEqual(await self.refused(held), "locked by another process")
        await self.serves(store)

    def test_killed_in_a_transaction(self) -> None:
        """Of a transaction that its server does not survive, nothing is left; it is done again."""
        self.wait(self._killed_in_a_transaction())

    async def _killed_in_a_transaction(self) -> None:
        store = await self.open()
        with postgres.connected(self.address) as other, other.cursor() as cursor:
            cursor.execute("BEGIN; UPDATE servers SET users = users")
            held = store.deactivate_server(ONE, 2.0)
            await deferLater(reactor, 0.2)
            self.server.kill()
        answered = DeferredList([held], consumeErrors=True)
        await deferToThread(self.server.start)
        [(done, result)] = await answered
        refusal: Any = result  # on a machine that is slow
        self.assertTrue(done or refusal.check(StoreUnavailable))
        await self.reached(store)
        found = (await store.find(ONE, None, None)).server
        events = postgres.run(self.address, "SELECT event FROM server_events ORDER BY id")
        self.assertEqual(found and found.deactivated, done)
        self.assertEqual(events, [("created",), ("deactivated",)] if done else [("created",)])


class SilenceTests(BadTimesCase):
    """A network that swallows what it is given, or takes its time."""

    __test__ = True

    def setUp(self) -> None:
        super().setUp()
        self.proxy = Proxy(self.server.port)
        self.addCleanup(lambda: self.wait(self.proxy.stop()))
        self.through = self.address.replace(f":{self.server.port}/", f":{self.proxy.port}/")

    def test_black_hole(self) -> None:
        """Bytes that go nowhere: all are told in time, later ones at once, until it is over."""
        self.wait(self._black_hole())

    async def _black_hole(self) -> None:
        store = await self.open(self.through)
        self.proxy.swallows = True
        began = time.monotonic()
        asked: list[Deferred[Any]] = [store.find(ONE, ALICE, None), self.register(store, 1)]
        asked.append(store.ping())
        for each in asked:
            await self.refused(each)
        self.assertLess(time.monotonic() - began, WITHIN)
        await deferLater(reactor, 0.3)
        began = time.monotonic()
        await self.refused(store.find(ONE, ALICE, None))
        await self.refused(self.register(store, 2))
        self.assertLess(time.monotonic() - began, 0.5)
        self.proxy.swallows = False
        await self.serves(store)

    def test_slow(self) -> None:
        """A slow network is no outage: who asks together is answered together."""
        self.wait(self._slow())

    async def _slow(self) -> None:
        store = await self.open(self.through)
        self.proxy.delay = 0.3
        began = time.monotonic()
        finds = [store.find(ONE, ALICE, None) for _ in range(200)]
        for find in finds:
            self.assertIsNotNone((await find).server)
        self.assertLess(time.monotonic() - began, 3.0)


def _settled(deferred: Deferred[Any]) -> Deferred[Any]:
    done: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        reactor.callLater(0, done.callback, None)
        return result

    deferred.addBoth(pass_on)
    pytest_twisted.blockon(done)
    return deferred
