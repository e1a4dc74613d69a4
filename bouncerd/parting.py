"""How a lane comes to its end: a stop that has some time, or what waits goes to the next process.

What waits is handed on with the counts of what was tried. Clocks do not pass from one process to
another, so its times are wall times there.
"""

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from bouncerd.calls import Call
from bouncerd.job import Attempts, Job
from bouncerd.passing import Waiting


class Parting:
    """A stop under way: until when there is time, and who hears that it is over."""

    def __init__(self, clock: IReactorTime, within: float, time_up: Callable[[], None]) -> None:
        self.done: Deferred[None] = Deferred()
        self._until = clock.seconds() + within
        self._call = clock.callLater(within, time_up)

    @property
    def until(self) -> float:
        """When the time is up, in the clock's seconds; always past once it is over."""
        return self._until if self._call.active() else float("-inf")

    def finish(self) -> None:
        """Say that it is over."""
        if self._call.active():
            self._call.cancel()
        if not self.done.called:
            self.done.callback(None)


def passed(jobs: Iterable[tuple[Job, float]], ahead: float) -> list[Waiting]:
    """Return what the next process gets. `ahead`: unix time less the clock's seconds."""
    return [
        Waiting(job.push, job.deadline + ahead, due + ahead, job.retries, job.refusals, job.cut_off)
        for job, due in jobs
    ]


def taken_over(
    waiting: Iterable[Waiting], lane: Attempts, ahead: float, latest: float
) -> list[tuple[Job, float]]:
    """Return the jobs of what another process has left, and when (the clock's seconds) each is due.

    Nobody waits for them here. None is kept longer than one that comes now: `latest`.
    """
    nobody = Call(())
    jobs = []
    for each in waiting:
        job = Job(lane, each.push, nobody, min(each.deadline - ahead, latest))
        job.open = False
        job.retries, job.refusals, job.cut_off = each.retries, each.refusals, each.cut_off
        jobs.append((job, each.due - ahead))
    return jobs
