"""Network addresses: whose request it is, and where we may connect to on a stranger's word.

Pure. A proxy is believed only if the operator trusts it; what it says is read from the right.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import TypeAlias

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# A peer on a unix socket has no address. It is on this host, so that it is trusted as a proxy if
# 127.0.0.1 is, and not otherwise.
_THIS_HOST = ipaddress.IPv4Address("127.0.0.1")

# What Python 3.11 takes for public, and is not (or not for us): relays, tunnels that can carry
# any IPv4 address, documentation. Of IPv6 only 2000::/3 is given out at all.
_NOT_PUBLIC_4 = ipaddress.IPv4Network("192.88.99.0/24")
_GIVEN_OUT_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)


def read_address(text: str) -> IPAddress | None:
    """Read an address as peers and proxies spell it, perhaps with a zone or a port."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return _unwrapped(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def client_address(
    peer: str | None, forwarded: Iterable[str], trusted: Sequence[IPNetwork]
) -> IPAddress:
    """Say who asks: `peer` (None: on a unix socket), or whom trusted proxies name.

    `forwarded` are the values of X-Forwarded-For. Each proxy adds the address that it was asked
    from at the right; so the first one from there that is no trusted proxy is the client. All
    further left is the client's own word. Where a proxy names no address it stands for itself.
    """
    client = _THIS_HOST if peer is None else read_address(peer)
    assert client is not None, "a socket's own address"
    hops = ",".join(forwarded).split(",")
    while hops and _is_one_of(client, trusted):
        named = read_address(hops.pop())
        if named is None:
            break
        client = named
    return client


def block_of(address: IPAddress) -> str:
    """Name what one client can have: an IPv4 address, or a /64 of IPv6."""
    if address.version == 4:
        return str(address)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def is_public(address: IPAddress) -> bool:
    """Say whether an address is anybody's on the internet: not this host's, network's or site's."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and address not in _NOT_PUBLIC_4
    return (
        address.ipv4_mapped is None
        and address.is_global
        and address in _GIVEN_OUT_6
        and not _is_one_of(address, _NOT_PUBLIC_6)
    )


def _is_one_of(address: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    return any(address in network for network in networks)


def _unwrapped(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that an IPv6 one is another spelling of, else itself."""
    return getattr(address, "ipv4_mapped", None) or address
