"""What we said ourselves, sealed: text that comes back unchanged, and only for so long.

Pure. Each purpose has a key of its own, derived from the store's one secret, so that nothing made
for one purpose is taken for another.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_TAG = sha256().digest_size
_TIME = 8


def key_for(secret: bytes, purpose: str) -> bytes:
    """Derive the key of one purpose (RFC 5869)."""
    return HKDF(SHA256(), 32, salt=None, info=f"bouncerd {purpose}".encode()).derive(secret)


class Seal:
    """Seals text for `lasts` seconds. The text can be read by anyone who holds it."""

    def __init__(self, key: bytes, lasts: float) -> None:
        self._key = key
        self._lasts = lasts

    def close(self, text: str, now: float) -> str:
        """Seal a text at `now` (unix seconds); the result is safe in URLs and in cookies."""
        body = int(now + self._lasts).to_bytes(_TIME, "big") + text.encode()
        return urlsafe_b64encode(self._tag(body) + body).rstrip(b"=").decode()

    def open(self, sealed: str, now: float) -> str | None:
        """Return the text, or None if it is not ours, was changed, or is too old."""
        try:
            whole = urlsafe_b64decode(sealed.encode("ascii") + b"=" * (-len(sealed) % 4))
        except ValueError:
            return None
        tag, body = whole[:_TAG], whole[_TAG:]
        if not hmac.compare_digest(tag, self._tag(body)):
            return None
        until = int.from_bytes(body[:_TIME], "big")
        return body[_TIME:].decode() if now <= until else None

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")
