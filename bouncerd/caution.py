"""What a lane has learnt of its apps: when to stop deleting, when to stop asking, whom to tell."""

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bouncerd.breaker import Breakers
from bouncerd.guard import SUSPECT, Guard
from bouncerd.model import Delivered, Gone, Misconfigured, Push, Refused

log = Logger()

#: Seconds between two alerts of one kind.
ALERT_EVERY = 600.0


class Caution:
    """One credential's guard, breakers and alerts; `name` is its configuration section."""

    def __init__(self, name: str, clock: IReactorTime) -> None:
        self._name = name
        self._clock = clock
        self._guard = Guard()
        self._breakers = Breakers()
        self._alerted: dict[str, float] = {}

    def judged(self, push: Push, outcome: Delivered | Gone | Refused) -> None:
        """Learn from a push that its provider has judged on its merits."""
        app = _app(push)
        suspect = isinstance(outcome, Gone) and outcome.reason in SUSPECT
        self._guard.note(app, push.server, self._clock.seconds(), bad=suspect)
        if not suspect:
            self._breakers.succeeded(app)

    def keeps(self, push: Push, gone: Gone) -> bool:
        """Say whether a token that was called dead is kept: too many are, all at once."""
        if gone.reason not in SUSPECT or not self._guard.trips(_app(push), self._clock.seconds()):
            return False
        self._alert("most tokens are bad (is the environment right?); none is deleted")
        return True

    def refused(self, push: Push, outcome: Misconfigured) -> bool:
        """Learn from a refusal of the credential or app; say whether its link is spoiled, too."""
        app = _app(push)
        self._alert(outcome.reason)
        self._breakers.refused(app, self._clock.seconds())
        return outcome.spoiled and self._breakers.is_the_credentials(app)

    def wait(self, push: Push) -> float:
        """Return how long (seconds) a push waits unsent, because its app is refused."""
        return self._breakers.wait(_app(push), self._clock.seconds())

    def _alert(self, reason: str) -> None:
        """Tell the operator, but not the same thing all the time."""
        at = self._clock.seconds()
        if at >= self._alerted.get(reason, -ALERT_EVERY) + ALERT_EVERY:
            self._alerted[reason] = at
            log.error(
                "Provider {provider} refuses our credential or app: {reason}",
                provider=self._name,
                reason=reason,
            )


def _app(push: Push) -> str:
    return push.device.app_id or ""
