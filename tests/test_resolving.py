"""Our questions to DNS, put by the real resolver to a name server on loopback."""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, TypeVar

import pytest_twisted
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.authority import FileAuthority
from twisted.names.client import Resolver
from twisted.names.server import DNSServerFactory

from bouncerd.resolving import Names
from tests.house import reactor
from tests.names import SILENCE, Zone

_T = TypeVar("_T")

HOST = "host.example.test"


class Authority(FileAuthority):
    """What is known of example.test, without a file."""

    soa: Any
    records: Any

    def __init__(self) -> None:
        super().__init__("")

    def loadFile(self, filename: str) -> None:  # noqa: N802 -- Twisted's name
        self.soa = b"example.test", dns.Record_SOA(b"ns.example.test", b"ops.example.test")
        self.records = {
            b"example.test": [self.soa[1], dns.Record_MX(10, "mail.example.test")],
            b"nullmx.example.test": [dns.Record_MX(0, "")],
            b"host.example.test": [
                dns.Record_A("93.184.216.34"),
                dns.Record_AAAA("2606:4700::1111"),
                dns.Record_AAAA("::ffff:10.0.0.1"),
            ],
            b"alias.example.test": [dns.Record_CNAME("host.example.test")],
            b"large.example.test": [dns.Record_A(f"93.184.216.{n}") for n in range(90)],
        }

    def _lookup(self, name: bytes, *rest: Any) -> Deferred[Any]:
        if name.startswith(b"broken"):
            return fail(OSError("which a name server tells as SERVFAIL"))
        answer: Deferred[Any] = super()._lookup(name, *rest)
        return answer


async def ask(question: Callable[[Names], Awaitable[_T]]) -> _T:
    """Ask a name server that knows the zone."""
    factory = DNSServerFactory([Authority()])
    factory.noisy = False
    tcp = reactor.listenTCP(0, factory, interface="127.0.0.1")
    port = tcp.getHost().port
    udp = reactor.listenUDP(port, dns.DNSDatagramProtocol(factory), interface="127.0.0.1")
    resolver: Any = Resolver(servers=[("127.0.0.1", port)], reactor=reactor)
    try:
        return await question(Names(resolver, reactor))
    finally:
        for protocol in list(resolver.connections):
            protocol.transport.abortConnection()
        await udp.stopListening()
        await tcp.stopListening()


@pytest_twisted.ensureDeferred
async def test_mail() -> None:
    """Mail servers are found; that there are none is known for certain; a failure is not that."""
    for name, known in {
        "example.test": True,
        "nullmx.example.test": False,
        "host.example.test": False,
        "nowhere.example.test": False,
        "broken.example.test": None,
    }.items():
        assert await ask(_takes_mail(name)) is known, name


def _takes_mail(name: str) -> Callable[[Names], Awaitable[bool | None]]:
    return lambda names: names.takes_mail(name)


@pytest_twisted.ensureDeferred
async def test_existence() -> None:
    """A name exists if anything shows it."""
    assert await ask(lambda names: names.exists("host.example.test"))
    assert await ask(lambda names: names.exists("nowhere.example.test")) is False
    assert await ask(lambda names: names.exists("broken.example.test")) is None


@pytest_twisted.ensureDeferred
async def test_addresses() -> None:
    """Addresses of both kinds are found, also by another name; IPv4 comes first."""
    both = [ip_address("93.184.216.34"), ip_address("10.0.0.1"), ip_address("2606:4700::1111")]
    found = await ask(lambda names: names.addresses("host.example.test"))
    assert found is not None
    assert found[0] == both[0]
    assert set(found) == set(both)
    assert await ask(lambda names: names.addresses("alias.example.test")) == found
    assert await ask(lambda names: names.addresses("nowhere.example.test")) == []
    assert await ask(lambda names: names.addresses("broken.example.test")) is None
    large = await ask(lambda names: names.addresses("large.example.test"))
    assert large is not None
    assert len(large) == 90  # more than a datagram holds


def test_silence() -> None:
    """A resolver that never answers is one that does not know."""

    clock = Clock()
    names = Names(Zone(A={HOST: SILENCE}, AAAA={HOST: SILENCE}), clock)
    asked: list[object] = []
    Deferred.fromCoroutine(names.addresses(HOST)).addCallback(asked.append)
    clock.advance(2.9)
    assert asked == []
    clock.advance(0.1)
    assert asked == [None]
