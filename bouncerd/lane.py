"""The bounded, fair queue toward one provider, and its patience with it.

Takes pushes, gives them to links that have room, and sees each to exactly one end. What waits is
in its stock, attempts are in trying.py, and the end of a lane itself is in parting.py.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bouncerd.calls import Call
from bouncerd.endings import Ending
from bouncerd.job import Job
from bouncerd.ledger import End, Ledger
from bouncerd.model import Gone, Push
from bouncerd.parting import Parting, passed, taken_over
from bouncerd.passing import Waiting
from bouncerd.patience import Patience
from bouncerd.pool import Pool
from bouncerd.seldom import Seldom
from bouncerd.stock import Stock
from bouncerd.trying import Provider, Tries

__all__ = ["Forget", "Lane", "Note", "Provider"]

log = Logger()

#: A rest shorter than this (seconds) is still the first attempt: the caller waits for it.
WORTH_WAITING = 1.0
#: Seconds after which pushes are tried that have waited for the operator, when he has acted: not
#: sooner than Google wants any repetition (fcm.md 4.3), and not all at once.
HURRY_AFTER, HURRY_WITHIN = 10.0, 15.0

Forget = Callable[[Push, Gone, float], "Deferred[None]"]
#: Hears of each end (`End.value`) and each "retry", with its reason. Cheap, and never raises.
Note = Callable[[Push, str, str], None]


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
        note: Note | None = None,
    ) -> None:
        self.ledger = Ledger()
        self.reasons: Counter[tuple[str, str]] = Counter()
        self._clock = clock
        self._now = now
        self._forget = forget
        self._keep_for = keep_for
        self._note = note
        self._stock = Stock(clock, self._requeue, limit)
        self._tries = Tries(provider, pool, self._stock.queue, clock, now, random, patience, self)
        self._random = random
        self._alerts = Seldom()
        self._could_send = True
        self._pumping = False
        self._paused = self._passing = False
        self._sweep_call: IDelayedCall | None = None
        self._pump_call: IDelayedCall | None = None
        self._parting: Parting | None = None

    # --- what it is asked

    @property
    def name(self) -> str:
        """The configuration section it stands for."""
        return self._tries.provider.name

    @property
    def provider(self) -> Provider:
        """By whose rules it sends."""
        return self._tries.provider

    @property
    def pool(self) -> Pool:
        """The links it sends by."""
        return self._tries.pool

    @property
    def ready(self) -> bool:
        """Whether a push could go now, were there room."""
        return self._tries.ready

    @property
    def waiting(self) -> int:
        """How many pushes have not ended, those in flight included."""
        return len(self._stock) + len(self._tries.in_hand)

    @property
    def in_flight(self) -> int:
        """How many pushes a link has, or are being judged."""
        return len(self._tries.in_hand)

    def oldest_age(self) -> float:
        """Return how long (seconds) the oldest has waited that has no link; 0.0 if none waits."""
        now = self._clock.seconds()
        return now - min((job.since for job, _ in self._stock.waiting()), default=now)

    def can_take(self, server: str, count: int) -> bool:
        """Whether so many pushes of a server may be put (see `Stock.can_take`)."""
        return self._parting is None and self._stock.can_take(server, count, ready=self.ready)

    def put(self, call: Call, pushes: Sequence[Push]) -> None:
        """Take a call's pushes (`can_take` was asked); each will end once."""
        shed = self._stock.make_room(len(pushes))
        at, now = self._clock.seconds(), self._now()
        jobs = []
        for push in pushes:
            deadline = at + min(self._keep_for, push.expires_at - now)
            job = Job(self, push, call, deadline)
            job.since = at
            jobs.append(job)
            self._stock.queue.put(job)
        self.ledger.accepted += len(jobs)
        self._shed(shed)
        self.pump()
        if not self.ready:
            self._tries.out()
            for job in jobs:
                job.settle()
        self._look_after()

    def resize(self, *, limit: int, keep_for: float) -> None:
        """Hold so many from now on, and each for so long (seconds) from now on."""
        self._stock.limit, self._keep_for = limit, keep_for
        latest = self._clock.seconds() + keep_for
        for job, _ in self._stock.waiting():
            job.deadline = min(job.deadline, latest)
        self._shed(self._stock.make_room(0))

    def adopt(self, provider: Provider, pool: Pool, patience: Patience) -> Pool:
        """Send by another provider and (not yet started) pool from now on; return the old pool.

        What is in flight on the old one's links is judged by the old provider. Whoever asked lets
        the old pool finish.
        """
        before = self._tries.adopt(provider, pool, patience)
        pool.start(self)
        self.hurry()
        self.pump()
        self._look_after()
        return before

    # --- its end

    def stop(self, within: float) -> Deferred[None]:
        """Take nothing more and work off what waits; what is left after that is lost, and said so.

        What no link has seen, of callers who still wait, goes back to them.
        """
        if self._parting is not None:
            return self._parting.done
        parting = self._parting = Parting(self._clock, within, self._time_up)
        self._paused = self._passing = False
        returned = self._stock.queue.remove(lambda job: job.call.returnable)
        for job in returned:
            job.call.returned = True
        self._end_all(returned, End.RETURNED, "stopping")
        self._lose(self._stock.resting.remove(parting.until))
        self.pump()
        self._check_parted()
        return parting.done

    def pause(self) -> None:
        """Give nothing more to links; what waits stays, and more is taken. For a hand-over."""
        self._paused = True

    def go_on(self) -> None:
        """Give to links again: the hand-over came to nothing."""
        self._paused = self._passing = False
        self.pump()

    def withdraw_all(self) -> None:
        """Give up what is in flight: it was cut off, or has never left; it ends so, or rests."""
        self._tries.withdraw_all()

    def to_pass_on(self) -> list[Waiting]:
        """Return what waits, for the next process; nothing changes here. It must be paused."""
        assert self._paused, "what is passed on must not be sent here, too"
        self._passing = True
        return passed(self._stock.waiting(), self._now() - self._clock.seconds())

    def passed_on(self) -> None:
        """Hear that the next process has all of it: it ends here, and callers need not wait."""
        self._end_all(self._stock.remove_all(), End.HANDED_OVER, "")

    def take_over(self, waiting: Sequence[Waiting]) -> None:
        """Go on with what another process has left; what comes too late ends at once."""
        at = self._clock.seconds()
        jobs = taken_over(waiting, self, self._now() - at, at + self._keep_for)
        self.ledger.taken_over += len(jobs)
        late = []
        for job, due in reversed(jobs):  # each in front: it is older than what has come since
            job.since = at
            if self._parting is not None or job.deadline <= max(at, due):
                late.append(job)
            elif due > at:
                self._stock.resting.add(job, due - at)
            else:
                self._stock.queue.put(job, first=True)
        if self._parting is not None:
            self._lose(late)
        else:
            self._end_all(late, End.EXPIRED, "taken over too late")
        self._shed(self._stock.make_room(0))
        self.pump()
        self._look_after()

    # --- for its pool

    def pump(self) -> None:
        """Give what waits to the links that have room."""
        could_send, self._could_send = self._could_send, self._tries.can_send
        if could_send and not self._could_send:
            self.no_link()  # to the callers it is the same: what they wait for cannot be sent
        if self._pumping or self._paused or not self._could_send:
            return
        self._pumping = True
        try:
            self._tries.pump()
        finally:
            self._pumping = False
        if self._parting is not None:
            self._check_parted()

    def no_link(self) -> None:
        """Let no caller wait for links to come back."""
        if self.ready:
            return  # it was an old pool's last one, after a reload
        if self._stock.queue:
            self._tries.out()
        for job in list(self._stock.queue):
            job.settle()

    # --- for its jobs and attempts

    def attempt_ended(self, job: Job, ending: Ending) -> None:
        """Take the ending of a job's request."""
        self._tries.ended(job, ending)
        if self._parting is not None:
            self._check_parted()

    def end(self, job: Job, end: End, reason: str = "") -> None:
        """Count the end of a push, and let its caller go."""
        self._count(job, end, reason)
        job.settle()

    def gone(self, job: Job, gone: Gone) -> None:
        """End it; its caller waits until the device is forgotten, so that the reply can say so."""
        self._count(job, End.GONE, gone.reason)
        forgotten = maybeDeferred(self._forget, job.push, gone, job.sent_at)

        def failed(failure: Failure) -> None:
            log.failure("Lane {lane} failed to forget a device", failure, lane=self.name)

        forgotten.addErrback(failed)
        forgotten.addCallback(lambda _: job.settle())

    def retry(self, job: Job, seconds: float, reason: str) -> None:
        """Count a retry, and try again after so many seconds if that is in time."""
        self.reasons["retry", reason] += 1
        if self._note is not None:
            self._note(job.push, "retry", reason)
        self.rest(job, seconds)

    def rest(self, job: Job, seconds: float) -> None:
        """Try again after so many seconds, if that is in time."""
        due = self._clock.seconds() + seconds
        if self._parting is not None and due > self._parting.until:
            self.end(job, End.LOST, "stopped")
        elif due >= job.deadline:
            self.end(job, End.EXPIRED, "before its retry")
        elif seconds:
            self._tries.put_down(job)
            self._stock.resting.add(job, seconds)
            if seconds >= WORTH_WAITING:
                job.settle()
        else:
            self._requeue(job)

    def hurry(self, app: str | None = None) -> None:
        """Try soon what was refused with its app, which works again; None: with any."""

        def wanted(job: Job) -> bool:
            return job.refused and app in (None, job.push.device.app_id or "")

        self._stock.resting.hurry(wanted, HURRY_AFTER, HURRY_WITHIN, self._random)

    # --- within

    def _requeue(self, job: Job) -> None:
        self._tries.put_down(job)
        self._stock.queue.put(job, first=True)
        if not self.ready:
            job.settle()
        self._look_after()
        if self._pump_call is None:  # not each at once: the oldest of those that go again is last
            self._pump_call = self._clock.callLater(0, self._pump_now)

    def _pump_now(self) -> None:
        self._pump_call = None
        self.pump()

    def _look_after(self) -> None:
        """Have what waits sent some time, or ended when its time is up."""
        if self._stock.queue:
            self.pool.wake()
            if self._sweep_call is None:
                self._sweep_call = self._clock.callLater(1.0, self._sweep)

    def _sweep(self) -> None:
        """Once a second while something waits: end what waited too long, and stay connected."""
        self._sweep_call = None
        if not self._passing:  # else another process may have it already, and sees to its end
            late = self._stock.queue.expired(self._clock.seconds())
            self._end_all(late, End.EXPIRED, "in the queue")
        self._tries.look()
        self.pump()  # whatever should have had it done
        self._look_after()

    def _end_all(self, jobs: Iterable[Job], end: End, reason: str) -> None:
        """End them together: no caller hears of one while the others are in no book."""
        jobs = list(jobs)
        for job in jobs:
            self._count(job, end, reason)
        for job in jobs:
            job.settle()
        if self._parting is not None:
            self._check_parted()

    def _count(self, job: Job, end: End, reason: str) -> None:
        self._tries.put_down(job)
        self.ledger.ends[end] += 1
        if reason:
            self.reasons[end.value, reason] += 1
        if self._note is not None:
            self._note(job.push, end.value, reason)

    def _shed(self, jobs: Sequence[Job]) -> None:
        """End what there is no room for."""
        self._end_all(jobs, End.EXPIRED, "shed")
        if jobs and self._alerts.due("shed", self._clock.seconds()):
            log.error(
                "Lane {lane} is full: {count} pushes were given up, more may follow",
                lane=self.name,
                count=len(jobs),
                alert="lane-shedding",
            )

    def _lose(self, jobs: Sequence[Job]) -> None:
        """End what the stop leaves no time for; callers who were told so keep theirs."""
        self._end_all([job for job in jobs if job.call.returned], End.RETURNED, "stopping")
        jobs = [job for job in jobs if not job.call.returned]
        self._end_all(jobs, End.LOST, "stopped")
        if jobs:
            log.error(
                "Lane {lane} lost {count} pushes",
                lane=self.name,
                count=len(jobs),
                alert="pushes-lost",
            )

    def _time_up(self) -> None:
        self._lose(self._stock.remove_all())
        self._check_parted(at_once=True)

    def _check_parted(self, *, at_once: bool = False) -> None:
        """Say when it is over; what is in flight still may end as its link's end has it."""
        if self._parting is None or (self.waiting and not at_once):
            return
        for call in (self._sweep_call, self._pump_call):
            if call is not None:
                call.cancel()
        self._sweep_call = self._pump_call = None
        self._tries.stop()
        self._parting.finish()
