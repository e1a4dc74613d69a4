"""The fair queue: turns between servers, messages before removals."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fair import FairQueue, biggest_first


@dataclass(eq=False)
class Item:
    """Something that waits."""

    server: str
    name: int
    urgent: bool = True
    deadline: float = 10.0
    cost: int = 1
    key: Hashable = None


def names(items: Sequence[Item | None]) -> list[int]:
    """Return the items' names."""
    return [item.name for item in items if item is not None]


class FairQueueTests(SynchronousTestCase):
    """Who goes next."""

    def test_a_flood_waits_behind_itself(self) -> None:
        """A server with one push is served second, however many another has waiting."""
        queue: FairQueue[Item] = FairQueue()
        for number in range(1000):
            queue.put(Item("flood", number))
        queue.put(Item("small", -1))
        self.assertEqual(names([queue.take() for _ in range(3)]), [0, -1, 1])
        self.assertEqual((len(queue), queue.servers, queue.held("flood")), (998, 1, 998))

    def test_messages_before_removals(self) -> None:
        """What makes a phone ring goes before what clears its screen, of the same server."""
        queue: FairQueue[Item] = FairQueue()
        queue.put(Item("a", 1, urgent=False))
        queue.put(Item("a", 2))
        self.assertEqual(names([queue.take(), queue.take()]), [2, 1])
        self.assertIsNone(queue.take())

    def test_given_back_goes_first(self) -> None:
        """A push whose turn came to nothing does not queue again at the end."""
        queue: FairQueue[Item] = FairQueue()
        queue.put(Item("a", 1))
        queue.put(Item("b", 2))
        first = queue.take()
        assert first is not None
        queue.give_back(first)
        self.assertEqual(names([queue.take(), queue.take()]), [1, 2])

    def test_shed_the_oldest_of_who_holds_most(self) -> None:
        """When room is needed, the server that takes most of it pays, removals first."""
        queue: FairQueue[Item] = FairQueue()
        for number in range(3):
            queue.put(Item("big", number))
        queue.put(Item("big", 9, urgent=False))
        queue.put(Item("small", 5))
        self.assertEqual(names([queue.shed("big"), queue.shed("big")]), [9, 0])

    def test_who_holds_most_by_then_pays(self) -> None:
        """Room is made by the biggest down to the size of the next, then by both in turn."""
        self.assertEqual("".join(biggest_first({"a": 2, "b": 4, "c": 1})), "bbababc")

    def test_expired_leave(self) -> None:
        """What waited too long is found without being its turn."""
        queue: FairQueue[Item] = FairQueue()
        queue.put(Item("a", 1, deadline=5.0))
        queue.put(Item("a", 2, deadline=6.0))
        queue.put(Item("b", 3, urgent=False, deadline=5.0))
        self.assertEqual(sorted(names(queue.expired(5.0))), [1, 3])
        self.assertEqual((len(queue), queue.servers), (1, 1))

    @given(st.data())
    def test_nothing_is_lost_or_doubled(self, data: Any) -> None:
        """Whatever is done to it, what went in comes out once, and the size is true."""
        queue: FairQueue[Item] = FairQueue()
        put: list[int] = []
        out: Counter[int] = Counter()
        for number in range(data.draw(st.integers(0, 40))):
            action = data.draw(st.integers(0, 7))
            if action <= 4:
                new = Item(
                    data.draw(st.sampled_from("abc")),
                    number,
                    urgent=data.draw(st.booleans()),
                    deadline=data.draw(st.floats(0, 10)),
                )
                queue.put(new, first=data.draw(st.booleans()))
                put.append(number)
            elif action == 5 and queue:
                biggest = next(biggest_first(queue.counts()))
                assert queue.held(biggest) == max(queue.counts().values())
                taken = queue.take() if data.draw(st.booleans()) else queue.shed(biggest)
                assert taken is not None
                out[taken.name] += 1
            elif action == 6:
                out.update(names(queue.expired(data.draw(st.floats(0, 10)))))
            else:
                out.update(names(queue.remove(lambda item: item.name % 3 == 0)))
            assert len(queue) == len(list(queue)) == len(put) - out.total()
        while item := queue.take():
            out[item.name] += 1
        self.assertEqual(out, Counter(put))
