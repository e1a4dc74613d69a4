"""Callers without credentials: whose request it is, and how many an hour each may make."""

from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from bouncerd.addresses import IPNetwork, block_of, client_address
from bouncerd.limits import HOUR, SlidingLog, too_many_requests
from bouncerd.reading import header
from bouncerd.site import Request

#: How many blocks of addresses are counted at once; beyond that the longest idle is forgotten.
MOST_BLOCKS = 10_000


class Stranger(NamedTuple):
    """Who asks: its block of addresses, and when (the clock's seconds) it wants an answer."""

    client: str
    by: float


class Strangers:
    """Lets each client address (IPv6: each /64) make so many requests an hour."""

    def __init__(self, per_hour: int, trusted: Sequence[IPNetwork], clock: IReactorTime) -> None:
        self.per_hour = per_hour
        self._trusted = trusted
        self._clock = clock
        self._let_in = SlidingLog(HOUR, MOST_BLOCKS)

    def let_in(self, request: Request, by: float) -> Stranger:
        """Count a request; raise the 429 if it is one too many."""
        client = client_of(request, self._trusted)
        verdict = self._let_in.take(client, self.per_hour, self._clock.seconds())
        if verdict.retry_in is not None:
            raise too_many_requests(verdict.retry_in)
        return Stranger(client, by)


def client_of(request: Request, trusted: Sequence[IPNetwork]) -> str:
    """Name the block of addresses that a request comes from."""
    # A peer on a unix socket has no host.
    peer: str | None = getattr(request.client, "host", None)
    forwarded = header(request, b"x-forwarded-for") or ""
    return block_of(client_address(peer, [forwarded], trusted))
