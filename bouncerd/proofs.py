"""The secret that a host shows to prove a transfer (bouncer-api.md 5.2): ours, short-lived, signed.

Pure. Nothing is kept: the secret says itself which host it is for and when it was made.
"""

import hmac
from base64 import b16decode, b16encode
from hashlib import sha256

from bouncerd.envelope import bad_request
from bouncerd.seals import key_for

#: Seconds from `server/register/transfer` to the host's answer.
LIFETIME = 10.0

_TAG = sha256().digest_size
_TIME = 8


class Proofs:
    """Issues secrets and checks them; `secret` is the store's."""

    def __init__(self, secret: bytes) -> None:
        self._key = key_for(secret, "registration transfer")

    def issue(self, hostname: str, now: float) -> str:
        """Make a secret for a host at `now` (unix seconds)."""
        said = int(now * 1000).to_bytes(_TIME, "big") + hostname.encode()
        return b16encode(self._tag(said) + said).decode()

    def check(self, text: str, hostname: str, now: float) -> None:
        """Raise the WireError that a host's secret deserves."""
        try:
            whole = b16decode(text)
        except ValueError:
            raise bad_request("The verification secret is malformed") from None
        tag, said = whole[:_TAG], whole[_TAG:]
        if not hmac.compare_digest(tag, self._tag(said)):
            raise bad_request("The verification secret is invalid")
        # Processes that share a store may differ a little in what time it is, either way.
        age = now - int.from_bytes(said[:_TIME], "big") / 1000
        if abs(age) > LIFETIME:
            raise bad_request("The verification secret has expired")
        if said[_TIME:] != hostname.encode():
            raise bad_request("The verification secret is for a different hostname")

    def _tag(self, said: bytes) -> bytes:
        return hmac.digest(self._key, said, "sha256")
