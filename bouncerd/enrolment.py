"""What `server/register` is asked, and which host names and addresses it takes (bouncer-api.md 4).

Pure. Whether a domain exists is asked elsewhere, of DNS.
"""

import ipaddress
import re
import string
from dataclasses import dataclass, field
from uuid import UUID

from bouncerd.basicauth import DEACTIVATED, digest
from bouncerd.envelope import WireError, bad_request
from bouncerd.forms import Form

_UUID_LENGTH = 36
_KEY_LENGTH = 64
MAX_HOSTNAME = 128
_MAX_EMAIL = 320


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A Zulip server that wants to be known, or known differently."""

    uuid: str
    key_digest: bytes = field(repr=False)
    hostname: str
    contact_email: str
    new_key_digest: bytes | None = field(repr=False)


def parse_enrolment(form: Form) -> Enrolment:
    """Read `server/register`; what is left to check is the domain of the address, then the id."""
    uuid = form.fixed("zulip_org_id", _UUID_LENGTH)
    key = form.fixed("zulip_org_key", _KEY_LENGTH)
    hostname = form.limited("hostname", MAX_HOSTNAME)
    contact_email = form.text("contact_email")
    new_key = form.maybe_fixed("new_org_key", _KEY_LENGTH)
    check_hostname(hostname)
    check_email(contact_email)
    return Enrolment(
        uuid, digest(key), hostname, contact_email, None if new_key is None else digest(new_key)
    )


def wrong_key(role: str) -> WireError:
    """Build the answer to an update with another key than the registered one."""
    return bad_request(
        f"Zulip server auth failure: key does not match role {role}",
        code="INVALID_ZULIP_SERVER",
        role=role,
    )


def deactivated() -> WireError:
    """Build the answer to an update of a deactivated server."""
    return WireError(401, "REALM_DEACTIVATED", DEACTIVATED)


def hostname_taken(hostname: str) -> WireError:
    """Build the answer for a host name that another server has."""
    return bad_request(
        f"A server with hostname {hostname} already exists",
        code="HOSTNAME_ALREADY_IN_USE_BOUNCER_ERROR",
        hostname=hostname,
    )


def check_uuid(text: str) -> None:
    """Raise unless this is a version 4 UUID in its own normal form."""
    try:
        uuid = UUID(text)
    except ValueError:
        raise bad_request("Invalid UUID") from None
    if uuid.version != 4 or str(uuid) != text:
        raise bad_request("Invalid UUID")


def check_hostname(text: str) -> None:
    """Raise unless this is a host, perhaps with a port, and nothing else."""
    authority = re.split("[/?#]", text, maxsplit=1)[0]
    user, has_user, place = authority.rpartition("@")
    if any(map(str.isspace, text)) or "@" in user or not _is_host_and_port(place):
        raise bad_request(f"{text} is not a valid hostname")
    if has_user or authority != text:
        raise bad_request(f"{text} contains invalid components (e.g., path, query, fragment).")


def split_port(text: str) -> tuple[str, str]:
    """Split host and port; "" if there is none."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # the colons within brackets are an address's
        return text, ""
    return host, port


def _is_host_and_port(text: str) -> bool:
    host, port = split_port(text)
    if not port:
        return not text.endswith(":") and _is_host(host)
    return len(port) <= 5 and port.isascii() and port.isdigit() and _is_host(host)


def _is_host(text: str) -> bool:
    if text.startswith("[") and text.endswith("]"):
        return "%" not in text and _is_address(text[1:-1], ipaddress.IPv6Address)
    if text.lower() == "localhost" or _is_address(text, ipaddress.IPv4Address):
        return True
    return _is_domain(text) or _is_domain(ascii_name(text))


def _is_domain(text: str) -> bool:
    *labels, last = text.removesuffix(".").split(".")
    return bool(labels) and all(map(_is_label, labels)) and _is_label(last) and _is_top(last)


_ASCII_LABEL = frozenset(string.ascii_letters + string.digits + "-")


def _is_label(text: str) -> bool:
    if not 1 <= len(text) <= 63 or text[0] == "-" or text[-1] == "-":
        return False
    return all(each in _ASCII_LABEL or "\u00a1" <= each <= "\uffff" for each in text)


def _is_top(label: str) -> bool:
    if label.lower().startswith("xn--"):
        return label.isascii()
    return len(label) >= 2 and not any(each in string.digits for each in label)


def _is_address(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def ascii_name(text: str) -> str:
    """Spell a domain name as DNS does; "" if it cannot be."""
    try:
        return text.encode("idna").decode()
    except UnicodeError:
        return ""


def check_email(text: str) -> None:
    """Raise unless this is an e-mail address that somebody may read."""
    local, _, domain = text.rpartition("@")
    if len(text) > _MAX_EMAIL or not _is_local_part(local) or not _is_mail_domain(domain):
        raise bad_request("Enter a valid email address.")
    if domain.lower() == "example.com":
        raise bad_request("Invalid email address.")


_ATOM = frozenset(string.ascii_letters + string.digits + "-!#$%&'*+/=?^_`{}|~")
# Between quotes: printable, no space, and a backslash before what would end it.
_is_quoted = re.compile(r'"(?:[!#-\[\]-~]|\\[!-~])*"').fullmatch


def _is_local_part(text: str) -> bool:
    atoms = text.split(".")
    return all(atom and _ATOM.issuperset(atom) for atom in atoms) or bool(_is_quoted(text))


def _is_mail_domain(text: str) -> bool:
    if text == "localhost":
        return True
    if text.startswith("[") and text.endswith("]"):
        literal = text[1:-1]
        return "%" not in literal and (
            _is_address(literal, ipaddress.IPv4Address)
            or _is_address(literal, ipaddress.IPv6Address)
        )
    labels = (text if text.isascii() else ascii_name(text)).split(".")
    return (
        len(labels) > 1
        and all(label.isascii() and _is_label(label) for label in labels)
        and len(labels[-1]) >= 2
    )
