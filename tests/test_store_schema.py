"""The schema's steps: upgrading a database, and the files the steps are in."""

import shutil
import sqlite3
import stat
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.leasing import Ask
from bouncerd.model import Kind, Server
from bouncerd.store.base import StoreError
from bouncerd.store.sqlite import SQLiteStore
from bouncerd.store.steps import Step, newest, read_steps, shipped_steps
from bouncerd.tallies import Counts, OutcomeCount, PushCount
from bouncerd.uploads import Marks
from tests.test_store_file import NEXT, NOW, ONE, FileCase
from tests.test_store_uploads import a_count, a_realm_row, a_whole, an_audit_row, an_upload

VECTORS = Path(__file__).parent / "vectors" / "schema"


def shape(path: Path) -> list[tuple[str, ...]]:
    """Return all that defines a database: its tables' and indexes' texts, and its version."""
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    steps = connection.execute("SELECT step FROM schema_steps ORDER BY step").fetchall()
    connection.close()
    return sorted(tuple(map(str, row)) for row in found) + [tuple(map(str, s)) for s in steps]


def sizes(path: Path) -> dict[str, int]:
    """Return how many rows each table has, but for the one that an upgrade adds to."""
    connection = sqlite3.connect(path)
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'schema_steps'"
    tables = [name for (name,) in connection.execute(query)]
    found = {t: connection.execute(f"SELECT COUNT(*) FROM {t}").fetchone()[0] for t in tables}
    connection.close()
    return found


class UpgradeTests(FileCase):
    """A file of an earlier version."""

    def test_upgrade_equals_fresh(self) -> None:
        """Each version ever released, upgraded, is what a new installation has, data kept."""
        fresh = self.directory / "fresh.db"
        self.make(fresh)
        for vector in sorted(VECTORS.glob("*.sql")):
            old = self.directory / f"{vector.stem}.db"
            connection = sqlite3.connect(old)
            connection.executescript(vector.read_text("utf-8"))
            connection.close()
            before = sizes(old)
            store = self.open_store(old)
            self.assertEqual(self.tokens(store), ["c0ffee"])
            self.successResultOf(store.close())
            self.assertEqual(shape(old), shape(fresh))
            self.assertEqual({table: sizes(old)[table] for table in before}, before)

    def test_server_from_before_uploads(self) -> None:
        """A server of the first version has the usual plan, no data, and may upload at once."""
        connection = sqlite3.connect(self.path)
        connection.executescript((VECTORS / "0001.sql").read_text("utf-8"))
        connection.close()
        store = self.open_store()
        found = self.successResultOf(store.find(ONE, None, None))
        self.assertEqual(found.server, Server(1, ONE, "one.example.org", "e@x.org", b"k"))
        self.assertEqual(self.successResultOf(store.marks(1)), Marks())
        upload = an_upload([a_count(1)], [], [an_audit_row(1)], [a_realm_row()])
        [realm] = self.successResultOf(store.upload(1, upload, 2000.0))
        self.assertEqual((realm.users, realm.plan_type), (7, 100))

    def test_every_version_is_recorded(self) -> None:
        """No step is released without a recording of what it made (see tests/vectors/schema)."""
        recorded = [int(vector.stem) for vector in sorted(VECTORS.glob("*.sql"))]
        self.assertEqual(recorded, [step.number for step in shipped_steps()])

    def test_steps_one_by_one_or_together(self) -> None:
        """Upgrading by a step equals starting with all steps, and keeps the data."""
        fresh = self.directory / "fresh.db"
        self.make(fresh, (*NOW, NEXT))
        self.make(steps=NOW)
        store = self.open_store(steps=(*NOW, NEXT))
        self.assertEqual(self.tokens(store), ["c0ffee"])
        self.successResultOf(store.close())
        self.assertEqual(shape(self.path), shape(fresh))

    def test_copy_of_the_old_version(self) -> None:
        """Before an upgrade the database is copied, readable by the owner and the old version."""
        self.make(steps=NOW)
        self.successResultOf(self.open_store(steps=(*NOW, NEXT)).close())
        copy = self.directory / f"bouncerd.db.version-{len(NOW)}"
        self.assertEqual(stat.S_IMODE(copy.stat().st_mode), 0o600)
        store = self.open_store(copy, steps=NOW)
        self.assertEqual(self.tokens(store), ["c0ffee"])
        self.successResultOf(store.close())

    def test_no_copy_without_an_upgrade(self) -> None:
        """Starting the same version again copies nothing."""
        self.make()
        self.successResultOf(self.open_store().close())
        self.assertEqual(self.names(), {"bouncerd.db", "bouncerd.db.lock"})

    def test_step_fails_in_the_middle(self) -> None:
        """A step that fails leaves the version before it, whole and usable."""
        self.make(steps=NOW)
        before = shape(self.path)
        broken = Step(NEXT.number, NEXT.sql + "INSERT INTO nowhere VALUES (1);")
        line = self.refusal(lambda: self.open_store(steps=(*NOW, broken)))
        self.assertIn(f"step {NEXT.number} failed", line)
        self.assertEqual(shape(self.path), before)
        store = self.open_store(steps=NOW)
        self.assertEqual(self.tokens(store), ["c0ffee"])
        self.successResultOf(store.close())

    def test_later_step_fails(self) -> None:
        """Of several steps those before the failing one stay, to go on from there."""
        self.make(steps=NOW)
        broken = Step(NEXT.number + 1, "CREATE TABLE servers (x)")
        self.refusal(lambda: self.open_store(steps=(*NOW, NEXT, broken)))
        store = self.open_store(steps=(*NOW, NEXT))
        self.assertEqual(self.tokens(store), ["c0ffee"])
        self.successResultOf(store.close())

    def test_step_that_orphans_rows(self) -> None:
        """A step that leaves devices without their server is undone."""
        self.make(steps=NOW)
        broken = Step(NEXT.number, "DELETE FROM servers")
        self.assertIn("orphan", self.refusal(lambda: self.open_store(steps=(*NOW, broken))))
        self.assertEqual(self.tokens(self.open_store(steps=NOW)), ["c0ffee"])

    def test_a_step_may_rebuild_a_table(self) -> None:
        """Replacing a table that others refer to deletes nothing of theirs."""
        self.make(steps=NOW)
        [table] = [row[3] for row in shape(self.path) if row[:2] == ("table", "servers")]
        rebuild = Step(
            NEXT.number,
            f"""
            {table.replace("servers", "fresh", 1)};
            INSERT INTO fresh SELECT * FROM servers;
            DROP TABLE servers;
            ALTER TABLE fresh RENAME TO servers;
            """,
        )
        self.assertEqual(self.tokens(self.open_store(steps=(*NOW, rebuild))), ["c0ffee"])


class StepFilesTests(SynchronousTestCase):
    """The schema files themselves."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def test_read_in_order(self) -> None:
        """Steps are the numbered files, in the order of their numbers, and nothing else."""
        for name in ("0002.sql", "0001.sql", "README", "x.sql", "0003.sql.orig"):
            (self.directory / name).write_text(name)
        steps = read_steps(self.directory)
        self.assertEqual(steps, (Step(1, "0001.sql"), Step(2, "0002.sql")))
        self.assertEqual(newest(steps), 2)

    def test_gap(self) -> None:
        """An installation that lacks a step, has it twice or has none does not start."""
        for names in ([], ["0002.sql"], ["0001.sql", "0003.sql"], ["0001.sql", "1.sql"]):
            directory = self.directory / str(len(list(self.directory.iterdir())))
            directory.mkdir()
            for name in names:
                (directory / name).write_text("")
            self.assertRaises(StoreError, read_steps, directory)

    def test_no_step_ends_its_transaction(self) -> None:
        """A shipped step has no transaction of its own and sets nothing: it is run in one."""
        for step in shipped_steps():
            words = {line.split("--")[0].strip().upper() for line in step.sql.splitlines()}
            for forbidden in ("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA", "VACUUM"):
                self.assertFalse([w for w in words if w.startswith(forbidden)], step.number)

    def test_each_column_is_explained(self) -> None:
        """Who reads the schema learns of each column what it is."""
        for step in shipped_steps():
            inside = False
            for line in step.sql.splitlines():
                if inside and not line.startswith((")", "    CHECK", "    PRIMARY")):
                    self.assertIn("--", line)
                if line.startswith("ALTER TABLE"):
                    self.assertRegex(line, "ADD COLUMN .*;  -- ")
                inside = (inside or line.startswith("CREATE TABLE")) and not line.startswith(")")


def fill(store: SQLiteStore) -> None:
    """Put something into each table."""
    rows = [a_count(1)], [a_whole(1)], [an_audit_row(1)]
    store.upload(1, an_upload(*rows, [a_realm_row()]), 1.0)
    store.register_sealed(1, b"12345678", Kind.FCM, "decade", None, None, 1.0)
    met = OutcomeCount(ONE, 1, "apns", "org.example.app", "delivered", "", 1, 1.0, 1.0)
    store.add_counts("w", 1, Counts((met,), (PushCount(ONE, 1, 1, 1),)), 1.0)
    store.lease([Ask(ONE, 1000, 1)], 60.0)
    store.secret()
    store.close()


def record() -> None:
    """Write down the newest version as tests/vectors/schema/NNNN.sql, once and for all."""
    vector = VECTORS / f"{newest(shipped_steps()):04}.sql"
    with tempfile.TemporaryDirectory() as directory:
        case = FileCase()
        case.path = Path(directory) / "bouncerd.db"
        case.make()
        fill(SQLiteStore(case.path, None, lambda: 1000.0))
        connection = sqlite3.connect(case.path)
        with vector.open("x", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in connection.iterdump())


if __name__ == "__main__":
    record()
