"""Where a database server is: its names looked up before the library would, which blocks."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from bouncerd.store.base import StoreUnavailable


@implementer(IResolutionReceiver)
class _Addresses:
    """Gathers the addresses of one name."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self.complete: Deferred[list[str]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N802, N803
        """Do nothing."""

    def addressResolved(self, address: IAddress) -> None:  # noqa: N802
        """Keep an address."""
        host: str = getattr(address, "host", "")
        if host and host not in self._found:
            self._found.append(host)

    def resolutionComplete(self) -> None:  # noqa: N802
        """Hand them over."""
        self.complete.callback(self._found)


async def addressed(parameters: Mapping[str, str], reactor: Any) -> Mapping[str, str]:
    """Return parameters of a connection with `hostaddr`, if names are among its hosts.

    The name stays, for the server's certificate. Fails with StoreUnavailable if none is known.
    """
    hosts = parameters.get("host", "").split(",")
    if "hostaddr" in parameters or not any(map(_is_name, hosts)):
        return parameters
    ports = parameters.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    found = await gatherResults([_addresses(host, reactor) for host in hosts])
    places = [
        (host, address, port)
        for host, addresses, port in zip(hosts, found, ports, strict=False)
        for address in addresses
    ]
    if not places:
        raise StoreUnavailable("no address of its host name")
    each = (",".join(values) for values in zip(*places, strict=True))
    return {**parameters, **dict(zip(("host", "hostaddr", "port"), each, strict=True))}


def _is_name(host: str) -> bool:
    if not host or host.startswith(("/", "@")):  # a socket
        return False
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False


def _addresses(host: str, reactor: Any) -> Deferred[list[str]]:
    receiver = _Addresses()
    if _is_name(host):
        reactor.nameResolver.resolveHostName(receiver, host)
    else:
        receiver.complete.callback([host if not host.startswith(("/", "@")) else ""])
    return receiver.complete
