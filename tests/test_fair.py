"""The fair queue: turns between servers, messages before removals."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fair import TURN_BYTES, FairQueue, biggest_first, turns


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

    def test_outsized_items_pay(self) -> None:
        """What takes three turns goes every third round; nothing is saved up meanwhile."""
        queue: FairQueue[Item] = FairQueue()
        for number in range(4):
            queue.put(Item("big", number, cost=3))
        for number in range(10, 20):
            queue.put(Item("small", number))
        order = names([queue.take() for _ in range(14)])
        self.assertEqual(order, [10, 11, 0, 12, 13, 14, 1, 15, 16, 17, 2, 18, 19, 3])
        self.assertEqual(turns(0), 1)
        self.assertEqual((turns(TURN_BYTES), turns(TURN_BYTES + 1)), (1, 2))

    def test_parked_servers_have_no_turn(self) -> None:
        """Until they are let in again; what comes for them meanwhile waits, too."""
        queue: FairQueue[Item] = FairQueue()
        queue.put(Item("a", 1))
        queue.put(Item("a", 2))
        queue.put(Item("b", 3))
        queue.park("a")
        queue.park("c")
        queue.put(Item("c", 4))
        self.assertEqual(names([queue.take(), queue.take()]), [3])
        self.assertEqual(len(queue), 3)
        queue.unpark("a")
        queue.unpark("c")
        queue.unpark("nobody")
        self.assertEqual(names([queue.take(), queue.take(), queue.take()]), [1, 4, 2])

    def test_mates(self) -> None:
        """Removals for one device are found together, and devices take turns."""
        queue: FairQueue[Item] = FairQueue()
        for number, key in enumerate("xxyx"):
            queue.put(Item("a", number, urgent=False, key=key))
        first = queue.take()
        assert first is not None
        mates = queue.mates(first, 10)
        self.assertEqual(names([first, *mates]), [0, 1, 3])
        self.assertEqual(names(queue.mates(first, 1)), [1])
        queue.take_mates(first, mates[1:])
        self.assertEqual(names([queue.take(), queue.take(), queue.take()]), [2, 1])
        self.assertEqual((len(queue), queue.servers, queue.mates(first, 10)), (0, 0, []))

    def test_held_back(self) -> None:
        """How much may not go now is known at each moment, whatever becomes of it."""
        queue: FairQueue[Item] = FairQueue()
        for number in range(6):
            queue.put(Item("a", number, urgent=number < 3, deadline=float(number)))
            queue.put(Item("b", number))
        queue.park("a")
        queue.park("a")
        self.assertEqual(queue.held_back, 6)
        queue.put(Item("a", 7))
        queue.shed("a")
        queue.expired(1.0)
        queue.remove(lambda item: item.name == 4)
        self.assertEqual(queue.held_back, queue.held("a"))
        queue.unpark("a")
        queue.unpark("a")
        self.assertEqual(queue.held_back, 0)
        queue.park("c")
        queue.put(Item("c", 1))
        self.assertEqual(queue.held_back, 1)
        while queue.take():
            pass
        self.assertEqual((len(queue), queue.held_back), (1, 1))

    def test_the_round_does_not_grow(self) -> None:
        """While nobody takes, servers that came and went leave nothing behind."""
        queue: FairQueue[Item] = FairQueue()
        for number in range(5_000):
            queue.put(Item(f"s{number}", number))
            queue.shed(f"s{number}")
        self.assertLess(len(queue._round), 100)

    @given(st.data())
    def test_nothing_is_lost_or_doubled(self, data: Any) -> None:
        """Whatever is done to it, what went in comes out once, and the size is true."""
        queue: FairQueue[Item] = FairQueue()
        put: list[int] = []
        out: Counter[int] = Counter()
        for number in range(data.draw(st.integers(0, 40))):
            action = data.draw(st.integers(0, 8))
            if action <= 4:
                new = Item(
                    data.draw(st.sampled_from("abc")),
                    number,
                    urgent=data.draw(st.booleans()),
                    deadline=data.draw(st.floats(0, 10)),
                    cost=data.draw(st.integers(1, 3)),
                    key=data.draw(st.sampled_from("xy")),
                )
                queue.put(new, first=data.draw(st.booleans()))
                put.append(number)
            elif action == 5 and queue:
                biggest = next(biggest_first(queue.counts()))
                assert queue.held(biggest) == max(queue.counts().values())
                taken = queue.take() if data.draw(st.booleans()) else queue.shed(biggest)
                out.update(names([taken]))
            elif action == 6:
                out.update(names(queue.expired(data.draw(st.floats(0, 10)))))
            elif action == 7:
                out.update(names(queue.remove(lambda item: item.name % 3 == 0)))
            else:
                park = queue.park if data.draw(st.booleans()) else queue.unpark
                park(data.draw(st.sampled_from("abc")))
            assert len(queue) == len(list(queue)) == len(put) - out.total()
        for server in "abc":
            queue.unpark(server)
        while item := queue.take():
            out[item.name] += 1
        self.assertEqual(out, Counter(put))
