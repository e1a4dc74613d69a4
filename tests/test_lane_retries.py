"""What a lane does when its provider asks for time: for a push, a device, a key, a project."""

import contextlib
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.calls import Saturated
from bouncerd.model import About, Outcome, Push, Retry
from bouncerd.patience import FCM_PATIENCE, Patience
from bouncerd.restraint import TOKEN_PAUSE
from tests import memory
from tests.lane_kit import LaneKit

TOO_MANY_TOKENS = Retry("TooManyProviderTokenUpdates", spoiled=True, about=About.CREDENTIAL)
HOT = Retry("TooManyRequests", 30.0, about=About.DEVICE)
QUOTA = Retry("QUOTA_EXCEEDED", 60.0, about=About.DEVICE)


class Scripted(memory.SimpleProvider):
    """Answers of one status mean what a test says."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self._scripted = outcome

    def outcome(self, session: object, push: Push, response: Any, now: float) -> Outcome:
        """Read 429 as scripted, others as ever."""
        if response.status == 429:
            return self._scripted
        return super().outcome(session, push, response, now)


class RetryKit(LaneKit):
    """A lane whose 429 means what is asked for."""

    def __init__(self, outcome: Outcome, **settings: Any) -> None:
        super().__init__(provider=Scripted(outcome), **settings)
        self.start()

    def seconds(self, count: int, status: int = 200) -> int:
        """Let so many seconds pass, with answers; return how many were answered."""
        answered = 0
        for _ in range(count):
            answered += self.server.answer_all(status)
            self.clock.advance(1.0)
            self.check()
        return answered


class DeviceTests(SynchronousTestCase):
    """A device that gets too much."""

    def test_its_other_pushes_wait_too(self) -> None:
        """Those of the server that was told; other devices' pushes go as ever."""
        kit = RetryKit(HOT)
        kit.admit(token="0a")
        kit.server.answer_all(429)
        call = kit.admit(3, token="0a")
        self.successResultOf(call.settled)
        self.assertEqual(kit.server.answer_all(), 0)
        kit.admit(2, "s2", token="0b")
        self.assertEqual(kit.server.answer_all(), 2)
        self.assertEqual(kit.seconds(29), 0)
        self.assertEqual(kit.seconds(60), 4)
        self.assertEqual(kit.ends(), {"delivered": 6})

    def test_one_asks_whether_it_is_over(self) -> None:
        """When the time is up the pushes of a hot device do not all come at once."""
        kit = RetryKit(HOT)
        kit.admit(8, token="0a")
        kit.server.answer_all(429)
        kit.clock.pump([1.0] * 34)
        self.assertEqual(len(kit.server.open[0].requests), 1)

    def test_flood_of_hot_devices(self) -> None:
        """A tenant all of whose tokens are hot costs the others nothing."""
        kit = RetryKit(HOT, limit=500)
        for number in range(40):
            kit.admit(10, "evil", token=f"{number:04x}")
            kit.server.answer_all(429)
        for _ in range(20):
            good = kit.admit(5, "good")
            kit.server.answer_all()
            self.successResultOf(good.settled)
            self.assertEqual(good.delivered, 5)


class TokenTests(SynchronousTestCase):
    """Apple finds that our provider token changes too often."""

    def test_one_link_is_replaced(self) -> None:
        """What one link says makes the push go by another, at once; nothing is held."""
        kit = RetryKit(TOO_MANY_TOKENS, size=2)
        kit.clock.pump([1.0, 1.0])
        kit.admit()
        kit.server.answer_all(429)
        kit.clock.advance(0)
        self.assertEqual(kit.server.answer_all(), 1)
        self.assertEqual(kit.ends(), {"delivered": 1})

    def test_all_links_hold_the_lane(self) -> None:
        """If the next link says so too, nothing goes for twenty minutes; callers are let go."""
        kit = RetryKit(TOO_MANY_TOKENS, size=2, keep_for=3_600.0)
        kit.clock.pump([1.0, 1.0])
        kit.admit()
        for _ in range(2):
            kit.server.answer_all(429)
            kit.clock.advance(0)
        self.assertFalse(kit.lane.ready)
        call = kit.admit(3)
        self.successResultOf(call.settled)
        self.assertEqual(kit.seconds(int(TOKEN_PAUSE) - 1), 0)
        self.assertEqual(kit.seconds(60), 4)
        self.assertEqual(kit.ends(), {"delivered": 4})
        self.assertTrue(kit.lane.ready)

    def test_no_timer_is_left(self) -> None:
        """A lane that stops while it is held lets go of the clock."""
        kit = RetryKit(TOO_MANY_TOKENS, size=2)
        kit.clock.pump([1.0, 1.0])
        kit.admit()
        for _ in range(2):
            kit.server.answer_all(429)
            kit.clock.advance(0)
        stopped = kit.lane.stop(10.0)
        self.successResultOf(stopped)
        kit.pool.stop()
        kit.clock.pump([1.0] * 12)
        self.assertEqual(kit.clock.getDelayedCalls(), [])


class StreamTests(SynchronousTestCase):
    """A server that finds that a link has too many streams."""

    def test_fewer_streams_afterwards(self) -> None:
        """The next link gets three quarters of what was too much, though its limit is higher."""
        kit = LaneKit(max_streams=100)
        kit.start()
        kit.admit(90)
        connection = kit.server.open[0]
        self.assertEqual(len(connection.requests), 90)
        debug = b"Maximum active streams violated for this endpoint."
        connection.say(connection.peer.goaway(0, debug=debug))
        kit.clock.pump([0, 1.0, 1.0])
        self.assertEqual(len(kit.server.open[0].requests), 67)
        while kit.server.answer_all():
            kit.clock.advance(0)
        self.assertEqual(kit.ends(), {"delivered": 90})

    def test_the_cap_is_lifted(self) -> None:
        """Minutes later more are tried, at last as many as the server says."""
        kit = LaneKit(max_streams=100)
        kit.start()
        kit.admit(90)
        connection = kit.server.open[0]
        debug = b"Maximum active streams violated for this endpoint."
        connection.say(connection.peer.goaway(0, debug=debug))
        kit.clock.pump([0, 1.0, 1.0])
        while kit.server.answer_all():
            kit.clock.advance(0)
        kit.clock.pump([1.0] * 300)
        kit.admit(100)
        self.assertEqual(len(kit.server.open[0].requests), 100)


class ProjectTests(SynchronousTestCase):
    """Google's quota, and its outages."""

    def kit(self, **settings: Any) -> RetryKit:
        """Return a lane toward Google."""
        patience = replace(FCM_PATIENCE, rate=settings.pop("rate", FCM_PATIENCE.rate))
        settings = {"limit": 20_000, "keep_for": 3_600.0, "max_streams": 1_000, **settings}
        return RetryKit(QUOTA, patience=patience, **settings)

    def test_the_rate_is_kept(self) -> None:
        """Of a burst a second's worth goes at once, the rest at the rate."""
        kit = self.kit(rate=800.0)
        for _ in range(6):
            kit.admit(200)
        sent = 0
        for _ in range(20):
            sent += kit.server.answer_all()
        self.assertEqual(sent, 800)
        for _ in range(25):
            kit.clock.advance(0.01)
            sent += kit.server.answer_all()
        self.assertTrue(990 < sent <= 1_000, sent)

    def test_quota(self) -> None:
        """Over its quota a project sends nothing for a minute, then at half the rate it had."""
        kit = self.kit()
        for number in range(40):
            kit.admit(1, token=f"{number:02x}")
        kit.server.answer_all(429)
        self.assertFalse(kit.lane.ready)
        call = kit.admit(60)
        self.successResultOf(call.settled)
        self.assertEqual(kit.seconds(60), 0)
        self.assertTrue(kit.lane.ready)
        first, second = kit.seconds(1), kit.seconds(1)
        self.assertTrue(first + second <= 40, (first, second))
        kit.seconds(40)
        self.assertEqual(kit.ends(), {"delivered": 100})

    def test_two_hot_devices_are_not_the_project(self) -> None:
        """Others' pushes go on at once."""
        kit = self.kit()
        kit.admit(1, token="0a")
        kit.admit(1, token="0b")
        kit.server.answer_all(429)
        kit.admit(5)
        self.assertEqual(kit.server.answer_all(), 5)

    def test_scenario_five(self) -> None:
        """A quota of 1,000 a minute and 5,000 pushes: all are delivered by minute six."""
        kit = self.kit()
        for number in range(5_000):
            kit.routes.admit("s1", [memory.a_push(f"{number:04x}")])
        allowed, refused = 0, 0
        for tick in range(3_600):
            if tick % 600 == 0:
                allowed = 1_000
            for connection in kit.server.open:
                waiting, connection.requests = connection.requests, []
                good, bad = waiting[:allowed], waiting[allowed:]
                allowed -= len(good)
                refused += len(bad)
                answers = [connection.peer.answer(each.stream_id, 200) for each in good]
                answers += [connection.peer.answer(each.stream_id, 429) for each in bad]
                if answers:
                    connection.say(b"".join(answers))
            kit.clock.advance(0.1)
        self.assertEqual(kit.ends(), {"delivered": 5_000})
        self.assertLess(refused, 2_000)

    def test_scenario_six(self) -> None:
        """Minutes of 503: a bounded queue and callers let go; then a ramp, and all of it goes."""
        kit = self.kit(limit=800, rate=600.0)
        for _ in range(300):
            kit.admit(5)
            kit.server.answer_all(503)
            kit.clock.advance(1.0)
            self.assertLessEqual(kit.lane.waiting, 800 + 20)  # and what is in flight
        call = kit.admit(5)
        self.successResultOf(call.settled)
        kit.check()
        delivered: list[int] = []
        for _ in range(700):
            if not delivered or len(delivered) > 60:
                with contextlib.suppress(Saturated):
                    kit.admit(5)
            for connection in kit.server.open:
                connection.say(connection.peer.credit(0, 1_000))
            delivered.append(kit.server.answer_all())
            kit.clock.advance(1.0)
        for second, count in enumerate(delivered[:20]):
            self.assertLessEqual(count, 10 + 10 * (second + 1))
        for _ in range(5):
            kit.server.answer_all()
            kit.clock.advance(1.0)
        self.assertEqual((kit.lane.waiting, kit.lane.ready), (0, True))
        self.assertGreater(kit.ends()["delivered"], 600 * 5)

    def test_the_queue_after_an_outage_goes_by_a_ramp(self) -> None:
        """When Google comes back it gets a trickle first, and all a minute later."""
        kit = self.kit(rate=800.0)
        kit.server.refusing = True
        kit.server.open[0].lose()
        kit.clock.advance(0)
        for _ in range(12):
            kit.admit(100)
        kit.clock.pump([1.0] * 60)
        kit.server.refusing = False
        sent = []
        for _ in range(130):
            count = 0
            for _ in range(10):
                kit.clock.advance(0.1)
                count += kit.server.answer_all()
            sent.append(count)
        first = next(place for place, count in enumerate(sent) if count)
        self.assertLess(sum(sent[first : first + 5]), 1_200 / 4)
        self.assertEqual(kit.ends(), {"delivered": 1_200})


class OnceTests(SynchronousTestCase):
    """A push whose fate is unknown is repeated once, whatever else befalls it."""

    def test_unknown_then_spoiled(self) -> None:
        """Cut off, repeated, refused with its link, repeated, cut off: that is the end of it."""
        kit = LaneKit()
        kit.start()
        call = kit.admit()
        kit.server.open[0].lose()
        kit.clock.pump([0, 1.0, 1.0])
        kit.server.answer_all(500)
        kit.clock.pump([1.0] * 4)
        self.assertEqual(len(kit.server.open[-1].requests), 1)
        kit.server.open[-1].lose()
        self.assertEqual(kit.ends(), {"unknown": 1})
        self.successResultOf(call.settled)

    def test_spoiled_links_are_left_once_at_once(self) -> None:
        """The second time in a row the push waits before it spoils a third link."""
        kit = LaneKit(patience=replace(Patience(), first=10.0))
        kit.start()
        kit.admit()
        kit.server.answer_all(500)
        kit.clock.pump([0, 1.0, 1.0])
        kit.server.answer_all(500)
        kit.clock.pump([1.0] * 9)
        self.assertEqual(kit.server.answer_all(), 0)
        kit.clock.pump([1.0] * 20)
        self.assertEqual(kit.server.answer_all(), 1)
