"""The promise, under random weather: each push has one end, and the books balance throughout."""

import contextlib
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd import legacy
from bouncerd.calls import Call, Saturated
from bouncerd.model import About, Outcome, Push, Retry
from bouncerd.patience import APNS_PATIENCE, FCM_PATIENCE
from bouncerd.pool import Pool
from tests.lane_kit import MANNERS, LaneKit
from tests.memory import Server, SimpleProvider, a_push

ANSWERS = [200, 200, 200, 410, 400, 404, 404, 503, 429, 403, 401, 500]
RETRIES = [
    Retry("TooManyRequests", 30.0, about=About.DEVICE),
    Retry("TooManyProviderTokenUpdates", spoiled=True, about=About.CREDENTIAL),
]


class Moody(SimpleProvider):
    """Gives 429 more than one meaning."""

    mood = 0

    def outcome(self, session: object, push: Push, response: Any, now: float) -> Outcome:
        """Read the status."""
        if response.status == 429:
            return RETRIES[self.mood]
        return super().outcome(session, push, response, now)


class Weather:
    """A lane, and what befalls it."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.noted: list[str] = []
        self.moody = Moody()
        patience = draw(st.sampled_from([APNS_PATIENCE, replace(FCM_PATIENCE, rate=20.0)]))
        self.kit = LaneKit(
            limit=30, keep_for=120.0, size=2, max_streams=3, patience=patience,
            provider=self.moody, note=lambda _push, kind, _reason: self.noted.append(kind),
        )  # fmt: skip
        self.kit.start()
        self.kit.lane._tries.most_on_probation = 1
        self.servers = [self.kit.server]
        self.calls: list[Call] = []
        self.paused = False
        self.patience = patience

    def act(self) -> None:
        """Do one thing."""
        actions = (
            *[self.call] * 4, *[self.answer] * 4, self.lose, self.goodbye, self.refuse,
            self.adopt, self.hand_over, self.resize, self.pause, self.token,
            self.blame,
        )  # fmt: skip
        self.draw(st.sampled_from(actions))()
        self.kit.clock.advance(self.draw(st.sampled_from([0, 0.1, 1, 15])))
        self.check()

    def check(self) -> None:
        """Hold the books against the queue, and the notes against the books."""
        self.kit.check()
        ends = self.kit.lane.ledger.ends
        retries = sum(kind == "retry" for kind in self.noted)
        assert sum(ends.values()) == len(self.noted) - retries
        lane, tries = self.kit.lane, self.kit.lane._tries
        assert lane.in_flight <= lane.waiting
        for call in self.calls:
            assert not (call.given and call.returned), "it was sent, and is repeated"
            assert call.waiting != call.settled.called
        under_way = {job.server for job in tries.in_hand if job.on_probation}
        queue = lane._stock.queue
        assert queue._parked == under_way | set(tries._in_line), "parked, and by nobody let go"
        assert len(tries._in_line) + tries._on_probation == len(queue._parked)
        assert queue.held_back == sum(map(queue.held, queue._parked))

    def call(self) -> None:
        """Bring messages or removals, of one of some servers for one of some phones."""
        server = self.draw(st.sampled_from(["s1", "s2", "s3"]))
        token = self.draw(st.sampled_from(["aa", "bb"]))
        push = a_push(token, server)
        if self.draw(st.booleans()):
            ids = str(len(self.calls) + 1)
            zulip = {"event": "remove", "zulip_message_ids": ids}
            message = legacy.apns_message({"badge": 0, "custom": {"zulip": zulip}}, 0.0)
            push = replace(push, message=message)
        pushes = [push] * self.draw(st.integers(0, 6))
        with contextlib.suppress(Saturated):
            self.calls.append(self.kit.routes.admit(server, pushes))

    def answer(self) -> None:
        """Have all answered that is under way."""
        status = self.draw(st.sampled_from(ANSWERS))
        self.moody.mood = self.draw(st.integers(0, 1))
        for server in self.servers:
            server.answer_all(status)

    def lose(self) -> None:
        """Break a connection."""
        for connection in self.servers[-1].open[:1]:
            connection.lose()

    def goodbye(self) -> None:
        """Have a server end a connection."""
        last = self.draw(st.sampled_from([0, 1, 3, 2**31 - 1]))
        debug = self.draw(st.sampled_from([b"", b"Maximum active streams violated"]))
        for connection in self.servers[-1].open[:1]:
            connection.say(connection.peer.goaway(last, debug=debug))

    def refuse(self) -> None:
        """Change whether connections are accepted."""
        self.servers[-1].refusing = not self.servers[-1].refusing

    def adopt(self) -> None:
        """Reload: other credentials, other links."""
        server = Server(self.kit.clock, max_streams=3)
        pool = Pool("apns", server.connect, MANNERS, 2, self.kit.clock, Random(7))
        self.servers.append(server)
        patience = self.draw(st.sampled_from([APNS_PATIENCE, self.patience]))
        self.kit.lane.adopt(self.moody, pool, patience).retire()

    def hand_over(self) -> None:
        """Leave everything to itself: a process that goes on with what it has left."""
        lane = self.kit.lane
        lane.pause()
        lane.withdraw_all()
        self.check()
        waiting = lane.to_pass_on()
        assert len(waiting) == lane.waiting
        lane.passed_on()
        self.check()
        assert lane.waiting == 0
        self.paused = False
        lane.go_on()
        lane.take_over(waiting)

    def pause(self) -> None:
        """Begin a hand-over, or let it come to nothing."""
        self.paused = not self.paused
        (self.kit.lane.pause if self.paused else self.kit.lane.go_on)()

    def token(self) -> None:
        """Lose the access token, or get another; nobody says so."""
        self.moody.ready = not self.moody.ready

    def blame(self) -> None:
        """Put a server on probation."""
        server = self.draw(st.sampled_from(["s1", "s2", "s3"]))
        for _ in range(20):
            self.kit.lane._tries._restraint.caution.probation.judged(server, bad=True)

    def resize(self) -> None:
        """Reload with other limits."""
        limit = self.draw(st.integers(5, 40))
        self.kit.lane.resize(limit=limit, keep_for=120.0)

    def clear_up(self) -> None:
        """Let the sun shine until nothing waits."""
        for server in self.servers:
            server.refusing = False
        self.moody.ready = True
        self.kit.lane.go_on()
        self.wait(300)

    def stop(self) -> None:
        """End the process, whatever the weather."""
        over = self.kit.lane.stop(self.draw(st.sampled_from([0.0, 5.0, 100.0])))
        self.check()
        for _ in range(self.draw(st.integers(0, 5))):
            self.draw(st.sampled_from([self.answer, self.lose, self.goodbye, self.refuse]))()
            self.kit.clock.advance(self.draw(st.sampled_from([0, 0.1, 1, 15])))
            self.check()
        self.wait(150)
        assert over.called

    def wait(self, seconds: int) -> None:
        """Let so many seconds pass, with answers."""
        for _ in range(seconds):
            self.kit.clock.advance(1.0)
            for server in self.servers:
                server.answer_all()
            self.check()


class PromiseTests(SynchronousTestCase):
    """Whatever happens."""

    @settings(max_examples=120)
    @given(st.data())
    def test_the_books_balance_at_every_step(self, data: Any) -> None:
        """Each push has one end, each is noted once, each caller is let go, nothing is parked."""
        weather = Weather(data.draw)
        for _ in range(data.draw(st.integers(5, 40))):
            weather.act()
        data.draw(st.sampled_from([weather.clear_up, weather.stop]))()
        lane = weather.kit.lane
        self.assertEqual(lane.waiting, 0)
        self.assertEqual(lane._stock.queue._parked, set())
        for call in weather.calls:
            self.successResultOf(call.settled)
