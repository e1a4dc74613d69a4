"""What the fakes of Apple and Google have in common: the listening side of a service."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping

from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLContextFactory,
    IReactorSSL,
    IReactorTime,
)
from twisted.internet.protocol import ServerFactory

from bouncerd.fakes import frames
from bouncerd.fakes.door import Door
from bouncerd.fakes.exchange import Exchange
from bouncerd.fakes.records import Ledger, Received
from bouncerd.fakes.rules import REQUEST, Match, Rule, Rules
from bouncerd.fakes.server import Connection
from bouncerd.fakes.steps import Greet, Headers, Reset, Script, Step, Wait


class Front(ServerFactory[Connection], ABC):
    """A service's front end: builds connections, answers requests, obeys rules, keeps records.

    `latency` is the range of seconds that an ordinary answer takes, drawn per answer from a
    generator seeded with `seed`: answers come out of order, and the same way every time.
    """

    noisy = False
    name = "front"
    greeting: Script = (Greet(),)
    over_limit: Script = (Reset(frames.REFUSED_STREAM),)
    connection_credit = 0  # added to the connection's window with the first SETTINGS
    idle_pings = True  # whether an idle client may PING

    def __init__(
        self,
        clock: IReactorTime,
        *,
        latency: tuple[float, float],
        seed: int,
        ledger: Ledger | None,
    ) -> None:
        self.clock = clock
        self.latency = latency
        self.random = random.Random(seed)  # noqa: S311 - delays, not secrets
        self.ledger = Ledger() if ledger is None else ledger
        self.rules = Rules(self.random)
        self.connections: list[Connection] = []  # live ones
        self.door = Door(clock)

    def buildProtocol(self, _: IAddress | None) -> Connection | None:
        """Build the protocol for a connection just accepted, unless it is one too many."""
        if not self.door.admits():
            return None
        return Connection(self, self.ledger.visit(self.clock.seconds()))

    def listen(
        self,
        reactor: IReactorSSL,
        context: IOpenSSLContextFactory,
        port: int = 0,
        interface: str = "127.0.0.1",
    ) -> IListeningPort:
        """Serve over TLS; port 0 chooses one (`.getHost().port`)."""
        return reactor.listenSSL(port, self, context, interface=interface)

    # -- scripting

    def on(self, match: Match, *act: Step, count: int | None = None) -> Rule:
        """Do `act` instead of answering what matches, `count` times (None: always)."""
        return self.rules.add(match, act, count)

    def tell(self, *act: Step) -> None:
        """Run a script on each live connection now."""
        for connection in list(self.connections):
            connection.play(act, Exchange(connection))

    # -- what connections call

    def opened(self, connection: Connection) -> None:
        """Prepare the service's memory of a connection that was accepted."""

    def secured(self, connection: Connection) -> None:
        """Look at a connection whose TLS handshake is done."""

    @abstractmethod
    def first_settings(self, connection: Connection) -> Mapping[int, int]:
        """Return the SETTINGS that a connection begins with."""

    def echo(self, _received: Received) -> Headers:
        """Return the headers on every answer to this request."""
        return ()

    @abstractmethod
    def judge(self, connection: Connection, received: Received) -> Script:
        """Read a request, fill in its `token` and `topic`, and answer it by the book."""

    def settled(self, connection: Connection, received: Received) -> None:
        """Follow up an answer that was just written."""

    def pinged(self, connection: Connection) -> None:
        """Hear of a client's PING."""

    def answer(self, connection: Connection, received: Received, nth: int) -> Script:
        """Decide about a request: a rule's act where one matches, else by the book, in a while."""
        script = self.judge(connection, received)
        act = self.rules.find(REQUEST, received.connection, nth, received.token, received.topic)
        if act is not None:
            return act
        if self.latency[1] <= 0:
            return script
        return (Wait(self.random.uniform(*self.latency)), *script)

    def violate(self, rule: str, connection: Connection, received: Received) -> None:
        """Record a broken rule of the service's own."""
        self.ledger.violate(rule, connection.visit, received.stream, self.clock.seconds())
