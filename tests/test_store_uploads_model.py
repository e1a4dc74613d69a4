"""Uploads against a model: whatever servers send in whatever order, the same is left."""

from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.store.base import DuplicateRealm, OutOfOrder
from bouncerd.store.sqlite import SQLiteStore
from bouncerd.uploads import AuditRow, Marks
from tests.test_store_contract import ONE, TWO
from tests.test_store_uploads import a_realm_row, an_upload

UUIDS = [f"{digit * 8}-aaaa-4aaa-8aaa-aaaaaaaaaaaa" for digit in "abc"]


@dataclass
class Sent:
    """One upload: who, of what version, with which realms and which audit rows."""

    server: int
    version: str
    realms: list[tuple[str, int]] | None
    rows: list[tuple[int, int, int | None]]  # id, realm's number, users
    dropped: int


_SENT = st.builds(
    Sent,
    st.sampled_from([1, 2]),
    st.sampled_from(["7.5", "11.0"]),
    st.none() | st.lists(st.tuples(st.sampled_from(UUIDS), st.integers(1, 3)), max_size=3),
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 3), st.none() | st.integers(0, 20)),
        max_size=4,
    ),
    st.sampled_from([0, 0, 0, 30]),
)


@dataclass
class Row:
    """An audit row that the model keeps."""

    realm: int
    uuid: str | None
    users: int | None


@dataclass
class Side:
    """What the model knows of one server."""

    version: str | None = None
    mark: int = 0
    rows: list[Row] = field(default_factory=list)
    realms: dict[str, bool] = field(default_factory=dict)  # whether it was gone at last

    def users(self) -> int:
        newest = {row.realm: row.users for row in self.rows if row.users is not None}
        return sum(newest.values())

    def users_of(self, uuid: str) -> int:
        counted = [r.users for r in self.rows if r.uuid == uuid and r.users is not None]
        return counted[-1] if counted else 0


class Model:
    """The rules of bouncer-api.md 7.3 to 7.6 and 8, by lists that are searched from the end."""

    def __init__(self) -> None:
        self.sides = {1: Side(), 2: Side()}

    def refusal(self, sent: Sent) -> type[Exception] | None:
        """Tell why an upload is refused, or None."""
        side, other = self.sides[sent.server], self.sides[3 - sent.server]
        last = side.mark
        for row_id, _, _ in sent.rows:
            if row_id <= last:
                return OutOfOrder
            last = row_id
        if sent.dropped and sent.dropped <= side.mark:
            return OutOfOrder
        uuids = [uuid for uuid, _ in sent.realms or ()]
        if len(set(uuids)) < len(uuids) or any(uuid in other.realms for uuid in uuids):
            return DuplicateRealm
        return None

    def apply(self, sent: Sent) -> None:
        side = self.sides[sent.server]
        links = {number: uuid for uuid, number in sent.realms or ()}
        if sent.realms is not None:
            side.realms = dict.fromkeys(side.realms, True)
            side.realms.update(dict.fromkeys(links.values(), False))
            side.realms.update((uuid, False) for uuid, _ in sent.realms)
            for row in side.rows if side.version != sent.version else ():
                row.uuid = row.uuid or links.get(row.realm)
        side.version = sent.version
        side.rows += [Row(number, links.get(number), users) for _, number, users in sent.rows]
        side.mark = max([side.mark, sent.dropped, *(row[0] for row in sent.rows)])


class UploadsModelTests(SynchronousTestCase):
    """A store against the model."""

    @settings(suppress_health_check=[HealthCheck.differing_executors], max_examples=150)
    @given(st.lists(_SENT, max_size=8))
    def test_like_the_model(self, uploads: list[Sent]) -> None:
        """Users, marks and realms are what the rules say, and refused uploads leave no trace."""
        store = SQLiteStore(None, None, lambda: 0.0)
        for uuid in (ONE, TWO):
            self.successResultOf(store.add_server(uuid, uuid, "e", b"k", 0.0))
        model = Model()
        for sent in uploads:
            refusal = model.refusal(sent)
            result = self._send(store, sent)
            if refusal is None:
                self.assertEqual(result, [uuid for uuid, _ in sent.realms or ()])
                model.apply(sent)
            else:
                self.assertIs(result, refusal)
            self._compare(store, model)
        self.successResultOf(store.close())

    def _send(self, store: SQLiteStore, sent: Sent) -> object:
        rows = [AuditRow(n, realm, 101, 1.0, False, "{}", users) for n, realm, users in sent.rows]
        realms = None
        if sent.realms is not None:
            realms = [a_realm_row(uuid, number) for uuid, number in sent.realms]
        upload = an_upload(
            [],
            [],
            rows,
            realms,
            software=(sent.version, None, None),
            highest={"audit_log": sent.dropped},
        )
        ended: list[object] = []
        store.upload(sent.server, upload, 1.0).addBoth(ended.append)
        [result] = ended
        if isinstance(result, Failure):
            return result.type
        assert isinstance(result, list)
        return [realm.uuid for realm in result]

    def _compare(self, store: SQLiteStore, model: Model) -> None:
        gone = dict(store._reading.execute("SELECT uuid, locally_deleted FROM realms").fetchall())
        for number, uuid in ((1, ONE), (2, TWO)):
            side = model.sides[number]
            server = self.successResultOf(store.server(uuid))
            assert server is not None
            self.assertEqual(server.users, side.users())
            self.assertEqual(self.successResultOf(store.marks(number)), Marks(0, 0, side.mark))
            for realm_uuid, deleted in side.realms.items():
                realm = self.successResultOf(store.realm(realm_uuid))
                assert realm is not None
                self.assertEqual(
                    (realm.server_id, realm.users), (number, side.users_of(realm_uuid))
                )
                self.assertEqual(gone[realm_uuid], deleted)
        self.assertEqual(len(gone), sum(len(side.realms) for side in model.sides.values()))
