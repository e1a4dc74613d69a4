"""The daemon under what its unit imposes: it delivers, and what it has no need for is refused."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

import pytest
import pytest_twisted

from tests import confinement
from tests.house import House, a_message
from tests.units import settings

ROOT = Path(__file__).parent.parent
UNIT = "bouncerd.service"
IPHONE, ANDROID = "c0ffee" * 10, "fGl0:APA91b-android-token"
# Each is what any user may do, so that only the confinement can be why it fails.
PROBES = """
import ctypes, json, os, resource, socket, sys, tempfile
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(sys.argv[1])

def call(name, *arguments):
    return ctypes.get_errno() if getattr(libc, name)(*arguments) == -1 else 0

def tried(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return error.errno
    return 0

print(json.dumps({
    "its own place": tried(open, "mine", "w"),
    "its own /tmp": tried(tempfile.TemporaryFile),
    "a socket": tried(socket.socket),
    "SystemCallFilter @resources": tried(os.nice, 1),
    "SystemCallFilter @debug": call("ptrace", 0, 0, 0, 0),
    "RestrictAddressFamilies": tried(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW),
    "LockPersonality": call("personality", 0x40000),
    "RestrictSUIDSGID": tried(os.chmod, "mine", 0o4700),
    "RestrictNamespaces": call("unshare", 0x10000000),
    "LimitCORE": resource.getrlimit(resource.RLIMIT_CORE)[1],
}))
"""
ALWAYS = (
    *("LimitCORE", "LimitNOFILE", "UMask", "NoNewPrivileges", "SystemCallFilter"),
    *("SystemCallErrorNumber", "SystemCallArchitectures", "RestrictAddressFamilies"),
    *("RestrictNamespaces", "LockPersonality", "RestrictSUIDSGID", "RestrictRealtime"),
)

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or find_library("seccomp") is None,
    reason="systemd-analyze reads the unit's filter, libseccomp loads it (Debian: systemd)",
)


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory for the confined process, where its user can get at it."""
    directory = Path(tempfile.mkdtemp(prefix="bouncerd-confined-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def confined(directory: Path, command: list[str]) -> list[str]:
    """Return a command that runs another one as the unit would, with a directory of its own."""
    if os.getuid() == 0:
        for each in (directory, *directory.rglob("*")):
            os.chown(each, confinement.NOBODY, confinement.NOBODY)
    return [sys.executable, "-m", "tests.confinement", UNIT, str(directory), *command]


class ConfinedHouse(House):
    """A house whose daemon runs under what the unit imposes."""

    def wrapped(self, command: list[str]) -> list[str]:
        """Confine the daemon."""
        return confined(self.directory, command)


def imposed(directory: Path) -> dict[str, str]:
    """Return what was imposed, and of the rest why not; say so to who runs the tests."""
    found: dict[str, str] = json.loads((directory / "imposed.json").read_text())
    missing = sorted(f"{key}: {why}" for key, why in found.items() if "not possible" in why)
    if missing:
        warnings.warn("confined without " + "; ".join(missing), stacklevel=2)
    return found


def probe(command: list[str]) -> dict[str, int]:
    """Run the probes; return the number of the error that each met with, 0 for none."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def facts_of(house: House) -> dict[str, str]:
    """Return what the kernel says of the daemon."""
    assert house.child is not None
    lines = Path(f"/proc/{house.child.pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_every_setting_is_accounted_for(place: Path) -> None:
    """Each setting of the unit is imposed in these tests, or it is said why it is not."""
    probe(confined(place, [sys.executable, "-c", PROBES, str(place)]))
    found = imposed(place)
    assert {key for key, _ in settings(UNIT)} == found.keys()
    assert {key for key in ALWAYS if found[key]} == set()
    assert set(confinement.ELSEWHERE) - found.keys() == set(), "the unit does not say so any more"


def test_what_is_refused(place: Path) -> None:
    """Calls that any program may make are refused in confinement; its own place is not."""
    program = [sys.executable, "-c", PROBES, str(place)]
    free = probe(program)
    del free["LimitCORE"]  # may be 0 here anyway
    assert {name for name, error in free.items() if error} <= {"RestrictNamespaces"}, free
    (place / "mine").unlink()
    assert probe(confined(place, program)) == {
        "its own place": 0,
        "its own /tmp": 0,
        "a socket": 0,
        "SystemCallFilter @resources": errno.EPERM,
        "SystemCallFilter @debug": errno.EPERM,
        "RestrictAddressFamilies": errno.EAFNOSUPPORT,
        "LockPersonality": errno.EPERM,
        "RestrictSUIDSGID": errno.EPERM,
        "RestrictNamespaces": errno.EPERM,
        "LimitCORE": 0,
    }


@pytest_twisted.ensureDeferred
async def test_it_delivers(place: Path) -> None:
    """The confined daemon opens its store, looks names up, and delivers over TLS to both phones."""
    house = ConfinedHouse(place)
    try:
        await house.start()
        await house.enrol()
        await house.add_phone(IPHONE, 1)
        await house.add_phone(ANDROID, 2)
        status, answer = await house.call("push/notify", body=a_message("Wherefore art thou"))
        assert (status, answer["total_apple_devices"], answer["total_android_devices"]) == (
            200,
            1,
            1,
        )
        (apple,), (google,) = house.apns.ledger.accepted(), house.fcm.ledger.accepted()
        assert apple.json()["aps"]["alert"]["body"] == "Wherefore art thou"
        assert google.json()["message"]["data"]["content"] == "Wherefore art thou"
        found = imposed(place)
        facts = facts_of(house)
        assert (facts["NoNewPrivs"], facts["Seccomp"], facts["Umask"]) == ("1", "2", "0077")
        assert int(facts["Uid"].split()[0]) != 0 or found["DynamicUser"]
        assert int(facts["CapEff"], 16) == 0 or found["DynamicUser"]
        assert int(facts["CapBnd"], 16) == 0 or found["CapabilityBoundingSet"]
        assert house.store_file.stat().st_mode & 0o777 == 0o600
        assert await house.stop() == -signal.SIGTERM
        assert '"level": "error"' not in house.log()
    finally:
        await house.close()
