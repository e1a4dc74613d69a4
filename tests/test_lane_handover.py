"""A lane's hand-over and reload: what waits goes on elsewhere, and each push has one end."""

from dataclasses import replace
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.http2 import Response
from bouncerd.model import Kind, Outcome, Push
from bouncerd.passing import Waiting
from bouncerd.patience import APNS_PATIENCE, FCM_PATIENCE
from bouncerd.pool import Pool
from bouncerd.routes import Routes
from tests.lane_kit import MANNERS, LaneKit
from tests.memory import Server, SimpleProvider, a_push


def handed_over(one: LaneKit, other: LaneKit) -> list[Waiting]:
    """Do what a process does that is replaced by another."""
    one.lane.pause()
    one.check()
    one.lane.withdraw_all()
    one.check()
    waiting = one.lane.to_pass_on()
    one.check()
    other.lane.take_over(waiting)
    other.check()
    one.lane.passed_on()
    one.check()
    return waiting


class PauseTests(SynchronousTestCase):
    """A lane that gives nothing more away."""

    def test_paused_it_takes_and_sends_nothing(self) -> None:
        """What is in flight is answered, what comes is kept, nothing more leaves."""
        kit = LaneKit(max_streams=2)
        kit.start()
        kit.admit(3)
        self.assertEqual(kit.lane.in_flight, 2)
        kit.lane.pause()
        kit.admit(2)
        self.assertEqual(kit.server.answer_all(), 2)
        kit.check()
        kit.clock.pump([1.0] * 3)
        self.assertEqual((kit.server.answer_all(), kit.lane.in_flight), (0, 0))
        self.assertEqual((kit.ends(), kit.lane.waiting), ({"delivered": 2}, 3))

    def test_paused_time_goes_on(self) -> None:
        """What waits too long ends as ever."""
        kit = LaneKit(keep_for=5.0)
        kit.start()
        kit.lane.pause()
        kit.admit(2)
        kit.clock.pump([1.0] * 7)
        self.assertEqual(kit.ends(), {"expired": 2})

    def test_withdrawn_is_cut_off_or_unsent(self) -> None:
        """What has left goes once more elsewhere; what was cut off before is unknown."""
        kit = LaneKit(max_streams=2)
        kit.start()
        kit.admit(1)
        kit.server.open[0].lose()
        kit.clock.pump([0, 1.0, 1.0])
        kit.admit(1, token="dead")
        kit.lane.pause()
        kit.lane.withdraw_all()
        self.assertEqual((kit.ends(), kit.lane.in_flight), ({"unknown": 1}, 0))
        ((_, waiting),) = [(each.push.device.token, each) for each in kit.lane.to_pass_on()]
        self.assertEqual((waiting.cut_off, waiting.retries), (1, 0))


class HandOverTests(SynchronousTestCase):
    """From one process to the next."""

    def test_everything_arrives(self) -> None:
        """Queued, resting and in flight: the next process delivers all; callers hear at once."""
        one, other = LaneKit(max_streams=2), LaneKit()
        one.start()
        call = one.admit(1)
        one.server.answer_all(503)
        calls = [call, one.admit(5)]
        handed_over(one, other)
        for each in calls:
            self.successResultOf(each.settled)
            self.assertFalse(each.returned)
        self.assertEqual(one.ends(), {"handed_over": 6})
        self.successResultOf(one.lane.stop(1.0))
        self.assertEqual((other.lane.ledger.taken_over, other.lane.waiting), (6, 6))
        other.start()
        self.assertEqual(other.server.answer_all(), 5)
        other.clock.pump([1.0] * 13)
        self.assertEqual(other.server.answer_all(), 1)
        self.assertEqual(other.ends(), {"delivered": 6})

    def test_order_is_kept(self) -> None:
        """A server's pushes leave the next process in the order in which they came."""
        one, other = LaneKit(max_streams=2), LaneKit()
        one.start()
        tokens = [f"{number:02x}" for number in range(6)]
        for token in tokens:
            one.admit(token=token)
        handed_over(one, other)
        other.start()
        seen = [each.path.strip("/") for each in other.server.open[0].requests]
        self.assertEqual(seen, tokens)

    def test_counts_go_along(self) -> None:
        """What was cut off once in the old process and once in the new one is unknown."""
        one, other = LaneKit(), LaneKit()
        one.start()
        one.admit()
        handed_over(one, other)
        other.start()
        self.assertEqual(len(other.server.open[0].requests), 1)
        other.server.open[0].lose()
        self.assertEqual(other.ends(), {"unknown": 1})

    def test_clocks_do_not_go_along(self) -> None:
        """A rest and a lifetime last as long as they would have, whatever the new clock says."""
        one, other = LaneKit(keep_for=100.0), LaneKit()
        one.start()
        one.admit()
        one.server.answer_all(429)  # rests 40 s or a little more
        other.clock.advance(one.clock.seconds())
        (waiting,) = handed_over(one, other)
        self.assertTrue(40.0 <= waiting.due - one.clock.seconds() <= 50.0)
        self.assertEqual(waiting.deadline, 102.0)
        other.start()
        other.clock.pump([1.0] * 37)
        self.assertEqual(other.server.answer_all(), 0)
        other.clock.pump([1.0] * 14)
        self.assertEqual(other.server.answer_all(), 1)

    def test_too_late_ends_at_once(self) -> None:
        """What is too old when it is read is expired, and in the books."""
        kit = LaneKit()
        kit.clock.advance(50.0)
        kit.lane.take_over(
            [
                Waiting(a_push(), deadline=49.0),
                Waiting(a_push(), deadline=60.0, due=61.0),
                Waiting(a_push(), deadline=60.0),
            ]
        )
        self.assertEqual((kit.ends(), kit.lane.waiting), ({"expired": 2}, 1))
        self.assertEqual(kit.lane.ledger.taken_over, 3)

    def test_nothing_is_kept_longer_than_what_comes_now(self) -> None:
        """However long a life another process has given it."""
        kit = LaneKit(keep_for=60.0)
        kit.lane.take_over([Waiting(a_push(), deadline=1e9)])
        kit.clock.pump([1.0] * 62)
        self.assertEqual(kit.ends(), {"expired": 1})

    def test_more_than_there_is_room_for(self) -> None:
        """A process with a smaller queue takes what it can hold, and gives up the rest."""
        kit = LaneKit(limit=10)
        kit.lane.take_over([Waiting(a_push(), deadline=60.0)] * 15)
        self.assertEqual((kit.ends(), kit.lane.waiting), ({"expired": 5}, 10))
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_a_lane_that_stops_takes_nothing_over(self) -> None:
        """What comes when it is too late for everything is lost, and said so."""
        kit = LaneKit()
        self.successResultOf(kit.lane.stop(1.0))
        kit.lane.take_over([Waiting(a_push(), deadline=60.0)])
        self.assertEqual((kit.ends(), kit.lane.waiting), ({"lost": 1}, 0))
        self.assertEqual(kit.clock.getDelayedCalls(), [])

    def test_nothing_is_passed_on_of_what_may_still_be_sent(self) -> None:
        """A lane that is not paused could send it, too: that is refused."""
        with self.assertRaises(AssertionError):
            LaneKit().lane.to_pass_on()


class RoutesTests(SynchronousTestCase):
    """All lanes together."""

    def test_each_goes_to_its_lane(self) -> None:
        """What no section serves any more is lost, and in the books."""
        kit = LaneKit()
        routes = Routes({None: kit.lane}, {})
        push = a_push()
        android = replace(push, message=replace(push.message, kind=Kind.FCM))
        routes.take_over([Waiting(push, 60.0), Waiting(android, 60.0)])
        self.assertEqual((kit.lane.ledger.taken_over, kit.lane.waiting), (1, 1))
        self.assertEqual((routes.nowhere.taken_over, routes.nowhere.waiting()), (1, 0))

    def test_remap(self) -> None:
        """After a reload pushes take the new ways; the lanes that serve no more are named."""
        one, other, both = LaneKit(), LaneKit(), LaneKit()
        routes = Routes({None: one.lane}, {None: both.lane})
        self.assertEqual(routes.remap({None: other.lane}, {None: both.lane}), [one.lane])
        routes.admit("s1", [a_push()])
        self.assertEqual((one.lane.waiting, other.lane.waiting), (0, 1))
        self.assertEqual(routes.lanes, [other.lane, both.lane])

    def test_what_waits_can_take_the_new_ways(self) -> None:
        """A section that is gone leaves its pushes to the one that serves the app now."""
        one, other = LaneKit(), LaneKit()
        routes = Routes({None: one.lane}, {})
        routes.admit("s1", [a_push(), a_push()])
        for lane in routes.remap({None: other.lane}, {}):
            lane.pause()
            routes.take_over(lane.to_pass_on())
            lane.passed_on()
        self.assertEqual((one.ends(), other.lane.waiting), ({"handed_over": 2}, 2))
        other.check()

    def test_the_homeless_are_noted(self) -> None:
        """That nobody serves a kind of phone is told like any other end."""
        noted: list[tuple[str, str]] = []

        def note(_push: Push, kind: str, reason: str) -> None:
            noted.append((kind, reason))

        Routes({}, {}, note).admit("s1", [a_push()])
        self.assertEqual(noted, [("refused", "no section")])


class Noting(SimpleProvider):
    """Counts what it judges."""

    judged = 0

    def outcome(self, session: object, push: Push, response: Response, now: float) -> Outcome:
        """Read the status."""
        self.judged += 1
        return super().outcome(session, push, response, now)


class ReloadTests(SynchronousTestCase):
    """New credentials while it works."""

    def test_new_links_old_judgement(self) -> None:
        """What is in flight on old links is judged by the old provider; the rest by the new."""
        kit = LaneKit(max_streams=1)
        kit.start()
        calls = [kit.admit(), kit.admit()]
        provider, server = Noting(), Server(kit.clock)
        pool = Pool("apns", server.connect, MANNERS, 1, kit.clock, Random(7))
        self.assertIs(kit.lane.adopt(provider, pool, FCM_PATIENCE), kit.pool)
        self.assertEqual((kit.lane.pool, kit.lane.provider), (pool, provider))
        kit.clock.pump([0, 1.0])
        kit.server.answer_all(410)
        self.assertEqual((kit.ends(), provider.judged), ({"gone": 1}, 0))
        server.answer_all()
        self.assertEqual((kit.ends(), provider.judged), ({"gone": 1, "delivered": 1}, 1))
        for call in calls:
            self.successResultOf(call.settled)

    def test_the_end_of_the_old_links_lets_nobody_go(self) -> None:
        """While the new links carry pushes, the old ones' end is no outage."""
        kit = LaneKit(max_streams=1)
        kit.start()
        server = Server(kit.clock, max_streams=1)
        pool = Pool("apns", server.connect, MANNERS, 1, kit.clock, Random(7))
        old = kit.lane.adopt(kit.provider, pool, APNS_PATIENCE)
        kit.clock.pump([0, 1.0])
        call = kit.admit(3)
        old.stop()
        kit.clock.pump([0, 1.0])
        self.assertNoResult(call.settled)
        for _ in range(3):
            server.answer_all()
        self.successResultOf(call.settled)

    def test_cut_off_on_old_links_goes_by_the_new(self) -> None:
        """A push whose old link breaks is repeated on a new one."""
        kit = LaneKit()
        kit.start()
        kit.admit()
        server = Server(kit.clock)
        kit.lane.adopt(
            SimpleProvider(),
            Pool("apns", server.connect, MANNERS, 1, kit.clock, Random(7)),
            APNS_PATIENCE,
        )
        kit.clock.pump([0, 1.0])
        kit.server.open[0].lose()
        kit.clock.advance(0)
        self.assertEqual(server.answer_all(), 1)
        self.assertEqual(kit.ends(), {"delivered": 1})

    def test_a_smaller_queue(self) -> None:
        """A reload with smaller limits gives up at once what is over them, later what is late."""
        kit = LaneKit(limit=10)
        kit.admit(9)
        kit.lane.resize(limit=5, keep_for=10.0)
        self.assertEqual((kit.ends(), kit.lane.waiting), ({"expired": 4}, 5))
        kit.clock.pump([1.0] * 11)
        self.assertEqual((kit.ends(), kit.lane.waiting), ({"expired": 9}, 0))


class NoteTests(SynchronousTestCase):
    """What those hear who count."""

    def test_ends_and_retries(self) -> None:
        """Each end and each retry is told once, with its reason and never more."""
        noted: list[tuple[str, str]] = []
        kit = LaneKit(note=lambda _push, kind, reason: noted.append((kind, reason)))
        kit.start()
        kit.admit()
        kit.server.answer_all(503)
        kit.clock.pump([1.0] * 13)
        kit.server.answer_all()
        kit.admit()
        kit.server.answer_all(400)
        kit.admit()
        kit.server.refusing = True
        kit.server.open[0].lose()
        kit.lane.stop(0)
        kit.clock.advance(1)
        self.assertEqual(
            noted,
            [
                ("retry", "ServiceUnavailable"),
                ("delivered", ""),
                ("refused", "PayloadTooLarge"),
                ("retry", "cut off"),
                ("lost", "stopped"),
            ],
        )
