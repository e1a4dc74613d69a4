"""A lane: every push taken has exactly one end, and no caller waits longer than it must."""

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.breaker import IN_A_ROW
from bouncerd.calls import Call, Saturated
from bouncerd.ledger import End
from bouncerd.link import Manners
from bouncerd.model import Gone, Kind
from bouncerd.patience import FCM_PATIENCE
from bouncerd.routes import Routes
from tests.lane_kit import LaneKit
from tests.memory import a_push


class LaneTests(SynchronousTestCase):
    """One behaviour each."""

    def kit(self, **settings: Any) -> LaneKit:
        """Return a lane that is connected."""
        kit = LaneKit(**settings)
        kit.start()
        return kit

    def test_delivered(self) -> None:
        """The caller hears when all its pushes were accepted."""
        kit = self.kit()
        call = kit.admit(3)
        self.assertNoResult(call.settled)
        kit.server.answer_all()
        self.successResultOf(call.settled)
        self.assertEqual((call.delivered, kit.ends()), (3, {"delivered": 3}))

    def test_gone_is_forgotten_before_the_reply(self) -> None:
        """The reply waits until the dead token is out of the store, so that it can name it."""
        kit = self.kit()
        kit.forgetting = Deferred()
        call = kit.admit()
        kit.server.answer_all(410)
        self.assertEqual(kit.ends(), {"gone": 1})
        self.assertNoResult(call.settled)
        kit.forgetting.callback(None)
        self.successResultOf(call.settled)
        ((_, gone, sent_at),) = kit.forgotten
        self.assertEqual((gone, sent_at), (Gone("Unregistered", 5.0), 2.0))

    def test_mass_failure_deletes_no_more(self) -> None:
        """When most tokens are called bad, the devices stay and the operator hears of it once."""
        kit = self.kit(limit=1_000)
        for _ in range(10):
            self.successResultOf(self.refused_ten(kit).settled)
        self.assertEqual(kit.ends(), {"gone": 100})
        self.assertLess(len(kit.forgotten), 50)
        kit.admit()
        kit.server.answer_all(410)
        self.assertEqual(kit.forgotten[-1][1].reason, "Unregistered")

    def refused_ten(self, kit: LaneKit) -> Call:
        """Push ten times; all are refused for their tokens."""
        call = kit.admit(10)
        for _ in range(10):  # after some, no more than one is in flight: probation
            kit.server.answer_all(404)
            kit.clock.advance(0)
        return call

    def test_refused_is_not_repeated(self) -> None:
        """What can never go ends at once, sent or unsent."""
        kit = self.kit()
        call = kit.admit()
        kit.server.answer_all(400)
        self.successResultOf(call.settled)
        self.successResultOf(kit.admit(token="").settled)
        kit.clock.advance(100)
        self.assertEqual((kit.server.answer_all(), kit.ends()), (0, {"refused": 2}))

    def test_retry_answers_the_caller_and_goes_on(self) -> None:
        """A 503 lets the caller go, and the push is tried again after ten seconds or more."""
        kit = self.kit()
        call = kit.admit()
        kit.server.answer_all(503)
        self.successResultOf(call.settled)
        kit.clock.advance(9.9)
        self.assertEqual(kit.server.answer_all(), 0)
        kit.clock.pump([2.7, 0])
        self.assertEqual(kit.server.answer_all(200), 1)
        self.assertEqual(kit.ends(), {"delivered": 1})

    def test_retry_after_is_honoured(self) -> None:
        """The provider's own delay is a minimum."""
        kit = self.kit()
        kit.admit()
        kit.server.answer_all(429)
        kit.clock.pump([1.0] * 39)
        self.assertEqual(kit.server.answer_all(), 0)
        kit.clock.pump([1.0] * 12)
        self.assertEqual(kit.server.answer_all(), 1)

    def test_retries_end_when_time_is_up(self) -> None:
        """A push that would be tried again too late ends as expired, not at some later time."""
        kit = self.kit(keep_for=25.0)
        kit.admit()
        kit.server.answer_all(503)
        kit.clock.pump([1.0] * 13)
        kit.server.answer_all(503)
        self.assertEqual(kit.ends(), {"expired": 1})

    def test_a_spoiled_link_is_left_and_the_push_goes_elsewhere(self) -> None:
        """An answer that condemns the connection repeats the push on a new one, at once."""
        kit = self.kit()
        kit.admit()
        kit.server.answer_all(500)
        kit.clock.pump([0, 1.0, 1.0])
        self.assertEqual(len(kit.server.connections), 2)
        self.assertEqual(kit.server.answer_all(), 1)
        self.assertEqual(kit.ends(), {"delivered": 1})

    def test_misconfigured_is_kept_and_probed_slowly(self) -> None:
        """A refused credential keeps the push, asks about once a minute, and is one alert."""
        kit = self.kit()
        kit.admit(5)
        for _ in range(150):
            kit.server.answer_all(403)
            kit.clock.advance(1.0)
        self.assertEqual(kit.ends(), {})
        self.assertLess(kit.lane.reasons["retry", "InvalidProviderToken"], 16)
        self.assertEqual(kit.lane.waiting, 5)

    def test_an_app_that_is_refused_is_probed_only(self) -> None:
        """After ten refusals in a row an app's pushes wait; another app's go, on the same link."""
        kit = self.kit()
        kit.admit()
        kit.server.answer_all()
        for _ in range(IN_A_ROW):
            kit.admit(app="org.other")
            kit.server.answer_all(401)
        self.successResultOf(kit.admit(5, app="org.other").settled)
        self.assertEqual(kit.server.answer_all(), 0)
        kit.admit()
        self.assertEqual(kit.server.answer_all(), 1)
        self.assertEqual(len(kit.server.connections), 1)
        kit.clock.pump([1.0] * 80)
        self.assertLess(kit.server.answer_all(), IN_A_ROW)

    def test_a_refused_credential_leaves_its_link(self) -> None:
        """Where nothing ever succeeded, or the app did, the connection is replaced."""
        kit = self.kit()
        kit.admit()
        kit.server.answer_all(401)
        kit.clock.pump([1.0] * 5)
        self.assertEqual(len(kit.server.connections), 2)

    def test_unknown_after_two_losses(self) -> None:
        """A push cut off twice is not sent a third time."""
        kit = self.kit()
        call = kit.admit()
        kit.server.open[0].lose()
        kit.clock.pump([0, 1.0, 1.0])
        self.assertEqual(len(kit.server.open[0].requests), 1)
        kit.server.open[0].lose()
        self.assertEqual(kit.ends(), {"unknown": 1})
        self.successResultOf(call.settled)

    def test_cut_off_by_google_lets_the_caller_go(self) -> None:
        """Where a repetition has to wait ten seconds, the caller does not."""
        kit = LaneKit(patience=FCM_PATIENCE)
        kit.start()
        call = kit.admit()
        kit.server.open[0].lose()
        self.successResultOf(call.settled)
        kit.clock.pump([1.0] * 12)
        self.assertEqual(kit.server.answer_all(), 1)
        self.assertEqual(kit.ends(), {"delivered": 1})

    def test_unsent_is_free(self) -> None:
        """Pushes above a GOAWAY's last stream go again as often as it takes."""
        kit = self.kit()
        call = kit.admit(2)
        for _ in range(5):
            connection = kit.server.open[0]
            connection.say(connection.peer.goaway(0))
            kit.clock.pump([0, 1.0, 1.0, 1.0, 1.0])
        self.successResultOf(call.settled)
        kit.server.answer_all()
        self.assertEqual(kit.ends(), {"delivered": 2})

    def test_what_goes_again_keeps_its_order(self) -> None:
        """After a lost connection a server's pushes go in the order in which they came."""
        kit = self.kit(max_streams=3)
        tokens = [f"{number:02x}" for number in range(6)]
        for token in tokens:
            kit.admit(token=token)
        kit.server.open[0].lose()
        kit.clock.pump([0, 1.0, 1.0])
        seen = []
        while kit.server.open[0].requests:
            seen += [request.path.strip("/") for request in kit.server.open[0].requests]
            kit.server.answer_all()
            kit.clock.advance(0)
        self.assertEqual(seen, tokens)

    def test_refused_streams_are_paced(self) -> None:
        """REFUSED_STREAM is repeated, ever more seldom: a thousand pushes must not loop."""
        kit = self.kit()
        kit.admit()
        tries = 0
        for _ in range(100):
            connection = kit.server.open[0]
            for request in connection.requests:
                tries += 1
                connection.requests = []
                connection.say(connection.peer.reset(request.stream_id, 7))
            kit.clock.advance(0.01)
        self.assertTrue(3 <= tries <= 5, tries)

    def test_provider_down_keeps_pushes_and_answers_at_once(self) -> None:
        """With no link ready the caller is let go; the push leaves when the link is up."""
        kit = LaneKit()
        call = kit.admit(2)
        self.successResultOf(call.settled)
        self.assertEqual(kit.lane.waiting, 2)
        kit.start()
        kit.server.answer_all()
        self.assertEqual(kit.ends(), {"delivered": 2})

    def test_link_lost_lets_waiting_callers_go(self) -> None:
        """Callers whose pushes wait for room are let go when the last link is lost."""
        kit = self.kit(max_streams=1)
        call = kit.admit(3)
        kit.server.refusing = True
        kit.server.open[0].lose()
        self.successResultOf(call.settled)

    def test_access_token_missing_counts_as_down(self) -> None:
        """A provider without an access token takes pushes and lets the caller go."""
        kit = self.kit()
        kit.provider.ready = False
        call = kit.admit()
        self.successResultOf(call.settled)
        kit.provider.ready = True
        kit.lane.pump()
        kit.clock.advance(0)
        self.assertEqual(kit.server.answer_all(), 1)

    def test_expired_in_the_queue(self) -> None:
        """What waited as long as it is kept ends as expired, within a second."""
        kit = LaneKit(keep_for=60.0)
        kit.admit(2)
        kit.clock.pump([1.0] * 62)
        self.assertEqual(kit.ends(), {"expired": 2})

    def test_full_and_up_refuses_whole_calls(self) -> None:
        """A saturated process says so before it takes anything of a call."""
        kit = self.kit(limit=10, max_streams=1)
        kit.admit(8)
        with self.assertRaises(Saturated):
            kit.admit(4)
        self.assertEqual(kit.lane.ledger.accepted, 8)

    def test_full_and_down_sheds_from_who_holds_most(self) -> None:
        """While the provider is down nobody is refused; the biggest holder's oldest push goes."""
        kit = LaneKit(limit=10)
        kit.admit(9, "big")
        kit.admit(3, "small")
        self.assertEqual(kit.ends(), {"expired": 2})
        self.assertEqual(kit.lane.waiting, 10)

    def test_no_server_takes_over_a_quarter_while_others_wait(self) -> None:
        """One server cannot fill the lane in front of others."""
        kit = self.kit(limit=40, max_streams=1)
        kit.admit(2, "other")
        kit.admit(1, "other")
        kit.admit(10, "flood")
        with self.assertRaises(Saturated):
            kit.admit(1, "flood")
        kit.admit(1, "third")

    def test_a_failing_provider_ends_the_push(self) -> None:
        """A bug in building one request stops neither the lane nor the caller."""
        kit = self.kit()
        kit.provider.fails = True
        self.successResultOf(kit.admit().settled)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        kit.provider.fails = False
        kit.admit()
        kit.server.answer_all()
        self.assertEqual(kit.ends(), {"refused": 1, "delivered": 1})

    def test_without_a_section_a_push_is_refused(self) -> None:
        """A kind of device that no provider serves is answered, not kept."""
        routes = Routes({}, {})
        call = routes.admit("s1", [a_push()])
        self.successResultOf(call.settled)
        self.assertEqual(routes.nowhere.ends[End.REFUSED], 1)
        self.assertFalse(routes.configured(Kind.APNS))


class OddWeatherTests(SynchronousTestCase):
    """What servers, tenants and networks do that nobody asked for."""

    def test_an_outage_longer_than_idleness(self) -> None:
        """A push that waits keeps a Google lane dialing, however long nobody brings another."""
        kit = LaneKit(manners=Manners(answer_within=15, quiet=20, idle_close=180.0))
        kit.server.refusing = True
        kit.pool.start(kit.lane)
        kit.admit()
        kit.clock.pump([1.0] * 400)
        kit.server.refusing = False
        for _ in range(62):
            kit.clock.advance(1.0)
            kit.server.answer_all()
        self.assertEqual(kit.ends(), {"delivered": 1})

    def test_a_deadline_hands_its_stream_on_at_once(self) -> None:
        """The next push leaves with the reset of the hung one, though the server says nothing."""
        kit = LaneKit(max_streams=1, patience=FCM_PATIENCE)
        kit.start()
        kit.admit()
        kit.admit()
        (connection,) = kit.server.open
        for _ in range(29):
            kit.clock.advance(1.0)
            connection.say(connection.peer.ping())
        kit.clock.advance(2.0)
        self.assertEqual(connection.frames.count("Headers"), 2)

    def test_books_balance_within_an_answer(self) -> None:
        """Also in the moment when one caller is let go, the others' pushes are in the books."""
        kit = LaneKit(max_streams=0, keep_for=5.0)
        kit.start()
        calls = [kit.admit() for _ in range(3)]
        for call in calls:
            call.settled.addCallback(lambda _: kit.check())
        kit.clock.pump([1.0] * 8)
        for call in calls:
            self.successResultOf(call.settled)
        self.assertEqual(kit.ends(), {"expired": 3})

    def test_who_rests_makes_room(self) -> None:
        """A tenant whose pushes rest without end pays for his new ones, not his neighbours."""
        kit = LaneKit(limit=10, max_streams=6)
        kit.start()
        kit.admit(6, "evil")
        kit.server.answer_all(429)
        kit.server.open[0].say(kit.server.open[0].peer.settings(max_streams=0))
        good = kit.admit(3, "good")
        kit.admit(1, "evil")
        kit.admit(2, "good")
        self.assertEqual(kit.ends(), {"expired": 2})
        kit.server.open[0].say(kit.server.open[0].peer.settings(max_streams=6))
        kit.clock.advance(0)
        kit.server.answer_all()
        self.successResultOf(good.settled)
        self.assertEqual(good.delivered, 3)

    def test_shedding_takes_from_rests_too(self) -> None:
        """While a lane is full of one server's rests, another's waiting push is not shed."""
        kit = LaneKit(limit=10, max_streams=6)
        kit.start()
        kit.admit(6, "evil")
        kit.server.answer_all(429)
        kit.server.open[0].say(kit.server.open[0].peer.settings(max_streams=0))
        good = kit.admit(4, "good")
        kit.admit(1, "third")
        self.assertEqual(kit.ends(), {"expired": 1})
        self.assertNoResult(good.settled)
        kit.server.open[0].say(kit.server.open[0].peer.settings(max_streams=9))
        kit.clock.advance(0)
        kit.server.answer_all()
        self.assertEqual(good.delivered, 4)

    def test_condemned_links_are_replaced_ever_more_slowly(self) -> None:
        """A provider that finds fault with each connection is not dialed once a second."""
        kit = LaneKit(limit=5_000)
        kit.start()
        kit.admit(500)
        for _ in range(300):
            kit.server.answer_all(500)
            kit.clock.advance(1.0)
        self.assertLess(len(kit.server.dials), 20)
        self.assertIn(kit.pool.state().why, ("Shutdown", ""))

    def test_losing_the_access_token_lets_callers_go(self) -> None:
        """Callers whose pushes wait for room are let go when the access token is lost."""
        kit = LaneKit(max_streams=1)
        kit.start()
        kit.admit()
        call = kit.admit()
        self.assertNoResult(call.settled)
        kit.provider.ready = False
        kit.lane.pump()
        self.successResultOf(call.settled)

    def test_a_store_that_raises_keeps_nobody_waiting(self) -> None:
        """A device that cannot be forgotten is logged, and its caller answered."""
        kit = LaneKit()
        kit.start()
        kit.forget_fails = True
        call = kit.admit()
        kit.server.answer_all(410)
        self.successResultOf(call.settled)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(kit.ends(), {"gone": 1})


class StopTests(SynchronousTestCase):
    """The end of the process."""

    def test_stop_works_off_what_waits(self) -> None:
        """Pushes in flight and in the queue are delivered before the lane stops."""
        kit = LaneKit(max_streams=1)
        kit.start()
        call = kit.admit(3)
        stopped = kit.lane.stop(10.0)
        for _ in range(3):
            self.assertNoResult(stopped)
            kit.server.answer_all()
        self.successResultOf(stopped)
        self.successResultOf(call.settled)
        self.assertEqual(kit.ends(), {"delivered": 3})
        with self.assertRaises(Saturated):
            kit.admit()

    def test_stop_returns_what_no_link_has_seen(self) -> None:
        """A caller that still waits, none of whose pushes was sent, gets them back."""
        kit = LaneKit(max_streams=1)
        kit.start()
        kit.admit(1)
        call = kit.admit(2)
        kit.lane.stop(10.0)
        self.successResultOf(call.settled)
        self.assertTrue(call.returned)
        self.assertEqual(kit.ends(), {"returned": 2})

    def test_what_is_left_is_lost_and_counted(self) -> None:
        """At the deadline what still waits ends as lost, in the books."""
        kit = LaneKit()
        kit.admit(4)
        stopped = kit.lane.stop(10.0)
        kit.clock.pump([1.0] * 10)
        self.successResultOf(stopped)
        self.assertEqual(kit.ends(), {"lost": 4})

    def test_no_wait_for_a_retry_that_comes_too_late(self) -> None:
        """A push whose retry is due after the deadline does not hold the stop up."""
        kit = LaneKit()
        kit.start()
        kit.admit()
        kit.server.answer_all(429)
        self.successResultOf(kit.lane.stop(10.0))
        self.assertEqual(kit.ends(), {"lost": 1})

    def test_who_was_answered_gets_nothing_back(self) -> None:
        """A caller that was told "success" in doubt will not repeat its call: it is lost."""
        kit = LaneKit(max_streams=0)
        kit.start()
        call = kit.admit(2)
        call.answered = True
        kit.lane.stop(10.0)
        self.assertFalse(call.returned)
        kit.clock.advance(10.0)
        self.assertEqual(kit.ends(), {"lost": 2})

    def test_a_call_over_two_lanes_comes_back_whole(self) -> None:
        """What another lane keeps of a returned call is returned too: its caller repeats it."""
        up, down = LaneKit(max_streams=0), LaneKit()
        up.start()
        routes = Routes({None: up.lane}, {None: down.lane})
        push = a_push()
        android = replace(push, message=replace(push.message, kind=Kind.FCM))
        call = routes.admit("s1", [push, android])
        up.clock.advance(1.0)
        for kit in (up, down):
            kit.lane.stop(10.0)
        self.assertTrue(call.returned)
        self.assertEqual((up.ends(), down.ends()), ({"returned": 1}, {"returned": 1}))

    def test_no_timer_is_left(self) -> None:
        """A lane that has stopped does nothing more; a second stop is the first."""
        kit = LaneKit()
        kit.admit(1)
        stopped = kit.lane.stop(10.0)
        self.assertIs(kit.lane.stop(10.0), stopped)
        kit.clock.advance(10.0)
        self.successResultOf(stopped)
        self.assertEqual(kit.clock.getDelayedCalls(), [])
