"""Which store an address means, and what can be said of it before it is opened."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from bouncerd.store.base import Store, StoreError
from bouncerd.store.sqlite import SQLiteStore

# An extra of the installation: SQLite needs none of it.
_POSTGRESQL = "bouncerd.store.postgres"


def make_store(address: str, reactor: Any, now: Callable[[], float]) -> Store:
    """Return the store of an address that the configuration accepts; or raise StoreError."""
    kind, _, place = address.partition(":")
    if kind == "sqlite":
        return SQLiteStore(Path(place), reactor, now)
    store: Store = _postgresql().PostgreSQLStore(address, reactor, now)
    return store


def look_at(address: str) -> list[str]:
    """Say what the operator should know beforehand, or raise StoreError: no start can succeed.

    It waits for a database.
    """
    kind, _, place = address.partition(":")
    if kind == "sqlite":
        return [] if Path(place).parent.is_dir() else ["its directory is not there (yet)"]
    driver = _postgresql()
    try:
        notes: list[str] = driver.look(address)
    except StoreError as error:
        return [str(error)]
    return notes


def _postgresql() -> Any:
    try:
        return import_module(_POSTGRESQL)
    except ImportError:
        raise StoreError(
            "PostgreSQL needs txpostgres and psycopg2: pip install 'bouncerd[postgresql]'"
        ) from None
