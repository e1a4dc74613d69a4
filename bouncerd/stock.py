"""What waits in a lane: queued for its turn, or resting until its next attempt. Bounded."""

from collections.abc import Callable, Iterator
from heapq import nlargest
from itertools import islice
from operator import itemgetter

from twisted.internet.interfaces import IReactorTime

from bouncerd.fair import FairQueue, biggest_first
from bouncerd.job import Job
from bouncerd.resting import Resting

#: The part of a full lane that is shed together: who holds most is not looked for at each push.
_SHED_PART = 100


class Stock:
    """`limit`: how many pushes may wait. `wake` gets each whose rest is over."""

    def __init__(self, clock: IReactorTime, wake: Callable[[Job], None], limit: int) -> None:
        self.limit = limit
        self.queue: FairQueue[Job] = FairQueue()
        self.resting: Resting[Job] = Resting(clock, wake)

    def __len__(self) -> int:
        return len(self.queue) + len(self.resting)

    def can_take(self, server: str, count: int, *, ready: bool) -> bool:
        """Whether so many pushes of a server may be put; False means: come back later.

        A lane whose provider is down takes them and sheds others, so that one provider's outage
        does not stop the other's pushes; so does one that is full of what may not go now, though
        there are links. While others wait, no server holds over a quarter.
        """
        held = len(self)
        if held + count > self.limit:
            kept_back = len(self.resting) + self.queue.held_back
            return not held or not ready or 2 * kept_back > held
        mine = self.queue.held(server)  # what rests is given up first when room is made
        others_wait = self.queue.servers > (1 if mine else 0)
        return not (others_wait and ready and mine + count > self.limit / 4)

    def make_room(self, count: int) -> list[Job]:
        """Remove and return what has to go for so many to come: of who holds most by then."""
        excess = len(self) + count - self.limit
        if excess <= 0:
            return []
        return self._shed(min(max(excess, self.limit // _SHED_PART), len(self)))

    def waiting(self) -> Iterator[tuple[Job, float]]:
        """Yield all in their order, and when (the clock's seconds) the next attempt may be."""
        for job in self.queue:
            yield job, 0.0
        yield from self.resting.due()

    def remove_all(self) -> list[Job]:
        """Remove and return all."""
        return [*self.queue.remove(lambda _job: True), *self.resting.remove()]

    def _shed(self, count: int) -> list[Job]:
        """Take out so many: each time of the server that holds most, first what rests."""
        resting, held = self.resting.counts(), self.queue.counts()
        for server, rests in resting.items():
            held[server] = held.get(server, 0) + rests
        if len(held) > count:  # no more of them can be the biggest in turn
            held = dict(nlargest(count, held.items(), key=itemgetter(1)))
        shed = []
        for server in islice(biggest_first(held), count):
            if resting.get(server):
                resting[server] -= 1
                shed.append(self.resting.take(server))
            else:
                shed.append(self.queue.shed(server))
        return shed
