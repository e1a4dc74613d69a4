"""The mass-failure guard: a mistake of the operator's must not delete everybody's phones.

What says "bad token" is also what a wrong environment, topic or project looks like (apns.md 4.3).
So where most of an app's pushes end so, deletions stop until that is over. It does nothing else:
tokens of one careless server open no breaker, and cannot trip it for the others alone. Pure.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

WINDOW = 300.0  # seconds
LEAST = 50  # results in a window below which nothing can be said
#: Servers that must see mostly failures, where several send.
SEVERAL = 2
_SLOT = 30.0  # seconds that are counted together
_MOST_SERVERS = 1_000  # whose results are told apart in a slot
_MOST_COUNTS = 20_000  # of servers in slots of apps, all together

#: Reasons of `Gone` that may be the operator's mistake. A 410 and UNREGISTERED never are.
SUSPECT = frozenset(
    {"BadDeviceToken", "DeviceTokenNotForTopic", "INVALID_ARGUMENT (token)", "SENDER_ID_MISMATCH"}
)


@dataclass(slots=True)
class _Slot:
    """Results of one stretch of time: by server, how many and how many of them bad."""

    begun: float
    servers: dict[str, list[int]] = field(default_factory=dict)

    def open(self, server: str, *, room: bool) -> list[int]:
        """Begin to count a server, if there is room."""
        # Of too many servers the later ones count as one, and so as no more than one.
        server = server if room and len(self.servers) < _MOST_SERVERS else ""
        return self.servers.setdefault(server, [0, 0])


class Guard:
    """Watches one credential, app by app; `now` is in seconds of any one clock."""

    def __init__(self, most_apps: int = 1_000) -> None:
        self._most_apps = most_apps
        self._slots: dict[str, deque[_Slot]] = {}
        self._counts = 0  # of all slots, and some that were forgotten since it was counted
        self._counted_at = float("-inf")

    def note(self, app: str, server: str, now: float, *, bad: bool) -> None:
        """Count a result of a server's push for an app."""
        slots = self._slots.get(app)
        if slots is None:
            if len(self._slots) >= self._most_apps:
                del self._slots[next(iter(self._slots))]
            slots = self._slots[app] = deque()
        if not slots or now >= slots[-1].begun + _SLOT:
            slots.append(_Slot(now))
            while slots[0].begun <= now - WINDOW:
                slots.popleft()
        counts = slots[-1].servers.get(server)
        if counts is None:
            counts = slots[-1].open(server, room=self._has_room(now))
        counts[0] += 1
        counts[1] += bad

    def _has_room(self, now: float) -> bool:
        """Count one more, if that is not too many; now and then look what is still there."""
        if self._counts >= _MOST_COUNTS and now >= self._counted_at + _SLOT:
            self._counted_at = now
            for app, slots in list(self._slots.items()):
                while slots and slots[0].begun <= now - WINDOW:
                    slots.popleft()
                if not slots:
                    del self._slots[app]
            every = self._slots.values()
            self._counts = sum(len(slot.servers) for slots in every for slot in slots)
        room = self._counts < _MOST_COUNTS
        self._counts += room
        return room

    def trips(self, app: str, now: float) -> bool:
        """Say whether so much fails that no token of the app may be deleted for it."""
        totals: dict[str, list[int]] = {}
        for slot in self._slots.get(app, ()):
            if slot.begun > now - WINDOW:
                for server, (count, bad) in slot.servers.items():
                    total = totals.setdefault(server, [0, 0])
                    total[0] += count
                    total[1] += bad
        return _mostly_bad(totals)


def _mostly_bad(totals: Mapping[str, list[int]]) -> bool:
    count = sum(total[0] for total in totals.values())
    if count < LEAST or 2 * sum(total[1] for total in totals.values()) <= count:
        return False
    failing = sum(2 * bad > results for results, bad in totals.values())
    return failing >= min(SEVERAL, len(totals))
