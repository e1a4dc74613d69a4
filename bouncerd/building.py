"""The only place where the daemon's objects are built: bottom to top, from a configuration."""

import gc
import time
from collections.abc import Container
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.names.client import Resolver as DNSResolver
from twisted.web.client import Agent

from bouncerd.addresses import IPAddress
from bouncerd.api import LONG_BODIES, Api
from bouncerd.bouncer import Bouncer, Rules
from bouncerd.boxes import Boxes
from bouncerd.challenge import Challenge
from bouncerd.channel import Bounds
from bouncerd.config import Config
from bouncerd.dialling import CONNECT_TIME, Dialler
from bouncerd.health import Admin
from bouncerd.links import Links
from bouncerd.mailboxes import Mailboxes
from bouncerd.markup import Contact
from bouncerd.pages import Pages, Setting
from bouncerd.providers import build_routes
from bouncerd.registry import Admission, Registry
from bouncerd.resolving import Names
from bouncerd.routes import Routes
from bouncerd.sealedpush import SealedPushes
from bouncerd.service import CannotStart, Parts
from bouncerd.site import Site
from bouncerd.store.base import Store, StoreError
from bouncerd.store.sqlite import SQLiteStore
from bouncerd.strangers import Strangers
from bouncerd.transfers import Transfers
from bouncerd.uploading import Uploads

log = Logger()


def build(config: Config, reactor: Any) -> Parts:
    """Build everything but the listeners; raise CannotStart if the store will not open."""
    store = _store(config, reactor)

    def forget(*what: Any) -> Deferred[None]:
        return bouncer.forget(*what)

    routes, tokens = build_routes(config, reactor, forget)
    free_users = config.entitlement.free_users
    bouncer = Bouncer(store, routes, reactor, time.time, _rules(config), free_users=free_users)
    links = Links(store, time.time, config.bouncerd.public_url, config.bouncerd.support)
    names = Names(DNSResolver("/etc/resolv.conf", reactor=reactor), reactor)
    api = Api(
        bouncer,
        _registry(config, store, names, reactor),
        _transfers(config, store, names, reactor),
        _strangers(config, reactor),
        store,
        reactor,
        sealed=_sealed(config, store, routes, reactor),
        uploads=Uploads(store, reactor, time.time, free_users),
        links=links,
        now=time.time,
        answer_within=config.bouncerd.answer_within,
        requests_per_minute=config.limits.requests_per_minute,
        support=config.bouncerd.support,
    )

    def token_state(name: str) -> str:
        state = tokens[name].state if name in tokens else None
        ok = state is None or state.name == "ok"
        return "" if ok or state is None else f"access token: {state.name} {state.reason}".strip()

    admin = Admin(store, routes.lanes, routes.nowhere, reactor, token_state)
    pages = _pages(config, api, store, links, reactor)
    site = Site(pages, reactor, time.time, Bounds(bodies=LONG_BODIES), knows=api.knows)
    admin_site = Site(admin, reactor, time.time)
    site.noisy = admin_site.noisy = False  # service.py says where we serve
    gc.freeze()  # what is built lives as long as the process: collections need not visit it
    return Parts(store, routes.lanes, list(tokens.values()), site, admin_site)


def _store(config: Config, reactor: Any) -> Store:
    kind, _, path = config.bouncerd.store.partition(":")
    if kind != "sqlite":
        raise CannotStart("store: PostgreSQL is not supported yet; accepted: sqlite:PATH")
    try:
        return SQLiteStore(Path(path), reactor, time.time)
    except StoreError as error:
        raise CannotStart(f"store: {error}") from None


def _registry(config: Config, store: Store, names: Names, reactor: Any) -> Registry:
    registration, mailboxes = config.registration, None
    if registration.check_email_domain:
        mailboxes = Mailboxes(names, reactor, _disposable_domains())
    grace, support = registration.old_key_grace, config.bouncerd.support
    admission = Admission(registration.open, grace, support)
    return Registry(store, reactor, time.time, admission, mailboxes)


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


def _sealed(config: Config, store: Store, routes: Routes, reactor: Any) -> SealedPushes:
    boxes, free_users = Boxes(config.e2ee.private_keys), config.entitlement.free_users
    if boxes.public_keys:
        log.info(
            "End-to-end keys: {count}; build apps with this public one: {public_key}",
            count=len(boxes.public_keys),
            public_key=boxes.public_keys[0],
        )
    return SealedPushes(store, routes, reactor, time.time, _rules(config), boxes, free_users)


def _pages(config: Config, api: Api, store: Store, links: Links, reactor: Any) -> Pages:
    daemon = config.bouncerd
    contact = Contact(daemon.support, daemon.terms_url)
    setting = Setting(contact, config.entitlement.free_users, daemon.answer_within)
    proxies = daemon.trusted_proxies
    return Pages(api.resource(), store, links, reactor, time.time, setting, proxies)


def _rules(config: Config) -> Rules:
    return Rules(
        keep_for=config.bouncerd.keep_for,
        devices_per_user=config.limits.devices_per_user,
        support=config.bouncerd.support,
    )
