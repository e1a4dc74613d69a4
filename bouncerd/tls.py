"""TLS toward the providers: 1.2 or newer, names checked, an extra trust root if configured."""

from OpenSSL import SSL, crypto
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    KeyPair,
    PrivateCertificate,
    TLSVersion,
    optionsForClientTLS,
)
from zope.interface import implementer

_PEM_BEGIN = b"-----BEGIN CERTIFICATE-----"


@implementer(IOpenSSLTrustRoot)
class TrustRoots:
    """The platform's trust roots, and those of a `ca_file` beside them.

    (Twisted offers either, not both: this is its only seam for that.)
    """

    def __init__(self, extra_pem: bytes | None) -> None:
        self._extra = [] if extra_pem is None else certificates(extra_pem)

    def _addCACertsToContext(self, context: SSL.Context) -> None:  # noqa: N802 -- Twisted's seam
        context.set_default_verify_paths()
        store = context.get_cert_store()
        assert store is not None
        for certificate in self._extra:
            store.add_cert(certificate)


def certificates(pem: bytes) -> list[crypto.X509]:
    """Read every certificate of a PEM file, in order."""
    blocks = pem.split(_PEM_BEGIN)[1:]
    return [crypto.load_certificate(crypto.FILETYPE_PEM, _PEM_BEGIN + block) for block in blocks]


def client_options(
    host: str,
    protocols: tuple[bytes, ...],
    ca_pem: bytes | None = None,
    certificate_pem: bytes | None = None,
    key_pem: bytes | None = None,
) -> IOpenSSLClientConnectionCreator:
    """Make the client's side of TLS to one host (service-identity verifies the name).

    `certificate_pem` holds the leaf first, then what links it to its root.
    """
    ours, chain = None, []
    if certificate_pem is not None and key_pem is not None:
        leaf, *chain = certificates(certificate_pem)
        key = KeyPair.load(key_pem, crypto.FILETYPE_PEM)
        ours = PrivateCertificate.fromCertificateAndKeyPair(Certificate(leaf), key)
    extra: dict[str, object] = {"insecurelyLowerMinimumTo": TLSVersion.TLSv1_2}
    if chain:
        extra["extraCertChain"] = chain
    return optionsForClientTLS(
        host,
        trustRoot=TrustRoots(ca_pem),
        clientCertificate=ours,
        acceptableProtocols=list(protocols) or None,
        extraCertificateOptions=extra,
    )
