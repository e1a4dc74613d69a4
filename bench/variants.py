"""The variants of the daemon that bench.daemon measures: configured, filled, started, ended."""

import argparse
import base64
import copy
import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.apns_by_haproxy import Running
from bouncerd.basicauth import digest
from bouncerd.fakes.credentials import KEY_ID, TEAM_ID
from bouncerd.model import Identity, Kind
from bouncerd.store.sqlite import SQLiteStore
from tests import postgres

ORG_ID, ORG_KEY = "5c1f8a52-3d0e-4b7e-9a51-0f2f6d1c7a10", "k" * 64
HOST, CONTACT, APP = "chat.example.org", "a@example.org", "org.example.app"
USERS = 5_000
_START_WITHIN, _STOP_WITHIN = 60.0, 30.0  # seconds

SCRIPT = """
local n = 0
wrk.method = "POST"
wrk.headers["Authorization"] = "Basic {auth}"
wrk.headers["Content-Type"] = "application/json"
function request()
  n = (n + 7919) % {users}
  local body = string.format('{body}', n, n)
  return wrk.format(nil, "/api/v1/remotes/push/notify", nil, body)
end
"""
BODY = (
    '{"user_id": %d, "user_uuid": null, "realm_uuid": null, "gcm_payload": {}, "gcm_options":'
    ' {"priority": "high"}, "android_devices": [], "apple_devices": [], "apns_payload": {"alert":'
    ' {"title": "Iago", "subtitle": "", "body": "Wherefore art thou? Deny thy father and refuse'
    ' thy name; or, if thou wilt not, be but sworn"}, "sound": "default", "badge": 0, "custom":'
    ' {"zulip": {"server": "chat.example.org", "realm_id": 2, "realm_uri":'
    ' "https://chat.example.org", "realm_url": "https://chat.example.org", "realm_name":'
    ' "Example", "user_id": %d, "sender_id": 4, "sender_email": "iago@example.org", "time":'
    ' 1795338928, "recipient_type": "private", "message_ids": [101]}}}}'
)
INI = """[bouncerd]
listen = systemd:INET:name=api
admin_listen = tcp:{{instance}}:interface=127.0.0.1
store = {store}
log_level = {level}
[limits]
requests_per_minute = 1000000000
[registration]
check_email_domain = no
[entitlement]
free_users = unlimited
[apns]
topics = {app}
key_file = {key}
key_id = {key_id}
team_id = {team_id}
url = https://localhost:{apns}
ca_file = {ca}
"""
_FILL = """
    INSERT INTO servers (uuid, hostname, contact_email, key_digest, created_at)
    VALUES ('{uuid}', '{host}', '{contact}', '\\x{digest}', {now});
    INSERT INTO devices (server_id, user_id, kind, token, token_key, app_id, registered_at)
    SELECT 1, u, 1, encode(sha256((u || '-' || n)::bytea), 'hex'),
           substr(sha256((u || '-' || n)::bytea), 1, 16), '{app}', {now}
    FROM generate_series(0, {users} - 1) u, generate_series(1, {devices}) n;
    ANALYZE
"""


def options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add what tells variants apart."""
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--processes", type=int, default=1)
    # One for all is what systemd passes; each its own (SO_REUSEPORT) shares connections out.
    parser.add_argument("--sockets", choices=("shared", "each"), default="shared")
    parser.add_argument("--log-level", choices=("normal", "verbose", "off"), default="normal")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--klein", action="store_true", help="no bouncerd, but a bare handler")
    parser.add_argument("--python", default=sys.executable, help="the interpreter")
    parser.add_argument("--code", default=str(Path.cwd()), help="a checkout to run bouncerd of")
    return parser


class Variants:
    """The one that is asked for; and one like it, but for the options of `against`."""

    def __init__(self, asked: argparse.Namespace, against: str | None) -> None:
        self.all = [asked]
        if against is not None:
            other = options(argparse.ArgumentParser(prog="--against"))
            self.all.append(other.parse_args(shlex.split(against), copy.copy(asked)))


class Variant:
    """Processes that run, and what loads them."""

    def __init__(self, asked: argparse.Namespace, directory: Path, number: int) -> None:
        self.asked = asked
        self.children: list[subprocess.Popen[bytes]] = []
        self.log, self.profile = directory / f"log{number}", directory / f"profile{number}"
        self.script = directory / f"load{number}.lua"
        auth = base64.b64encode(f"{ORG_ID}:{ORG_KEY}".encode()).decode()
        self.script.write_text(SCRIPT.format(auth=auth, users=USERS, body=BODY))
        self.config = directory / f"bouncer{number}.ini"
        self._sockets = [_listening(0, shared=asked.sockets == "each")]
        port = self._sockets[0].getsockname()[1]
        if asked.sockets == "each":
            self._sockets += [_listening(port, shared=True) for _ in range(1, asked.processes)]
        self.url = f"http://127.0.0.1:{port}"
        self._admin_ports: list[int] = []

    @property
    def name(self) -> str:
        """What it is, in words."""
        asked = self.asked
        if asked.klein:
            return "Klein alone"
        code = "" if asked.code == str(Path.cwd()) else f", code of {Path(asked.code).name}"
        return (
            f"{asked.store}, {asked.processes} processes, log {asked.log_level},"
            f" {asked.devices} devices, {asked.callers} callers{code}"
        )

    def start(self) -> None:
        """Start its processes."""
        for number in range(self.asked.processes):
            self._admin_ports.append(_free_port())
            descriptor = self._sockets[number % len(self._sockets)].fileno()
            with self.log.open("a") as log:
                child = subprocess.Popen(
                    self._command(self._admin_ports[-1], descriptor),
                    stderr=log,
                    cwd=self.asked.code,
                    env={**os.environ, "PYTHONPATH": self.asked.code},
                    pass_fds=[descriptor],
                )
            self.children.append(child)

    def _command(self, admin_port: int, descriptor: int) -> list[str]:
        program = str(Path(__file__).with_name("child.py"))
        words = [self.asked.python, "-P", program, "--cpu=0", f"--socket={descriptor}"]
        if self.asked.klein:
            return [*words, "--klein"]
        words += ["--unlogged"] if self.asked.log_level == "off" else []
        words += [] if self.children else [f"--profile={self.profile}"]
        twistd = ["--nodaemon", "--pidfile=", "bouncerd", f"--config={self.config}"]
        return [*words, *twistd, f"--instance={admin_port}"]

    def wait(self) -> None:
        """Return once all are ready."""
        by = time.monotonic() + _START_WITHIN
        if self.asked.klein:
            time.sleep(2)
        for port in [] if self.asked.klein else self._admin_ports:
            while not _is_ready(port):
                if any(child.poll() is not None for child in self.children):
                    raise SystemExit(self.log.read_text()[-3000:])
                assert time.monotonic() < by, self.log.read_text()[-3000:]
                time.sleep(0.1)

    def end(self) -> None:
        """End them; show what they complained of."""
        for child in self.children:
            child.send_signal(signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(_STOP_WITHIN)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for each in self._sockets:
            each.close()
        lines = self.log.read_text().splitlines()
        troubles = [
            line for line in lines if '"level": "error"' in line and "bouncerd.site" not in line
        ]
        print("\n".join(troubles[:3]), end="\n" if troubles else "")

    def cpu(self) -> list[float]:
        """Return the user and system seconds of each process so far."""
        return [_cpu(child.pid) for child in self.children]

    def delivered(self) -> float:
        """Return how many pushes were delivered so far."""
        return 0.0 if self.asked.klein else sum(map(_delivered, self._admin_ports))


class Workshop:
    """Makes variants, each with a store of its own."""

    def __init__(self, directory: Path, apns: Running, dsn: str) -> None:
        self._directory, self._apns = directory, apns
        self._dsn = dsn
        self._server: postgres.Server | None = None
        self._number = 0

    def close(self) -> None:
        """End the database server, if it is ours."""
        if self._server is not None:
            self._server.remove()

    @contextmanager
    def started(self, asked: argparse.Namespace) -> Iterator[Variant]:
        """Run a variant, with a server and its users' phones in its store."""
        self._number += 1
        variant = Variant(asked, self._directory, self._number)
        store = self._store(asked, variant)
        try:
            variant.start()
            variant.wait()
            if store.startswith("postgresql:") and not asked.klein:
                _fill_postgresql(store, asked.devices)
            yield variant
        finally:
            variant.end()

    def _store(self, asked: argparse.Namespace, variant: Variant) -> str:
        path = self._directory / f"store{self._number}.db"
        store = f"sqlite:{path}"
        if asked.store == "postgresql" and not asked.klein:
            store = self._database()
        elif not asked.klein:
            assert asked.processes == 1, "SQLite is for one process"
            _fill_sqlite(path, asked.devices)
        credentials = self._apns.credentials
        variant.config.write_text(
            INI.format(
                store=store, level="normal" if asked.log_level == "off" else asked.log_level,
                app=APP, key=credentials.apns_key_file, key_id=KEY_ID, team_id=TEAM_ID,
                apns=self._apns.port, ca=credentials.ca_file,
            )
        )  # fmt: skip
        return store

    def _database(self) -> str:
        if not self._dsn:
            self._server = postgres.Server(shared_buffers="128MB", autovacuum="on")
            self._server.start()
            self._dsn = self._server.dsn()
        return postgres.Databases(self._dsn).create()


def _fill_sqlite(path: Path, devices: int) -> None:
    store = SQLiteStore(path, None, time.time)
    store.add_server(ORG_ID, HOST, CONTACT, digest(ORG_KEY), time.time())
    for user in range(USERS):
        for number in range(devices):
            token = hashlib.sha256(f"{user}-{number}".encode()).hexdigest()
            store.register(1, Identity(user, None), Kind.APNS, token, APP, time.time())
    store.close()


def _fill_postgresql(dsn: str, devices: int) -> None:
    facts = {"uuid": ORG_ID, "host": HOST, "contact": CONTACT, "digest": digest(ORG_KEY).hex()}
    fill = _FILL.format(**facts, now=time.time(), app=APP, users=USERS, devices=devices)
    postgres.run(dsn, *fill.split(";"))


def _listening(port: int, *, shared: bool) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), backlog=1024, reuse_port=shared)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _is_ready(port: int) -> bool:
    with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5).close()
        return True
    return False


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _delivered(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        for line in page.read().decode().splitlines():
            if line.startswith('bouncerd_pushes_ended_total{end="delivered",provider="apns"}'):
                return float(line.rpartition(" ")[2])
    raise SystemExit("no metrics")
