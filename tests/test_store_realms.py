"""What every store must do with realms: follow their server's word, count their users."""

from typing import Any

from bouncerd.model import Found, Realm
from bouncerd.store.base import DuplicateRealm
from tests.test_store_contract import ALICE, BOB, ONE, TWO
from tests.test_store_uploads import (
    OTHER_REALM,
    REALM,
    UploadCase,
    a_count,
    a_realm_row,
    an_audit_row,
)

THIRD_REALM = "cccccccc-cccc-4ccc-8ccc-cccccccccccc"


class RealmsContract(UploadCase):
    """The behaviour of any store toward realms."""

    __test__ = False

    def realm_events(self) -> list[tuple[Any, ...]]:
        return self.select(
            "SELECT event, attribute, old_value, new_value FROM realm_events ORDER BY id"
        )

    def happened(self) -> list[str]:
        return [event for event, *_ in self.realm_events()]

    # Found.

    def test_unknown_realm(self) -> None:
        """A realm that nobody uploaded is not found, by itself or with its server."""
        for uuid in (REALM, "", "\0", "\ud800"):
            self.assertIsNone(self.do(self.store.realm(uuid)))
            found = self.do(self.store.find(ONE, ALICE, uuid))
            self.assertEqual(found, Found(self.known(ONE)))

    def test_realm_is_found_as_uploaded(self) -> None:
        """An uploaded realm has its server, its names, no plan and no users."""
        [stored] = self.upload(realms=[a_realm_row()])
        expected = Realm(stored.id, REALM, self.one, 0, 100, None, "chat.example.org", "Example")
        self.assertEqual(stored, expected)
        self.assertEqual(self.realm(), expected)

    def test_one_look_up_brings_all(self) -> None:
        """Server, realm and phones come together; each only if it was asked for."""
        self.register("aa01")
        self.register("aa02")
        self.register("bb01", BOB)
        self.upload(realms=[a_realm_row()])
        server, realm, devices = self.known(ONE), self.realm(), self.devices()
        self.assertEqual([device.token for device in devices], ["aa01", "aa02"])
        expected = [
            (None, None, Found(server)),
            (None, REALM, Found(server, realm)),
            (ALICE, None, Found(server, None, devices)),
            (ALICE, REALM, Found(server, realm, devices)),
            (ALICE, OTHER_REALM, Found(server, None, devices)),
        ]
        for identity, realm_uuid, found in expected:
            self.assertEqual(self.do(self.store.find(ONE, identity, realm_uuid)), found)

    def test_realm_of_another_server(self) -> None:
        """A look-up brings another server's realm as such, and phones of the server that asks."""
        self.upload(realms=[a_realm_row()], server=self.two)
        self.register("c0ffee", server=self.two)
        found = self.do(self.store.find(ONE, ALICE, REALM))
        self.assertEqual(found.realm and found.realm.server_id, self.two)
        self.assertEqual(found.devices, [])

    # Synchronised (7.6).

    def test_realms_in_their_order(self) -> None:
        """The answer has the realms of the upload, and in its order, old ones and new."""
        self.upload(realms=[a_realm_row()])
        rows = [a_realm_row(OTHER_REALM, 3), a_realm_row(), a_realm_row(THIRD_REALM, 1)]
        stored = self.upload(realms=rows)
        self.assertEqual([realm.uuid for realm in stored], [OTHER_REALM, REALM, THIRD_REALM])
        self.assertEqual(self.happened(), ["created"] * 3)

    def test_without_realms(self) -> None:
        """A server that does not speak of realms leaves them as they are."""
        self.upload(realms=[a_realm_row()])
        self.assertEqual(self.upload(), [])
        self.assertEqual(self.happened(), ["created"])

    def test_unchanged(self) -> None:
        """The same list each hour records nothing."""
        for _ in range(3):
            self.upload(realms=[a_realm_row()])
        self.assertEqual(self.happened(), ["created"])

    def test_changed(self) -> None:
        """What a server says anew of a realm holds, and each change is recorded."""
        self.upload(realms=[a_realm_row()])
        changes: dict[str, Any] = {
            "host": "new.example.org",
            "name": "Neu ü😀",
            "org_type": 30,
            "deactivated": True,
            "is_system_bot_realm": True,
            "authentication_methods": "{}",
        }
        [stored] = self.upload(realms=[a_realm_row(local_id=9, **changes)], now=3000.0)
        self.assertEqual((stored.host, stored.name), ("new.example.org", "Neu ü😀"))
        query = f"SELECT local_id, {', '.join(changes)} FROM realms"
        self.assertEqual(self.select(query), [(9, *changes.values())])
        self.assertEqual(
            self.realm_events()[1:],
            [
                ("changed", "local_id", "2", "9"),
                ("changed", "host", "chat.example.org", "new.example.org"),
                ("changed", "name", "Example", "Neu ü😀"),
                ("changed", "org_type", "10", "30"),
                ("changed", "deactivated", "0", "1"),
                ("changed", "is_system_bot_realm", "0", "1"),
                ("changed", "authentication_methods", '{"Email": true}', "{}"),
            ],
        )
        times = self.select("SELECT DISTINCT happened_at FROM realm_events ORDER BY 1")
        self.assertEqual(times, [(2000.0,), (3000.0,)])

    def test_said_once(self) -> None:
        """When it was created and its secret are kept as they came first, the latter hashed."""
        self.upload(realms=[a_realm_row()])
        query = "SELECT date_created, owner_secret_digest, created_at FROM realms"
        before = self.select(query)
        self.assertEqual((before[0][0], before[0][2]), (500.0, 2000.0))
        self.upload(realms=[a_realm_row(date_created=1.0, owner_secret="x")], now=3000.0)
        self.assertEqual(self.select(query), before)
        self.assertNotIn("canary", repr(self.select("SELECT * FROM realms")))

    def test_plan_and_users_stay(self) -> None:
        """What a server says of a realm changes neither its plan nor its users."""
        self.upload([], [], [an_audit_row(1)], [a_realm_row()])
        self.do(self.store.set_plan(REALM, 102, None, 2000.0))
        [stored] = self.upload(realms=[a_realm_row(name="Renamed")])
        self.assertEqual((stored.plan_type, stored.users), (102, 7))

    def test_gone_and_back(self) -> None:
        """A realm that its server no longer lists is flagged, once, until it is listed again."""
        self.upload(realms=[a_realm_row(), a_realm_row(OTHER_REALM, 3)])
        before = self.realm()
        query = f"SELECT locally_deleted FROM realms WHERE uuid = '{REALM}'"
        for _ in range(2):
            self.upload(realms=[a_realm_row(OTHER_REALM, 3)])
            self.assertEqual(self.select(query), [(1,)])
            self.assertEqual(self.realm(), before)
        for _ in range(2):
            self.upload(realms=[a_realm_row(OTHER_REALM, 3), a_realm_row()])
            self.assertEqual(self.select(query), [(0,)])
        self.assertEqual(self.happened(), ["created", "created", "deleted", "restored"])

    def test_none_left(self) -> None:
        """An empty list flags all the server's realms, which is not the same as no list."""
        self.upload(realms=[a_realm_row(), a_realm_row(OTHER_REALM, 3)])
        self.assertEqual(self.upload(realms=[]), [])
        self.assertEqual(self.select("SELECT MIN(locally_deleted) FROM realms"), [(1,)])

    def test_realm_of_two_servers(self) -> None:
        """A copied server with new credentials is told so, deactivated original or not."""
        self.upload(realms=[a_realm_row()])
        self.refused(self.uploading(realms=[a_realm_row()], server=self.two), DuplicateRealm)
        self.do(self.store.deactivate_server(ONE, 2000.0))
        self.refused(self.uploading(realms=[a_realm_row()], server=self.two), DuplicateRealm)
        self.assertEqual(self.realm().server_id, self.one)

    def test_realm_twice_in_a_list(self) -> None:
        """A list that repeats a realm, known or new, is refused whole."""
        for _ in range(2):
            twice = self.uploading(realms=[a_realm_row(), a_realm_row(local_id=3)])
            self.refused(twice, DuplicateRealm)
            self.upload(realms=[a_realm_row()])
        self.assertEqual(self.happened(), ["created"])

    def test_two_servers_at_once(self) -> None:
        """Of two servers that claim a realm at the same time exactly one has it."""
        claims = [self.uploading(realms=[a_realm_row()], server=s) for s in (self.one, self.two)]
        self.assertEqual(len(self.do(claims[0])), 1)
        self.refused(claims[1], DuplicateRealm)


class UsersContract(UploadCase):
    """The behaviour of any store toward the users of realms and servers (8)."""

    __test__ = False

    def users(self, uuid: str = REALM) -> tuple[int, int]:
        """Return how many users a realm and its server have, as a look-up brings them."""
        found = self.do(self.store.find(ONE, None, uuid))
        assert found.server is not None
        assert found.realm is not None
        self.assertEqual(found.realm, self.realm(uuid))
        self.assertEqual(found.server, self.known(ONE))
        return found.realm.users, found.server.users

    def test_newest_row_counts(self) -> None:
        """A realm has as many users as its newest audit row says, not as the highest."""
        self.upload([], [], [an_audit_row(1, 20), an_audit_row(2, 12)], [a_realm_row()])
        self.assertEqual(self.users(), (12, 12))
        [stored] = self.upload([], [], [an_audit_row(3, 0)], [a_realm_row()])
        self.assertEqual((stored.users, self.users()), (0, (0, 0)))

    def test_rows_without_numbers(self) -> None:
        """Rows that say nothing of users change no count."""
        self.upload([], [], [an_audit_row(1, 12), an_audit_row(2, None)], [a_realm_row()])
        self.upload([], [], [an_audit_row(3, None)], [a_realm_row()])
        self.assertEqual(self.users(), (12, 12))

    def test_no_rows(self) -> None:
        """A realm of which nobody was counted has no users, nor has its server."""
        self.upload([a_count(1)], [], [], [a_realm_row()])
        self.assertEqual(self.users(), (0, 0))

    def test_server_is_the_sum(self) -> None:
        """A server has the users of all its realms, those that it did not describe included."""
        rows = [an_audit_row(1, 5, 2), an_audit_row(2, 6, 3), an_audit_row(3, 7, 4)]
        realms = [a_realm_row(), a_realm_row(OTHER_REALM, 3)]
        self.upload([], [], rows, realms)
        self.assertEqual((self.users(), self.users(OTHER_REALM)), ((5, 18), (6, 18)))
        self.upload([], [], [an_audit_row(4, 1, 3)], realms)
        self.assertEqual((self.users(), self.users(OTHER_REALM)), ((5, 13), (1, 13)))
        self.assertEqual(self.known(TWO).users, 0)

    def test_rows_before_the_realm(self) -> None:
        """A server upgraded to describe its realms: their earlier rows count from then on."""
        self.upload([a_count(1)], [], [an_audit_row(1, 12)], software=("7.5", None, None))
        self.assertEqual(self.known(ONE).users, 12)
        [stored] = self.upload([], [], [], [a_realm_row()])
        self.assertEqual((stored.users, self.users()), (12, (12, 12)))
        for table in ("realm_counts", "audit_rows"):
            self.assertEqual(self.select(f"SELECT realm_id FROM {table}"), [(stored.id,)])

    def test_rows_before_the_realm_of_the_same_version(self) -> None:
        """Without a change of version earlier rows are not looked at again (7.3 step 3)."""
        self.upload([a_count(1)], [], [an_audit_row(1, 12)])
        self.upload([], [], [], [a_realm_row()])
        self.assertEqual(self.users(), (0, 12))
        self.assertEqual(self.select("SELECT realm_id FROM realm_counts"), [(None,)])

    def test_attached_rows_of_others(self) -> None:
        """Only rows of this server and of this realm's number are attached."""
        old = ("7.5", None, None)
        rows = [an_audit_row(1, 12, 2), an_audit_row(2, 13, 3)]
        self.upload([], [], rows, software=old)
        self.upload([], [], rows, software=old, server=self.two)
        self.upload([], [], [], [a_realm_row()])
        self.assertEqual(self.users(), (12, 25))
        attached = self.select("SELECT server_id, realm FROM audit_rows WHERE realm_id IS NOT NULL")
        self.assertEqual(attached, [(self.one, 2)])

    def test_linked_rows_stay(self) -> None:
        """Where another realm takes over a number, earlier rows stay with the one before it."""
        self.upload([a_count(1)], [], [an_audit_row(1, 12)], [a_realm_row()])
        before = self.realm().id
        self.upload(realms=[a_realm_row(OTHER_REALM)], software=("12.0", None, 470))
        for table in ("realm_counts", "audit_rows"):
            self.assertEqual(self.select(f"SELECT realm_id FROM {table}"), [(before,)])
        self.assertEqual((self.users(), self.users(OTHER_REALM)), ((12, 12), (0, 12)))

    def test_new_rows_beside_attached_ones(self) -> None:
        """Of an earlier row attached and a new one, the new one counts."""
        self.upload([], [], [an_audit_row(1, 12)], software=("7.5", None, None))
        self.upload([], [], [an_audit_row(2, 3)], [a_realm_row()])
        self.assertEqual(self.users(), (3, 3))

    def test_absurd_numbers(self) -> None:
        """No number of users that a server claims does harm."""
        rows = [an_audit_row(n, 2**63 * 10**n, n) for n in range(1, 20)]
        self.upload([], [], [*rows, an_audit_row(20, -5, 20)], [a_realm_row()])
        realm, server = self.users()
        self.assertGreater(server, realm)
        self.assertGreater(realm, 10**6)
        self.upload([], [], [an_audit_row(n + 20, 1, n) for n in range(1, 21)], [a_realm_row()])
        self.assertEqual(self.users(), (1, 20))
