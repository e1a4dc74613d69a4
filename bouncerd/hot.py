"""Devices that their provider wants left alone for a while (429; apns.md 4.1, fcm.md 4.3). Pure.

Pushes of such a device wait, nobody else's. When the time is up one goes and shows whether it is
over. Each server that sends to it finds out by itself: else one that floods a phone, on which
another's messages are read too, could hold up those for as long as it liked.
"""

from collections.abc import Mapping

#: Seconds that a device's others wait for the answer to the first.
PROBE_WITHIN = 5.0
#: Servers that are told apart at a device; all others together are one more.
_MOST_SERVERS = 7
_OTHERS = ""


class HotDevices:
    """By token and server; `now` is in seconds of any one clock. The oldest are forgotten."""

    def __init__(self, longest: float, most: int = 10_000) -> None:
        self._longest = longest
        self._most = most
        # until when, how often in a row
        self._known: dict[str, dict[str, tuple[float, int]]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def heated(self, token: str, server: str, after: float, now: float) -> float:
        """Take note of a 429 that asks for so many seconds; return how many it will be."""
        servers = self._known.pop(token, {})
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[token] = servers
        server = _told_apart(servers, server)
        until, times = servers.get(server, (0.0, 0))
        if until > now + PROBE_WITHIN:
            times -= 1  # of several that were under way together: no news
        wait = max(after, min(after * 2.0 ** min(times, 16), self._longest))
        servers[server] = max(now + wait, until), times + 1
        return wait

    def wait(self, token: str, server: str, now: float) -> float:
        """Return how long (seconds) a push waits unsent; the one that need not is the probe."""
        servers = self._known.get(token)
        if servers is None:
            return 0.0
        server = _told_apart(servers, server)
        known = servers.get(server)
        if known is None:
            return 0.0
        until, times = known
        if now < until:
            return until - now
        servers[server] = now + PROBE_WITHIN, times
        return 0.0

    def cooled(self, token: str, server: str) -> None:
        """Take note that it takes a server's pushes."""
        servers = self._known.get(token)
        if servers is not None:
            servers.pop(_told_apart(servers, server), None)
            if not servers:
                del self._known[token]


def _told_apart(servers: Mapping[str, object], server: str) -> str:
    return server if server in servers or len(servers) < _MOST_SERVERS else _OTHERS
