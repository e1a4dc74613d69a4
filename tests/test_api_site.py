"""What a peer can take of us, and no more: sizes, times, connections."""

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from bouncerd.api import PREFIX
from bouncerd.channel import Bounds, Channel
from tests.in_memory import FORM, Answer, Daemon, basic, form, read_answer, spell

REQUEST = spell("POST", PREFIX + "push/unregister/all", form({"user_id": "5"}),
                {**FORM, "Authorization": basic()})  # fmt: skip
BOUNDS = Bounds(
    body=1000,
    bodies={b"/api/v1/remotes/server/register": 5000},
    receive_within=60.0,
    idle=75.0,
    linger=2.0,
    hang_up=15.0,
    connections=3,
    early_reads=5,
)


class TCPTransport(StringTransport):
    """A transport that knows what TCP is told."""

    def __init__(self) -> None:
        super().__init__()
        self.keep_alive = False
        directlyProvides(self, ITCPTransport)

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: N802 -- Twisted's name
        self.keep_alive = enabled

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802 -- likewise
        pass


class SiteTests(SynchronousTestCase):
    """One daemon, and connections to it."""

    def setUp(self) -> None:
        self.daemon = Daemon(bounds=BOUNDS)
        self.daemon.enrol()
        self.channel, self.transport = self.daemon.connect()

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    def answer(self, method: str = "POST") -> Answer:
        answer = read_answer(self.transport.value(), method)
        self.transport.clear()
        return answer

    def refused(self, status: int) -> None:
        """Check for an error in JSON, after which the connection ends."""
        answer = self.answer()
        self.assertEqual(answer.status, status)
        self.assertEqual(answer.json["result"], "error")
        self.assertTrue(answer.json["msg"])
        self.assertEqual(answer.headers["Connection"], "close")
        self.assertTrue(answer.headers["X-Request-Id"])
        self.assertFalse(self.transport.disconnecting, "it must have time to read that")
        self.send(REQUEST)
        self.assertEqual(self.transport.value(), b"")
        self.pass_time(BOUNDS.linger + 1)
        self.assertTrue(self.transport.disconnecting)

    def pass_time(self, seconds: float) -> None:
        self.daemon.clock.pump([1.0] * int(seconds))


class SizeTests(SiteTests):
    """Too much of something."""

    def test_long_body(self) -> None:
        """A body that will be too long is refused before it comes."""
        self.send(spell("POST", PREFIX + "push/notify", b"", {"Content-Length": "1001"}))
        self.refused(413)

    def test_no_continue_for_it(self) -> None:
        """Who asks before it sends a long body is told no; a short one may come."""
        expect = {"Expect": "100-continue", "Content-Length": "1001"}
        self.send(spell("POST", PREFIX + "push/notify", b"", expect))
        self.assertNotIn(b"100 Continue", self.transport.value())
        self.refused(413)
        self.channel, self.transport = self.daemon.connect()
        self.send(spell("POST", "/", b"", {**expect, "Content-Length": "2"}))
        self.assertEqual(self.transport.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.transport.clear()
        self.send(b"{}")
        self.assertEqual(self.answer().status, 404)

    def test_long_chunked_body(self) -> None:
        """A body of unknown length is refused when it gets too long."""
        head = {"Transfer-Encoding": "chunked"}
        request = spell("POST", PREFIX + "push/notify", b"", {**head, "X": "y"})
        self.send(request.replace(b"Content-Length: 0\r\n", b""))
        for _ in range(10):
            self.send(b"64\r\n" + b"x" * 100 + b"\r\n")
        self.assertEqual(self.transport.value(), b"")
        self.send(b"1\r\nx\r\n0\r\n\r\n")
        self.refused(413)

    def test_chunked_body(self) -> None:
        """A chunked body within the limit is read like any other."""
        body = form({"user_id": "5"})
        head = {**FORM, "Authorization": basic(), "Transfer-Encoding": "chunked"}
        request = spell("POST", PREFIX + "push/unregister/all", b"", head)
        self.send(request.replace(b"Content-Length: 0\r\n", b""))
        for byte in body:
            self.send(b"1\r\n%c\r\n" % byte)
        self.send(b"0\r\n\r\n")
        self.assertEqual(self.answer().status, 200)

    def test_limits_by_path(self) -> None:
        """Some paths take longer bodies, however their slashes and queries look."""
        for path in ["/api/v1/remotes/server/register", "//api/v1/remotes/server/register?x=1"]:
            self.send(spell("POST", path, b"x" * 5000, {"Authorization": basic()}))
            self.assertEqual(self.answer().status, 400)
        self.send(spell("POST", path, b"", {"Content-Length": "5001"}))
        self.refused(413)

    def test_long_head(self) -> None:
        """Headers too long or too many, and request lines without end, are refused."""
        for request in [
            b"GET /" + b"x" * 20_000,
            spell("GET", "/", b"", {"X": "y" * 17_000}),
            spell("GET", "/", b"", {f"X-{n}": "y" for n in range(101)}),
            spell("GET", "/", b"", {f"X-{n}": "y" * 1000 for n in range(20)}),
        ]:
            self.channel, self.transport = self.daemon.connect()
            self.send(request)
            self.refused(400)
            self.channel.connectionLost(Failure(ConnectionDone()))

    def test_nonsense(self) -> None:
        """What is not HTTP/1.1 is answered as such, in JSON, and never half understood."""
        for request in [
            b"\x16\x03\x01\x02\x00\x01\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
            spell("POST", "/", b"", {"Content-Length": "-1"}),
            spell("POST", "/", b"", {"Content-Length": "1", "Transfer-Encoding": "chunked"}),
            spell("POST", "/", b"", {"Transfer-Encoding": "gzip"}).replace(
                b"Content-Length: 0\r\n", b""
            ),
        ]:
            self.channel, self.transport = self.daemon.connect()
            self.send(request)
            self.refused(400)
            self.channel.connectionLost(Failure(ConnectionDone()))

    def test_nothing_on_disk(self) -> None:
        """A body is kept in memory, however long it may become."""
        self.assertEqual(type(self.daemon.site.getContentFile(None)).__name__, "BytesIO")


class TimeTests(SiteTests):
    """Too slow, or too quiet."""

    def test_slow_requests(self) -> None:
        """A request has a minute to come in, head and body, however busily it trickles."""
        for byte in REQUEST[:59]:
            self.send(bytes([byte]))
            self.pass_time(1)
        self.assertEqual(self.transport.value(), b"")
        self.pass_time(1)
        self.refused(408)

    def test_slow_bodies(self) -> None:
        """Nor may a body trickle for ever."""
        self.send(spell("POST", "/", b"", {"Content-Length": "900"}))
        for _ in range(60):
            self.send(b"x")
            self.pass_time(1)
        self.refused(408)

    def test_idle(self) -> None:
        """A connection on which nothing is asked is closed, but not too soon."""
        self.send(REQUEST)
        self.pass_time(74)
        self.send(REQUEST)
        self.pass_time(74)
        self.assertFalse(self.transport.disconnecting)
        self.pass_time(1)
        self.assertTrue(self.transport.disconnecting)

    def test_answers_take_their_time(self) -> None:
        """A connection that waits for us is not closed."""
        self.daemon = Daemon(bounds=BOUNDS, answer_within=500.0)
        self.daemon.enrol()
        self.daemon.post_form("push/register", user_id="5", token="t", token_kind="2")
        self.daemon.fcm.holding = True
        self.channel, self.transport = self.daemon.connect()
        self.send(
            spell("POST", PREFIX + "push/notify", b'{"user_id":5}', {"Authorization": basic()})
        )
        self.pass_time(300)
        self.assertFalse(self.transport.disconnecting)
        self.daemon.fcm.release()
        self.assertEqual(self.answer().status, 200)

    def test_peers_that_do_not_read(self) -> None:
        """Who does not take what we have for it is dropped in the end."""
        self.pass_time(75)
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.disconnected)
        self.pass_time(15)
        self.assertTrue(self.transport.disconnected)

    def test_refused_but_sending(self) -> None:
        """Who goes on sending what was refused has time to finish, but not for ever."""
        self.send(spell("POST", "/", b"", {"Content-Length": "99999"}))
        for _ in range(59):
            self.send(b"x" * 100)
            self.pass_time(1)
        self.assertFalse(self.transport.disconnecting)
        self.pass_time(1)
        self.assertTrue(self.transport.disconnecting)

    def test_silent_peers(self) -> None:
        """The kernel is told to ask after peers that fell silent."""
        transport = TCPTransport()
        channel = self.daemon.site.buildProtocol(None)
        channel.makeConnection(transport)
        self.assertTrue(transport.keep_alive)

    def test_no_timers_left(self) -> None:
        """When the last connection is gone nothing ticks any more."""
        self.channel.connectionLost(Failure(ConnectionDone()))
        self.pass_time(2)
        self.assertEqual(self.daemon.clock.getDelayedCalls(), [])
        self.daemon.connect()
        self.daemon.site.stopFactory()
        self.assertEqual(self.daemon.clock.getDelayedCalls(), [])


class ConnectionTests(SiteTests):
    """Too many, too early."""

    def test_keep_alive(self) -> None:
        """One connection serves many requests, one after the other, split in any way."""
        for _ in range(3):
            for byte in REQUEST:
                self.send(bytes([byte]))
            self.assertEqual(self.answer().status, 200)

    def test_pipelining(self) -> None:
        """Requests sent without waiting are answered in order."""
        self.send(REQUEST + spell("GET", "/nope", b"", {}) + REQUEST)
        statuses = [
            line[9:12] for line in self.transport.value().split(b"\r\n") if b"HTTP/1.1 " in line
        ]
        self.assertEqual(statuses[0], b"200")
        self.assertEqual(self.transport.value().count(b"HTTP/1.1 "), 3)

    def test_too_early(self) -> None:
        """Who goes on sending while its request is worked on is dropped."""
        self.daemon.post_form("push/register", user_id="5", token="t", token_kind="2")
        self.daemon.fcm.holding = True
        self.send(
            spell("POST", PREFIX + "push/notify", b'{"user_id":5}', {"Authorization": basic()})
        )
        for _ in range(5):
            self.send(b"x")
        self.assertFalse(self.transport.disconnected)
        self.send(b"x")
        self.assertTrue(self.transport.disconnected)

    def test_much_too_early(self) -> None:
        """Nor is much of it kept: the peer is not read from until it is answered."""
        self.daemon.post_form("push/register", user_id="5", token="t", token_kind="2")
        self.daemon.fcm.holding = True
        self.send(
            spell("POST", PREFIX + "push/notify", b'{"user_id":5}', {"Authorization": basic()})
        )
        self.send(b"x" * 20_000)
        self.assertEqual(self.transport.producerState, "paused")
        self.daemon.fcm.release()
        self.assertEqual(self.answer().status, 200)

    def test_close(self) -> None:
        """Who wants the connection closed after its answer gets that."""
        self.send(REQUEST.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        self.assertEqual(self.answer().status, 200)
        self.assertTrue(self.transport.disconnecting)

    def test_too_many(self) -> None:
        """Beyond so many connections a new one is hung up on; one that ends makes room."""
        others = [self.daemon.connect()[0] for _ in range(2)]
        self.assertIsNone(self.daemon.site.buildProtocol(None))
        others[0].connectionLost(Failure(ConnectionDone()))
        self.assertIsInstance(self.daemon.site.buildProtocol(None), Channel)

    def test_only_http_1_1(self) -> None:
        """TLS negotiates HTTP/1.1."""
        self.assertEqual(self.daemon.site.acceptableProtocols(), [b"http/1.1"])
