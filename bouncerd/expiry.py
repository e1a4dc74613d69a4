"""How long certificates are good: said once for each stretch that begins, and again when it ends.

Looks at the certificates that we show Apple, and at the roots of a ca_file. Those of others are
seen when a connection is made (words.py).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from bouncerd.config import Config
from bouncerd.credentials import ends_of
from bouncerd.watch import Ticker

log = Logger()

#: Seconds between two looks; days ahead of the end at which it is said.
EVERY = 3600.0
DAYS = (30, 14, 7, 1, 0)
#: From so many days on it is an error in the log, no warning.
PRESSING = 7
#: Seconds in which a reload does not make us say the same again.
_PATIENCE = 600.0
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Dated:
    """What has an end (unix seconds): `what` of the section `name`."""

    name: str
    what: str
    ends_at: float


class Expiry(Ticker):
    """Looks after the certificates of a configuration; `now()` is unix time."""

    def __init__(self, clock: IReactorTime, now: Callable[[], float]) -> None:
        super().__init__(clock, EVERY)
        self._now = now
        self._watched: list[Dated] = []
        self._told: dict[Dated, tuple[int, float]] = {}  # days ahead; when, by the clock

    def watch(self, config: Config) -> None:
        """Look after these from now on, and say at the start or now what is to be said of them."""
        self._watched = list(_dated(config, self._now()))
        at = self._clock.seconds()
        self._told = {
            each: told
            for each, told in self._told.items()
            if each in self._watched and at - told[1] < _PATIENCE
        }
        if self._call is not None:
            self.stop()
            self.start()

    def left(self) -> Mapping[str, float]:
        """Return the seconds until the certificate of each provider that has one expires."""
        now = self._now()
        return {each.name: each.ends_at - now for each in self._watched if each.what == CERTIFICATE}

    def tick(self) -> None:
        """Say what has come nearer."""
        now = self._now()
        for each in self._watched:
            days = (each.ends_at - now) / _DAY
            stretch = min((ahead for ahead in DAYS if days <= ahead), default=None)
            told = self._told.get(each)
            if stretch is None:
                self._told.pop(each, None)  # the clock was wrong
            elif told is None or stretch != told[0]:
                self._told[each] = stretch, self._clock.seconds()
                _tell(each, days)


CERTIFICATE = "certificate"


def _dated(config: Config, now: float) -> Iterator[Dated]:
    for section in config.apns:
        if section.certificate is not None:
            yield Dated(section.name, CERTIFICATE, section.certificate.expires_at)
    for each in config.providers:
        if each.ca_pem is not None:
            ends = ends_of(each.ca_pem)
            # Of several roots one may have ended long ago: what counts is the next end.
            yield Dated(each.name, "ca_file", min((e for e in ends if e > now), default=max(ends)))


def _tell(dated: Dated, days: float) -> None:
    day = f"{datetime.fromtimestamp(dated.ends_at, UTC):%Y-%m-%d}"
    left = "1 day" if round(days) == 1 else f"{days:.0f} days"
    when = f"expires on {day}, in {left}" if days > 0 else f"has expired on {day}"
    log.emit(
        LogLevel.error if days <= PRESSING else LogLevel.warn,
        "[{section}] {what} {when}",
        section=dated.name,
        what=dated.what,
        when=when,
        alert="certificate-expiry",
        subject=dated.name,
        reason=f"{dated.what} {when}",
    )
