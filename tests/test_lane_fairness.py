"""Who waits for whom: between servers, between providers, and when there is more than can go."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from heapq import heappop, heappush
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.calls import Call, Saturated
from bouncerd.fair import TURN_BYTES
from bouncerd.model import Kind
from bouncerd.routes import Routes
from tests.lane_kit import LaneKit
from tests.memory import Server, a_push

TICK = 0.001
SERVERS, FLOOD = 50, 100


class Slots:
    """A provider that works on so many requests at a time, each for so long (seconds).

    `spread`: by how much, as a part of it, one takes longer or less than another.
    """

    def __init__(self, server: Server, at_once: int, each: float, spread: float = 0.0) -> None:
        self.server = server
        self.at_once, self.each = at_once, each
        self._spread = spread
        self._random = Random(3)
        self._working: list[tuple[float, int]] = []
        self._credit = 0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.at_once / self.each

    def work(self, now: float) -> int:
        """Answer what is done by now, and begin what came; return how many were answered."""
        (connection,) = self.server.open
        done = []
        while self._working and self._working[0][0] <= now + 1e-9:
            done.append(heappop(self._working)[1])
        if done:
            credit = connection.peer.credit(0, 10 * len(done))
            connection.say(credit + b"".join(connection.peer.answer(each, 200) for each in done))
        while connection.requests and len(self._working) < self.at_once:
            takes = self.each * (1 + self._random.uniform(-self._spread, self._spread))
            heappush(self._working, (now + takes, connection.requests.pop(0).stream_id))
        return len(done)


def arrivals(rate: float, seconds: float, random: Random) -> Iterator[float]:
    """Yield when somebody comes, by chance, so many times a second."""
    at = random.expovariate(rate)
    while at < seconds:
        yield at
        at += random.expovariate(rate)


def waits(slots: Slots, kit: LaneKit, flood: list[float], seconds: float) -> list[float]:
    """Return how long (seconds) each push of the quiet servers took."""
    share = slots.rate / 2 / (SERVERS - 1 + FLOOD)  # half of the rate, with the flood
    random = Random(11)
    coming = [(at, "flood") for at in flood]
    for number in range(SERVERS - 1):
        coming += [(at, f"s{number}") for at in arrivals(share, seconds, random)]
    coming.sort(reverse=True)
    open_calls: list[tuple[float, Call]] = []
    took: list[float] = []
    begin = kit.clock.seconds()
    for tick in range(int((seconds + 3.0) / TICK)):
        now = tick * TICK
        while coming and coming[-1][0] <= now:
            at, server = coming.pop()
            call = kit.routes.admit(server, [a_push(server=server)])
            if server != "flood":
                call.settled.addCallback(lambda _, at: took.append(kit.clock.seconds() - at), at)
                open_calls.append((at, call))
        kit.clock.advance(TICK)
        slots.work(now)
    assert all(call.settled.called for _, call in open_calls)
    return [each - begin for each in took]


def p99(figures: list[float]) -> float:
    """Return what 99 of 100 stay below."""
    return sorted(figures)[int(len(figures) * 0.99)]


class FloodTests(SynchronousTestCase):
    """One server sends a hundred times as much as each of 49 others; half the rate in all."""

    def rise(self, at_once: int, each: float, *, bursts: bool, seconds: float = 4.0) -> float:
        """Return by how much the others' p99 rises, in milliseconds."""
        figures = []
        for flooding in (False, True):
            kit = LaneKit(limit=20_000, max_streams=at_once + 10)
            kit.start()
            slots = Slots(kit.server, at_once, each, spread=0.6)
            rate = slots.rate / 2 / (SERVERS - 1 + FLOOD) * FLOOD
            flood = list(arrivals(rate, seconds, Random(2)))
            if bursts:  # all of a second at once
                flood = [float(int(at)) for at in flood]
            figures.append(p99(waits(slots, kit, flood if flooding else [], seconds)) * 1000)
            kit.check()
        print(  # noqa: T201 -- the figure is what one wants to see
            f"{at_once} at a time, {each * 1000:.0f} ms each, {bursts=}: p99 of the others"
            f" {figures[0]:.0f} ms, with the flood {figures[1]:.0f} ms"
        )
        return figures[1] - figures[0]

    def test_many_at_a_time(self) -> None:
        """A provider like Apple and Google: many requests at a time, each of some milliseconds."""
        self.assertLess(self.rise(50, 0.05, bursts=False), 10.0)
        self.assertLess(self.rise(50, 0.05, bursts=True), 50.0)

    def test_one_at_a_time(self) -> None:
        """A provider that has a queue of its own, where what was given away is in front."""
        self.assertLess(self.rise(1, 0.001, bursts=False), 10.0)
        self.assertLess(self.rise(1, 0.001, bursts=True), 50.0)


class SharesTests(SynchronousTestCase):
    """What a turn is."""

    def sent(self, kit: LaneKit) -> dict[str, int]:
        """Return how many of each server's pushes leave while all have something waiting."""
        before: dict[str, int] = {}
        for _ in range(60):
            peer = kit.server.open[0].peer
            kit.server.open[0].say(peer.credit(0, 10 * TURN_BYTES))
            for request in kit.server.open[0].requests:
                before[request.path] = before.get(request.path, 0) + 1
            kit.server.answer_all()
            kit.clock.advance(0)
        return before

    def test_outsized_pushes_pay(self) -> None:
        """Who sends twice the size of others gets half as many turns; small ones get no more."""
        kit = LaneKit(limit=1_000, max_streams=2)
        kit.start()
        for server, size in (("0a", TURN_BYTES * 2), ("0b", TURN_BYTES), ("0c", 2)):
            push = a_push(server, server)
            push = replace(push, message=replace(push.message, body=b"x" * size))
            kit.routes.admit(server, [push] * 60)
        kit.clock.advance(0)
        first = self.sent(kit)
        self.assertLessEqual(abs(first["/0b"] - first["/0c"]), 2)
        # Two of its pushes went before the others came.
        self.assertLessEqual(abs(first["/0a"] * 2 - first["/0b"]), 6)

    def test_retries_do_not_jump_the_queue(self) -> None:
        """A tenant whose pushes are all due again goes round with the others, not before them."""
        kit = LaneKit(limit=1_000, max_streams=100)
        kit.start()
        kit.admit(50, "evil", token="0e")
        kit.server.answer_all(503)
        kit.server.open[0].say(kit.server.open[0].peer.settings(max_streams=0))
        kit.clock.pump([1.0] * 13)
        for server in ("s1", "s2"):
            kit.admit(10, server, token="0a")
        kit.server.open[0].say(kit.server.open[0].peer.settings(max_streams=30))
        kit.clock.advance(0)
        paths = [request.path for request in kit.server.open[0].requests]
        self.assertEqual(paths.count("/0a"), 20)


class OverloadTests(SynchronousTestCase):
    """Twice as much comes as can go."""

    def test_goodput(self) -> None:
        """What is delivered stays at the provider's rate; what waits stays within its limit."""
        kit = LaneKit(limit=400, max_streams=20)
        kit.start()
        slots = Slots(kit.server, 10, 0.02)
        random, done, refused, most = Random(5), 0, 0, 0
        coming = sorted(arrivals(slots.rate * 2 / 2, 6.0, random), reverse=True)
        for tick in range(6_000):
            now = tick * TICK
            while coming and coming[-1] <= now:
                coming.pop()
                server = f"s{random.randrange(30)}"
                try:
                    kit.routes.admit(server, [a_push(server=server)] * 2)
                except Saturated:
                    refused += 2
            kit.clock.advance(TICK)
            answered = slots.work(now)
            done += answered if now >= 1.0 else 0
            most = max(most, kit.lane.waiting)
        goodput = done / 5.0
        print(  # noqa: T201 -- likewise
            f"at twice the rate: {goodput:.0f} of {slots.rate:.0f} a second; {most} waited"
        )
        self.assertGreater(goodput, 0.9 * slots.rate)
        self.assertLessEqual(most, 400 + 20)
        self.assertGreater(refused, 0)
        self.assertNotIn("expired", kit.ends())

    def test_one_provider_down(self) -> None:
        """While Apple is away, or only errs, Google gets as much as ever, and callers no 503."""
        delivered = []
        for weather in ("fine", "refusing", "erring"):
            apple = LaneKit(limit=300, max_streams=20)
            apple.start()
            google = LaneKit(limit=300, max_streams=20)
            google.start()
            slots = Slots(google.server, 10, 0.02)
            routes = Routes({None: apple.lane}, {None: google.lane})
            if weather == "refusing":
                apple.server.refusing = True
                apple.server.open[0].lose()
            random, done = Random(5), 0
            coming = sorted(arrivals(slots.rate * 0.8, 5.0, random), reverse=True)
            for tick in range(500):
                now = tick * TICK * 10
                while coming and coming[-1] <= now:
                    coming.pop()
                    push = a_push(server=f"s{random.randrange(30)}")
                    android = replace(push, message=replace(push.message, kind=Kind.FCM))
                    routes.admit(push.server, [push, android])
                apple.clock.advance(TICK * 10)
                google.clock.advance(TICK * 10)
                apple.server.answer_all(200 if weather == "fine" else 503)
                for connection in apple.server.open:
                    connection.say(connection.peer.credit(0, 100))
                done += slots.work(now)
            apple.check()
            google.check()
            self.assertLessEqual(apple.lane.waiting, 300 + 20)
            delivered.append(done)
        self.assertEqual(delivered, [delivered[0]] * 3)

    def test_many_strangers(self) -> None:
        """Ten thousand servers of one push each: what is kept stays within its limit."""
        kit = LaneKit(limit=500)
        for number in range(10_000):
            with contextlib.suppress(Saturated):
                kit.routes.admit(f"s{number}", [a_push(server=f"s{number}")])
        queue = kit.lane._stock.queue
        self.assertLessEqual(kit.lane.waiting, 500)
        self.assertLess(len(queue._backlogs) + len(queue._round), 3_000)
        kit.check()
