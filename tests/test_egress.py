"""The way out through a proxy: what we ask it, and how little of its answer is believed."""

from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error as network
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import URI
from zope.interface import implementer

from bouncerd.egress import ANSWER_WITHIN, LONGEST_ANSWER, NoTunnel, Tunnel, WaysOut, answer, hello
from bouncerd.settings import Proxy
from bouncerd.words import words

PROXY = Proxy("proxy.example.org", 3128)
FINE = b"HTTP/1.1 200 Connection established\r\nProxy-agent: some/1.0\r\n\r\n"
HERE = IPv4Address("TCP", "127.0.0.1", 3128)


class Speaker(Protocol):
    """What is to talk through the tunnel: keeps what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: list[Failure] = []

    def connectionMade(self) -> None:
        """Speak at once, as TLS does."""
        assert self.transport is not None
        self.transport.write(b"client hello")

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keep it."""
        self.lost.append(reason)


class SpeakerFactory(Factory[Speaker]):
    """Makes speakers."""

    noisy = False
    protocol = Speaker


@implementer(IStreamClientEndpoint)
class ToProxy:
    """Reaches a proxy in memory at once, or fails."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem
        self.transport = StringTransport()
        self.protocol: Protocol | None = None

    def connect(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        """Connect."""
        if self.problem is not None:
            return fail(Failure(self.problem))
        protocol = factory.buildProtocol(HERE)
        assert isinstance(protocol, Protocol)
        self.protocol = protocol
        protocol.makeConnection(self.transport)
        return succeed(protocol)

    def say(self, data: bytes) -> None:
        """Have the proxy say something."""
        assert self.protocol is not None
        self.protocol.dataReceived(data)

    def hang_up(self) -> None:
        """Have the proxy close the connection."""
        assert self.protocol is not None
        self.protocol.connectionLost(Failure(network.ConnectionDone()))


class TunnelTests(SynchronousTestCase):
    """One connection through a proxy in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.proxy = ToProxy()

    def dial(self, proxy: Proxy = PROXY, host: str = "api.push.apple.com") -> "Deferred[IProtocol]":
        """Begin to connect."""
        return Tunnel(self.proxy, proxy, host, 443, self.clock).connect(SpeakerFactory())

    def assert_refused(self, dialing: "Deferred[IProtocol]", why: str) -> None:
        """It failed, for this reason, and nothing is left behind."""
        failure = self.failureResultOf(dialing, NoTunnel)
        self.assertEqual(words(failure), why)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def assert_hung_up_on(self) -> None:
        """We have closed the connection to the proxy."""
        self.assertTrue(self.proxy.transport.disconnected or self.proxy.transport.disconnecting)

    def test_what_is_asked(self) -> None:
        """The proxy is asked for the host by its name, and told who we are if that is set."""
        self.dial()
        self.assertEqual(
            self.proxy.transport.value(),
            b"CONNECT api.push.apple.com:443 HTTP/1.1\r\nHost: api.push.apple.com:443\r\n\r\n",
        )
        credentials = b64encode(b"me:secret").decode()
        asked = hello(Proxy("p", 1, credentials), "::1", 2197)
        self.assertEqual(
            asked,
            b"CONNECT [::1]:2197 HTTP/1.1\r\nHost: [::1]:2197\r\n"
            b"Proxy-Authorization: Basic " + credentials.encode() + b"\r\n\r\n",
        )
        self.assertNotIn(credentials, repr(Proxy("p", 1, credentials)))

    def test_goes_through(self) -> None:
        """After the proxy's answer both ends speak with each other, and hear of the end."""
        dialing = self.dial()
        self.assertNoResult(dialing)
        self.proxy.transport.clear()
        self.proxy.say(FINE + b"server hello")
        speaker = self.successResultOf(dialing)
        assert isinstance(speaker, Speaker)
        self.assertEqual(self.proxy.transport.value(), b"client hello")
        self.proxy.say(b", and more")
        self.assertEqual(speaker.heard, b"server hello, and more")
        self.clock.advance(10 * ANSWER_WITHIN)
        self.assertFalse(self.proxy.transport.disconnected)
        self.proxy.hang_up()
        self.assertEqual(len(speaker.lost), 1)

    def test_split_anywhere(self) -> None:
        """It does not matter how the answer is cut into pieces."""
        whole = b"HTTP/1.1 100 Continue\r\n\r\n" + FINE + b"server hello"
        for cut in range(len(whole) + 1):
            self.setUp()
            dialing = self.dial()
            for piece in filter(None, (whole[:cut], whole[cut:])):
                self.proxy.say(piece)
            speaker = self.successResultOf(dialing)
            assert isinstance(speaker, Speaker)
            self.assertEqual(speaker.heard, b"server hello", str(cut))

    def test_byte_by_byte(self) -> None:
        """Even one byte at a time is an answer."""
        dialing = self.dial()
        for byte in FINE:
            self.assertNoResult(dialing)
            self.proxy.say(bytes([byte]))
        self.successResultOf(dialing)

    def test_refusals(self) -> None:
        """An operator reads what the proxy says: its status, and what that is about."""
        for status, why in (
            (b"403 Filtered", "the proxy refuses: 403 (it forbids this host or port)"),
            (b"407 Auth", "the proxy refuses: 407 (it wants a user name and a password)"),
            (b"500", "the proxy refuses: 500"),
            (b"301 Moved", "the proxy refuses: 301"),
        ):
            self.setUp()
            dialing = self.dial()
            self.proxy.say(b"HTTP/1.0 " + status + b"\r\nContent-Length: 4\r\n\r\nsorry")
            self.assert_refused(dialing, why)
            self.assert_hung_up_on()

    def test_no_http(self) -> None:
        """What speaks something else is found out at its first bytes."""
        for said in (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x15\x03\x03\x00\x02",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 2OO OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded: on\r\n\r\n",
            b"HTTP/1.1 200 OK\n\nX: y\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nnonsense",
        ):
            self.setUp()
            dialing = self.dial()
            self.proxy.say(said)
            self.assert_refused(dialing, "the proxy's answer is not HTTP")
            self.assert_hung_up_on()

    def test_endless_headers(self) -> None:
        """A proxy that never stops answering is left, whatever pieces that comes in."""
        for piece in (b"X: y\r\n", b"X" * 1000, b"HTTP/1.1 100 Continue\r\n\r\n" * 9, b"z" * 10**6):
            self.setUp()
            dialing = self.dial()
            self.proxy.say(b"" if piece.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\nA: ")
            for _ in range(LONGEST_ANSWER):
                if not dialing.called:
                    self.proxy.say(piece)
            self.assertIn("does not end", words(self.failureResultOf(dialing, NoTunnel)))
            self.assert_hung_up_on()
            self.proxy.say(b"more")

    def test_silence(self) -> None:
        """A proxy that takes the connection and says nothing is given up in time."""
        dialing = self.dial()
        self.proxy.say(b"HTTP/1.1 2")
        self.clock.advance(ANSWER_WITHIN - 0.1)
        self.assertNoResult(dialing)
        self.clock.advance(0.2)
        self.assert_refused(dialing, "the proxy does not answer")
        self.assert_hung_up_on()

    def test_hangs_up(self) -> None:
        """A proxy that closes in the middle of its answer is said to have done so."""
        dialing = self.dial()
        self.proxy.say(FINE[:10])
        self.proxy.hang_up()
        self.assert_refused(dialing, "the proxy hung up")

    def test_fine_and_gone(self) -> None:
        """A tunnel that closes as soon as it is open is a lost connection like any other."""
        dialing = self.dial()
        self.proxy.say(FINE)
        self.proxy.hang_up()
        speaker = self.successResultOf(dialing)
        assert isinstance(speaker, Speaker)
        self.assertEqual(len(speaker.lost), 1)

    def test_no_proxy_there(self) -> None:
        """A proxy that is down is told from a provider that is."""
        for problem, why in (
            (network.ConnectionRefusedError(), "the proxy: connection refused"),
            (network.TimeoutError(), "the proxy: no connection in time"),
        ):
            self.proxy = ToProxy(problem)
            self.assert_refused(self.dial(), why)

    def test_given_up(self) -> None:
        """Who waits no longer leaves no connection behind."""
        dialing = self.dial()
        dialing.cancel()
        self.failureResultOf(dialing)
        self.assert_hung_up_on()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.proxy.hang_up()

    def test_nobody_to_speak(self) -> None:
        """A caller that has changed its mind when the tunnel is there leaves none behind."""

        class Unwilling(Factory[Protocol]):
            noisy = False

            def buildProtocol(self, _: object) -> None:
                return None

        dialing = Tunnel(self.proxy, PROXY, "h", 443, self.clock).connect(Unwilling())
        self.proxy.say(FINE)
        self.assert_refused(dialing, "stopped")
        self.assert_hung_up_on()


class AnswerTests(SynchronousTestCase):
    """The reading of any bytes at all."""

    @given(st.binary(max_size=200), st.booleans())
    def test_any_bytes(self, said: bytes, begun: bool) -> None:
        """Whatever comes is an answer, the beginning of one, or none: nothing else happens."""
        said = b"HTTP/1.1 200" + said if begun else said
        try:
            found = answer(said)
        except NoTunnel as problem:
            self.assertIn("the proxy's answer", problem.why)
        else:
            self.assertTrue(found is None or 200 <= found[0] < 600)

    @given(st.binary(max_size=100), st.integers(0, 200))
    def test_a_prefix_is_no_other_answer(self, rest: bytes, cut: int) -> None:
        """Half an answer is never taken for a whole one, nor for nonsense."""
        whole = FINE + rest
        found = answer(whole[:cut])
        self.assertEqual(found, (200, whole[:cut][len(FINE) :]) if cut >= len(FINE) else None)


class WaysOutTests(SynchronousTestCase):
    """Google's token endpoint is reached the same way."""

    def test_https_takes_the_proxy(self) -> None:
        """An address of the internet goes through the proxy, a stand-in on this host does not."""
        reactor = MemoryReactorClock()
        ways = WaysOut(reactor, Proxy("127.0.0.1", 3128), None)
        for url in (b"https://oauth2.googleapis.com/token", b"https://[::1]:8443/token"):
            ways.endpointForURI(URI.fromBytes(url)).connect(SpeakerFactory())
        ways.endpointForURI(URI.fromBytes(b"http://127.0.0.1:81/token")).connect(SpeakerFactory())
        reactor.advance(1)
        self.assertEqual([client[1] for client in reactor.tcpClients], [3128, 3128, 81])
