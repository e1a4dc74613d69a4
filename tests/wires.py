"""Connections in memory on one clock: bytes arrive late, in order, in pieces; sockets fill up."""

from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from bouncerd.fakes.front import Front

SOCKET_BUFFER = 65_536


class Socket:
    """One side's transport; `other` is where its bytes go."""

    negotiatedProtocol: bytes | None = b"h2"  # noqa: N815 -- Twisted's name
    other: "Socket"

    def __init__(self, clock: Clock, random: Random, protocol: Any) -> None:
        self.protocol = protocol
        self.open = True
        self._clock = clock
        self._random = random
        self._busy_until = 0.0
        self._underway = 0
        self._producer: Any = None
        self._reading = True
        self._unread: list[bytes] = []

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

    def loseConnection(self) -> None:  # noqa: N802
        """Close behind what is written."""
        self._soon(self.other.close, ConnectionDone())
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

    # --- the network's part

    def arrive(self, piece: bytes) -> None:
        """Take bytes of the other side's, unless nobody reads."""
        if not self._reading:
            self._unread.append(piece)
            return
        self.other.taken(len(piece))
        if self.open:
            self.protocol.dataReceived(piece)

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

    def _soon(self, what: Any, *arguments: Any) -> None:
        now = self._clock.seconds()
        self._busy_until = max(self._busy_until, now + self._random.uniform(0.0, 0.02))
        self._clock.callLater(self._busy_until - now, what, *arguments)


class Network:
    """How to reach a fake (pool.Connect). `weather`: "fine", "refused" or "silent"."""

    def __init__(self, clock: Clock, random: Random, front: Front) -> None:
        self._clock = clock
        self._random = random
        self._front = front
        self.weather = "fine"
        self.dials: list[float] = []

    def connect(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        """Dial."""
        self.dials.append(self._clock.seconds())
        if self.weather == "refused":
            return fail(Failure(ConnectError()))
        dialing: Deferred[IProtocol] = Deferred()
        if self.weather == "fine":
            self._clock.callLater(0.03, self._reached, factory, dialing)
        return dialing

    def _reached(self, factory: IProtocolFactory, dialing: "Deferred[IProtocol]") -> None:
        if dialing.called:  # nobody waits any more
            return
        link: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
        served = self._front.buildProtocol(None)
        ours = Socket(self._clock, self._random, link)
        theirs = Socket(self._clock, self._random, served)
        ours.other, theirs.other = theirs, ours
        served.makeConnection(theirs)
        link.makeConnection(ours)
        dialing.callback(link)
