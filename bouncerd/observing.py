"""Everything that looks at the daemon and tells: built in one place, started and stopped as one."""

from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import globalLogPublisher

from bouncerd.alerts import Alerts, Spawn
from bouncerd.apns import Apns
from bouncerd.config import Config
from bouncerd.health import Admin, Health
from bouncerd.lane import Lane
from bouncerd.ledger import Ledger
from bouncerd.logs import Observer
from bouncerd.metrics import Metrics, Sources
from bouncerd.oauth import AccessToken
from bouncerd.outcomes import Outcomes
from bouncerd.seals import key_for
from bouncerd.site import Site
from bouncerd.store.base import Store
from bouncerd.summary import Summary
from bouncerd.watch import Lag, StoreWatch


class Fleet(Protocol):
    """What is asked about all lanes."""

    all: list[Lane]  # the same list for ever

    def token_state(self, name: str) -> str:
        """Say what the access token of a section lacks; "" for nothing."""

    def token(self, name: str) -> AccessToken | None:
        """Return the access token of a section, if it needs one."""


class Observing:
    """Watches, counts and tells; what it needs to be told itself is in `health` and `apply`."""

    def __init__(
        self,
        lanes: Fleet,
        nowhere: Ledger,
        store: Store,
        site: Site,
        outcomes: Outcomes,
        certificates: Callable[[], Mapping[str, float]],
        log: Observer,
        clock: IReactorTime,
        now: Callable[[], float],
        spawn: Spawn,
    ) -> None:
        """`site` is the API's; `certificates` says how long ours are good; `now` is unix time."""
        self._lanes = lanes
        self._store = store
        self._outcomes = outcomes
        self._log = log
        self._clock = clock
        self._now = now
        self._store_watch = StoreWatch(store.ping, clock, self._learn_key)
        self._lag = Lag(clock)
        self._summary = Summary(clock, site.requests, lanes.all, nowhere)
        self.alerts = Alerts(clock, spawn)
        self.health = Health(self._store_watch, lanes.all, lanes.token_state, clock)
        self.metrics = Metrics(
            Sources(
                lanes=lanes.all,
                nowhere=nowhere,
                outcomes=outcomes,
                requests=site.requests,
                connections=lambda: len(site.channels),
                timings=store.timings,
                lag=self._lag,
                health=self.health,
                log=log,
                alerts=self.alerts,
                bearers=self._bearers,
                tokens=self._tokens,
                certificates=certificates,
            )
        )
        self.admin = Admin(self.health, self.metrics.page)

    def apply(self, config: Config) -> None:
        """Do as the configuration says; again after each reload."""
        self._log.set_level(config.bouncerd.log_level)
        self.alerts.command = config.bouncerd.alert_command

    def start(self) -> None:
        """Begin to look."""
        globalLogPublisher.addObserver(self.alerts)
        for each in (self._store_watch, self._lag, self._summary):
            each.start()

    def stop(self) -> None:
        """Look no more."""
        for each in (self._store_watch, self._lag, self._summary):
            each.stop()
        globalLogPublisher.removeObserver(self.alerts)

    def _learn_key(self) -> None:
        """Ask for what names tokens in the log, once the store answers."""
        if self._outcomes.hash_key is None:
            # If this fails, it is asked again when the store works again.
            self._store.secret().addCallbacks(self._know_key, lambda _: None)

    def _know_key(self, secret: bytes) -> None:
        self._outcomes.hash_key = key_for(secret, "log")

    def _bearers(self) -> dict[str, float]:
        issued = {
            lane.name: lane.provider.bearer_issued_at()
            for lane in self._lanes.all
            if isinstance(lane.provider, Apns)
        }
        now = self._now()
        return {name: now - at for name, at in issued.items() if at is not None}

    def _tokens(self) -> dict[str, float]:
        now = self._clock.seconds()
        found = {lane.name: self._lanes.token(lane.name) for lane in self._lanes.all}
        return {
            name: max((token.good_until or now) - now, 0.0)
            for name, token in found.items()
            if token is not None
        }
