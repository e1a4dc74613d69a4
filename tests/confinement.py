"""Runs a program under what a unit file imposes, as far as this can be had without systemd.

    python -m tests.confinement UNIT WRITABLE PROGRAM ...

WRITABLE plays the state directory, and gets `imposed.json`: for each setting of the unit "" if it
was imposed, or why it was not. The order is systemd's: mounts, user, privileges, filters.
"""

import ctypes
import errno
import json
import os
import resource
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from tests import seccomp
from tests.units import setting, settings, system_calls

#: A number that no other user has, as DynamicUser= finds one.
NOBODY = 64_999
_libc = ctypes.CDLL(None, use_errno=True)

_NEW_MOUNTS, _NEW_USERS, _NEW_IPC = 0x00020000, 0x10000000, 0x08000000
_NO_SET_ID, _NO_DEVICES, _NO_EXEC, _BIND, _RECURSIVE, _PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18
_SET_NO_NEW_PRIVS, _CAPBSET_DROP = 38, 24
_MOUNT_SETATTR, _HERE, _AT_RECURSIVE, _READ_ONLY = 442, -100, 0x8000, 1

_REFUSED_CALLS = "the calls for it are refused, and no capability is left"
_OTHER_TESTS = "between systemd and the daemon: the tests of restarts and of notifying play it"
_THE_END = "what systemd does when the process ends"
_ITS_GROUP = "a control group's, which systemd makes"
_THE_TESTS = "the test has its own"
#: Settings that are not for the process to impose on itself.
ELSEWHERE = {
    **dict.fromkeys(("Type", "NotifyAccess", "Sockets", "ExecReload"), _OTHER_TESTS),
    **dict.fromkeys(("FileDescriptorStoreMax", "WatchdogSec"), _OTHER_TESTS),
    **dict.fromkeys(("Restart", "RestartSec", "KillMode", "OOMPolicy", "RemoveIPC"), _THE_END),
    **dict.fromkeys(("TimeoutStartSec", "TimeoutStopSec"), _THE_END),
    **dict.fromkeys(("ExecStart", "LoadCredential"), _THE_TESTS),
    **dict.fromkeys(("StateDirectory", "StateDirectoryMode", "WorkingDirectory"), _THE_TESTS),
    **dict.fromkeys(("MemorySwapMax", "DevicePolicy"), _ITS_GROUP),
    **dict.fromkeys(("ProtectHostname", "ProtectClock"), _REFUSED_CALLS),
    **dict.fromkeys(("ProtectKernelModules", "ProtectKernelLogs"), _REFUSED_CALLS),
    "KeyringMode": "there is no login whose keys could be reached",
}


class Confinement:
    """What a unit imposes on this process and all that it becomes."""

    def __init__(self, unit: str, writable: Path) -> None:
        self._unit = unit
        self._writable = writable
        self._own_mounts = False

    def impose(self) -> dict[str, str]:
        """Impose all of it; return for each setting "", or why not."""
        said = {key for key, _ in settings(self._unit)}
        imposed = {key: why for key, why in ELSEWHERE.items() if key in said}
        for keys, step in self._steps():
            wanted = said & set(keys.split())
            imposed |= dict.fromkeys(wanted, _tried(step) if wanted else "")
        return imposed

    def _steps(self) -> list[tuple[str, Callable[[], object]]]:
        calls = system_calls(self._unit)  # asked while there is a systemd-analyze to ask
        error = getattr(errno, self._said("SystemCallErrorNumber"))
        families = self._said("RestrictAddressFamilies").split()
        return [
            ("LimitCORE", lambda: self._limit("LimitCORE", resource.RLIMIT_CORE)),
            ("LimitNOFILE", lambda: self._limit("LimitNOFILE", resource.RLIMIT_NOFILE)),
            ("PrivateMounts", self._make_mounts),
            ("PrivateTmp ProtectHome", self._hide_homes),
            ("PrivateDevices", self._hide_devices),
            ("ProtectProc ProcSubset", self._hide_processes),
            ("ProtectSystem ProtectKernelTunables ProtectControlGroups", self._protect),
            ("PrivateUsers", _own_users),
            ("CapabilityBoundingSet AmbientCapabilities", _drop_capabilities),
            ("DynamicUser User", self._become_nobody),
            ("UMask", lambda: os.umask(int(self._said("UMask"), 8))),
            ("NoNewPrivileges", lambda: _check(_libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))),
            ("RestrictAddressFamilies", seccomp.families(families).load),
            ("RestrictNamespaces", seccomp.no_namespaces().load),
            ("LockPersonality", seccomp.one_personality().load),
            ("RestrictSUIDSGID", seccomp.no_set_id().load),
            ("RestrictRealtime", seccomp.no_real_time().load),
            (
                "SystemCallFilter SystemCallErrorNumber SystemCallArchitectures",
                seccomp.only(calls, error).load,
            ),
        ]

    def _said(self, key: str) -> str:
        return setting(self._unit, key)

    def _limit(self, key: str, which: int) -> None:
        number = int(self._said(key))
        resource.setrlimit(which, (number, number))

    def _make_mounts(self) -> None:
        _check(_libc.unshare(_NEW_MOUNTS | _NEW_IPC))
        _mount("none", "/", "", _RECURSIVE | _PRIVATE)
        self._own_mounts = True

    def _hide_homes(self) -> None:
        """Lay empty places over homes and temporary files, and put back what we run from."""
        self._need_mounts()
        needed = {Path(sys.base_prefix), Path(sys.prefix), Path.cwd(), self._writable}
        kept = [(path, os.open(path, os.O_PATH)) for path in sorted(needed)]
        for place in map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")):
            if place.is_dir():
                mode = "mode=1777" if place.name == "tmp" else "mode=755"
                _mount("tmpfs", str(place), "tmpfs", _NO_SET_ID | _NO_DEVICES, mode)
        for path, descriptor in kept:
            path.mkdir(parents=True, exist_ok=True)
            if not os.path.samestat(os.fstat(descriptor), path.stat()):
                _mount(f"/proc/self/fd/{descriptor}", str(path), "", _BIND | _RECURSIVE)
            os.close(descriptor)
        os.chdir(Path.cwd())  # the place that we are in is one of those

    def _hide_devices(self) -> None:
        self._need_mounts()
        names = ("null", "zero", "full", "random", "urandom")
        kept = [(f"/dev/{name}", os.open(f"/dev/{name}", os.O_PATH)) for name in names]
        _mount("tmpfs", "/dev", "tmpfs", _NO_SET_ID | _NO_EXEC, "mode=755")
        for path, descriptor in kept:
            Path(path).touch()
            _mount(f"/proc/self/fd/{descriptor}", path, "", _BIND)
            os.close(descriptor)

    def _hide_processes(self) -> None:
        self._need_mounts()
        flags = _NO_SET_ID | _NO_DEVICES | _NO_EXEC
        _mount("proc", "/proc", "proc", flags, "hidepid=invisible,subset=pid")

    def _protect(self) -> None:
        """Make everything read-only but the state directory and places for temporary files."""
        self._need_mounts()
        _mount(str(self._writable), str(self._writable), "", _BIND)
        _set_read_only("/", True)
        # /proc has nothing left in it but processes.
        for place in ("/proc", "/tmp", "/var/tmp", str(self._writable)):
            _set_read_only(place, False)

    def _need_mounts(self) -> None:
        if not self._own_mounts:
            raise OSError(errno.EPERM, "no mounts of its own")

    def _become_nobody(self) -> None:
        if os.getuid() == 0:
            _check_reach(self._own_mounts)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)


def _own_users() -> None:
    """Enter a user namespace; a child of ours, who stays outside, writes down who is in it."""
    me, user = os.getpid(), os.getuid()
    inside = "0 0 1\n" + (f"{NOBODY} {NOBODY} 1" if user == 0 else f"{user} {user} 1")
    waits, goes_on = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(goes_on)
        os.read(waits, 1)
        os._exit(_write_users(me, inside if user == 0 else inside.partition("\n")[2]))
    os.close(waits)
    failed = _libc.unshare(_NEW_USERS)
    why = ctypes.get_errno()
    os.close(goes_on)
    _, status = os.waitpid(child, 0)
    if failed:
        raise OSError(why, os.strerror(why))
    if status:
        raise SystemExit("in a user namespace, but nobody could write down who is in it")


def _write_users(process: int, users: str) -> int:
    try:
        if os.getuid():
            Path(f"/proc/{process}/setgroups").write_text("deny")
        for name in ("gid_map", "uid_map"):
            Path(f"/proc/{process}/{name}").write_text(users)
    except OSError:
        return 1
    return 0


def _drop_capabilities() -> None:
    for capability in range(64):
        if _libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0):
            if ctypes.get_errno() != errno.EINVAL:
                _check(-1)
            return  # there are no more


def _check_reach(own_mounts: bool) -> None:
    """Raise unless another user could run this Python."""
    for path in (Path(sys.executable).resolve(), Path.cwd()):
        for place in () if own_mounts else path.parents:
            if not place.stat().st_mode & stat.S_IXOTH:
                raise OSError(errno.EACCES, "nobody else may run this Python")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = [word.encode() for word in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), options.encode()))


def _set_read_only(place: str, wanted: bool) -> None:
    """Set a mount, with `wanted` and all below it."""
    chosen = (_READ_ONLY, 0) if wanted else (0, _READ_ONLY)
    attributes = (ctypes.c_uint64 * 4)(*chosen, 0, 0)
    flags = _AT_RECURSIVE if wanted else 0
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _check(_libc.syscall(_MOUNT_SETATTR, _HERE, place.encode(), flags, attributes, size))


def _check(failed: int) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _tried(step: Callable[[], object]) -> str:
    """Return "" if it could be done, else why not."""
    try:
        step()
    except OSError as error:
        return f"not possible here: {error.strerror}"
    return ""


def main(unit: str, writable: str, *program: str) -> None:
    """Impose, report, and become the program."""
    imposed = Confinement(unit, Path(writable)).impose()
    Path(writable, "imposed.json").write_text(json.dumps(imposed))
    os.execv(program[0], program)


if __name__ == "__main__":
    main(*sys.argv[1:])
