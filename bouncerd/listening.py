"""The syntax of listening addresses, as Twisted's endpoint strings write them.

A mistake in one is told with all others, before Twisted sees it; nothing is opened here.
"""

import ipaddress
import re

from bouncerd.ini import nearest, shown

# What each kind takes by position or by name, and what by name only. The first is needed.
_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "tcp": (("port", "interface", "backlog"), ()),
    "ssl": (
        ("port", "privateKey", "certKey"),
        ("interface", "backlog", "extraCertChain", "dhParameters"),
    ),
    "unix": (("address",), ("mode", "backlog", "lockfile")),
    "systemd": (("domain", "index"), ("name",)),
}
ACCEPTED = "tcp:PORT:interface=ADDRESS, ssl:, unix:PATH or systemd:, one a line"


class Malformed(Exception):
    """An endpoint string that cannot be used; the text says why."""


def arguments(endpoint: str) -> dict[str, str]:
    """Return the arguments of an endpoint by name, with its `kind`, or raise Malformed."""
    kind, *parts = re.split(r"(?<!\\):", endpoint)
    if kind not in _KINDS:
        raise Malformed(f"unknown kind {shown(kind)}")
    positional, named = _KINDS[kind]
    by_position = list(positional)
    found = {"kind": kind}
    for part in parts:
        name, *value = re.split(r"(?<!\\)=", part, maxsplit=1)
        if not value and by_position:
            name, value = by_position.pop(0), [part]
        if name not in positional + named or not value:
            raise Malformed(f"{shown(name)} is nothing that {kind}: takes ({_meant(name, kind)})")
        if name in found:
            raise Malformed(f"{name} is there twice")
        found[name] = re.sub(r"\\(.)", r"\1", value[0])
    _check(kind, found)
    return found


def is_local(found: dict[str, str]) -> bool:
    """Say whether only this machine can reach the endpoint."""
    if found["kind"] not in ("tcp", "ssl"):
        return True
    interface = found.get("interface", "")
    return bool(interface) and ipaddress.ip_address(interface).is_loopback


def _meant(name: str, kind: str) -> str:
    positional, named = _KINDS[kind]
    return nearest(name, positional + named)


def _check(kind: str, found: dict[str, str]) -> None:
    needed = _KINDS[kind][0][0]
    if not found.get(needed):
        raise Malformed(f"{kind}: needs a {needed}")
    if "port" in found and not _whole(found["port"], 65535):
        raise Malformed(f"port {shown(found['port'])} is not a number from 0 to 65535")
    if "backlog" in found and not _whole(found["backlog"], 65535):
        raise Malformed(f"backlog {shown(found['backlog'])} is not a number")
    if not re.fullmatch(r"[0-7]{3,4}", found.get("mode", "660")):
        raise Malformed(f"mode {shown(found['mode'])} is not octal, such as 660")
    if kind == "systemd":
        _check_inherited(found)
    _check_interface(found.get("interface", ""))


def _check_inherited(found: dict[str, str]) -> None:
    if found["domain"] not in ("INET", "INET6", "UNIX"):
        raise Malformed(f"domain {shown(found['domain'])} is not INET, INET6 or UNIX")
    if ("index" in found) == ("name" in found):
        raise Malformed("systemd: takes an index or a name, one of them")
    if "index" in found and not _whole(found["index"], 1000):
        raise Malformed(f"index {shown(found['index'])} is not a number")


def _check_interface(interface: str) -> None:
    try:
        if interface:
            ipaddress.ip_address(interface)
    except ValueError:
        raise Malformed(f"interface {shown(interface)} is not an address") from None


def _whole(text: str, high: int) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,9}", text)) and int(text) <= high
