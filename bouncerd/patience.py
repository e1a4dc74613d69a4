"""How long to wait before a push is tried again. Pure; seconds throughout."""

from dataclasses import dataclass
from random import Random

from bouncerd.model import Misconfigured, Retry

#: A push whose fate is unknown is sent once more, with the same id (apns.md 5.5); not twice.
CUT_OFF_TWICE = 2


@dataclass(frozen=True, slots=True)
class Patience:
    """One provider's back-off (apns.md 4.1, fcm.md 4.3)."""

    first: float = 10.0
    longest: float = 900.0
    misconfigured: float = 60.0  # the operator must act: ask now and then whether that happened
    cut_off: float = 0.0  # before the one repetition of a push of unknown fate
    refused: float = 0.1  # after REFUSED_STREAM (apns.md 5.5)
    rate: float | None = None  # pushes a second at most; None: as links take them
    ramp: float = 60.0  # from nothing to that rate, after an outage

    def delay(self, outcome: Retry | Misconfigured, retries: int, random: Random) -> float:
        """Return the wait before the next attempt, after `retries` earlier retries.

        Exponential, with a quarter of jitter on top: never sooner than the provider asks.
        """
        after = 0.0
        first = self.misconfigured
        if isinstance(outcome, Retry):
            # It was the link's fault, and another may do better at once; or the provider says 0.
            if not retries and (outcome.after == 0 or (outcome.spoiled and outcome.after is None)):
                return 0.0
            after, first = outcome.after or 0.0, self.first
        back_off = min(first * 2.0 ** min(retries, 16), self.longest)
        return max(after, back_off) * (1 + 0.25 * random.random())

    def refused_delay(self, refusals: int, random: Random) -> float:
        """Return the wait after REFUSED_STREAM, longer each time: a thousand pushes would loop.

        Not much longer: a limit that has moved a few times must not leave links idle for seconds.
        """
        return self.refused * 2.0 ** min(refusals, 3) * (1 + random.random())


APNS_PATIENCE = Patience()
#: Google asks for 10 s before any repetition, also after a time-out, and counts pushes by the
#: minute: this rate is 80 % of what a project has unless it asked for more (fcm.md 4.5).
FCM_PATIENCE = Patience(longest=600.0, cut_off=10.0, rate=8_000.0)
