"""Attempts: a push is given to a link, and what comes of it is judged.

What answers mean is the provider's to say (apns.py, fcm.py); how requests end is the link's; what
becomes of the push then is the lane's.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bouncerd.endings import Answered, Ending, Lost
from bouncerd.fair import FairQueue
from bouncerd.http2 import Request, Response
from bouncerd.job import Job
from bouncerd.ledger import End
from bouncerd.link import Link
from bouncerd.merging import MOST_TOGETHER, merged
from bouncerd.model import About, Delivered, Gone, Misconfigured, Outcome, Push, Refused, Retry
from bouncerd.patience import CUT_OFF_TWICE, Patience
from bouncerd.pool import Pool
from bouncerd.restraint import Restraint

log = Logger()

_ON_ITS_MERITS = (Delivered, Gone, Refused)
#: Pushes in flight of all servers on probation together; each has one at most.
MOST_ON_PROBATION = 8


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

    def goodbye(self, debug: bytes) -> Retry | Misconfigured | None:
        """Say what a GOAWAY's debug data mean for us; None: nothing."""


class Keeper(Protocol):
    """Whose pushes are tried: the lane."""

    def pump(self) -> None:
        """Have more tried."""

    def end(self, job: Job, end: End, reason: str = "") -> None:
        """Count the end of a push, and let its caller go."""

    def gone(self, job: Job, gone: Gone) -> None:
        """End it and have its device forgotten."""

    def retry(self, job: Job, seconds: float, reason: str) -> None:
        """Count a retry, and try again after so many seconds if that is in time."""

    def rest(self, job: Job, seconds: float) -> None:
        """Try again likewise what was not sent."""

    def hurry(self, app: str) -> None:
        """Have those tried soon that wait because their app was refused."""


@dataclass(slots=True)
class Tie:
    """Whose a link is: its pushes are judged by who sent them, also after a reload."""

    provider: Provider
    pool: Pool
    session: Any
    restraint: Restraint
    parted: bool = False  # its GOAWAY was heeded


class Tries:
    """The pushes of one lane that a link has, or that are being judged; taken from its queue."""

    def __init__(
        self,
        provider: Provider,
        pool: Pool,
        queue: FairQueue[Job],
        clock: IReactorTime,
        now: Callable[[], float],
        random: Random,
        patience: Patience,
        keeper: Keeper,
    ) -> None:
        self.provider = provider
        self.pool = pool
        self.patience = patience
        self.in_hand: dict[Job, None] = {}
        self._queue = queue
        self._clock = clock
        self._now = now
        self._random = random
        self._keeper = keeper
        self._restraint = Restraint(provider.name, patience, clock, keeper.pump)
        self.most_on_probation = MOST_ON_PROBATION
        self._on_probation = 0  # of what is in hand
        self._in_line: deque[str] = deque()  # servers on probation, when too many are

    @property
    def ready(self) -> bool:
        """Whether a push could go now, were there room."""
        return self.pool.ready and self.provider.ready and not self._restraint.shut

    @property
    def can_send(self) -> bool:
        """Whether it is up to the links alone."""
        return self.provider.ready and not self._restraint.held

    def adopt(self, provider: Provider, pool: Pool, patience: Patience) -> Pool:
        """Send by another provider and pool from now on; return the old pool."""
        before, self.pool = self.pool, pool
        self.provider, self.patience = provider, patience
        self._restraint.stop()
        for server in self._in_line:
            self._queue.unpark(server)
        self._in_line.clear()
        self._restraint = Restraint(provider.name, patience, self._clock, self._keeper.pump)
        return before

    def stop(self) -> None:
        """Let go of the clock."""
        self._restraint.stop()

    def pump(self) -> None:
        """Give what waits to the links that have room."""
        queue = self._queue
        while queue:
            link = self.pool.pick()
            if link is None:
                return
            room = self._restraint.room(link, min(link.free, len(queue)))
            if room <= 0:
                return
            for _ in range(room):
                job = queue.take()
                if job is None:
                    return
                self._give(job, link)

    def out(self) -> None:
        """Take note if something waits because there is no link."""
        if not self.pool.ready:
            self._restraint.out()

    def look(self) -> None:
        """Look, now and then, why something waits; tell the operator if it is our credential."""
        self.out()
        self._next_in_line()
        if self.pool.refused:
            self._restraint.caution.alert(self.pool.refused)

    def withdraw_all(self) -> None:
        """Give up what links have: each push ends as its link says, now."""
        for job in reversed(list(self.in_hand)):  # as after a loss: the oldest goes first again
            if job.link is not None:
                job.link.withdraw(job)

    def put_down(self, job: Job) -> None:
        """Let go of a job in the very step that queues, rests or counts it."""
        job.link = None
        self.in_hand.pop(job, None)
        if job.on_probation:
            job.on_probation = False
            self._on_probation -= 1
            self._queue.unpark(job.server)
            self._next_in_line()

    def _next_in_line(self) -> None:
        """Let servers on probation have a turn, as many as there is room for."""
        room = self.most_on_probation - self._on_probation
        while self._in_line and room > 0:
            server = self._in_line.popleft()
            self._queue.unpark(server)
            room -= self._queue.held(server) > 0  # what it had may have ended otherwise

    # --- giving

    def _give(self, job: Job, link: Link) -> None:
        if job.call.returned:  # by the stop of another lane, or while it rested
            self._keeper.end(job, End.RETURNED, "stopping")
            return
        probation = self._restraint.caution.probation
        if probation and probation.on(job.server):
            if self._on_probation >= self.most_on_probation:
                self._queue.give_back(job)
                self._queue.park(job.server)
                self._in_line.append(job.server)
                return
            job.on_probation = True
            self._on_probation += 1
            self._queue.park(job.server)
            link = self.pool.pick_apart() or link
        self.in_hand[job] = None
        if job.deadline <= self._clock.seconds():
            self._keeper.end(job, End.EXPIRED, "in the queue")
        elif wait := self._restraint.wait(job.push):
            job.refused = self._restraint.refuses(job.push)
            self._keeper.rest(job, wait * (1 + 0.25 * self._random.random()))
        else:
            self._send(job, link)

    def _send(self, job: Job, link: Link) -> None:
        # Also for what turns out to need no sending: a device is forgotten as of this moment.
        now = job.sent_at = self._now()
        push = job.push if job.urgent else self._merged(job)
        try:
            tie = link.session
            if not isinstance(tie, Tie):
                session = self.provider.session(now)
                tie = Tie(self.provider, self.pool, session, self._restraint)
                link.session = tie
            request = tie.provider.request(tie.session, push, now)
        except Exception:  # noqa: BLE001 -- one push that cannot be spelled must not stop the lane
            log.failure("Lane {lane} failed to build a request", lane=self.provider.name)
            request = Refused("cannot be spelled")
        if not isinstance(request, Request):
            self._judge_all(job, request, self._restraint)
            return
        job.link, job.refused = link, False
        job.call.given = True
        for mate in job.mates:
            mate.call.given = True
        if self._restraint.paced:
            self._restraint.sent(push)
        link.send(job, request)

    def _merged(self, job: Job) -> Push:
        """Return the push with those of its device that can go along; they are in hand with it."""
        mates = [] if job.alone else self._queue.mates(job, MOST_TOGETHER - 1)
        at = self._clock.seconds()
        mates = [
            mate
            for mate in mates
            if mate.deadline > at and not mate.alone and not mate.call.returned
        ]
        found = merged([each.push.message for each in (job, *mates)]) if mates else None
        if found is None:
            return job.push
        message, places = found
        job.mates = [mates[place - 1] for place in places[1:]]
        self._queue.take_mates(job, job.mates)
        for mate in job.mates:
            self.in_hand[mate] = None
            mate.sent_at = job.sent_at
        return replace(job.push, message=message)

    # --- what comes of it

    def ended(self, job: Job, ending: Ending) -> None:
        """Take the ending of a job's request."""
        if isinstance(ending, Answered):
            self._answered(job, ending.response)
            return
        link, mates = job.link, job.mates
        job.mates = ()
        if link is not None and link.goaway is not None:
            self._heed(link, link.goaway.debug)
        for each in (*reversed(mates), job):
            self._cut_short(each, ending)

    def _cut_short(self, job: Job, ending: Ending) -> None:
        if isinstance(ending, Lost):
            job.cut_off += 1
            if job.cut_off == CUT_OFF_TWICE:
                self._keeper.end(job, End.UNKNOWN, ending.why)
            else:
                self._keeper.retry(job, self.patience.cut_off, "cut off")
        elif not isinstance(ending, Answered) and ending.refused:
            job.refusals += 1
            self._keeper.rest(job, self.patience.refused_delay(job.refusals - 1, self._random))
        else:
            self._keeper.rest(job, 0.0)

    def _heed(self, link: Link, debug: bytes) -> None:
        """Learn from why a server has ended a link; once for each."""
        tie = link.session
        if not isinstance(tie, Tie) or tie.parted:
            return
        tie.parted = True
        said = tie.provider.goodbye(debug)
        if isinstance(said, Misconfigured):
            tie.restraint.caution.alert(said.reason)
        elif said is not None and said.about is About.STREAMS:
            tie.restraint.crowded(sum(job.link is link for job in self.in_hand))

    def _answered(self, job: Job, response: Response) -> None:
        link = job.link
        assert link is not None
        tie = link.session
        assert isinstance(tie, Tie)
        try:
            outcome = tie.provider.outcome(tie.session, job.push, response, self._now())
        except Exception:  # noqa: BLE001 -- an answer we fail to read is still an answer
            log.failure("Lane {lane} failed to read an answer", lane=self.provider.name)
            outcome = Refused("unreadable answer")
        if isinstance(outcome, _ON_ITS_MERITS):
            if not link.useful:
                tie.pool.link_useful(link)
            closed = tie.restraint.judged(job.push, outcome)
            if closed and tie.restraint is self._restraint:
                self._keeper.hurry(job.push.device.app_id or "")
        if job.mates:
            self._judge_all(job, outcome, tie.restraint)
        else:
            self._judge(job, outcome, tie.restraint)

    def _judge_all(self, job: Job, outcome: Outcome, restraint: Restraint) -> None:
        """Judge a push, and those that went along."""
        mates, job.mates = job.mates, ()
        for each in (*reversed(mates), job):
            if mates and isinstance(outcome, Refused):  # perhaps only because they were merged
                each.alone = True
                self._keeper.retry(each, 0.0, outcome.reason)
            else:
                self._judge(each, outcome, restraint)

    def _judge(self, job: Job, outcome: Outcome, restraint: Restraint) -> None:
        """Do what the outcome asks for. `restraint`: what learns from it, of its link's time."""
        if isinstance(outcome, Delivered):
            job.call.delivered_one(job.push)
            self._keeper.end(job, End.DELIVERED)
        elif isinstance(outcome, Refused):
            self._keeper.end(job, End.REFUSED, outcome.reason)
        elif not isinstance(outcome, Gone):
            self._try_again(job, outcome, restraint)
        elif restraint.caution.keeps(job.push, outcome):
            self._keeper.end(job, End.GONE, outcome.reason)
        else:
            self._keeper.gone(job, outcome)

    def _try_again(self, job: Job, outcome: Retry | Misconfigured, restraint: Restraint) -> None:
        least = 0.0
        if job.link is not None:  # not one that only went along, or was not sent
            spoiled = outcome.spoiled
            if isinstance(outcome, Misconfigured):
                spoiled = restraint.caution.refused(job.push, outcome)
            else:
                least = restraint.asked(job.push, outcome, job.link)
            if spoiled:
                job.link.drain(outcome.reason)
        job.retries += 1
        job.refused = isinstance(outcome, Misconfigured)
        delay = self.patience.delay(outcome, job.retries - 1, self._random)
        if least > delay:
            delay = least * (1 + 0.25 * self._random.random())
        self._keeper.retry(job, delay, outcome.reason)
