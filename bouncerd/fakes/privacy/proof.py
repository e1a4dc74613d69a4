"""The whole proof: all acts in order, a search after each, and the keys of the operator's."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bouncerd.fakes.privacy import acts
from bouncerd.fakes.privacy.acts import Stage
from bouncerd.fakes.privacy.evidence import Evidence
from bouncerd.fakes.privacy.premises import Premises
from bouncerd.fakes.privacy.searching import look_at_daemon, look_at_files

Act = Callable[[Stage], None]
#: At the default level, then at the verbose one; restarts; faults.
ALL: Sequence[Act] = (
    *(acts.arrivals, acts.pushes, acts.errors, acts.refusals, acts.access, acts.lock),
    *(acts.verbosity, acts.pushes, acts.errors, acts.refusals, acts.denial),
    *(acts.succession, acts.abortion, acts.failures, acts.damage),
)
_ABORT = "import os, resource as r; r.setrlimit(4, (r.getrlimit(4)[1],) * 2); os.abort()"


def prove(directory: Path, plot: Sequence[Act] = ALL, prelude: str = "") -> Evidence:
    """Drive a daemon in an empty directory; raise Failed if it could not be driven.

    `prelude` is Python that the daemon's process runs first: a build that leaks, say.
    """
    evidence = Evidence()
    _try_cores(directory, evidence)
    premises = Premises(directory, prelude)
    try:
        _plant_keys(premises, evidence)
        premises.configure(verbose=False)
        premises.start()
        stage = Stage(premises, evidence)
        for act in plot:
            act(stage)
            if act is not acts.damage:
                look_at_daemon(premises, evidence)
            look_at_files(premises, evidence)
        _plant_tokens(premises, evidence)
        look_at_files(premises, evidence)
    finally:
        premises.close()
    return evidence


def _plant_keys(premises: Premises, evidence: Evidence) -> None:
    """Take pieces of the operator's private keys for canaries."""
    for path in sorted(premises.secrets):
        text = path.read_text("utf-8").replace("\\n", "\n")
        for number, line in enumerate(re.findall(r"[A-Za-z0-9+/=]{40,}", text)):
            if number < 3:
                evidence.plant(f"a private key ({path.suffix[1:]})", line[:40], repeatable=False)


def _plant_tokens(premises: Premises, evidence: Evidence) -> None:
    """Take what the daemon showed to Apple and Google for canaries: bearers, access tokens."""
    shown = {
        push["headers"].get("authorization", "").rpartition(" ")[2]
        for pushes in premises.received().values()
        for push in pushes
    }
    for bearer in sorted(shown - {""}):
        evidence.plant("a token that was shown to Apple or Google", bearer, repeatable=False)


def _try_cores(directory: Path, evidence: Evidence) -> None:
    """Find out whether a process that is aborted here leaves a core file that we would see."""
    place = directory / "control"
    place.mkdir()
    subprocess.run([sys.executable, "-c", _ABORT], cwd=place, check=False, capture_output=True)  # noqa: S603
    if not list(place.iterdir()):
        pattern = Path("/proc/sys/kernel/core_pattern").read_text("utf-8").strip()
        evidence.remarks.append(
            f"another program, aborted, left no core file here either (core_pattern: {pattern}), so"
            " that the daemon left none says little"
        )
    else:
        evidence.remarks.append("another program, aborted in the same way, did leave a core file")
