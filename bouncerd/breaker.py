"""Breakers: an app that its provider refuses is asked about now and then, not push by push.

One for each app of a credential (apns.md 4.1, CONFIG). What one device meets opens
nothing: ten refusals in a row do, with no success between. Nor does what one server meets where
others have succeeded: it may have registered what no credential serves. An app that never succeeded
never counts against its credential: with `topics = *` any tenant may name any app. Pure.
"""

from dataclasses import dataclass, field

#: Refusals in a row that open a breaker.
IN_A_ROW = 10
#: Seconds between two attempts while it is open: the first, and at most.
FIRST_PROBE, LONGEST_PROBE = 60.0, 900.0
#: Servers that must be refused, where several have succeeded.
SEVERAL = 2


@dataclass(slots=True)
class _App:
    refusals: int = 0  # in a row
    probe_at: float = 0.0  # 0.0: it is not open
    served: set[str] = field(default_factory=set)  # of the servers that ever succeeded, some
    refused: set[str] = field(default_factory=set)  # of those that were refused in this row, some

    def is_general(self) -> bool:
        """Whether what is refused is more than one server's own."""
        return len(self.refused) >= SEVERAL or self.served <= self.refused


class Breakers:
    """All apps of one credential; `now` is in seconds of any one clock."""

    def __init__(self, most_apps: int = 1_000) -> None:
        self._most_apps = most_apps
        self._apps: dict[str, _App] = {}
        self._succeeded = 0  # how many of them ever did
        self.open: set[str] = set()  # those that are asked about now and then only

    def succeeded(self, app: str, server: str) -> bool:
        """Close it: a server's push was judged on its merits. Return whether it was open."""
        known = self._apps.get(app) or self._app(app)
        was_open = known.probe_at > 0.0
        if known.refusals:
            known.refusals, known.probe_at = 0, 0.0
            known.refused.clear()
            self.open.discard(app)
        if len(known.served) < SEVERAL and server not in known.served:
            self._succeeded += not known.served
            known.served.add(server)
        return was_open

    def refused(self, app: str, server: str, now: float) -> None:
        """Count a refusal of the credential or the app."""
        known = self._app(app)
        known.refusals += 1
        if len(known.refused) < SEVERAL:
            known.refused.add(server)
        if known.refusals >= IN_A_ROW and known.is_general():
            waits = min(known.refusals - IN_A_ROW, 10)
            known.probe_at = now + min(FIRST_PROBE * 2.0**waits, LONGEST_PROBE)
            self.open.add(app)

    def wait(self, app: str, now: float) -> float:
        """Return how long (seconds) a push has to wait; the one that need not is the probe."""
        known = self._apps.get(app)
        if known is None or not known.probe_at:
            return 0.0
        if now < known.probe_at:
            return known.probe_at - now
        known.probe_at = now + FIRST_PROBE
        return 0.0

    def is_the_credentials(self, app: str) -> bool:
        """Say whether a refusal may be the credential's fault, and not this app's alone."""
        known = self._apps.get(app)
        return not self._succeeded or (known is not None and bool(known.served))

    def _app(self, app: str) -> _App:
        known = self._apps.get(app)
        if known is None:
            if len(self._apps) >= self._most_apps:
                self._make_room()
            known = self._apps[app] = _App()
        return known

    def _make_room(self) -> None:
        """Forget an app, one that never succeeded if there is any."""
        app = next((app for app, known in self._apps.items() if not known.served), None)
        if app is None:
            app = next(iter(self._apps))
            self._succeeded -= 1
        del self._apps[app]
        self.open.discard(app)
