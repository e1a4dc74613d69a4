"""What systemd hears from us, by its own protocol: sd_notify(3)."""

import array
import os
import resource
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.notifying import Notifier

Heard = tuple[str, list[int]]


class Reactor(Clock):
    """A clock that looks after descriptors when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: IReadDescriptor) -> None:  # noqa: N802 -- Twisted's name
        """Look after one."""
        self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:  # noqa: N802 -- likewise
        """Look after it no longer."""
        self.readers = [each for each in self.readers if each is not reader]

    def look(self) -> None:
        """Do what a reactor does for a pipe of which the other end is closed."""
        for reader in list(self.readers):
            if is_closed(reader.fileno()):
                assert reader.doRead() is CONNECTION_DONE
                reader.connectionLost(Failure(CONNECTION_DONE))


def is_closed(descriptor: int) -> bool:
    """Tell whether nobody can write into a pipe any more."""
    try:
        return os.read(descriptor, 1) == b""
    except BlockingIOError:
        return False


class Laboratory(SynchronousTestCase):
    """A notifier, and the socket it speaks to."""

    abstract = False

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = str(Path(directory.name) / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.addCleanup(self.socket.close)
        self.socket.bind("\0" + path if self.abstract else path)
        self.address = "@" + path if self.abstract else path
        self.environ = {"NOTIFY_SOCKET": self.address, "HOME": "/"}
        self.reactor = Reactor()

    def notifier(self, **environ: str) -> Notifier:
        """Make it, with more in its environment."""
        self.environ |= environ
        made = Notifier(self.environ, self.reactor, lambda: 12.5)
        self.addCleanup(made.close)
        return made

    def heard(self) -> list[Heard]:
        """Take what was said; descriptors are closed after the test."""
        heard: list[Heard] = []
        while True:
            try:
                text, beside, _, _ = self.socket.recvmsg(4096, 256)
            except BlockingIOError:
                return heard
            descriptors = array.array("i")
            for _, _, data in beside:
                descriptors.frombytes(data)
            heard.append((text.decode(), list(descriptors)))

    def texts(self) -> list[str]:
        """Take the texts of what was said, which has no descriptors."""
        heard = self.heard()
        assert not any(descriptors for _, descriptors in heard), heard
        return [text for text, _ in heard]


class WordsTests(Laboratory):
    """How we are."""

    def test_words(self) -> None:
        """Each state is said in the words of the protocol."""
        notifier = self.notifier()
        for say in (notifier.ready, notifier.reloading, notifier.stopping):
            say()
        notifier.extend(1.5)
        told = ["READY=1", "RELOADING=1\nMONOTONIC_USEC=12500000", "STOPPING=1"]
        self.assertEqual(self.texts(), [*told, "EXTEND_TIMEOUT_USEC=1500000"])

    def test_children_are_not_told(self) -> None:
        """What we start cannot speak in our name."""
        self.notifier(WATCHDOG_USEC="1", WATCHDOG_PID=str(os.getpid()), FDSTORE="4")
        self.assertEqual(self.environ, {"HOME": "/"})

    def test_nobody_listens(self) -> None:
        """Without a supervisor all of it is nothing, and a barrier is never passed."""
        for address in ("", "vsock:2:1234", "relative"):
            notifier = Notifier({"NOTIFY_SOCKET": address}, self.reactor)
            notifier.ready()
            notifier.status("fine")
            notifier.feed()
            notifier.store(0, "name")
            self.assertFalse(notifier.heard)
            self.assertIs(self.successResultOf(notifier.barrier()), False)
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            notifier.close()

    def test_status_is_not_a_flood(self) -> None:
        """A text goes out when it is new, once in some seconds, and it is the latest."""
        notifier = self.notifier()
        for text in ("one", "one", "two", "three\nREADY=1"):
            notifier.status(text)
        self.assertEqual(self.texts(), ["STATUS=one"])
        self.reactor.advance(4.9)
        self.assertEqual(self.texts(), [])
        self.reactor.advance(0.2)
        self.assertEqual(self.texts(), ["STATUS=three READY=1"])
        notifier.status("four")
        notifier.status("three\nREADY=1")
        self.reactor.advance(60)
        self.assertEqual(self.texts(), [])

    def test_watchdog(self) -> None:
        """It is fed twice in its time, for as long as the reactor turns."""
        notifier = self.notifier(WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
        notifier.feed()
        self.reactor.pump([0.1] * 62)
        self.assertEqual(self.texts(), ["WATCHDOG=1"] * 5)

    def test_watchdog_of_others(self) -> None:
        """What watches another process, or nothing, is not fed."""
        for told in ({"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}):
            self.environ["NOTIFY_SOCKET"] = self.address
            self.notifier(**{"WATCHDOG_USEC": "3000000", **told}).feed()
            self.reactor.advance(10)
        self.assertEqual(self.texts(), [])


class AbstractTests(WordsTests):
    """The same, to a socket that has no file."""

    abstract = True


class DescriptorTests(Laboratory):
    """What is kept for us."""

    def test_store_and_remove(self) -> None:
        """A descriptor is given under its name, and taken back by it."""
        ours, theirs = os.pipe()
        self.addCleanup(os.close, ours)
        notifier = self.notifier()
        notifier.store(theirs, "waiting")
        os.close(theirs)
        notifier.remove("waiting")
        (text, (kept,)), (removed, _) = self.heard()
        self.assertEqual(text, "FDSTORE=1\nFDNAME=waiting")
        self.assertEqual(removed, "FDSTOREREMOVE=1\nFDNAME=waiting")
        os.write(kept, b"x")
        os.close(kept)
        self.assertEqual(os.read(ours, 1), b"x")

    def test_barrier(self) -> None:
        """It is passed when the other side has closed its end of the pipe, and not before."""
        passed = self.notifier().barrier()
        ((text, (end,)),) = self.heard()
        self.assertEqual(text, "BARRIER=1")
        self.reactor.look()
        self.reactor.advance(4.9)
        self.assertNoResult(passed)
        os.close(end)
        self.reactor.look()
        self.assertIs(self.successResultOf(passed), True)
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))

    def test_a_barrier_that_is_never_passed(self) -> None:
        """A supervisor that does not answer is not waited for without end."""
        passed = self.notifier().barrier(2.0)
        ((_, (end,)),) = self.heard()
        self.reactor.advance(2.1)
        self.assertIs(self.successResultOf(passed), False)
        os.close(end)
        self.reactor.look()
        self.assertEqual(self.reactor.readers, [])

    def test_a_busy_supervisor(self) -> None:
        """While its socket is full nothing waits for it, and all of it comes, in order."""
        notifier = self.notifier()
        ours, theirs = os.pipe()
        self.addCleanup(os.close, ours)
        for number in range(1, 51):
            notifier.extend(number)
        notifier.store(theirs, "waiting")
        os.close(theirs)
        passed = notifier.barrier()
        heard = self.heard()
        self.assertLess(len(heard), 50)
        while any(call.getTime() < 1 for call in self.reactor.getDelayedCalls()):
            self.reactor.advance(0.02)
            heard += self.heard()
        self.assertEqual(
            [text for text, _ in heard[:50]],
            [f"EXTEND_TIMEOUT_USEC={number}000000" for number in range(1, 51)],
        )
        self.assertEqual(heard[50][0], "FDSTORE=1\nFDNAME=waiting")
        for _, descriptors in heard[50:]:
            os.close(descriptors[0])
        self.reactor.look()
        self.assertIs(self.successResultOf(passed), True)

    def test_a_supervisor_that_is_gone(self) -> None:
        """What could not be said is not taken for said: no barrier is passed over it."""
        notifier = self.notifier()
        self.socket.close()
        notifier.store(0, "waiting")
        passed = notifier.barrier()
        self.reactor.look()
        self.assertIs(self.successResultOf(passed), False)

    def test_no_descriptors_left(self) -> None:
        """A process that has no descriptors left is told that nothing is kept; it does not fall."""
        notifier = self.notifier()
        given, _other = os.pipe()
        self.addCleanup(os.close, given)
        self.addCleanup(os.close, _other)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(given)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            notifier.store(given, "name")
            self.assertIs(self.successResultOf(notifier.barrier()), False)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.assertEqual(self.heard(), [])
        notifier.store(given, "name")
        barrier = notifier.barrier()
        for _, descriptors in self.heard():
            for each in descriptors:
                os.close(each)
        self.reactor.look()
        self.assertIs(self.successResultOf(barrier), True)

    def test_a_store_is_tried(self) -> None:
        """Whether anything is kept is found out with a pipe: it is dropped, or it is not."""
        for keeps in (True, False):
            self.environ["NOTIFY_SOCKET"] = self.address
            self.assertIs(self.tried(keeps=keeps), keeps)

    def tried(self, *, keeps: bool) -> bool:
        """Let a notifier try a store."""
        found = Deferred.fromCoroutine(self.notifier().keeps("probe"))
        store, barrier = self.heard()
        self.assertEqual(store[0], "FDSTORE=1\nFDNAME=probe")
        kept = store[1] if keeps else []
        for descriptor in [*barrier[1], *(each for each in store[1] if each not in kept)]:
            os.close(descriptor)
        self.reactor.look()
        for text, descriptors in self.heard():
            self.assertIn(text, ("FDSTOREREMOVE=1\nFDNAME=probe", "BARRIER=1"))
            for descriptor in [*descriptors, *kept]:
                os.close(descriptor)
            kept = []
        self.reactor.look()
        return self.successResultOf(found)
