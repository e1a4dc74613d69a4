"""Transfers: new credentials for a server that lost its own and still has its host name.

Who claims a name must show so there (bouncer-api.md 5): we ask the host itself, by https on port
443. Anybody can make us ask; hence the limits.
"""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import idna
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bouncerd.basicauth import digest, new_key
from bouncerd.challenge import Challenge, unusable_host
from bouncerd.deadline import until
from bouncerd.enrolment import MAX_HOSTNAME, check_hostname, split_port
from bouncerd.envelope import WireError, bad_request
from bouncerd.forms import Form
from bouncerd.limits import SlidingLog, too_many_requests
from bouncerd.model import Server
from bouncerd.proofs import Proofs
from bouncerd.store.base import Store

log = Logger()

_T = TypeVar("_T")

DAY = 86_400.0
#: Challenges in a day: of all hosts, of one host, and on the word of one client address. The
#: smaller ones come first, so that no stranger alone can use up what is for everyone.
PER_DAY = 30
PER_HOST = 10
PER_ADDRESS = 5

#: Seconds for resolving, connecting and the answer: real servers hang up after 15.
ASKING_TIME = 8.0
#: Seconds that are kept, of those until the caller is answered, for what follows.
_FOR_THE_REST = 1.0

_is_access_token = re.compile(r"[A-Za-z0-9_-]{1,256}").fullmatch


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody has this host name, and its host will show so to who knows the token."""

    hostname: str
    access_token: str = field(repr=False)


def parse_transfer(form: Form) -> str:
    """Read `server/register/transfer`."""
    hostname = form.text("hostname")
    if len(hostname) > MAX_HOSTNAME:  # checked no further: that may take long
        raise _not_registered(hostname)
    check_hostname(hostname)
    return hostname


def parse_claim(form: Form) -> Claim:
    """Read `server/register/verify_challenge`."""
    claim = Claim(form.text("hostname"), form.text("access_token"))
    if not _is_access_token(claim.access_token):  # it becomes part of a path
        raise bad_request("access_token has invalid format")
    return claim


def host_to_ask(hostname: str) -> str:
    """Return a host in ASCII, or raise the WireError if it is not at the default port."""
    host, port = split_port(hostname)
    if port not in ("", "443"):
        raise bad_request(
            f"{hostname} names a port: a registration can be transferred only if its host is"
            " at the default HTTPS port"
        )
    if host.isascii():
        return host.lower().removesuffix(".")
    try:
        return idna.encode(host.removesuffix("."), uts46=True).decode()
    except idna.IDNAError:
        raise unusable_host() from None


class Transfers:
    """Issues secrets, asks hosts to show them, and gives out new keys."""

    def __init__(
        self,
        store: Store,
        challenge: Challenge,
        clock: IReactorTime,
        now: Callable[[], float],
        support: str = "",
    ) -> None:
        self._store = store
        self._challenge = challenge
        self._clock = clock
        self._now = now
        self.support = support
        self._all: deque[float] = deque()  # when each was begun that counts
        self._of_hosts = SlidingLog(DAY)
        self._of_addresses = SlidingLog(DAY)

    async def prepare(self, hostname: str, by: float) -> str:
        """Return a secret for a host; nothing is changed."""
        server = await self._in_time(by, self._store.server_by_hostname(hostname))
        if server is None:
            raise _not_registered(hostname)
        host_to_ask(hostname)
        proofs = Proofs(await self._in_time(by, self._store.secret()))
        return proofs.issue(hostname, self._now())

    async def verify(self, claim: Claim, client: str, by: float) -> tuple[str, str]:
        """Ask the host; return the server's uuid and its new key. `client` is an address block."""
        server = await self._in_time(by, self._store.server_by_hostname(claim.hostname))
        if server is None:
            raise _unknown()
        host = host_to_ask(claim.hostname)
        begun = self._begin(server, client)
        left = by - self._clock.seconds() - _FOR_THE_REST
        within = max(0.0, min(ASKING_TIME, left))
        try:
            secret = await self._challenge.ask(host, claim.access_token, within)
            proofs = Proofs(await self._in_time(by, self._store.secret()))
            proofs.check(secret, claim.hostname, self._now())
        except WireError as error:  # its words are ours, whatever the host said
            log.info("No transfer of {server}: {reason}", server=server.uuid, reason=error.msg)
            raise
        # The host has shown what no stranger can make it show: that is not what is limited.
        self._give_back(begun)
        key = new_key()
        changed = self._store.transfer_server(claim.hostname, digest(key), self._now())
        uuid = await self._in_time(by, changed)
        if uuid is None:
            raise _unknown()
        log.info("The registration of {server} was transferred to its host", server=uuid)
        return uuid, key

    def _begin(self, server: Server, client: str) -> float:
        """Count a challenge, and say when it was begun; raise the 429 if it is one too many."""
        now = self._clock.seconds()
        while self._all and self._all[0] <= now - DAY:
            self._all.popleft()
        if len(self._all) >= PER_DAY:
            raise self._used_up()
        for limited, key, limit in (
            (self._of_addresses, client, PER_ADDRESS),
            (self._of_hosts, server.uuid, PER_HOST),
        ):
            verdict = limited.take(key, limit, now)
            if verdict.retry_in is not None:
                raise too_many_requests(verdict.retry_in)
        self._all.append(now)
        return now

    def _give_back(self, begun: float) -> None:
        if begun in self._all:
            self._all.remove(begun)

    def _used_up(self) -> WireError:
        log.warn("The day's {limit} challenges of transfers are used up", limit=PER_DAY)
        whom = self.support or "the operator of this push bouncer"
        return WireError(
            429,
            "RATE_LIMIT_HIT",
            "The global limits on recent usage of this endpoint have been reached."
            f" Please try again later or reach out to {whom} for assistance.",
        )

    def _in_time(self, by: float, awaited: Deferred[_T]) -> Deferred[_T]:
        return until(by, self._clock, awaited)


def _not_registered(hostname: str) -> WireError:
    return bad_request(f"{hostname} not yet registered")


def _unknown() -> WireError:
    return bad_request("Registration not found for this hostname")
