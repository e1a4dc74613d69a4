"""The daemon as a service: when it is ready, how it is watched, which sockets it takes."""

import json
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.house import reactor
from tests.supervisor import Instance, Process, listening_file, listening_socket


class Service:
    """An instance of the daemon that has no providers, and its sockets."""

    def __init__(self, directory: Path, listen: str) -> None:
        self.directory = directory
        self.log_file = directory / "log"
        self.sockets: dict[str, socket.socket] = {}
        config = directory / "bouncer.ini"
        store = directory / "bouncerd.db"
        config.write_text(
            f"[bouncerd]\nlisten = {listen}\nadmin_listen =\nstore = sqlite:{store}\n"
        )
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [twistd, "-n", "--pidfile=", "bouncerd", "-c", str(config)]
        self.unit = Instance(reactor, command, self.sockets, directory, self.log_file)

    def cannot_start(self) -> str:
        """Return the one line that says why."""
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines()]
        (line,) = [line["message"] for line in lines if line["level"] == "critical"]
        assert isinstance(line, str)
        return line

    def close(self) -> None:
        """Let go of all."""
        self.unit.close()
        for each in self.sockets.values():
            each.close()


@pytest.fixture
def services(tmp_path: Path) -> Iterator["list[Service]"]:
    """Return a list for services, which are closed afterwards."""
    made: list[Service] = []
    yield made
    for service in made:
        service.close()


def service(services: "list[Service]", tmp_path: Path, listen: str) -> Service:
    """Make a service; it is closed after the test."""
    services.append(Service(tmp_path, listen))
    return services[-1]


def answer(connected: socket.socket) -> bytes:
    """Ask for a page and return the status line."""
    with connected:
        connected.settimeout(10)
        connected.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return connected.recv(65536).partition(b"\r\n")[0]


@pytest_twisted.ensureDeferred
async def test_ready_and_status(services: "list[Service]", tmp_path: Path) -> None:
    """It says that it is ready when it can be asked, and how it is; and that it stops."""
    made = service(services, tmp_path, "systemd:domain=INET:index=0")
    made.sockets["bouncerd.socket"] = listening_socket()
    run = await made.unit.start()
    assert run.ready_at is not None
    assert answer(socket.create_connection(made.sockets["bouncerd.socket"].getsockname()))
    assert run.status == ["0 pushes wait"]
    assert await made.unit.end() == -signal.SIGTERM
    assert run.told.index("READY=1") < run.told.index("STOPPING=1")
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in run.told)


@pytest_twisted.ensureDeferred
async def test_the_watchdog_is_fed(services: "list[Service]", tmp_path: Path) -> None:
    """A daemon that works feeds its watchdog; one that hangs does not, and is ended."""
    made = service(services, tmp_path, "systemd:domain=INET:index=0")
    made.sockets["bouncerd.socket"] = listening_socket()
    made.unit.manner.watchdog = 2.0
    run = await made.unit.start()
    await deferLater(reactor, 2.5)
    assert (run.starved, len(run.fed) > 1) == (False, True), run.fed
    run.signal(signal.SIGSTOP)
    await made.unit.until(lambda: run.starved)
    run.signal(signal.SIGCONT)
    assert await made.unit.ended() == -signal.SIGABRT


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_survives(services: "list[Service]", tmp_path: Path) -> None:
    """A passed UNIX socket is neither closed, removed nor opened to others by a restart."""
    path = tmp_path / "socket"
    made = service(services, tmp_path, "systemd:domain=UNIX:name=api")
    made.sockets["api"] = listening_file(path)
    await made.unit.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for _ in range(2):
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(path))
        assert answer(connected).startswith(b"HTTP/1.1 40")
        await made.unit.end()
        early = socket.socket(socket.AF_UNIX)
        early.connect(str(path))
        await made.unit.start()
        assert answer(early).startswith(b"HTTP/1.1 40")


@pytest_twisted.ensureDeferred
async def test_several_instances_on_one_socket(services: "list[Service]", tmp_path: Path) -> None:
    """While one instance restarts, the others answer."""
    shared = listening_socket()
    for name in ("a", "b"):
        directory = tmp_path / name
        directory.mkdir()
        made = service(services, directory, "systemd:domain=INET:name=bouncerd.socket")
        made.sockets["bouncerd.socket"] = shared
        await made.unit.start()
    await services[0].unit.end()
    began = time.monotonic()
    assert answer(socket.create_connection(shared.getsockname()))
    assert time.monotonic() - began < 1
    await services[0].unit.start()
    await services[1].unit.end()
    assert answer(socket.create_connection(shared.getsockname()))


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("systemd:domain=INET:index=5", "no such socket was passed to us"),
        ("systemd:domain=INET:name=other", "no such socket was passed to us"),
        ("systemd:domain=INET6:index=0", "the passed socket is INET"),
        ("systemd:domain=INET:name=deaf", "the passed socket does not listen"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_sockets_that_do_not_fit(
    services: "list[Service]", tmp_path: Path, listen: str, why: str
) -> None:
    """A socket that is not what the configuration says is one line, and exit status 1."""
    made = service(services, tmp_path, listen)
    made.sockets |= {"bouncerd.socket": listening_socket(), "deaf": socket.socket()}
    run: Process = await made.unit.start()
    assert (run.ready_at, await made.unit.ended()) == (None, 1)
    assert made.cannot_start() == f"Cannot start: listen: {listen}: {why}"


@pytest_twisted.ensureDeferred
async def test_a_store_out_of_reach(services: "list[Service]", tmp_path: Path) -> None:
    """Without its database it listens and asks for time, and is not ready; it ends when asked."""
    made = service(services, tmp_path, "systemd:domain=INET:index=0")
    made.sockets["bouncerd.socket"] = listening_socket()
    config = tmp_path / "bouncer.ini"
    config.write_text(
        config.read_text().replace(f"sqlite:{tmp_path}/bouncerd.db", "postgresql://a@127.0.0.1:1/b")
    )
    run = made.unit.launch()
    await made.unit.until(lambda: len(run.told) >= 4)
    assert {line.partition("=")[0] for line in run.told} >= {"EXTEND_TIMEOUT_USEC"}
    assert "READY=1" not in run.told
    assert run.status[0].startswith("starting, the store is not open yet")
    assert answer(socket.create_connection(made.sockets["bouncerd.socket"].getsockname()))
    began = time.monotonic()
    assert await made.unit.end() == -signal.SIGTERM
    assert time.monotonic() - began < 10


@pytest_twisted.ensureDeferred
async def test_a_start_that_fails_late(tmp_path: Path) -> None:
    """What fails once the reactor runs is one line and exit status 1, too."""
    config = tmp_path / "bouncer.ini"
    config.write_text(
        f"[bouncerd]\nlisten = unix:{tmp_path}/api\nadmin_listen =\nstore = sqlite:{tmp_path}/db\n"
    )
    program = (
        "import sys; from bouncerd import tap; from twisted.scripts.twistd import run\n"
        "tap.reactor.callWhenRunning(tap._fail, 'store: canary', in_background=False)\n"
        f"sys.argv = ['twistd', '-n', '--pidfile=', 'bouncerd', '-c', {str(config)!r}]\n"
        "run()\n"
    )
    log = tmp_path / "log"
    unit = Instance(reactor, [sys.executable, "-c", program], {}, tmp_path, log)
    unit.launch()
    try:
        assert await unit.ended() == 1, log.read_text()
        assert log.read_text().count("Cannot start: store: canary") >= 1
        assert "Traceback" not in log.read_text()
    finally:
        unit.close()
