"""The schema as numbered steps, one file each; the text of them, not how they are run."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from bouncerd.store.base import StoreError


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the schema, run in one transaction."""

    number: int
    sql: str


def shipped_steps() -> tuple[Step, ...]:
    """Return the steps of this version of the program."""
    return read_steps(files("bouncerd.store").joinpath("schema"))


def read_steps(directory: Traversable) -> tuple[Step, ...]:
    """Read 0001.sql, 0002.sql and so on; a gap is a StoreError."""
    found = sorted(_numbered(directory.iterdir()))
    steps = tuple(Step(number, file.read_text("utf-8")) for number, _, file in found)
    if not steps or [step.number for step in steps] != list(range(1, len(steps) + 1)):
        raise StoreError("the installed schema files are not 0001.sql, 0002.sql and so on")
    return steps


def _numbered(entries: Iterable[Traversable]) -> Iterable[tuple[int, str, Traversable]]:
    for entry in entries:
        stem, _, suffix = entry.name.partition(".")
        if suffix == "sql" and stem.isdecimal():
            yield int(stem), entry.name, entry


def newest(steps: Iterable[Step]) -> int:
    """Return the version that a database has after all these steps."""
    return max(step.number for step in steps)
