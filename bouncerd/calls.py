"""What a caller waits for: its pushes' first attempts, and no longer (the reply rule)."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from bouncerd.model import Push


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
        self.given = False  # a link has had one of them: the caller must not repeat the call
        self.returned = False
        self._open = len(pushes)
        if not self._open:
            self.settled.callback(None)

    @property
    def waiting(self) -> bool:
        """Whether the caller still waits for some push."""
        return self._open > 0

    def settle_one(self) -> None:
        """Count one push as nothing to wait for; its owner says so once for each."""
        self._open -= 1
        if not self._open:
            self.settled.callback(None)
