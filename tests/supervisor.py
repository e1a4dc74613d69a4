"""A supervisor that plays systemd, as far as a service can tell.

It holds the listening sockets and the descriptors that a service has it keep (sd_notify(3)), passes
both on at the next start (sd_listen_fds(3)), answers barriers, and kills what starves its watchdog.
Several instances may share its sockets. Everything it starts it ends by process id.
"""

import array
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.task import deferLater

# The shell knows its pid, and keeps it when it becomes the service.
_SHIM = ["/bin/sh", "-c", 'cd "$1"; shift; export LISTEN_PID=$$; exec "$@"', "sh"]


@dataclass(frozen=True)
class Kept:
    """A descriptor in the store, and the name to find it by."""

    name: str
    descriptor: int


@dataclass
class Manner:
    """What a supervisor does otherwise than the best of them."""

    store_max: int = 4  # FileDescriptorStoreMax; 0: keeps nothing, and does not say so
    answers_barriers: bool = True
    forgetful: bool = False  # does not act on FDSTOREREMOVE
    holding: bool = False  # reads no message: too busy
    watchdog: float | None = None  # seconds


@dataclass
class Process:
    """One run of a service, and what it told us of it."""

    pid: int
    began: float
    status_code: int | None = None  # of its end; negative: the signal's number
    ready_at: float | None = None
    fed: list[float] = field(default_factory=list)
    starved: bool = False
    status: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)  # lines other than STATUS and WATCHDOG

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.runs:
            os.kill(self.pid, number)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        if self.status_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status_code = os.waitstatus_to_exitcode(status)
        return self.status_code is None


class _Ear(FileDescriptor):
    """The notify socket of one instance."""

    def __init__(self, reactor: Any, path: str, hear: Callable[[list[str], list[int]], None]):
        super().__init__(reactor)
        self._hear = hear
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(path)

    def fileno(self) -> int:
        """Name the descriptor, for the reactor."""
        return self._socket.fileno()

    def doRead(self) -> None:  # noqa: N802 -- Twisted's name
        """Take datagrams with what came beside them."""
        room = socket.CMSG_SPACE(16 * array.array("i").itemsize)
        while True:
            try:
                text, beside, _, _ = self._socket.recvmsg(65_536, room)
            except BlockingIOError:
                return
            descriptors = array.array("i")
            for level, kind, data in beside:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(data)
            self._hear(text.decode().splitlines(), list(descriptors))

    def close(self) -> None:
        """Hear nothing more."""
        self.stopReading()
        self._socket.close()


class Instance:
    """One service under supervision: `bouncerd@1.service`, say."""

    def __init__(
        self,
        reactor: Any,
        command: Sequence[str],
        sockets: Mapping[str, socket.socket],
        directory: Path,
        log: Path,
        *,
        abstract: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.manner = Manner()
        self.kept: list[Kept] = []
        self.runs: list[Process] = []
        self._reactor = reactor
        self._command = list(command)
        self._sockets = sockets
        self._directory = directory
        self._log = log
        self._environ = dict(environ or {})
        place = directory / f"notify-{id(self):x}"
        self.address = f"@{place}" if abstract else str(place)
        bound = "\0" + str(place) if abstract else str(place)
        self._ear = _Ear(reactor, bound, self._hear)
        self._hearing = False

    @property
    def run(self) -> Process:
        """The latest run."""
        return self.runs[-1]

    # --- what an operator does

    def launch(self) -> Process:
        """Start it, with the sockets first and then what it had us keep, as systemd does."""
        self.listen_to_it()
        passed = [(name, each.fileno()) for name, each in self._sockets.items()]
        passed += [(each.name, each.descriptor) for each in self.kept]
        environ = {**os.environ, **self._environ, "NOTIFY_SOCKET": self.address}
        environ |= {"LISTEN_FDS": str(len(passed))}
        environ |= {"LISTEN_FDNAMES": ":".join(name for name, _ in passed)}
        if self.manner.watchdog is not None:
            environ["WATCHDOG_USEC"] = str(int(self.manner.watchdog * 1_000_000))
        with self._log.open("ab") as log:
            pid = _spawn(self._command, environ, [fd for _, fd in passed], log.fileno())
        self.runs.append(Process(pid, time.monotonic()))
        if self.manner.watchdog is not None:
            self._watch(self.run, self.manner.watchdog)
        return self.run

    async def start(self, within: float = 30.0) -> Process:
        """Start it and wait until it is ready, or has ended."""
        run = self.launch()
        await self.until(lambda: run.ready_at is not None or not run.runs, within)
        return run

    async def end(self, within: float = 30.0) -> int:
        """Send SIGTERM and wait for the end; what it had us keep is still here."""
        self.run.signal(signal.SIGTERM)
        return await self.ended(within)

    async def ended(self, within: float = 30.0) -> int:
        """Wait for its end; return its status."""
        await self.until(lambda: not self.run.runs, within)
        await deferLater(self._reactor, 0)  # what it said last is read now
        assert self.run.status_code is not None
        return self.run.status_code

    async def restart(self) -> Process:
        """Do `systemctl restart`."""
        await self.end()
        return await self.start()

    async def kill(self) -> None:
        """Kill it, as nobody can forbid."""
        self.run.signal(signal.SIGKILL)
        await self.ended()

    def discard(self) -> None:
        """Forget what was kept, as `systemctl stop` does."""
        for each in self.kept:
            os.close(each.descriptor)
        self.kept.clear()

    def keep(self, name: str, descriptor: int) -> None:
        """Keep a descriptor, which is ours from now on."""
        self.kept.append(Kept(name, descriptor))

    def close(self) -> None:
        """End what runs, by its pid, and let go of everything."""
        for run in self.runs:
            run.signal(signal.SIGKILL)
            while run.runs:
                time.sleep(0.001)
        self._ear.close()
        self.discard()

    async def until(self, condition: Callable[[], bool], within: float = 30.0) -> None:
        """Wait until it is so, or fail."""
        by = time.monotonic() + within
        while not condition():
            assert time.monotonic() < by, f"not in time: {self._log.read_text()[-3000:]}"
            await deferLater(self._reactor, 0.01)

    def listen_to_it(self) -> None:
        """Read what it says, unless we are too busy."""
        if self.manner.holding is self._hearing:
            self._hearing = not self.manner.holding
            (self._ear.startReading if self._hearing else self._ear.stopReading)()

    # --- what the service says

    def _hear(self, lines: list[str], descriptors: list[int]) -> None:
        said = dict(line.split("=", 1) for line in lines)
        run = self.run
        run.told += [line for line in lines if not line.startswith(("STATUS=", "WATCHDOG="))]
        if "STATUS" in said:
            run.status.append(said["STATUS"])
        if "READY" in said and run.ready_at is None:
            run.ready_at = time.monotonic()
        if "WATCHDOG" in said:
            run.fed.append(time.monotonic())
        if "FDSTORE" in said:
            room = self.manner.store_max - len(self.kept)
            self.kept += [Kept(said["FDNAME"], each) for each in descriptors[:room]]
            descriptors = descriptors[room:]
        if "FDSTOREREMOVE" in said and not self.manner.forgetful:
            for each in [each for each in self.kept if each.name == said["FDNAME"]]:
                self.kept.remove(each)
                os.close(each.descriptor)
        if "BARRIER" in said and not self.manner.answers_barriers:
            return  # it stays open: we never say that we have taken all in
        for descriptor in descriptors:
            os.close(descriptor)

    def _watch(self, run: Process, seconds: float) -> None:
        """Look whether the watchdog was fed, from when the service was ready."""
        if not run.runs:
            return
        latest = max([run.ready_at or time.monotonic(), *run.fed[-1:]])
        if time.monotonic() > latest + seconds:
            run.starved = True
            run.signal(signal.SIGABRT)
        else:
            self._reactor.callLater(seconds / 10, self._watch, run, seconds)


def _spawn(
    command: Sequence[str], environ: Mapping[str, str], passed: Sequence[int], log: int
) -> int:
    """Start a service with descriptors from 3 on; return its pid."""
    # First out of the way of those numbers, which may be taken by one another.
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 200) for each in [*passed, log]]
    actions = [(os.POSIX_SPAWN_DUP2, each, number) for number, each in enumerate(high[:-1], 3)]
    actions += [(os.POSIX_SPAWN_DUP2, high[-1], number) for number in (1, 2)]
    try:
        program = [*_SHIM, str(Path(__file__).parent.parent), *command]
        return os.posix_spawn(program[0], program, environ, file_actions=actions)
    finally:
        for descriptor in high:
            os.close(descriptor)


def listening_socket() -> socket.socket:
    """Return a socket as a `.socket` unit makes it, on a free port of this machine."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", 0))
    made.listen(4096)
    return made


def listening_file(path: Path) -> socket.socket:
    """Return a UNIX socket as a `.socket` unit makes it."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    path.chmod(0o600)
    made.listen(4096)
    return made
