"""Connections to hosts that a stranger named: resolved once, checked, bounded, over TLS.

A name is resolved here and the connection goes to the address that was checked, so that a name
which points elsewhere a moment later gains nothing. The certificate must be the name's.
"""

# Twisted's protocol wrappers and errors are not annotated.
# mypy: allow-untyped-calls

from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionAborted
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from bouncerd.addresses import IPAddress, is_public, read_address
from bouncerd.resolving import Names
from bouncerd.tls import client_options

PORT = 443
#: Bytes that a host may say in all: its headers and its body.
MAX_SAID = 65_536
#: Seconds for connecting to one address.
CONNECT_TIME = 2.5
#: Seconds that a connection lives, whatever its host does; and how many addresses are tried.
LONGEST_CONNECTION = 10.0
_MOST_ADDRESSES = 3

#: Makes an endpoint of an address and a port; it gives up after CONNECT_TIME.
Connector: TypeAlias = Callable[[IPAddress, int], IStreamClientEndpoint]


class NoWayThere(ConnectError):
    """The host has no address that we may connect to."""


@implementer(IAgentEndpointFactory)
class Dialler:
    """Makes endpoints for URLs of https://host/; what else a URL says of its host is ignored.

    `allowed` says which addresses may be connected to and `ca_pem` whose certificates are good
    beside those that the platform trusts: both are for tests.
    """

    def __init__(
        self,
        names: Names,
        connector: Connector,
        clock: IReactorTime,
        allowed: Callable[[IPAddress], bool] = is_public,
        ca_pem: bytes | None = None,
    ) -> None:
        self._names = names
        self._connector = connector
        self._clock = clock
        self._allowed = allowed
        self._ca_pem = ca_pem

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802 -- Twisted's name
        """Make the endpoint; nothing is resolved yet."""
        return _Checked(self, uri.host.decode("ascii").strip("[]"))

    async def dial(self, host: str, factory: IProtocolFactory) -> IProtocol:
        """Connect to the first of a host's addresses that can be reached."""
        problem: Exception = NoWayThere()
        for address in (await self._addresses(host))[:_MOST_ADDRESSES]:
            options = client_options(host, (b"http/1.1",), self._ca_pem)
            secured = TLSMemoryBIOFactory(
                options, True, _Bounding(factory, self._clock), self._clock
            )
            try:
                connected: Any = await self._connector(address, PORT).connect(secured)
            except ConnectError as error:
                problem = error
            else:
                within: IProtocol = connected.wrappedProtocol.wrappedProtocol
                return within
        raise problem

    async def _addresses(self, host: str) -> list[IPAddress]:
        literal = read_address(host) if ":" in host or host[-1:].isdigit() else None
        found = await self._names.addresses(host) if literal is None else [literal]
        return [address for address in found or () if self._allowed(address)]


@implementer(IStreamClientEndpoint)
class _Checked:
    """One host's endpoint."""

    def __init__(self, dialler: Dialler, host: str) -> None:
        self._dialler = dialler
        self._host = host

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Resolve, check, connect."""
        return Deferred.fromCoroutine(self._dialler.dial(self._host, factory))


class _Bounded(ProtocolWrapper):
    """Counts what a host says, and how long it holds the line; hangs up on what is too much."""

    factory: "_Bounding"
    _room = MAX_SAID
    _hung_up = False
    _end: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start the clock."""
        self._end = self.factory.clock.callLater(LONGEST_CONNECTION, self._hang_up)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Hand on what still has room."""
        self._room -= len(data)
        if self._room < 0:
            self._hang_up()
        else:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the clock."""
        if self._end is not None and self._end.active():
            self._end.cancel()
        super().connectionLost(Failure(ConnectionAborted()) if self._hung_up else reason)

    def _hang_up(self) -> None:
        self._hung_up = True
        transport: Any = self.transport
        transport.abortConnection()


class _Bounding(WrappingFactory):
    """Makes bounded connections."""

    protocol = _Bounded
    noisy = False

    def __init__(self, wrapped: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(wrapped)
        self.clock = clock
