"""What keeps pushes back although links have room: the provider has asked for it, or must.

Whole lanes, single devices, the rate, streams on a link. Breakers and probation are caution.py's.
"""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from bouncerd.caution import Caution
from bouncerd.hot import HotDevices
from bouncerd.link import Link
from bouncerd.model import About, Delivered, Gone, Push, Refused, Retry
from bouncerd.pace import Pace, StreamCap
from bouncerd.patience import Patience

log = Logger()

#: Seconds without any push where our provider tokens change too often for Apple (apns.md 2.1).
TOKEN_PAUSE = 1_200.0
#: Links that must say so, with no success between.
_SEVERAL_LINKS = 2


class Restraint:
    """One lane's. `resume` is called when more may go than `room` has said last."""

    def __init__(
        self, name: str, patience: Patience, clock: IReactorTime, resume: Callable[[], None]
    ) -> None:
        self.caution = Caution(name, clock)
        self.held = False  # nothing goes at all
        self.streams = StreamCap()
        self._name = name
        self._clock = clock
        self._resume = resume
        self._pace = Pace(patience.rate, patience.ramp)
        self.paced = patience.rate is not None
        self._hot = HotDevices(patience.longest)
        self._vexed: list[Link] = []  # on which our token was refused for its age
        self._stopped = False
        self._held_until = 0.0
        self._hold_call: IDelayedCall | None = None
        self._pace_call: IDelayedCall | None = None

    @property
    def shut(self) -> bool:
        """Whether callers had better not wait: nothing goes, or nothing succeeds any more."""
        return self.held or (self._pace.troubled and self._pace.out(self._clock.seconds()))

    # --- what is asked before a push is given

    def room(self, link: Link, count: int) -> int:
        """Return how many of so many pushes may go on a link now."""
        if self.streams.lowered:
            most = self.streams.most(self._clock.seconds())
            count = count if most is None else max(min(count, most - link.in_flight), 0)
        if self._pace.rate is not None:
            now = self._clock.seconds()
            allowed = self._pace.allowed(now)
            if allowed < count:
                count = allowed
                if self._pace_call is None and not self._stopped:
                    self._pace_call = self._clock.callLater(self._pace.wait(now), self._paced)
        return count

    def wait(self, push: Push) -> float:
        """Return how long (seconds) a push has to wait unsent."""
        if self.caution.open_apps and (wait := self.caution.wait(push)):
            return wait
        if not self._hot:
            return 0.0
        return self._hot.wait(push.device.token, push.server, self._clock.seconds())

    def refuses(self, push: Push) -> bool:
        """Whether a push has to wait because its app is refused."""
        return (push.device.app_id or "") in self.caution.open_apps

    def sent(self, push: Push) -> None:
        """Count a push that a link has got; only where it is `paced`."""
        self._pace.spend(1, push.server)

    # --- what is learnt

    def judged(self, push: Push, outcome: Delivered | Gone | Refused) -> bool:
        """Take note of an answer on the merits of a push: the provider is there, and has room.

        Return whether its app is refused no longer.
        """
        closed = self.caution.judged(push, outcome)
        if self._pace.troubled:
            self._pace.succeeded(push.server, self._clock.seconds())
        if self._hot:
            self._hot.cooled(push.device.token, push.server)
        if self._vexed:
            self._vexed.clear()
        return closed

    def out(self) -> None:
        """Take note that the provider cannot be reached."""
        self._pace.failed(self._clock.seconds())

    def asked(self, push: Push, retry: Retry, link: Link) -> float:
        """Take note of what a provider asks for; return how long (seconds) the push waits at least.

        That is 0.0 where it is for its own patience to say.
        """
        if retry.about is About.DEVICE:
            return self._throttled(push, retry.after or 0.0)
        if retry.about is About.CREDENTIAL:
            self._token_refused(link)
        elif retry.about is About.PUSH:
            self._pace.failed(self._clock.seconds())
        return 0.0

    def crowded(self, under_way: int) -> None:
        """Take note that a link had more streams than its server likes."""
        self.streams.lower(under_way, self._clock.seconds())

    def hold(self, seconds: float) -> None:
        """Let nothing go for so long."""
        self._held_until = max(self._held_until, self._clock.seconds() + seconds)
        self.held = True
        if self._stopped:
            return
        if self._hold_call is not None:
            self._hold_call.cancel()
        delay = self._held_until - self._clock.seconds()
        self._hold_call = self._clock.callLater(delay, self._released)

    def stop(self) -> None:
        """Let go of the clock, for good."""
        self._stopped = True
        for call in (self._hold_call, self._pace_call):
            if call is not None:
                call.cancel()
        self._hold_call = self._pace_call = None

    # --- within

    def _throttled(self, push: Push, after: float) -> float:
        now = self._clock.seconds()
        if self._pace.rate is not None and not self.held:
            pause = self._pace.throttled(push.server, push.device.token, after, now)
            if pause:
                log.warn(
                    "Provider {provider} has too much of us: nothing for {seconds} s, then slower",
                    provider=self._name,
                    seconds=round(pause),
                )
                self.hold(pause)
        if self.held:
            return after  # it is not the device's fault
        return self._hot.heated(push.device.token, push.server, after, now)

    def _token_refused(self, link: Link) -> None:
        """Hold everything if it is not one link alone: each would go the same way."""
        if link not in self._vexed:
            self._vexed.append(link)
        if len(self._vexed) >= _SEVERAL_LINKS:
            self._vexed.clear()
            self.caution.alert("TooManyProviderTokenUpdates")
            self.hold(TOKEN_PAUSE)

    def _paced(self) -> None:
        self._pace_call = None
        self._resume()

    def _released(self) -> None:
        self._hold_call, self.held = None, False
        self._resume()
