"""A few links to one provider: when to connect, which link to use, and what to say of them.

One dial at a time and at most one a second, as Apple and Google ask; a link that says goodbye
is replaced while it drains, so that the lane hardly notices (apns.md 5.7, fcm.md 5).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol as Interface

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import TimeoutError as NotInTime
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from bouncerd.link import Link, Manners
from bouncerd.words import words

log = Logger()

#: Seconds between two dials at least (apns.md 5.7: opening quickly looks like an attack).
SPACING = 1.0
#: Seconds for a dial to come to anything, name look-up included.
DIAL_WITHIN = 30.0
#: Back-off after failures: the first delay, and the longest, in seconds.
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
#: The same where the provider refuses our credential: no second will cure that (apns.md 5.5).
REFUSED_DELAY = 60.0

Connect = Callable[[IProtocolFactory], "Deferred[IProtocol]"]


class Lodger(Interface):
    """Whose requests go through the pool: a lane."""

    def pump(self) -> None:
        """Give requests to links that have room."""

    def no_link(self) -> None:
        """Hear that no link is ready any more."""


@dataclass(slots=True)
class PoolCounts:
    """What happened so far, for metrics."""

    dials: int = 0
    failures: int = 0  # dials, and links that ended before they were good for anything
    goaways: Counter[int] = field(default_factory=Counter)  # links that heard one, by its code


@dataclass(slots=True)
class PoolState:
    """What the health page and an operator want to know; `why` is in our words."""

    ready: int
    wanted: int
    why: str
    since: float = field(default=0.0)  # of the last change between some and no link ready
    draining: int = 0
    streams: int = 0  # requests that have not ended, on all links
    idle: bool = False  # no link is ready because none is needed, as far as we know


@dataclass(slots=True)
class Pace:
    """When the last dial was (the clock's seconds), of all pools that keep it together."""

    dialed_at: float = -SPACING


class _LinkFactory(Factory[Link]):
    """What an endpoint wants: makes the link when the socket is connected."""

    noisy = False

    def __init__(self, build: Callable[[], Link]) -> None:
        self._build = build

    def buildProtocol(self, _address: object) -> Link:
        return self._build()


class Pool:
    """Keeps `size` links to one origin, for one lodger."""

    def __init__(
        self,
        name: str,
        connect: Connect,
        manners: Manners,
        size: int,
        clock: IReactorTime,
        random: Random,
        refusal: Callable[[bytes], str | None] = lambda _debug: None,
    ) -> None:
        """`connect` dials; `refusal` reads a GOAWAY's debug data for "the credential is bad"."""
        self._name = name
        self._connect = connect
        self._manners = manners
        self._size = size
        self._clock = clock
        self._random = random
        self._refusal = refusal
        self.counts = PoolCounts()
        self._lodger: Lodger | None = None
        self._links: list[Link] = []  # all that live, draining ones included
        self._ready: list[Link] = []
        self._dialing: Deferred[IProtocol] | None = None
        self._dial_call: IDelayedCall | None = None
        self.pace = Pace()
        self._failures = 0
        self._refused = ""  # why our credential was, lately
        self._said_up = False
        self._why = "not started"
        self._changed_at = clock.seconds()
        self._wanted_at = clock.seconds()
        self._running = False
        self._all_gone: Deferred[None] | None = None

    def start(self, lodger: Lodger) -> None:
        """Dial, and go on dialing; of a pool that does already, take over the lodging."""
        self._lodger = lodger
        if not self._running:
            self._running = True
            self._why = "connecting"
        self.wake()

    def follow(self, before: "Pool") -> None:
        """Take the place of a pool to the same origin; together they dial no faster than one."""
        self.pace, self.counts = before.pace, before.counts

    def retire(self) -> Deferred[None]:
        """Stop because another pool has its work; its lodger hears nothing of it any more."""
        self._lodger = None
        return self.stop()

    def stop(self) -> Deferred[None]:
        """Let what is in flight finish; fires when every link is gone."""
        self._running = False
        gone: Deferred[None] = Deferred()
        self._all_gone = gone
        if self._dial_call is not None and self._dial_call.active():
            self._dial_call.cancel()
        if self._dialing is not None:
            self._dialing.cancel()
        for link in list(self._links):
            link.drain("stopping")
        self._check_gone()
        return gone

    # --- for the lodger

    @property
    def ready(self) -> bool:
        """Whether any link takes requests."""
        return bool(self._ready)

    def wake(self) -> None:
        """Say that there is something to send: an idle pool connects again."""
        self._wanted_at = self._clock.seconds()
        if self._running and len(self._ready) < self._size:
            self._maintain()

    def pick(self) -> Link | None:
        """Return the ready link with most room (of equals, the one with least in flight)."""
        best, most = None, (0, 0)
        for link in self._ready:
            room = link.free, -link.in_flight
            if room[0] and (best is None or room > most):
                best, most = link, room
        return best

    def pick_apart(self) -> Link | None:
        """Return the link for what may cost us one: always the same of those that are ready."""
        link = self._ready[-1] if self._ready else None
        return link if link is not None and link.free else None

    @property
    def refused(self) -> str:
        """Why the provider ends our connections, "" if it is not for our credential."""
        return "" if self._ready else self._refused

    def state(self) -> PoolState:
        """Return what to tell of it."""
        why = "" if self._ready else self._why
        return PoolState(
            len(self._ready),
            self._size,
            why,
            self._changed_at,
            draining=sum(link.draining for link in self._links),
            streams=sum(link.in_flight for link in self._links),
            idle=not self._ready and not self._failures and self._wanted() == 0,
        )

    # --- for its links

    def link_ready(self, link: Link) -> None:
        """Count it in: the server's SETTINGS have come."""
        self._ready.append(link)
        if len(self._ready) == 1:
            self._changed_at = self._clock.seconds()
            if not self._refused:  # else it is up for us when it has taken a push
                self._say_up()
        self._maintain()

    def link_roomy(self, _link: Link) -> None:
        """Have the lodger use the room."""
        if self._lodger is not None:
            self._lodger.pump()

    def link_useful(self, link: Link) -> None:
        """Hear that a push was judged on its merits: neither network nor credential is at fault.

        Once for each link, or one that works would hide that all others fail, once a second.
        """
        link.useful = True
        if link in self._links:  # not one of a pool that was here before
            self._failures, self._refused = 0, ""
            self._say_up()

    def link_silent(self, link: Link) -> None:
        """Trust the other links more: what was not answered goes again, once, on one of those."""
        if len(self._ready) > 1:
            link.drain("a request without any answer")

    def link_draining(self, link: Link) -> None:
        """Replace it at once, unless nobody used it; it goes when it has finished."""
        self._discount(link)
        refusal = self._refusal_of(link)
        if refusal:
            self._why = self._refused = refusal
        if link.farewell != "idle":
            self._maintain()

    def link_lost(self, link: Link, why: str) -> None:
        """Connect again; slower if it was good for nothing."""
        self._links.remove(link)
        if link.goaway is not None:
            self.counts.goaways[link.goaway.code] += 1
        self._wanted_at = max(self._wanted_at, link.sent_at)
        self._discount(link)
        if link.useful or why in {"idle", "its age"}:
            self._failures = 0
            self._why = why
        elif self._running:
            self._failed(self._refusal_of(link) or why)
        if why != "idle":
            self._maintain()
        self._check_gone()

    # --- within

    def _refusal_of(self, link: Link) -> str:
        """Return why the provider dislikes our credential, if it said so in its GOAWAY."""
        if link.goaway is None or link.useful:
            return ""
        return self._refusal(link.goaway.debug) or ""

    def _discount(self, link: Link) -> None:
        if link not in self._ready:
            return
        self._ready.remove(link)
        if not self._ready:
            self._changed_at = self._clock.seconds()
            if self._lodger is not None:
                self._lodger.no_link()

    def _check_gone(self) -> None:
        if self._all_gone is not None and not self._links and self._dialing is None:
            gone, self._all_gone = self._all_gone, None
            gone.callback(None)

    def _wanted(self) -> int:
        """Return how many links there should be: none for a provider that dislikes idle ones."""
        idle_close = self._manners.idle_close
        if idle_close is None:
            return self._size
        used = max([self._wanted_at, *(link.sent_at for link in self._links)])
        return self._size if self._clock.seconds() < used + idle_close else 0

    def _maintain(self) -> None:
        """Dial if there are too few links and nothing is under way."""
        if not self._running or self._dialing is not None:
            return
        if self._dial_call is not None and self._dial_call.active():
            return
        if sum(not link.draining for link in self._links) >= self._wanted():
            return
        due = self.pace.dialed_at + SPACING + self._back_off()
        self._dial_call = self._clock.callLater(max(due - self._clock.seconds(), 0), self._dial)

    def _back_off(self) -> float:
        if not self._failures and not self._refused:
            return 0.0
        delay = min(FIRST_DELAY * 2.0 ** min(max(self._failures - 1, 0), 10), LONGEST_DELAY)
        if self._refused:
            delay = max(delay, REFUSED_DELAY)
        return delay * (0.5 + 0.5 * self._random.random())

    def _dial(self) -> None:
        if self._wanted() == 0:
            return
        now = self._clock.seconds()
        if now < self.pace.dialed_at + SPACING:  # another pool at our pace was first
            due = self.pace.dialed_at + SPACING
            self._dial_call = self._clock.callLater(due - now, self._dial)
            return
        self.pace.dialed_at = now
        self.counts.dials += 1
        dialing = self._dialing = maybeDeferred(self._connect, _LinkFactory(self._build))
        # A name server may be silent for ever, and one dial at a time is all there is.
        dialing.addTimeout(DIAL_WITHIN, self._clock, _too_late)
        dialing.addCallbacks(self._connected, self._not_connected)

    def _build(self) -> Link:
        spread = 0.8 + 0.4 * self._random.random()
        link = Link(self._clock, self._manners, self, spread)
        self._links.append(link)
        return link

    def _connected(self, _link: IProtocol) -> None:
        self._dialing = None
        # A slow dial and a quick one may arrive together.
        self.pace.dialed_at = self._clock.seconds()
        self._maintain()

    def _not_connected(self, reason: Failure) -> None:
        self._dialing = None
        if self._running:
            self._failed(words(reason))
        self._maintain()
        self._check_gone()

    def _failed(self, why: str) -> None:
        self._failures += 1
        self.counts.failures += 1
        if why != self._why or self._failures == 1:
            log.warn("Provider {provider} is not reached: {why}", provider=self._name, why=why)
            self._said_up = False
        self._why = why

    def _say_up(self) -> None:
        """Tell the operator, once until it is not reached again."""
        if not self._said_up:
            self._said_up = True
            log.info("Provider {provider} is up", provider=self._name)


def _too_late(_result: object, _seconds: float) -> Failure:
    return Failure(NotInTime())
