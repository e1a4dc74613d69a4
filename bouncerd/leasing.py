"""How processes share a limit: what one of them asks of the common log, and what it is granted.

Pure; the store keeps the log and brings the time, which is the database's for all. Granted is what
is asked for at once; and, while plenty is left, a little ahead, so that not every request costs a
look at the database. All that is ahead and may be unused, in all processes together, is at most
one part in `_AHEAD` of the limit. By that much at most a process is refused too early, while
others hold on to theirs, and by that much at most too many pass in any stretch of time, because
what is ahead counts from when it was granted. The last part in `_SINGLY` is granted singly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: Seconds that a process may keep what it was granted ahead; what is unused then it gives back.
HOLD = 20.0
_AHEAD = 100
_SINGLY = 20
# What passed is remembered in slices of the window, so that a log stays short. Within a slice the
# latest moment counts.
_SLICES = 240
_ASTRAY = 1_000_000  # microseconds


class Entry(NamedTuple):
    """What was granted at a moment (microseconds), and how much of it may be unused."""

    at: int
    taken: int
    held: int


@dataclass(frozen=True, slots=True)
class Ask:
    """What a process wants of a key: `wanted` at once, `ahead` if it can be had.

    `back` names grants ahead that are done with, and how much of each is unused.
    """

    key: str
    limit: int
    wanted: int
    ahead: int = 0
    back: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """What it gets: `granted` at once, and `ahead`, to be given back by the name `entry`.

    `left` is what remains for all after that. Times are in seconds, as in `limits.Verdict`.
    """

    granted: int
    ahead: int
    entry: int
    left: int
    free_in: float
    retry_in: float


def grant(log: Sequence[Entry], ask: Ask, now: float, window: float) -> tuple[Lease, list[Entry]]:
    """Return what is granted and the log after that; `now` and `window` are in seconds."""
    moment, span = round(now * 1e6), round(window * 1e6)
    entries = _settled(_current(log, moment, span), ask.back, moment)
    taken = sum(entry.taken for entry in entries)
    room = max(0, ask.limit - taken)
    granted = min(ask.wanted, room)
    spare = ask.limit // _AHEAD - sum(entry.held for entry in entries)
    ahead = max(0, min(ask.ahead, spare, room - granted - ask.limit // _SINGLY))
    at = moment
    if granted + ahead:
        # A grant's time is its name.
        at = max(moment, entries[-1].at + 1) if entries else moment
        entries.append(Entry(at, granted + ahead, ahead))
    retry_in, free_in = _waits(entries, ask.limit, moment, span)
    left = room - granted - ahead
    return Lease(granted, ahead, at, left, free_in, retry_in), _sliced(entries, span // _SLICES)


def _current(log: Sequence[Entry], moment: int, span: int) -> list[Entry]:
    """Leave out what is older than the window.

    What is of the future was written by another clock, before the database moved to this host.
    """
    return [
        entry if entry.at <= moment + _ASTRAY else Entry(moment, *entry[1:])
        for entry in log
        if entry.at > moment - span
    ]


def _settled(entries: list[Entry], back: Sequence[tuple[int, int]], moment: int) -> list[Entry]:
    """Take back what is unused; what nobody gave back in time was used."""
    unused = dict(back)
    settled = []
    for entry in entries:
        if entry.at in unused and entry.held:
            used = entry.taken - min(unused[entry.at], entry.held)
            settled += [Entry(entry.at, used, 0)] if used else []
        elif entry.at <= moment - HOLD * 1e6:
            settled.append(Entry(entry.at, entry.taken, 0))
        else:
            settled.append(entry)
    return settled


def _waits(entries: Sequence[Entry], limit: int, moment: int, span: int) -> tuple[float, float]:
    """Return in how many seconds a full log has room again, and in how many it is empty."""
    left = sum(entry.taken for entry in entries)
    free = entries[-1].at if entries else moment
    room = moment
    for entry in entries:
        if left < limit:
            break
        left -= entry.taken
        room = entry.at
    # Names of grants may be some microseconds ahead of the time.
    return min(room + span - moment, span) / 1e6, min(free + span - moment, span) / 1e6


def _sliced(entries: Sequence[Entry], width: int) -> list[Entry]:
    """Put together what lies in one slice and is used."""
    sliced: list[Entry] = []
    for entry in entries:
        last = sliced[-1] if sliced else None
        if (
            last is not None
            and not last.held
            and not entry.held
            and entry.at // width == last.at // width
        ):
            sliced[-1] = Entry(entry.at, last.taken + entry.taken, 0)
        else:
            sliced.append(entry)
    return sliced
