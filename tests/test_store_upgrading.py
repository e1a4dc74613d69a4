"""The schema on PostgreSQL: the same as SQLite's, made once by many, older and newer ones."""

import re
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.model import Kind
from bouncerd.store.base import StoreError
from bouncerd.store.coalescing import parameters, told_apart
from bouncerd.store.dialect import for_postgresql, with_parameters
from bouncerd.store.postgres import PostgreSQLStore, look
from bouncerd.store.steps import Step, newest, shipped_steps
from tests import postgres
from tests.test_store_contract import ALICE, APP, ONE

reactor: Any = _reactor

NOW = shipped_steps()
NEXT = Step(
    newest(NOW) + 1,
    """
    ALTER TABLE devices ADD COLUMN model TEXT;  -- what kind of phone, in percent: 100 % new
    CREATE TABLE next (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, b BLOB) STRICT;
    """,
)
# What a step may do beside processes of the release before, which know nothing of it.
_ADDITIONS = (
    re.compile(r"CREATE (UNLOGGED )?TABLE "),
    re.compile(r"CREATE (UNIQUE )?INDEX "),
    re.compile(r"ALTER TABLE \w+ ADD COLUMN (?!.*NOT NULL(?!.*DEFAULT))"),
)


def columns_of_sqlite(steps: Sequence[Step]) -> dict[str, dict[str, tuple[str, bool]]]:
    """Return each table's columns: type, and whether NULL is refused."""
    connection = sqlite3.connect(":memory:")
    for step in steps:
        connection.executescript(step.sql)
    tables = [n for (n,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
    types = {"INTEGER": "bigint", "REAL": "double precision", "BLOB": "bytea", "TEXT": "text"}
    return {
        table: {
            name: (types[kind], bool(not_null or key))
            for _, name, kind, not_null, _, key in connection.execute(f"PRAGMA table_info({table})")
        }
        for table in tables
        if not table.startswith("sqlite_")
    }


def columns_of_postgresql(address: str) -> dict[str, dict[str, tuple[str, bool]]]:
    """Return the same of a database."""
    found: dict[str, dict[str, tuple[str, bool]]] = {}
    query = """
        SELECT table_name, column_name, data_type, is_nullable = 'NO'
        FROM information_schema.columns WHERE table_schema = current_schema()
    """
    for table, name, kind, not_null in postgres.run(address, query):
        found.setdefault(table, {})[name] = (kind, not_null)
    return found


def indexes_of(steps: Sequence[Step]) -> set[str]:
    """Return the names of the indexes that steps make."""
    return {name for step in steps for name in re.findall(r"INDEX (\w+) ON", step.sql)}


class UpgradingTests(SynchronousTestCase):
    """Databases of other versions, and those that are none of ours."""

    def setUp(self) -> None:
        self.address = postgres.shared().create()
        self.addCleanup(lambda: postgres.shared().drop(self.address))

    def store(self, steps: Sequence[Step] = NOW) -> PostgreSQLStore:
        return PostgreSQLStore(self.address, reactor, time.time, steps=steps)

    def opened(self, steps: Sequence[Step] = NOW) -> PostgreSQLStore:
        store = self.store(steps)
        pytest_twisted.blockon(store.open())
        self.addCleanup(lambda: pytest_twisted.blockon(store.close()))
        return store

    def refusal(self, steps: Sequence[Step] = NOW) -> str:
        with self.assertRaises(StoreError) as caught:
            self.opened(steps)
        return str(caught.exception)

    def steps(self) -> list[int]:
        rows = postgres.run(self.address, "SELECT step FROM schema_steps ORDER BY step")
        return [number for (number,) in rows]

    def test_same_as_sqlite(self) -> None:
        """Both databases have the same tables, columns and indexes."""
        self.opened()
        self.assertEqual(columns_of_postgresql(self.address), columns_of_sqlite(NOW))
        query = "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()"
        names = {name for (name,) in postgres.run(self.address, query)}
        self.assertEqual(indexes_of(NOW) - names, set())
        query = "SELECT relname FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r'"
        self.assertEqual(postgres.run(self.address, query), [("leases",)])

    def test_many_at_once(self) -> None:
        """Of many processes that start together one makes the schema, and all are served."""
        stores = [self.store((*NOW, NEXT)) for _ in range(5)]
        pytest_twisted.blockon(gatherResults([store.open() for store in stores]))
        pytest_twisted.blockon(gatherResults([store.ping() for store in stores]))
        self.assertEqual(self.steps(), [step.number for step in (*NOW, NEXT)])
        pytest_twisted.blockon(gatherResults([store.close() for store in stores]))

    def test_upgrade_beside_the_release_before(self) -> None:
        """Processes of the release before go on, with all they do, while a new one upgrades."""
        before = self.opened()
        pytest_twisted.blockon(before.add_server(ONE, "one.example.org", "e", b"k", 1.0))
        after = self.opened((*NOW, NEXT))
        self.assertEqual(self.steps()[-1], NEXT.number)
        for store, token in ((before, "aa"), (after, "bb"), (before, "cc")):
            pytest_twisted.blockon(store.register(1, ALICE, Kind.APNS, token, APP, 1.0))
        for store in (before, after):
            found = pytest_twisted.blockon(store.find(ONE, ALICE, None))
            self.assertEqual([device.token for device in found.devices], ["aa", "bb", "cc"])

    def test_steps_only_add(self) -> None:
        """A released step adds what the release before need not know, and changes nothing else."""
        for step in NOW[1:]:
            for statement in for_postgresql(step.sql).split(";"):
                words = " ".join(statement.split())
                allowed = any(addition.match(words) for addition in _ADDITIONS)
                self.assertTrue(allowed or not words, words)

    def test_step_by_step(self) -> None:
        """A database of each earlier version is upgraded, and keeps its rows."""
        postgres.run(
            self.address,
            for_postgresql(NOW[0].sql),
            "INSERT INTO schema_steps VALUES (1, 1)",
            "INSERT INTO servers (uuid, hostname, contact_email, key_digest, created_at)"
            f" VALUES ('{ONE}', 'one.example.org', 'e', 'k', 1)",
        )
        self.assertEqual(self.steps(), [1])
        newer = self.opened((*NOW, NEXT))
        found = pytest_twisted.blockon(newer.find(ONE, None, None))
        self.assertEqual(found.server and found.server.plan_type, 100)

    def test_newer_schema(self) -> None:
        """A database that a newer version has upgraded is refused at a start, in one line."""
        self.opened((*NOW, NEXT))
        self.assertIn(f"its schema is version {NEXT.number}", self.refusal())
        self.assertIn("install the newer one again", self.refusal())

    def test_failing_step(self) -> None:
        """A step that fails leaves the version before, whole."""
        broken = Step(NEXT.number, NEXT.sql + "INSERT INTO nowhere VALUES (1);")
        self.assertIn(f"schema step {NEXT.number} failed", self.refusal((*NOW, broken)))
        self.assertEqual(self.steps(), [step.number for step in NOW])
        self.assertNotIn("next", columns_of_postgresql(self.address))

    def test_not_ours(self) -> None:
        """A database with other tables is left alone."""
        postgres.run(self.address, "CREATE TABLE invoices (id int)")
        self.assertIn("without bouncerd's", self.refusal())
        self.assertEqual(look(self.address), [self.refusal()])

    def test_no_right_to_create(self) -> None:
        """A user who may not create tables learns that this is why."""
        postgres.run(self.address, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        postgres.run(
            self.address, "DROP ROLE IF EXISTS bouncerd_poor", "CREATE ROLE bouncerd_poor LOGIN"
        )
        self.address = re.sub(r"//[^@/]*@", "//bouncerd_poor@", self.address)
        self.assertIn("permission denied", self.refusal())

    # What --check tells.

    def test_look(self) -> None:
        """--check tells beforehand which steps a start will run, and runs none."""
        numbers = ", ".join(str(step.number) for step in NOW)
        self.assertEqual(look(self.address), [f"a start will run schema steps {numbers}"])
        self.opened()
        self.assertEqual(look(self.address), [])
        self.assertEqual(
            look(self.address, (*NOW, NEXT)), [f"a start will run schema steps {NEXT.number}"]
        )
        self.assertIn("install the newer", look(self.address, NOW[:-1])[0])

    def test_password_is_not_told(self) -> None:
        """Whatever is wrong with an address, its password is in no message and no repr."""
        for address in (
            "postgresql://u:canary@127.0.0.1:1/db?bogus=1",
            "postgresql://u:canary@127.0.0.1:1/db",
        ):
            self.assertNotIn("canary", str(look(address)))
        store = PostgreSQLStore("postgresql://u:canary@127.0.0.1:1/db", reactor, time.time)
        self.assertNotIn("canary", repr(store))
        with self.assertRaises(StoreError) as caught:
            PostgreSQLStore("postgresql://u:canary@127.0.0.1:1/db?bogus=1", reactor, time.time)
        self.assertNotIn("canary", str(caught.exception))


class SpellingTests(SynchronousTestCase):
    """Statements, and parameters of look-ups."""

    def test_statement(self) -> None:
        """A parameter is spelled for the driver, and a percent sign stays one."""
        self.assertEqual(with_parameters("a = ? AND b LIKE '%x'"), "a = %s AND b LIKE '%%x'")

    def test_odd_texts(self) -> None:
        """What servers send cannot leave its place in a look-up."""
        address = postgres.shared().create()
        self.addCleanup(lambda: postgres.shared().drop(address))
        odd = ['a"b', "a\\", "{}", "NULL", "a,b", "", " ", "'; --", "%s ?", "\n", "ü€😀"]
        servers, *_ = parameters((text, None, None) for text in odd)
        with postgres.connected(address) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT %s::text[]", (servers,))
            self.assertEqual(cursor.fetchone()[0], odd)

    def test_nothing_found(self) -> None:
        """A look-up that found nothing has its answer all the same."""
        self.assertEqual([found.server for found in told_apart([], 2)], [None, None])
