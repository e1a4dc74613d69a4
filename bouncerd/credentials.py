"""Key material: Apple's keys and certificates, Google's service accounts, our own e2ee keys.

Knows file formats; nothing of INI, of where files lie, or of Twisted. What is wrong with a file
is said by `Unusable` in words of ours: nothing of a file's content is ever in a message.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

EXPIRES_SOON = timedelta(days=30)
_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_ACCOUNT_FIELDS = ("project_id", "client_email", "private_key_id", "private_key", "token_uri")
_VISIBLE = re.compile(r"[!-~]{1,512}")
# In the clear to this machine alone, for stand-ins.
_TOKEN_URI = re.compile(
    r"(https://[A-Za-z0-9\[][A-Za-z0-9.:\[\]_-]*|http://(localhost|127\.0\.0\.1)(:[0-9]+)?)(/[!-~]*)?"
)
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,99}")

# Apple marks a push certificate with the environments it is good for (apns.md 2.2).
_APPLE_ENVIRONMENTS = {
    "sandbox": x509.ObjectIdentifier("1.2.840.113635.100.6.3.1"),
    "production": x509.ObjectIdentifier("1.2.840.113635.100.6.3.2"),
}


class Unusable(Exception):
    """The content of a file cannot be used. The text continues the sentence "FILE …"."""


@dataclass(frozen=True, slots=True)
class ApnsKey:
    """A token-signing key of Apple's; `pem` is unencrypted PKCS#8, P-256."""

    key_id: str
    team_id: str
    pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A TLS client certificate: `pem` leaf first, then its chain. `expires_at`: unix seconds."""

    pem: bytes
    key_pem: bytes = field(repr=False)
    expires_at: float


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What we use of Google's service account file (fcm.md 2.1)."""

    project_id: str
    client_email: str
    private_key_id: str
    private_key_pem: bytes = field(repr=False)
    token_uri: str


def signing_key(data: bytes) -> bytes:
    """Return the P-256 key of a .p8 file as PKCS#8 PEM, or raise Unusable."""
    key = _private_key(data)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unusable(f"holds {_kind(key)}, not a P-256 one")
    if not isinstance(key.curve, ec.SECP256R1):
        raise Unusable(f"holds an elliptic-curve key on {key.curve.name}, not on P-256")
    return _pkcs8(key)


def client_certificate(data: bytes, now: float, key_data: bytes | None = None) -> ClientCertificate:
    """Return a certificate that is valid at `now` with its matching key, or raise Unusable.

    `key_data`: where the key is, if it is not beside the certificate.
    """
    chain = _certificates(data)
    key = _private_key(data if key_data is None else key_data)
    public = _public(key)
    leaf = next((each for each in chain if _public(each) == public), None)
    if public is None or leaf is None:
        raise Unusable("holds a private key that does not match its certificate")
    _check_dates(leaf, datetime.fromtimestamp(now, UTC))
    ordered = [leaf, *(each for each in chain if each is not leaf)]
    return ClientCertificate(_pem(ordered), _pkcs8(key), leaf.not_valid_after_utc.timestamp())


def foreign_environment(certificate: ClientCertificate, environment: str) -> str | None:
    """Return the environment that a certificate of Apple's is good for, if it is not this one."""
    leaf = x509.load_pem_x509_certificates(certificate.pem)[0]
    try:
        marks = {extension.oid for extension in leaf.extensions}
    except ValueError:
        return None
    good_for = [name for name, oid in _APPLE_ENVIRONMENTS.items() if oid in marks]
    return None if not good_for or environment in good_for else good_for[0]


def expires_soon(certificate: ClientCertificate, now: float) -> str | None:
    """Return the day on which a certificate expires, if that is within 30 days of `now`."""
    if certificate.expires_at - now > EXPIRES_SOON.total_seconds():
        return None
    return f"{datetime.fromtimestamp(certificate.expires_at, UTC):%Y-%m-%d}"


def trust_roots(data: bytes) -> bytes:
    """Return the certificates of a CA file as PEM, nothing else of it, or raise Unusable."""
    return _pem(_certificates(data))


def ends_of(pem: bytes) -> list[float]:
    """Return when each certificate of a PEM file ends, in unix seconds."""
    return [each.not_valid_after_utc.timestamp() for each in _certificates(pem)]


def service_account(data: bytes) -> ServiceAccount:
    """Return the parts of a service account file that we use, or raise Unusable."""
    fields = _json_object(data)
    if fields.get("type") != "service_account":
        raise Unusable(_what_account(fields))
    missing = [name for name in _ACCOUNT_FIELDS if not _filled(fields.get(name))]
    if missing:
        raise Unusable(f"lacks {', '.join(missing)}")
    project_id, client_email, key_id, key, token_uri = (str(fields[n]) for n in _ACCOUNT_FIELDS)
    if not _PROJECT.fullmatch(project_id):
        raise Unusable("has a project_id that is not one of Google's")
    if "@" not in client_email or not _VISIBLE.fullmatch(client_email):
        raise Unusable("has a client_email that is not an address")
    if not _VISIBLE.fullmatch(key_id):
        raise Unusable("has a private_key_id with spaces or other unusual characters")
    if not _TOKEN_URI.fullmatch(token_uri):
        raise Unusable("has a token_uri that is not an https:// address")
    pem = _account_key(key)
    return ServiceAccount(project_id, client_email, key_id, pem, token_uri)


def is_legacy_fcm_key(text: str) -> bool:
    """Say whether this is a server key of the FCM that Google switched off in 2024."""
    return bool(re.fullmatch(r"AAAA[\w-]{7}:[\w-]{100,200}|AIza[\w-]{35}", text.strip()))


def e2ee_keys(data: bytes) -> tuple[bytes, ...]:
    """Return the 32-byte keys of a file with one base64 key a line, first is current."""
    keys: list[bytes] = []
    for number, line in enumerate(data.splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        key = _base64(text)
        if len(key) != 32:
            raise Unusable(f"line {number} is not the base64 form of 32 bytes")
        if key in keys:
            raise Unusable(f"line {number} repeats an earlier key")
        keys.append(key)
    if not keys:
        raise Unusable("holds no key")
    return tuple(keys)


def _private_key(data: bytes) -> PrivateKeyTypes:
    blocks = [match for match in _PEM_BLOCK.finditer(data) if match[1].endswith(b"PRIVATE KEY")]
    if not blocks:
        raise Unusable(_what_instead(data))
    if len(blocks) > 1:
        raise Unusable("holds more than one private key")
    try:
        return serialization.load_pem_private_key(blocks[0][0], password=None)
    except TypeError:
        raise Unusable("holds an encrypted private key") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable("holds a private key that cannot be read") from None


def _certificates(data: bytes) -> list[x509.Certificate]:
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise Unusable(_what_instead(data) if b"PRIVATE KEY" not in data else "has no certificate")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise Unusable("holds a certificate that cannot be read") from None


def _what_instead(data: bytes) -> str:
    """Say what a file is that is not the PEM we looked for."""
    if not data.strip():
        return "is empty"
    if data.startswith(b"\x30"):
        return "is binary (DER or PKCS#12), not PEM; `openssl pkcs12 -nodes` converts a .p12"
    if b"-----BEGIN CERTIFICATE-----" in data:
        return "holds a certificate but no private key"
    if b"-----BEGIN " in data and b"-----END " not in data:
        return "is cut off"
    return "is not PEM"


def _check_dates(leaf: x509.Certificate, now: datetime) -> None:
    if now >= leaf.not_valid_after_utc:
        raise Unusable(f"holds a certificate that expired on {leaf.not_valid_after_utc:%Y-%m-%d}")
    if now < leaf.not_valid_before_utc:
        day = f"{leaf.not_valid_before_utc:%Y-%m-%d}"
        raise Unusable(f"holds a certificate that is not valid before {day}")


def _json_object(data: bytes) -> dict[str, object]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        legacy = is_legacy_fcm_key(data.decode("utf-8", "replace"))
        raise Unusable(LEGACY_KEY if legacy else "is not JSON") from None
    if not isinstance(fields, dict):
        raise Unusable("is not a JSON object")
    return fields


LEGACY_KEY = (
    "holds a legacy server key, which Google switched off in 2024; FCM HTTP v1 needs a service"
    " account (Firebase console: Project settings, Service accounts, Generate new private key)"
)


def _what_account(fields: dict[str, object]) -> str:
    if "project_info" in fields:
        return "is google-services.json, which belongs in the app, not a service account file"
    if "installed" in fields or "web" in fields:
        return "is an OAuth client file, not a service account file"
    if "type" in fields:
        return "is not a service account file: its type is another one"
    return "is not a service account file: it lacks type"


def _filled(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _account_key(text: str) -> bytes:
    # Environment variables and secret stores turn line ends into a backslash and an n.
    try:
        key = _private_key(text.replace("\\n", "\n").encode())
    except Unusable as wrong:
        raise Unusable(f"has a private_key that {wrong}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Unusable(f"has a private_key that holds {_kind(key)}, not an RSA one")
    return _pkcs8(key)


def _kind(key: PrivateKeyTypes) -> str:
    match key:
        case rsa.RSAPrivateKey():
            return "an RSA key"
        case ec.EllipticCurvePrivateKey():
            return "an elliptic-curve key"
        case dsa.DSAPrivateKey():
            return "a DSA key"
        case ed25519.Ed25519PrivateKey() | ed448.Ed448PrivateKey():
            return "an Edwards-curve key"
    return "a key of another kind"


def _base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _public(holder: PrivateKeyTypes | x509.Certificate) -> bytes | None:
    """Return a public key in the one form that can be compared; None if it cannot be read."""
    try:
        return holder.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm):
        return None


def _pkcs8(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)
