"""Provider tokens as Apple reads them: who signed, for which team, when (apns.md 2.1)."""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

REMEMBERED = 1000  # verdicts on tokens, by their bytes


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key that Apple knows. `topics` None: all of the team's, else only these.

    `environment` ("production" or "sandbox") binds a key to one; `related` is the id of the
    one other topic-specific key that may be used on the same connection.
    """

    key_id: str
    team_id: str
    public: EllipticCurvePublicKey = field(repr=False)
    environment: str | None = None
    topics: frozenset[str] | None = None
    related: str | None = None


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token whose signature is good; `issued_at` is unix seconds."""

    key: Key
    issued_at: int


class Bearers:
    """Verifies provider tokens against the known keys; each distinct token once."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = {key.key_id: key for key in keys}
        self._known: dict[bytes, Bearer | None] = {}

    def add(self, key: Key) -> None:
        """Accept tokens of this key from now on."""
        self._keys[key.key_id] = key
        self._known.clear()

    def revoke(self, key_id: str) -> None:
        """Accept no more tokens of this key."""
        self._keys.pop(key_id, None)
        self._known.clear()

    def read(self, token: bytes) -> Bearer | None:
        """Verify a token; None if there is anything wrong with it but its age."""
        try:
            return self._known[token]
        except KeyError:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            try:
                bearer = self._verify(token)
            except (ValueError, KeyError, TypeError, InvalidSignature):
                bearer = None
            self._known[token] = bearer
            return bearer

    def _verify(self, token: bytes) -> Bearer:
        """Check everything about a token but its age; raises one of several exceptions."""
        signed, signature = token.rsplit(b".", 1)
        head, claims = (json.loads(_decode(part)) for part in signed.split(b"."))
        if head["alg"] != "ES256":
            raise ValueError("not ES256")
        key = self._keys[head["kid"]]
        key.public.verify(_as_der(_decode(signature)), signed, ECDSA(SHA256()))
        if claims["iss"] != key.team_id or not _is_whole(claims["iat"]):
            raise ValueError("another team's key, or no time")
        return Bearer(key, claims["iat"])


def _decode(part: bytes) -> bytes:
    """Decode base64url as JOSE has it: no padding, no foreign characters."""
    return base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)


def _as_der(signature: bytes) -> bytes:
    """Turn a JOSE signature into DER; Apple takes both, so 64 bytes decide which it is."""
    if len(signature) != 64:
        return signature
    return encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
