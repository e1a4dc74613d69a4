"""HTTP Basic credentials of a Zulip server, and whether they are good (bouncer-api.md 1.4)."""

import binascii
import hashlib
import hmac
import os
import secrets
import string
from base64 import b64decode
from dataclasses import dataclass, field

from bouncerd.envelope import BAD_REQUEST, WireError
from bouncerd.identifiers import canonical_uuid
from bouncerd.model import Server

DEACTIVATED = (
    "The mobile push notification service registration for your server has been deactivated"
)

_KEY_LETTERS = string.ascii_letters + string.digits
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="zulip"'}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller says it is. `uuid` is None if `role` is no UUID at all."""

    role: str
    uuid: str | None
    key_digest: bytes = field(repr=False)


def digest(key: str) -> bytes:
    """Return what is stored of an org key.

    One round of SHA-256 is enough, and must be: keys are 64 random characters, so that there is
    nothing to guess, and this runs in every request.
    """
    return hashlib.sha256(key.encode()).digest()


def new_key() -> str:
    """Make an org key: 64 random letters and digits, as Zulip servers make theirs."""
    return "".join(secrets.choice(_KEY_LETTERS) for _ in range(64))


# What the key of an unknown server is compared with: unknown and known cost the same.
_NOBODY = os.urandom(32)


def read_credentials(header: str | None) -> Credentials:
    """Take an Authorization header apart; raise the WireError it deserves."""
    if header is None:
        raise _unauthorized("Missing authorization header for basic auth")
    words = header.split()
    if len(words) != 2:
        raise _unauthorized("Invalid authorization header for basic auth")
    if words[0].lower() != "basic":
        raise WireError(400, BAD_REQUEST, "This endpoint requires HTTP basic authentication.")
    parts = _decoded(words[1]).split(":")
    if len(parts) != 2:
        raise _unauthorized("Invalid authorization header for basic auth")
    role, key = parts
    if "@" in role:
        raise WireError(400, BAD_REQUEST, "Must validate with valid Zulip server API key")
    return Credentials(role, canonical_uuid(role), digest(key))


def _decoded(text: str) -> str:
    try:
        return b64decode(text).decode()
    except (binascii.Error, ValueError):  # bad base64, not ASCII, not UTF-8
        return ""


def prove(
    credentials: Credentials, server: Server | None, now: float, *, old_key: bool = True
) -> Server:
    """Return the server if the credentials are its own and it may call.

    `old_key`: the key before the latest rotation will do, too, while it lasts (`now` is unix time).
    """
    role = credentials.role
    matches = _matches(credentials.key_digest, server, old_key, now)
    if server is None:
        raise _unauthorized(
            f"Zulip server auth failure: {role} is not registered"
            " -- did you run `manage.py register_server`?"
        )
    if not matches:
        raise _unauthorized(f"Zulip server auth failure: key does not match role {role}")
    if server.deactivated:
        raise _unauthorized(DEACTIVATED)
    return server


def _matches(key_digest: bytes, server: Server | None, old_key: bool, now: float) -> bool:
    # Both are always compared: how long it takes tells nothing of a server, nor of its keys.
    current = _NOBODY if server is None else server.key_digest
    former = (server and server.old_key_digest) or _NOBODY
    is_current = hmac.compare_digest(current, key_digest)
    is_former = hmac.compare_digest(former, key_digest)
    still_good = old_key and server is not None and now < server.old_key_until
    return is_current or (is_former and still_good)


def _unauthorized(msg: str) -> WireError:
    return WireError(401, "UNAUTHORIZED", msg, headers=_CHALLENGE)
