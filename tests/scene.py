"""One provider's lane, pool and links against its fake, in memory, on one clock.

What must hold is asked after every single event: the books balance. At the end they are held
against what was heard of each attempt, and against what the fake has seen.
"""

import contextlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from bouncerd.apns import goaway_outcome
from bouncerd.calls import Call, Saturated
from bouncerd.endings import Answered, Ending, Lost
from bouncerd.fakes.fcm import Fcm
from bouncerd.fakes.front import Front
from bouncerd.fakes.records import Received
from bouncerd.job import Job
from bouncerd.lane import Forget, Lane
from bouncerd.model import Device, Gone, Message, Misconfigured, Push
from bouncerd.patience import Patience
from bouncerd.pool import Pool
from bouncerd.routes import Routes
from tests.virtual import VirtualClock
from tests.wires import Network

if TYPE_CHECKING:
    from bouncerd.ledger import End

WALL = 1_800_000_000.0  # unix seconds when the clock says 0
APP = "org.example.app"
IN_FLIGHT_WITHIN = 5.0  # seconds at a hand-over
_ID = "{:08x}-0000-4000-8000-000000000000"


class WatchedLane(Lane):
    """A lane that writes down how each attempt ended, and when it was sent and ended."""

    scene: "Scene"

    def attempt_ended(self, job: Job, ending: Ending) -> None:
        """Write it down."""
        self.scene.heard[job.push.id].append(ending)
        self.scene.times[job.push.id].append((job.sent_at - WALL, self._clock.seconds()))
        super().attempt_ended(job, ending)


class Scene:
    """A fake and, one after the other, the processes that send to it.

    `tls` (the client's options, the server's context) makes the connections real TLS.
    """

    front: Front
    patience: Patience

    def __init__(self, seed: int = 0, *, tls: tuple[Any, Any] | None = None) -> None:
        self.random = Random(seed)
        self.clock = self.build_clock()
        self.front = self.build_front(seed)
        self.front.ledger.one_client = True
        self.network = self.build_network(tls)
        self.heard: defaultdict[str, list[Ending]] = defaultdict(list)
        self.times: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self.ends: defaultdict[str, list[str]] = defaultdict(list)
        self.retries: Counter[str] = Counter()
        self.calls: list[Call] = []
        self.forgotten: list[tuple[str, str, float]] = []
        self.failures: list[Any] = []
        self.excuses: set[str] = set()
        self.store: Forget | None = None  # a real one's way to forget
        self.slow_store = 0.0  # of its answers, the share that is late
        self.accepted = 0
        self._numbers = itertools.count()
        self.lanes: list[WatchedLane] = []  # the last is the one of now
        self.pool = self.build_pool()
        self.open_lane()
        self.clock.watch = self.check

    # --- what differs between providers, and where there are sockets

    def build_clock(self) -> Any:
        """Make the clock."""
        return VirtualClock()

    def build_network(self, tls: tuple[Any, Any] | None) -> Any:
        """Make the way to the fake."""
        return Network(self.clock, self.random, self.front, tls)

    def build_front(self, seed: int) -> Front:
        """Make the fake."""
        raise NotImplementedError

    def build_pool(self) -> Pool:
        """Make a pool to the fake."""
        raise NotImplementedError

    def build_provider(self) -> Any:
        """Make the provider."""
        raise NotImplementedError

    def build_lane(self) -> WatchedLane:
        """Make a lane that uses the pool of now."""
        raise NotImplementedError

    def build_routes(self) -> Routes:
        """Make routes of one lane."""
        raise NotImplementedError

    def message(self, body: bytes = b"{}") -> Message:
        """Make something to send."""
        raise NotImplementedError

    def identity(self, received: Received) -> str:
        """Find the push that a request was for."""
        raise NotImplementedError

    # --- what a process does

    @property
    def lane(self) -> WatchedLane:
        """The lane of now."""
        return self.lanes[-1]

    def open_lane(self) -> None:
        """Begin with a lane; it is not started."""
        self.lanes.append(self.build_lane())
        self.lane.scene = self
        self.routes = self.build_routes()

    def start(self) -> None:
        """Connect."""
        self.pool.start(self.lane)

    def now(self) -> float:
        """Tell the wall time."""
        seconds: float = self.clock.seconds()
        return WALL + seconds

    def note(self, push: Push, kind: str, reason: str) -> None:
        """Be told of each retry and each end."""
        if kind == "retry":
            self.retries[reason] += 1
        else:
            self.ends[push.id].append(kind)

    def forget(self, push: Push, gone: Gone, sent_at: float) -> "Deferred[None]":
        """Be a store, prompt or slow."""
        self.forgotten.append((push.id, gone.reason, sent_at))
        if self.store is not None:
            return self.store(push, gone, sent_at)
        if self.random.random() >= self.slow_store:
            return succeed(None)
        forgotten: Deferred[None] = Deferred()
        self.clock.callLater(0.3, forgotten.callback, None)
        return forgotten

    def push(
        self,
        server: str = "s",
        message: Message | None = None,
        lasts: float = 600.0,
        app: str = APP,
    ) -> Push:
        """Make a push with an id and a device of its own."""
        number = next(self._numbers)
        message = self.message() if message is None else message
        device = Device(number, message.kind, f"{number:08x}", app, 0.0, user_id=5)
        return Push(_ID.format(number), server, device, message, self.now() + lasts)

    def admit(self, server: str, pushes: Sequence[Push]) -> Call | None:
        """Bring one call; None if there is no room for it."""
        call = None
        with contextlib.suppress(Saturated):
            call = self.routes.admit(server, pushes)
            self.accepted += len(pushes)
            self.calls.append(call)
            call.settled.addErrback(self.failures.append)
        self.check()
        return call

    def send(self, count: int = 1, server: str = "s", **others: Any) -> list[Push]:
        """Bring a call of so many pushes, which there must be room for."""
        pushes = [self.push(server, **others) for _ in range(count)]
        assert self.admit(server, pushes) is not None
        return pushes

    def hand_over(self) -> None:
        """Leave what waits to another process, which takes a second to come."""
        self.excuses.add("401 retried more than once")  # it has other access tokens
        old, pool = self.lane, self.pool
        self.routes.closed = True
        old.pause()
        by = self.clock.seconds() + IN_FLIGHT_WITHIN
        while old.in_flight and self.clock.seconds() < by:
            self.clock.advance(0.25)
        old.withdraw_all()
        waiting = old.to_pass_on()
        old.passed_on()
        assert old.stop(0.0).called
        assert not old.waiting
        pool.stop()
        self.clock.advance(1.0)
        self.pool = self.build_pool()
        self.open_lane()
        self.routes.take_over(waiting)
        self.start()

    def adopt(self) -> None:
        """Have a reload bring other connections."""
        self.excuses.add("401 retried more than once")  # and other credentials
        if isinstance(self.front, Fcm):
            self.front.mended()
        before, self.pool = self.pool, self.build_pool()
        self.pool.follow(before)
        assert self.lane.adopt(self.build_provider(), self.pool, self.patience) is before
        before.retire()

    def stop(self, within: float = 10.0) -> None:
        """Stop, as the daemon does where nothing can be handed over."""
        stopped = self.lane.stop(within)
        self.check()
        self.clock.advance(within + 0.1)
        assert stopped.called, "the lane has not stopped"
        gone = self.pool.stop()
        self.clock.advance(130.0)
        assert gone.called, "the links have not gone"
        left = self.clock.getDelayedCalls()
        assert not left, [str(call) for call in left]

    # --- what must hold

    def check(self) -> None:
        """Hold the books against the queue: after every event."""
        for lane in self.lanes:
            ledger, waiting = lane.ledger, lane.waiting
            assert ledger.waiting() == waiting, f"{ledger} but {waiting} wait"

    def judge(self) -> None:
        """Hold what was promised against what the fake has seen."""
        assert not self.failures, self.failures[0].getTraceback()
        assert not any(lane.waiting for lane in self.lanes)
        assert all(call.settled.called for call in self.calls), "a caller still waits"
        self.judge_ends()
        self.judge_attempts()
        broken = [each for each in self.front.ledger.violations if each.rule not in self.excuses]
        assert not broken, broken

    def totals(self) -> Counter[str]:
        """Count the ends of all pushes; those that went on in another process have none there."""
        last = [ends[-1] for ends in self.ends.values()]
        return Counter(last)

    def judge_ends(self) -> None:
        """Each push has one end, and what is said to be delivered is."""
        for identity, ends in self.ends.items():
            passed, (end,) = ends[:-1], ends[-1:]
            assert set(passed) <= {"handed_over"}, (identity, ends)
            assert end != "handed_over", (identity, ends)
        assert len(self.ends) == self.accepted, (len(self.ends), self.accepted)
        books: Counter[End] = Counter()
        for lane in self.lanes:
            books.update(lane.ledger.ends)
        noted = Counter(end for ends in self.ends.values() for end in ends)
        assert {end.value: count for end, count in books.items() if count} == noted
        shown = {self.identity(each) for each in self.front.ledger.accepted()}
        for identity, ends in self.ends.items():
            assert ends[-1] != "delivered" or identity in shown, identity
            unknown = cut_off(self.heard[identity]) == 2
            assert (ends[-1] == "unknown") == unknown, (identity, ends, self.heard[identity])

    def judge_attempts(self) -> None:
        """A phone sees a push again only where nobody could know that it had seen it."""
        shown = Counter(self.identity(each) for each in self.shown())
        for identity, count in shown.items():
            endings = self.heard[identity]
            assert count <= 1 + cut_off(endings), (identity, count, endings)
        for identity, endings in self.heard.items():
            assert cut_off(endings) <= 2, (identity, endings)
            good = [each for each in endings if delivered(each)]
            assert not good or (len(good) == 1 and endings[-1] is good[0]), (identity, endings)

    def shown(self) -> list[Received]:
        """List what phones have seen: not what a GOAWAY called untouched, of a server that lies."""
        visits = self.front.ledger.visits
        left = {visit.number: min(visit.goaway_sent, default=2**31) for visit in visits}
        accepted = self.front.ledger.accepted()
        return [each for each in accepted if each.stream <= left[each.connection]]


def cut_off(endings: Sequence[Ending]) -> int:
    """Count the attempts of which nobody knows what became."""
    return sum(isinstance(each, Lost) for each in endings)


def delivered(ending: Ending) -> bool:
    """Say whether a provider has said yes."""
    return isinstance(ending, Answered) and ending.response.status == 200


def refusal(debug: bytes) -> str | None:
    """Read a GOAWAY's debug data for "the credential is bad"."""
    outcome = goaway_outcome(debug)
    return outcome.reason if isinstance(outcome, Misconfigured) else None
