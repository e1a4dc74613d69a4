"""A queue that is fair between servers: each gets its turn, messages before removals.

Pure. A server that floods waits behind its own pushes, not in front of the others'. Deficit round
robin with one turn as the quantum: what is scarce toward a provider is streams and messages per
second, and both count pushes. So nobody gets more than one push in a round, however small his
are; and who sends outsized ones, which use up the connection's window too, pays for them with
the turns that their `cost` says.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import islice
from typing import Generic, Protocol, TypeVar

#: Bytes of content that one turn pays for: ordinary pushes, sealed ones included, are below.
TURN_BYTES = 2_048
#: What a push costs at most: one that would cost more is too long, and refused without being sent.
MOST_TURNS = 8


def turns(size: int) -> int:
    """Return the cost of a push with so many bytes of content."""
    return 1 if size <= TURN_BYTES else min(-(-size // TURN_BYTES), MOST_TURNS)


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

    @property
    def cost(self) -> int:
        """How many turns it takes."""

    @property
    def key(self) -> Hashable:
        """What it has in common with those that may be merged with it (of what is not urgent)."""


Q = TypeVar("Q", bound=Queued)


class _Backlog(Generic[Q]):
    """What one server has waiting."""

    __slots__ = ("credit", "in_round", "later", "parked", "server", "size", "urgent")

    def __init__(self, server: str) -> None:
        self.server = server
        self.urgent: deque[Q] = deque()
        self.later: OrderedDict[Hashable, deque[Q]] | None = None
        self.size = self.credit = 0
        self.in_round = self.parked = False

    def __iter__(self) -> Iterator[Q]:
        yield from self.urgent
        for queue in (self.later or {}).values():
            yield from queue

    def add(self, item: Q, *, first: bool) -> None:
        self.size += 1
        if item.urgent:
            queue = self.urgent
        else:
            if self.later is None:
                self.later = OrderedDict()
            queue = self.later.setdefault(item.key, deque())
            if first:
                self.later.move_to_end(item.key, last=False)
        (queue.appendleft if first else queue.append)(item)

    def head(self) -> Q:
        return self.urgent[0] if self.urgent else self.head_later()

    def head_later(self) -> Q:
        assert self.later is not None
        return next(iter(self.later.values()))[0]

    def pop(self) -> Q:
        self.size -= 1
        return self.urgent.popleft() if self.urgent else self.pop_later()

    def pop_later(self) -> Q:
        """Take of the device whose turn it is; it queues again behind the other devices."""
        assert self.later is not None
        key, queue = next(iter(self.later.items()))
        item = queue.popleft()
        if queue:
            self.later.move_to_end(key)
        else:
            del self.later[key]
        return item


class FairQueue(Generic[Q]):
    """Turns go round the servers. `put`, `take`, `held` and `shed` take constant time."""

    def __init__(self) -> None:
        self._backlogs: dict[str, _Backlog[Q]] = {}
        self._round: deque[_Backlog[Q]] = deque()  # what is empty or parked leaves it in `take`
        self._parked: set[str] = set()
        self._size = 0
        self.held_back = 0  # how much of it is of servers that are parked

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Q]:
        for backlog in self._backlogs.values():
            yield from backlog

    @property
    def servers(self) -> int:
        """How many servers have something waiting."""
        return len(self._backlogs)

    def held(self, server: str) -> int:
        """How much of the queue is that server's."""
        backlog = self._backlogs.get(server)
        return 0 if backlog is None else backlog.size

    def put(self, item: Q, *, first: bool = False) -> None:
        """Add an item to its server's backlog, in front of what it has there if `first`."""
        backlog = self._backlogs.get(item.server)
        if backlog is None:
            backlog = self._backlogs[item.server] = _Backlog(item.server)
            backlog.parked = item.server in self._parked
        backlog.add(item, first=first)
        self._size += 1
        self.held_back += backlog.parked
        if not backlog.in_round and not backlog.parked:
            backlog.in_round = True
            self._round.append(backlog)

    def give_back(self, item: Q) -> None:
        """Add an item that had its turn, which came to nothing: it is next, and has paid."""
        self.put(item, first=True)
        backlog = self._backlogs[item.server]
        if backlog.size == 1 and self._round and self._round[-1] is backlog:
            self._round.rotate(1)
        backlog.credit = max(backlog.credit, item.cost - 1)

    def take(self) -> Q | None:
        """Remove and return the next item; None if none may go."""
        turns = self._round
        while turns:
            backlog = turns.popleft()
            if backlog.parked or not backlog.size:
                backlog.in_round = False
                continue
            backlog.credit += 1
            cost = backlog.head().cost
            if cost > backlog.credit:
                turns.append(backlog)
                continue
            backlog.credit -= cost
            item = backlog.pop()
            self._size -= 1
            if backlog.size:
                turns.append(backlog)
            else:
                del self._backlogs[backlog.server]
            return item
        return None

    def mates(self, item: Q, most: int) -> list[Q]:
        """Return other items of this one's key, which may be merged with it; they stay.

        They are the oldest `most`: nobody looks through a long queue at each turn.
        """
        backlog = self._backlogs.get(item.server)
        if backlog is None or backlog.later is None or item.urgent:
            return []
        return list(islice(backlog.later.get(item.key, ()), most))

    def take_mates(self, item: Q, mates: Sequence[Q]) -> None:
        """Remove some of them, in their order."""
        backlog = self._backlogs[item.server]
        assert backlog.later is not None
        queue = backlog.later[item.key]
        for mate in mates:
            queue.remove(mate)
        if not queue:
            del backlog.later[item.key]
        self._drop(backlog, len(mates))

    def park(self, server: str) -> None:
        """Give a server no turn until `unpark`."""
        self._parked.add(server)
        backlog = self._backlogs.get(server)
        if backlog is not None and not backlog.parked:
            backlog.parked = True
            self.held_back += backlog.size

    def unpark(self, server: str) -> None:
        """Let it take part again."""
        self._parked.discard(server)
        backlog = self._backlogs.get(server)
        if backlog is not None and backlog.parked:
            backlog.parked = False
            self.held_back -= backlog.size
            if not backlog.in_round:
                backlog.in_round = True
                self._round.append(backlog)

    def counts(self) -> dict[str, int]:
        """Return how much each server holds."""
        return {server: backlog.size for server, backlog in self._backlogs.items()}

    def shed(self, server: str) -> Q:
        """Remove and return the oldest item of a server, removals first."""
        backlog = self._backlogs[server]
        item = backlog.pop_later() if backlog.later else backlog.urgent.popleft()
        self._drop(backlog, 1)
        return item

    def expired(self, now: float) -> list[Q]:
        """Remove and return what waits in front past its deadline."""
        late: list[Q] = []
        for backlog in list(self._backlogs.values()):
            before = len(late)
            while backlog.urgent and backlog.urgent[0].deadline <= now:
                late.append(backlog.urgent.popleft())
            while backlog.later and backlog.head_later().deadline <= now:
                late.append(backlog.pop_later())
            self._drop(backlog, len(late) - before)
        return late

    def remove(self, unwanted: Callable[[Q], bool]) -> list[Q]:
        """Remove and return every item of which `unwanted` says so."""
        removed: list[Q] = []
        for backlog in list(self._backlogs.values()):
            kept: list[Q] = []
            before = len(removed)
            for item in backlog:
                (removed if unwanted(item) else kept).append(item)
            gone = len(removed) - before
            if gone:
                backlog.urgent.clear()
                backlog.later, backlog.size = None, gone
                for item in kept:
                    backlog.add(item, first=False)
                self._drop(backlog, gone)
        return removed

    def _drop(self, backlog: _Backlog[Q], count: int) -> None:
        """Count what has left a backlog without its turn."""
        self._size -= count
        backlog.size -= count
        if backlog.parked:
            self.held_back -= count
        if not backlog.size:
            del self._backlogs[backlog.server]
            if len(self._round) > 2 * len(self._backlogs) + 64:
                # Nobody takes: the provider is down, and what is shed would stay here for ever.
                self._round = deque(each for each in self._round if each.size)


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
