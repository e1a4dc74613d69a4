"""One connection: flushes, deadlines, signs of life, age, goodbyes."""

from OpenSSL import SSL
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.endings import Answered, Lost, Unsent
from bouncerd.link import Link, Manners
from bouncerd.words import words
from tests.http2_kit import a_request
from tests.memory import Connection, Ear

MANNERS = Manners(answer_within=30.0, quiet=15.0, idle_ping=600.0)


class Diary:
    """An owner that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def link_ready(self, link: Link) -> None:
        """Write it down."""
        self.told.append("ready")

    def link_roomy(self, link: Link) -> None:
        """Keep quiet: it is said with every read."""

    def link_silent(self, link: Link) -> None:
        """Keep quiet: the pool's business."""

    def link_draining(self, link: Link) -> None:
        """Write it down."""
        self.told.append("draining")

    def link_lost(self, link: Link, why: str) -> None:
        """Write it down."""
        self.told.append(f"lost: {why}")


class LinkTests(SynchronousTestCase):
    """A link, a clock, and the other side in the test's hands."""

    def linked(self, manners: Manners = MANNERS, **settings: int) -> None:
        """Connect, with SETTINGS."""
        self.clock = Clock()
        self.diary = Diary()
        self.link = Link(self.clock, manners, self.diary)
        self.connection = Connection(self.clock)
        self.connection.client = self.link
        self.link.makeConnection(self.connection)
        if settings:
            self.connection.say(self.connection.peer.settings(**settings))

    def send(self, count: int = 1) -> list[Ear]:
        """Send so many requests in one turn."""
        ears = [Ear() for _ in range(count)]
        for ear in ears:
            self.link.send(ear, a_request())
        self.clock.advance(0)
        return ears

    def pass_seconds(self, seconds: int) -> None:
        """Let time pass, second by second."""
        self.clock.pump([1.0] * seconds)

    def test_one_write_for_a_turn(self) -> None:
        """All pushes of a reactor turn leave in a single write."""
        self.linked(max_streams=100)
        before = self.connection.writes
        self.send(50)
        self.assertEqual(self.connection.writes, before + 1)
        self.assertEqual(len(self.connection.requests), 50)
        self.assertEqual(self.diary.told, ["ready"])

    def test_answers_reach_their_tickets(self) -> None:
        """Each push hears its own answer, in whatever order they come."""
        self.linked(max_streams=100)
        ears = self.send(2)
        peer = self.connection.peer
        self.connection.say(peer.answer(3, 410, b"{}") + peer.answer(1))
        statuses = [
            each.response.status
            for ear in ears
            for each in ear.endings
            if isinstance(each, Answered)
        ]
        self.assertEqual(statuses, [200, 410])

    def test_a_deadline_resets_the_stream(self) -> None:
        """A push without an answer ends as lost when its time is up, and frees its stream."""
        self.linked(max_streams=1)
        (ear,) = self.send()
        self.pass_seconds(20)
        self.connection.say(self.connection.peer.ping(ack=True))
        self.pass_seconds(9)
        self.assertEqual(ear.endings, [])
        self.pass_seconds(2)
        self.assertEqual(ear.endings, [Lost(ear, "withdrawn")])
        self.assertIn("RstStream", self.connection.frames)
        self.assertEqual(self.link.free, 1)

    def test_three_deadlines_prove_death(self) -> None:
        """A connection that answers PINGs alone is left after three unanswered pushes."""
        self.linked(max_streams=10)
        for _ in range(3):
            self.send()
            self.pass_seconds(1)
        for _ in range(40):
            if self.connection.open:
                self.connection.say(self.connection.peer.ping(ack=True))
                self.pass_seconds(1)
        self.assertEqual(self.diary.told[-1], "lost: requests in a row without an answer")

    def test_hung_pushes_among_answered_ones_prove_nothing(self) -> None:
        """Pushes that hang do not cost a connection that answers all others."""
        self.linked(max_streams=10)
        hung = self.send(4)
        self.connection.requests = []
        for _ in range(40):
            self.send()
            self.connection.answer_all()
            self.pass_seconds(1)
        self.assertEqual([type(ear.endings[0]) for ear in hung], [Lost] * 4)
        self.assertTrue(self.connection.open)

    def test_no_ping_with_the_first_push_after_silence(self) -> None:
        """Quiet is counted from the first push in flight: Google takes offence at more PINGs."""
        self.linked(Manners(answer_within=15, quiet=5), max_streams=5)
        self.pass_seconds(100)
        self.send()
        self.pass_seconds(4)
        self.assertNotIn("Ping", self.connection.frames)
        self.pass_seconds(2)
        self.assertIn("Ping", self.connection.frames)

    def test_a_handshake_that_hangs_is_called_so(self) -> None:
        """TLS pauses a link until its handshake is done: no peer has stopped reading then."""
        self.linked(Manners(answer_within=15, quiet=5))
        self.link.pauseProducing()
        self.pass_seconds(22)
        self.assertEqual(self.diary.told, ["lost: no HTTP/2 SETTINGS in time"])

    def test_drained_by_deadlines_it_closes(self) -> None:
        """A link that says goodbye is closed when its last push is given up, not later."""
        self.linked(Manners(answer_within=5, quiet=50, drain_within=30), max_streams=5)
        self.send()
        self.link.drain("its age")
        self.pass_seconds(7)
        self.assertEqual(self.diary.told[-1], "lost: its age")

    def test_busy_and_silent_is_pinged_then_left(self) -> None:
        """With pushes in flight and 15 s of silence a PING goes out; 10 s later it is over."""
        self.linked(max_streams=10)
        (ear,) = self.send()
        self.pass_seconds(15)
        self.assertEqual(self.connection.frames[-1], "Ping")
        self.pass_seconds(11)
        self.assertEqual(self.diary.told[-1], "lost: no answer to a PING in time")
        self.assertEqual(ear.endings, [Lost(ear, "the connection was lost")])

    def test_a_pong_keeps_it(self) -> None:
        """Any sign of life within 10 s is enough."""
        self.linked(max_streams=10)
        self.send()
        self.pass_seconds(20)
        self.connection.say(self.connection.peer.ping(ack=True))
        self.pass_seconds(9)
        self.assertTrue(self.connection.open)

    def test_idle_pings_by_the_manners(self) -> None:
        """Apple's idle connection is asked every ten minutes, Google's never."""
        for idle_ping, pings in ((600.0, 1), (None, 0)):
            self.linked(Manners(answer_within=15, quiet=20, idle_ping=idle_ping), max_streams=5)
            self.pass_seconds(605)
            self.assertEqual(self.connection.frames.count("Ping"), pings)

    def test_idle_close_and_age(self) -> None:
        """An idle link closes itself, a busy old one finishes first: with a goodbye, both."""
        self.linked(Manners(answer_within=15, quiet=20, idle_close=180.0), max_streams=5)
        self.pass_seconds(182)
        self.assertEqual(self.diary.told[1:], ["draining", "lost: idle"])
        self.assertEqual(self.connection.frames[-1], "GoAway")
        self.linked(
            Manners(answer_within=500, quiet=900, max_age=100.0, drain_within=30), max_streams=5
        )
        (ear,) = self.send()
        self.pass_seconds(101)
        self.assertEqual((self.diary.told[-1], self.link.free), ("draining", 0))
        self.connection.answer_all()
        self.pass_seconds(1)
        self.assertIsInstance(ear.endings[0], Answered)
        self.assertEqual(self.diary.told[-1], "lost: its age")

    def test_goaway_drains_until_the_deadline(self) -> None:
        """After GOAWAY the promised answers are waited for, ten seconds and no longer."""
        self.linked(max_streams=5)
        first, second = self.send(2)
        self.connection.say(self.connection.peer.goaway(1))
        self.assertIsInstance(second.endings[0], Unsent)
        self.assertEqual(first.endings, [])
        self.pass_seconds(12)
        self.assertEqual(first.endings, [Lost(first, "the connection was lost")])

    def test_no_settings_in_time(self) -> None:
        """A server that never says SETTINGS is left after 20 s; a push given to it was not sent."""
        self.linked()
        (ear,) = self.send()
        self.pass_seconds(21)
        self.assertEqual(self.diary.told, ["lost: no HTTP/2 SETTINGS in time"])
        self.assertIsInstance(ear.endings[0], Unsent)

    def test_a_goodbye_in_mid_handshake_is_short(self) -> None:
        """A stop does not wait for a TLS handshake that may never end."""
        self.linked()
        self.link.drain("stopping")
        self.clock.advance(0)
        self.assertEqual(self.diary.told, ["draining", "lost: stopping"])
        self.assertTrue(self.connection.aborted)

    def test_another_protocol_is_refused(self) -> None:
        """A peer that negotiated http/1.1 is a TLS-intercepting proxy, and called so."""
        self.linked()
        self.connection.negotiatedProtocol = b"http/1.1"
        self.link.handshakeCompleted()
        self.clock.advance(0)
        self.assertIn("proxy", self.diary.told[0])

    def test_a_fault_says_goodbye(self) -> None:
        """A server that breaks the protocol gets a GOAWAY, and every push its ending."""
        self.linked(max_streams=5)
        (ear,) = self.send()
        self.connection.say(self.connection.peer.answer(99))
        self.clock.advance(0)
        self.assertEqual(self.connection.frames[-1], "GoAway")
        self.assertIsInstance(ear.endings[0], Lost)
        why = "lost: it broke the protocol: a frame for a stream that was never opened"
        self.assertEqual(self.diary.told[1:], ["draining", why])

    def test_backpressure_stops_new_streams(self) -> None:
        """While the peer does not read, nothing more is opened; when it reads again, it goes on."""
        self.linked(max_streams=5)
        self.link.pauseProducing()
        self.assertEqual(self.link.free, 0)
        (ear,) = self.send()
        self.assertEqual(self.connection.requests, [])
        self.link.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(len(self.connection.requests), 1)
        self.link.pauseProducing()
        self.connection.answer_all()
        self.assertEqual(len(ear.endings), 1)
        self.pass_seconds(31)
        self.assertEqual(self.diary.told[-1], "lost: the peer has stopped reading")

    def test_withdrawal(self) -> None:
        """A push that is given up ends at once; a second time nothing happens."""
        self.linked(max_streams=5)
        (ear,) = self.send()
        self.link.withdraw(ear)
        self.link.withdraw(ear)
        self.clock.advance(0)
        self.assertEqual(ear.endings, [Lost(ear, "withdrawn")])

    def test_a_bad_ticket_harms_no_other(self) -> None:
        """If one ticket fails to take its ending, the others still hear theirs."""
        self.linked(max_streams=5)

        class Broken:
            def ended(self, ending: object) -> None:
                raise RuntimeError

        self.link.send(Broken(), a_request())
        (ear,) = self.send()
        self.connection.answer_all()
        self.assertEqual(len(ear.endings), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_repr_tells_its_state(self) -> None:
        """A link shows its state, and nothing secret, where it is printed."""
        self.linked(max_streams=7)
        self.send(2)
        self.assertEqual(repr(self.link), "<Link ready, 2 of 7 streams, 0 answers>")


class WordsTests(SynchronousTestCase):
    """What a failure is called."""

    def test_words_hold_no_foreign_text(self) -> None:
        """Known failures have our words, OpenSSL's its constants, others their class alone."""

        tls = SSL.Error([("SSL routines", "", "certificate verify failed")])
        self.assertEqual(words(Failure(ConnectError("x"))), "connection failed")
        self.assertEqual(words(Failure(DNSLookupError("canary"))), "host name not found")
        self.assertEqual(words(Failure(tls)), "TLS: certificate verify failed")
        self.assertEqual(words(Failure(KeyError("canary"))), "KeyError")
        alert = Failure(SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")]))
        refused = "TLS: refused by the provider, which says: tlsv1 alert unknown ca"
        self.assertEqual(words(alert), refused)
