"""Whom the stand-in for Apple takes a client for: provider tokens and certificates."""

import tempfile
from pathlib import Path

from OpenSSL import crypto
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes.apns import CERTIFICATE, EITHER, Apns
from bouncerd.fakes.bearers import Key
from bouncerd.fakes.credentials import make
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Close
from tests.fakes_apple import BEARER, BODY, KEY, OTHER_KEY, AppleDesk
from tests.fakes_kit import NOW, TOPIC, RawClient, bearer, known, push_lines


class ProviderTokenTests(SynchronousTestCase):
    """Whom Apple takes a client for."""

    def test_invalid(self) -> None:
        """An unknown key, a wrong signature, a foreign team and rubbish are all invalid."""
        for authorization in (
            bearer(KEY, key_id="KEY9"),
            bearer(OTHER_KEY),
            bearer(KEY, team="TEAM9"),
            "bearer x.y.z",
            "bearer " + "a" * 300,
        ):
            with self.subTest(authorization=authorization[:20]):
                self.assertEqual(AppleDesk().verdict(authorization), "403 InvalidProviderToken")

    def test_scheme(self) -> None:
        """The scheme may be written in any case; another one counts as none."""
        self.assertEqual(AppleDesk().verdict(BEARER.replace("bearer", "Bearer")), "200")
        self.assertEqual(AppleDesk().verdict("basic abc"), "403 MissingProviderToken")

    def test_age(self) -> None:
        """A token is good for an hour by Apple's clock, and from an hour before."""
        self.assertEqual(AppleDesk().verdict(bearer(KEY, NOW - 3600)), "200")
        self.assertEqual(AppleDesk().verdict(bearer(KEY, NOW + 3600)), "200")
        self.assertEqual(AppleDesk().verdict(bearer(KEY, NOW + 3601)), "403 InvalidProviderToken")
        desk = AppleDesk()
        self.assertEqual(desk.verdict(bearer(KEY, NOW - 3601)), "403 ExpiredProviderToken")
        self.assertEqual(desk.broken(), ["provider token older than 60 minutes"])

    def test_apples_clock(self) -> None:
        """Apple's clock may be moved against ours."""
        desk = AppleDesk()
        desk.apns.skew = 7200
        self.assertEqual(desk.verdict(), "403 ExpiredProviderToken")

    def test_wedge(self) -> None:
        """After one expired token a connection answers nothing but 500; another one is fine."""
        desk = AppleDesk()
        desk.verdict(bearer(KEY, NOW - 4000))
        self.assertEqual(desk.verdict(), "500 InternalServerError")
        desk.client = RawClient(desk.apns)
        self.assertEqual(desk.verdict(), "200")

    def test_hasty_change(self) -> None:
        """A second token within 20 minutes spoils the connection for every token."""
        desk = AppleDesk()
        desk.verdict()
        desk.clock.advance(1199)
        self.assertEqual(desk.verdict(bearer(KEY, NOW + 60)), "429 TooManyProviderTokenUpdates")
        desk.clock.advance(600)
        self.assertEqual(desk.verdict(), "429 TooManyProviderTokenUpdates")
        self.assertEqual(desk.broken(), ["provider token changed within 20 minutes"])

    def test_patient_change(self) -> None:
        """After 20 minutes a connection may use a new token."""
        desk = AppleDesk()
        desk.verdict()
        desk.clock.advance(1200)
        self.assertEqual(desk.verdict(bearer(KEY, NOW + 1200)), "200")
        self.assertEqual(desk.broken(), [])

    def test_second_team(self) -> None:
        """A connection belongs to the team of its first push."""
        desk = AppleDesk(known(KEY), known(OTHER_KEY, "KEY2", "TEAM2"))
        desk.verdict()
        desk.clock.advance(1300)
        second = bearer(OTHER_KEY, NOW, "KEY2", "TEAM2")
        self.assertEqual(desk.verdict(second), "403 InvalidProviderToken")

    def test_unrelated_key(self) -> None:
        """A key for some topics may not follow a key for all of them on one connection."""
        narrow = Key("KEY2", "TEAM1", OTHER_KEY.public_key(), topics=frozenset({TOPIC}))
        desk = AppleDesk(known(KEY), narrow)
        second = bearer(OTHER_KEY, NOW, "KEY2")
        self.assertEqual(desk.verdict(second), "200")
        desk.clock.advance(1300)
        self.assertEqual(desk.verdict(), "403 UnrelatedKeyIdInToken")

    def test_keys_bound(self) -> None:
        """A key may be bound to an environment and to topics."""
        sandboxed = Key("KEY2", "TEAM1", OTHER_KEY.public_key(), environment="sandbox")
        second = bearer(OTHER_KEY, NOW, "KEY2")
        self.assertEqual(AppleDesk(sandboxed).verdict(second), "403 BadEnvironmentKeyIdInToken")
        narrow = Key("KEY2", "TEAM1", OTHER_KEY.public_key(), topics=frozenset({"x.y"}))
        self.assertEqual(AppleDesk(narrow).verdict(second), "400 TopicDisallowed")

    def test_revoked(self) -> None:
        """A revoked key's tokens are invalid from then on, also those seen before."""
        desk = AppleDesk()
        self.assertEqual(desk.verdict(), "200")
        desk.apns.bearers.revoke("KEY1")
        self.assertEqual(desk.verdict(), "403 InvalidProviderToken")

    def test_certificate_mode(self) -> None:
        """Where a certificate has proved who the client is, `authorization` is not looked at."""
        self.assertEqual(AppleDesk(mode=CERTIFICATE).verdict("bearer rubbish"), "200")


class CertifiedTransport(StringTransport):
    """A TLS connection, as far as a server looks at one."""

    negotiatedProtocol = b"h2"  # noqa: N815 - Twisted's name
    certificate: crypto.X509 | None = None

    def getPeerCertificate(self) -> crypto.X509 | None:  # noqa: N802 - Twisted's name
        """Return the client's certificate."""
        return self.certificate


class CertificateTests(SynchronousTestCase):
    """Clients that show a certificate in the handshake."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.credentials = make(Path(directory.name), bundle_id=TOPIC)

    def client(
        self, file: Path | None, mode: str = CERTIFICATE, *, sandbox: bool = False
    ) -> RawClient:
        """Connect with the certificate in a file, up to the end of the handshake."""
        self.apns = Apns(Clock(), mode=mode, sandbox=sandbox, keys=(known(KEY),), latency=(0, 0))
        self.apns.bearers.add(known(KEY))
        transport = CertifiedTransport()
        if file is not None:
            pem = file.read_bytes()
            transport.certificate = crypto.load_certificate(crypto.FILETYPE_PEM, pem)
        client = RawClient(self.apns, greet=False, transport=transport)
        client.connection.handshakeCompleted()
        client.greet()
        return client

    def push(self, client: RawClient, topic: str | None) -> str:
        """Push without a provider token; return what was recorded as the answer."""
        client.request(push_lines(None, apns_topic=topic), BODY)
        return self.apns.ledger.received[-1].verdict

    def test_good(self) -> None:
        """A certificate of either environment stands in for a provider token."""
        for mode in (CERTIFICATE, EITHER):
            with self.subTest(mode=mode):
                client = self.client(self.credentials.client_file, mode)
                self.assertEqual(self.push(client, TOPIC), "200")
                self.assertEqual(client.connection.visit.protocol, "h2")

    def test_topics(self) -> None:
        """The topic is the certificate's bundle id, and may be left out."""
        client = self.client(self.credentials.client_file)
        self.assertEqual(self.push(client, None), "200")
        self.assertEqual(self.push(client, "org.example.other"), "400 BadTopic")

    def test_other_environment(self) -> None:
        """A sandbox certificate is turned away from production, after the handshake."""
        client = self.client(self.credentials.sandbox_client_file)
        (goaway,) = client.goaways
        self.assertEqual(goaway.additional_data, b'{"reason": "BadCertificateEnvironment"}')
        self.assertEqual((goaway.last_stream_id, goaway.error_code), (0, 0))
        self.assertTrue(client.transport.disconnecting)
        client = self.client(self.credentials.sandbox_client_file, sandbox=True)
        self.assertEqual(self.push(client, TOPIC), "200")

    def test_without(self) -> None:
        """Where a certificate is optional, a client without one needs a provider token."""
        client = self.client(None, EITHER)
        self.assertEqual(self.push(client, TOPIC), "403 MissingProviderToken")

    def test_after_the_handshake(self) -> None:
        """A connection may be cut as soon as TLS is done."""
        desk = AppleDesk()
        desk.apns.on(Match(event="handshake"), Close("abort"))
        client = RawClient(desk.apns, transport=CertifiedTransport())
        client.connection.handshakeCompleted()
        self.assertTrue(client.transport.disconnecting)
