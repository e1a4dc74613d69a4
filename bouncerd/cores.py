"""No core file of this process: its memory holds messages and keys.

Needs no right, and holds however the process was started, for what it starts as well.
"""

import resource

# A core that is piped to a program asks no limit but this one: of 1 byte, the kernel makes none
# at all (core(5) tells only of 0, which binds files, and programs that honour it: systemd's does).
_NONE_AT_ALL = 1


def forbid() -> None:
    """Have the kernel make no core, neither as a file nor for a program that would keep it."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = most if 0 <= most < _NONE_AT_ALL else _NONE_AT_ALL
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
