"""Questions to DNS: asked by twisted.names, answered within seconds, or not at all.

"There is none" and "DNS does not say" are two things: [] and None.
"""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.names import dns
from twisted.names.error import DNSNameError

from bouncerd.addresses import IPAddress
from bouncerd.deadline import until

#: Seconds for one question, and how they are shared between its attempts.
QUERY_TIME = 3.0
_ATTEMPTS = (1.0, 2.0)

_Answer: TypeAlias = Deferred[tuple[Sequence[Any], Sequence[Any], Sequence[Any]]]
_Lookup: TypeAlias = Callable[[str, Sequence[float]], _Answer]


class Resolver(Protocol):
    """What we need of `twisted.names.client.Resolver`: names in ASCII, seconds for each attempt."""

    def lookupAddress(self, name: str, timeout: Sequence[float]) -> _Answer:  # noqa: N802
        """Ask for A records."""

    def lookupIPV6Address(self, name: str, timeout: Sequence[float]) -> _Answer:  # noqa: N802
        """Ask for AAAA records."""

    def lookupMailExchange(self, name: str, timeout: Sequence[float]) -> _Answer:  # noqa: N802
        """Ask for MX records."""

    def lookupNameservers(self, name: str, timeout: Sequence[float]) -> _Answer:  # noqa: N802
        """Ask for NS records."""


class Names:
    """What DNS says of a name (in ASCII). None: it does not answer, or not sensibly."""

    def __init__(self, resolver: Resolver, clock: IReactorTime) -> None:
        self._resolver = resolver
        self._clock = clock

    async def takes_mail(self, name: str) -> bool | None:
        """Say whether there are MX records; a lone "." says that no mail is taken (RFC 7505)."""
        records = await self._ask(self._resolver.lookupMailExchange, name, dns.Record_MX)
        return None if records is None else any(bytes(each.name.name) for each in records)

    async def exists(self, name: str) -> bool | None:
        """Say whether there are addresses or name servers. One that there is settles it."""
        resolver = self._resolver
        answers = await self._ask_all(
            (resolver.lookupAddress, name, dns.Record_A),
            (resolver.lookupIPV6Address, name, dns.Record_AAAA),
            (resolver.lookupNameservers, name, dns.Record_NS),
        )
        if any(answers):
            return True
        return None if None in answers else False

    async def knows_the_world(self, top: str) -> bool:
        """Say whether DNS knows the root, or at least a top-level domain."""
        resolver = self._resolver
        answers = await self._ask_all(
            (resolver.lookupNameservers, "", dns.Record_NS),
            (resolver.lookupNameservers, top, dns.Record_NS),
            (resolver.lookupMailExchange, top, dns.Record_MX),
        )
        return any(answers)

    async def addresses(self, name: str) -> list[IPAddress] | None:
        """Find the addresses of a name: those of IPv4 first, which reach more places."""
        resolver = self._resolver
        found = await self._ask_all(
            (resolver.lookupAddress, name, dns.Record_A),
            (resolver.lookupIPV6Address, name, dns.Record_AAAA),
        )
        if found == [None, None]:
            return None
        four, six = (records or [] for records in found)
        addresses: list[IPAddress] = [IPv4Address(each.address) for each in four]
        for each in six:
            address = IPv6Address(each.address)
            addresses.append(address.ipv4_mapped or address)
        return addresses

    async def _ask_all(self, *questions: tuple[_Lookup, str, type]) -> list[list[Any] | None]:
        asked = [Deferred.fromCoroutine(self._ask(*question)) for question in questions]
        return await gatherResults(asked, consumeErrors=True)

    async def _ask(self, lookup: _Lookup, name: str, kind: type) -> list[Any] | None:
        by = self._clock.seconds() + QUERY_TIME
        try:
            answer = await until(by, self._clock, maybeDeferred(lookup, name, _ATTEMPTS))
        except DNSNameError:
            return []
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 -- a server's failure, a socket's, a name that fits not
            return None
        return [each.payload for each in answer[0] if isinstance(each.payload, kind)]
