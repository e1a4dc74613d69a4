"""docs/privacy.md is true: it has what the store has, and what it tells people to do works."""

import re
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest_twisted
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.model import Identity, Kind
from bouncerd.pruning import COUNTS_KEPT, OUTCOMES_KEPT
from bouncerd.redaction import VOCABULARY
from bouncerd.store.postgres import PostgreSQLStore
from bouncerd.store.sqlite import SQLiteStore
from tests import postgres
from tests.house import reactor

PAGE = (Path(__file__).parent.parent / "docs" / "privacy.md").read_text("utf-8")
ORG = "5c1f8a52-3d0e-4b7e-9a51-0f2f6d1c7a10"
OTHER = "6c1f8a52-3d0e-4b7e-9a51-0f2f6d1c7a10"
IN_PAGE = "00000000-0000-4000-8000-000000000000"
_COLUMNS = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = current_schema()
"""


def described() -> dict[str, set[str]]:
    """Return the tables of the page, and their columns."""
    store = PAGE.partition("\n## The store\n")[2].partition("\n## ")[0]
    sections = re.split(r"^### (\w+)$", store, flags=re.MULTILINE)[1:]
    return {
        table: set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
        for table, text in zip(sections[::2], sections[1::2], strict=True)
    }


def recipes() -> list[str]:
    """Return the statements that the page has people execute, in its order."""
    return re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


class PageCase(SynchronousTestCase):
    """A live store in a file."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "bouncerd.db"
        self.store = SQLiteStore(self.path, None, lambda: 1000.0)
        self.addCleanup(lambda: self.successResultOf(self.store.close()))
        self.other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(self.other.close)

    def tables(self) -> dict[str, set[str]]:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        return {
            table: {row[1] for row in self.other.execute(f"PRAGMA table_info({table})")}
            for (table,) in self.other.execute(query).fetchall()
        }


class SchemaTests(PageCase):
    """What is stored."""

    def test_every_column(self) -> None:
        """The page has each column of the store, and no other."""
        self.assertEqual(described(), self.tables())

    def test_how_long(self) -> None:
        """Of each table it says how long and how to erase; and how long is what the code does."""
        store = PAGE.partition("\n## The store\n")[2].partition("\n## ")[0]
        for section in re.split(r"^### ", store, flags=re.MULTILINE)[1:]:
            self.assertIn("How long:", section)
            self.assertIn("Erase: ", section)
        self.assertIn(f"How long: {OUTCOMES_KEPT} days.", PAGE)
        self.assertIn(f"How long: {COUNTS_KEPT} days.", PAGE)

    def test_what_hangs_on_a_server(self) -> None:
        """Whatever bears a server's or a realm's number really goes with it."""
        for table, columns in self.tables().items():
            keys = self.other.execute(f"PRAGMA foreign_key_list({table})").fetchall()
            bound = {key[3] for key in keys if key[6] == "CASCADE"}
            for column in ("server_id", "realm_id"):
                if column in columns and not (column == "realm_id" and "server_id" in columns):
                    self.assertIn(column, bound, table)


@pytest_twisted.ensureDeferred
async def test_every_column_in_postgresql() -> None:
    """The page has each column that a PostgreSQL store has, and no other."""
    address = postgres.shared().create()
    store = PostgreSQLStore(address, reactor, time.time)
    await store.open()
    found: dict[str, set[str]] = {}
    for table, column in postgres.run(address, _COLUMNS):
        found.setdefault(table, set()).add(column)
    await store.close()
    postgres.shared().drop(address)
    assert described() == found


class ErasureTests(PageCase):
    """What the page has people do."""

    def setUp(self) -> None:
        super().setUp()
        for number, org in enumerate((ORG, OTHER)):
            added = self.store.add_server(org, f"{number}.example.org", "a@b.org", b"d", 1000.0)
            self.successResultOf(added)
            token = f"secret-token-{number}"
            stored = self.store.register(number + 1, Identity(5, None), Kind.FCM, token, None, 1.0)
            self.successResultOf(stored)

    def run_recipe(self, number: int, **values: str) -> None:
        text = recipes()[number]
        for old, new in values.items():
            text = text.replace({"org": IN_PAGE, "token": "the token"}[old], new)
        self.other.executescript(text)

    def files(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.path.parent.iterdir())

    def test_a_server(self) -> None:
        """A server goes with everything that bears its number, and leaves nothing in any file."""
        self.run_recipe(0, org=ORG)
        self.run_recipe(2)
        self.assertEqual(self.other.execute("SELECT server_id FROM devices").fetchall(), [(2,)])
        self.assertNotIn(b"secret-token-0", self.files())
        self.assertNotIn(ORG.encode(), self.files())
        self.assertIn(b"secret-token-1", self.files())

    def test_a_token(self) -> None:
        """A token goes wherever it is, and leaves nothing in any file."""
        self.run_recipe(1, token="Secret-Token-1")
        self.run_recipe(2)
        self.assertNotIn(b"secret-token-1", self.files())
        self.assertIn(b"secret-token-0", self.files())


class LogFieldTests(SynchronousTestCase):
    """What is logged."""

    def test_every_fact(self) -> None:
        """The page has each fact that a log line may have, once, and no other."""
        log = PAGE.partition("\n## The log\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| (`.*?) \|", log, re.MULTILINE)
        named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
        self.assertEqual(sorted(named), sorted(VOCABULARY))
