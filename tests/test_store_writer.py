"""Writing on SQLite in bad times: commits shared and undone, kills, full disks, locks, closing."""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.model import Identity, Kind
from bouncerd.store import writer
from bouncerd.store.base import Conflict, StoreUnavailable
from bouncerd.store.rows import Script
from bouncerd.store.sqlite import SQLiteStore
from tests.test_store_contract import ALICE, APP, ONE, Mailbox
from tests.test_store_uploads import an_upload

ROOT = Path(__file__).parent.parent

# Registers one phone after the other, and prints the number of each once it is acknowledged.
CHILD = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from bouncerd.model import Identity, Kind
from bouncerd.store.sqlite import SQLiteStore

async def register(store, worker):
    for number in range(worker, 1 << 30, 20):
        await store.register(1, Identity(number, None), Kind.APNS, "c0ffee", "org.x", 1.0)
        print(number, flush=True)

async def main():
    store = SQLiteStore(Path(sys.argv[1]), reactor, lambda: 1.0)
    await store.add_server(sys.argv[2], "one.example.org", "e@example.org", b"k", 1.0)
    for worker in range(20):
        ensureDeferred(register(store, worker))

reactor.callWhenRunning(lambda: ensureDeferred(main()))
reactor.run()
"""


class WriterCase(SynchronousTestCase):
    """A store with a writing thread, and a second process's connection beside it."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.directory / "bouncerd.db"
        self.mailbox = Mailbox()
        self.store = SQLiteStore(self.path, self.mailbox, lambda: 1.0, write_patience=0.05)
        self.addCleanup(self._close)
        self.do(self.store.add_server(ONE, "one.example.org", "e@example.org", b"k", 1.0))
        self.other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(self.other.close)

    def _close(self) -> None:
        closing = self.store.close()
        self.mailbox.wait_for(closing)
        closing.addErrback(lambda failure: failure.trap(StoreUnavailable))  # already closed

    def do(self, deferred: Deferred[Any]) -> Any:
        self.mailbox.wait_for(deferred)
        return self.successResultOf(deferred)

    def unavailable(self, deferred: Deferred[Any]) -> str:
        self.mailbox.wait_for(deferred)
        return str(self.failureResultOf(deferred, StoreUnavailable).value)

    def register(self, number: int, token: str = "c0ffee") -> Deferred[None]:
        return self.store.register(1, Identity(number, None), Kind.APNS, token, APP, 1.0)

    def users(self) -> set[int]:
        """Return whose phones another process finds in the file."""
        return {user for (user,) in self.other.execute("SELECT user_id FROM devices")}

    def statements(self) -> list[str]:
        """Return what the writer says to SQLite from now on, in a list that fills."""
        said: list[str] = []
        self.store._writer._connection.set_trace_callback(said.append)
        return said

    def logged(self) -> list[LogEvent]:
        """Return what is logged from now on, in a list that fills."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return events


class GroupCommitCase(WriterCase):
    """A writer that can be kept busy."""

    def hold(self) -> threading.Event:
        """Keep the writer busy until the event is set."""
        gate, started = threading.Event(), threading.Event()
        held = self.store._writer.put(self.waiting_for(gate, started))
        started.wait(10)
        self.addCleanup(self.successResultOf, held)
        self.addCleanup(self.mailbox.wait_for, held)
        self.addCleanup(gate.set)
        return gate

    def waiting_for(self, gate: threading.Event, started: threading.Event) -> Script[None]:
        started.set()
        gate.wait(10)
        yield "SELECT 1", ()

    def half_done(self) -> Script[None]:
        """A script that writes and then meets a bug of ours."""
        yield "INSERT INTO devices VALUES (NULL, 1, 99, NULL, 1, 't', x'00', NULL, 1.0)", ()
        raise ZeroDivisionError


class GroupCommitTests(GroupCommitCase):
    """Many writes, few transactions."""

    def test_waiting_writes_share_a_commit(self) -> None:
        """What is asked for while the disk is busy goes to it together."""
        said = self.statements()
        gate = self.hold()
        writes = [self.register(number) for number in range(100)]
        gate.set()
        for write in writes:
            self.do(write)
        self.assertLessEqual(said.count("COMMIT"), 2)
        self.assertEqual(self.users(), set(range(100)))

    def test_batches_are_bounded(self) -> None:
        """No transaction has more than its share of writes, so that others get their turn."""
        said = self.statements()
        gate = self.hold()
        writes = [self.register(number) for number in range(4 * writer.TOGETHER)]
        gate.set()
        for write in writes:
            self.do(write)
        self.assertIn(said.count("COMMIT"), (5, 6))

    def test_failing_write_leaves_its_neighbours(self) -> None:
        """Of writes committed together, one that fails undoes itself alone."""
        said = self.statements()
        gate = self.hold()
        before = self.register(1)
        bug = self.store._writer.put(self.half_done())
        conflict = self.store.add_server(ONE, "two.example.org", "e@example.org", b"k", 1.0)
        after = self.register(2)
        gate.set()
        self.do(before)
        self.mailbox.wait_for(bug)
        self.failureResultOf(bug, ZeroDivisionError)
        self.mailbox.wait_for(conflict)
        self.failureResultOf(conflict, Conflict)
        self.do(after)
        self.assertEqual(self.users(), {1, 2})
        self.assertIn("ROLLBACK TO one", said)
        self.assertLessEqual(said.count("COMMIT"), 2)

    def test_acknowledged_is_seen(self) -> None:
        """A read that follows an acknowledged write sees it, at once."""
        for number in range(50):
            self.do(self.register(number))
            [device] = self.do(self.store.find(ONE, Identity(number, None), None)).devices
            self.assertEqual(device.user_id, number)

    def test_cancelled_write_still_happens(self) -> None:
        """A caller that hangs up changes nothing for the store, nor for the log."""
        gate = self.hold()
        first = self.register(1)
        first.addErrback(lambda _: None)
        first.cancel()
        gate.set()
        self.do(self.register(2))
        self.assertEqual(self.users(), {1, 2})


class KilledTests(SynchronousTestCase):
    """A daemon that is killed in the middle of writing."""

    def test_acknowledged_writes_survive(self) -> None:
        """After SIGKILL every acknowledged registration is there, and the lock is free."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        path = directory / "bouncerd.db"
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), ONE],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(200)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout if line.endswith("\n")]
        child.stdout.close()
        self.assertEqual(child.wait(), -signal.SIGKILL)
        store = SQLiteStore(path, None, lambda: 1.0)
        for number in acknowledged:
            found = self.successResultOf(store.find(ONE, Identity(number, None), None))
            self.assertEqual(len(found.devices), 1, number)
        self.successResultOf(store.close())


class TroubleTests(WriterCase):
    """A disk or a neighbour that does not let us write."""

    def test_locked_for_long(self) -> None:
        """While another process holds the file, writes fail and reads go on; then all is well."""
        self.do(self.register(1))
        self.other.execute("BEGIN IMMEDIATE")
        self.assertEqual(self.unavailable(self.register(2)), "locked by another process")
        found = self.do(self.store.find(ONE, Identity(1, None), None))
        self.assertEqual(len(found.devices), 1)
        self.other.execute("ROLLBACK")
        self.do(self.register(3))
        self.assertEqual(self.users(), {1, 3})

    def test_no_space(self) -> None:
        """On a full disk nothing is acknowledged, what was there is served, and it recovers."""
        connection = self.store._writer._connection
        [(pages,)] = connection.execute("PRAGMA page_count").fetchall()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        refused = [n for n in range(30) if self._no_space(n, "aa" * 2000 + f"{n:04x}")]
        self.assertTrue(refused)
        connection.execute("PRAGMA max_page_count = 1000000")
        self.assertEqual(self.users(), set(range(30)) - set(refused))
        self.do(self.register(100))

    def _no_space(self, number: int, token: str) -> bool:
        write = self.register(number, token)
        self.mailbox.wait_for(write)
        if write.result is None:
            return False
        self.assertEqual(self.unavailable(write), "no space left")
        return True

    def test_disk_refuses(self) -> None:
        """When the system refuses to write the log, the caller is told and nothing is half-done."""
        self.do(self.register(1))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            refusal = self.unavailable(self.register(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertIn(refusal, ("the disk reports an error", "no space left"))
        self.do(self.register(3))
        self.assertEqual(self.users(), {1, 3})

    def test_too_many_wait(self) -> None:
        """A disk that hangs makes later writes fail at once instead of filling the memory."""
        self.store._writer._waiting = writer.WAITING
        self.assertIn("too many", self.unavailable(self.register(1)))
        self.store._writer._waiting = 0
        self.do(self.register(2))

    def test_trouble_is_logged_once(self) -> None:
        """The operator reads when writing began to fail and when it worked again, no more."""
        events = self.logged()
        self.other.execute("BEGIN IMMEDIATE")
        for number in range(3):
            self.unavailable(self.register(number, "canary"))
        self.other.execute("ROLLBACK")
        for number in range(3):
            self.do(self.register(number, "canary"))
        formats = [event["log_format"] for event in events if "store" in event["log_namespace"]]
        self.assertEqual(
            formats,
            ["The store cannot be {what}: {reason}", "The store can be {what} again"],
        )
        self.assertNotIn("canary", repr(events))

    def test_damage_while_running(self) -> None:
        """A database that breaks under the daemon fails calls, and says why without a value."""
        self.do(self.register(1))
        events = self.logged()
        self.other.execute("DROP TABLE devices")
        canary = Identity(None, "canary")
        self.unavailable(self.store.find(ONE, canary, None))
        failure = self.store.register(1, canary, Kind.FCM, "canary", None, 1.0)
        self.unavailable(failure)
        self.assertIsNotNone(self.do(self.store.server(ONE)))
        self.assertNotIn("canary", repr(events))

    def test_server_gone_meanwhile(self) -> None:
        """A phone of a server that an operator just deleted is not stored; the caller retries."""
        self.other.execute("DELETE FROM servers")
        self.unavailable(self.register(1))
        self.assertEqual(self.users(), set())

    def test_file_replaced(self) -> None:
        """A file that was moved away under the daemon makes it unready, not silently lossy."""
        self.do(self.store.ping())
        self.path.rename(self.directory / "elsewhere.db")
        self.assertIn("moved or deleted", self.unavailable(self.store.ping()))
        shutil.copy(self.directory / "elsewhere.db", self.path)
        self.assertIn("moved or deleted", self.unavailable(self.store.ping()))


class ClosingTests(WriterCase):
    """A daemon that stops."""

    def test_finishes_what_was_asked_for(self) -> None:
        """Writes asked for before the stop are on disk after it, in one file."""
        writes = [self.register(number) for number in range(50)]
        self.do(self.store.close())
        for write in writes:
            self.successResultOf(write)
        self.assertEqual(self.users(), set(range(50)))

    def test_asking_after_the_stop(self) -> None:
        """A closed store refuses whatever is asked of it, also to close again."""
        self.do(self.store.close())
        for late in (
            self.register(1),
            self.store.find(ONE, ALICE, None),
            self.store.sealed_devices(1, [b"12345678"]),
            self.store.upload(1, an_upload(), 1.0),
            self.store.secret(),
            self.store.ping(),
            self.store.close(),
        ):
            self.assertEqual(self.unavailable(late), "closed")

    def test_thread_ends(self) -> None:
        """No thread of ours outlives the stop."""
        thread = self.store._writer._thread
        assert thread is not None
        self.assertTrue(thread.is_alive())
        self.do(self.store.close())
        self.assertFalse(thread.is_alive())


class EventsTests(WriterCase):
    """The record of what happened to a server's registration."""

    def events(self) -> list[tuple[str, float]]:
        return self.other.execute(
            "SELECT event, happened_at FROM server_events ORDER BY id"
        ).fetchall()

    def update(self, hostname: str, key: bytes | None, now: float) -> None:
        self.do(self.store.update_server(ONE, hostname, "e@example.org", key, now))

    def test_life_of_a_server(self) -> None:
        """Registration, changed facts and changed keys are recorded with their times."""
        self.update("new.example.org", None, 2.0)
        self.update("new.example.org", b"n", 3.0)
        self.update("newer.example.org", b"m", 4.0)
        self.assertEqual(
            self.events(),
            [
                ("created", 1.0),
                ("updated", 2.0),
                ("key_rotated", 3.0),
                ("updated", 4.0),
                ("key_rotated", 4.0),
            ],
        )

    def test_nothing_changed(self) -> None:
        """A server that registers again as it was adds nothing to its record."""
        self.update("one.example.org", None, 2.0)
        self.update("one.example.org", b"k", 3.0)
        self.assertEqual(self.events(), [("created", 1.0)])

    def test_refused(self) -> None:
        """What was refused is not recorded as done."""
        self.do(self.store.add_server("u", "two.example.org", "e@example.org", b"k", 2.0))
        again = self.store.add_server("v", "two.example.org", "e@example.org", b"k", 3.0)
        taken = self.store.update_server(ONE, "two.example.org", "e@example.org", b"n", 4.0)
        for refused in (again, taken):
            self.mailbox.wait_for(refused)
            self.failureResultOf(refused, Conflict)
        self.assertEqual(self.events(), [("created", 1.0), ("created", 2.0)])

    def test_deactivated_server(self) -> None:
        """A deactivated server is told apart, frees its host name, and is not updated."""
        self.other.execute("UPDATE servers SET deactivated = 1")
        server = self.do(self.store.server(ONE))
        self.assertTrue(server.deactivated)
        self.assertIsNone(self.do(self.store.server_by_hostname("one.example.org")))
        update = self.store.update_server(ONE, "new.example.org", "e@example.org", None, 2.0)
        self.mailbox.wait_for(update)
        self.failureResultOf(update, Conflict)
        self.do(self.store.add_server("u", "one.example.org", "e@example.org", b"k", 2.0))
