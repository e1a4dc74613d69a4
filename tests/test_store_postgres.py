"""The contracts on PostgreSQL: a real server, and the reactor that the daemon runs on."""

from typing import Any, ClassVar

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred

from bouncerd.store.base import Store
from bouncerd.store.postgres import PostgreSQLStore
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
