"""The bounded, fair queue toward one provider, and its patience with it.

Takes pushes, gives them to links that have room, and sees each to exactly one end. What answers
mean is the provider's to say (apns.py, fcm.py); how requests end is the link's.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from random import Random
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bouncerd.calls import Call
from bouncerd.caution import Caution
from bouncerd.endings import Answered, Ending, Lost
from bouncerd.fair import FairQueue, biggest_first
from bouncerd.http2 import Request, Response
from bouncerd.job import Job
from bouncerd.ledger import End, Ledger
from bouncerd.link import Link
from bouncerd.model import Delivered, Gone, Misconfigured, Outcome, Push, Refused
from bouncerd.patience import CUT_OFF_TWICE, Patience
from bouncerd.pool import Pool
from bouncerd.resting import Resting

log = Logger()

#: A rest shorter than this (seconds) is still the first attempt: the caller waits for it.
WORTH_WAITING = 1.0

Forget = Callable[[Push, Gone, float], "Deferred[None]"]


class Provider(Protocol):
    """What a lane must know of APNs or FCM; `session` is the provider's note on one connection."""

    name: str

    @property
    def ready(self) -> bool:
        """Whether requests can be built now (FCM: there is an access token)."""

    def session(self, now: float) -> Any:
        """Make the note on a connection that is ready."""

    def request(self, session: Any, push: Push, now: float) -> Request | Outcome:
        """Spell the push, or say without sending what would become of it."""

    def outcome(self, session: Any, push: Push, response: Response, now: float) -> Outcome:
        """Name what an answer says."""


class Lane:
    """One provider's queue. `limit`: how many pushes may wait; `keep_for`: how long, in seconds."""

    def __init__(
        self,
        provider: Provider,
        pool: Pool,
        clock: IReactorTime,
        now: Callable[[], float],
        random: Random,
        forget: Forget,
        *,
        limit: int,
        keep_for: float,
        patience: Patience,
    ) -> None:
        self.provider = provider
        self.pool = pool
        self.ledger = Ledger()
        self.reasons: Counter[tuple[str, str]] = Counter()
        self._clock = clock
        self._now = now
        self._random = random
        self._forget = forget
        self._limit = limit
        self._keep_for = keep_for
        self._patience = patience
        self._caution = Caution(provider.name, clock)
        self._queue: FairQueue[Job] = FairQueue()
        self._resting: Resting[Job] = Resting(clock, self._requeue)
        self._in_hand = 0
        self._could_send = True
        self._pumping = False
        self._sweep_call: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None
        self._stop_call: IDelayedCall | None = None
        self._stop_at = 0.0

    # --- what it is asked

    @property
    def name(self) -> str:
        """The configuration section it stands for."""
        return self.provider.name

    @property
    def ready(self) -> bool:
        """Whether a push could go now, were there room."""
        return self.pool.ready and self.provider.ready

    @property
    def waiting(self) -> int:
        """How many pushes have not ended, those in flight included."""
        return self._held + self._in_hand

    @property
    def _held(self) -> int:
        return len(self._queue) + len(self._resting)

    def can_take(self, server: str, count: int) -> bool:
        """Whether so many pushes of a server may be put; False means: come back later.

        A lane whose provider is down takes them and sheds others, so that one provider's outage
        does not stop the other's pushes. While others wait, no server holds over a quarter.
        """
        if self._stopped is not None:
            return False
        held = self._held
        if held + count > self._limit:
            return not held or not self.ready or len(self._resting) > len(self._queue)
        mine = self._queue.held(server)
        others_wait = self._queue.servers > (1 if mine else 0)
        return not (others_wait and self.ready and mine + count > self._limit / 4)

    def put(self, call: Call, pushes: Sequence[Push]) -> None:
        """Take a call's pushes (`can_take` was asked); each will end once."""
        excess = self._held + len(pushes) - self._limit
        shed = self._shed(min(excess, self._held))
        at, now = self._clock.seconds(), self._now()
        jobs = []
        for push in pushes:
            deadline = at + min(self._keep_for, push.expires_at - now)
            jobs.append(Job(self, push, call, deadline))
            self._queue.put(jobs[-1])
        self.ledger.accepted += len(jobs)
        self._end_all(shed, End.EXPIRED, "shed")
        self.pump()
        if not self.ready:
            for job in jobs:
                job.settle()
        if self._queue:
            self.pool.wake()
            self._sweep_soon()

    def stop(self, within: float) -> Deferred[None]:
        """Take nothing more and work off what waits; what is left after that is lost, and said so.

        What no link has seen, of callers who still wait, goes back to them.
        """
        if self._stopped is not None:
            return self._stopped
        stopped = self._stopped = Deferred()
        self._stop_at = self._clock.seconds() + within
        self._stop_call = self._clock.callLater(within, self._stop_now)
        returned = self._queue.remove(lambda job: job.call.returnable)
        for job in returned:
            job.call.returned = True
        self._end_all(returned, End.RETURNED, "stopping")
        self._lose(self._resting.remove(self._stop_at))
        self._check_stopped()
        return stopped

    # --- for its pool and its jobs

    def pump(self) -> None:
        """Give what waits to the links that have room."""
        could_send, self._could_send = self._could_send, self.provider.ready
        if could_send and not self._could_send:
            self.no_link()  # to the callers it is the same: what they wait for cannot be sent
        if self._pumping or not self._queue or not self._could_send:
            return
        self._pumping = True
        try:
            while self._queue:
                link = self.pool.pick()
                if link is None:
                    break
                for _ in range(min(link.free, len(self._queue))):
                    self._give(self._queue.take(), link)
                    if not self._queue:
                        break
        finally:
            self._pumping = False

    def no_link(self) -> None:
        """Let no caller wait for links to come back."""
        for job in list(self._queue):
            job.settle()

    def attempt_ended(self, job: Job, ending: Ending) -> None:
        """Take the ending of a job's request."""
        if isinstance(ending, Answered):
            self._answered(job, ending.response)
        elif isinstance(ending, Lost):
            job.cut_off += 1
            if job.cut_off == CUT_OFF_TWICE:
                self._end(job, End.UNKNOWN, ending.why)
            else:
                self._rest(job, self._patience.cut_off)
        elif ending.refused:
            job.refusals += 1
            self._rest(job, self._patience.refused_delay(job.refusals - 1, self._random))
        else:
            self._rest(job, 0.0)
        self._check_stopped()

    # --- within

    def _give(self, job: Job, link: Link) -> None:
        self._in_hand += 1
        job.in_hand = True
        if job.deadline <= self._clock.seconds():
            self._end(job, End.EXPIRED, "in the queue")
            return
        if wait := self._caution.wait(job.push):
            self._rest(job, wait * (1 + 0.25 * self._random.random()))
            return
        # Also for what turns out to need no sending: a device is forgotten as of this moment.
        now = job.sent_at = self._now()
        try:
            if link.session is None:
                link.session = self.provider.session(now)
            request = self.provider.request(link.session, job.push, now)
        except Exception:  # noqa: BLE001 -- one push that cannot be spelled must not stop the lane
            log.failure("Lane {lane} failed to build a request", lane=self.name)
            request = Refused("cannot be spelled")
        if not isinstance(request, Request):
            self._judge(job, request)
            return
        job.link = link
        job.call.given = True
        link.send(job, request)

    def _answered(self, job: Job, response: Response) -> None:
        link = job.link
        assert link is not None
        try:
            outcome = self.provider.outcome(link.session, job.push, response, self._now())
        except Exception:  # noqa: BLE001 -- an answer we fail to read is still an answer
            log.failure("Lane {lane} failed to read an answer", lane=self.name)
            outcome = Refused("unreadable answer")
        self._judge(job, outcome)

    def _judge(self, job: Job, outcome: Outcome) -> None:
        """Do what the outcome asks for."""
        if isinstance(outcome, Delivered | Gone | Refused):
            if job.link is not None and not job.link.useful:
                self.pool.link_useful(job.link)
            self._conclude(job, outcome)
            return
        self.reasons["retry", outcome.reason] += 1
        spoiled = outcome.spoiled
        if isinstance(outcome, Misconfigured):
            spoiled = self._caution.refused(job.push, outcome)
        if spoiled and job.link is not None:
            job.link.drain(outcome.reason)
        job.retries += 1
        self._rest(job, self._patience.delay(outcome, job.retries - 1, self._random))

    def _conclude(self, job: Job, outcome: Delivered | Gone | Refused) -> None:
        if job.link is not None:
            self._caution.judged(job.push, outcome)
        if isinstance(outcome, Delivered):
            job.call.delivered_one(job.push)
            self._end(job, End.DELIVERED)
        elif isinstance(outcome, Gone) and self._caution.keeps(job.push, outcome):
            self._end(job, End.GONE, outcome.reason)
        elif isinstance(outcome, Gone):
            self._gone(job, outcome)
        else:
            self._end(job, End.REFUSED, outcome.reason)

    def _gone(self, job: Job, gone: Gone) -> None:
        """End it; its caller waits until the device is forgotten, so that the reply can say so."""
        self._count(job, End.GONE, gone.reason)
        forgotten = maybeDeferred(self._forget, job.push, gone, job.sent_at)

        def failed(failure: Failure) -> None:
            log.failure("Lane {lane} failed to forget a device", failure, lane=self.name)

        forgotten.addErrback(failed)
        forgotten.addCallback(lambda _: job.settle())

    def _rest(self, job: Job, seconds: float) -> None:
        """Try again after so many seconds, if that is in time."""
        due = self._clock.seconds() + seconds
        if self._stopped is not None and (self._stop_call is None or due > self._stop_at):
            self._end(job, End.LOST, "stopped")
        elif due >= job.deadline:
            self._end(job, End.EXPIRED, "before its retry")
        elif seconds:
            self._put_down(job)
            self._resting.add(job, seconds)
            if seconds >= WORTH_WAITING:
                job.settle()
        else:
            self._requeue(job)

    def _requeue(self, job: Job) -> None:
        self._put_down(job)
        self._queue.put(job, first=True)
        if not self.ready:
            job.settle()
        self.pool.wake()
        self._sweep_soon()
        self.pump()

    def _shed(self, count: int) -> list[Job]:
        """Take out so many: each time the oldest of the server that holds most by then."""
        if count <= 0:
            return []
        resting = Counter(self._resting.counts())
        shed = []
        for server in islice(biggest_first(resting + Counter(self._queue.counts())), count):
            if resting[server]:
                resting[server] -= 1
                shed.append(self._resting.take(server))
            else:
                shed.append(self._queue.shed(server))
        return shed

    def _sweep_soon(self) -> None:
        if self._sweep_call is None:
            self._sweep_call = self._clock.callLater(1.0, self._sweep)

    def _sweep(self) -> None:
        """Once a second while something waits: end what waited too long, and stay connected."""
        self._sweep_call = None
        self._end_all(self._queue.expired(self._clock.seconds()), End.EXPIRED, "in the queue")
        if self._queue:
            self.pool.wake()
            self._sweep_soon()
        self._check_stopped()

    def _end(self, job: Job, end: End, reason: str = "") -> None:
        self._count(job, end, reason)
        job.settle()

    def _end_all(self, jobs: Iterable[Job], end: End, reason: str) -> None:
        """End them together: no caller hears of one while the others are in no book."""
        jobs = list(jobs)
        for job in jobs:
            self._count(job, end, reason)
        for job in jobs:
            job.settle()

    def _count(self, job: Job, end: End, reason: str) -> None:
        self._put_down(job)
        self.ledger.ends[end] += 1
        if reason:
            self.reasons[end.value, reason] += 1

    def _put_down(self, job: Job) -> None:
        """Let go of a job in the very step that queues, rests or counts it."""
        job.link = None
        if job.in_hand:
            job.in_hand = False
            self._in_hand -= 1

    def _check_stopped(self) -> None:
        if self._stopped is not None and not self.waiting:
            self._finish_stop()

    def _stop_now(self) -> None:
        self._lose([*self._queue.remove(lambda _job: True), *self._resting.remove()])
        self._finish_stop()

    def _finish_stop(self) -> None:
        """Say so; what is in flight still may end as its link's end has it."""
        for call in (self._stop_call, self._sweep_call):
            if call is not None and call.active():
                call.cancel()
        self._stop_call = self._sweep_call = None
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)

    def _lose(self, jobs: Sequence[Job]) -> None:
        """End what the stop leaves no time for."""
        self._end_all(jobs, End.LOST, "stopped")
        if jobs:
            log.error("Lane {lane} lost {count} pushes", lane=self.name, count=len(jobs))
