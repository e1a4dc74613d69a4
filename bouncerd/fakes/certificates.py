"""What an APNs client certificate is good for (apns.md 2.2)."""

from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

SANDBOX_USE = x509.ObjectIdentifier("1.2.840.113635.100.6.3.1")
PRODUCTION_USE = x509.ObjectIdentifier("1.2.840.113635.100.6.3.2")
_ENVIRONMENTS = {SANDBOX_USE: "sandbox", PRODUCTION_USE: "production"}


@dataclass(frozen=True, slots=True)
class CertificateUse:
    """The app that a certificate pushes to, and where."""

    bundle_id: str
    environments: frozenset[str]


def read_use(transport: Any) -> CertificateUse | None:
    """Read the certificate of a TLS client; None if it showed none."""
    shown = transport.getPeerCertificate()
    if shown is None:
        return None
    certificate = shown.to_cryptography()
    names = certificate.subject.get_attributes_for_oid(NameOID.USER_ID)
    environments = frozenset(
        _ENVIRONMENTS[extension.oid]
        for extension in certificate.extensions
        if extension.oid in _ENVIRONMENTS
    )
    return CertificateUse(str(names[0].value) if names else "", environments)
