"""What a lane has learnt of its apps and servers: when to hold back, and whom to tell."""

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bouncerd.breaker import Breakers
from bouncerd.guard import SUSPECT, Guard
from bouncerd.model import Delivered, Gone, Misconfigured, Push, Refused
from bouncerd.probation import Probation
from bouncerd.seldom import Seldom

log = Logger()


class Caution:
    """One credential's guard, breakers and alerts; `name` is its configuration section."""

    def __init__(self, name: str, clock: IReactorTime) -> None:
        self.probation = Probation()
        self._name = name
        self._clock = clock
        self._guard = Guard()
        self._breakers = Breakers()
        self.open_apps = self._breakers.open  # `wait` is about these
        self._alerts = Seldom()

    def judged(self, push: Push, outcome: Delivered | Gone | Refused) -> bool:
        """Learn from a push that its provider has judged on its merits.

        Return whether its app is refused no longer.
        """
        app = push.device.app_id or ""
        suspect = isinstance(outcome, Gone) and outcome.reason in SUSPECT
        self._guard.note(app, push.server, self._clock.seconds(), bad=suspect)
        if suspect or self.probation.watches:
            self.probation.judged(push.server, bad=suspect)
        if not suspect and not isinstance(outcome, Refused):  # that was not the app's success
            return self._breakers.succeeded(app, push.server)
        return False

    def keeps(self, push: Push, gone: Gone) -> bool:
        """Say whether a token that was called dead is kept: too many are, all at once."""
        if gone.reason not in SUSPECT:
            return False
        now, app = self._clock.seconds(), push.device.app_id or ""
        if not self._guard.trips(app, now):
            return False
        if self._alerts.due("tokens", now):
            log.error(
                "Provider {provider} calls most tokens bad (is the environment right?):"
                " none is deleted while that lasts",
                provider=self._name,
                alert="tokens-mostly-bad",
            )
        return True

    def refused(self, push: Push, outcome: Misconfigured) -> bool:
        """Learn from a refusal of the credential or app; say whether its link is spoiled, too."""
        app = push.device.app_id or ""
        ours = self._breakers.is_the_credentials(app)
        if ours:
            self.alert(outcome.reason)
        elif self._alerts.due("app", self._clock.seconds()):
            # Tenants name apps: one that never worked is no reason to wake the operator.
            log.warn(
                "Provider {provider} refuses an app that never worked: {reason}",
                provider=self._name,
                reason=outcome.reason,
            )
        self._breakers.refused(app, push.server, self._clock.seconds())
        if not ours:  # as bad as a bad token, and apps are as easily invented
            self.probation.judged(push.server, bad=True)
        return outcome.spoiled and ours

    def wait(self, push: Push) -> float:
        """Return how long (seconds) a push waits unsent, because its app is refused."""
        return self._breakers.wait(push.device.app_id or "", self._clock.seconds())

    def alert(self, reason: str) -> None:
        """Tell the operator that the credential is refused, but not the same thing all the time."""
        if self._alerts.due("credential", self._clock.seconds()):
            log.error(
                "Provider {provider} refuses our credential or app: {reason}",
                provider=self._name,
                reason=reason,
                alert="credential-refused",
            )
