"""Plays systemd toward the daemon: a listening socket, readiness, and the store of descriptors.

Just what a hand-over from one process to the next takes (sd_notify(3), sd_listen_fds(3)).
"""

import array
import fcntl
import os
import socket
import threading
from pathlib import Path

_ROOM = socket.CMSG_SPACE(16 * array.array("i").itemsize)
_HIGH = 200  # out of the way of the numbers from 3 on, which a started process gets


class Keeper:
    """Holds what outlives a process of the daemon. Its thread only ever reads datagrams."""

    def __init__(self, directory: Path) -> None:
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(64)
        self.port: int = self._listening.getsockname()[1]
        self.address = str(directory / "notify")
        self._hears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._hears.bind(self.address)
        self._lock = threading.Lock()
        self._kept: list[tuple[str, int]] = []
        self._handed_over = 0
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self._thread.start()

    def started(self) -> tuple[dict[str, str], list[int]]:
        """Return the environment for a new process, and the descriptors to pass to it.

        They are the process's own from then on, by the order of `passed` from 3 up.
        """
        self._is_ready.clear()
        with self._lock:
            kept = [("bouncerd", self._listening.fileno()), *self._kept]
            passed = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _HIGH) for _, each in kept]
        environ = {
            "NOTIFY_SOCKET": self.address,
            "LISTEN_FDS": str(len(passed)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in kept),
            "PASSED": ",".join(map(str, passed)),
        }
        return environ, passed

    def is_ready(self) -> bool:
        """Say whether the process that was started last said so."""
        return self._is_ready.is_set()

    @property
    def kept(self) -> int:
        """How many bytes are in the descriptors that are kept."""
        with self._lock:
            return sum(os.fstat(each).st_size for _, each in self._kept)

    def close(self) -> None:
        """Let go of everything."""
        self._hears.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._hears.close()
        self._listening.close()
        for _, descriptor in self._kept:
            os.close(descriptor)

    def _hear(self) -> None:
        while True:
            try:
                text, beside, _, _ = self._hears.recvmsg(65_536, _ROOM)
            except OSError:
                return
            if not text:
                return
            descriptors = array.array("i")
            for level, kind, data in beside:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(data)
            with self._lock:
                self._take(text.decode().splitlines(), list(descriptors))

    def _take(self, lines: list[str], descriptors: list[int]) -> None:
        said = dict(line.split("=", 1) for line in lines if "=" in line)
        name = said.get("FDNAME", "stored")
        if "READY" in said:
            self._is_ready.set()
        if "FDSTOREREMOVE" in said:
            for each in [each for each in self._kept if each[0] == name]:
                self._kept.remove(each)
                os.close(each[1])
        if "FDSTORE" in said:
            self._kept += [(name, descriptor) for descriptor in descriptors]
        else:
            for descriptor in descriptors:  # of a barrier, which is answered by closing it
                os.close(descriptor)
