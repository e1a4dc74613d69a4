"""Why TLS failed, as the health page tells it: real handshakes on loopback."""

import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import crypto
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.internet.task import deferLater

from bouncerd.fakes.apns import Apns
from bouncerd.fakes.credentials import Credentials, make
from bouncerd.link import Manners
from bouncerd.pool import Pool
from bouncerd.tls import client_options
from tests.house import reactor
from tests.test_pool import Lane

EXPIRED = "TLS: the provider's certificate has expired"
STRANGER = "TLS: the provider's certificate is signed by no authority that we trust"
REFUSED = "TLS: refused by the provider, which says: "


async def why(
    context: IOpenSSLContextFactory, host: str, ca_pem: bytes | None, client_pem: bytes | None
) -> str:
    """Dial a server with this context once; return what the pool tells of it."""
    port: Any = Apns(reactor, mode="certificate").listen(reactor, context)
    options = client_options(host, (b"h2",), ca_pem, client_pem, client_pem)
    endpoint = HostnameEndpoint(reactor, "127.0.0.1", port.getHost().port)
    connect = wrapClientTLS(options, endpoint).connect
    pool = Pool("apns", connect, Manners(30, 15), 1, reactor, Random(1))
    pool.start(Lane())
    for _ in range(500):
        if pool.state().why != "connecting":
            break
        await deferLater(reactor, 0.01)
    told = pool.state().why
    await pool.stop()
    await port.stopListening()
    return told


def expired(made: Credentials) -> Any:
    """Make a server's context whose certificate ran out yesterday."""
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(made.authority.certificate.subject)
        .public_key(made.server_key.public_key())
        .serial_number(7)
        .not_valid_before(today - datetime.timedelta(days=9))
        .not_valid_after(today - datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(made.authority.key, hashes.SHA256())
    )
    return CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(made.server_key),
        certificate=crypto.X509.from_cryptography(certificate),
        acceptableProtocols=[b"h2"],
    )


@pytest_twisted.ensureDeferred
async def test_the_servers_certificate(tmp_path: Path) -> None:
    """Expired, by a stranger, for another name: three words for what OpenSSL calls alike."""
    made = make(tmp_path)
    ca_pem = made.ca_file.read_bytes()
    assert await why(made.context(), "localhost", ca_pem, None) == ""
    assert await why(expired(made), "localhost", ca_pem, None) == EXPIRED
    assert await why(made.context(), "localhost", None, None) == STRANGER
    other = await why(made.context(), "api.example.org", ca_pem, None)
    assert other == "the certificate is not for this host name"


@pytest_twisted.ensureDeferred
async def test_our_certificate(tmp_path: Path) -> None:
    """A client certificate that is refused, in the handshake (1.2) or after it (1.3)."""
    made = make(tmp_path)
    ca_pem = made.ca_file.read_bytes()
    missing = {
        TLSVersion.TLSv1_2: "tls alert handshake failure",
        TLSVersion.TLSv1_3: "tlsv13 alert certificate required",
    }
    for newest, alert in missing.items():
        context = made.context(client="required", newest=newest)
        for file, says in (
            (made.client_file, ""),
            (made.expired_client_file, REFUSED + "tls alert certificate expired"),
            (made.foreign_client_file, REFUSED + "tlsv1 alert unknown ca"),
        ):
            assert await why(context, "localhost", ca_pem, file.read_bytes()) == says
        assert (await why(context, "localhost", ca_pem, None)).endswith(alert)
