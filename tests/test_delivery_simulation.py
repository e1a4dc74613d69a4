"""Bad weather: lanes, pools and links against Apple's fake, on one clock, hundreds of times.

Each seed is another schedule of calls and faults, and replays: `SimulationTests` names it.
"""

import contextlib
import itertools
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.apns import Apns, goaway_outcome
from bouncerd.calls import Call, Saturated
from bouncerd.fakes import frames, steps
from bouncerd.fakes.apns import CERTIFICATE, Temper, goaway, refuse
from bouncerd.fakes.apns import Apns as Apple
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Close, Reset, Respond, Script, Settings, Wait, limit
from bouncerd.lane import Lane
from bouncerd.link import Manners
from bouncerd.model import Device, Gone, Kind, Message, Misconfigured, Push
from bouncerd.patience import Patience
from bouncerd.pool import Pool
from bouncerd.routes import Routes
from tests.wires import Network

if TYPE_CHECKING:
    from twisted.python.failure import Failure

SEEDS = range(100)  # for each of the two tests
#: A fake that reads nothing, or holds its bytes back, cannot hear acknowledgements in time.
LATE = {"SETTINGS acknowledged late", "SETTINGS never acknowledged"}
STORM = 60.0  # seconds of bad weather
OK = Respond(200)

#: What the server may do to a request, and to its connection with it.
FAULTS: tuple[Script, ...] = (
    (Reset(frames.REFUSED_STREAM),),
    (Reset(frames.REFUSED_STREAM),),
    (Reset(frames.INTERNAL_ERROR),),
    (Reset(frames.NO_ERROR),),
    (refuse(503, "ServiceUnavailable"),),
    (refuse(500, "InternalServerError"),),
    (refuse(503, "Shutdown"),),
    (refuse(429, "TooManyRequests"),),
    (refuse(410, "Unregistered", 5_000),),
    (refuse(400, "PayloadTooLarge"),),
    (refuse(403, "InvalidProviderToken"),),
    (Respond(400, end=False), Wait(1.0), Reset(frames.CANCEL)),
    (OK, goaway("Shutdown")),
    (goaway("Shutdown"), Wait(0.5), OK),
    (goaway("Shutdown", last_stream=2**31 - 1), Wait(0.2), OK, goaway("Shutdown")),
    (goaway("Shutdown", last_stream=1), Close("fin")),
    (goaway("", last_stream=0), Wait(0.1), Close("abort")),
    (goaway("BadCertificate", last_stream=0), Close("fin")),
    (Close("abort"),),
    (OK, Close("cut", after=11)),
    (steps.Raw(b"\0\0\x05\x06\0\0\0\0\0hello"),),
    (limit(0), OK, Wait(8.0), limit(1000)),
    (limit(1), OK),
    (limit(1000), OK),
    (Settings(((frames.INITIAL_WINDOW_SIZE, 3),)), OK),
    (Settings(((frames.INITIAL_WINDOW_SIZE, 65_535),)), OK),
    (steps.Withhold(), OK, Wait(6.0), steps.Credit()),
    (steps.Hold(), OK, Wait(0.3), steps.Release()),
    (steps.Chop(64, 0.001), OK),
    (steps.Ping(), OK),
    (Wait(40.0), OK),
    steps.SILENCE,
    (steps.Ignore(),),
    (steps.Ignore((frames.PING,)),),
)


def a_push(number: int, server: str, now: float, random: Random) -> Push:
    """Return a push with an id of its own."""
    device = Device(number, Kind.APNS, f"{number:08x}", "org.example.app", 0.0, user_id=5)
    body = b"{" + b" " * random.choice([0, 0, 300, 4_000]) + b"}"
    message = Message(Kind.APNS, body, urgent=random.random() < 0.8, push_type="alert", priority=5)
    return Push(
        f"{number:08x}-0000-4000-8000-000000000000",
        server,
        device,
        message,
        now + random.choice([30, 600, 600]),
    )


class Storm:
    """One schedule, played to its end."""

    def __init__(self, seed: int) -> None:
        random = self.random = Random(seed)
        clock = self.clock = Clock()
        self.apple = Apple(
            clock, mode=CERTIFICATE, now=clock.seconds, seed=seed, latency=(0.01, 0.2),
            temper=Temper(throttle_on_reject=random.random() < 0.3),
        )  # fmt: skip
        self.network = Network(clock, random, self.apple)
        manners = Manners(
            answer_within=15, quiet=8, idle_close=random.choice([None, 40.0]),
            probe=random.random() < 0.5, max_age=random.choice([50.0, 5_000.0]),
        )  # fmt: skip
        self.pool = Pool(
            "apns", self.network.connect, manners, random.randint(1, 3), clock, random, _refusal
        )
        self.lane = Lane(
            Apns("apns", "localhost", None), self.pool, clock, clock.seconds, random, self.forget,
            limit=random.choice([10, 60, 400]), keep_for=600.0, patience=Patience(first=2.0),
        )  # fmt: skip
        self.routes = Routes({None: self.lane}, {})
        self.calls: list[Call] = []
        self.numbers = itertools.count()
        self.pushes = 0
        self.failures: list[Failure] = []

    def forget(self, _push: Push, _gone: Gone, _sent_at: float) -> Deferred[None]:
        """Be a store, prompt or slow."""
        if self.random.random() < 0.5:
            return succeed(None)
        forgotten: Deferred[None] = Deferred()
        self.clock.callLater(0.3, forgotten.callback, None)
        return forgotten

    def call(self) -> None:
        """Bring one call; sometimes the next one comes from within its answer."""
        server = self.random.choice(["flood", "flood", "b", "c"])
        count = self.random.choice([1, 2, 5, 20 if server == "flood" else 1])
        now = self.clock.seconds()
        pushes = [a_push(next(self.numbers), server, now, self.random) for _ in range(count)]
        with contextlib.suppress(Saturated):
            call = self.routes.admit(server, pushes)
            self.pushes += count
            self.calls.append(call)
            call.settled.addCallback(self.settled).addErrback(self.failures.append)
        self.check()

    def settled(self, _: object) -> None:
        """Hear that a call may be answered; the books balance in that very moment."""
        self.check()
        if self.random.random() < 0.2 and self.clock.seconds() < STORM:
            self.call()

    def check(self) -> None:
        """Hold the books against the queue."""
        assert self.lane.ledger.waiting() == self.lane.waiting, "the books do not balance"

    def pass_seconds(self, seconds: float, step: float) -> None:
        """Let time pass, in steps of uneven length."""
        by = self.clock.seconds() + seconds
        while self.clock.seconds() < by:
            self.clock.advance(self.random.uniform(0, step))
            self.check()

    def storm(self) -> None:
        """Have everything happen at once."""
        for fault in self.random.sample(FAULTS, 6):
            probability = self.random.choice([0.02, 0.1, 0.3])
            self.apple.on(Match(probability=probability), *fault, count=self.random.randint(1, 15))
        if self.random.random() < 0.3:
            self.apple.on(Match("connect", probability=0.5), Close("abort"), count=3)
        self.pool.start(self.lane)
        while self.clock.seconds() < STORM:
            if self.random.random() < 0.3:
                self.call()
            if self.random.random() < 0.02:
                weathers = ["fine", "fine", "refused", "silent"]
                self.network.weather = self.random.choice(weathers)
            self.pass_seconds(self.random.choice([0.01, 0.5, 1.0, 3.0]), 0.6)

    def clear_up(self) -> None:
        """Let the sun shine until all is delivered or out of time."""
        self.network.weather = "fine"
        self.apple.rules.clear()
        self.apple.tell(limit(1000), steps.Credit(), steps.Chop(0))
        for _ in range(80):
            if not self.lane.waiting:
                break
            self.pass_seconds(10.0, 3.0)

    def stop(self) -> None:
        """Stop, as the daemon does."""
        stopped = self.lane.stop(10.0)
        self.check()
        self.pass_seconds(11.0, 1.0)
        assert stopped.called, "the lane has not stopped"
        gone = self.pool.stop()
        self.pass_seconds(45.0, 3.0)
        assert gone.called, "the links have not gone"

    def judge(self) -> None:
        """Hold what was promised against what the fake has seen."""
        assert not self.failures, self.failures[0].getTraceback()
        ledger, ends = self.lane.ledger, self.lane.ledger.ends
        assert ledger.accepted == sum(ends.values()) == self.pushes, ends
        assert self.lane.waiting == 0
        assert all(call.settled.called for call in self.calls), "a caller still waits"
        broken = {each.rule for each in self.apple.ledger.violations} - LATE
        assert not broken, list(self.apple.ledger.violations)
        dials = self.network.dials
        assert all(b - a > 0.999 for a, b in itertools.pairwise(dials)), dials
        acted_on: Counter[bytes | None] = Counter()
        for received in self.apple.ledger.received:
            unsure = ("200", "reset 0", "reset 2", "withdrawn", "dropped")
            acted_on[received.header(b"apns-id")] += received.verdict in unsure
        assert max(acted_on.values(), default=0) <= 2, acted_on.most_common(3)
        accepted = {each.header(b"apns-id") for each in self.apple.ledger.accepted()}
        delivered = {end.value: count for end, count in ends.items()}["delivered"]
        assert delivered == sum(call.delivered for call in self.calls) <= len(accepted)


def _refusal(debug: bytes) -> str | None:
    outcome = goaway_outcome(debug)
    return outcome.reason if isinstance(outcome, Misconfigured) else None


class SimulationTests(SynchronousTestCase):
    """Whatever happens, each push has one end, the books balance, and nobody is offended."""

    def play(self, seed: int, *, stopped_early: bool) -> Any:
        """Play one seed; say which it was if it fails."""
        storm = Storm(seed)
        try:
            storm.storm()
            if not stopped_early:
                storm.clear_up()
                self.assertEqual(storm.lane.waiting, 0, "fine weather, and pushes still wait")
            storm.stop()
            storm.judge()
            self.assertEqual(storm.clock.getDelayedCalls(), [])
        except BaseException:
            print(f"replay: Storm({seed}), stopped_early={stopped_early}")  # noqa: T201
            raise

    def test_storms_pass(self) -> None:
        """After the storm everything is delivered, or ended in a way that was promised."""
        for seed in SEEDS:
            self.play(seed, stopped_early=False)

    def test_a_stop_in_the_storm(self) -> None:
        """A stop in bad weather ends everything in time, and leaves no timer behind."""
        for seed in SEEDS:
            self.play(1_000 + seed, stopped_early=True)
