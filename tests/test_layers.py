"""Which module may import which: read from the code, so that it stays as it was meant."""

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PACKAGE = Path(__file__).parent.parent / "bouncerd"

# Top to bottom. A module imports from rows below its own: never up, never sideways.
ABOVE = """
tap
building
policy service
reloading
lanes api observing pages leaving
providers metrics
sealedpush strangers health summary succession
reading direct store.kinds
bouncer site registry
routes channel uploading store.sqlite store.postgres transfers mailboxes counting pruning limiter
lane oauth egress store.writer challenge dialling expiry
trying stock parting
job restraint
pool calls turns caution store.file store.upgrading resolving outcomes
links markup link tls deadline resting logs store.steps watch alerts notifying adopting
store.scripted store.refusals store.lookups store.transactions
store.statements store.devices store.sealing store.uploading store.counting
store.coalescing store.session store.addressing
redaction words store.base store.finding store.dialect
store.rows store.sockets
"""
# ------ Twisted above this line, none below
BELOW = """
sealed analytics billing
apns fcm wire bulk realms config enrolment proofs merging
bearer legacy forms basicauth sections fair ledger patience guard breaker seldom
pace hot probation
identifiers entitlement members http2 files settings listening answers limits bodies handover
envelope credentials ini control endings stream boxes headers addresses
frames fields uploads seals meters reasons passing tallies leasing cores
model
"""
ROWS = [row.split() for row in (ABOVE + BELOW).split("\n") if row]
ROW_OF = {module: number for number, row in enumerate(ROWS) for module in row}

# What only these modules know; "fakes" stands for all of bouncerd/fakes.
KNOWN_BY = {
    "klein": {"api"},
    "werkzeug": {"api"},
    "txpostgres": {"store.postgres"},
    "psycopg2": {"store.postgres"},
    "h2": {"control", "fakes"},
    "hyperframe": {"control", "fakes"},
    "hpack": {"headers", "fakes"},
    "nacl": {"boxes", "fakes"},
    "treq": {"oauth", "challenge"},
    "twisted.names": {"resolving", "building"},
    "sqlite3": {
        "fakes",
        "store.file",
        "store.sqlite",
        "store.statements",
        "store.steps",
        "store.writer",
    },
    "asyncio": set[str](),
    "twisted.internet.reactor": {"tap", "fakes"},
}
# A fake that shared the client's code would prove nothing about it.
NOT_IN_FAKES = {
    *("http2", "control", "endings", "fields", "frames", "stream"),
    *("link", "pool", "lane", "apns", "fcm", "bearer", "oauth"),
}
LONGEST_MODULE = 400


def name_of(path: Path) -> str:
    """Return a module's name under bouncerd: `store.sqlite`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield everything that a module imports, wherever it does, and the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}:{node.lineno}: a relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


MODULES = {
    name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"
}
FAKES = {name for name in MODULES if name.startswith("fakes.")}


def own(imported: str) -> str | None:
    """Return which module of ours an import names, `store.sqlite` for any name in it."""
    parts = imported.split(".")
    if parts[0] != "bouncerd":
        return None
    candidates = (".".join(parts[1:end]) for end in range(len(parts), 1, -1))
    return next((name for name in candidates if name in MODULES), None)


class LayerTests(SynchronousTestCase):
    """The drawing of the layers in docs/architecture.md is true."""

    def test_every_module_has_its_place(self) -> None:
        """A new module is placed in the table by whoever adds it, and an old one leaves it."""
        self.assertEqual(sorted(MODULES.keys() - FAKES - ROW_OF.keys()), [], "place them in a row")
        self.assertEqual(
            sorted(ROW_OF.keys() - MODULES.keys()), [], "there are no such modules (any more)"
        )

    def test_imports_point_down(self) -> None:
        """A reader who starts at the bottom never meets a name that he has not seen."""
        for name, path in MODULES.items():
            for imported, line in imports(path):
                target = own(imported)
                if name in ROW_OF and target in ROW_OF:
                    self.assertLess(
                        ROW_OF[name], ROW_OF[target], f"{name}:{line} imports {target}, not below"
                    )

    def test_twisted_stays_above(self) -> None:
        """What knows the protocols can be tested without a reactor: it has no Twisted."""
        pure = {module for row in BELOW.split("\n") for module in row.split()}
        for name in pure & MODULES.keys():
            for imported, line in imports(MODULES[name]):
                self.assertNotIn(imported.split(".")[0], ("twisted", "zope"), f"{name}:{line}")

    def test_model_is_plain(self) -> None:
        """The nouns need the standard library only."""
        for imported, line in imports(MODULES["model"]):
            self.assertIn(imported.split(".")[0], ("dataclasses", "enum", "typing"), str(line))

    def test_one_place_each(self) -> None:
        """Each library that may be replaced one day is known in one place."""
        for name, path in MODULES.items():
            place = "fakes" if name in FAKES else name
            for imported, line in imports(path):
                for library, places in KNOWN_BY.items():
                    if f"{imported}.".startswith(f"{library}."):
                        self.assertIn(place, places, f"{name}:{line} imports {library}")

    def test_reactor(self) -> None:
        """The reactor is chosen and named where objects are built, and nowhere else."""
        for name, path in MODULES.items():
            for imported, line in imports(path):
                if imported.startswith("twisted.internet.reactor"):
                    self.assertEqual(path.name, "tap.py", f"{name}:{line}")

    def test_fakes_stand_alone(self) -> None:
        """The stand-ins share no code with the client, and nothing needs them."""
        for name, path in MODULES.items():
            targets = {own(imported) for imported, _ in imports(path)}
            if name in FAKES:
                self.assertEqual(targets & NOT_IN_FAKES, set(), name)
            else:
                self.assertEqual(targets & FAKES, set(), name)


class HouseRuleTests(SynchronousTestCase):
    """What a reader may rely on everywhere."""

    def test_length(self) -> None:
        """No module is longer than can be read in one sitting."""
        lengths = {
            name: len(path.read_text(encoding="utf-8").splitlines())
            for name, path in MODULES.items()
        }
        longest = {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE}
        self.assertEqual(longest, {}, f"longer than {LONGEST_MODULE} lines: cut them in two")

    def test_empty_packages(self) -> None:
        """A package's own file says what it is, and holds nothing but a version."""
        for path in PACKAGE.rglob("__init__.py"):
            first, *rest = ast.parse(path.read_text(encoding="utf-8")).body
            self.assertTrue(isinstance(first, ast.Expr), str(path))
            self.assertTrue(all(isinstance(node, ast.Assign) for node in rest), str(path))
