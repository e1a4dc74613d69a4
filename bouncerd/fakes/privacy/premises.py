"""Where the proof takes place: the daemon and the stand-ins as child processes, their own places.

DIRECTORY/fakes/   what the stand-ins write, and the operator's keys
DIRECTORY/home/    everything that the daemon may write to: its store, its directory, its /tmp
DIRECTORY/log      its standard output and standard error
"""

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request

import bouncerd
from bouncerd.fakes.privacy.keeper import Keeper
from bouncerd.fakes.zulip import DIRECT

APP = "org.example.app"
PATIENCE = 20.0  # seconds for a child to get ready, and for anything else to happen
_TWISTD = "from twisted.scripts.twistd import run; run()"
# What systemd does before it starts a program, but for the program: descriptors, limits.
_START = """
import os, resource, sys
for number, passed in enumerate(os.environ.pop("PASSED").split(","), 3):
    os.dup2(int(passed), number)
os.environ["LISTEN_PID"] = str(os.getpid())
most = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
"""


class Failed(Exception):
    """Why there is no proof, neither of the one nor of the other; for the person at the screen."""


class Child:
    """A program that was started, and is ended by its number."""

    def __init__(
        self,
        code: str,
        arguments: list[str],
        log: Path,
        cwd: Path,
        environ: dict[str, str] | None = None,
        passed: list[int] | None = None,
    ) -> None:
        home = str(Path(bouncerd.__file__).parent.parent)
        path = os.pathsep.join([home, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self._log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                [sys.executable, "-c", code, *arguments],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environ or {}), "PYTHONPATH": path},
                pass_fds=passed or (),
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait_for(self, what: str, ready: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Wait until `ready` returns something true, and return it; raise Failed otherwise."""
        until = time.monotonic() + seconds
        while not (found := ready()):
            status = self._process.poll()
            if status is not None or time.monotonic() > until:
                ended = "" if status is None else f" (it has ended with status {status})"
                tail = self._log.read_text("utf-8", "replace")[-2000:]
                raise Failed(f"{what}: not in time{ended}\n{tail}")
            time.sleep(0.02)
        return found

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def end(self, by: signal.Signals) -> int:
        """Send a signal and wait for the end; return the exit status."""
        self.send(by)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise Failed(f"{by.name} did not end it in {PATIENCE:.0f} s") from None


class Premises:
    """The daemon's surroundings. `prelude` is Python that its process runs before anything else."""

    def __init__(self, directory: Path, prelude: str = "") -> None:
        self.home = directory / "home"
        self.store = self.home / "bouncerd.db"
        self.log = directory / "log"
        self.prelude = prelude
        self._fakes_home = directory / "fakes"
        for place in (self.home / "tmp", self.home / "cwd", self._fakes_home):
            place.mkdir(parents=True)
        self.e2ee_key = secrets.token_bytes(32)
        self._e2ee_file = self._fakes_home / "e2ee.keys"
        self._e2ee_file.touch(0o600)
        self._e2ee_file.write_text(base64.b64encode(self.e2ee_key).decode())
        self._config = directory / "bouncer.ini"
        self._admin = f"127.0.0.1:{_free_port()}"
        self.keeper = Keeper(directory)
        self._children: list[Child] = []
        self._fakes, self._fakes_admin = self._start_fakes()

    @property
    def secrets(self) -> list[Path]:
        """Return the operator's files with private keys."""
        names = ("*.p8", "service-account.json", "e2ee.keys")
        return [path for name in names for path in self._fakes_home.glob(name)]

    # --- the daemon

    @property
    def daemon(self) -> Child:
        """The daemon, which runs."""
        return self._children[-1]

    def start(self) -> None:
        """Start the daemon, and wait until it is ready and both providers are up."""
        environ, passed = self.keeper.started()
        environ["TMPDIR"] = str(self.home / "tmp")
        arguments = ["-n", "--pidfile=", "bouncerd", "-c", str(self._config)]
        code = f"{_START}\n{self.prelude}\n{_TWISTD}"
        daemon = Child(code, arguments, self.log, self.home / "cwd", environ, passed)
        self._children.append(daemon)
        for each in passed:
            os.close(each)
        daemon.wait_for("the daemon is not ready", self.keeper.is_ready)
        daemon.wait_for("the providers are not up", self._are_up)

    def configure(self, *, verbose: bool) -> None:
        """Write the daemon's configuration, after that which the stand-ins suggest."""
        lines = (self._fakes_home / "bouncer.ini").read_text("utf-8").splitlines()
        level = "verbose" if verbose else "normal"
        lines[lines.index("[bouncerd]") + 1 : lines.index("[registration]")] = [
            "listen = systemd:INET:name=bouncerd",
            f"admin_listen = tcp:{self._admin.replace('127.0.0.1:', '')}:interface=127.0.0.1",
            f"store = sqlite:{self.store}",
            f"log_level = {level}",
        ]
        lines += ["[e2ee]", f"private_keys = {self._e2ee_file}"]
        lines += ["[limits]", "requests_per_minute = 100000", "registrations_per_hour = 100000"]
        self._config.write_text("\n".join(lines), "utf-8")

    def reload(self, *, verbose: bool) -> None:
        """Change the level of the log while the daemon runs."""
        self.configure(verbose=verbose)
        size = self.log.stat().st_size
        self.daemon.send(signal.SIGHUP)
        self.daemon.wait_for("no reload", lambda: self.log.stat().st_size > size)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """End the daemon; return its exit status."""
        return self._children.pop().end(by)

    def page(self, path: str) -> bytes:
        """Fetch a page of the daemon's admin listener."""
        with DIRECT.open(f"http://{self._admin}{path}", timeout=PATIENCE) as answer:
            return bytes(answer.read())

    def close(self) -> None:
        """End all that was started."""
        for child in (*self._children, self._fakes):
            child.end(signal.SIGKILL)
        self.keeper.close()

    # --- the providers

    def rule(self, provider: str, token: str, *steps: dict[str, Any]) -> None:
        """Have a provider do something else with what goes to tokens that begin so."""
        self.tell("POST", "/rules", {"provider": provider, "match": {"token": token}, "do": steps})

    def received(self) -> dict[str, list[dict[str, Any]]]:
        """Return all that the providers received, whole."""
        answer: dict[str, list[dict[str, Any]]] = self.tell("GET", "/received")
        return answer

    def tell(self, method: str, path: str, content: object = None) -> Any:
        """Ask something of the stand-ins."""
        body = None if content is None else json.dumps(content).encode()
        request = Request(f"{self._fakes_admin}{path}", body, method=method)  # noqa: S310 - loopback
        with DIRECT.open(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def _start_fakes(self) -> tuple[Child, str]:
        options = {
            "directory": str(self._fakes_home),
            "received": str(self._fakes_home / "received.jsonl"),
            "topic": APP,
            "apns-latency": "0-2",
            "fcm-latency": "0-2",
        }
        arguments = ["-n", "--pidfile=", "bouncerd-fakes"]
        arguments += [f"--{name}={value}" for name, value in options.items()]
        fakes = Child(_TWISTD, arguments, self._fakes_home / "log", self._fakes_home)
        ready = self._fakes_home / "ready.json"
        fakes.wait_for("the stand-ins are not up", ready.exists)
        return fakes, json.loads(ready.read_text("utf-8"))["admin"]

    def _are_up(self) -> bool:
        try:
            providers = json.loads(self.page("/health/ready"))["providers"].values()
        except (OSError, ValueError, KeyError):
            return False
        return all(provider["state"] == "up" for provider in providers)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
