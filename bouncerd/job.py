"""A push on its way through a lane."""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Protocol

from bouncerd.calls import Call
from bouncerd.endings import Ending
from bouncerd.fair import turns
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
        "alone", "call", "cost", "cut_off", "deadline", "lane", "link", "mates", "on_probation",
        "open", "push", "refusals", "refused", "retries", "sent_at", "server", "since", "urgent",
    )  # fmt: skip

    def __init__(self, lane: Attempts, push: Push, call: Call, deadline: float) -> None:
        self.lane = lane
        self.push = push
        self.call = call
        self.server = push.server
        self.urgent = push.message.urgent
        self.cost = turns(len(push.message.body))
        self.deadline = deadline
        self.since = 0.0  # when this process took it, by the lane's clock
        self.link: Link | None = None
        self.sent_at = 0.0
        self.retries = self.refusals = self.cut_off = 0
        self.open = True  # the caller still waits for it
        self.mates: Sequence[Job] = ()  # those that go in its request, merged
        self.refused = False  # if it rests: because its app or our credential is refused
        self.alone = False  # never merged: it was refused when it was
        self.on_probation = False  # it is the one in flight of a server with mostly bad tokens

    @property
    def key(self) -> Hashable:
        """What it shares with pushes that could go in one request with it: the device."""
        device = self.push.device
        return self if device.sealed else (device.kind, device.token, device.app_id)

    def ended(self, ending: Ending) -> None:
        """Hear from the link (link.Ticket)."""
        self.lane.attempt_ended(self, ending)

    def settle(self) -> None:
        """Let the caller wait for it no longer."""
        if self.open:
            self.open = False
            self.call.settle_one()
