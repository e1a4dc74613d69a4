"""The only place where the daemon's objects are built: bottom to top, from a configuration."""

import gc
import time
from collections.abc import Callable, Container
from functools import partial
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.names.client import Resolver as DNSResolver
from twisted.web.client import Agent

from bouncerd import __version__, policy
from bouncerd.addresses import IPAddress
from bouncerd.alerts import spawner
from bouncerd.api import LONG_BODIES, Api
from bouncerd.bouncer import Bouncer
from bouncerd.boxes import Boxes
from bouncerd.challenge import Challenge
from bouncerd.channel import Bounds
from bouncerd.config import ApnsSection, Config, ConfigError
from bouncerd.counting import Counting
from bouncerd.dialling import CONNECT_TIME, Dialler
from bouncerd.expiry import Expiry
from bouncerd.lane import Forget, Note
from bouncerd.lanes import Lanes
from bouncerd.limiter import Limiter, OwnLimiter, SharedLimiter
from bouncerd.links import Links
from bouncerd.logs import Observer
from bouncerd.mailboxes import Mailboxes
from bouncerd.model import Push
from bouncerd.observing import Observing
from bouncerd.outcomes import Outcomes
from bouncerd.pages import Pages
from bouncerd.providers import Section
from bouncerd.pruning import Pruning
from bouncerd.registry import Registry
from bouncerd.reloading import Reloader
from bouncerd.resolving import Names
from bouncerd.routes import Routes
from bouncerd.sealedpush import SealedPushes
from bouncerd.service import CannotStart, Parts
from bouncerd.site import Site
from bouncerd.store.base import Store, StoreError
from bouncerd.store.kinds import make_store
from bouncerd.strangers import Strangers
from bouncerd.tallies import Tallies
from bouncerd.transfers import Transfers
from bouncerd.uploading import Uploads

log = Logger()


def build(config: Config, reactor: Any, read: Callable[[], Config], told: Observer) -> Parts:
    """Build everything but the listeners; raise CannotStart if the store will not open.

    `read` reads the configuration again, for a reload; `told` writes the log.
    """
    store = _store(config, reactor)
    outcomes, tallies = Outcomes(told.verbosity), Tallies(time.time)

    def forget(*what: Any) -> Deferred[None]:
        return bouncer.forget(*what)

    def noting(section: Section) -> Note:
        apps = section.topics if isinstance(section, ApnsSection) else None
        measured = outcomes.noting(section.name, apps)

        def note(push: Push, kind: str, reason: str) -> None:
            measured(push, kind, reason)
            tallies.note(section.name, push, kind, reason)

        return note

    lanes = _lanes(config, reactor, forget, noting, partial(tallies.note, "none"))
    free_users = config.entitlement.free_users
    rules = policy.rules(config)
    bouncer = Bouncer(
        store, lanes.routes, reactor, time.time, rules, free_users=free_users, tallies=tallies
    )
    links = Links(store, time.time, config.bouncerd.public_url, config.bouncerd.support)
    names = Names(DNSResolver("/etc/resolv.conf", reactor=reactor), reactor)
    mailboxes = _mailboxes(names, reactor)
    registry = Registry(store, reactor, time.time, policy.admission(config), mailboxes(config))
    transfers = _transfers(config, store, names, reactor)
    strangers = _strangers(config, reactor)
    sealed = _sealed(config, store, lanes.routes, reactor, tallies)
    uploads = Uploads(store, reactor, time.time, free_users)
    api = Api(
        bouncer,
        registry,
        transfers,
        strangers,
        store,
        reactor,
        sealed=sealed,
        uploads=uploads,
        links=links,
        now=time.time,
        answer_within=config.bouncerd.answer_within,
        requests_per_minute=config.limits.requests_per_minute,
        limiter=_limiter(config, store, reactor),
        support=config.bouncerd.support,
    )

    pages = _pages(config, api, store, links, reactor)
    bounds = Bounds(bodies=LONG_BODIES)
    site = Site(pages, reactor, time.time, bounds, verbosity=told.verbosity, knows=api.knows)
    expiry = Expiry(reactor, time.time)
    expiry.watch(config)
    nowhere, spawn = lanes.routes.nowhere, spawner(reactor)
    observing = Observing(
        lanes, nowhere, store, site, outcomes, expiry.left, told, reactor, time.time, spawn
    )
    observing.apply(config)
    admin_site = Site(observing.admin, reactor, time.time)
    site.noisy = admin_site.noisy = False  # service.py says where we serve
    admin_site.quiet = True  # who asks every second whether we are ready knows the answer
    holds = policy.Policy(
        bouncer, sealed, registry, mailboxes, transfers, strangers, uploads, links, api, pages
    )
    appliers = [holds.apply, expiry.watch, observing.apply]
    reloader = Reloader(config, read, lanes, appliers, reactor)
    log.info("bouncerd {version}, as {path} says", version=__version__, path=str(config.path))
    gc.freeze()  # what is built lives as long as the process: collections need not visit it
    counting = Counting(store, tallies, reactor, time.time)
    started = lanes, expiry, Pruning(store, reactor, time.time)
    return Parts(
        store, lanes.all, started, site, admin_site, lanes.routes, reloader, observing, counting
    )


def _lanes(
    config: Config,
    reactor: Any,
    forget: Forget,
    noting: Callable[[Section], Note],
    nowhere: Note,
) -> Lanes:
    try:
        return Lanes(config, reactor, forget, noting, nowhere)
    except ConfigError as error:
        raise CannotStart("; ".join(error.problems)) from None


def _store(config: Config, reactor: Any) -> Store:
    try:
        return make_store(config.bouncerd.store, reactor, time.time)
    except StoreError as error:
        raise CannotStart(f"store: {error}") from None


def _limiter(config: Config, store: Store, reactor: Any) -> Limiter:
    """Return one that counts for itself, unless other processes may be on the same store."""
    if config.bouncerd.store.startswith("sqlite:"):
        return OwnLimiter(reactor)
    return SharedLimiter(store, reactor)


def _mailboxes(names: Names, reactor: Any) -> Callable[[Config], Mailboxes | None]:
    """Return what makes the check of contact addresses, if the operator wants it."""

    def made(config: Config) -> Mailboxes | None:
        if not config.registration.check_email_domain:
            return None
        return Mailboxes(names, reactor, _disposable_domains())

    return made


def _disposable_domains() -> Container[str]:
    """Return the domains of throw-away addresses, if the package that lists them is installed."""
    try:
        domains: Container[str] = import_module("disposable_email_domains").blocklist
    except ImportError:
        return frozenset()
    return domains


def _transfers(config: Config, store: Store, names: Names, reactor: Any) -> Transfers:
    def connector(address: IPAddress, port: int) -> IStreamClientEndpoint:
        kind = TCP4ClientEndpoint if address.version == 4 else TCP6ClientEndpoint
        return kind(reactor, str(address), port, timeout=CONNECT_TIME)

    agent = Agent.usingEndpointFactory(reactor, Dialler(names, connector, reactor))
    challenge = Challenge(agent, reactor)
    return Transfers(store, challenge, reactor, time.time, config.bouncerd.support)


def _strangers(config: Config, reactor: Any) -> Strangers:
    proxies = config.bouncerd.trusted_proxies
    return Strangers(config.limits.registrations_per_hour, proxies, reactor)


def _sealed(
    config: Config, store: Store, routes: Routes, reactor: Any, tallies: Tallies
) -> SealedPushes:
    boxes, free_users = Boxes(config.e2ee.private_keys), config.entitlement.free_users
    policy.say_keys(boxes)
    rules = policy.rules(config)
    return SealedPushes(
        store, routes, reactor, time.time, rules, boxes, free_users, tallies=tallies
    )


def _pages(config: Config, api: Api, store: Store, links: Links, reactor: Any) -> Pages:
    setting, proxies = policy.setting(config), config.bouncerd.trusted_proxies
    return Pages(api.resource(), store, links, reactor, time.time, setting, proxies)
