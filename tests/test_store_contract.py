"""What every store must do with servers, and what a test of a store needs.

A contract holds behaviour; a database joins by a subclass of each that says how to open a
store and how to wait for it (tests/test_store.py). Devices have their own, beside.
"""

import queue
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from bouncerd.model import Device, Found, Identity, Kind, Server
from bouncerd.store.base import Conflict, Store

T = TypeVar("T")

ALICE = Identity(7, "3b5a8c6e-0d8f-4c7e-9a51-2f1f3e6d7c80")
ALICE_BY_ID = Identity(7, None)
ALICE_BY_UUID = Identity(None, "3b5a8c6e-0d8f-4c7e-9a51-2f1f3e6d7c80")
BOB = Identity(8, "7f0e1d2c-3b4a-4958-8776-655443322110")

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"

APP = "org.example.app"


@implementer(IReactorFromThreads)
class Mailbox:
    """The part of a reactor that a thread calls; the test runs the calls by `wait_for`."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def callFromThread(  # noqa: N802
        self,
        callable: Callable[..., Any],  # noqa: A002  (as Twisted names it)
        *args: object,
        **kwargs: object,
    ) -> None:
        """Keep a call for the test's thread."""
        self._calls.put(lambda: callable(*args, **kwargs))

    def is_empty(self) -> bool:
        """Tell whether no thread has called since."""
        return self._calls.empty()

    def wait_for(self, deferred: Deferred[Any]) -> None:
        """Run what threads ask for until a Deferred has fired; give up after 10 seconds."""
        while not deferred.called:
            self._calls.get(timeout=10)()


class StoreCase(SynchronousTestCase):
    """A store with two servers, and short ways to ask it."""

    __test__ = False

    def open_store(self) -> Store:
        """Open a new, empty store."""
        raise NotImplementedError

    def wait_for(self, deferred: Deferred[Any]) -> None:
        """Return when the Deferred has fired; here it has."""

    def select(self, query: str) -> list[tuple[Any, ...]]:
        """Look into the tables, for what no method of a store returns."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.store = self.open_store()
        self.addCleanup(self.close)
        self.one = self.new_server(ONE, "one.example.org")
        self.two = self.new_server(TWO, "two.example.org")

    def close(self) -> None:
        self.do(self.store.close())

    def do(self, deferred: Deferred[T]) -> T:
        """Wait for a result."""
        self.wait_for(deferred)
        return self.successResultOf(deferred)

    def refused(self, deferred: Deferred[Any], by: type[Exception]) -> str:
        """Wait for a failure of this type, and return its text."""
        self.wait_for(deferred)
        return str(self.failureResultOf(deferred, by).value)

    def new_server(self, uuid: str, hostname: str, now: float = 1000.0) -> int:
        self.do(self.store.add_server(uuid, hostname, "admin@example.org", b"k" * 32, now))
        return self.known(uuid).id

    def known(self, uuid: str) -> Server:
        server = self.do(self.store.server(uuid))
        assert server is not None
        return server

    def register(
        self,
        token: str,
        identity: Identity = ALICE,
        kind: Kind = Kind.APNS,
        *,
        server: int | None = None,
        app_id: str | None = APP,
        now: float = 1000.0,
    ) -> None:
        app_id = app_id if kind == Kind.APNS else None
        server = self.one if server is None else server
        self.do(self.store.register(server, identity, kind, token, app_id, now))

    def devices(self, identity: Identity = ALICE, uuid: str = ONE) -> list[Device]:
        return self.do(self.store.find(uuid, identity, None)).devices

    def events(self, server: int | None = None) -> list[str]:
        """Return what is recorded of a server."""
        server = self.one if server is None else server
        query = f"SELECT event FROM server_events WHERE server_id = {server} ORDER BY id"
        return [event for (event,) in self.select(query)]

    def tokens(self, identity: Identity = ALICE, uuid: str = ONE) -> list[str]:
        return [device.token for device in self.devices(identity, uuid)]


class ServersContract(StoreCase):
    """The behaviour of any store toward servers, and as a whole."""

    __test__ = False

    # Servers.

    def test_server_is_found_as_added(self) -> None:
        """A server that registered is known by its uuid and by its host name."""
        found = self.known(ONE)
        expected = Server(self.one, ONE, "one.example.org", "admin@example.org", b"k" * 32)
        self.assertEqual(found, expected)
        self.assertEqual(self.do(self.store.server_by_hostname("one.example.org")), expected)

    def test_unknown_server(self) -> None:
        """A server that never registered is not found, nor are devices of its users."""
        stranger = "33333333-3333-4333-8333-333333333333"
        self.assertIsNone(self.do(self.store.server(stranger)))
        self.assertIsNone(self.do(self.store.server_by_hostname("three.example.org")))
        self.assertEqual(self.do(self.store.find(stranger, ALICE, ONE)), Found(None))

    def test_host_name_is_exact_text(self) -> None:
        """Host names are not folded: as for the reference, another case is another name."""
        self.assertIsNone(self.do(self.store.server_by_hostname("ONE.example.org")))
        self.new_server("33333333-3333-4333-8333-333333333333", "ONE.example.org")

    def test_taken_uuid(self) -> None:
        """A uuid registers once; the first registration stays as it was."""
        again = self.store.add_server(ONE, "new.example.org", "e@example.org", b"n" * 32, 2000.0)
        self.refused(again, Conflict)
        self.assertEqual(self.known(ONE).hostname, "one.example.org")
        self.assertIsNone(self.do(self.store.server_by_hostname("new.example.org")))

    def test_taken_host_name(self) -> None:
        """A host name has one active server; a second one to claim it is told so."""
        uuid = "33333333-3333-4333-8333-333333333333"
        thief = self.store.add_server(uuid, "one.example.org", "e@example.org", b"n" * 32, 2000.0)
        self.refused(thief, Conflict)
        self.assertIsNone(self.do(self.store.server(uuid)))

    def test_two_claim_a_host_name_at_once(self) -> None:
        """Of two servers that register one host name at the same time, exactly one succeeds."""
        uuids = ["33333333-3333-4333-8333-333333333333", "44444444-4444-4444-8444-444444444444"]
        both = [
            self.store.add_server(uuid, "three.example.org", "e@example.org", b"n" * 32, 1.0)
            for uuid in uuids
        ]
        for claim in both:
            self.wait_for(claim)
        self.assertIsNone(self.successResultOf(both[0]))
        self.failureResultOf(both[1], Conflict)
        winner = self.do(self.store.server_by_hostname("three.example.org"))
        self.assertEqual(winner and winner.uuid, uuids[0])

    def test_update_overwrites(self) -> None:
        """A server that registers again has its new host name and contact, and its old key."""
        self.do(self.store.update_server(ONE, "moved.example.org", "b@example.org", None, 2000.0))
        expected = Server(self.one, ONE, "moved.example.org", "b@example.org", b"k" * 32)
        self.assertEqual(self.known(ONE), expected)
        self.assertIsNone(self.do(self.store.server_by_hostname("one.example.org")))

    def test_update_rotates_the_key(self) -> None:
        """A new key replaces the old one at once, and only that server's."""
        update = self.store.update_server(
            ONE, "one.example.org", "admin@example.org", b"n" * 32, 2000.0
        )
        self.do(update)
        self.assertEqual(self.known(ONE).key_digest, b"n" * 32)
        self.assertEqual(self.known(TWO).key_digest, b"k" * 32)

    def test_update_to_a_taken_host_name(self) -> None:
        """A known server cannot take another active server's host name; nothing of it is kept."""
        update = self.store.update_server(
            TWO, "one.example.org", "thief@example.org", b"n" * 32, 2000.0
        )
        self.refused(update, Conflict)
        expected = Server(self.two, TWO, "two.example.org", "admin@example.org", b"k" * 32)
        self.assertEqual(self.known(TWO), expected)

    def test_update_of_an_unknown_server(self) -> None:
        """Updating what is not there is refused, and adds nothing."""
        uuid = "33333333-3333-4333-8333-333333333333"
        update = self.store.update_server(uuid, "three.example.org", "e@example.org", None, 1.0)
        self.refused(update, Conflict)
        self.assertIsNone(self.do(self.store.server(uuid)))

    # The store itself.

    def test_secret_is_made_once(self) -> None:
        """The secret has 32 bytes and stays the same."""
        first = self.store.secret()
        second = self.store.secret()
        self.assertEqual(len(self.do(first)), 32)
        self.assertEqual(self.do(second), self.do(self.store.secret()))

    def test_ping(self) -> None:
        """A healthy store answers."""
        self.assertIsNone(self.do(self.store.ping()))

    def test_results_are_of_their_writes(self) -> None:
        """Many writes asked for at once each get their own answer, and all happen in order."""
        writes: list[Deferred[Any]] = []
        for n in range(300):
            token = f"{n:04x}"
            writes.append(self.store.register(self.one, ALICE, Kind.APNS, token, APP, 1.0))
            writes.append(self.store.unregister(self.one, ALICE, Kind.APNS, token))
            writes.append(self.store.add_server(ONE, "x.example.org", "e", b"k", 1.0))
        for done, existed, conflict in zip(writes[::3], writes[1::3], writes[2::3], strict=True):
            self.assertIsNone(self.do(done))
            self.assertIs(self.do(existed), True)
            self.refused(conflict, Conflict)
        self.assertEqual(self.devices(), [])
