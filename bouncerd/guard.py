"""The mass-failure guard: a mistake of the operator's must not delete everybody's phones.

What says "bad token" is also what a wrong environment, topic or project looks like (apns.md 4.3).
So where most of an app's pushes end so, deletions stop until that is over. It does nothing else:
tokens of one careless server open no breaker, and cannot trip it for the others alone. Pure.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

WINDOW = 300.0  # seconds
LEAST = 50  # results in a window below which nothing can be said
_SLOT = 30.0  # seconds that are counted together
_MOST_SERVERS = 1_000  # whose results are told apart in a slot
_MOST_COUNTS = 20_000  # of servers in slots of apps, all together

#: Reasons of `Gone` that may be the operator's mistake. A 410 and UNREGISTERED never are.
SUSPECT = frozenset(
    {"BadDeviceToken", "DeviceTokenNotForTopic", "INVALID_ARGUMENT (token)", "SENDER_ID_MISMATCH"}
)


@dataclass(slots=True)
class _Slot:
    """Results of one stretch of time: how many and how many of them bad, in all and by server."""

    begun: float
    total: list[int] = field(default_factory=lambda: [0, 0])
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
                self._make_room()
            slots = self._slots[app] = deque()
        if not slots or now >= slots[-1].begun + _SLOT:
            slots.append(_Slot(now))
            while slots[0].begun <= now - WINDOW:
                slots.popleft()
        slot = slots[-1]
        counts = slot.servers.get(server)
        if counts is None:
            counts = slot.open(server, room=self._has_room(now))
        counts[0] += 1
        slot.total[0] += 1
        if bad:
            counts[1] += 1
            slot.total[1] += 1

    def _make_room(self) -> None:
        """Forget an app: the oldest of those that one server alone uses, if there is any.

        With `topics = *` tenants invent apps; those must not make it forget what others use.
        """
        alone = (app for app, slots in self._slots.items() if _of_one(slots))
        del self._slots[next(alone, next(iter(self._slots)))]

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
        slots = [slot for slot in self._slots.get(app, ()) if slot.begun > now - WINDOW]
        count, bad = (sum(slot.total[which] for slot in slots) for which in (0, 1))
        return count >= LEAST and 2 * bad > count and _most_fail(slots)


def _of_one(slots: Iterable[_Slot]) -> bool:
    servers = (server for slot in slots for server in slot.servers)
    first = next(servers, None)
    return all(server == first for server in servers)


def _most_fail(slots: Iterable[_Slot]) -> bool:
    """Whether most servers see mostly failures, and not only one with much junk for tokens.

    What the operator has set wrongly meets all of them.
    """
    totals: dict[str, list[int]] = {}
    for slot in slots:
        for server, (count, bad) in slot.servers.items():
            total = totals.setdefault(server, [0, 0])
            total[0] += count
            total[1] += bad
    failing = sum(2 * bad > count for count, bad in totals.values())
    return 2 * failing > len(totals)
