"""All lanes, as the configuration has them now, and how they change while pushes go through.

Knows which section has which lane, and how a lane comes to work with something else: its new
connections are opened beside the old ones, and it moves over when they can be used. So a
credential that the provider does not take costs nothing while the old one is good.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, TypeAlias

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from bouncerd.config import Config, ConfigError
from bouncerd.lane import Forget, Lane, Note
from bouncerd.oauth import AccessToken
from bouncerd.passing import Waiting
from bouncerd.providers import Outfit, Section, outfit
from bouncerd.redaction import class_name
from bouncerd.routes import Routes

log = Logger()

#: Seconds that new connections may take before a lane without usable old ones moves regardless;
#: and how often is said that they take so long.
MOVE_WITHIN = 30.0

Make: TypeAlias = Callable[[Section, Any, Outfit | None], Outfit]
_ByName: TypeAlias = dict[str | None, Lane]  # None: for all others


@dataclass(frozen=True, slots=True)
class Change:
    """What a configuration means for the lanes: all of it made, and nothing done yet."""

    config: Config
    made: Mapping[str, Outfit]  # of sections that are new, or not what they were
    gone: tuple[str, ...]


class Lanes:
    """The living lanes. `all` is one list for ever: those who read it see each change."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        forget: Forget,
        noting: Callable[[Section], Note | None] = lambda _: None,
        nowhere: Note | None = None,
        make: Make = outfit,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`noting` makes what a lane notes its pushes' ends with, as a section is or becomes.

        `nowhere` notes those that no section serves.
        """
        self._make = make
        self._now = now
        self.all: list[Lane] = []
        self._reactor = reactor
        self._forget = forget
        self._noting = noting
        self._outfits: dict[str, Outfit] = {}
        self._moves: dict[str, _Move] = {}
        self._leaving: set[str] = set()
        self._leaving_call: IDelayedCall | None = None
        self._running = False
        for name, made in self.prepare(config).made.items():
            self._add(name, made, config)
        self.routes = Routes(*self._mapped(config), nowhere)

    # --- for the service

    def start(self) -> None:
        """Ask for access tokens. (The service starts the pools.)"""
        self._running = True
        for each in self._outfits.values():
            _start_token(each)

    def stop(self) -> None:
        """Ask for none any more."""
        self.stay()
        for each in self._outfits.values():
            _stop_token(each)

    def stay(self) -> None:
        """Give up what is under way from one configuration to the next: the process stops."""
        self._running = False
        for name in list(self._moves):
            self._stay(name)
        if self._leaving_call is not None and self._leaving_call.active():
            self._leaving_call.cancel()

    def token_state(self, name: str) -> str:
        """Say what the access token of a section lacks; "" for nothing, or if it needs none."""
        used = self._outfits.get(name)
        if used is None or used.token is None or used.token.state.name == "ok":
            return ""
        return f"access token: {used.token.state.name} {used.token.state.reason}".strip()

    def token(self, name: str) -> AccessToken | None:
        """Return the access token of a section, if it needs one."""
        used = self._outfits.get(name)
        return None if used is None else used.token

    # --- for a reload

    def prepare(self, config: Config) -> Change:
        """Make whatever a configuration needs that is not there, or raise ConfigError."""
        sections = {each.name: each for each in config.providers}
        made = {
            name: self._made(section)
            for name, section in sections.items()
            if section != self._target(name)
        }
        gone = self._outfits.keys() - self._leaving - sections.keys()
        return Change(config, made, tuple(sorted(gone)))

    def apply(self, change: Change) -> None:
        """Do it: new lanes are there at once, others move or leave in their time."""
        config = change.config
        for name, made in change.made.items():
            if name in self._outfits:
                self._move(name, made)
            else:
                self._add(name, made, config)
        for section in config.providers:
            self._leaving.discard(section.name)
        self._leaving |= set(change.gone)
        for name in change.gone:
            self._stay(name)
        for lane in self.all:
            lane.resize(limit=config.limits.queue, keep_for=config.bouncerd.keep_for)
        self.routes.remap(*self._mapped(config))
        if change.made or change.gone:
            for lane in self.all:
                self._reroute(lane)
        self._look_after_leaving()

    # --- within

    def _target(self, name: str) -> Section | None:
        """Return the section that a lane works with, or is on its way to."""
        if name in self._moves:
            return self._moves[name].new.section
        return self._outfits[name].section if name in self._outfits else None

    def _made(self, section: Section) -> Outfit:
        try:
            return self._make(section, self._reactor, self._outfits.get(section.name))
        except Exception as error:  # noqa: BLE001 -- OpenSSL may know better than config did
            raise ConfigError([f"[{section.name}]: unusable ({class_name(type(error))})"]) from None

    def _lane(self, name: str) -> Lane:
        return next(lane for lane in self.all if lane.name == name)

    def _add(self, name: str, made: Outfit, config: Config) -> None:
        lane = Lane(
            made.provider, made.pool, self._reactor, self._now, SystemRandom(), self._forget,
            limit=config.limits.queue, keep_for=config.bouncerd.keep_for, patience=made.patience,
            note=self._noting(made.section),
        )  # fmt: skip
        self._outfits[name] = made
        self.all.append(lane)
        if made.token is not None:
            made.token.on_change = lane.pump
        if self._running:
            _start_token(made)
            made.pool.start(lane)

    def _move(self, name: str, made: Outfit) -> None:
        self._stay(name)
        lane, old = self._lane(name), self._outfits[name]
        if made.section == old.section:
            return  # back to what it still works with

        def arrived() -> None:
            del self._moves[name]
            self._outfits[name] = made
            self._noting(made.section)
            lane.adopt(made.provider, made.pool, made.patience).retire()
            if made.token is not old.token:
                _stop_token(old)
            if made.token is not None:
                made.token.on_change = lane.pump
            log.info("Lane {lane} uses new connections", lane=name)

        self._moves[name] = _Move(lane, old, made, self._reactor, arrived)
        self._moves[name].start()

    def _stay(self, name: str) -> None:
        move = self._moves.pop(name, None)
        if move is not None:
            move.give_up()

    def _mapped(self, config: Config) -> tuple[_ByName, _ByName]:
        """Return which lane serves which app of Apple's, and which server's Android phones."""
        lanes = {lane.name: lane for lane in self.all}
        apns: _ByName = {}
        fcm: _ByName = {}
        for section in config.apns:
            apns.update(dict.fromkeys(_or_any(section.topics), lanes[section.name]))
        for each in config.fcm:
            fcm.update(dict.fromkeys(_or_any(each.servers), lanes[each.name]))
        return apns, fcm

    def _reroute(self, lane: Lane) -> None:
        """Let what waits in a lane go where it would go now; what no section serves stays.

        Its own credential may never have been good for it: perhaps that is why it waits.
        """
        lane.pause()
        places = self._placed(lane.to_pass_on(), lane)
        if places.keys() - {lane}:
            lane.passed_on()
            for place, waiting in places.items():
                place.take_over(waiting)
        lane.go_on()

    def _placed(self, waiting: Iterable[Waiting], lane: Lane) -> Mapping[Lane, Sequence[Waiting]]:
        """Tell apart what goes to which lane; to `lane` if no section says."""
        places: dict[Lane, list[Waiting]] = {}
        for each in waiting:
            places.setdefault(self.routes.lane(each.push) or lane, []).append(each)
        return places

    def _look_after_leaving(self) -> None:
        """Let lanes end, once they have worked off what they took while they had a section."""
        if self._leaving_call is not None and self._leaving_call.active():
            self._leaving_call.cancel()
        for name in sorted(self._leaving):
            lane = self._lane(name)
            self._reroute(lane)  # also what was in flight at the reload, and is to go again
            if not lane.waiting:
                self._leaving.discard(name)
                self.all.remove(lane)
                _stop_token(self._outfits.pop(name))
                lane.pool.retire()
                log.info("Lane {lane} has ended: its section is gone", lane=name)
        if self._leaving:
            self._leaving_call = self._reactor.callLater(1.0, self._look_after_leaving)


class _Move:
    """A lane's way to other connections: lodges with the new ones until they can be used."""

    def __init__(
        self,
        lane: Lane,
        old: Outfit,
        new: Outfit,
        clock: IReactorTime,
        arrived: Callable[[], None],
    ) -> None:
        self.new = new
        self._lane = lane
        self._old = old
        self._clock = clock
        self._arrived = arrived
        self._due: IDelayedCall | None = None
        self._since = clock.seconds()

    def start(self) -> None:
        """Connect."""
        self._due = self._clock.callLater(MOVE_WITHIN, self._late)
        self.new.pool.follow(self._old.pool)
        if self.new.token is not self._old.token and self.new.token is not None:
            self.new.token.on_change = self.pump
            self.new.token.start()
        self.new.pool.start(self)

    def give_up(self) -> None:
        """Let the lane go on as it is."""
        self._stop_waiting()
        self.new.pool.retire()
        if self.new.token is not self._old.token:
            _stop_token(self.new)

    def pump(self) -> None:
        """Arrive, soon, once requests can be sent. (Called from within a link.)"""
        if self.new.pool.ready and self.new.provider.ready:
            self._stop_waiting()
            self._due = self._clock.callLater(0, self._arrived)

    def no_link(self) -> None:
        """Nobody waits here."""

    def _late(self) -> None:
        if not self._lane.ready:
            self._arrived()
            return
        log.error(
            "Lane {lane} still uses its old connections, new ones are not up after {seconds} s: "
            "{why}",
            lane=self._lane.name,
            seconds=round(self._clock.seconds() - self._since),
            why=self.new.pool.state().why or "no access token",
            alert="reload-failed",
        )
        self._due = self._clock.callLater(20 * MOVE_WITHIN, self._late)
        self.new.pool.wake()

    def _stop_waiting(self) -> None:
        if self._due is not None and self._due.active():
            self._due.cancel()


def _or_any(names: frozenset[str] | None) -> list[str | None]:
    return [*names] if names else [None]


def _start_token(each: Outfit) -> None:
    if each.token is not None:
        each.token.start()


def _stop_token(each: Outfit) -> None:
    if each.token is not None:
        each.token.stop()
