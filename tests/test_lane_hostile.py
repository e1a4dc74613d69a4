"""One tenant against the others: what it does to itself, it does to nobody else."""

import json
from dataclasses import replace
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from bouncerd import legacy
from bouncerd.breaker import IN_A_ROW
from bouncerd.model import About, Kind, Outcome, Push, Retry
from bouncerd.patience import APNS_PATIENCE, FCM_PATIENCE
from bouncerd.pool import Pool
from bouncerd.routes import Routes
from tests.lane_kit import MANNERS, LaneKit
from tests.memory import Server, SimpleProvider, a_push


class Throttling(SimpleProvider):
    """429 is about the device."""

    def outcome(self, session: object, push: Push, response: object, now: float) -> Outcome:
        """Read the status."""
        if getattr(response, "status", 0) == 429:
            return Retry("TooManyRequests", 30.0, about=About.DEVICE)
        return super().outcome(session, push, response, now)  # type: ignore[arg-type]


def junk(kit: LaneKit, server: str = "junk") -> None:
    """Have a server refused for its tokens until it is on probation."""
    for _ in range(16):
        kit.admit(1, server)
        kit.server.answer_all(404)
        kit.clock.advance(0)


def removal(user: int = 5) -> Push:
    """Return one for an iPhone."""
    zulip = {"user_id": user, "event": "remove", "zulip_message_ids": "1"}
    message = legacy.apns_message({"badge": 0, "custom": {"zulip": zulip}}, 0.0)
    return replace(a_push(), message=message)


class FloodTests(SynchronousTestCase):
    """More than a lane holds, of a server that may not send it."""

    def test_on_probation_it_does_not_fill_the_lane(self) -> None:
        """What waits for its one push at a time is given up for those that go at once."""
        kit = LaneKit(limit=50)
        kit.start()
        junk(kit)
        kit.admit(50, "junk")
        self.assertEqual(kit.lane.waiting, 50)
        for _ in range(20):
            call = kit.admit(5, "good")
            kit.server.answer_all()
            self.successResultOf(call.settled)
            self.assertEqual(call.delivered, 5)
            kit.check()
        self.assertEqual(kit.ends()["expired"], 4)

    def test_invented_apps_are_as_bad_as_bad_tokens(self) -> None:
        """What Apple may end a link for goes one by one, under however many names."""
        kit = LaneKit(limit=1_000)
        kit.start()
        kit.admit()
        kit.server.answer_all()
        for number in range(30):
            kit.admit(1, "junk", app=f"org.invented.{number}")
            kit.server.answer_all(403)
        for number in range(30):
            kit.admit(1, "junk", app=f"org.more.{number}")
        self.assertEqual(kit.lane.in_flight, 1)
        kit.admit(5)
        self.assertEqual(kit.lane.in_flight, 6)


class HotTests(SynchronousTestCase):
    """429s that a tenant brings about."""

    def test_it_does_not_hold_up_others_on_one_phone(self) -> None:
        """Each server finds out by itself whether the phone takes its pushes."""
        kit = LaneKit(provider=Throttling())
        kit.start()
        kit.admit(3, "flood")
        kit.server.answer_all(429)
        call = kit.admit(1, "good")
        kit.server.answer_all()
        self.successResultOf(call.settled)
        self.assertEqual(call.delivered, 1)
        kit.admit(3, "flood")
        self.assertEqual(kit.lane.in_flight, 0)

    def test_it_does_not_stop_the_project(self) -> None:
        """Three phones of one tenant, refused in one moment, hold up nobody else."""
        kit = LaneKit(provider=Throttling(), patience=FCM_PATIENCE)
        kit.start()
        kit.admit(1, "good")
        kit.server.answer_all()
        for token in ("0a", "0b", "0c", "0d"):
            kit.admit(1, "flood", token=token)
        kit.server.answer_all(429)
        self.assertTrue(kit.lane.ready)
        call = kit.admit(5, "good")
        kit.server.answer_all()
        self.successResultOf(call.settled)
        self.assertEqual(call.delivered, 5)


class BreakerTests(SynchronousTestCase):
    """Refusals of the credential that only one server meets."""

    def test_they_stop_nobody_else(self) -> None:
        """Where others' pushes of the app have gone."""
        kit = LaneKit()
        kit.start()
        kit.admit(1, "good")
        kit.server.answer_all()
        kit.admit(3 * IN_A_ROW, "evil")
        kit.server.answer_all(403)
        call = kit.admit(5, "good")
        self.assertEqual(kit.server.answer_all(), 5)
        self.assertEqual(call.delivered, 5)

    def test_one_answer_is_one_refusal(self) -> None:
        """However many removals went in one request."""
        kit = LaneKit(max_streams=0)
        kit.start()
        for _ in range(12):
            kit.routes.admit("s1", [removal()])
        kit.server.open[0].say(kit.server.open[0].peer.settings(max_streams=100))
        kit.clock.advance(0)
        self.assertEqual(kit.lane.in_flight, 12)
        self.assertEqual(kit.server.answer_all(403), 1)
        kit.admit(3)
        self.assertEqual(kit.server.answer_all(), 3)

    def test_a_new_credential_is_not_judged_by_the_old_ones_links(self) -> None:
        """Refusals that come in after a reload open nothing."""
        kit = LaneKit()
        kit.start()
        kit.admit(3 * IN_A_ROW)
        server = Server(kit.clock, max_streams=100)
        pool = Pool("apns", server.connect, MANNERS, 1, kit.clock, Random(7))
        kit.lane.adopt(SimpleProvider(), pool, APNS_PATIENCE).retire()
        kit.server.answer_all(403)
        kit.clock.pump([0, 1.0, 1.0])
        call = kit.admit(5)
        self.assertEqual(server.answer_all(), 5)
        self.assertEqual(call.delivered, 5)


class MergingTests(SynchronousTestCase):
    """Removals that look alike and are not."""

    def test_each_goes_as_it_came(self) -> None:
        """Whoever's they are, nothing is lost, and none is sent to another user."""
        kit = LaneKit(max_streams=0)
        kit.start()
        for number in range(40):
            kit.routes.admit("s1", [removal(number)])
        kit.server.open[0].say(kit.server.open[0].peer.settings(max_streams=100))
        kit.clock.advance(0)
        users = [json.loads(each.body)["zulip"]["user_id"] for each in kit.server.open[0].requests]
        self.assertEqual(users, list(range(40)))


class ReturnedTests(SynchronousTestCase):
    """A caller that was told to repeat its call repeats it: none of it may go here."""

    def test_what_rested_unsent(self) -> None:
        """A push that waited for its phone, when the other of its call was given back."""
        kit = LaneKit(provider=Throttling(), max_streams=1)
        kit.start()
        kit.admit(1, token="0a")
        kit.server.answer_all(429)
        kit.admit(1, "s3")
        call = kit.routes.admit("s1", [a_push("0a"), a_push("0b")])
        kit.admit(3, "s2")
        kit.server.answer_all()
        kit.lane.stop(60.0)
        self.assertEqual((call.returned, call.given), (True, False))
        self.assertEqual(kit.ends(), {"delivered": 1, "returned": 1})
        paths = []
        for _ in range(50):
            paths += [each.path for each in kit.server.open[0].requests]
            kit.server.answer_all()
            kit.clock.advance(1.0)
        self.assertEqual(paths.count("/0a"), 1)
        self.assertEqual(kit.ends(), {"delivered": 5, "returned": 2})

    def test_what_another_lane_has(self) -> None:
        """A lane that stops first gives its part back: the other does not send its own then."""
        one, other = LaneKit(), LaneKit(max_streams=0)
        one.start()
        other.start()
        routes = Routes({None: one.lane}, {None: other.lane})
        android = a_push("bb")
        android = replace(android, message=replace(android.message, kind=Kind.FCM))
        one.lane.pause()
        call = routes.admit("s1", [a_push("aa"), android])
        one.lane.stop(5.0)
        self.assertTrue(call.returned)
        self.assertEqual(one.ends(), {"returned": 1})
        connection = other.server.open[0]
        connection.say(connection.peer.settings(max_streams=10))
        self.assertEqual((connection.requests, other.ends()), ([], {"returned": 1}))
        self.successResultOf(call.settled)


class StallTests(SynchronousTestCase):
    """What waits goes on when nothing else happens."""

    def test_its_push_ended_with_a_link(self) -> None:
        """A server on probation has its next turn though the link is gone, and no other comes."""
        kit = LaneKit(size=3)
        kit.start()
        kit.clock.pump([1.0] * 3)
        junk(kit)
        kit.admit(3, "junk")
        kit.server.refusing = True
        for _ in range(2):
            next(each for each in kit.server.open if each.requests).lose()
            kit.clock.pump([0, 1.0])
        self.assertEqual(kit.ends(), {"gone": 16, "unknown": 1})
        self.assertEqual(len(kit.server.open[0].requests), 1)
