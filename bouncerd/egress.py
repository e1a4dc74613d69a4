"""The way out through an operator's HTTP proxy: CONNECT, then bytes as they come.

Knows what a proxy may answer (RFC 9110, 9.3.6) and believes little of it: its answer is short, in
time and well formed, or the connection has failed. TLS to the provider goes through the tunnel
from end to end, so that the proxy sees a host's name and no push.
"""

import re

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from bouncerd.settings import Proxy
from bouncerd.tls import client_options
from bouncerd.words import NotConnected, words

#: Bytes that a proxy may answer; seconds that it may take, for it connects meanwhile.
LONGEST_ANSWER = 8192
ANSWER_WITHIN = 12.0
#: Seconds for connecting to one of a host's addresses.
CONNECT_WITHIN = 15.0

_BEGIN, _END = b"HTTP/1.", b"\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_HEADER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_HINTS = {
    403: " (it forbids this host or port)",
    407: " (it wants a user name and a password)",
    502: " (it does not reach the host)",
    504: " (it does not reach the host in time)",
}


class NoTunnel(NotConnected):
    """The proxy, or the way to it, does not let us through."""


def way_to(
    reactor: IReactorTime, host: str, port: int, proxy: Proxy | None
) -> IStreamClientEndpoint:
    """Return the endpoint of a host, beyond the proxy if there is one."""
    if proxy is None:
        return HostnameEndpoint(reactor, host, port, timeout=CONNECT_WITHIN)
    to_proxy = HostnameEndpoint(reactor, proxy.host, proxy.port, timeout=CONNECT_WITHIN)
    return Tunnel(to_proxy, proxy, host, port, reactor)


@implementer(IAgentEndpointFactory)
class WaysOut:
    """Makes the endpoints of web addresses. `ca_pem`: whose certificates are good as well.

    An http:// one is on this host (config takes no other), where no proxy is needed.
    """

    def __init__(self, reactor: IReactorTime, proxy: Proxy | None, ca_pem: bytes | None) -> None:
        self._reactor = reactor
        self._proxy = proxy
        self._ca_pem = ca_pem

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802 -- Twisted's name
        """Make the endpoint; nothing is resolved yet."""
        host = uri.host.decode("ascii").strip("[]")
        if uri.scheme != b"https":
            return way_to(self._reactor, host, uri.port, None)
        options = client_options(host, (b"http/1.1",), self._ca_pem)
        return wrapClientTLS(options, way_to(self._reactor, host, uri.port, self._proxy))


@implementer(IStreamClientEndpoint)
class Tunnel:
    """An endpoint beyond a proxy; `to_proxy` is the proxy's own."""

    def __init__(
        self,
        to_proxy: IStreamClientEndpoint,
        proxy: Proxy,
        host: str,
        port: int,
        clock: IReactorTime,
    ) -> None:
        self._to_proxy = to_proxy
        self._hello = hello(proxy, host, port)
        self._clock = clock

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Dial the proxy, name the host; fires when bytes go through, or fails as NoTunnel."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        try:
            asking = await self._to_proxy.connect(_Asking(self._hello, self._clock, factory))
        except (CancelledError, ConnectingCancelledError):
            raise
        except Exception:  # noqa: BLE001 -- whatever it is, it is not the provider's fault
            raise NoTunnel(f"the proxy: {words(Failure())}") from None
        assert isinstance(asking, _Through)
        return await asking.through


def hello(proxy: Proxy, host: str, port: int) -> bytes:
    """Return what we ask a proxy."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if proxy.credentials:
        lines.append(f"Proxy-Authorization: Basic {proxy.credentials}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def answer(heard: bytes) -> tuple[int, bytes] | None:
    """Return the proxy's status and what came behind its answer; None: not all is there yet.

    Raises NoTunnel if it is none, or too long. Interim answers are passed over (RFC 9110, 15.2).
    """
    begin = 0
    while heard[begin : begin + len(_BEGIN)] == _BEGIN[: len(heard) - begin]:
        end = heard.find(_END, begin, LONGEST_ANSWER)
        if end < 0 and len(heard) < LONGEST_ANSWER:
            return None
        if end < 0:
            raise NoTunnel("the proxy's answer does not end")
        status = _status(heard[begin:end])
        begin = end + len(_END)
        if status >= 200:
            return status, heard[begin:]
    raise NoTunnel("the proxy's answer is not HTTP")


def _status(head: bytes) -> int:
    status_line, *header_lines = head.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(status_line)
    if status is None or not all(map(_HEADER_LINE.fullmatch, header_lines)):
        raise NoTunnel("the proxy's answer is not HTTP")
    return int(status[1])


class _Asking(Factory[Protocol]):
    """Makes the protocol that asks the proxy."""

    noisy = False

    def __init__(self, asked: bytes, clock: IReactorTime, factory: IProtocolFactory) -> None:
        self._asked = asked
        self._clock = clock
        self._factory = factory

    def buildProtocol(self, addr: IAddress | None) -> "_Through":
        return _Through(self._asked, self._clock, self._factory, addr)


class _Through(Protocol):
    """Asks the proxy; then all it hears is for another protocol, which `through` fires with."""

    transport: ITCPTransport | None  # what endpoints give

    def __init__(
        self,
        asked: bytes,
        clock: IReactorTime,
        factory: IProtocolFactory,
        address: IAddress | None,
    ) -> None:
        self.through: Deferred[IProtocol] = Deferred(lambda _: self._fail(CancelledError()))
        self._asked = asked
        self._clock = clock
        self._factory = factory
        self._address = address
        self._heard = b""
        self._within: IProtocol | None = None
        self._late: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Ask."""
        assert self.transport is not None
        silent = NoTunnel("the proxy does not answer")
        self._late = self._clock.callLater(ANSWER_WITHIN, self._fail, silent)
        self.transport.write(self._asked)

    def dataReceived(self, data: bytes) -> None:
        """Read the answer; once it is there and good, hand everything on."""
        if self._within is not None:
            self._within.dataReceived(data)
        elif not self.through.called:
            self._heard += data
            self._read()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Hand that on, too."""
        if self._within is not None:
            self._within.connectionLost(reason)
        else:
            self._fail(NoTunnel("the proxy hung up"))

    def _read(self) -> None:
        try:
            found = answer(self._heard)
        except NoTunnel as problem:
            self._fail(problem)
            return
        if found is None:
            return
        status, rest = found
        if status < 300:
            self._let_through(rest)
        else:
            self._fail(NoTunnel(f"the proxy refuses: {status}{_HINTS.get(status, '')}"))

    def _let_through(self, rest: bytes) -> None:
        assert self.transport is not None
        self._heard = b""
        self._stop_waiting()
        within = self._factory.buildProtocol(self._address)  # type: ignore[arg-type]  # may be None
        if within is None:
            self._fail(NoTunnel("stopped"))
            return
        self._within = within
        within.makeConnection(self.transport)
        self.through.callback(within)
        if rest:
            within.dataReceived(rest)

    def _fail(self, problem: Exception) -> None:
        """Give it up, once: the connection is good for nothing else."""
        self._stop_waiting()
        if self.through.called:
            return
        self.through.errback(problem)
        if self.transport is not None:
            self.transport.abortConnection()

    def _stop_waiting(self) -> None:
        if self._late is not None and self._late.active():
            self._late.cancel()
