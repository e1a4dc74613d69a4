"""A network of our own: what DNS says, and who answers at an address. Nothing leaves the process.

`RecordedNames` says what DNS said when the reference was recorded.
"""

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.names import dns
from twisted.names.error import DNSNameError
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

Answer: TypeAlias = Deferred[tuple[Sequence[Any], Sequence[Any], Sequence[Any]]]

#: The domain of throw-away addresses that the recordings use.
DISPOSABLE = frozenset({"mailinator.com"})

SILENCE = "no answer at all"
NXDOMAIN = DNSNameError("such a name is unknown")


def records(*payloads: Any) -> list[dns.RRHeader]:
    """Make a section of an answer."""
    return [dns.RRHeader(type=payload.TYPE, payload=payload) for payload in payloads]


def a(*addresses: str) -> list[dns.RRHeader]:
    """Make A and AAAA records."""
    kinds = {4: dns.Record_A, 6: dns.Record_AAAA}
    return records(*(kinds[ip_address(each).version](each) for each in addresses))


def mx(name: str = "mail.example.org") -> list[dns.RRHeader]:
    """Make an MX record."""
    return records(dns.Record_MX(10, name))


def ns() -> list[dns.RRHeader]:
    """Make an NS record."""
    return records(dns.Record_NS("ns.example.org"))


class Zone:
    """A resolver: answers by kind and name, with records, a failure, or SILENCE. Else: none."""

    def __init__(self, **answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    def lookupAddress(self, name: str, timeout: Sequence[float]) -> Answer:  # noqa: N802
        return self._answer("A", name)

    def lookupIPV6Address(self, name: str, timeout: Sequence[float]) -> Answer:  # noqa: N802
        return self._answer("AAAA", name)

    def lookupMailExchange(self, name: str, timeout: Sequence[float]) -> Answer:  # noqa: N802
        return self._answer("MX", name)

    def lookupNameservers(self, name: str, timeout: Sequence[float]) -> Answer:  # noqa: N802
        return self._answer("NS", name)

    def _answer(self, kind: str, name: str) -> Answer:
        self.asked.append((kind, name))
        root = ns() if (kind, name) == ("NS", "") else []
        answer = self.answers.get(kind, {}).get(name, root)
        if isinstance(answer, Callable):  # type: ignore[arg-type] # one that changes its mind
            answer = answer()
        if isinstance(answer, Exception):
            return fail(answer)
        return Deferred() if answer is SILENCE else succeed((answer, [], []))


class RecordedNames(Zone):
    """*.nomx.test has an address only, *.nxdomain.test does not exist, all else takes mail."""

    def _answer(self, kind: str, name: str) -> Answer:
        if name.endswith("nxdomain.test"):
            return fail(NXDOMAIN)
        if name.endswith("nomx.test"):
            return succeed((a("192.0.2.1") if kind == "A" else [], [], []))
        return succeed((mx() if kind == "MX" else [], [], []))


@implementer(IAgent)
class Nowhere:
    """An agent that reaches nobody."""

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803 (IAgent's)
    ) -> Deferred[IResponse]:
        """Fail at once."""
        return fail(Refused())
