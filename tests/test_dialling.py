"""Which hosts are connected to, at which addresses, and how much they may say: TLS in memory."""

import datetime
from collections.abc import Callable
from ipaddress import IPv4Network, ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto
from twisted.internet import error as network
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent
from zope.interface import implementer

from bouncerd.addresses import IPAddress, is_public
from bouncerd.challenge import Challenge
from bouncerd.dialling import LONGEST_CONNECTION, Dialler
from bouncerd.envelope import WireError
from bouncerd.resolving import Names
from tests.names import SILENCE, Zone, a

HOST = "chat.example.org"
PUBLIC, PUBLIC_6 = "93.184.216.34", "2606:4700::1111"
CONNECTION = "Connection error occurred while communicating with the host."
TLS = "SSL error occurred while communicating with the host."
TIMEOUT = "The request timed out while communicating with the host."
OTHER = "An error occurred while communicating with the host."


def certificate(*names: str) -> tuple[CertificateOptions, bytes]:
    """Make a server's context for these names, and what makes its certificate good."""
    key = ec.generate_private_key(ec.SECP256R1())
    today = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    spelled: list[x509.GeneralName] = [
        x509.DNSName(each) if each[-1].isalpha() else x509.IPAddress(ip_address(each))
        for each in names
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(spelled), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown = crypto.X509.from_cryptography(made)
    options = CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(key),
        certificate=shown,
        acceptableProtocols=[b"http/1.1"],
    )
    return options, crypto.dump_certificate(crypto.FILETYPE_PEM, shown)


class Host(Protocol):
    """What stands at an address: reads a request, and answers with what it is given."""

    factory: "Hosts"
    heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if self.heard.endswith(b"\r\n\r\n"):
            self.factory.heard.append(self.heard)
            assert self.transport is not None
            for piece in self.factory.answer:
                self.transport.write(piece)
            if self.factory.closes:
                self.transport.loseConnection()

    def connectionLost(self, reason: object = None) -> None:
        self.factory.lost += 1


class Hosts(Factory):
    """Makes hosts."""

    protocol = Host  # type: ignore[assignment]  # as Twisted's own examples do
    noisy = False

    def __init__(self, answer: list[bytes], *, closes: bool = True) -> None:
        self.answer = answer
        self.closes = closes
        self.heard: list[bytes] = []
        self.lost = 0


class Internet:
    """Addresses, who stands there, and who was dialled."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.at: dict[str, Exception | Hosts | None] = {}
        self.dialled: list[tuple[str, int]] = []
        self.context, self.ca_pem = certificate(HOST, "xn--mnchen-3ya.example.org", PUBLIC)
        self.pumps: list[Any] = []

    def connector(self, address: IPAddress, port: int) -> IStreamClientEndpoint:
        return _Road(self, str(address), port)

    def flush(self) -> None:
        for _ in range(30):
            self.clock.advance(0)
            for pump in self.pumps:
                pump.pump()


@implementer(IStreamClientEndpoint)
class _Road:
    def __init__(self, internet: Internet, address: str, port: int) -> None:
        self._internet = internet
        self._address = address
        self._port = port

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        internet = self._internet
        internet.dialled.append((self._address, self._port))
        found = internet.at.get(self._address, network.ConnectionRefusedError())
        if found is None:
            return Deferred()  # a road that leads nowhere
        if isinstance(found, Exception):
            return fail(found)
        secured = TLSMemoryBIOFactory(internet.context, False, found, internet.clock)
        nobody: Any = None
        server: Any = secured.buildProtocol(nobody)
        client: Any = factory.buildProtocol(nobody)
        ends = FakeTransport(server, True), FakeTransport(client, False)
        internet.pumps.append(connect(server, ends[0], client, ends[1], greet=False))
        return succeed(client)


def answer(body: bytes, *headers: bytes) -> list[bytes]:
    """Write an answer down."""
    fields = b"".join(b"%b\r\n" % each for each in headers)
    return [b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body]


SECRET = answer(b'{"verification_secret": "ABCD"}')


class DialTests(SynchronousTestCase):
    """A challenge from a stranger's word to a host's."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.internet = Internet(self.clock)
        self.host = Hosts(SECRET)
        self.internet.at[PUBLIC] = self.host

    def ask(
        self,
        zone: Zone | None = None,
        host: str = HOST,
        allowed: Callable[[IPAddress], bool] = is_public,
        ca_pem: bytes | None = b"",
    ) -> Deferred[str]:
        zone = zone or Zone(A={HOST: a(PUBLIC)})
        ca_pem = self.internet.ca_pem if ca_pem == b"" else ca_pem
        names = Names(zone, self.clock)
        dialler = Dialler(names, self.internet.connector, self.clock, allowed, ca_pem)
        agent = Agent.usingEndpointFactory(self.clock, dialler)
        asked = Deferred.fromCoroutine(Challenge(agent, self.clock).ask(host, "token", 8.0))
        self.internet.flush()
        return asked

    def told(self, asked: Deferred[str]) -> str:
        return str(self.failureResultOf(asked, WireError).value.msg)

    def test_a_good_host(self) -> None:
        """A host is asked at its address, on port 443, under its name."""
        self.assertEqual(self.successResultOf(self.ask()), "ABCD")
        self.assertEqual(self.internet.dialled, [(PUBLIC, 443)])
        [heard] = self.host.heard
        self.assertTrue(heard.startswith(b"GET /api/v1/zulip-services/verify/token/ HTTP/1.1\r\n"))
        self.assertIn(b"\r\nHost: chat.example.org\r\n", heard)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_forbidden_addresses(self) -> None:
        """A name that leads to this host, to a neighbour or nowhere is not followed."""
        for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1",
                        "fd00::1", "64:ff9b::7f00:1", "2002:7f00:1::1", "0.0.0.0"]:  # fmt: skip
            kind = "AAAA" if ":" in address else "A"
            self.assertEqual(self.told(self.ask(Zone(**{kind: {HOST: a(address)}}))), CONNECTION)
            literal = f"[{address}]" if ":" in address else address
            self.assertIn(self.told(self.ask(host=literal)), (CONNECTION, OTHER))
        self.assertEqual(self.internet.dialled, [])

    def test_a_mixed_name(self) -> None:
        """Of a name's addresses only those that may be are used."""
        zone = Zone(A={HOST: a("127.0.0.1", PUBLIC, "10.1.1.1")})
        self.assertEqual(self.successResultOf(self.ask(zone)), "ABCD")
        self.assertEqual(self.internet.dialled, [(PUBLIC, 443)])

    def test_a_name_that_changes(self) -> None:
        """A name that points to us when it is asked for again gains nothing: it is asked once."""
        answers = iter([a(PUBLIC), a("127.0.0.1"), a("127.0.0.1")])
        zone = Zone(A={HOST: lambda: next(answers)})
        self.internet.at["127.0.0.1"] = Hosts(SECRET)
        self.assertEqual(self.successResultOf(self.ask(zone)), "ABCD")
        self.assertEqual(self.internet.dialled, [(PUBLIC, 443)])
        self.assertEqual([kind for kind, _ in zone.asked], ["A", "AAAA"])

    def test_loopback_for_tests(self) -> None:
        """Whoever builds the daemon may allow more addresses; no configuration can."""
        zone = Zone(A={HOST: a("127.0.0.1")})
        self.internet.at["127.0.0.1"] = self.host
        asked = self.ask(zone, allowed=lambda address: address in IPv4Network("127.0.0.0/8"))
        self.assertEqual(self.successResultOf(asked), "ABCD")

    def test_several_addresses(self) -> None:
        """What cannot be reached is passed over, three addresses at most; IPv4 goes first."""
        self.internet.at[PUBLIC_6] = self.host
        self.internet.at[PUBLIC] = network.ConnectionRefusedError()
        zone = Zone(A={HOST: a(PUBLIC)}, AAAA={HOST: a(PUBLIC_6)})
        self.assertEqual(self.successResultOf(self.ask(zone)), "ABCD")
        self.assertEqual(self.internet.dialled, [(PUBLIC, 443), (PUBLIC_6, 443)])
        del self.internet.dialled[:]
        zone = Zone(A={HOST: a("8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.8.4")})
        self.assertEqual(self.told(self.ask(zone)), CONNECTION)
        self.assertEqual(len(self.internet.dialled), 3)

    def test_no_address(self) -> None:
        """A name without addresses, or that DNS says nothing of, is a connection error."""
        self.assertEqual(self.told(self.ask(Zone())), CONNECTION)
        self.assertEqual(self.told(self.ask(Zone(A={HOST: OSError()}))), CONNECTION)
        asked = self.ask(Zone(A={HOST: SILENCE}, AAAA={HOST: SILENCE}))
        self.clock.advance(3)
        self.assertEqual(self.told(asked), CONNECTION)

    def test_an_address_as_name(self) -> None:
        """A host may be an address, with a certificate for that."""
        self.assertEqual(self.successResultOf(self.ask(Zone(), PUBLIC)), "ABCD")
        self.assertEqual(self.internet.dialled, [(PUBLIC, 443)])

    def test_names_in_other_scripts(self) -> None:
        """A name is resolved and verified in ASCII."""
        host = "xn--mnchen-3ya.example.org"
        asked = self.ask(Zone(A={host: a(PUBLIC)}), host)
        self.assertEqual(self.successResultOf(asked), "ABCD")

    def test_certificates(self) -> None:
        """A certificate for another name, or by nobody we trust, is refused; nothing is sent."""
        other = "other.example.org"
        self.assertEqual(self.told(self.ask(Zone(A={other: a(PUBLIC)}), other)), TLS)
        self.assertEqual(self.told(self.ask(ca_pem=None)), TLS)
        self.assertEqual(self.host.heard, [])

    def test_too_much(self) -> None:
        """A host that never stops talking is hung up on, wherever it does it."""
        line = b"X-Header: " + b"x" * 1000 + b"\r\n"
        for pieces in [
            [b"HTTP/1.1 200 OK\r\n", *[line] * 70],
            [b"HTTP/1.1 100 Continue\r\n\r\n"] * 5000,
            [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 1000] * 70],
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 20_000],
        ]:
            host = self.internet.at[PUBLIC] = Hosts(pieces, closes=False)
            self.assertEqual(self.told(self.ask()), OTHER)
            self.internet.flush()
            self.assertEqual(host.lost, 1)

    def test_a_host_that_holds_the_line(self) -> None:
        """A host that says nothing, or does not hang up, is not waited for."""
        host = self.internet.at[PUBLIC] = Hosts([], closes=False)
        asked = self.ask()
        self.clock.advance(8)
        self.assertEqual(self.told(asked), TIMEOUT)
        self.clock.advance(LONGEST_CONNECTION)
        self.internet.flush()
        self.assertEqual((host.lost, self.clock.getDelayedCalls()), (1, []))

    def test_a_road_that_leads_nowhere(self) -> None:
        """A host that cannot be reached in time is given up."""
        self.internet.at[PUBLIC] = None
        asked = self.ask()
        self.clock.advance(8)
        self.assertEqual(self.told(asked), TIMEOUT)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hangs_up(self) -> None:
        """A host that hangs up without an answer is a connection error."""
        self.internet.at[PUBLIC] = Hosts([])
        self.assertEqual(self.told(self.ask()), CONNECTION)

    def test_no_http(self) -> None:
        """A host that speaks something else is no Zulip server."""
        self.internet.at[PUBLIC] = Hosts([b"220 mail.example.org ESMTP\r\n"])
        self.assertEqual(self.told(self.ask()), OTHER)
