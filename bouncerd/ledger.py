"""What became of every push: each accepted one has exactly one end (design of the promise).

    accepted + taken_over = delivered + gone + refused + expired + returned + unknown
                          + handed_over + lost + waiting

holds at every instant; `waiting` includes what is in flight.
"""

import enum
from dataclasses import dataclass, field


class End(enum.Enum):
    """How a push ends."""

    DELIVERED = "delivered"  # the provider said yes
    GONE = "gone"  # the token is dead
    REFUSED = "refused"  # it can never go
    EXPIRED = "expired"  # its time ran out while it waited
    RETURNED = "returned"  # the caller got a 5xx and keeps it
    UNKNOWN = "unknown"  # two attempts were cut off before an answer
    HANDED_OVER = "handed_over"  # passed to the next process
    LOST = "lost"  # a stop without hand-over took it

    __hash__ = object.__hash__  # each push is counted under one: Enum's own is a Python function


@dataclass(slots=True)
class Ledger:
    """The counters of one lane."""

    accepted: int = 0
    taken_over: int = 0
    ends: dict[End, int] = field(default_factory=lambda: dict.fromkeys(End, 0))

    def waiting(self) -> int:
        """How many pushes should be waiting or in flight, by the books."""
        return self.accepted + self.taken_over - sum(self.ends.values())
