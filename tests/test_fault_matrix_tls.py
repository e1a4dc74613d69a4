"""What only TLS can do wrong (apns.md 7.3: C1, C2, C5, A2): real TLS, over wires in memory.

TLS does not come in chosen pieces, and its keys are random: these scenarios say what must come
of them, not when.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.ssl import TLSVersion
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes.credentials import Credentials, make
from bouncerd.fakes.rules import CONNECT, HANDSHAKE, Match
from bouncerd.fakes.steps import Close, Ignore, Raw
from bouncerd.fakes.stubborn import Stubborn
from bouncerd.tls import client_options
from tests.matrix import shows
from tests.scene import Scene
from tests.scenes import AppleScene

MADE: Credentials
HOLDER: Any = None


def setUpModule() -> None:  # noqa: N802 - unittest's name
    """Make certificates, once for all."""
    global MADE, HOLDER  # noqa: PLW0603 - unittest's way to share
    HOLDER = tempfile.TemporaryDirectory()
    MADE = make(Path(HOLDER.name))


def tearDownModule() -> None:  # noqa: N802 - unittest's name
    """Remove them."""
    HOLDER.cleanup()


def client(certificate: Path | None = None) -> Any:
    """Make our side's TLS."""
    pem = None if certificate is None else certificate.read_bytes()
    return client_options("localhost", (b"h2",), MADE.ca_file.read_bytes(), pem, pem)


class HandshakeTests(SynchronousTestCase):
    """Servers that go away during the handshake, or never get through with it."""

    @contextmanager
    def scene(self, context: Any = None, **others: Any) -> Iterator[Scene]:
        """Set a scene; in the end all is delivered, in due form."""
        scene = AppleScene(tls=(client(), context or MADE.context()), **others)
        scene.start()
        yield scene
        scene.clock.advance(70.0)
        scene.stop()
        scene.judge()
        self.assertEqual(scene.totals(), {"delivered": 5})

    def test_good(self) -> None:
        """With TLS 1.2 and 1.3 it works, which says that this file means something."""
        for newest in (TLSVersion.TLSv1_2, TLSVersion.TLSv1_3):
            with self.subTest(newest=newest), self.scene(MADE.context(newest=newest)) as scene:
                scene.send(5)
                scene.clock.advance(5.0)
                self.assertEqual(scene.totals(), {"delivered": 5})
                self.assertEqual(scene.front.ledger.visits[0].protocol, "h2")

    @shows("C1")
    def test_end_at_accept(self) -> None:
        """A reset, a FIN and TLS's goodbye, before the handshake and right after it."""
        for event in (CONNECT, HANDSHAKE):
            for how in ("abort", "fin", "cut"):
                with self.subTest(event=event, how=how), self.scene() as scene:
                    scene.front.on(Match(event), Close(how), count=1)
                    scene.send(5)
                    scene.clock.advance(10.0)
                    self.assertGreaterEqual(len(scene.network.dials), 2)

    @shows("C1")
    def test_end_in_mid_record(self) -> None:
        """An end in the middle of a frame, and of a TLS record."""
        for how in ("abort", "cut"):
            with self.subTest(how=how), self.scene() as scene:
                scene.clock.advance(2.0)
                scene.front.on(Match(), Raw(b"\0\0\x64\1\4\0\0\0\1half"), Close(how), count=1)
                scene.send(5)

    @shows("C2")
    def test_no_handshake(self) -> None:
        """A server that accepts and never shakes hands is left after 20 seconds."""
        with self.scene() as scene:
            scene.front.on(Match(CONNECT), Ignore(), count=1)
            scene.send(5)
            scene.clock.advance(19.0)
            self.assertEqual((len(scene.network.dials), scene.totals()), (1, {}))
            self.assertTrue(all(call.settled.called for call in scene.calls))

    @shows("C5")
    def test_no_alpn(self) -> None:
        """A server that has never heard of ALPN, and speaks HTTP/2, is spoken to."""
        with self.scene(Stubborn(MADE.context())) as scene:
            scene.send(5)
            scene.clock.advance(5.0)
            self.assertEqual(scene.totals(), {"delivered": 5})
            self.assertIsNone(scene.front.ledger.visits[0].protocol)

    @shows("C5")
    def test_no_alpn_and_no_http2(self) -> None:
        """One that answers HTTP/1.1 to our preface is left at once, and not stormed."""
        with self.scene(Stubborn(MADE.context())) as scene:
            refusal = Raw(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
            rule = scene.front.on(Match(CONNECT), refusal, Close("fin"))
            scene.excuses |= {"protocol error"}
            scene.send(5)
            scene.clock.advance(60.0)
            self.assertTrue(4 <= rule.used <= 10, rule.used)
            scene.front.rules.clear()

    @shows("C5")
    def test_http1(self) -> None:
        """One that insists on http/1.1 (something that intercepts TLS) gets nothing of ours."""
        stubborn = Stubborn(MADE.context(), b"http/1.1")
        scene = AppleScene(tls=(client(), stubborn))
        scene.start()
        scene.send(5)
        scene.clock.advance(60.0)
        self.assertTrue(4 <= len(scene.network.dials) <= 10, scene.network.dials)
        self.assertEqual((scene.front.ledger.seen, scene.pool.ready), (0, False))
        self.assertTrue(scene.pool.state().why)
        scene.stop()
        scene.judge()
        self.assertEqual(scene.totals(), {"lost": 5})


class CertificateTests(SynchronousTestCase):
    """Apple wants a client certificate: none, an expired one, a stranger's, another world's."""

    def play(self, certificate: Path | None, newest: Any) -> Scene:
        """Push for ten minutes; the connection is not to be had."""
        options = client(certificate)
        context = MADE.context(client="required", newest=newest)
        scene = AppleScene(token_mode=False, tls=(options, context))
        scene.start()
        scene.send(5)
        scene.clock.advance(300.0)
        self.assertEqual(scene.totals(), {})
        self.assertEqual(scene.forgotten, [])
        self.assertTrue(all(call.settled.called for call in scene.calls))
        return scene

    def finish(self, scene: Scene, certificate: Path, newest: Any) -> None:
        """Have the operator mend it: everything is delivered."""
        context = MADE.context(client="required", newest=newest)
        scene.network.use_tls((client(certificate), context))
        scene.clock.advance(130.0)
        scene.stop()
        scene.judge()
        self.assertEqual(scene.totals(), {"delivered": 5})

    @shows("A2")
    def test_refused_in_the_handshake(self) -> None:
        """None, expired, a stranger's: TLS 1.2 says so in the handshake, 1.3 after it."""
        for newest in (TLSVersion.TLSv1_2, TLSVersion.TLSv1_3):
            for bad in (None, MADE.expired_client_file, MADE.foreign_client_file):
                with self.subTest(newest=newest, bad=bad and bad.name):
                    scene = self.play(bad, newest)
                    self.assertLessEqual(len(scene.network.dials), 16)
                    self.finish(scene, MADE.client_file, newest)

    @shows("A2", "G4")
    def test_wrong_environment(self) -> None:
        """The sandbox's certificate in production: told by GOAWAY, and asked once a minute."""
        scene = self.play(MADE.sandbox_client_file, TLSVersion.TLSv1_3)
        self.assertLessEqual(len(scene.network.dials), 11)
        self.assertEqual(scene.pool.state().why, "BadCertificateEnvironment")
        self.finish(scene, MADE.client_file, TLSVersion.TLSv1_3)
