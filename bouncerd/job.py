"""A push on its way through a lane."""

from typing import TYPE_CHECKING, Protocol

from bouncerd.calls import Call
from bouncerd.endings import Ending
from bouncerd.model import Push

if TYPE_CHECKING:
    from bouncerd.link import Link


class Attempts(Protocol):
    """Who is told how an attempt ended: the lane."""

    def attempt_ended(self, job: "Job", ending: Ending) -> None:
        """Take the ending of a job's request."""


class Job:
    """One push, the caller's interest in it, and what was tried so far."""

    __slots__ = (
        "call", "cut_off", "deadline", "in_hand", "lane", "link", "open", "push", "refusals",
        "retries", "sent_at", "server", "urgent",
    )  # fmt: skip

    def __init__(self, lane: Attempts, push: Push, call: Call, deadline: float) -> None:
        self.lane = lane
        self.push = push
        self.call = call
        self.server = push.server
        self.urgent = push.message.urgent
        self.deadline = deadline
        self.link: Link | None = None
        self.sent_at = 0.0
        self.retries = self.refusals = self.cut_off = 0
        self.in_hand = False  # neither queued nor resting: with a link, or being judged
        self.open = True  # the caller still waits for it

    def ended(self, ending: Ending) -> None:
        """Hear from the link (link.Ticket)."""
        self.lane.attempt_ended(self, ending)

    def settle(self) -> None:
        """Let the caller wait for it no longer."""
        if self.open:
            self.open = False
            self.call.settle_one()
