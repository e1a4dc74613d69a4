"""The schema's steps: upgrading a database, and the files the steps are in."""

import shutil
import sqlite3
import stat
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.store.base import StoreError
from bouncerd.store.steps import Step, newest, read_steps, shipped_steps
from tests.test_store_file import FIRST, SECOND, FileCase

VECTORS = Path(__file__).parent / "vectors" / "schema"


def shape(path: Path) -> list[tuple[str, ...]]:
    """Return all that defines a database: its tables' and indexes' texts, and its version."""
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    steps = connection.execute("SELECT step FROM schema_steps ORDER BY step").fetchall()
    connection.close()
    return sorted(tuple(map(str, row)) for row in found) + [tuple(map(str, s)) for s in steps]


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
            store = self.open_store(old)
            self.assertEqual(self.tokens(store), ["c0ffee"])
            self.successResultOf(store.close())
            self.assertEqual(shape(old), shape(fresh))

    def test_every_version_is_recorded(self) -> None:
        """No step is released without a recording of what it made (see tests/vectors/schema)."""
        recorded = [int(vector.stem) for vector in sorted(VECTORS.glob("*.sql"))]
        self.assertEqual(recorded, [step.number for step in shipped_steps()])

    def test_steps_one_by_one_or_together(self) -> None:
        """Upgrading by a step equals starting with all steps, and keeps the data."""
        fresh = self.directory / "fresh.db"
        self.make(fresh, (FIRST, SECOND))
        self.make(steps=(FIRST,))
        store = self.open_store(steps=(FIRST, SECOND))
        self.assertEqual(self.tokens(store), ["c0ffee"])
        self.successResultOf(store.close())
        self.assertEqual(shape(self.path), shape(fresh))

    def test_copy_of_the_old_version(self) -> None:
        """Before an upgrade the database is copied, readable by the owner and the old version."""
        self.make(steps=(FIRST,))
        self.successResultOf(self.open_store(steps=(FIRST, SECOND)).close())
        copy = self.directory / "bouncerd.db.version-1"
        self.assertEqual(stat.S_IMODE(copy.stat().st_mode), 0o600)
        store = self.open_store(copy, steps=(FIRST,))
        self.assertEqual(self.tokens(store), ["c0ffee"])
        self.successResultOf(store.close())

    def test_no_copy_without_an_upgrade(self) -> None:
        """Starting the same version again copies nothing."""
        self.make()
        self.successResultOf(self.open_store().close())
        self.assertEqual(self.names(), {"bouncerd.db", "bouncerd.db.lock"})

    def test_step_fails_in_the_middle(self) -> None:
        """A step that fails leaves the version before it, whole and usable."""
        self.make(steps=(FIRST,))
        before = shape(self.path)
        broken = Step(2, SECOND.sql + "INSERT INTO nowhere VALUES (1);")
        line = self.refusal(lambda: self.open_store(steps=(FIRST, broken)))
        self.assertIn("step 2 failed", line)
        self.assertEqual(shape(self.path), before)
        store = self.open_store(steps=(FIRST,))
        self.assertEqual(self.tokens(store), ["c0ffee"])
        self.successResultOf(store.close())

    def test_later_step_fails(self) -> None:
        """Of several steps those before the failing one stay, to go on from there."""
        self.make(steps=(FIRST,))
        broken = Step(3, "CREATE TABLE servers (x)")
        self.refusal(lambda: self.open_store(steps=(FIRST, SECOND, broken)))
        store = self.open_store(steps=(FIRST, SECOND))
        self.assertEqual(self.tokens(store), ["c0ffee"])
        self.successResultOf(store.close())

    def test_step_that_orphans_rows(self) -> None:
        """A step that leaves devices without their server is undone."""
        self.make(steps=(FIRST,))
        broken = Step(2, "DELETE FROM servers")
        self.assertIn("orphan", self.refusal(lambda: self.open_store(steps=(FIRST, broken))))
        self.assertEqual(self.tokens(self.open_store(steps=(FIRST,))), ["c0ffee"])

    def test_a_step_may_rebuild_a_table(self) -> None:
        """Replacing a table that others refer to deletes nothing of theirs."""
        self.make(steps=(FIRST,))
        rebuild = Step(
            2,
            """
            CREATE TABLE fresh (id INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE,
                hostname TEXT NOT NULL, contact_email TEXT NOT NULL, key_digest BLOB NOT NULL,
                deactivated INTEGER NOT NULL, created_at REAL NOT NULL) STRICT;
            INSERT INTO fresh SELECT * FROM servers;
            DROP TABLE servers;
            ALTER TABLE fresh RENAME TO servers;
            """,
        )
        self.assertEqual(self.tokens(self.open_store(steps=(FIRST, rebuild))), ["c0ffee"])


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
                if inside and not line.startswith((")", "    CHECK")):
                    self.assertIn("--", line)
                inside = (inside or line.startswith("CREATE TABLE")) and not line.startswith(")")


def record() -> None:
    """Write down the newest version as tests/vectors/schema/NNNN.sql, once and for all."""
    vector = VECTORS / f"{newest(shipped_steps()):04}.sql"
    with tempfile.TemporaryDirectory() as directory:
        case = FileCase()
        case.path = Path(directory) / "bouncerd.db"
        case.make()
        connection = sqlite3.connect(case.path)
        with vector.open("x", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in connection.iterdump())


if __name__ == "__main__":
    record()
