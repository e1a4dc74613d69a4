"""The demonstration, as `make demo` runs it."""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes.demo import Child, DemoFailed, Stage

ROOT = Path(__file__).parent.parent


class DemoTests(SynchronousTestCase):
    """What the person at the screen sees."""

    def test_both_phones(self) -> None:
        """Both phones get the message, with how long it took, and the status is 0."""
        done = subprocess.run(
            [sys.executable, "-m", "bouncerd.fakes.demo"],
            cwd=ROOT,
            capture_output=True,
            timeout=60,
            check=False,
        )
        shown = done.stdout.decode("utf-8", "replace")
        self.assertEqual(done.returncode, 0, shown + done.stderr.decode())
        self.assertIn("Apple’s stand-in received, to a1b2c3d4", shown)
        self.assertIn("Google’s stand-in received, to cSample_", shown)
        self.assertEqual(shown.count("ms after the server’s call; answered 200"), 2)
        self.assertIn("Both phones got the message. All of it took", shown)

    def test_child_that_fails(self) -> None:
        """A process that ends too early is named, with its log to look at."""
        with tempfile.TemporaryDirectory() as directory:
            log = Path(directory, "log")
            child = Child("bouncerd", log, "bouncerd", "-c", str(Path(directory, "none.ini")))
            with self.assertRaises(DemoFailed) as caught:
                child.wait_for("it is not ready", lambda: False)
            child.stop()
            self.assertEqual(caught.exception.log, log)
            self.assertIn("bouncerd ended with status", str(caught.exception))
            self.assertIn("none.ini", log.read_text())

    def test_port_taken(self) -> None:
        """A port that someone else listens on is named before anything is started."""
        with tempfile.TemporaryDirectory() as directory, socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with self.assertRaisesRegex(DemoFailed, f"port {port} of 127.0.0.1 is taken"):
                Stage(Path(directory), port, port).raise_curtain()
            self.assertEqual(list(Path(directory).iterdir()), [])
