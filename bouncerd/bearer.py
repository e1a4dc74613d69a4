"""Bearer tokens: Apple's provider token and the assertion that Google exchanges.

Knows JWTs, and when one must and must not be replaced (apns.md 2.1, fcm.md 2.2); nothing of HTTP,
of the network or of Twisted. Keys come in as PEM and are never shown.
"""

import base64
import json
from collections.abc import Callable, Mapping

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

# Apple refuses a token over 60 minutes old, and a second new one within 20 minutes on a connection.
# A connection opened at the end of a generation carries it for HOLD more: 56 minutes at most.
GENERATION = 35 * 60
HOLD = 21 * 60
#: Further than this from our clock, a token is as good as refused.
USABLE = 58 * 60

GOOGLE_SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
#: Google refuses an assertion from the future: this much a fast clock is forgiven.
FAST_CLOCK = 30
ASSERTION_LIFETIME = 3600


def rfc6979() -> ec.ECDSA:
    """Return ECDSA with deterministic nonces; UnsupportedAlgorithm where OpenSSL is too old."""
    return ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


class Adoption:
    """The provider token that one connection uses: `authorization` is the header's value."""

    __slots__ = ("authorization", "forced", "generation", "since")

    def __init__(self, generation: int, authorization: str, since: float) -> None:
        self.generation = generation
        self.authorization = authorization
        self.since = since
        self.forced = False

    def __repr__(self) -> str:
        return f"<Adoption of generation {self.generation}>"


class ProviderToken:
    """Apple's token for one key, on the schedule of apns.md 2.1.

    A generation's `iat` is the wall time rounded down to 35 minutes and its signature is
    deterministic, so every process and every restart mints the same bytes, and Apple sees two
    tokens of a team at most without any coordination. `deterministic` is False where the local
    OpenSSL cannot do that: then each process has its own.
    """

    def __init__(
        self,
        key_id: str,
        team_id: str,
        pem: bytes,
        monotonic: Callable[[], float],
        *,
        algorithm: Callable[[], ec.ECDSA] = rfc6979,
    ) -> None:
        key = load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("an APNs key is an elliptic-curve key")
        self._key = key
        self._key_id = key_id
        self._team_id = team_id
        self._monotonic = monotonic
        self._minted: dict[int, str] = {}
        self._accepted: int | None = None
        try:
            self._algorithm = algorithm()
            self.deterministic = True
        except UnsupportedAlgorithm:
            self._algorithm = ec.ECDSA(hashes.SHA256())
            self.deterministic = False

    def adopt(self, now: float) -> Adoption:
        """Give a new connection the newest token (`now`: unix seconds)."""
        generation = int(now // GENERATION)
        return Adoption(generation, self._authorization(generation), self._monotonic())

    def renew(self, adoption: Adoption, now: float) -> bool:
        """Move a connection to the newest token if it may have it; say whether it moved.

        Between two moves lie 21 minutes of monotonic time, whatever the wall clock does. Only a
        token that a step of the clock has put beyond Apple's hour is replaced at once (a
        suspended machine woke up, say): it is sure to be refused, and that would cost the
        connection. Once, so that a clock that jumps to and fro does not mint a token a jump.
        """
        newest = int(now // GENERATION)
        if newest == adoption.generation:
            return False
        instant = self._monotonic()
        early = instant - adoption.since < HOLD
        unusable = abs(now - adoption.generation * GENERATION) > USABLE
        if early and (adoption.forced or not unusable):
            return False
        adoption.generation = newest
        adoption.authorization = self._authorization(newest)
        adoption.since = instant
        adoption.forced = early
        return True

    def newest_issued_at(self) -> int | None:
        """Return when the newest token in use was issued (unix seconds), if there is any."""
        return max(self._minted) * GENERATION if self._minted else None

    def accepted(self, adoption: Adoption) -> None:
        """Note that Apple took this token."""
        self._accepted = adoption.generation

    def clock_is_wrong(self, adoption: Adoption, now: float) -> bool:
        """Judge a token that Apple called expired.

        By our clock it is at most 56 minutes old. If it is of the newest generation, a new
        connection would show Apple the same bytes, so unless Apple took them before there is
        nothing to try: our clock is at least 25 minutes slow, or over an hour fast. (With tokens
        minted at will one would ask whether it is younger than five minutes: apns.md 4.1. Ours
        may be born 34 minutes old.)
        """
        return adoption.generation == int(now // GENERATION) != self._accepted

    def _authorization(self, generation: int) -> str:
        minted = self._minted.get(generation)
        if minted is None:
            minted = self._minted[generation] = f"bearer {self._mint(generation * GENERATION)}"
            if len(self._minted) > 2:
                del self._minted[max(self._minted, key=lambda each: abs(each - generation))]
        return minted

    def _mint(self, issued_at: int) -> str:
        header = {"alg": "ES256", "kid": self._key_id}
        claims = {"iss": self._team_id, "iat": issued_at}
        signed = _segment(header) + b"." + _segment(claims)
        r, s = decode_dss_signature(self._key.sign(signed, self._algorithm))
        # JOSE wants the two numbers at full width, not the DER that OpenSSL makes (RFC 7518, 3.4).
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return (signed + b"." + _base64url(signature)).decode("ascii")


class GoogleAssertion:
    """What a service account shows Google's token endpoint for an access token."""

    def __init__(self, client_email: str, key_id: str, pem: bytes, token_uri: str) -> None:
        self.token_uri = token_uri
        self._client_email = client_email
        self._key_id = key_id
        key = load_pem_private_key(pem, None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("a service account's key is an RSA key")
        self._key = key

    def sign(self, now: float) -> str:
        """Return an assertion for one exchange at `now` (unix seconds)."""
        issued_at = int(now) - FAST_CLOCK
        claims = {
            "iss": self._client_email,
            "scope": GOOGLE_SCOPE,
            "aud": self.token_uri,
            "iat": issued_at,
            "exp": issued_at + ASSERTION_LIFETIME,
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self._key_id})


def _segment(part: Mapping[str, object]) -> bytes:
    return _base64url(json.dumps(part, separators=(",", ":")).encode())


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
