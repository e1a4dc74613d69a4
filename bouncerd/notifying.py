"""What we tell systemd, and what it keeps for us: the notify protocol of sd_notify(3).

Datagrams to $NOTIFY_SOCKET, some with descriptors; without that variable nothing is sent. No call
blocks: what the socket has no room for goes a moment later, in order. The watchdog is fed by the
reactor's own timer, so that a reactor which hangs is a watchdog which starves.
"""

import array
import os
import socket
import time
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()

#: Seconds between two status texts at least.
STATUS_EVERY = 5.0
#: Seconds for systemd to say that it has taken in all that was sent.
BARRIER_WITHIN = 5.0
_AGAIN_IN = 0.02
_MOST_UNSENT = 100
_DEAF, _NO_DESCRIPTORS = "NOTIFY_SOCKET takes nothing", "no descriptors are left"
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE")


@dataclass(frozen=True, slots=True)
class _Datagram:
    text: bytes
    descriptors: tuple[int, ...] = ()  # duplicates of our own: closed once it is sent


class Notifier:
    """One service's line to its supervisor. It takes its variables away from our children."""

    def __init__(
        self,
        environ: MutableMapping[str, str],
        reactor: Any,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`monotonic` is CLOCK_MONOTONIC, which systemd compares with its own."""
        told = {name: environ.pop(name, "") for name in _OURS}
        self._reactor = reactor
        self._monotonic = monotonic
        self._address = _address(told["NOTIFY_SOCKET"])
        self._socket: socket.socket | None = None
        if self._address:
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_UNIX, kind)
        self._unsent: deque[_Datagram] = deque()
        self._send_call: IDelayedCall | None = None
        self._status = self._wanted_status = ""
        self._status_at = float("-inf")
        self._status_call: IDelayedCall | None = None
        self._feed_every = _feed_every(told["WATCHDOG_USEC"], told["WATCHDOG_PID"])
        self._feed_call: IDelayedCall | None = None
        self._missing = False  # since the last barrier something could not be sent
        self._warned = False

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return self._socket is not None

    # --- how we are

    def ready(self) -> None:
        """Say that we serve, or that a reload is over."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that a reload begins; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._monotonic() * 1_000_000)}")

    def stopping(self) -> None:
        """Say that the stop begins."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for so much more time from now on, for a start or a stop that goes on."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def status(self, text: str) -> None:
        """Say in one line how we are; every few seconds at most, and only what is new."""
        self._wanted_status = text
        if self._socket is None or self._status_call is not None or text == self._status:
            return
        wait = self._status_at + STATUS_EVERY - self._reactor.seconds()
        if wait > 0:
            self._status_call = self._reactor.callLater(wait, self._say_status)
        else:
            self._say_status()

    def feed(self) -> None:
        """Feed the watchdog now, and go on for as long as the reactor runs."""
        if self._socket is not None and self._feed_every is not None:
            self._send("WATCHDOG=1")
            self._feed_call = self._reactor.callLater(self._feed_every, self.feed)

    def close(self) -> None:
        """Say nothing more."""
        for call in (self._send_call, self._status_call, self._feed_call):
            if call is not None and call.active():
                call.cancel()
        while self._unsent:
            _close_all(self._unsent.popleft().descriptors)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # --- what systemd keeps for us

    def store(self, descriptor: int, name: str) -> None:
        """Have a descriptor kept for the next process; the caller may close his."""
        self._send("FDSTORE=1", f"FDNAME={name}", descriptors=[descriptor])

    def remove(self, name: str) -> None:
        """Have nothing of that name kept any longer."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def barrier(self, within: float = BARRIER_WITHIN) -> Deferred[bool]:
        """Fire once all that was sent has been taken in; with False if that is not said in time.

        systemd says so by closing its end of a pipe.
        """
        if self._socket is None:
            return succeed(False)
        try:
            ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            self._failed(_NO_DESCRIPTORS)
            return succeed(self._nothing_missing(False))
        end = _OtherEnd(self._reactor, ours)
        self._send("BARRIER=1", descriptors=[theirs])
        os.close(theirs)
        return end.closed_within(self._reactor, within).addCallback(self._nothing_missing)

    async def keeps(self, name: str) -> bool:
        """Find out whether there is a store at all: have a pipe kept, and see if it is dropped.

        Before systemd 254 a process is not told; and what a store refuses is closed in silence.
        """
        if self._socket is None:
            return False
        ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.store(theirs, name)
            os.close(theirs)
            answered = await self.barrier()
            kept = answered and not _is_closed(ours)
            self.remove(name)
            return kept and await self.barrier()
        finally:
            os.close(ours)

    # --- within

    def _say_status(self) -> None:
        self._status_call = None
        if self._wanted_status != self._status:
            self._status = self._wanted_status
            self._status_at = self._reactor.seconds()
            self._send("STATUS=" + self._status.replace("\n", " "))

    def _send(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        if self._socket is None:
            return
        if len(self._unsent) >= _MOST_UNSENT:
            self._failed(_DEAF)
            return
        try:
            ours = tuple(os.dup(each) for each in descriptors)
        except OSError:
            self._failed(_NO_DESCRIPTORS)
            return
        self._unsent.append(_Datagram("\n".join(lines).encode(), ours))
        if self._send_call is None:
            self._send_all()

    def _send_all(self) -> None:
        """Send until the socket is full; systemd may be busy, and it is no reason to wait."""
        self._send_call = None
        while self._unsent and self._socket is not None:
            datagram = self._unsent[0]
            try:
                self._socket.sendmsg(
                    [datagram.text], _rights(datagram), socket.MSG_NOSIGNAL, self._address
                )
            except (BlockingIOError, InterruptedError):
                self._send_call = self._reactor.callLater(_AGAIN_IN, self._send_all)
                return
            except OSError:
                self._failed(_DEAF)
            _close_all(self._unsent.popleft().descriptors)

    def _nothing_missing(self, closed: bool) -> bool:
        missing, self._missing = self._missing, False
        return closed and not missing

    def _failed(self, why: str) -> None:
        self._missing = True
        if not self._warned:
            self._warned = True
            log.warn("The supervisor cannot be told how we are: {why}", why=why)


class _OtherEnd(FileDescriptor):
    """Our end of a pipe, of which the other end will be closed."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        super().__init__(reactor)
        self._descriptor = descriptor
        self._closed: Deferred[bool] = Deferred()
        self._late_call: IDelayedCall | None = None

    def fileno(self) -> int:
        """Name the descriptor, for the reactor."""
        return self._descriptor

    def closed_within(self, clock: IReactorTime, seconds: float) -> Deferred[bool]:
        """Fire when it is closed, or with False after so many seconds."""
        self._late_call = clock.callLater(seconds, self._end, False)
        self.startReading()  # type: ignore[no-untyped-call]  # Twisted's
        return self._closed

    def doRead(self) -> Exception:  # noqa: N802 -- Twisted's name
        """See the end: nobody writes anything."""
        return CONNECTION_DONE

    def connectionLost(self, _reason: Failure) -> None:
        """Hear that the other end is closed."""
        self._end(True)

    def _end(self, closed: bool) -> None:
        if self._descriptor < 0:
            return
        self.stopReading()  # type: ignore[no-untyped-call]  # Twisted's
        os.close(self._descriptor)
        self._descriptor = -1
        if self._late_call is not None and self._late_call.active():
            self._late_call.cancel()
        self._closed.callback(closed)


def _address(named: str) -> str:
    """Return the socket's address; "" for none, and for kinds that a container does not meet."""
    return "\0" + named[1:] if named.startswith("@") else named if named.startswith("/") else ""


def _feed_every(usec: str, pid: str) -> float | None:
    """Return half of the watchdog's time in seconds; None if it does not watch this process."""
    if pid and pid != str(os.getpid()):
        return None
    return int(usec) / 2_000_000 if usec.isdecimal() and usec.isascii() and int(usec) else None


def _rights(datagram: _Datagram) -> list[tuple[int, int, bytes]]:
    if not datagram.descriptors:
        return []
    packed = array.array("i", datagram.descriptors)
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed.tobytes())]


def _is_closed(pipe: int) -> bool:
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return False


def _close_all(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        os.close(each)
