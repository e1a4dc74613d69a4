"""The contracts on PostgreSQL: a real server, and the reactor that the daemon runs on."""

from typing import Any, ClassVar

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.store.base import Store
from bouncerd.store.coalescing import PREPARE
from bouncerd.store.dialect import for_postgresql
from bouncerd.store.postgres import PostgreSQLStore
from bouncerd.store.steps import shipped_steps
from tests import postgres
from tests.test_store_contract import ServersContract, StoreCase
from tests.test_store_counts import CountsContract, LeasesContract
from tests.test_store_devices import DevicesContract
from tests.test_store_life import LifeContract
from tests.test_store_realms import RealmsContract, UsersContract
from tests.test_store_sealed import SealedContract
from tests.test_store_uploads import UploadsContract

reactor: Any = _reactor


def settled(deferred: Deferred[Any]) -> None:
    """Run the reactor until a Deferred has fired; its result stays in it."""
    done: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        reactor.callLater(0, done.callback, None)  # once this callback has returned
        return result

    deferred.addBoth(pass_on)
    pytest_twisted.blockon(done)


class OnPostgreSQL(StoreCase):
    """A database and a store for each class, emptied for each test."""

    __test__ = False
    address = ""
    opened: ClassVar[Store]

    @classmethod
    def setUpClass(cls) -> None:  # noqa: N802  (unittest's name)
        super().setUpClass()
        cls.address = postgres.shared().create()
        cls.opened = PostgreSQLStore(cls.address, reactor, lambda: 1000.0)
        pytest_twisted.blockon(cls.opened.open())

    @classmethod
    def tearDownClass(cls) -> None:  # noqa: N802
        pytest_twisted.blockon(cls.opened.close())
        postgres.shared().drop(cls.address)
        super().tearDownClass()

    def open_store(self) -> Store:
        postgres.empty(self.address)
        return self.opened

    def close(self) -> None:
        """Keep it open for the next test."""

    def wait_for(self, deferred: Deferred[Any]) -> None:
        settled(deferred)

    def select(self, query: str) -> list[tuple[Any, ...]]:
        return postgres.run(self.address, query)


class PostgreSQLServersTests(OnPostgreSQL, ServersContract):
    """Servers."""

    __test__ = True


class PostgreSQLLifeTests(OnPostgreSQL, LifeContract):
    """The life of servers."""

    __test__ = True


class PostgreSQLRealmsTests(OnPostgreSQL, RealmsContract):
    """Realms."""

    __test__ = True


class PostgreSQLUploadsTests(OnPostgreSQL, UploadsContract):
    """Uploads."""

    __test__ = True


class PostgreSQLUsersTests(OnPostgreSQL, UsersContract):
    """Counting users."""

    __test__ = True


class PostgreSQLDevicesTests(OnPostgreSQL, DevicesContract):
    """Devices."""

    __test__ = True


class PostgreSQLSealedTests(OnPostgreSQL, SealedContract):
    """Phones registered end to end."""

    __test__ = True


class PostgreSQLCountsTests(OnPostgreSQL, CountsContract):
    """What became of pushes."""

    __test__ = True


class PostgreSQLLeasesTests(OnPostgreSQL, LeasesContract):
    """Limits that processes share."""

    __test__ = True


class PlanTests(SynchronousTestCase):
    """What the server does for a look-up."""

    def test_by_index_whatever_the_statistics(self) -> None:
        """A table that grew since it was analysed is not read as a whole for a look-up."""
        address = postgres.shared().create()
        self.addCleanup(lambda: postgres.shared().drop(address))
        postgres.run(address, *(for_postgresql(step.sql) for step in shipped_steps()))
        postgres.run(address, "ANALYZE")
        fill = """
            INSERT INTO devices (server_id, user_uuid, kind, token, token_key, registered_at)
            SELECT 1, i::text, 2, i::text, substr(sha256(i::text::bytea), 1, 16), 1.0
            FROM generate_series(1, 5000) i
        """
        server = "INSERT INTO servers VALUES (1, 'u', 'h', 'e', 'k', 0, 1.0)"
        postgres.run(address, server, fill)
        explain = "EXPLAIN EXECUTE find ('{u}', '{r}', '{17}', '{NULL}')"
        plan = postgres.run(address, PREPARE, explain)
        self.assertNotIn("Seq Scan", str(plan))
        for index in ("devices_by_user_uuid", "devices_by_user_id", "servers_uuid_key"):
            self.assertIn(index, str(plan))
