"""Connections in memory on one clock: bytes arrive late, in order, in pieces; sockets fill up.

With `tls` the bytes are those of real TLS, on both sides.
"""

from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from bouncerd.fakes.front import Front

SOCKET_BUFFER = 65_536


class Socket:
    """One side's transport; `other` is where its bytes go."""

    negotiatedProtocol: bytes | None = b"h2"  # noqa: N815 -- Twisted's name
    other: "Socket"
    bufferSize = 65_536  # noqa: N815 -- Twisted's name: read at once

    def __init__(self, clock: Clock, random: Random, protocol: Any) -> None:
        self.protocol = protocol
        self.open = True
        self.disconnecting = False
        self._clock = clock
        self._random = random
        self._busy_until = 0.0
        self._underway = 0
        self._producer: Any = None
        self._reading = True
        self._unread = b""
        self._ended: Exception | None = None  # what waits behind what was not read

    def write(self, data: bytes) -> None:
        """Send; it arrives in two pieces, some milliseconds later."""
        if not self.open:
            return
        cut = self._random.randrange(len(data) + 1)
        for piece in filter(None, (data[:cut], data[cut:])):
            self._underway += len(piece)
            self._soon(self.other.arrive, piece)
        if self._underway > SOCKET_BUFFER and self._producer is not None:
            self._producer.pauseProducing()

    def writeSequence(self, pieces: Any) -> None:  # noqa: N802
        """Send them."""
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:  # noqa: N802
        """Close behind what is written."""
        self.disconnecting = True
        self._soon(self.other.end, ConnectionDone())
        self._soon(self.close, ConnectionDone())

    def abortConnection(self) -> None:  # noqa: N802
        """Close at once."""
        self._clock.callLater(0, self.close, ConnectionLost())
        self._clock.callLater(0.001, self.other.close, ConnectionLost())

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802
        """Pause it while what is under way is too much."""
        self._producer = producer

    def unregisterProducer(self) -> None:  # noqa: N802
        """No longer."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Read nothing from now on."""
        self._reading = False

    def resumeProducing(self) -> None:
        """Read again, what came meanwhile first: so much at once, and perhaps no more."""
        self._reading = True
        while self._unread and self._reading and self.open:
            piece, self._unread = self._unread[: self.bufferSize], self._unread[self.bufferSize :]
            self._hand_over(piece)
        if self._ended is not None and not self._unread:
            self.close(self._ended)

    def getPeer(self) -> None:  # noqa: N802
        """Say nothing."""

    getHost = getPeer  # noqa: N815

    # --- the network's part

    def arrive(self, piece: bytes) -> None:
        """Take bytes of the other side's, unless nobody reads."""
        self._unread += piece
        if self._reading:
            self.resumeProducing()

    def end(self, reason: Exception) -> None:
        """Take the end of the other side's bytes."""
        self._ended = reason
        if self._reading or not self._unread:
            self.close(reason)
        else:  # keep-alive will tell it one day
            self._clock.callLater(60.0, self.close, reason)

    def taken(self, count: int) -> None:
        """Hear that the other side has read so much."""
        before, self._underway = self._underway, self._underway - count
        if before > SOCKET_BUFFER >= self._underway and self._producer is not None and self.open:
            self._producer.resumeProducing()

    def close(self, reason: Exception) -> None:
        """End this side."""
        if self.open:
            self.open = False
            self.protocol.connectionLost(Failure(reason))

    def _hand_over(self, piece: bytes) -> None:
        self.other.taken(len(piece))
        if self.open:
            self.protocol.dataReceived(piece)

    def _soon(self, what: Any, *arguments: Any) -> None:
        now = self._clock.seconds()
        self._busy_until = max(self._busy_until, now + self._random.uniform(0.0, 0.02))
        self._clock.callLater(self._busy_until - now, what, *arguments)


class Network:
    """How to reach a fake (pool.Connect). `weather`: "fine", "refused", "silent" or "slow".

    `slow`: the server takes `patience` seconds to accept. `tls`: the client's options and the
    server's context.
    """

    def __init__(
        self, clock: Clock, random: Random, front: Front, tls: tuple[Any, Any] | None = None
    ) -> None:
        self._clock = clock
        self._random = random
        self._front = front
        self._tls = tls
        self.weather = "fine"
        self.patience = 4.0
        self.dials: list[float] = []

    def use_tls(self, tls: tuple[Any, Any]) -> None:
        """Have later connections use other certificates."""
        self._tls = tls

    def connect(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        """Dial."""
        self.dials.append(self._clock.seconds())
        if self.weather == "refused":
            return fail(Failure(ConnectError()))
        dialing: Deferred[IProtocol] = Deferred()
        if self.weather != "silent":
            wait = self.patience if self.weather == "slow" else 0.03
            self._clock.callLater(wait, self._reached, factory, dialing)
        return dialing

    def _reached(self, factory: IProtocolFactory, dialing: "Deferred[IProtocol]") -> None:
        if dialing.called:  # nobody waits any more
            return
        serving: Any = self._front
        if self._tls is not None:
            ours_tls, theirs_tls = self._tls
            factory = TLSMemoryBIOFactory(ours_tls, True, factory, self._clock)
            serving = TLSMemoryBIOFactory(theirs_tls, False, serving, self._clock)
        link: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
        served: Any = serving.buildProtocol(None)
        ours = Socket(self._clock, self._random, link)
        theirs = Socket(self._clock, self._random, served)
        ours.other, theirs.other = theirs, ours
        if served is None:  # turned away at the door
            theirs.protocol = Nobody()
            theirs.loseConnection()
        else:
            served.makeConnection(theirs)
        link.makeConnection(ours)
        dialing.callback(link if self._tls is None else link.wrappedProtocol)


class Nobody:
    """Stands where no protocol was built."""

    def dataReceived(self, data: bytes) -> None:
        """Hear nothing."""

    def connectionLost(self, reason: Failure) -> None:
        """Be gone."""
