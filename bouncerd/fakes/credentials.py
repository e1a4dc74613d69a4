"""Throw-away credentials, made on the spot: a CA, server and client certificates, keys, accounts.

Everything is valid for a year (what is expired was valid until yesterday) and good for nothing
but the fakes. Keys are written readable by their owner only, as the real ones should be.
"""

import datetime
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import CertificateOptions, TLSVersion

from bouncerd.fakes.bearers import Key
from bouncerd.fakes.certificates import PRODUCTION_USE, SANDBOX_USE

NAMES = (
    "localhost",
    "api.push.apple.com",
    "api.sandbox.push.apple.com",
    "fcm.googleapis.com",
    "oauth2.googleapis.com",
)
KEY_ID, TEAM_ID = "FAKEKEY123", "FAKETEAM12"
PROJECT = "fake-project"
DAY = datetime.timedelta(days=1)
ASN1_NULL = b"\x05\x00"

_SigningKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority: its certificate and its key."""

    certificate: x509.Certificate
    key: _SigningKey


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where everything lies, and what the servers need in memory.

    `apns_key_file` is the .p8 of `KEY_ID` and `TEAM_ID`. The client certificate files hold a
    certificate and its key. `account_file` is the service account, whose `token_uri` is set by
    `address_account` once the token endpoint has a port.
    """

    directory: Path
    ca_file: Path
    apns_key_file: Path
    client_file: Path
    expired_client_file: Path
    foreign_client_file: Path
    sandbox_client_file: Path
    account_file: Path
    account: dict[str, str]
    apns_key: Key
    authority: Authority
    server_key: _SigningKey
    server_certificate: x509.Certificate

    def context(
        self,
        *,
        alpn: tuple[bytes, ...] = (b"h2",),
        client: str = "",
        newest: TLSVersion = TLSVersion.TLSv1_3,
    ) -> IOpenSSLContextFactory:
        """Make a server's TLS context. `alpn` empty: none is spoken.

        `client`: "" asks for no certificate, "optional" takes one of our CA, "required" insists.
        """
        context: IOpenSSLContextFactory = CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(self.server_key),
            certificate=crypto.X509.from_cryptography(self.server_certificate),
            acceptableProtocols=list(alpn) or None,
            lowerMaximumSecurityTo=newest,
            verify=bool(client),
            caCerts=[crypto.X509.from_cryptography(self.authority.certificate)] if client else None,
            requireCertificate=client == "required",
        )
        return context

    def address_account(self, token_uri: str) -> None:
        """Write the service account file again, with this `token_uri`."""
        self.account["token_uri"] = token_uri
        _write_secret(self.account_file, json.dumps(self.account, indent=2).encode())


def make(directory: Path, *, bundle_id: str = "org.example.app") -> Credentials:
    """Make one of everything and write it into a directory that exists."""
    authority, stranger = _authority("bouncerd fakes"), _authority("someone else")
    server_key = ec.generate_private_key(ec.SECP256R1())
    apns_key = ec.generate_private_key(ec.SECP256R1())
    made = Credentials(
        directory=directory,
        ca_file=directory / "ca.pem",
        apns_key_file=directory / f"AuthKey_{KEY_ID}.p8",
        client_file=directory / "apns-client.pem",
        expired_client_file=directory / "apns-client-expired.pem",
        foreign_client_file=directory / "apns-client-foreign.pem",
        sandbox_client_file=directory / "apns-client-sandbox.pem",
        account_file=directory / "service-account.json",
        account=make_account(),
        apns_key=Key(KEY_ID, TEAM_ID, apns_key.public_key()),
        authority=authority,
        server_key=server_key,
        server_certificate=_server_certificate(authority, server_key),
    )
    made.ca_file.write_bytes(_pem(authority.certificate))
    _write_secret(made.apns_key_file, _pkcs8(apns_key))
    _write_client(made.client_file, authority, bundle_id)
    _write_client(made.expired_client_file, authority, bundle_id, days=-1)
    _write_client(made.foreign_client_file, stranger, bundle_id)
    _write_client(made.sandbox_client_file, authority, bundle_id, uses=(SANDBOX_USE,))
    made.address_account("https://oauth2.googleapis.com/token")
    return made


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _name(common_name: str, bundle_id: str = "") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if bundle_id:
        attributes.insert(0, x509.NameAttribute(NameOID.USER_ID, bundle_id))
    return x509.Name(attributes)


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: _SigningKey,
    days: int = 365,
    issuer_key: _SigningKey | None = None,
) -> x509.CertificateBuilder:
    """Begin a certificate that has been valid for a week and is for `days` more.

    The key identifiers are what strict clients insist on (RFC 5280, 4.2.1.1 and 4.2.1.2).
    """
    public, signers = key.public_key(), (issuer_key or key).public_key()
    return (
        x509.CertificateBuilder()
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signers), critical=False)
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - 7 * DAY)
        .not_valid_after(_now() + days * DAY)
    )


def _authority(common_name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    certificate = (
        _begin(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def _server_certificate(authority: Authority, key: _SigningKey) -> x509.Certificate:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in NAMES]
    names.append(x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")))
    return (
        _begin(
            _name("bouncerd fakes, server"),
            authority.certificate.subject,
            key,
            issuer_key=authority.key,
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _write_client(
    path: Path,
    authority: Authority,
    bundle_id: str,
    days: int = 365,
    uses: tuple[x509.ObjectIdentifier, ...] = (SANDBOX_USE, PRODUCTION_USE),
) -> None:
    """Write an APNs client certificate for these environments, and its key, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"Apple Push Services: {bundle_id}", bundle_id)
    issuer = authority.certificate.subject
    builder = _begin(subject, issuer, key, days, authority.key).add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
    )
    for use in uses:
        builder = builder.add_extension(x509.UnrecognizedExtension(use, ASN1_NULL), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    _write_secret(path, _pem(certificate) + _pkcs8(key))


def make_account() -> dict[str, str]:
    """Make a service account as Google's console hands it out."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "0123456789abcdef0123456789abcdef01234567",
        "private_key": _pkcs8(key).decode("ascii"),
        "client_email": f"bouncer@{PROJECT}.iam.gserviceaccount.com",
        "client_id": "100000000000000000000",
        "universe_domain": "googleapis.com",
    }


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pkcs8(key: _SigningKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
