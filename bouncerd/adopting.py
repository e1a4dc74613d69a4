"""Sockets that systemd listens on, and passes to us: what the next process listens on, too.

Twisted adopts such a socket, but at the end of a UNIX one it shuts the socket down and removes its
file: whoever comes between two processes, or after, would be refused. This only closes our copy.
"""

import socket
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from zope.interface import implementer

_AT_ONCE = 100
_PAUSE = 0.5  # seconds, when there are no descriptors left for new connections


class Unsuitable(Exception):
    """Why a passed socket cannot be listened on, in a few words for the operator."""


def check(endpoint: AdoptedStreamServerEndpoint) -> None:
    """Raise Unsuitable unless it is a listening socket of the kind that it is said to be."""
    try:
        with socket.socket(fileno=socket.dup(endpoint.fileno)) as passed:
            family = passed.family
            listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        raise Unsuitable("what was passed is no socket") from None
    if family != endpoint.addressFamily:
        raise Unsuitable(f"the passed socket is {family.name.removeprefix('AF_')}")
    if not listens:
        raise Unsuitable("the passed socket does not listen")


def adopt(
    reactor: Any, endpoint: AdoptedStreamServerEndpoint, factory: IProtocolFactory
) -> IListeningPort:
    """Listen on a passed UNIX socket, which stays as it is when we end."""
    port = _Port(reactor, endpoint.fileno, factory)
    port.startListening()
    return port


@implementer(IListeningPort)
class _Port(FileDescriptor):
    """A passed socket that we accept connections from."""

    def __init__(self, reactor: Any, descriptor: int, factory: IProtocolFactory) -> None:
        super().__init__(reactor)
        self._reactor = reactor
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._socket.set_inheritable(False)
        self._factory = factory

    def startListening(self) -> None:  # noqa: N802 -- Twisted's name
        """Begin to accept."""
        self._factory.doStart()
        self.connected = 1
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:  # noqa: N802 -- likewise
        """Accept no more. Who comes now waits for the next process."""
        if self.connected:
            self.connected = 0
            self._reactor.removeReader(self)
            self._socket.close()
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> UNIXAddress:  # noqa: N802 -- likewise
        """Say where it listens."""
        return UNIXAddress(self._socket.getsockname())

    def fileno(self) -> int:
        """Name the descriptor, for the reactor."""
        return self._socket.fileno()

    def doRead(self) -> None:  # noqa: N802 -- likewise
        """Accept who waits."""
        for _ in range(_AT_ONCE):
            try:
                connection, _address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError:
                self._reactor.removeReader(self)
                self._reactor.callLater(_PAUSE, self._go_on)
                return
            with connection:
                self._reactor.adoptStreamConnection(
                    connection.fileno(), socket.AF_UNIX, self._factory
                )

    def _go_on(self) -> None:
        if self.connected:
            self._reactor.addReader(self)
