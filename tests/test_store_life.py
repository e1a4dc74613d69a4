"""What every store must do with a server's life: keys, transfer, deactivation, plans, limits."""

from bouncerd.model import Server
from bouncerd.store.base import Conflict
from tests.test_store_contract import ALICE, ONE, TWO, StoreCase
from tests.test_store_uploads import a_realm_row, an_upload

THREE = "33333333-3333-4333-8333-333333333333"
REALM = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"


class LifeContract(StoreCase):
    """The behaviour of any store toward what happens to servers."""

    __test__ = False

    def rotate(self, key: bytes, until: float | None, now: float = 2000.0) -> None:
        facts = ONE, "one.example.org", "admin@example.org"
        self.do(self.store.update_server(*facts, key, now, until))

    def keys(self) -> tuple[bytes, bytes | None, float]:
        known = self.known(ONE)
        return known.key_digest, known.old_key_digest, known.old_key_until

    # Keys.

    def test_old_key_has_its_grace(self) -> None:
        """After a rotation the look-up brings both keys, and until when the old one is good."""
        self.rotate(b"n" * 32, 2600.0)
        self.assertEqual(self.keys(), (b"n" * 32, b"k" * 32, 2600.0))
        found = self.do(self.store.find(ONE, ALICE, None))
        self.assertEqual(found.server, self.known(ONE))
        self.assertEqual(self.events(), ["created", "key_rotated"])

    def test_no_grace(self) -> None:
        """Without a grace period the old key is gone at once."""
        self.rotate(b"n" * 32, None)
        self.assertEqual(self.keys(), (b"n" * 32, None, 0.0))

    def test_second_rotation(self) -> None:
        """Only one key before the present one is ever good; without grace none."""
        self.rotate(b"n" * 32, 2600.0)
        self.rotate(b"m" * 32, 3600.0, 3000.0)
        self.assertEqual(self.keys(), (b"m" * 32, b"n" * 32, 3600.0))
        self.rotate(b"o" * 32, None)
        self.assertEqual(self.keys(), (b"o" * 32, None, 0.0))

    def test_registering_again_keeps_the_grace(self) -> None:
        """A server that registers again with its key, or none, does not prolong the old one."""
        self.rotate(b"n" * 32, 2600.0)
        self.rotate(b"n" * 32, 9999.0)
        self.do(self.store.update_server(ONE, "moved.example.org", "e@example.org", None, 1.0))
        self.assertEqual(self.keys(), (b"n" * 32, b"k" * 32, 2600.0))
        self.assertEqual(self.events(), ["created", "key_rotated", "updated"])

    def test_endless_grace(self) -> None:
        """A grace period without an end is refused, and the key stays."""
        for bad in (float("inf"), float("nan")):
            facts = ONE, "one.example.org", "admin@example.org"
            self.refused(
                self.store.update_server(*facts, b"n" * 32, 1.0, old_key_until=bad), ValueError
            )
        self.assertEqual(self.keys(), (b"k" * 32, None, 0.0))

    # Transfer.

    def test_transfer(self) -> None:
        """The server of a host name gets a new key; the key before it and its grace are gone."""
        self.rotate(b"n" * 32, 2600.0)
        transfer = self.store.transfer_server("one.example.org", b"t" * 32, 3000.0)
        self.assertEqual(self.do(transfer), ONE)
        self.assertEqual(self.keys(), (b"t" * 32, None, 0.0))
        self.assertEqual(self.known(TWO).key_digest, b"k" * 32)
        self.assertEqual(self.events(), ["created", "key_rotated", "transferred"])

    def test_transfer_of_nothing(self) -> None:
        """A host name that is unknown, of a deactivated server or no text gets nothing."""
        self.do(self.store.deactivate_server(TWO, 2000.0))
        for hostname in ("three.example.org", "two.example.org", "ONE.example.org", "\0", "\ud800"):
            transfer = self.store.transfer_server(hostname, b"t" * 32, 3000.0)
            self.assertIsNone(self.do(transfer))
        self.assertEqual(
            (self.events(), self.events(self.two)), (["created"], ["created", "deactivated"])
        )

    # Deactivation.

    def test_deactivate(self) -> None:
        """A deactivated server is known as such, frees its host name, and keeps its phones."""
        self.register("c0ffee")
        self.do(self.store.deactivate_server(ONE, 2000.0))
        self.assertTrue(self.known(ONE).deactivated)
        found = self.do(self.store.find(ONE, ALICE, None))
        self.assertTrue(found.server and found.server.deactivated)
        self.assertEqual(self.tokens(), ["c0ffee"])
        self.assertIsNone(self.do(self.store.server_by_hostname("one.example.org")))
        self.new_server(THREE, "one.example.org")
        self.assertFalse(self.known(TWO).deactivated)

    def test_reactivate(self) -> None:
        """A reactivated server is as before."""
        before = self.known(ONE)
        self.do(self.store.deactivate_server(ONE, 2000.0))
        self.do(self.store.reactivate_server(ONE, 3000.0))
        self.assertEqual(self.known(ONE), before)
        self.assertEqual(self.do(self.store.server_by_hostname("one.example.org")), before)
        self.assertEqual(self.events(), ["created", "deactivated", "reactivated"])

    def test_host_name_taken_meanwhile(self) -> None:
        """A server whose host name another has taken is not reactivated."""
        self.do(self.store.deactivate_server(ONE, 2000.0))
        self.new_server(THREE, "one.example.org")
        self.refused(self.store.reactivate_server(ONE, 3000.0), Conflict)
        self.assertTrue(self.known(ONE).deactivated)
        self.assertEqual(self.events(), ["created", "deactivated"])

    def test_switching_twice(self) -> None:
        """To deactivate or reactivate once more changes nothing, and is no event."""
        self.do(self.store.reactivate_server(ONE, 2000.0))
        for _ in range(2):
            self.do(self.store.deactivate_server(ONE, 2000.0))
        self.assertEqual(self.events(), ["created", "deactivated"])

    def test_switching_nobody(self) -> None:
        """A server that does not exist is neither deactivated nor reactivated."""
        for uuid in (THREE, "\0", "\ud800"):
            self.refused(self.store.deactivate_server(uuid, 2000.0), Conflict)
            self.refused(self.store.reactivate_server(uuid, 2000.0), Conflict)

    # Plans and limits.

    def test_plan_of_a_server(self) -> None:
        """A plan holds from the next look-up on, with its end if it has one."""
        self.assertEqual((self.known(ONE).plan_type, self.known(ONE).plan_ends_at), (100, None))
        plans: list[tuple[int, float | None]] = [(103, 5000.5), (102, None), (102, None)]
        for plan in plans:
            self.assertIs(self.do(self.store.set_plan(ONE, *plan, 2000.0)), True)
            found = self.do(self.store.find(ONE, None, None)).server
            self.assertEqual(found and (found.plan_type, found.plan_ends_at), plan)
        self.assertEqual(self.known(TWO).plan_type, 100)
        self.assertEqual(self.events(), ["created", "plan_changed", "plan_changed"])

    def test_plan_of_a_realm(self) -> None:
        """A realm has a plan of its own, and its server keeps the server's."""
        self.do(self.store.upload(self.one, an_upload(realms=[a_realm_row(REALM)]), 2000.0))
        for _ in range(2):
            self.assertIs(self.do(self.store.set_plan(REALM, 105, 9.0, 2000.0)), True)
        realm = self.do(self.store.realm(REALM))
        self.assertEqual(realm and (realm.plan_type, realm.plan_ends_at), (105, 9.0))
        self.assertEqual(self.known(ONE).plan_type, 100)
        self.assertEqual(self.events(), ["created"])
        query = "SELECT event FROM realm_events ORDER BY id"
        self.assertEqual(self.select(query), [("created",), ("plan_changed",)])

    def test_plan_of_nobody(self) -> None:
        """What is neither a server nor a realm has no plan."""
        for uuid in (REALM, "\0", "\ud800"):
            self.assertIs(self.do(self.store.set_plan(uuid, 105, None, 2000.0)), False)

    def test_plan_that_cannot_be(self) -> None:
        """A plan's numbers are checked before anything is stored."""
        plans: list[tuple[int, float | None]] = [
            (2**63, None),
            (100, float("nan")),
            (100, float("inf")),
        ]
        for plan in plans:
            text = self.refused(self.store.set_plan(ONE, *plan, 2000.0), ValueError)
            self.assertNotIn(str(2**63), text)
        self.assertEqual(self.known(ONE), self._as_added())

    def test_limit(self) -> None:
        """A server's own limit holds from the next look-up on, until it is lifted."""
        for limit in (120, 120, None):
            setting = self.store.set_requests_per_minute(ONE, limit, 2000.0)
            self.assertIs(self.do(setting), True)
            self.assertEqual(self.known(ONE).requests_per_minute, limit)
        self.assertEqual(self.events(), ["created", "limit_changed", "limit_changed"])
        for uuid in (THREE, "\0"):
            setting = self.store.set_requests_per_minute(uuid, 1, 2000.0)
            self.assertIs(self.do(setting), False)
        self.refused(self.store.set_requests_per_minute(ONE, 2**63, 2000.0), ValueError)

    def _as_added(self) -> Server:
        return Server(self.one, ONE, "one.example.org", "admin@example.org", b"k" * 32)
