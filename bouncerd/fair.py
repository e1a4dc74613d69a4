"""A queue that is fair between servers: each gets its turn, messages before removals.

Pure. A server that floods waits behind its own pushes, not in front of the others'.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from heapq import heapify, heappop, heapreplace
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What waits: for which server, how urgent, and until when (seconds of the lane's clock)."""

    @property
    def server(self) -> str:
        """Whose turn it takes."""

    @property
    def urgent(self) -> bool:
        """Whether it goes before its server's others."""

    @property
    def deadline(self) -> float:
        """When it is worth nothing any more."""


Q = TypeVar("Q", bound=Queued)


class _Backlog(Generic[Q]):
    """What one server has waiting."""

    __slots__ = ("later", "urgent")

    def __init__(self) -> None:
        self.urgent: deque[Q] = deque()
        self.later: deque[Q] = deque()

    def __len__(self) -> int:
        return len(self.urgent) + len(self.later)

    def queues(self) -> tuple[deque[Q], deque[Q]]:
        return self.urgent, self.later


class FairQueue(Generic[Q]):
    """Round robin over servers. `put`, `take`, `held` and `shed` take constant time."""

    def __init__(self) -> None:
        self._backlogs: OrderedDict[str, _Backlog[Q]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Q]:
        for backlog in self._backlogs.values():
            for queue in backlog.queues():
                yield from queue

    @property
    def servers(self) -> int:
        """How many servers have something waiting."""
        return len(self._backlogs)

    def held(self, server: str) -> int:
        """How much of the queue is that server's."""
        backlog = self._backlogs.get(server)
        return 0 if backlog is None else len(backlog)

    def put(self, item: Q, *, first: bool = False) -> None:
        """Add an item to its server's backlog; `first`: it had its turn, and gets it back."""
        backlog = self._backlogs.get(item.server)
        if backlog is None:
            backlog = self._backlogs[item.server] = _Backlog()
            if first:
                self._backlogs.move_to_end(item.server, last=False)
        queue = backlog.urgent if item.urgent else backlog.later
        (queue.appendleft if first else queue.append)(item)
        self._size += 1

    def take(self) -> Q:
        """Remove and return the next item; IndexError if there is none."""
        if not self._size:
            raise IndexError("nothing waits")
        server, backlog = next(iter(self._backlogs.items()))
        item = (backlog.urgent or backlog.later).popleft()
        self._size -= 1
        if backlog:
            self._backlogs.move_to_end(server)
        else:
            del self._backlogs[server]
        return item

    def counts(self) -> dict[str, int]:
        """Return how much each server holds."""
        return {server: len(backlog) for server, backlog in self._backlogs.items()}

    def shed(self, server: str) -> Q:
        """Remove and return the oldest item of a server, removals first."""
        backlog = self._backlogs[server]
        item = (backlog.later or backlog.urgent).popleft()
        self._drop(server, backlog, 1)
        return item

    def expired(self, now: float) -> list[Q]:
        """Remove and return what waits in front past its deadline."""
        late: list[Q] = []
        for server, backlog in list(self._backlogs.items()):
            before = len(late)
            for queue in backlog.queues():
                while queue and queue[0].deadline <= now:
                    late.append(queue.popleft())
            self._drop(server, backlog, len(late) - before)
        return late

    def remove(self, unwanted: Callable[[Q], bool]) -> list[Q]:
        """Remove and return every item of which `unwanted` says so."""
        removed: list[Q] = []
        for server, backlog in list(self._backlogs.items()):
            before = len(removed)
            for queue in backlog.queues():
                kept = [item for item in queue if not unwanted(item)]
                removed += [item for item in queue if unwanted(item)]
                queue.clear()
                queue.extend(kept)
            self._drop(server, backlog, len(removed) - before)
        return removed

    def _drop(self, server: str, backlog: _Backlog[Q], count: int) -> None:
        self._size -= count
        if not backlog:
            del self._backlogs[server]


def biggest_first(held: Mapping[str, int]) -> Iterator[str]:
    """Yield whose item must go next, again and again: always whoever holds most by then."""
    heap = [(-count, order, server) for order, (server, count) in enumerate(held.items())]
    heapify(heap)
    while heap:
        count, order, server = heap[0]
        yield server
        if count == -1:
            heappop(heap)
        else:
            heapreplace(heap, (count + 1, order, server))
