"""A push that waits, as one process leaves it to the next (design of the hand-over).

Only standard library types beside the push itself; content is in it, so it is written to memory
alone, by handover.py.
"""

from dataclasses import dataclass

from bouncerd.model import Push


@dataclass(frozen=True, slots=True)
class Waiting:
    """One push and what was tried so far. Times are unix seconds: clocks do not pass over.

    `deadline` is when it is worth nothing any more; `due` when its next attempt may begin (in
    the past: at once). The counts are those of `Job`.
    """

    push: Push
    deadline: float
    due: float = 0.0
    retries: int = 0
    refusals: int = 0
    cut_off: int = 0
