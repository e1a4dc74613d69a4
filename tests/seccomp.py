"""Filters of system calls on this process, loaded by libseccomp as systemd loads them."""

import ctypes
import errno
import socket
import stat
from collections.abc import Iterable
from ctypes.util import find_library

ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_NO_NEW_PRIVILEGES = 3  # the attribute by which libseccomp would set that itself
_NOT_EQUAL, _EQUAL, _MORE, _MASKED_EQUAL = 1, 4, 6, 7
# What makes a new namespace: time, mount, cgroup, uts, ipc, user, pid, net.
_NAMESPACES = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("one", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    )


def failing(error: int) -> int:
    """Return the action that makes a call fail with an error."""
    return _ERRNO | error


class Filter:
    """What becomes of each call; raises OSError where there is no libseccomp, or no seccomp.

    It knows the machine's own calls only: one of another architecture ends the process.
    """

    def __init__(self, otherwise: int = ALLOW) -> None:
        """`otherwise`: the action for calls that no rule is about."""
        name = find_library("seccomp")
        if name is None:
            raise OSError(errno.ENOENT, "libseccomp is not installed")
        self._library = ctypes.CDLL(name)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._library.seccomp_init.argtypes = (ctypes.c_uint32,)
        self._context = ctypes.c_void_p(self._library.seccomp_init(otherwise))

    def rule(self, action: int, call: str, *when: _Comparison) -> None:
        """Add what becomes of a call; one that this architecture has not is left out."""
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            comparisons = (_Comparison * len(when))(*when)
            failed = self._library.seccomp_rule_add_array(
                self._context, ctypes.c_uint32(action), number, len(when), comparisons
            )
            if failed:
                raise OSError(-failed, call)

    def load(self) -> None:
        """Make it hold from now on, here and in all children."""
        self._library.seccomp_attr_set(self._context, _NO_NEW_PRIVILEGES, 0)
        failed = self._library.seccomp_load(self._context)
        if failed:
            raise OSError(-failed, "seccomp_load")


def only(calls: Iterable[str], error: int) -> Filter:
    """Return the filter of SystemCallFilter= and SystemCallErrorNumber=."""
    found = Filter(failing(error))
    for call in sorted(calls):
        found.rule(ALLOW, call)
    return found


def families(names: Iterable[str]) -> Filter:
    """Return the filter of RestrictAddressFamilies=: sockets of no others."""
    allowed = {int(getattr(socket, name)) for name in names}
    last, action = max(allowed), failing(errno.EAFNOSUPPORT)
    found = Filter()
    found.rule(action, "socket", _Comparison(0, _MORE, last, 0))
    for family in set(range(last)) - allowed:
        found.rule(action, "socket", _Comparison(0, _EQUAL, family, 0))
    return found


def no_namespaces() -> Filter:
    """Return the filter of RestrictNamespaces=yes."""
    found = Filter()
    for flag in _NAMESPACES:
        for call in ("unshare", "clone"):
            found.rule(failing(errno.EPERM), call, _Comparison(0, _MASKED_EQUAL, flag, flag))
    found.rule(failing(errno.EPERM), "setns")
    found.rule(failing(errno.ENOSYS), "clone3")  # its flags are in memory; glibc then takes clone
    return found


def one_personality() -> Filter:
    """Return the filter of LockPersonality=yes."""
    found = Filter()
    found.rule(failing(errno.EPERM), "personality", _Comparison(0, _NOT_EQUAL, 0, 0))
    return found


def no_set_id() -> Filter:
    """Return the filter of RestrictSUIDSGID=yes, of its many calls those that change a mode."""
    found = Filter()
    for flag in (stat.S_ISUID, stat.S_ISGID):
        for call, argument in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2)):
            when = _Comparison(argument, _MASKED_EQUAL, flag, flag)
            found.rule(failing(errno.EPERM), call, when)
    return found


def no_real_time() -> Filter:
    """Return the filter of RestrictRealtime=yes: FIFO, round robin, deadline."""
    found = Filter()
    for policy in (1, 2, 6):
        when = _Comparison(1, _EQUAL, policy, 0)
        found.rule(failing(errno.EPERM), "sched_setscheduler", when)
    return found
