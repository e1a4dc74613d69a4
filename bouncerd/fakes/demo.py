"""`make demo` and `make run`: the daemon, stand-ins for Apple and Google, one message, two phones.

Everything runs on loopback, in child processes and a temporary directory that are gone at the
end. The exit status is 0 if both phones got the message.
"""

import argparse
import contextlib
import io
import json
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import bouncerd
from bouncerd.fakes.zulip import DIRECT, CallFailed, ZulipServer
from bouncerd.model import Kind

TWISTD = "from twisted.scripts.twistd import run; run()"
PATIENCE = 20.0  # seconds for a child to get ready, and for a push to arrive
SERVE_PORT, SERVE_ADMIN_PORT = 9090, 9091
APP = "org.example.app"
SENDER, TEXT = "Hamlet", "The play’s the thing. 🎭"
TAIL = 15  # lines of a log that are shown when something fails
NAMES = {"apns": "Apple’s stand-in", "fcm": "Google’s stand-in"}


class DemoFailed(Exception):
    """What went wrong, for the person at the screen; `log` is whose end to show."""

    def __init__(self, problem: str, log: Path | None = None) -> None:
        super().__init__(problem)
        self.log = log


class Child:
    """A `twistd` of our own, its log in a file."""

    def __init__(self, name: str, log: Path, *arguments: str) -> None:
        self.name = name
        self.log = log
        command = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", *arguments]
        home = Path(bouncerd.__file__).parent.parent
        with log.open("wb") as out:
            # Its own session: Ctrl-C is for us, who then stop the children in order.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                command, cwd=home, stdout=out, stderr=out, start_new_session=True
            )

    def wait_for(self, what: str, ready: Callable[[], Any]) -> Any:
        """Wait until `ready` returns something true; raises DemoFailed if that does not happen."""
        until = time.monotonic() + PATIENCE
        while True:
            found = ready()
            if found:
                return found
            status = self._process.poll()
            if status is not None:
                raise DemoFailed(f"{self.name} ended with status {status}", self.log)
            if time.monotonic() > until:
                raise DemoFailed(f"{self.name}: {what} not within {PATIENCE:.0f} s", self.log)
            time.sleep(0.02)

    def stop(self) -> None:
        """End it, if need be by force."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Stage:
    """The processes, and where they write."""

    def __init__(self, directory: Path, port: int, admin_port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.health = f"http://127.0.0.1:{admin_port}/health/ready"
        self.directory = directory
        self._received = directory / "received.jsonl"
        self._shown = 0  # lines of it
        self._ports = (port, admin_port)
        self._children: list[Child] = []

    def raise_curtain(self) -> None:
        """Start the stand-ins, then the daemon that is configured to talk to them."""
        for port in self._ports:
            _check_free(port)
        listen, admin_listen = (f"tcp:{port}:interface=127.0.0.1" for port in self._ports)
        with _timed("Apple’s and Google’s stand-ins are up"):
            fakes = self._start("bouncerd-fakes", *self._fake_options(listen, admin_listen))
            ready = self.directory / "ready.json"
            fakes.wait_for("the stand-ins are not ready", ready.exists)
            configuration = json.loads(ready.read_text("utf-8"))["configuration"]
        with _timed(f"bouncerd is up on {self.base}"):
            daemon = self._start("bouncerd", "bouncerd", "-c", configuration)
            daemon.wait_for("both providers are not reachable", self._is_ready)

    def lower_curtain(self) -> None:
        """Stop the processes, the daemon first."""
        while self._children:
            self._children.pop().stop()

    def received(self) -> list[dict[str, Any]]:
        """Return what the stand-ins received since the last time."""
        lines = self._received.read_text("utf-8").splitlines()
        fresh, self._shown = lines[self._shown :], len(lines)
        return [push for push in map(json.loads, fresh) if "provider" in push]

    def wait_for_pushes(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many pushes have come to the stand-ins."""
        pushes: list[dict[str, Any]] = []

        def all_there() -> bool:
            pushes.extend(self.received())
            return len(pushes) >= count

        self._children[-1].wait_for(f"{count} pushes did not arrive", all_there)
        return pushes

    def _start(self, name: str, *arguments: str) -> Child:
        child = Child(name, self.directory / f"{name}.log", *arguments)
        self._children.append(child)
        return child

    def _fake_options(self, listen: str, admin_listen: str) -> tuple[str, ...]:
        options = {
            "directory": str(self.directory),
            "received": str(self._received),
            "topic": APP,
            "listen": listen,
            "admin-listen": admin_listen,
        }
        return ("bouncerd-fakes", *(f"--{name}={value}" for name, value in options.items()))

    def _is_ready(self) -> bool:
        """Ask the daemon whether it serves and has a connection to each provider."""
        try:
            with DIRECT.open(self.health, timeout=2) as answer:
                providers = json.load(answer)["providers"].values()
        except (OSError, ValueError, KeyError):
            return False
        return all(provider["state"] == "up" for provider in providers)


def play(stage: Stage) -> tuple[ZulipServer, dict[Kind, list[str]]]:
    """Show the main job: register, register two phones, send one message; raises DemoFailed."""
    zulip = ZulipServer(stage.base)
    phones = {Kind.APNS: ["a1b2c3d4" * 8], Kind.FCM: ["cSample_Token:APA91b" + "x" * 120]}
    try:
        with _timed(f"Zulip server {zulip.hostname} is registered"):
            zulip.register()
        with _timed("an iPhone and an Android phone are registered"):
            zulip.register_phone(Kind.APNS, phones[Kind.APNS][0], APP)
            zulip.register_phone(Kind.FCM, phones[Kind.FCM][0])
        sent_at = time.time()
        with _timed(f"one message is sent: “{SENDER}: {TEXT}”"):
            answer = zulip.notify(SENDER, TEXT, phones)
    except CallFailed as failure:
        raise DemoFailed(str(failure), stage.directory / "bouncerd.log") from None
    counts = answer.get("total_apple_devices"), answer.get("total_android_devices")
    if counts != (1, 1):
        raise DemoFailed(f"bouncerd counted {counts[0]} Apple and {counts[1]} Android devices")
    _check(stage.wait_for_pushes(2), sent_at)
    return zulip, phones


def _check(pushes: list[dict[str, Any]], sent_at: float) -> None:
    """Show what arrived, and that it is what was sent; raises DemoFailed."""
    for push in sorted(pushes, key=lambda push: str(push["provider"])):
        _say("")
        _show(push, sent_at)
    for provider, name in NAMES.items():
        arrived = [push for push in pushes if push["provider"] == provider]
        words = [(push["verdict"], push["title"], push["body"]) for push in arrived]
        if words != [("200", SENDER, TEXT)]:
            raise DemoFailed(f"{name} should have received the message once, and accepted it")


def _show(push: dict[str, Any], sent_at: float | None = None) -> None:
    """Print one push as its stand-in received it."""
    topic = f" for {push['topic']}" if push["topic"] else ""
    _say(f"  {NAMES[push['provider']]} received, to {push['token']}{topic}:")
    _say(f"      {push['title']}: {push['body']}")
    pace = f"answered {push['verdict']} {push['seconds'] * 1000:.0f} ms later"
    if sent_at is not None:
        pace = f"{(push['at'] - sent_at) * 1000:.0f} ms after the server’s call; {pace}"
    _say(f"      {pace}")


def serve(stage: Stage, zulip: ZulipServer, phones: dict[Kind, list[str]]) -> None:
    """Tell how to send more, and show what arrives, until Ctrl-C."""
    message = stage.directory / "notify.json"
    content = zulip.notification("Ophelia", "Good my lord, how does your honour?", phones)
    message.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    call = shlex.join(
        ["curl", "-u", f"{zulip.org_id}:{zulip.org_key}", "-H", "content-type: application/json"]
    )
    _say(f"\nServing on {stage.base} until Ctrl-C; logs and settings are in {stage.directory}.")
    _say("To send another message:\n")
    _say(f"  {call} \\\n    --data @{message} {stage.base}/api/v1/remotes/push/notify\n")
    while True:
        for push in stage.received():
            _show(push)
        time.sleep(0.2)


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bouncerd.fakes.demo", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="leave it running until Ctrl-C")
    serving = parser.parse_args(arguments).serve
    signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know every character
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bouncerd-demo-") as directory:
        stage = Stage(Path(directory), *_ports(serving))
        try:
            stage.raise_curtain()
            zulip, phones = play(stage)
            _say(f"\nBoth phones got the message. All of it took {time.monotonic() - began:.1f} s.")
            if serving:
                serve(stage, zulip, phones)
        except DemoFailed as failure:
            _say(f"\nFAILED: {failure}")
            if failure.log is not None:
                _say(f"The end of {failure.log.name}:\n{_tail(failure.log)}")
            return 1
        except KeyboardInterrupt:
            _say("\nStopped.")
            return 0 if serving else 130
        finally:
            stage.lower_curtain()
    return 0


def _ports(serving: bool) -> tuple[int, int]:
    """Choose the daemon's two ports: the well-known ones to serve on, else free ones."""
    if serving:
        return SERVE_PORT, SERVE_ADMIN_PORT
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _check_free(port: int) -> None:
    """Raise DemoFailed if someone else listens: we would be talking to them."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise DemoFailed(f"port {port} of 127.0.0.1 is taken") from None


def _interrupt(_: int, __: FrameType | None) -> None:
    """Treat SIGTERM as Ctrl-C, so that the children are stopped."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def _timed(what: str) -> Iterator[None]:
    """Print what was done, and how long it took."""
    began = time.monotonic()
    yield
    _say(f"{(time.monotonic() - began) * 1000:6.0f} ms  {what}")


def _tail(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    return "\n".join("  | " + line for line in lines[-TAIL:])


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is a program that talks


if __name__ == "__main__":
    sys.exit(main())
