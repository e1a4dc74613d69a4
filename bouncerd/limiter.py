"""How many requests a Zulip server may make in a minute, in one process or in all of them.

`OwnLimiter` counts for itself, exactly. `SharedLimiter` asks the store, where processes that share
it keep one log of each server (`leasing`): requests that wait while it asks go together, and what
it was granted ahead passes without a question. Times named `by` are the clock's seconds.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from bouncerd.deadline import until
from bouncerd.leasing import HOLD, Ask, Lease
from bouncerd.limits import MINUTE, SlidingLog, Verdict
from bouncerd.store.base import Store

#: Seconds for which a refusal is repeated without asking again: others may give something back.
REFUSED_FOR = 0.25
#: Keys in one question at most.
TOGETHER = 200
# Seconds between looks for what was not used.
_SWEEP = HOLD / 10


class Limiter(Protocol):
    """Says of a request whether it may pass."""

    def take(self, key: str, limit: int, by: float) -> Awaitable[Verdict]:
        """Ask for one request; fails with StoreUnavailable or TooLate if nobody can say."""


class OwnLimiter:
    """A limiter for the one process that there is."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._passed = SlidingLog(MINUTE)

    async def take(self, key: str, limit: int, by: float) -> Verdict:  # noqa: ARG002
        """Ask for one request; it is known at once."""
        return self._passed.take(key, limit, self._clock.seconds())


@dataclass(slots=True)
class _Account:
    """What this process has of one key."""

    limit: int = 0
    waiting: list[Deferred[Verdict]] = field(default_factory=list)
    asked: bool = False  # a question about it is under way
    # What is held ahead: by which name, how many, until when; and how it went so far.
    entry: int = 0
    ahead: int = 0
    granted: int = 0
    until: float = 0.0
    left: int = 0  # for all, by the latest answer
    # Where it was refused: until when that holds.
    refused: Verdict | None = None
    refused_at: float = 0.0

    def back(self) -> tuple[tuple[int, int], ...]:
        """Name what was held, which is done with."""
        return ((self.entry, self.ahead),) if self.entry else ()


class SharedLimiter:
    """A limiter for one of many processes on one database."""

    def __init__(self, store: Store, clock: IReactorTime) -> None:
        self._store = store
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._due: dict[str, None] = {}  # keys that have something to ask, the first one first
        self._asking = False
        self._sweeping = False

    def __len__(self) -> int:
        """Count the keys remembered."""
        return len(self._accounts)

    async def take(self, key: str, limit: int, by: float) -> Verdict:
        """Ask for one request."""
        now = self._clock.seconds()
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account()
            self._sweep_soon()
        if account.limit == limit:
            if account.ahead and now < account.until:
                account.ahead -= 1
                return Verdict(limit, account.left + account.ahead, MINUTE, None)
            if account.refused is not None and now < account.refused_at + REFUSED_FOR:
                return _later(account.refused, now - account.refused_at)
        # What is left of another limit, or too old, goes back.
        account.limit = limit
        waiter: Deferred[Verdict] = Deferred()
        account.waiting.append(waiter)
        self._due[key] = None
        self._ask()
        return await until(by, self._clock, waiter)

    # --- asking

    def _ask(self) -> None:
        """Ask for all that wait, one question at a time."""
        if self._asking or not self._due:
            return
        keys = list(islice(self._due, TOGETHER))
        for key in keys:
            del self._due[key]
        accounts = [self._accounts[key] for key in keys]
        waiting = [account.waiting for account in accounts]
        asks = [self._spelled(key, account) for key, account in zip(keys, accounts, strict=True)]
        asked_at = self._clock.seconds()
        self._asking = True

        def granted(leases: list[Lease]) -> None:
            for account, waiters, ask, lease in zip(accounts, waiting, asks, leases, strict=True):
                self._granted(account, waiters, ask, lease, asked_at)

        def failed(reason: Failure) -> None:
            for waiters in waiting:
                for waiter in waiters:
                    waiter.errback(reason)

        def go_on(_: object) -> None:
            self._asking = False
            for account in accounts:
                account.asked = False
            self._ask()

        asking = maybeDeferred(self._store.lease, asks, MINUTE)
        asking.addCallbacks(granted, failed).addBoth(go_on)

    def _spelled(self, key: str, account: _Account) -> Ask:
        """Ask for what waits; and, if what was granted before did not last, for twice as much."""
        wanted = len(account.waiting)
        lasted = self._clock.seconds() < account.until
        ahead = 2 * (account.granted - account.ahead) if wanted and lasted else 0
        ask = Ask(key, account.limit, wanted, ahead, account.back())
        account.asked, account.waiting = True, []
        account.entry = account.ahead = 0
        return ask

    def _granted(
        self,
        account: _Account,
        waiters: Sequence[Deferred[Verdict]],
        ask: Ask,
        lease: Lease,
        asked_at: float,
    ) -> None:
        account.left = lease.left
        account.granted = lease.granted + lease.ahead
        # Not from when the answer came: the others count from when it was granted.
        account.until = asked_at + HOLD
        account.ahead, account.entry = lease.ahead, lease.entry if lease.ahead else 0
        account.refused = None
        if lease.granted < ask.wanted:
            account.refused = Verdict(ask.limit, 0, lease.free_in, lease.retry_in)
            account.refused_at = self._clock.seconds()
        for number, waiter in enumerate(waiters):
            if number < lease.granted:
                left = lease.left + lease.ahead + lease.granted - number - 1
                waiter.callback(Verdict(ask.limit, left, MINUTE, None))
            else:
                assert account.refused is not None
                waiter.callback(account.refused)
        if account.limit == ask.limit:
            self._serve_newcomers(ask.key, account)

    def _serve_newcomers(self, key: str, account: _Account) -> None:
        """Let those who came while it was asked have the answer too, as far as it goes."""
        while account.waiting and (account.ahead or account.refused):
            verdict = account.refused
            if verdict is None:
                account.ahead -= 1
                verdict = Verdict(account.limit, account.left + account.ahead, MINUTE, None)
            account.waiting.pop(0).callback(verdict)
        if not account.waiting:
            self._due.pop(key, None)

    # --- giving back

    def _sweep_soon(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._clock.callLater(_SWEEP, self._sweep)

    def _sweep(self) -> None:
        """Give back what was not used, and forget who is idle."""
        self._sweeping = False
        now = self._clock.seconds()
        for key, account in list(self._accounts.items()):
            if now < account.until or account.asked or account.waiting:
                continue
            if account.ahead:
                self._due[key] = None
            else:
                del self._accounts[key]
        self._ask()
        if self._accounts:
            self._sweep_soon()


def _later(refused: Verdict, seconds: float) -> Verdict:
    assert refused.retry_in is not None
    return Verdict(refused.limit, 0, refused.free_in - seconds, refused.retry_in - seconds)
