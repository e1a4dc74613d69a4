"""No core file: what is in memory when the daemon dies stays there."""

import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PROGRAM = """
import os, resource
most = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
from bouncerd import cores
cores.forbid()
print(resource.getrlimit(resource.RLIMIT_CORE), flush=True)
os.abort()
"""


class CoreTests(SynchronousTestCase):
    """A process that is killed with content in its memory."""

    def aborted(self, before: str = "") -> str:
        """Run the program, which leaves nothing; return what it said."""
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(
                [sys.executable, "-c", before + PROGRAM],
                cwd=directory,
                env={"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            self.assertEqual(list(Path(directory).iterdir()), [])
        self.assertEqual(done.returncode, -signal.SIGABRT, done.stderr)
        return done.stdout

    def test_no_limit(self) -> None:
        """Where cores are wanted, it leaves none: neither a file nor for another program."""
        if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
            raise SkipTest("no core is allowed here")
        self.assertEqual(self.aborted(), "(1, 1)\n")

    def test_none_allowed(self) -> None:
        """Where none is allowed, as under the units, it needs no right to say so again."""
        limit = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
        self.assertEqual(self.aborted(limit), "(0, 0)\n")
