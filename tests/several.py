"""Several daemons on one PostgreSQL: a house, and more processes beside its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as _reactor
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.web.client import ResponseNeverReceived

from tests.house import House, free_port

reactor: Any = _reactor


class Several:
    """A house whose daemon has a store on PostgreSQL, and twins that share it."""

    def __init__(self, house: House, address: str, extra: str = "") -> None:
        self.house = house
        self.address = address
        house.ini = house.ini.replace(f"sqlite:{house.store_file}", address) + extra
        self._places = [(house.port, house.admin_port)]
        self._children: list[subprocess.Popen[bytes]] = []

    def at(self, number: int) -> House:
        """Return the house, its calls going to one of the daemons."""
        self.house.port, self.house.admin_port = self._places[number % len(self._places)]
        return self.house

    async def start(self, count: int) -> None:
        """Start so many daemons, and wait until all are ready."""
        self.house.launch()
        for number in range(1, count):
            self._launch(number)
        for number in range(count):
            await self.ready(number)

    def _launch(self, number: int) -> None:
        port, admin_port = free_port(), free_port()
        (first_port, first_admin), *_ = self._places
        ini = self.house.ini.replace(f"tcp:{first_port}:", f"tcp:{port}:")
        config = self.house.directory / f"bouncer-{number}.ini"
        config.write_text(ini.replace(f"tcp:{first_admin}:", f"tcp:{admin_port}:"))
        twistd = Path(sys.executable).with_name("twistd")
        command = [str(twistd), "-n", "--pidfile=", "bouncerd", "-c", str(config)]
        with self.house.log_file.open("ab") as log:
            root = Path(__file__).parent.parent
            self._children.append(subprocess.Popen(command, stderr=log, stdout=log, cwd=root))
        self._places.append((port, admin_port))

    async def ready(self, number: int, within: float = 30.0) -> None:
        """Wait until one of them says that it is ready."""
        by = reactor.seconds() + within
        while True:
            try:
                status, health = await self.at(number).health()
            except (ConnectError, ResponseNeverReceived):
                status, health = 0, {}
            if status == 200:
                return
            assert reactor.seconds() < by, f"not ready in time: {health} {self.house.log()}"
            await deferLater(reactor, 0.05)

    async def until(self, condition: Callable[[], Any], within: float) -> None:
        """Wait until something is so."""
        by = reactor.seconds() + within
        while not await condition():
            assert reactor.seconds() < by, f"not in time: {self.house.log()}"
            await deferLater(reactor, 0.05)

    async def get(self, number: int, path: str, server: tuple[str, str]) -> int:
        """GET something of the API as a server; return the status."""
        url = f"http://127.0.0.1:{self._places[number % len(self._places)][0]}"
        response = await treq.get(
            f"{url}/api/v1/remotes/{path}", auth=server, agent=self.house._agent, timeout=20
        )
        await response.content()
        return int(response.code)

    def close(self) -> None:
        """End the twins."""
        for child in self._children:
            if child.poll() is None:
                os.kill(child.pid, 9)
                child.wait()
