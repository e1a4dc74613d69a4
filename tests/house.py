"""A whole house: the daemon as a child of `twistd`, Apple's and Google's fakes over real TLS.

Everything is on loopback; the child is ended by its process id.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as _reactor
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool, ResponseNeverReceived

from bouncerd.fakes.apns import Apns
from bouncerd.fakes.credentials import KEY_ID, TEAM_ID, make
from bouncerd.fakes.fcm import Fcm
from bouncerd.fakes.google_tokens import TokenEndpoint

reactor: Any = _reactor

ORG_ID = "5c1f8a52-3d0e-4b7e-9a51-0f2f6d1c7a10"
ORG_KEY = "abcdefghijklmnop" * 4
USER = {"user_id": "17", "user_uuid": "3f6d2b1e-6a55-4f0e-8b1c-2c9a7f4e5d21"}
TOPIC = "org.example.app"


# Below what the system gives to connections and to port 0 (ip(7)), so that nothing takes a port
# between its choice and its use; from another place on in each process that runs tests.
_PORTS = cycle(range(10_000 + os.getpid() * 997 % 20_000, 32_000))


def free_port() -> int:
    """Return a port that nobody listens on now, and that this process has not named lately."""
    for port in islice(_PORTS, 2_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


class House:
    """The daemon, its providers and one Zulip server. `apns_mode`: token or certificate."""

    def __init__(self, directory: Path, apns_mode: str = "token") -> None:
        self.directory = directory
        self.log_file = directory / "log"
        self.store_file = directory / "bouncerd.db"
        self.port, self.admin_port = free_port(), free_port()
        credentials = self.credentials = make(directory, bundle_id=TOPIC)
        latency = (0.001, 0.010)
        self.apns = Apns(reactor, mode=apns_mode, keys=(credentials.apns_key,), latency=latency)
        self.tokens = TokenEndpoint(reactor, credentials.account)
        self.fcm = Fcm(reactor, credentials.account["project_id"], self.tokens, latency=latency)
        client = "required" if apns_mode == "certificate" else ""
        self._ports: list[Any] = [
            self.apns.listen(reactor, credentials.context(client=client)),
            self.fcm.listen(reactor, credentials.context()),
            self.tokens.listen(reactor, credentials.context(alpn=())),
        ]
        self.apns_port, self.fcm_port, self.token_port = (
            port.getHost().port for port in self._ports
        )
        credentials.address_account(f"https://localhost:{self.token_port}/token")
        proof = (
            f"key_file = {credentials.apns_key_file.name}\nkey_id = {KEY_ID}\nteam_id = {TEAM_ID}"
        )
        if apns_mode == "certificate":
            proof = f"cert_file = {credentials.client_file.name}"
        self.ini = f"""[bouncerd]
listen = tcp:{self.port}:interface=127.0.0.1
admin_listen = tcp:{self.admin_port}:interface=127.0.0.1
store = sqlite:{self.store_file}
[registration]
check_email_domain = no
[entitlement]
free_users = unlimited
[apns]
topics = {TOPIC}
{proof}
url = https://localhost:{self.apns_port}
ca_file = ca.pem
[fcm]
credentials = {credentials.account_file.name}
url = https://localhost:{self.fcm_port}
ca_file = ca.pem
"""
        self.child: subprocess.Popen[bytes] | None = None
        self._connections = HTTPConnectionPool(reactor, persistent=True)
        self._connections.maxPersistentPerHost = 32
        self._agent = Agent(reactor, connectTimeout=5, pool=self._connections)

    @property
    def config_file(self) -> Path:
        """The configuration, written anew."""
        path = self.directory / "bouncer.ini"
        path.write_text(self.ini)
        return path

    def launch(self, *extra: str, **how: Any) -> subprocess.Popen[bytes]:
        """Start the daemon, as an operator would; `how` is for Popen."""
        twistd = Path(sys.executable).with_name("twistd")
        command = [str(twistd), "-n", "--pidfile=", "bouncerd", "-c", str(self.config_file), *extra]
        command = self.wrapped(command)
        with self.log_file.open("ab") as log:
            root = Path(__file__).parent.parent
            self.child = subprocess.Popen(command, stderr=log, stdout=log, cwd=root, **how)
        return self.child

    def wrapped(self, command: list[str]) -> list[str]:
        """Return the command that starts the daemon, of the one that is the daemon."""
        return command

    async def start(self) -> None:
        """Start the daemon and wait until both providers are up."""
        self.launch()
        by = time.monotonic() + 20
        while time.monotonic() < by:
            assert self.child is not None
            assert self.child.poll() is None, self.log()
            try:
                _, health = await self.health()
            except (ConnectError, ResponseNeverReceived):
                health = {}
            providers = health.get("providers", {})
            if providers and all(each["state"] == "up" for each in providers.values()):
                return
            await deferLater(reactor, 0.05)
        raise AssertionError(f"not up in time: {health} {self.log()}")

    async def health(self) -> tuple[int, dict[str, Any]]:
        """Ask whether it is ready."""
        url = f"http://127.0.0.1:{self.admin_port}/health/ready"
        response = await treq.get(url, agent=self._agent, timeout=5)
        return response.code, json.loads(await response.content())

    async def metric(self, line: str) -> float:
        """Read one line of the metrics."""
        url = f"http://127.0.0.1:{self.admin_port}/metrics"
        response = await treq.get(url, agent=self._agent, timeout=5)
        for each in (await response.content()).decode().splitlines():
            if each.startswith(line + " "):
                return float(each.rpartition(" ")[2])
        raise AssertionError(f"no {line}")

    def log(self) -> str:
        """Everything the daemon has written."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    async def call(
        self,
        path: str,
        form: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        server: tuple[str, str] | None = (ORG_ID, ORG_KEY),
    ) -> tuple[int, dict[str, Any]]:
        """Call the API; return the status and the JSON."""
        headers: dict[bytes | str, bytes | str] = {}
        if server is not None:
            pair = base64.b64encode(":".join(server).encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        url = f"http://127.0.0.1:{self.port}/api/v1/remotes/{path}"
        if body is not None:
            headers["Content-Type"] = "application/json"
            data: Any = body if isinstance(body, bytes) else json.dumps(body).encode()
        else:
            data = dict(form or {})
        response = await treq.post(url, data=data, headers=headers, agent=self._agent, timeout=20)
        return response.code, json.loads(await response.content())

    async def enrol(self, org_id: str = ORG_ID, hostname: str = "chat.example.org") -> None:
        """Register a Zulip server."""
        form = {
            "zulip_org_id": org_id,
            "zulip_org_key": ORG_KEY,
            "hostname": hostname,
            "contact_email": f"admin@{hostname}",
        }
        status, answer = await self.call("server/register", form, server=None)
        assert (status, answer["created"]) == (200, True), answer

    async def add_phone(self, token: str, kind: int, org_id: str = ORG_ID, **user: str) -> None:
        """Register a phone of a user."""
        form = {"token": token, "token_kind": str(kind), **(user or USER)}
        if kind == 1:
            form["ios_app_id"] = TOPIC
        status, answer = await self.call("push/register", form, server=(org_id, ORG_KEY))
        assert status == 200, answer

    async def stop(self) -> int:
        """End the daemon with SIGTERM; return its exit status (twistd's: the signal's, -15)."""
        assert self.child is not None
        self.child.send_signal(signal.SIGTERM)
        by = time.monotonic() + 20
        while self.child.poll() is None and time.monotonic() < by:
            await deferLater(reactor, 0.02)
        return self.child.wait(1)

    async def close(self) -> None:
        """Tear the house down."""
        if self.child is not None and self.child.poll() is None:
            os.kill(self.child.pid, signal.SIGKILL)
            self.child.wait()
        await self._connections.closeCachedConnections()
        for connection in [*self.apns.connections, *self.fcm.connections]:
            transport: Any = connection.transport
            transport.abortConnection()
        for port in self._ports:
            await port.stopListening()
        await deferLater(reactor, 0)


def a_message(content: str = "Hello", **extra: Any) -> dict[str, Any]:
    """Return a notify body as a real server sends it for a message (bouncer-api.md 10.1, 11.1)."""
    base = {
        "server": "chat.example.org",
        "realm_id": 2,
        "realm_uri": "https://chat.example.org",
        "realm_url": "https://chat.example.org",
        "realm_name": "Example",
        "user_id": 17,
        "sender_id": 4,
        "sender_email": "iago@example.org",
        "time": 1_795_338_928,
        "recipient_type": "private",
    }
    return {
        "user_id": 17,
        "user_uuid": USER["user_uuid"],
        "realm_uuid": None,
        "gcm_payload": {
            **base,
            "event": "message",
            "zulip_message_id": 101,
            "content": content,
            "content_truncated": False,
            "sender_full_name": "Iago",
            "sender_avatar_url": "/avatar/4",
        },
        "apns_payload": {
            "alert": {"title": "Iago", "subtitle": "", "body": content},
            "sound": "default",
            "badge": 0,
            "custom": {"zulip": {**base, "message_ids": [101]}},
        },
        "gcm_options": {"priority": "high"},
        "android_devices": [],
        "apple_devices": [],
        **extra,
    }
