"""A house whose daemon is a service: its socket, and what it leaves, are held by a supervisor."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.web.client import ResponseNeverReceived

from tests.house import House, reactor
from tests.supervisor import Instance, listening_socket

SOCKET = "bouncerd.socket"
NAME = "bouncerd-waiting"  # of what waits, in the descriptor store


class SupervisedHouse(House):
    """The daemon under supervision. `endpoint`: how its configuration names the socket."""

    def __init__(self, directory: Path, endpoint: str = "index=0", *, abstract: bool = False):
        super().__init__(directory)
        self.socket = listening_socket()
        inherited = f"systemd:domain=INET:{endpoint}"
        self.ini = self.ini.replace(f"tcp:{self.port}:interface=127.0.0.1", inherited)
        self.port = self.socket.getsockname()[1]
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [twistd, "-n", "--pidfile=", "bouncerd", "-c", str(self.config_file)]
        self.unit = Instance(
            reactor, command, {SOCKET: self.socket}, directory, self.log_file, abstract=abstract
        )

    async def start(self) -> None:
        """Start the daemon and wait until both providers are up."""
        self.write_config()
        await self.unit.start()
        assert self.unit.run.runs, self.log()
        await self.providers("up", "up")

    async def providers(self, apns: str, fcm: str) -> None:
        """Wait until they are so."""
        states: list[str] = []
        for _ in range(600):
            try:
                _, health = await self.health()
            except (ConnectError, ResponseNeverReceived):
                health = {}
            told = health.get("providers", {})
            states = [told[name]["state"] for name in ("apns", "fcm")] if told else []
            if states == [apns, fcm]:
                return
            await deferLater(reactor, 0.05)
        raise AssertionError(f"{states} {self.log()}")

    def write_config(self) -> None:
        """Write the configuration as it is now."""
        assert self.config_file.is_file()

    async def apple_goes(self) -> None:
        """Have Apple be out of reach."""
        await self._ports[0].stopListening()
        for connection in list(self.apns.connections):
            transport: Any = connection.transport
            transport.abortConnection()

    def apple_returns(self) -> None:
        """Have Apple answer where it did."""
        context = self.credentials.context()
        self._ports[0] = self.apns.listen(reactor, context, self.apns_port)

    async def stop(self) -> int:
        """End the daemon as a restart does; what it left is kept."""
        return await self.unit.end()

    async def waiting(self, count: int, provider: str = "apns") -> None:
        """Wait until so many pushes wait."""
        line = f'bouncerd_pushes_waiting{{provider="{provider}"}}'
        found = -1.0
        for _ in range(400):
            found = await self.metric(line)
            if found == count:
                return
            await deferLater(reactor, 0.05)
        raise AssertionError(f"{found} wait, not {count}")

    async def close(self) -> None:
        """Tear the house down."""
        self.unit.close()
        self.socket.close()
        await super().close()

    def lines(self) -> list[dict[str, Any]]:
        """All log lines of all runs."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def books(self) -> "Counter[str]":
        """Add up what all runs that came to a good end said of all pushes."""
        books: Counter[str] = Counter()
        for line in self.lines():
            if line["message"].startswith("In all through "):
                books[line["what"]] += line["count"]
        return books
