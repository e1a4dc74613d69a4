"""What a caller waits for: its pushes' first attempts, and no longer (the reply rule)."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from bouncerd.model import Kind, Push


class Saturated(Exception):
    """This process has no room for the call; nothing of it was taken."""


class Call:
    """One caller's pushes.

    `settled` fires, never fails, once each has ended, or waits for a retry, or its provider has no
    ready link. `returned` says that the process stops and has sent none of them: answer 5xx.
    """

    def __init__(self, pushes: Sequence[Push]) -> None:
        self.pushes = pushes
        self.settled: Deferred[None] = Deferred()
        self.delivered = 0
        self.delivered_by_apple = 0  # of those
        self.given = False  # a link has had one of them: the caller must not repeat the call
        self.returned = False
        self.answered = False  # the caller was told something, in doubt too early: see `returnable`
        self._open = len(pushes)
        if not self._open:
            self.settled.callback(None)

    @property
    def returnable(self) -> bool:
        """Whether its caller can be told to repeat it: unanswered, and no link has had any."""
        return not self.given and not self.answered and (self.returned or self.waiting)

    @property
    def waiting(self) -> bool:
        """Whether the caller still waits for some push."""
        return self._open > 0

    def delivered_one(self, push: Push) -> None:
        """Count a push that its provider has taken."""
        self.delivered += 1
        self.delivered_by_apple += push.message.kind is Kind.APNS

    def settle_one(self) -> None:
        """Count one push as nothing to wait for; its owner says so once for each."""
        self._open -= 1
        if not self._open:
            self.settled.callback(None)
