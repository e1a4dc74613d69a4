"""The end of a process: who gets an answer, what is sent, and what the next one gets."""

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from bouncerd.calls import Call, Saturated
from bouncerd.channel import Channel
from bouncerd.leaving import IN_FLIGHT_WITHIN, QUIET, STOP_WITHIN, WORK_OFF_WITHIN, Leaving
from bouncerd.notifying import Notifier
from bouncerd.passing import Waiting
from bouncerd.site import Site
from bouncerd.succession import Succession
from tests.lane_kit import LaneKit
from tests.memory import a_push

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ENOUGH = WORK_OFF_WITHIN + IN_FLIGHT_WITHIN + STOP_WITHIN + 6.0


class Slow(Resource):
    """A page that is answered when the test says so."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []

    def render_GET(self, request: Any) -> int:  # noqa: N802 -- Twisted's name
        """Wait."""
        self.requests.append(request)
        return NOT_DONE_YET

    def answer(self) -> None:
        """Answer the oldest."""
        request = self.requests.pop(0)
        request.write(b"done")
        request.finish()


class Keeper(Succession):
    """A supervisor's store that keeps, or does not."""

    def __init__(self, kit: LaneKit, *, kept: bool = True, takes: bool = True) -> None:
        super().__init__(Notifier({}, kit.clock), [], kit.clock.seconds)
        self.kept = kept
        self.takes = takes
        self.passed: list[Waiting] = []
        self.storing: Deferred[None] | None = None

    async def pass_on(self, waiting: Sequence[Waiting]) -> bool:
        """Keep it."""
        if self.storing is not None:
            await self.storing
        self.passed += waiting if self.takes else []
        return self.takes


class LeavingTests(SynchronousTestCase):
    """One lane, one site, one clock."""

    def setUp(self) -> None:
        self.kit = LaneKit()
        self.kit.start()
        self.page = Slow()
        self.site = Site(self.page, self.kit.clock, self.kit.clock.seconds)
        self.ended: Deferred[None] | None = None

    def leave(self, keeper: Keeper) -> "Deferred[None]":
        """Begin to leave."""
        kit = self.kit
        leaving = Leaving([kit.lane], kit.routes, self.site, keeper, kit.clock)
        return Deferred.fromCoroutine(leaving.go())

    def pass_time(self, seconds: float = ENOUGH) -> None:
        """Let time go by, in steps."""
        self.kit.clock.pump([0.05] * int(seconds / 0.05))

    def connect(self, *, then: bytes = b"") -> tuple[Channel, StringTransport]:
        """Open a connection, and send something."""
        channel: Channel = self.site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        if then:
            channel.dataReceived(then)
        return channel, transport

    def close(self, channel: Channel, transport: StringTransport) -> None:
        """Have the connection be closed, which it should have been told to be."""
        self.assertTrue(transport.disconnecting)
        channel.connectionLost()

    # --- pushes

    def test_nothing_waits(self) -> None:
        """With nothing to do it is over at once."""
        self.successResultOf(self.leave(Keeper(self.kit)))

    def test_what_can_go_goes(self) -> None:
        """What Apple takes within a moment is sent by us, and its callers hear so."""
        call, keeper = self.kit.admit(3), Keeper(self.kit)
        ended = self.leave(keeper)
        self.pass_time(0.5)
        self.assertNoResult(ended)
        self.kit.server.answer_all()
        self.pass_time(0.1)
        self.successResultOf(ended)
        self.assertEqual((call.delivered, keeper.passed), (3, []))

    def test_what_cannot_go_is_handed_over(self) -> None:
        """What waits for a provider goes to the next process; its callers have their 200."""
        self.kit.server.refusing = True
        self.kit.server.open[0].lose()
        call, keeper = self.kit.admit(2), Keeper(self.kit)
        self.successResultOf(self.leave(keeper))
        self.successResultOf(call.settled)
        self.assertFalse(call.returned)
        self.assertEqual((len(keeper.passed), self.kit.ends()), (2, {"handed_over": 2}))
        self.assertEqual(self.kit.clock.getDelayedCalls()[1:], [], "only the pool dials")

    def test_what_is_in_flight_for_long(self) -> None:
        """An answer that does not come in time is cut off: the next process asks once more."""
        call, keeper = self.kit.admit(), Keeper(self.kit)
        ended = self.leave(keeper)
        self.pass_time(WORK_OFF_WITHIN + IN_FLIGHT_WITHIN + 0.5)
        self.successResultOf(ended)
        self.successResultOf(call.settled)
        self.assertEqual([each.cut_off for each in keeper.passed], [1])

    def test_nothing_is_admitted_behind_it(self) -> None:
        """While the rest is being stored no call is accepted: it would be in neither process."""
        self.kit.server.refusing = True
        self.kit.server.open[0].lose()
        self.kit.admit()
        keeper = Keeper(self.kit)
        keeper.storing = Deferred()
        ended = self.leave(keeper)
        self.assertRaises(Saturated, self.kit.admit)
        keeper.storing.callback(None)
        self.successResultOf(ended)
        self.assertRaises(Saturated, self.kit.admit)

    def test_a_store_that_does_not_take_it(self) -> None:
        """What could not be stored is ours to send, while there is time; the rest is lost."""
        self.kit.server.settings = None
        self.kit.server.open[0].lose()
        calls = [self.kit.admit(), self.kit.admit()]
        ended = self.leave(Keeper(self.kit, takes=False))
        self.pass_time(0.5)
        for connection in self.kit.server.open:
            connection.say(connection.peer.settings(max_streams=1))
        self.kit.server.answer_all()
        self.pass_time()
        self.successResultOf(ended)
        for call in calls:
            self.successResultOf(call.settled)
        self.kit.pool.stop()
        self.pass_time(20)
        self.assertEqual(self.kit.ends(), {"delivered": 1, "lost": 1})

    def test_what_cannot_be_written_down(self) -> None:
        """A fault while it is written down is logged, and what waits stays ours."""
        succession = Succession(Notifier({}, self.kit.clock), [], self.kit.clock.seconds)
        no_time = Waiting(a_push(), float("nan"))
        passed = Deferred.fromCoroutine(succession.pass_on([no_time]))
        self.assertIs(self.successResultOf(passed), False)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_without_a_store(self) -> None:
        """What no link has seen goes back to callers who wait; the rest has some seconds."""
        self.kit = LaneKit(max_streams=1)
        self.kit.start()
        calls: list[Call] = [self.kit.admit() for _ in range(3)]
        ended = self.leave(Keeper(self.kit, kept=False))
        self.pass_time(1.0)
        self.kit.server.answer_all()
        self.pass_time(1.0)
        self.successResultOf(ended)
        self.assertEqual([call.returned for call in calls], [False, True, True])
        self.assertEqual(self.kit.ends(), {"delivered": 1, "returned": 2})

    # --- connections

    def test_an_answer_under_way_is_the_last(self) -> None:
        """Who waits for an answer gets it, with a goodbye, and then the connection ends."""
        channel, transport = self.connect(then=GET)
        ended = self.leave(Keeper(self.kit))
        self.pass_time(0.5)
        self.assertNoResult(ended)
        self.page.answer()
        self.assertIn(b"connection: close\r\n", transport.value().lower())
        self.close(channel, transport)
        self.pass_time(0.1)
        self.successResultOf(ended)

    def test_a_quiet_connection_is_closed(self) -> None:
        """A connection on which nothing was asked for a while ends at once, another in a moment."""
        old = self.connect()
        self.pass_time(QUIET + 0.1)
        young = self.connect()
        self.leave(Keeper(self.kit))
        self.assertTrue(old[1].disconnecting)
        self.assertFalse(young[1].disconnecting)
        self.pass_time(QUIET + 0.1)
        self.assertTrue(young[1].disconnecting)

    def test_a_request_that_just_arrives(self) -> None:
        """A connection that was used lately may ask again, and hears that this was the last."""
        channel, transport = self.connect(then=GET)
        self.page.answer()
        transport.clear()
        ended = self.leave(Keeper(self.kit))
        self.pass_time(0.3)
        channel.dataReceived(GET)
        self.page.answer()
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 200"))
        self.assertIn(b"connection: close\r\n", transport.value().lower())
        self.close(channel, transport)
        self.pass_time(0.1)
        self.successResultOf(ended)

    def test_a_request_in_the_socket(self) -> None:
        """A request that lies in the socket unread keeps its connection from being closed."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        _channel, transport = self.connect()
        transport.fileno = ours.fileno  # type: ignore[attr-defined]
        self.pass_time(QUIET + 0.1)
        theirs.sendall(GET)
        self.leave(Keeper(self.kit))
        self.assertFalse(transport.disconnecting)
        ours.recv(1000)
        self.pass_time(0.1)
        self.assertTrue(transport.disconnecting)

    def test_a_slow_request(self) -> None:
        """What has not come in when all else is done is asked for again: 503."""
        channel, transport = self.connect(then=GET[:20])
        ended = self.leave(Keeper(self.kit))
        self.pass_time(WORK_OFF_WITHIN + 0.2)
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 503"))
        self.pass_time(3.0)
        self.close(channel, transport)
        self.pass_time(0.1)
        self.successResultOf(ended)
