"""Junk for tokens, merged removals, and what the operator is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import cast

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bouncerd import legacy
from bouncerd.model import Push
from bouncerd.patience import APNS_PATIENCE
from bouncerd.pool import Pool
from bouncerd.trying import MOST_ON_PROBATION
from tests.lane_kit import MANNERS, LaneKit
from tests.memory import a_push


class ProbationTests(SynchronousTestCase):
    """A server whose tokens are mostly bad."""

    def junk(self, kit: LaneKit, server: str = "junk") -> None:
        """Have a server refused for its tokens until it is on probation."""
        for _ in range(16):
            kit.admit(1, server)
            kit.server.answer_all(404)
            kit.clock.advance(0)

    def test_one_in_flight(self) -> None:
        """Its pushes go one by one, on one link; the others' go as ever."""
        kit = LaneKit(size=2)
        kit.start()
        kit.clock.pump([1.0, 1.0])
        self.junk(kit)
        kit.admit(10, "junk", token="bb")
        kit.admit(10, "good", token="aa")
        paths = [request.path for each in kit.server.open for request in each.requests]
        self.assertEqual((paths.count("/bb"), paths.count("/aa")), (1, 10))
        kit.server.answer_all()
        kit.clock.advance(0)
        paths = [request.path for each in kit.server.open for request in each.requests]
        self.assertEqual(paths, ["/bb"])
        for _ in range(10):
            kit.server.answer_all(404)
            kit.clock.advance(0)
        self.assertEqual((kit.lane.waiting, kit.ends()), (0, {"delivered": 11, "gone": 25}))

    def test_always_the_same_link(self) -> None:
        """What Apple may end for it is one link, not each in turn."""
        kit = LaneKit(size=2)
        kit.start()
        kit.clock.pump([1.0, 1.0])
        self.junk(kit)
        used = set()
        for _ in range(6):
            kit.admit(1, "junk")
            used |= {place for place, each in enumerate(kit.server.open) if each.requests}
            kit.server.answer_all(404)
        self.assertEqual(len(used), 1)

    def test_recovery(self) -> None:
        """When its tokens are good again it gets its share again."""
        kit = LaneKit()
        kit.start()
        self.junk(kit)
        kit.admit(40, "junk")
        for _ in range(10):
            kit.server.answer_all()
            kit.clock.advance(0)
        kit.server.answer_all()
        self.assertEqual(kit.lane.waiting, 0)

    def test_many_of_them(self) -> None:
        """All servers on probation together have a few in flight, each in its turn."""
        kit = LaneKit(limit=1_000)
        kit.start()
        for number in range(30):
            self.junk(kit, f"junk{number}")
        for number in range(30):
            kit.admit(2, f"junk{number}", token=f"{number:02x}")
        self.assertEqual(kit.lane.in_flight, MOST_ON_PROBATION)
        kit.admit(3, "good")
        self.assertEqual(kit.lane.in_flight, MOST_ON_PROBATION + 3)
        for _ in range(60):
            kit.server.answer_all(404)
            kit.clock.advance(0)
            kit.check()
        self.assertEqual(kit.lane.waiting, 0)
        self.assertEqual(kit.lane._stock.queue._parked, set())

    def test_a_line_that_nobody_wakes(self) -> None:
        """Who waits for others on probation goes on, though those ended or all is new."""
        kit = LaneKit(limit=1_000, keep_for=30.0)
        kit.start()
        for server in ("junk1", "junk2", "junk3"):
            self.junk(kit, server)
        kit.lane._tries.most_on_probation = 1
        for server in ("junk1", "junk2"):
            kit.admit(2, server)
        kit.clock.pump([1.0] * 20)
        kit.admit(2, "junk3")
        kit.clock.pump([1.0] * 11)  # what junk2 had is too old by now
        kit.server.answer_all()
        kit.clock.pump([1.0] * 2)
        self.assertEqual(len(kit.server.open[0].requests), 1)
        kit.admit(2, "junk1")
        pool = Pool("apns", kit.server.connect, MANNERS, 1, kit.clock, Random(7))
        kit.lane.adopt(kit.provider, pool, APNS_PATIENCE).retire()
        kit.clock.pump([0, 1.0])
        kit.server.answer_all()
        kit.clock.pump([0, 1.0])
        kit.server.answer_all()
        self.assertEqual((kit.lane.waiting, kit.lane._stock.queue._parked), (0, set()))

    def test_its_link_breaks(self) -> None:
        """A push on probation that is cut off or withdrawn leaves its server a turn."""
        kit = LaneKit()
        kit.start()
        self.junk(kit)
        kit.admit(3, "junk")
        kit.server.open[0].lose()
        kit.clock.pump([0, 1.0, 1.0])
        self.assertEqual(kit.lane.in_flight, 1)
        for _ in range(4):
            kit.server.answer_all()
            kit.clock.advance(0)
        self.assertEqual(kit.lane.waiting, 0)


class MergingTests(SynchronousTestCase):
    """Removals for one phone, in the queue together."""

    def removal(self, ids: str, token: str = "c0ffee", sealed: bool = False) -> Push:
        """Return one for an iPhone."""
        zulip = {"realm_id": 1, "user_id": 5, "event": "remove", "zulip_message_ids": ids}
        message = legacy.apns_message({"badge": 0, "custom": {"zulip": zulip}}, 0.0)
        push = replace(a_push(token), message=message)
        return replace(push, device=replace(push.device, sealed=sealed))

    def kit(self) -> LaneKit:
        """Return a lane that holds four removals of one phone and one of another."""
        kit = LaneKit(max_streams=0)
        kit.start()
        self.calls = [kit.routes.admit("s1", [self.removal(ids)]) for ids in ("1", "2", "3,4")]
        self.calls.append(kit.routes.admit("s1", [self.removal("9", "beef")]))
        self.calls.append(kit.routes.admit("s1", [self.removal("5")]))
        kit.server.open[0].say(kit.server.open[0].peer.settings(max_streams=100))
        kit.clock.advance(0)
        kit.check()
        return kit

    def listed(self, kit: LaneKit) -> list[str]:
        """Return the ids of what has arrived."""
        return [
            json.loads(request.body)["zulip"]["zulip_message_ids"]
            for request in kit.server.open[0].requests
        ]

    def test_one_request_many_ends(self) -> None:
        """The phone gets one push that lists all; each push has its end, each caller its answer."""
        kit = self.kit()
        self.assertEqual(self.listed(kit), ["1,2,3,4,5", "9"])
        self.assertEqual(kit.lane.in_flight, 5)
        kit.server.answer_all()
        self.assertEqual(kit.ends(), {"delivered": 5})
        for call in self.calls:
            self.successResultOf(call.settled)
            self.assertEqual(call.delivered, 1)

    def test_cut_off_each_goes_again(self) -> None:
        """What nobody knows the fate of is repeated, each once, merged or not."""
        kit = self.kit()
        kit.server.settings = {"max_streams": 100}
        kit.server.open[0].lose()
        kit.check()
        kit.clock.pump([0, 1.0, 1.0])
        self.assertEqual(sorted(self.listed(kit)), ["1,2,3,4,5", "9"])
        kit.server.open[0].lose()
        self.assertEqual(kit.ends(), {"unknown": 5})

    def test_refused_each_goes_alone(self) -> None:
        """What is refused perhaps for being merged is sent as it came."""
        kit = self.kit()
        kit.server.answer_all(400)
        kit.check()
        self.assertEqual(kit.ends(), {"refused": 1})
        kit.clock.advance(0)
        self.assertEqual(self.listed(kit), ["1", "2", "3,4", "5"])
        kit.server.answer_all()
        self.assertEqual(kit.ends(), {"refused": 1, "delivered": 4})

    def test_gone_each_is_told(self) -> None:
        """A phone that is gone is gone for each caller."""
        kit = self.kit()
        kit.server.answer_all(410)
        self.assertEqual(kit.ends(), {"gone": 5})
        for call in self.calls:
            self.successResultOf(call.settled)

    def test_later_each_by_itself(self) -> None:
        """A 503 lets them rest; they are merged again when they are due together."""
        kit = self.kit()
        kit.server.answer_all(503)
        kit.check()
        self.assertEqual(kit.lane.waiting, 5)
        kit.clock.pump([1.0] * 14)
        kit.server.answer_all()
        self.assertEqual(kit.ends(), {"delivered": 5})

    def test_passed_on_as_they_came(self) -> None:
        """The next process gets each by itself."""
        kit = self.kit()
        kit.lane.pause()
        kit.lane.withdraw_all()
        kit.check()
        bodies = [each.push.message.body for each in kit.lane.to_pass_on()]
        self.assertEqual(len(bodies), 5)
        self.assertIn(self.removal("3,4").message.body, bodies)

    def test_sealed_are_not(self) -> None:
        """What is closed to us is left as it is, though it looked like a removal."""
        kit = LaneKit(max_streams=0)
        kit.start()
        for ids in ("1", "2"):
            kit.routes.admit("s1", [self.removal(ids, sealed=True)])
        kit.server.open[0].say(kit.server.open[0].peer.settings(max_streams=100))
        kit.clock.advance(0)
        self.assertEqual(self.listed(kit), ["1", "2"])


class AlertTests(SynchronousTestCase):
    """What wakes the operator: once in ten minutes for each matter, under its kind."""

    def alerts(self, happen: Callable[[], object]) -> list[str]:
        """Return the kinds of the alerts that were logged."""
        events: list[LogEvent] = []
        hear = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(hear)
        try:
            happen()
        finally:
            globalLogPublisher.removeObserver(hear)
        return [event["alert"] for event in events if "alert" in event]

    def test_credential_refused(self) -> None:
        """Five pushes that are refused again and again are one alert."""
        kit = LaneKit()
        kit.start()

        def happen() -> None:
            kit.admit(5)
            for _ in range(300):
                kit.server.answer_all(403)
                kit.clock.advance(1.0)

        self.assertEqual(self.alerts(happen), ["credential-refused"])

    def test_a_strangers_app_is_no_alert(self) -> None:
        """Where others' apps work, one that never did is its tenant's invention.

        Such a tenant costs us links as one with junk for tokens does, and is treated so.
        """
        kit = LaneKit(limit=1_000)
        kit.start()
        kit.admit()
        kit.server.answer_all()

        def happen() -> None:
            for number in range(200):
                kit.admit(app=f"org.invented.{number}")
                kit.server.answer_all(401)

        self.assertEqual(self.alerts(happen), [])
        kit.admit(3)
        self.assertEqual(kit.server.answer_all(), 1)
        kit.admit(3, "s2")
        self.assertEqual(kit.server.answer_all(), 4)

    def test_connections_refused_for_the_credential(self) -> None:
        """A GOAWAY that names the certificate, before any push could go, is told too."""
        kit = LaneKit(refusal=lambda debug: "BadCertificateEnvironment" if debug else None)
        kit.server.settings = {"max_streams": 0}
        kit.start()
        connection = kit.server.open[0]

        def happen() -> None:
            kit.admit()
            debug = b'{"reason":"BadCertificateEnvironment"}'
            connection.say(connection.peer.goaway(0, debug=debug))
            kit.server.refusing = True
            kit.clock.pump([1.0] * 300)

        self.assertEqual(self.alerts(happen), ["credential-refused"])

    def test_shedding(self) -> None:
        """A lane that gives up pushes for want of room."""
        kit = LaneKit(limit=10)
        self.assertEqual(self.alerts(lambda: [kit.admit(5) for _ in range(9)]), ["lane-shedding"])

    def test_bad_tokens(self) -> None:
        """Most tokens are called bad, of several servers."""
        kit = LaneKit(limit=1_000)
        kit.start()

        def happen() -> None:
            for number in range(100):
                kit.admit(1, f"s{number % 5}")
                kit.server.answer_all(404)

        self.assertEqual(self.alerts(happen), ["tokens-mostly-bad"])

    def test_lost(self) -> None:
        """A stop that leaves pushes behind, or a section that is gone."""
        kit = LaneKit()
        kit.admit(2)

        def happen() -> None:
            kit.lane.stop(1.0)
            kit.clock.pump([1.0, 1.0])

        self.assertEqual(self.alerts(happen), ["pushes-lost"])
