"""What became of pushes, added up in memory until `counting` stores it: no content, no token.

Pure, and for one thread; `note` runs for every push. Days are those of UTC, counted from
1970-01-01; times are unix seconds.
"""

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from bouncerd.model import Push

DAY = 86_400
#: Stands for what is too much to be told apart.
OTHER = "other"
#: What the pushes of one server may make of one day, in one process: so many apps (they are the
#: server's text) and rows. The rest is added up by provider and end.
MOST_APPS = 20
MOST_ROWS = 200
#: Rows at most that wait to be stored, all together; what would be one more is dropped.
MOST_WAITING = 200_000

_APP = re.compile(r"[A-Za-z0-9._-]{0,155}")
_DELIVERED = "delivered"

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How many pushes of a server met the same on a day.

    `kind` is how they ended (`ledger.End`) or `retry`, `provider` a section's name.
    """

    server: str
    day: int
    provider: str
    app: str
    kind: str
    reason: str
    count: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class PushCount:
    """`mobile_pushes_received::day` and `…_forwarded::day` (bouncer-api.md 9.6, 13.2).

    `of` is the uuid of a server or of a realm.
    """

    of: str
    day: int
    received: int
    forwarded: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What was added up and is to be stored, once."""

    outcomes: tuple[OutcomeCount, ...] = ()
    servers: tuple[PushCount, ...] = ()
    realms: tuple[PushCount, ...] = ()

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.outcomes) + len(self.servers) + len(self.realms)


@dataclass(slots=True)
class _Seen:
    """What one server's pushes met today."""

    apps: set[str] = field(default_factory=set)
    rows: set[tuple[str, str, str, str]] = field(default_factory=set)


@dataclass(slots=True)
class _Sum:
    count: int
    first: float
    last: float


_Days = dict[tuple[str, int], list[int]]  # by whose and day: received, forwarded


class Tallies:
    """The sums since they were last taken."""

    def __init__(self, now: Callable[[], float], most: int = MOST_WAITING) -> None:
        self._now = now
        self._most = most
        self._outcomes: dict[tuple[str, int, str, str, str, str], _Sum] = {}
        self._servers: _Days = {}
        self._realms: _Days = {}
        self._day = 0
        self._seen: dict[str, _Seen] = {}
        #: What was not counted, because too much waits.
        self.dropped = 0

    def __len__(self) -> int:
        """Count the rows that wait."""
        return len(self._outcomes) + len(self._servers) + len(self._realms)

    def note(self, provider: str, push: Push, kind: str, reason: str) -> None:
        """Count that a push ended or is to be tried again."""
        now = self._now()
        day = int(now // DAY)
        app = push.device.app_id or ""
        found = self._outcomes.get((push.server, day, provider, app, kind, reason))
        if found is None:
            self._first(push.server, day, (provider, app, kind, reason), now)
        else:
            found.count += 1
            found.last = now
        if kind == _DELIVERED and push.counted:
            if not push.device.sealed:
                self._add(self._servers, push.server, day, 1, 1)
            if push.realm is not None:
                self._add(self._realms, push.realm, day, 1, 1)

    def received(self, server: str | None, realm: str | None, count: int) -> None:
        """Count for how many phones a push was asked for, on behalf of a server and a realm."""
        day = int(self._now() // DAY)
        for days, whose in ((self._servers, server), (self._realms, realm)):
            if whose is not None and count:
                self._add(days, whose, day, 0, count)

    def take(self, most: int) -> Counts:
        """Return at most so many rows, which are no longer here."""
        outcomes = _pop(self._outcomes, most)
        servers = _pop(self._servers, most - len(outcomes))
        realms = _pop(self._realms, most - len(outcomes) - len(servers))
        return Counts(
            tuple(
                # The clock may have been set back between the two.
                OutcomeCount(*key, s.count, min(s.first, s.last), max(s.first, s.last))
                for key, s in outcomes
            ),
            tuple(PushCount(*key, *sums) for key, sums in servers),
            tuple(PushCount(*key, *sums) for key, sums in realms),
        )

    def _first(self, server: str, day: int, row: tuple[str, str, str, str], now: float) -> None:
        """Count what was not counted yet, or not in those words."""
        key = (server, day, *self._told_apart(server, day, row))
        found = self._outcomes.get(key)
        if found is not None:
            found.count += 1
            found.last = now
        elif len(self) >= self._most:
            self.dropped += 1
        else:
            self._outcomes[key] = _Sum(1, now, now)

    def _told_apart(
        self, server: str, day: int, row: tuple[str, str, str, str]
    ) -> tuple[str, str, str, str]:
        if day != self._day:
            self._day, self._seen = day, {}
        seen = self._seen.setdefault(server, _Seen())
        provider, app, kind, reason = row
        if app not in seen.apps:
            if len(seen.apps) < MOST_APPS and _APP.fullmatch(app):
                seen.apps.add(app)
            else:
                row = provider, OTHER, kind, reason
        if row not in seen.rows:
            if len(seen.rows) >= MOST_ROWS:
                return provider, OTHER, kind, OTHER
            seen.rows.add(row)
        return row

    def _add(self, days: _Days, whose: str, day: int, which: int, count: int) -> None:
        sums = days.get((whose, day))
        if sums is None:
            if len(self) >= self._most:
                self.dropped += 1
                return
            sums = days[whose, day] = [0, 0]
        sums[which] += count


_Value = TypeVar("_Value")


def _pop(rows: dict[_Key, _Value], most: int) -> list[tuple[_Key, _Value]]:
    return [rows.popitem() for _ in range(min(most, len(rows)))]
