"""The unit files of systemd/, as a test reads them."""

import subprocess
from pathlib import Path

UNITS = Path(__file__).parent.parent / "systemd"


def settings(name: str, section: str = "Service") -> list[tuple[str, str]]:
    """Return what a unit's section says, in order."""
    found: list[tuple[str, str]] = []
    here = ""
    for line in (UNITS / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            here = line.strip("[]")
        elif here == section and line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found.append((key, value))
    return found


def setting(name: str, key: str, section: str = "Service") -> str:
    """Return what a unit says of a key, last; "" if nothing."""
    return dict(settings(name, section)).get(key, "")


def system_calls(name: str) -> set[str]:
    """Return the system calls that a unit's SystemCallFilter= allows (systemd.exec(5))."""
    allowed = _expanded("@default")
    for key, value in settings(name):
        if key == "SystemCallFilter":
            named = set[str]().union(*map(_expanded, value.removeprefix("~").split()))
            allowed = allowed - named if value.startswith("~") else allowed | named
    return allowed


def _expanded(name: str) -> set[str]:
    """Return the calls of a group, groups in it included, as this machine's systemd has them."""
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "--no-pager", "syscall-filter", name]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = [line.strip() for line in told.splitlines()[1:]]
    calls = [_expanded(word) for word in words if word and not word.startswith("#")]
    return set[str]().union(*calls)
