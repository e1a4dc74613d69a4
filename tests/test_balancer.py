"""The sample configuration of a load balancer: it loads, and asks what bouncerd answers."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes.credentials import make

SAMPLE = Path(__file__).parent.parent / "etc" / "haproxy.cfg"


class BalancerTests(SynchronousTestCase):
    """etc/haproxy.cfg."""

    def setUp(self) -> None:
        self.text = SAMPLE.read_text("utf-8")

    @pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
    def test_loads(self) -> None:
        """HAProxy takes it without an error or a warning, given a certificate."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        certificate = make(directory).client_file
        sample = directory / "haproxy.cfg"
        sample.write_text(re.sub(r"/etc/haproxy/\S+\.pem", str(certificate), self.text))
        done = subprocess.run(
            ["haproxy", "-c", "-f", str(sample)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("WARNING", done.stderr)

    def test_repeats_nothing(self) -> None:
        """What a host may have taken is not sent to another; readiness is what is asked for."""
        self.assertIn("retry-on conn-failure\n", self.text)
        self.assertIn("httpchk GET /health/ready\n", self.text)
        self.assertIn("check port 9091", self.text)
