"""A directory for a test case, gone when it is over: trial's own would lie in the checkout."""

from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase


def a_directory(case: SynchronousTestCase) -> Path:
    """Return an empty directory that lives as long as the test."""
    directory = TemporaryDirectory()
    case.addCleanup(directory.cleanup)
    return Path(directory.name)
