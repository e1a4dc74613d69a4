"""The contracts on SQLite, once for each way of having it, and SQLite against a model."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.model import Identity, Kind
from bouncerd.store.base import Store
from bouncerd.store.sqlite import SQLiteStore
from tests.test_store_contract import (
    ALICE,
    ALICE_BY_ID,
    ALICE_BY_UUID,
    BOB,
    ONE,
    TWO,
    Mailbox,
    ServersContract,
    StoreCase,
)
from tests.test_store_counts import CountsContract, LeasesContract
from tests.test_store_devices import DevicesContract
from tests.test_store_life import LifeContract
from tests.test_store_realms import RealmsContract, UsersContract
from tests.test_store_sealed import SealedContract
from tests.test_store_uploads import UploadsContract


class InMemory(StoreCase):
    """SQLite in memory, as other tests use it."""

    __test__ = False

    def open_store(self) -> Store:
        return SQLiteStore(None, None, lambda: 1000.0)

    def select(self, query: str) -> list[tuple[Any, ...]]:
        assert isinstance(self.store, SQLiteStore)
        return self.store._reading.execute(query).fetchall()


class InThread(InMemory):
    """SQLite as the daemon uses it: a file, and a thread that writes."""

    __test__ = False

    def open_store(self) -> Store:
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        self.mailbox = Mailbox()
        return SQLiteStore(directory / "bouncerd.db", self.mailbox, lambda: 1000.0)

    def wait_for(self, deferred: Deferred[Any]) -> None:
        self.mailbox.wait_for(deferred)


class InMemoryServersTests(InMemory, ServersContract):
    """Servers in memory."""

    __test__ = True


class InThreadServersTests(InThread, ServersContract):
    """Servers in a file."""

    __test__ = True


class InMemoryLifeTests(InMemory, LifeContract):
    """The life of servers in memory."""

    __test__ = True


class InThreadLifeTests(InThread, LifeContract):
    """The life of servers in a file."""

    __test__ = True


class InMemoryRealmsTests(InMemory, RealmsContract):
    """Realms in memory."""

    __test__ = True


class InThreadRealmsTests(InThread, RealmsContract):
    """Realms in a file."""

    __test__ = True


class InMemoryUploadsTests(InMemory, UploadsContract):
    """Uploads in memory."""

    __test__ = True


class InThreadUploadsTests(InThread, UploadsContract):
    """Uploads in a file."""

    __test__ = True


class InMemoryUsersTests(InMemory, UsersContract):
    """Counting users in memory."""

    __test__ = True


class InThreadUsersTests(InThread, UsersContract):
    """Counting users in a file."""

    __test__ = True


class InMemoryDevicesTests(InMemory, DevicesContract):
    """Devices in memory."""

    __test__ = True


class InThreadDevicesTests(InThread, DevicesContract):
    """Devices in a file."""

    __test__ = True


class InMemoryCountsTests(InMemory, CountsContract):
    """What became of pushes in memory."""

    __test__ = True


class InThreadCountsTests(InThread, CountsContract):
    """What became of pushes in a file."""

    __test__ = True


class InMemoryLeasesTests(InMemory, LeasesContract):
    """Shared limits in memory."""

    __test__ = True


class InThreadLeasesTests(InThread, LeasesContract):
    """Shared limits in a file."""

    __test__ = True


class InMemorySealedTests(InMemory, SealedContract):
    """Phones registered end to end in memory."""

    __test__ = True


class InThreadSealedTests(InThread, SealedContract):
    """Phones registered end to end in a file."""

    __test__ = True


# Against a model in memory: any order of calls leaves what a plain dictionary would hold.

_IDENTITIES = st.sampled_from([ALICE, ALICE_BY_ID, ALICE_BY_UUID, BOB, Identity(8, None)])
_CALLS = st.lists(
    st.tuples(
        st.sampled_from(["register", "unregister", "unregister_all", "forget", "everywhere"]),
        st.sampled_from([1, 2]),
        _IDENTITIES,
        st.sampled_from(list(Kind)),
        st.sampled_from(["aa", "AA", "bb"]),
        st.integers(0, 5),
    ),
    max_size=30,
)

Key = tuple[int, int | str, Kind, str]


class Model:
    """A dictionary that says what a store must hold: (server, user, kind, token) to time."""

    def __init__(self) -> None:
        self.rows: dict[Key, float] = {}

    def apply(
        self, call: str, server: int, identity: Identity, kind: Kind, token: str, time: float
    ) -> None:
        folded = token.lower() if kind == Kind.APNS else token
        if call == "register":
            if identity.user_uuid is not None and identity.user_id is not None:
                self.rows.pop((server, identity.user_id, kind, folded), None)
            user = identity.user_uuid if identity.user_uuid is not None else identity.user_id
            assert user is not None
            self.rows[server, user, kind, folded] = time
            return
        for row, registered_at in list(self.rows.items()):
            mine = row[0] == server and row[1] in (identity.user_id, identity.user_uuid)
            same = row[2:] == (kind, folded)
            old = registered_at <= time
            condemned = {
                "unregister": mine and same,
                "unregister_all": mine,
                "forget": row[0] == server and old,
                "everywhere": same and old,
            }
            if condemned[call]:
                del self.rows[row]


class StoreModelTests(SynchronousTestCase):
    """A store against the model."""

    @settings(suppress_health_check=[HealthCheck.differing_executors])
    @given(_CALLS)
    def test_like_the_model(self, calls: list[tuple[str, int, Identity, Kind, str, int]]) -> None:
        """Whatever servers ask for in whatever order, each finds exactly its own phones."""
        store = SQLiteStore(None, None, lambda: 0.0)
        for uuid in (ONE, TWO):
            self.successResultOf(store.add_server(uuid, uuid, "e", b"k", 0.0))
        model = Model()
        for call, server, identity, kind, token, time in calls:
            model.apply(call, server, identity, kind, token, time)
            self._ask(store, call, server, identity, kind, token, time)
        self.assertEqual(self._rows(store), model.rows)
        self.successResultOf(store.close())

    def _ask(
        self,
        store: Store,
        call: str,
        server: int,
        identity: Identity,
        kind: Kind,
        token: str,
        time: float,
    ) -> None:
        if call == "register":
            self.successResultOf(store.register(server, identity, kind, token, None, time))
        elif call == "unregister":
            self.successResultOf(store.unregister(server, identity, kind, token))
        elif call == "unregister_all":
            self.successResultOf(store.unregister_all(server, identity))
        elif call == "forget":
            self.successResultOf(store.forget(server, list(range(1, 40)), time))
        else:
            self.successResultOf(store.forget_everywhere(kind, token, None, time))

    def _rows(self, store: Store) -> dict[Key, float]:
        rows: dict[Key, float] = {}
        for number, uuid in ((1, ONE), (2, TWO)):
            for identity in (ALICE, BOB):
                for device in self.successResultOf(store.find(uuid, identity, None)).devices:
                    user = device.user_id if device.user_uuid is None else device.user_uuid
                    assert user is not None
                    apns = device.kind == Kind.APNS
                    token = device.token.lower() if apns else device.token
                    rows[number, user, device.kind, token] = device.registered_at
        return rows
