"""What PostgreSQL's clients do with one connection: kept, given up, made again; by a fake one."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.meters import Timings
from bouncerd.model import Found, Identity
from bouncerd.store.base import Conflict, StoreUnavailable
from bouncerd.store.lookups import Lookups
from bouncerd.store.rows import DEVICE, REALM, SERVER, Many, Row, Script
from bouncerd.store.session import PATIENCE, Again, Connection, Lost, ReadOnly, Session
from bouncerd.store.transactions import Transactions

ALICE = Identity(7, None)


class FakeConnection:
    """A connection whose answers the test gives."""

    def __init__(self, lost: Callable[[Connection], None]) -> None:
        self.asked: list[str] = []
        self.parameters: list[Sequence[object]] = []
        self.lost = lost
        self.closed = False
        self._waiting: Deferred[list[Row]] | None = None

    def run(self, statement: str, parameters: Sequence[object] = ()) -> Deferred[list[Row]]:
        assert self._waiting is None, "two statements at once"
        assert not self.closed
        self.asked.append(statement)
        self.parameters.append(parameters)
        self._waiting = Deferred()
        return self._waiting

    def answer(self, rows: Sequence[Row] = ()) -> None:
        waiting, self._waiting = self._waiting, None
        assert waiting is not None, "nothing was asked"
        waiting.callback(list(rows))

    def fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        assert waiting is not None, "nothing was asked"
        waiting.errback(error)

    def close(self) -> None:
        self.closed = True
        if self._waiting is not None:
            self.fail(Lost())


class SessionCase(SynchronousTestCase):
    """A clock, and a server that the test plays."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.made: list[FakeConnection] = []
        self.dialled: deque[Deferred[Connection]] = deque()
        self.lost: deque[Callable[[Connection], None]] = deque()
        self.lookups = Lookups(self.clock, Timings())
        self.writes = Transactions(self.clock, Timings(), 3)

    def dial(self, lost: Callable[[Connection], None]) -> Deferred[Connection]:
        self.dialled.append(Deferred())
        self.lost.append(lost)
        return self.dialled[-1]

    def session(self, work: Any, **more: Any) -> Session:
        session = Session("used", self.dial, work, self.clock, **more)
        self.up = session.start()
        return session

    def accept(self) -> FakeConnection:
        """Let the server accept a connection that is being made."""
        connection = FakeConnection(self.lost.popleft())
        self.made.append(connection)
        self.dialled.popleft().callback(connection)
        return connection

    def refuse(self, reason: str) -> None:
        self.lost.popleft()
        self.dialled.popleft().errback(StoreUnavailable(reason))

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds / 0.05))

    def why(self, deferred: Deferred[Any]) -> str:
        return str(self.failureResultOf(deferred, StoreUnavailable).value)


def a_row(number: int, uuid: str) -> Row:
    """Return a row of a look-up that found a server without devices."""
    server: list[Any] = [None] * len(SERVER)
    server[0], server[1], server[4], server[5] = number, uuid, b"k", 0
    return (number, *server, *[None] * (len(REALM) + len(DEVICE)))


class LookupsTests(SessionCase):
    """Reads that share a connection."""

    def setUp(self) -> None:
        super().setUp()
        self.reading = self.session(self.lookups, beats=True)
        self.connection = self.accept()

    def find(self, uuid: str) -> Deferred[Found]:
        found = self.lookups.find((uuid, ALICE, None))
        self.reading.wake()
        return found

    def test_together(self) -> None:
        """What comes in while the connection is busy goes as one statement, each its answer."""
        finds = [self.find(str(n)) for n in range(6)]
        self.assertEqual(len(self.connection.asked), 1)
        self.connection.answer([a_row(1, "0")])
        self.assertEqual(self.connection.parameters[1][0], '{"1","2","3","4","5"}')
        self.connection.answer([a_row(n, str(n)) for n in (4, 2, 1)])
        servers = [self.successResultOf(find).server for find in finds]
        self.assertEqual(
            [server and server.uuid for server in servers], ["0", "1", "2", None, "4", None]
        )

    def test_other_reads_have_their_turn(self) -> None:
        """A stream of look-ups does not hold up other reads."""
        self.find("0")
        other = self.lookups.read([("SELECT ?", (1,)), ("SELECT 2", ())], lambda rows: rows)
        for n in range(3):
            self.find(str(n))
            self.connection.answer([(n,)] if n else [])
        self.assertEqual(self.connection.asked[1:3], ["SELECT %s", "SELECT 2"])
        self.assertEqual(self.successResultOf(other), [(1,), (2,)])

    def test_asked_again(self) -> None:
        """A look-up of a connection that was lost is asked of the next; its caller waits."""
        find = self.find("0")
        self.connection.fail(Lost())
        self.pass_time(0.1)
        self.accept().answer([a_row(1, "0")])
        found = self.successResultOf(find)
        self.assertEqual(found.server and found.server.uuid, "0")

    def test_no_answer(self) -> None:
        """Who waits longer than is good is told, later ones at once; the connection is replaced."""
        find = self.find("0")
        self.pass_time(1.0)
        later = self.find("1")
        self.pass_time(PATIENCE - 0.5)
        self.assertEqual(self.why(find), "no answer in time")
        self.assertEqual(self.why(later), "no answer in time")
        self.assertEqual(str(self.reading.refusal()), "no answer in time")
        self.assertTrue(self.connection.closed)
        self.flushLoggedErrors()
        self.pass_time(0.5)
        self.accept()
        self.assertIsNone(self.reading.refusal())

    def test_late_answer(self) -> None:
        """An answer that comes after its caller was told so goes nowhere, and breaks nothing."""
        self.pass_time(0.1)
        first = self.find("0")
        self.lookups.give_up("no answer in time")
        self.connection.answer([a_row(1, "0")])
        self.assertEqual(self.why(first), "no answer in time")
        second = self.find("1")
        self.connection.answer([])
        self.assertEqual(self.successResultOf(second), Found(None))

    def test_caller_who_lost_interest(self) -> None:
        """A caller who cancels is not answered; the statement goes on."""
        find = self.find("0")
        find.cancel()
        self.failureResultOf(find)
        self.connection.answer([a_row(1, "0")])

    def test_beats(self) -> None:
        """An idle connection is asked something, so that silence shows before a caller comes."""
        self.pass_time(1.5)
        self.assertEqual(self.connection.asked, ["SELECT 1"])
        self.connection.answer([(1,)])
        self.pass_time(1.5)
        self.assertEqual(len(self.connection.asked), 2)
        self.pass_time(PATIENCE + 0.5)
        self.assertIsNotNone(self.reading.refusal())

    def test_refused_statement(self) -> None:
        """What the server refuses fails for who asked, and the connection stays."""
        find = self.find("0")
        self.connection.fail(StoreUnavailable("out of memory"))
        self.assertEqual(self.why(find), "out of memory")
        self.assertFalse(self.connection.closed)

    def test_idle_loss(self) -> None:
        """A connection that ends while idle is made again before anybody asks."""
        self.lost.append(self.connection.lost)
        self.connection.lost(self.connection)
        self.lost.pop()
        self.pass_time(0.1)
        second = self.accept()
        self.find("0")
        self.assertEqual(len(second.asked), 1)

    def test_out(self) -> None:
        """While the server is away callers wait a little, then fail; the log says it once."""
        self.connection.lost(self.connection)
        find = self.find("0")
        for _ in range(8):
            self.pass_time(1.0)
            while self.dialled:
                self.refuse("connection refused")
        self.assertEqual(self.why(find), "connection refused")
        self.assertEqual(str(self.reading.refusal()), "connection refused")

    def test_close(self) -> None:
        """At the end what was asked for is answered, and nothing new is taken."""
        find = self.find("0")
        closing = self.reading.close()
        self.assertEqual(str(self.reading.refusal()), "closed")
        self.assertNoResult(closing)
        self.connection.answer([a_row(1, "0")])
        self.successResultOf(find)
        self.successResultOf(closing)
        self.assertTrue(self.connection.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_without_a_server(self) -> None:
        """Without a server there is nothing to wait for."""
        self.connection.lost(self.connection)
        find = self.find("0")
        self.successResultOf(self.reading.close())
        self.assertEqual(self.why(find), "closed")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TransactionsTests(SessionCase):
    """Writes that share a connection."""

    def setUp(self) -> None:
        super().setUp()
        self.writing = self.session(self.writes)
        self.connection = self.accept()

    def script(self, name: str) -> Script[str]:
        rows = yield f"WRITE {name} ?", (1,)
        if rows == [("odd",)]:
            raise ZeroDivisionError
        return name

    def put(self, *names: str) -> list[Deferred[str]]:
        puts = [self.writes.put(lambda name=name: self.script(name)) for name in names]  # type: ignore[misc]
        self.writing.wake()
        return puts

    def said(self) -> list[str]:
        """Return what was sent since asked last."""
        said, self.connection.asked = self.connection.asked, []
        return said

    def test_alone(self) -> None:
        """One write is a transaction without more ado, acknowledged after its COMMIT."""
        [a] = self.put("a")
        self.connection.answer()
        self.assertNoResult(a)
        self.connection.answer()
        self.assertEqual(self.successResultOf(a), "a")
        self.assertEqual(self.said(), ["BEGIN;WRITE a %s", "COMMIT"])

    def test_together(self) -> None:
        """Writes that wait share a transaction, each undone by itself."""
        self.put("a")
        b, c, d, e = self.put("b", "c", "d", "e")
        for _ in range(2):
            self.connection.answer()
        self.connection.answer()
        self.connection.fail(Conflict())
        self.connection.answer([("odd",)])
        self.connection.answer()
        self.assertEqual(
            self.said(),
            [
                *("BEGIN;WRITE a %s", "COMMIT"),
                "BEGIN;SAVEPOINT one;WRITE b %s",
                "RELEASE one;SAVEPOINT one;WRITE c %s",
                "ROLLBACK TO one;RELEASE one;SAVEPOINT one;WRITE d %s",
                "ROLLBACK TO one;RELEASE one;COMMIT",
                "BEGIN;WRITE e %s",
            ],
        )
        self.assertEqual(self.successResultOf(b), "b")
        self.failureResultOf(c, Conflict)
        self.failureResultOf(d, ZeroDivisionError)
        self.assertNoResult(e)

    def test_lost_before_commit(self) -> None:
        """What was not committed is done again on the next connection."""
        [a] = self.put("a")
        self.connection.fail(Lost())
        self.pass_time(0.1)
        second = self.accept()
        second.answer()
        second.answer()
        self.assertEqual(self.successResultOf(a), "a")

    def test_lost_in_commit(self) -> None:
        """Whether it is stored, nobody knows: it is not done again, and its caller is told so."""
        [a] = self.put("a")
        self.connection.answer()
        self.connection.fail(Lost())
        self.assertIn("while it was stored", self.why(a))
        self.pass_time(0.1)
        self.assertEqual(self.accept().asked, [])

    def test_in_the_way(self) -> None:
        """Writes that another process is in the way of are done again, one by one."""
        self.put("z")
        a, b = self.put("a", "b")
        self.connection.answer()
        self.connection.answer()
        self.connection.answer()
        self.connection.fail(Again())
        self.connection.answer()
        for _ in range(4):
            self.connection.answer()
        self.assertEqual(
            self.said()[4:],
            ["ROLLBACK", "BEGIN;WRITE a %s", "COMMIT", "BEGIN;WRITE b %s", "COMMIT"],
        )
        self.assertEqual((self.successResultOf(a), self.successResultOf(b)), ("a", "b"))

    def test_always_in_the_way(self) -> None:
        """That has an end."""
        [a] = self.put("a")
        for _ in range(6):
            self.connection.fail(Again())
            self.connection.answer()
            self.pass_time(0.4)
        self.assertIn("in the way", self.why(a))

    def test_refused_commit(self) -> None:
        """A COMMIT that is refused stores nothing, and all are told."""
        [a] = self.put("a")
        self.connection.answer()
        self.connection.fail(StoreUnavailable("no space left"))
        self.connection.answer()
        self.assertEqual(self.why(a), "no space left")
        self.assertEqual(self.said()[-1], "ROLLBACK")

    def test_read_only(self) -> None:
        """Where nothing can be written it connects anew: there may be another server."""
        [a] = self.put("a")
        self.connection.fail(ReadOnly("read-only"))
        self.connection.answer()
        self.assertEqual(self.why(a), "read-only")
        self.assertTrue(self.connection.closed)

    def test_nobody_waits_any_more(self) -> None:
        """A write whose caller was told 503 before it began is not done behind his back."""
        self.put("a")
        [b] = self.put("b")
        self.writes.give_up("no answer in time", -1.0)
        b.cancel()
        self.failureResultOf(b)
        self.connection.answer()
        self.connection.answer()
        self.assertEqual(len(self.said()), 2)

    def test_nothing_sent(self) -> None:
        """A script that refuses its values costs the server nothing."""

        def refuses() -> Script[None]:
            raise ValueError
            yield

        refused = self.writes.put(refuses)
        self.writing.wake()
        self.failureResultOf(refused, ValueError)
        self.assertEqual(self.said(), [])

    def test_many(self) -> None:
        """One statement for many parameters is sent at once."""

        def many() -> Script[None]:
            yield Many("ADD ?", [(1,), (2,), (3,)])

        self.writes.put(many)
        self.writing.wake()
        self.assertEqual(self.said(), ["BEGIN;ADD %s;ADD %s;ADD %s"])
        self.assertEqual(self.connection.parameters, [[1, 2, 3]])
