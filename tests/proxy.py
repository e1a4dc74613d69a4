"""A TCP proxy between a client and its server that swallows bytes, or is slow, when told so."""

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

reactor: Any = _reactor


class Wire(Protocol):
    """One end of a connection through the proxy."""

    transport: Any

    def __init__(self, proxy: "Proxy") -> None:
        self.proxy = proxy
        self.peer: Wire | None = None
        self._early: list[bytes] = []

    def connectionMade(self) -> None:
        self.proxy.wires.append(self)

    def join(self, peer: "Wire") -> None:
        """Be the other end of another."""
        self.peer = peer
        early, self._early = self._early, []
        for data in early:
            self.dataReceived(data)

    def dataReceived(self, data: bytes) -> None:
        """Hand on what comes, late if so; or swallow it."""
        if self.proxy.swallows:
            return
        if self.peer is None:
            self._early.append(data)
        else:
            reactor.callLater(self.proxy.delay, self.peer.transport.write, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.proxy.wires.remove(self)
        if self.peer is not None:
            self.peer.transport.loseConnection()


class Proxy(Factory):
    """Listens on loopback, and connects each caller to a port there."""

    noisy = False

    def __init__(self, port: int) -> None:
        self.swallows = False
        self.delay = 0.0  # seconds, in each direction
        self.wires: list[Wire] = []
        self._server = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self._listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.port: int = self._listening.getHost().port

    def buildProtocol(self, _: object) -> Wire:
        """Connect both ends."""
        near, far = Wire(self), Wire(self)

        def join(_: object) -> None:
            far.join(near)
            near.join(far)

        connecting = connectProtocol(self._server, far)
        connecting.addCallbacks(join, lambda _: near.transport.loseConnection())
        return near

    async def stop(self) -> None:
        """Cut all off."""
        for wire in list(self.wires):
            wire.transport.abortConnection()
        await self._listening.stopListening()
        while self.wires:
            await deferLater(reactor, 0.01)
