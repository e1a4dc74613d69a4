"""The store on PostgreSQL: many processes on many hosts, one truth, nothing cached.

The only module that knows the driver. Three connections: one reads, what waits going as one
statement; one writes, what waits going as one transaction; one is for uploads, which take long.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import parse_dsn
from twisted.internet.defer import CancelledError, Deferred, FirstError, fail, gatherResults
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from txpostgres import txpostgres

from bouncerd.model import Found, Identity
from bouncerd.store import statements, upgrading
from bouncerd.store.addressing import addressed
from bouncerd.store.base import Conflict, StoreError, StoreUnavailable
from bouncerd.store.coalescing import PREPARE
from bouncerd.store.lookups import Lookups
from bouncerd.store.refusals import CANCELLED, refused, unavailable
from bouncerd.store.rows import Row, Script, Statement, Value
from bouncerd.store.scripted import ScriptedStore
from bouncerd.store.session import Again, Connection, Lost, ReadOnly, Session
from bouncerd.store.sockets import Copies
from bouncerd.store.steps import Step, shipped_steps
from bouncerd.store.transactions import Transactions

log = Logger()

T = TypeVar("T")

WAITING = 10_000  # of each kind at most, so that a database that hangs does not fill the memory
_TOGETHER = 64  # writes in one transaction at most: what it locks is locked until its end
_CONNECT_TIME = 3.0  # seconds
_UPLOAD_PATIENCE = 60.0
_RETRY_OPEN = 0.5

# A peer that is gone without a word is noticed within seconds, also where nothing is sent.
_DEFAULTS = {
    "application_name": "bouncerd",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "5000",
}
# Not given as options of the connection, which poolers refuse. A transaction of a process that
# died gives its locks back, and a statement that nobody waits for any more ends.
_SETTINGS = """
    SET client_encoding = 'UTF8';
    SET jit = off;
    SET statement_timeout = 0;
    SET lock_timeout = '{lock}';
    SET idle_in_transaction_session_timeout = '10s';
"""
_CHECKED = "SET client_connection_check_interval = '5s'"
_FACTS = "SELECT pg_is_in_recovery(), current_setting('server_version_num')::int"
_OLDEST, _CHECKS = 120000, 140000

_ENDING = ("57P01", "57P02", "57P03", "57P05", "25P03")  # the server closes the connection


class PostgreSQLStore(ScriptedStore):
    """A `Store` on a PostgreSQL server, for any number of processes at once.

    Make it in the process that uses it. Until `open` has fired it can be asked nothing.
    """

    def __init__(
        self,
        address: str,
        reactor: Any,
        now: Callable[[], float],
        *,
        steps: Sequence[Step] | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`address` as libpq understands it, with its options for TLS; StoreError if it does not.

        It may hold a password, so it is in nothing that is said of it.
        """
        super().__init__(random)
        self._parameters = _parameters(address)
        self._reactor, self._now = reactor, now
        self._steps = shipped_steps() if steps is None else steps
        self._lookups = Lookups(reactor, self.timings)
        self._writes = Transactions(reactor, self.timings, _TOGETHER)
        self._uploads = Transactions(reactor, self.timings, 1)
        self._uploading = Session(
            *("uploaded to", self._dialled("20s"), self._uploads, reactor),
            answers_within=_UPLOAD_PATIENCE,
            patience=_UPLOAD_PATIENCE,
        )
        self._reading = Session(
            *("read", self._dialled("2500ms", PREPARE), self._lookups, reactor),
            beats=True,
            gone=self._uploading.restart,
        )
        self._writing = Session("written", self._dialled("2500ms"), self._writes, reactor)
        self._is_open = self._closed = False
        self._why_not = "not connected yet"

    def __repr__(self) -> str:
        return "<PostgreSQLStore>"

    def find(self, uuid: str, identity: Identity | None, realm_uuid: str | None) -> Deferred[Found]:
        """Find a server, any server's realm, and the server's devices of one user, at once."""
        refusal = self._refusal(self._reading, self._lookups)
        if refusal is not None:
            return fail(refusal)
        answer = self._lookups.find((uuid, identity, realm_uuid))
        self._reading.wake()
        return answer

    def open(self) -> Deferred[None]:
        """Bring the schema up to date, and connect; goes on trying while there is no server."""
        return Deferred.fromCoroutine(self._open())

    def ping(self) -> Deferred[None]:
        """Ask both connections something; fail unless the one can read and the other write."""
        pings = [self._read(statements.PING, _nothing), self._put(_can_write)]
        return gatherResults(pings, consumeErrors=True).addCallbacks(_nothing, _first_reason)

    def close(self) -> Deferred[None]:
        """Finish what was asked for, then let go of the connections."""
        self._closed = True
        sessions = self._reading, self._writing, self._uploading
        return gatherResults([session.close() for session in sessions]).addCallback(_nothing)

    async def _open(self) -> None:
        while not self._closed:
            try:
                await self._upgrade()
                break
            except (StoreUnavailable, Lost) as error:
                self._trouble(str(error) or "the connection was lost")
            await self._pause(_RETRY_OPEN)
        if self._closed:
            raise StoreUnavailable("closed")
        up = [self._reading.start(), self._writing.start()]
        self._uploading.start()
        self._is_open = True
        for session in up:
            await session

    async def _upgrade(self) -> None:
        """Connect for as long as it takes to look at the schema, and to upgrade it if need be."""
        link = await self._dial("3s", "", lambda _: None)
        try:
            await upgrading.bring_up_to_date(link.run, self._steps, self._now, self._pause)
        finally:
            link.close()

    def _pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds)

    def _trouble(self, reason: str) -> None:
        if reason != self._why_not:
            self._why_not = reason
            log.error("The store cannot be opened: {reason}", reason=reason)

    def _refusal(self, session: Session, waiting: Lookups | Transactions) -> Exception | None:
        if not self._is_open:
            return StoreUnavailable("closed" if self._closed else self._why_not)
        if len(waiting) >= WAITING:
            return StoreUnavailable("too many wait for the database")
        return session.refusal()

    def _read_all(
        self, statements: Iterable[Statement], understand: Callable[[list[Row]], T]
    ) -> Deferred[T]:
        refusal = self._refusal(self._reading, self._lookups)
        if refusal is not None:
            return fail(refusal)
        answer = self._lookups.read(tuple(statements), understand)
        self._reading.wake()
        return answer

    def _put(self, script: Callable[[], Script[T]], *, long: bool = False) -> Deferred[T]:
        session, work = self._writing, self._writes
        if long:
            session, work = self._uploading, self._uploads
        refusal = self._refusal(session, work)
        if refusal is not None:
            return fail(refusal)
        ended = work.put(script)
        session.wake()
        return ended

    def _clock(self) -> Statement:
        return "EXTRACT(EPOCH FROM clock_timestamp())::float8", ()

    def _dialled(
        self, lock: str, prepare: str = ""
    ) -> Callable[[Callable[[Connection], None]], Deferred[Connection]]:
        def dial(lost: Callable[[Connection], None]) -> Deferred[Connection]:
            return Deferred.fromCoroutine(self._dial(lock, prepare, lost))

        return dial

    async def _dial(
        self, lock: str, prepare: str, lost: Callable[[Connection], None]
    ) -> Connection:
        link = _Link(self._reactor, lost)
        timer = self._reactor.callLater(_CONNECT_TIME, link.close)
        try:
            await link.open(self._parameters)
            [(standby, version)] = await link.run(_SETTINGS.format(lock=lock) + _FACTS)
            if version < _OLDEST:
                raise StoreError("PostgreSQL is too old: 12 is needed")
            if standby:  # what is read there may be what was true before
                raise StoreUnavailable("a standby answers")
            await link.run(prepare + (_CHECKED if version >= _CHECKS else "SELECT 1"))
        except BaseException as error:
            link.close()
            if isinstance(error, Lost):
                raise StoreUnavailable("no answer in time") from None
            raise
        finally:
            if timer.active():
                timer.cancel()
        return link


class _Cursor(txpostgres.Cursor):  # type: ignore[misc]  # it has no types
    """The driver's cursor, which waits for the same socket as its connection."""

    def fileno(self) -> int:
        """Name it."""
        descriptor: int = self._connection.fileno()
        return descriptor


class _Wire(txpostgres.Connection):  # type: ignore[misc]  # it has no types
    """The driver's connection. It raises nothing into the reactor, and says when it has ended."""

    cursorFactory = _Cursor  # noqa: N815  (the driver's name for it)

    def __init__(self, reactor: Any, ended: Callable[[], None]) -> None:
        super().__init__(reactor)
        self._ended = ended
        self._copies = Copies()
        self._watched: list[Any] = [self]
        self._let_go = False

    def fileno(self) -> int:
        """Name a copy of libpq's socket; -1 has the reactor look for who we are."""
        if self._let_go:
            return -1
        try:
            return self._copies.of(self.pollable().fileno())
        except psycopg2.Error:  # closed
            return self._copies.of(-1)

    def cursor(self) -> Any:
        """Make a cursor, which is watched as we are."""
        cursor = super().cursor()
        self._watched.append(cursor)
        return cursor

    def close(self) -> None:
        """Have it watched no more, whatever became of libpq's sockets, and close it."""
        self._let_go = True
        for watched in self._watched:
            for _ in range(len(self._copies)):
                self.reactor.removeReader(watched)
                self.reactor.removeWriter(watched)
        self._copies.close()
        super().close()

    def doRead(self) -> None:  # noqa: N802  (the reactor's name for it)
        """Read what came unasked: as a rule the end."""
        try:
            super().doRead()
        except psycopg2.Error:
            self._ended()

    def connectionLost(self, reason: Failure) -> None:
        """Tell what runs, if something does."""
        super().connectionLost(reason)
        self._ended()


class _Link:
    """A `Connection` over the driver's: its errors in our words, without what they quote."""

    def __init__(self, reactor: Any, lost: Callable[[Connection], None]) -> None:
        self._wire = _Wire(reactor, self._ended)
        self._reactor = reactor
        self._lost = lost
        self._cursor: Any = None
        self._runs = self._closed = False

    async def open(self, parameters: Mapping[str, str]) -> None:
        """Connect; fail with StoreUnavailable, or with Hopeless."""
        parameters = await addressed(parameters, self._reactor)
        if self._closed:
            raise Lost
        try:
            await self._wire.connect(**parameters)
        except psycopg2.Error as error:
            raise refused(str(error)) from None
        except ConnectionDone:  # closed meanwhile
            raise Lost from None
        self._cursor = self._wire.cursor()

    def run(self, statement: str, parameters: Sequence[Value] = ()) -> Deferred[list[Row]]:
        """Run one statement, or several without rows and one."""
        self._runs = True
        ran: Deferred[Any] = self._cursor.execute(statement, parameters)
        return ran.addCallbacks(self._answered, self._troubled)

    def close(self) -> None:
        """Let go at once."""
        self._closed = True
        if self._wire.pollable() is not None:
            self._wire.close()

    def _answered(self, _: object) -> list[Row]:
        self._runs = False
        if self._closed:  # while the answer was on its way to us
            raise Lost
        cursor = self._cursor
        rows: list[Row] = [] if cursor.description is None else cursor.fetchall()
        return rows

    def _troubled(self, failure: Failure) -> Failure:
        self._runs = False
        code = getattr(failure.value, "pgcode", None) or ""
        if failure.check(CancelledError):  # as txpostgres says it
            code = CANCELLED
        elif not failure.check(psycopg2.Error, ConnectionDone):
            return failure
        if self._wire.closed or code in _ENDING:
            raise Lost
        if code == "23505":
            raise Conflict
        if code in ("40001", "40P01"):
            raise Again
        raise unavailable(code)

    def _ended(self) -> None:
        if not self._closed and not self._runs:
            self._lost(self)


def look(address: str, steps: Sequence[Step] | None = None) -> list[str]:
    """Say what an operator should know of a store before the daemon starts; this waits for it."""
    try:
        with closing(psycopg2.connect(**_parameters(address), connect_timeout=5)) as connection:
            cursor = connection.cursor()
            cursor.execute(upgrading.STATE)
            installed = 0
            if upgrading.judge(cursor.fetchone()):
                cursor.execute(upgrading.VERSION)
                [installed] = cursor.fetchone()
        missing = upgrading.missing(installed, shipped_steps() if steps is None else steps)
    except psycopg2.Error as error:
        return [str(refused(str(error)))]
    except StoreError as error:
        return [str(error)]
    numbers = ", ".join(str(step.number) for step in missing)
    return [f"a start will run schema steps {numbers}"] if missing else []


def _parameters(address: str) -> dict[str, str]:
    try:
        return {**_DEFAULTS, **parse_dsn(address), "client_encoding": "UTF8"}
    except psycopg2.Error:  # it quotes the address
        raise StoreError("not an address that PostgreSQL's library understands") from None


def _can_write() -> Script[None]:
    [(read_only,)] = yield "SHOW transaction_read_only", ()
    if read_only == "on":
        raise ReadOnly("read-only")


def _first_reason(failure: Failure) -> Failure:
    return failure.value.subFailure if isinstance(failure.value, FirstError) else failure


def _nothing(_: object) -> None:
    return None
