"""The whole daemon behind a real HTTP proxy (tinyproxy), which dies and comes back."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.house import House, free_port, reactor
from tests.traffic import Load, delivered, furnished, hears

Rent = Callable[..., House]

PROGRAM = shutil.which("tinyproxy")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Debian's tinyproxy")


class TinyProxy:
    """One proxy, as a child; `extra` are lines of its configuration."""

    def __init__(self, directory: Path, *extra: str) -> None:
        self.port = free_port()
        self.log_file = directory / "tinyproxy.log"
        self._config = directory / "tinyproxy.conf"
        lines = [
            f"Port {self.port}",
            "Listen 127.0.0.1",
            "Timeout 600",
            "Allow 127.0.0.1",
            "LogLevel Connect",
            f'LogFile "{self.log_file}"',
            *extra,
        ]
        self._config.write_text("\n".join(lines) + "\n")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self._child = subprocess.Popen([str(PROGRAM), "-d", "-c", str(self._config)])

    def die(self) -> None:
        """End it, with all its connections, at once."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def asked_for(self, port: int) -> int:
        """Count how often it was asked for a port of this host."""
        said = self.log_file.read_text() if self.log_file.exists() else ""
        return said.count(f"CONNECT localhost:{port} ")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Callable[..., TinyProxy]]:
    """Return a way to start a proxy, which is ended afterwards."""
    started: list[TinyProxy] = []

    def start(*extra: str) -> TinyProxy:
        started.append(TinyProxy(tmp_path, *extra))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.die()


def behind(house: House, address: str) -> None:
    """Have the house's providers reached through a proxy."""
    for section in ("[apns]", "[fcm]"):
        house.ini = house.ini.replace(section, f"{section}\nproxy = http://{address}")


async def told(house: House, why: str) -> None:
    """Wait until the health page says this of Apple."""
    for _ in range(200):
        _, health = await house.health()
        if health["providers"]["apns"]["why"].startswith(why):
            return
        await deferLater(reactor, 0.05)
    raise AssertionError(f"{health} {house.log()}")


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_dies_and_returns(rent: Rent, proxy: Callable[..., TinyProxy]) -> None:
    """All goes through the proxy; while it is dead pushes wait, and then none is missing."""
    house, tiny = rent(), proxy()
    behind(house, f"127.0.0.1:{tiny.port}")
    await furnished(house)
    load = Load(house)
    load.start(2)
    await load.more(100)
    tiny.die()
    await told(house, "the proxy: connection refused")
    await load.more(100)
    tiny.start()
    await hears(house, "Provider apns is up", 2)
    await load.more(100)
    await load.stop()
    await delivered(house, load.sent)
    for port in (house.apns_port, house.fcm_port, house.token_port):
        assert tiny.asked_for(port) > 0
    assert house.apns.ledger.rules_broken() == []
    twice = len(house.apns.ledger.accepted()) - load.sent
    assert 0 <= twice <= 100, twice  # only what was in flight when the proxy died


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_wants_a_password(rent: Rent, proxy: Callable[..., TinyProxy]) -> None:
    """Without the right user and password the health page says so; with them, all is well."""
    house, tiny = rent(), proxy("BasicAuth me sesame")
    good = house.ini
    behind(house, f"me:wrong-canary@127.0.0.1:{tiny.port}")
    house.launch()
    await hears(house, "the proxy refuses: 40")
    await told(house, "the proxy refuses: 40")
    await house.stop()
    house.ini = good
    behind(house, f"me:sesame@127.0.0.1:{tiny.port}")
    await house.start()
    assert "canary" not in house.log()
    assert "sesame" not in house.log()
