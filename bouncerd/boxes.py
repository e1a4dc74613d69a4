"""Sealed boxes: what phones close to one of our public keys (bouncer-api.md 12.3, 12.4).

The only module that knows PyNaCl. What is in a box is a phone's token; it is never quoted.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox


class Boxes:
    """Opens boxes with any of our X25519 private keys (32 bytes each, the current one first)."""

    def __init__(self, private_keys: Sequence[bytes] = ()) -> None:
        keys = [PrivateKey(key) for key in private_keys]
        self._by_public_key = {_text(bytes(key.public_key)): SealedBox(key) for key in keys}

    @property
    def public_keys(self) -> list[str]:
        """The public keys in base64, the current one first: an app carries one of them."""
        return list(self._by_public_key)

    def __contains__(self, public_key: str) -> bool:
        """Whether this is one of our public keys, in exactly our spelling."""
        return public_key in self._by_public_key

    def open(self, public_key: str, box: str) -> bytes | None:
        """Open a box (base64) closed to a key of ours; None if it is none, or to another key."""
        closed = decoded(box)
        if closed is None:
            return None
        try:
            return self._by_public_key[public_key].decrypt(closed)
        except CryptoError:
            return None


def decoded(text: str) -> bytes | None:
    """Decode standard, padded base64; None for anything else."""
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return None


def _text(key: bytes) -> str:
    return b64encode(key).decode("ascii")
