"""The SQLite file: who may have it, how it is made, what is refused."""

import os
import resource
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.model import Identity, Kind
from bouncerd.store.base import StoreError
from bouncerd.store.sqlite import SQLiteStore
from bouncerd.store.steps import Step, shipped_steps

ONE = "11111111-1111-4111-8111-111111111111"
ALICE = Identity(7, "3b5a8c6e-0d8f-4c7e-9a51-2f1f3e6d7c80")
NOBODY_ELSE = 65534

NOW = shipped_steps()
NEXT = Step(
    len(NOW) + 1,
    """
    ALTER TABLE servers ADD COLUMN colour INTEGER NOT NULL DEFAULT 100;  -- for this test
    CREATE TABLE cats (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL) STRICT;
    """,
)


class FileCase(SynchronousTestCase):
    """A directory for one test."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.directory / "bouncerd.db"

    def open_store(
        self,
        path: Path | None = None,
        *,
        beside: bool = False,
        steps: tuple[Step, ...] | None = None,
    ) -> SQLiteStore:
        return SQLiteStore(path or self.path, None, lambda: 1000.0, beside=beside, steps=steps)

    def make(self, path: Path | None = None, steps: tuple[Step, ...] | None = None) -> None:
        """Create a database with one server and one phone, and close it."""
        store = self.open_store(path, steps=steps)
        self.successResultOf(store.add_server(ONE, "one.example.org", "e@x.org", b"k", 1.0))
        self.successResultOf(store.register(1, ALICE, Kind.APNS, "c0ffee", "org.x", 1.0))
        self.successResultOf(store.close())

    def refusal(self, open_store: Callable[[], object]) -> str:
        """Return the line the operator reads: one, and it names the file."""
        line = str(self.assertRaises(StoreError, open_store))
        self.assertNotIn("\n", line)
        self.assertIn(str(self.path), line)
        return line

    def tokens(self, store: SQLiteStore) -> list[str]:
        found = self.successResultOf(store.find(ONE, ALICE, None))
        return [device.token for device in found.devices]

    def names(self) -> set[str]:
        return {entry.name for entry in self.directory.iterdir()}


class CreationTests(FileCase):
    """A store where there was none."""

    def test_only_the_owner_may_read(self) -> None:
        """All files of a store are for its owner alone, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        store = self.open_store()
        self.successResultOf(store.add_server(ONE, "one.example.org", "e@x.org", b"k", 1.0))
        modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in self.directory.iterdir()}
        names = [f"bouncerd.db{suffix}" for suffix in ("", "-wal", "-shm", ".lock")]
        self.assertEqual(modes, dict.fromkeys(names, 0o600))
        self.successResultOf(store.close())

    def test_closing_leaves_one_file(self) -> None:
        """After a clean stop all is in the one file, beside the empty lock."""
        self.make()
        self.assertEqual(self.names(), {"bouncerd.db", "bouncerd.db.lock"})

    def test_what_was_stored_is_there_after_a_restart(self) -> None:
        """Servers, devices and the secret outlive the process."""
        self.make()
        store = self.open_store()
        secret = self.successResultOf(store.secret())
        self.successResultOf(store.close())
        store = self.open_store()
        self.assertEqual(self.tokens(store), ["c0ffee"])
        self.assertEqual(self.successResultOf(store.secret()), secret)
        self.successResultOf(store.close())

    def test_writes_are_durable_by_settings(self) -> None:
        """Each connection has a write-ahead log, full synchronisation and foreign keys."""
        store = self.open_store()
        for connection in (store._reading, store._writer._connection):
            values = [
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
            ]
            self.assertEqual(values, ["wal", 2, 1, 1])
        self.successResultOf(store.close())

    def test_reading_connection_cannot_write(self) -> None:
        """Nothing is written past the one writer by mistake."""
        store = self.open_store()
        self.assertRaises(sqlite3.OperationalError, store._reading.execute, "DELETE FROM servers")
        self.successResultOf(store.close())

    def test_killed_while_creating(self) -> None:
        """What an earlier start left half-made is thrown away, and the next one succeeds."""
        for suffix in ("", "-journal"):
            (self.directory / f"bouncerd.db.new{suffix}").write_bytes(b"half")
        self.make()
        self.assertEqual(self.names(), {"bouncerd.db", "bouncerd.db.lock"})

    def test_failing_to_create_leaves_nothing(self) -> None:
        """A start that cannot make the schema leaves no file behind, only the lock."""
        broken = (*NOW, Step(NEXT.number, "CREATE TABLE servers (x)"))
        self.refusal(lambda: self.open_store(steps=broken))
        self.assertEqual(self.names(), {"bouncerd.db.lock"})

    def test_empty_file(self) -> None:
        """An empty file that the operator made beforehand is filled, its mode kept."""
        self.path.touch(0o640)
        self.path.chmod(0o640)
        self.make()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)
        self.assertEqual(self.tokens(self.open_store()), ["c0ffee"])

    def test_odd_file_names(self) -> None:
        """Characters that mean something in a URI are just characters in a path."""
        odd = self.directory / "a?b#c%20 ü.db"
        self.make(odd)
        self.assertTrue(odd.exists())


class RefusalTests(FileCase):
    """What the operator gets to read when the store cannot be opened."""

    def test_directory_is_missing(self) -> None:
        """A path in no directory is named as such, and nothing is made."""
        self.path = self.directory / "missing" / "bouncerd.db"
        self.assertIn("its directory does not exist", self.refusal(self.open_store))

    def test_path_is_a_directory(self) -> None:
        """A directory in the place of the file is refused."""
        self.path.mkdir()
        self.assertIn("cannot be opened", self.refusal(self.open_store))

    def test_not_a_database(self) -> None:
        """Some other file is not touched."""
        self.path.write_bytes(b"this is a letter to my aunt" * 100)
        self.assertIn("not a database", self.refusal(self.open_store))
        self.assertTrue(self.path.read_bytes().startswith(b"this is a letter"))

    def test_someone_elses_database(self) -> None:
        """A database of another program is not touched."""
        connection = sqlite3.connect(self.path)
        connection.execute("CREATE TABLE cats (name)")
        connection.close()
        self.assertIn("not one of bouncerd's", self.refusal(self.open_store))

    def test_damaged(self) -> None:
        """A file cut short or overwritten is refused at the start, not at a push."""
        self.make()
        self.path.write_bytes(self.path.read_bytes()[:5000])
        self.assertIn("damaged", self.refusal(self.open_store))

    def test_second_daemon(self) -> None:
        """A second daemon on the file is refused, and succeeds once the first has stopped."""
        first = self.open_store()
        self.assertIn("in use by another bouncerd", self.refusal(self.open_store))
        self.successResultOf(first.close())
        self.successResultOf(self.open_store().close())

    def test_refused_daemon_keeps_no_lock(self) -> None:
        """A start that failed for another reason does not stand in the way of the next."""
        self.path.write_bytes(b"this is a letter to my aunt" * 100)
        self.refusal(self.open_store)
        self.path.unlink()
        self.successResultOf(self.open_store().close())

    def test_newer_schema(self) -> None:
        """After a downgrade the operator reads which versions meet."""
        self.make(steps=(*NOW, NEXT))
        line = self.refusal(lambda: self.open_store(steps=NOW))
        self.assertIn(f"version {NEXT.number}", line)
        self.assertIn(f"up to {len(NOW)}", line)
        self.assertEqual(self.tokens(self.open_store(steps=(*NOW, NEXT))), ["c0ffee"])

    def test_directory_is_read_only(self) -> None:
        """A directory without the right to write is refused in one line."""
        self._as_another_user()
        self.directory.chmod(0o755)
        os.seteuid(NOBODY_ELSE)
        self.assertIn("Permission denied", self.refusal(self.open_store))

    def test_file_is_read_only(self) -> None:
        """A file that may be read but not written is refused at the start."""
        self.make()
        self._as_another_user()
        self.directory.chmod(0o777)
        (self.directory / "bouncerd.db.lock").chmod(0o666)
        self.path.chmod(0o444)
        os.seteuid(NOBODY_ELSE)
        self.assertIn("read-only", self.refusal(self.open_store))

    def _as_another_user(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("needs root, which then plays another user")
        self.addCleanup(os.seteuid, 0)

    def test_no_space_to_create(self) -> None:
        """A file system that takes no more is named, and nothing half-made stays."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        self.refusal(self.open_store)
        self.assertEqual(self.names(), {"bouncerd.db.lock"})


class BesideTests(FileCase):
    """The administrator's tool at work on the file of a running daemon."""

    def test_both_write_and_see(self) -> None:
        """What the tool writes holds at the daemon's next call, and the other way round."""
        daemon = self.open_store()
        tool = self.open_store(beside=True)
        self.successResultOf(tool.add_server(ONE, "one.example.org", "e@x.org", b"k", 1.0))
        self.assertIsNotNone(self.successResultOf(daemon.server(ONE)))
        self.successResultOf(daemon.register(1, ALICE, Kind.APNS, "c0ffee", "org.x", 1.0))
        self.assertEqual(self.tokens(tool), ["c0ffee"])
        self.successResultOf(tool.close())
        self.assertEqual(self.tokens(daemon), ["c0ffee"])
        self.successResultOf(daemon.close())

    def test_one_secret(self) -> None:
        """Daemon and tool derive their keys from the same secret."""
        daemon, tool = self.open_store(), self.open_store(beside=True)
        secret = self.successResultOf(tool.secret())
        self.assertEqual(self.successResultOf(daemon.secret()), secret)
        self.successResultOf(daemon.close())
        self.successResultOf(tool.close())

    def test_tool_first(self) -> None:
        """Without a daemon the tool makes the file, and leaves the lock to a daemon."""
        tool = self.open_store(beside=True)
        daemon = self.open_store()
        self.successResultOf(tool.close())
        self.successResultOf(daemon.close())

    def test_tool_does_not_upgrade_under_a_daemon(self) -> None:
        """A newer tool leaves the file of a running older daemon alone."""
        daemon = self.open_store(steps=NOW)
        line = self.refusal(lambda: self.open_store(beside=True, steps=(*NOW, NEXT)))
        self.assertIn("in use by another bouncerd", line)
        self.successResultOf(daemon.close())
        self.successResultOf(self.open_store(beside=True, steps=(*NOW, NEXT)).close())
