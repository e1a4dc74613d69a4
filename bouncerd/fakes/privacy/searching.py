"""The places where something of a message could have been left, and how each is searched."""

from pathlib import Path

from bouncerd.fakes.privacy.canaries import STORE, Canary, Finding
from bouncerd.fakes.privacy.evidence import CORES, FILES, HEALTH, LOG, METRICS, UNNAMED, Evidence
from bouncerd.fakes.privacy.premises import Premises

STORE_FILES = "the store: database, write-ahead log, copies"
ERASED = "a device token that was erased again"
# Where SQLite's pages begin, and how far apart they are.
_DATABASE, _WAL = (0, 4096), (32, 24 + 4096)
_NOTHING = Canary("a file, whatever is in it", "")


def look_at_files(premises: Premises, evidence: Evidence) -> None:
    """Search what lies about, whether the daemon runs or not."""
    evidence.look_on(LOG, premises.log)
    for path in sorted(premises.home.rglob("*")):
        if not path.is_file():
            continue
        if path.name.startswith("core"):
            evidence.findings.append(Finding(_NOTHING, CORES, path.name))
            path.unlink()
        elif path.name.startswith(premises.store.name):
            start, page = _WAL if path.name.endswith("-wal") else _DATABASE
            evidence.look_into_pages(STORE_FILES, path, STORE, page, start)
        else:
            evidence.look_into(FILES, path)
            evidence.findings.append(Finding(_NOTHING, FILES, path.name))


def look_at_daemon(premises: Premises, evidence: Evidence) -> None:
    """Search what a daemon that runs has to tell, and files that it has open without a name."""
    evidence.look(METRICS, premises.page("/metrics"))
    for page in ("/health/live", "/health/ready"):
        evidence.look(HEALTH, premises.page(page))
    process = Path(f"/proc/{premises.daemon.pid}")
    for name in ("cmdline", "environ"):
        evidence.look_into("its command line and environment", process / name)
    try:
        opened = list((process / "fd").iterdir())
    except OSError:
        note = "open files without a name were not searched: that takes root"
        if note not in evidence.remarks:
            evidence.remarks.append(note)
        return
    for descriptor in opened:
        if _is_nameless_file(descriptor):
            evidence.look_into(UNNAMED, descriptor)


def look_for_erased(premises: Premises, evidence: Evidence) -> None:
    """Search the store, after a stop, for what callers had erased."""
    for path in premises.home.glob(f"{premises.store.name}*"):
        for canary, form in evidence.cage.found_in(path.read_bytes()).items():
            if canary.name == ERASED:
                evidence.findings.append(Finding(canary, STORE_FILES, form))


def _is_nameless_file(descriptor: Path) -> bool:
    try:
        target = str(descriptor.readlink())
    except OSError:
        return False
    return target.startswith("/") and target.endswith(" (deleted)") and "memfd:" not in target
