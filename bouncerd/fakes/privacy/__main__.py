"""`python -m bouncerd.fakes.privacy`: drive the daemon, search, and print a report."""

import argparse
import sys
import tempfile
from pathlib import Path

from bouncerd.fakes.privacy.premises import Failed
from bouncerd.fakes.privacy.proof import prove
from bouncerd.fakes.privacy.report import report


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 if nothing was found, 1 if something was, 2 if it did not work."""
    parser = argparse.ArgumentParser(
        prog="python -m bouncerd.fakes.privacy",
        description="Proves on a running bouncerd that no content of a message is kept anywhere.",
    )
    parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bouncerd-privacy-") as directory:
        try:
            evidence = prove(Path(directory))
        except Failed as failure:
            sys.stderr.write(f"No proof, neither of one nor of the other: {failure}\n")
            return 2
    sys.stdout.write(report(evidence))
    return 1 if evidence.findings else 0


if __name__ == "__main__":
    sys.exit(main())
