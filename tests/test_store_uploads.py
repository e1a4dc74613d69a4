"""What every store must do with an upload's rows: order, duplicates, marks, all or nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from bouncerd.model import Realm
from bouncerd.store.base import DuplicateRealm, OutOfOrder, StoreUnavailable
from bouncerd.uploads import AuditRow, CountRow, Marks, RealmRow, Upload
from tests.test_store_contract import ONE, StoreCase

REALM = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
OTHER_REALM = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
ROLES = '{"10": {"11": {"100": 1, "200": 0, "300": 0, "400": 5, "600": 1}}}'


def a_count(row_id: int, end_time: float = 3600.0, **facts: Any) -> CountRow:
    """Return a row of realm counts."""
    given = {"subgroup": "true", "realm": 2, **facts}
    return CountRow(
        row_id, "messages_sent:is_bot:hour", given["subgroup"], end_time, 7, given["realm"]
    )


def a_whole(row_id: int, end_time: float = 3600.0, subgroup: str | None = None) -> CountRow:
    """Return a row of installation counts."""
    return CountRow(row_id, "messages_sent:is_bot:hour", subgroup, end_time, 7)


def an_audit_row(row_id: int, humans: int | None = 7, realm: int = 2) -> AuditRow:
    """Return an audit row."""
    extra = "{}" if humans is None else ROLES
    return AuditRow(row_id, realm, 101, 3600.0, False, extra, humans)


def a_realm_row(uuid: str = REALM, local_id: int = 2, **changes: Any) -> RealmRow:
    """Return a realm as its server describes it."""
    facts = {
        "host": "chat.example.org",
        "name": "Example",
        "org_type": 10,
        "date_created": 500.0,
        "deactivated": False,
        "is_system_bot_realm": False,
        "authentication_methods": '{"Email": true}',
        "owner_secret": "zuliprealm_canary",
        **changes,
    }
    return RealmRow(uuid, local_id, **facts)


def an_upload(
    realm_counts: Sequence[CountRow] = (),
    installation_counts: Sequence[CountRow] = (),
    audit_rows: Sequence[AuditRow] | None = (),
    realms: Sequence[RealmRow] | None = None,
    *,
    software: tuple[str | None, str | None, int | None] = ("11.0", "abcdef", 421),
    highest: Mapping[str, int] | None = None,
) -> Upload:
    """Return an upload of a server of 11.x."""
    rows = realm_counts, installation_counts, audit_rows
    return Upload(*rows, realms, *software, highest or {})


class UploadCase(StoreCase):
    """Short ways to upload."""

    __test__ = False

    def upload(
        self, *rows: Any, server: int | None = None, now: float = 2000.0, **more: Any
    ) -> list[Realm]:
        return self.do(self.uploading(*rows, server=server, now=now, **more))

    def uploading(
        self, *rows: Any, server: int | None = None, now: float = 2000.0, **more: Any
    ) -> Deferred[list[Realm]]:
        server = self.one if server is None else server
        return self.store.upload(server, an_upload(*rows, **more), now)

    def realm(self, uuid: str = REALM) -> Realm:
        realm = self.do(self.store.realm(uuid))
        assert realm is not None
        return realm

    def everything(self) -> list[Any]:
        """Return all that an upload may touch."""
        tables = "servers", "realms", "realm_events", "realm_counts", "installation_counts"
        return [
            self.select(f"SELECT * FROM {table} ORDER BY 1, 2, 3")
            for table in (*tables, "audit_rows", "local_realms", "server_events")
        ]


class UploadsContract(UploadCase):
    """The behaviour of any store toward uploaded rows, versions and marks."""

    __test__ = False

    # Marks and order.

    def test_nothing_uploaded(self) -> None:
        """A new server has uploaded nothing; nor has one that does not exist."""
        for server in (self.one, 12345, 2**70):
            self.assertEqual(self.do(self.store.marks(server)), Marks(0, 0, 0))

    def test_marks_follow_the_rows(self) -> None:
        """The status call names the last row of each list, and of this server only."""
        self.upload([a_count(3), a_count(9, 7200.0)], [a_whole(4)], [an_audit_row(5)])
        self.assertEqual(self.do(self.store.marks(self.one)), Marks(9, 4, 5))
        self.assertEqual(self.do(self.store.marks(self.two)), Marks())
        self.upload([a_count(10, 9999.0)])
        self.assertEqual(self.do(self.store.marks(self.one)), Marks(10, 4, 5))

    def test_marks_follow_dropped_rows(self) -> None:
        """A list that ends in rows nobody stores is not asked for again (7.4)."""
        self.upload([a_count(3)], highest={"realm_count": 8, "installation_count": 6})
        self.assertEqual(self.do(self.store.marks(self.one)), Marks(8, 6, 0))
        self.upload([a_count(9, 7200.0)], highest={"realm_count": 9, "audit_log": 2})
        self.assertEqual(self.do(self.store.marks(self.one)), Marks(9, 6, 2))

    def test_nothing_new(self) -> None:
        """An upload without rows succeeds however often, and moves no mark."""
        self.upload([a_count(3)])
        for highest in ({}, {"realm_count": 0, "installation_count": 0, "audit_log": 0}):
            self.upload(highest=highest)
        self.assertEqual(self.do(self.store.marks(self.one)), Marks(3, 0, 0))

    def test_repeated(self) -> None:
        """The same upload again is out of order in any of its lists, and changes nothing."""
        lists: list[tuple[list[Any], ...]] = [
            ([a_count(3)], [], []),
            ([], [a_whole(3)], []),
            ([], [], [an_audit_row(3)]),
        ]
        for rows in lists:
            self.upload(*rows)
            before = self.everything()
            self.refused(self.uploading(*rows, software=(None, None, None)), OutOfOrder)
            self.assertEqual(self.everything(), before)
        dropped = self.uploading(highest={"realm_count": 3})
        self.refused(dropped, OutOfOrder)

    def test_disorder(self) -> None:
        """Rows must increase from the mark on, within each list; nothing of the others stays."""
        self.upload([a_count(5)], [a_whole(5)], [an_audit_row(5)])
        before = self.everything()
        for ids in ([5], [4, 6], [7, 6], [6, 6], [0], [-1], [2**63]):
            bad = ValueError if ids == [2**63] else OutOfOrder
            counts = [a_count(n, 100.0 * i) for i, n in enumerate(ids)]
            whole = [a_whole(n, 100.0 * i) for i, n in enumerate(ids)]
            audit = [an_audit_row(n) for n in ids]
            fine = [a_count(6, 50.0)]
            lists: list[tuple[list[Any], ...]] = [(counts,), (fine, whole), (fine, [], audit)]
            for rows in lists:
                self.refused(self.uploading(*rows, [a_realm_row()]), bad)
        self.assertEqual(self.everything(), before)

    def test_two_at_once(self) -> None:
        """Of two identical uploads at the same time one is stored, the other out of order."""
        both = [self.uploading([a_count(3)]) for _ in range(2)]
        other = self.uploading([a_count(3)], server=self.two)
        self.assertEqual((self.do(both[0]), self.do(other)), ([], []))
        self.refused(both[1], OutOfOrder)

    # Rows.

    def test_rows_are_kept(self) -> None:
        """Statistics and audit rows are stored as they came, with their realm where it is known."""
        counts = [a_count(1), a_count(2, subgroup=None), a_count(3, realm=5)]
        audit = AuditRow(6, 2, 105, 77.5, True, ROLES, 7)
        self.upload(counts, [a_whole(4, 60.5, "ü")], [audit], [a_realm_row()])
        realm = self.realm().id
        name = "messages_sent:is_bot:hour"
        self.assertEqual(
            self.select("SELECT * FROM realm_counts ORDER BY realm, COALESCE(subgroup, '')"),
            [
                (self.one, 2, realm, name, None, 3600.0, 7),
                (self.one, 2, realm, name, "true", 3600.0, 7),
                (self.one, 5, None, name, "true", 3600.0, 7),
            ],
        )
        self.assertEqual(
            self.select("SELECT * FROM installation_counts"), [(self.one, name, "ü", 60.5, 7)]
        )
        self.assertEqual(
            self.select("SELECT * FROM audit_rows"),
            [(1, self.one, 6, 2, realm, 105, 77.5, 1, ROLES, 7)],
        )

    def test_duplicates_are_dropped(self) -> None:
        """A statistic sent again under another number is not stored twice; the first one stays."""
        first = [a_count(1), a_count(2, subgroup=None), a_count(3, subgroup="")]
        again = [a_count(11), a_count(12, subgroup=None), a_count(13, subgroup="")]
        whole = [a_whole(1), a_whole(2, subgroup=""), a_whole(3, subgroup="true")]
        whole_again = [a_whole(11), a_whole(12, subgroup=""), a_whole(13, subgroup="true")]
        self.upload(first, whole)
        before = (
            self.select("SELECT * FROM realm_counts"),
            self.select("SELECT * FROM installation_counts"),
        )
        self.assertEqual([len(rows) for rows in before], [3, 3])
        self.upload(again, whole_again)
        self.upload([a_count(21), a_count(22)], [a_whole(21), a_whole(22)])
        after = (
            self.select("SELECT * FROM realm_counts"),
            self.select("SELECT * FROM installation_counts"),
        )
        self.assertEqual(after, before)
        self.assertEqual(self.do(self.store.marks(self.one)), Marks(22, 22, 0))

    def test_what_tells_statistics_apart(self) -> None:
        """Another realm, time, part, property or server is another statistic."""
        self.upload([a_count(1), a_count(2, realm=3), a_count(3, 3601.0), a_count(4, subgroup="x")])
        other = CountRow(5, "messages_read::hour", "true", 3600.0, 7, 2)
        self.upload([other])
        self.upload([a_count(1)], server=self.two)
        self.assertEqual(self.select("SELECT COUNT(*) FROM realm_counts"), [(6,)])

    def test_greatest_numbers(self) -> None:
        """Whatever fits in 64 bits comes back as it was."""
        most, least = 2**63 - 1, -(2**63)
        counts = [
            CountRow(1, "messages_read::hour", None, -1e300, least, least),
            CountRow(most, "messages_read::hour", None, 1e300, most, most),
        ]
        self.upload(counts, [], [AuditRow(most, least, most, 0.0, False, "{}", None)])
        rows = self.select("SELECT realm, end_time, value FROM realm_counts ORDER BY realm")
        self.assertEqual(rows, [(least, -1e300, least), (most, 1e300, most)])
        self.assertEqual(self.do(self.store.marks(self.one)), Marks(most, 0, most))
        self.refused(self.uploading([a_count(most)]), OutOfOrder)

    # What no database holds.

    def test_bad_values(self) -> None:
        """A row that no database holds fails the upload, is not repeated, and nothing stays."""
        self.upload([a_count(1)], [a_whole(1)], [an_audit_row(1)], [a_realm_row()])
        before = self.everything()
        huge, name = 10**30 + 7, "messages_read::hour"
        fine = [a_count(n, 100.0 * n) for n in range(2, 700)]
        uploads = [
            an_upload([*fine, CountRow(900, text, None, 1.0, 1, 1)])
            for text in ("canary\0", "canary\ud800")
        ]
        uploads += [an_upload(fine, [CountRow(9, name, "canary\0", 1.0, 1)])]
        uploads += [
            an_upload(fine, [CountRow(9, name, None, time, 1)])
            for time in (float("nan"), float("inf"), huge**20)
        ]
        uploads += [
            an_upload([*fine, CountRow(9000, name, None, 1.0, *pair)])
            for pair in ((huge, 1), (1, huge), (1, None))
        ]
        uploads += [
            an_upload(fine, [], [row])
            for row in (
                AuditRow(9, huge, 101, 1.0, False, "{}"),
                AuditRow(9, 2, huge, 1.0, False, "{}"),
                AuditRow(9, 2, 101, float("nan"), False, "{}"),
                AuditRow(9, 2, 101, 1.0, False, '"canary\ud800"'),
                AuditRow(huge, 2, 101, 1.0, False, "{}"),
            )
        ]
        uploads += [an_upload(fine, highest={"realm_count": huge})]
        uploads += [
            an_upload(fine, software=software)
            for software in (("canary\0", "", 1), ("", "canary\ud800", 1), ("", "", huge))
        ]
        changes: list[dict[str, Any]] = [
            *({name: "canary\0"} for name in ("host", "name", "authentication_methods")),
            {"local_id": huge},
            {"org_type": huge},
        ]
        uploads += [an_upload(fine, realms=[a_realm_row(**change)]) for change in changes]
        changes += [{"uuid": "canary\0"}, {"owner_secret": "canary\ud800"}, {"date_created": 1e999}]
        uploads += [
            an_upload(fine, realms=[a_realm_row(**{"uuid": OTHER_REALM, **change})])
            for change in changes
        ]
        for upload in uploads:
            text = self.refused(self.store.upload(self.one, upload, 3000.0), ValueError)
            self.assertNotIn("canary", text)
            self.assertNotIn(str(huge), text)
        self.assertEqual(self.everything(), before)

    # All or nothing.

    def test_failure_in_the_middle(self) -> None:
        """Where a realm is another server's, no row, version, mark or other realm is stored."""
        self.upload(realms=[a_realm_row(OTHER_REALM)], server=self.two)
        self.upload(realms=[a_realm_row()])
        before = self.everything()
        rows = [a_count(3)], [a_whole(4)], [an_audit_row(5)]
        fresh = a_realm_row("cccccccc-cccc-4ccc-8ccc-cccccccccccc", 3)
        realms = [a_realm_row(name="Renamed"), fresh, a_realm_row(OTHER_REALM, 4)]
        self.refused(self.uploading(*rows, realms, software=("12.0", "x", 470)), DuplicateRealm)
        self.assertEqual(self.everything(), before)
        self.upload(*rows, realms[:2])

    def test_server_is_gone(self) -> None:
        """A server that was deleted meanwhile stores nothing; its caller asks again."""
        for nobody in (12345, 2**70):
            self.refused(self.uploading([a_count(3)], server=nobody), StoreUnavailable)
        self.assertEqual(self.select("SELECT COUNT(*) FROM realm_counts"), [(0,)])

    def test_tenants_are_apart(self) -> None:
        """What one server uploads changes nothing of another's."""
        lists = [a_count(3)], [a_whole(3)], [an_audit_row(3)]
        self.upload(*lists, [a_realm_row(OTHER_REALM)], server=self.two)
        self.upload(*lists, [a_realm_row()])
        self.upload([], [], [an_audit_row(4, 99)], [a_realm_row(name="Renamed")])
        self.upload([], [], None, [])
        two = self.known("22222222-2222-4222-8222-222222222222")
        self.assertEqual((two.users, two.data_at), (7, 2000.0))
        other = self.realm(OTHER_REALM)
        self.assertEqual((other.users, other.name, other.server_id), (7, "Example", self.two))
        query = "SELECT locally_deleted FROM realms WHERE server_id = "
        self.assertEqual(self.select(f"{query}{self.two}"), [(0,)])
        self.assertEqual(self.select(f"{query}{self.one}"), [(1,)])

    # What the server says of itself.

    def test_version(self) -> None:
        """The version is that of the latest upload; what it does not say is forgotten (7.3)."""
        query = f"SELECT version, merge_base, feature_level FROM servers WHERE id = {self.one}"
        for software in (("9.2", "abc", 277), ("10.0", None, 377), (None, None, None)):
            self.upload(software=software)
            self.assertEqual(self.select(query), [software])
            self.assertEqual(self.known(ONE).feature_level, software[2])

    def test_time_of_the_data(self) -> None:
        """Audit rows set the time that free access depends on, an empty list too, but not none."""
        self.upload([a_count(1)], [], None, now=1500.0)
        self.assertIsNone(self.known(ONE).data_at)
        self.upload([], [], [], now=2000.0)
        self.assertEqual(self.known(ONE).data_at, 2000.0)
        self.upload([], [], None, now=3000.0)
        self.assertEqual(self.known(ONE).data_at, 2000.0)
        self.upload([], [], [an_audit_row(1)], now=4000.0)
        self.assertEqual(self.known(ONE).data_at, 4000.0)
