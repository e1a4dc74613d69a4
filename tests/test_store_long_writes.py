"""Long writes on SQLite: an upload of 30,000 rows beside phones that register."""

from bouncerd.store import writer
from bouncerd.store.rows import Script, in_pieces
from bouncerd.uploads import Marks
from tests.test_store_contract import ALICE, ONE
from tests.test_store_uploads import a_count, a_whole, an_audit_row, an_upload
from tests.test_store_writer import GroupCommitCase


class LongWritesTests(GroupCommitCase):
    """Uploads beside registrations."""

    def marked(self, done: list[str], name: str) -> Script[None]:
        yield "SELECT 1", ()
        done.append(name)

    def test_short_ones_go_first(self) -> None:
        """Phones register before and between uploads that wait, and none waits for ever."""
        done: list[str] = []
        said = self.statements()
        gate = self.hold()
        put = self.store._writer.put
        writes = [put(self.marked(done, f"long {n}"), long=True) for n in range(2)]
        names = [f"short {n}" for n in range(writer.TOGETHER + 10)]
        writes += [put(self.marked(done, name)) for name in names]
        gate.set()
        for write in writes:
            self.do(write)
        self.assertEqual(
            done, [*names[: writer.TOGETHER], "long 0", *names[writer.TOGETHER :], "long 1"]
        )
        self.assertEqual(said.count("COMMIT"), 5)

    def test_long_ones_have_their_turn(self) -> None:
        """An upload is stored while phones register without a pause."""
        done: list[str] = []
        gate = self.hold()
        put = self.store._writer.put
        long = put(self.marked(done, "long"), long=True)
        writes = [put(self.marked(done, "short")) for _ in range(3 * writer.TOGETHER)]
        gate.set()
        for write in (long, *writes):
            self.do(write)
        self.assertLess(done.index("long"), 2 * writer.TOGETHER)

    def test_failing_long_one(self) -> None:
        """An upload that fails undoes itself, and what waits with it is stored."""
        gate = self.hold()
        failing = self.store._writer.put(self.half_done(), long=True)
        after = self.register(2)
        gate.set()
        self.do(after)
        self.mailbox.wait_for(failing)
        self.failureResultOf(failing, ZeroDivisionError)
        self.assertEqual(self.users(), {2})

    def test_stop_waits_for_long_ones(self) -> None:
        """Uploads asked for before the stop are stored."""
        done: list[str] = []
        gate = self.hold()
        writes = [
            self.store._writer.put(self.marked(done, f"long {n}"), long=True) for n in range(3)
        ]
        closing = self.store.close()
        gate.set()
        self.do(closing)
        for write in writes:
            self.successResultOf(write)
        self.assertEqual(done, ["long 0", "long 1", "long 2"])

    def test_pieces(self) -> None:
        """Rows are prepared and handed over some hundred at a time, so that others may run."""
        pieces = list(in_pieces("INSERT", ((n,) for n in range(1001))))
        self.assertEqual([len(piece.parameters) for piece in pieces], [500, 500, 1])
        self.assertEqual(list(in_pieces("INSERT", iter(()))), [])

    def test_biggest_upload(self) -> None:
        """While 30,000 rows are stored, look-ups are answered."""
        counts = [a_count(n, 60.0 * n) for n in range(1, 10_001)]
        whole = [a_whole(n, 60.0 * n) for n in range(1, 10_001)]
        audit = [an_audit_row(n, n % 50, n % 100) for n in range(1, 10_001)]
        upload = self.store.upload(1, an_upload(counts, whole, audit), 2000.0)
        beside = 0
        while self.mailbox.is_empty():
            self.do(self.store.find(ONE, ALICE, None))
            beside += 1
        self.assertEqual(self.do(upload), [])
        self.assertGreater(beside, 20)
        self.assertEqual(self.do(self.store.marks(1)), Marks(10_000, 10_000, 10_000))
        for table in ("realm_counts", "installation_counts", "audit_rows"):
            rows = self.other.execute(f"SELECT COUNT(*) FROM {table}").fetchall()
            self.assertEqual(rows, [(10_000,)])
