"""`twistd bouncerd`: the options, and the only place where the daemon's objects are built."""

import gc
import sys
import time
from collections.abc import Container, Mapping
from importlib import import_module
from pathlib import Path
from random import SystemRandom
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.names.client import Resolver as DNSResolver
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.usage import Options as TwistedOptions
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS

from bouncerd import logs
from bouncerd.addresses import IPAddress
from bouncerd.api import LONG_BODIES, Api
from bouncerd.apns import Apns, goaway_outcome
from bouncerd.bearer import GoogleAssertion, ProviderToken
from bouncerd.bouncer import Bouncer, Rules
from bouncerd.boxes import Boxes
from bouncerd.challenge import Challenge
from bouncerd.channel import Bounds
from bouncerd.config import ApnsSection, Config, ConfigError, FcmSection, read
from bouncerd.dialling import CONNECT_TIME, Dialler
from bouncerd.fcm import Fcm
from bouncerd.health import Admin
from bouncerd.lane import Forget, Lane, Provider
from bouncerd.link import Manners
from bouncerd.links import Links
from bouncerd.mailboxes import Mailboxes
from bouncerd.markup import Contact
from bouncerd.model import Misconfigured
from bouncerd.oauth import AccessToken
from bouncerd.pages import Pages, Setting
from bouncerd.patience import APNS_PATIENCE, FCM_PATIENCE, Patience
from bouncerd.pool import Pool
from bouncerd.registry import Admission, Registry
from bouncerd.resolving import Names
from bouncerd.routes import Routes
from bouncerd.sealedpush import SealedPushes
from bouncerd.service import Bouncerd, CannotStart, Parts
from bouncerd.site import Site
from bouncerd.store.base import Store, StoreError
from bouncerd.store.sqlite import SQLiteStore
from bouncerd.strangers import Strangers
from bouncerd.tls import TrustRoots, client_options
from bouncerd.transfers import Transfers
from bouncerd.uploading import Uploads

# The reactor offers more than any of its interfaces alone.
reactor: Any = _reactor
log = Logger()

APNS_MANNERS = Manners(answer_within=30, quiet=15, idle_ping=600, max_age=86_400)
# Google ends connections at about an hour and dislikes PINGs on idle ones (fcm.md 5).
FCM_MANNERS = Manners(answer_within=15, quiet=20, idle_close=180, max_age=2_700)


class Options(TwistedOptions):
    """What `twistd bouncerd` takes."""

    synopsis = "[-c FILE] [--check] [--instance NAME]"
    longdesc = "A push bouncer: Zulip servers on one side, Apple's APNs and Google's FCM beyond."
    optParameters = [
        ["config", "c", "/etc/bouncer.ini", "The configuration file."],
        ["instance", None, "", "What {instance} in an endpoint stands for."],
    ]
    optFlags = [["check", None, "Check the configuration, say what is wrong with it, and exit."]]

    configuration: Config

    def postOptions(self) -> None:
        """Read the configuration; with mistakes in it the process ends here."""
        try:
            path = Path(self["config"])
            self.configuration = read(path, self["instance"], now=time.time())
        except ConfigError as error:
            for problem in error.problems:
                print(problem, file=sys.stderr)  # noqa: T201 -- an answer to the operator
            raise SystemExit(1) from None
        warnings = [*self.configuration.warnings]
        if self["check"]:  # a start says so itself, by failing
            warnings += _store_warnings(self.configuration)
        for warning in warnings:
            print(f"{path}: warning: {warning}", file=sys.stderr)  # noqa: T201 -- likewise
        if self["check"]:
            print(f"{path}: fine")  # noqa: T201 -- likewise
            raise SystemExit(0)


def _store_warnings(config: Config) -> list[str]:
    """Say what the configuration's syntax does not: that the store will not open."""
    kind, _, place = config.bouncerd.store.partition(":")
    if kind != "sqlite":
        return ["[bouncerd] store: PostgreSQL is not supported yet; accepted: sqlite:PATH"]
    if not Path(place).parent.is_dir():
        return ["[bouncerd] store: its directory is not there (yet)"]
    return []


class LoggedBouncerd(Bouncerd):
    """The service, which also chooses how twistd logs (by twistd's own `options`)."""

    twistd_options: Mapping[str, object] = {}

    def setServiceParent(self, parent: Any) -> None:
        """Take the application's log over before twistd opens one."""
        if isinstance(parent, Componentized):
            logs.attach(parent, logs.destination(self.twistd_options))
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # Twisted's


def makeService(options: Options) -> Bouncerd:
    """Return the daemon, built but not started."""
    config = options.configuration
    # Twisted's reactor reads the wall clock; a step of it would fire or stall every timer.
    reactor.seconds = time.monotonic
    endpoints = config.bouncerd.listen, config.bouncerd.admin_listen
    service = LoggedBouncerd(lambda: _parts(config), listen, endpoints, reactor, _fail)
    service.twistd_options = options.parent or {"nodaemon": True}
    return service


def _fail(problem: str) -> None:
    log.critical("Cannot start: {problem}", problem=problem)
    raise SystemExit(1)


def listen(description: str, factory: IProtocolFactory) -> IListeningPort:
    """Listen now, or raise CannotStart: Twisted's own service would swallow the failure."""
    found: list[Any] = []
    try:
        serverFromString(reactor, description).listen(factory).addBoth(found.append)
    except Exception as error:  # noqa: BLE001 -- whatever is wrong with it: the operator's line
        found.append(Failure(error))
    port = found[0] if found else Failure(TimeoutError())
    if isinstance(port, Failure):
        # CannotListenError holds the error of the socket, with the system's own words.
        reason = getattr(port.value, "socketError", port.value)
        words = getattr(reason, "strerror", None) or type(reason).__name__
        raise CannotStart(f"listen: {description}: {words}")
    listening: IListeningPort = port
    return listening


def _parts(config: Config) -> Parts:
    """Build everything, bottom to top."""
    store = _store(config)
    tokens: dict[str, AccessToken] = {}

    def forget(*what: Any) -> Deferred[None]:
        return bouncer.forget(*what)

    apns: dict[str | None, Lane] = {}
    for apns_section in config.apns:
        lane = _apns_lane(config, apns_section, forget)
        topics = apns_section.topics
        apns.update(dict.fromkeys([None] if topics is None else topics, lane))
    fcm: dict[str | None, Lane] = {}
    for fcm_section in config.fcm:
        token = tokens[fcm_section.name] = _access_token(fcm_section)
        lane = _fcm_lane(config, fcm_section, token, forget)
        token.on_change = lane.pump
        fcm.update(dict.fromkeys(fcm_section.servers or [None], lane))
    routes = Routes(apns, fcm)
    free_users = config.entitlement.free_users
    bouncer = Bouncer(store, routes, reactor, time.time, _rules(config), free_users=free_users)
    links = Links(store, time.time, config.bouncerd.public_url, config.bouncerd.support)
    names = Names(DNSResolver("/etc/resolv.conf", reactor=reactor), reactor)
    api = Api(
        bouncer,
        _registry(config, store, names),
        _transfers(config, store, names),
        _strangers(config),
        store,
        reactor,
        sealed=_sealed(config, store, routes),
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
    pages = _pages(config, api, store, links)
    site = Site(pages, reactor, time.time, Bounds(bodies=LONG_BODIES), knows=api.knows)
    admin_site = Site(admin, reactor, time.time)
    site.noisy = admin_site.noisy = False  # service.py says where we serve
    gc.freeze()  # what is built lives as long as the process: collections need not visit it
    return Parts(store, routes.lanes, list(tokens.values()), site, admin_site)


def _store(config: Config) -> Store:
    kind, _, path = config.bouncerd.store.partition(":")
    if kind != "sqlite":
        raise CannotStart("store: PostgreSQL is not supported yet; accepted: sqlite:PATH")
    try:
        return SQLiteStore(Path(path), reactor, time.time)
    except StoreError as error:
        raise CannotStart(f"store: {error}") from None


def _registry(config: Config, store: Store, names: Names) -> Registry:
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


def _transfers(config: Config, store: Store, names: Names) -> Transfers:
    agent = Agent.usingEndpointFactory(reactor, Dialler(names, _connector, reactor))
    challenge = Challenge(agent, reactor)
    return Transfers(store, challenge, reactor, time.time, config.bouncerd.support)


def _connector(address: IPAddress, port: int) -> IStreamClientEndpoint:
    kind = TCP4ClientEndpoint if address.version == 4 else TCP6ClientEndpoint
    return kind(reactor, str(address), port, timeout=CONNECT_TIME)


def _strangers(config: Config) -> Strangers:
    proxies = config.bouncerd.trusted_proxies
    return Strangers(config.limits.registrations_per_hour, proxies, reactor)


def _sealed(config: Config, store: Store, routes: Routes) -> SealedPushes:
    boxes, free_users = Boxes(config.e2ee.private_keys), config.entitlement.free_users
    if boxes.public_keys:
        log.info(
            "End-to-end keys: {count}; build apps with this public one: {public_key}",
            count=len(boxes.public_keys),
            public_key=boxes.public_keys[0],
        )
    return SealedPushes(store, routes, reactor, time.time, _rules(config), boxes, free_users)


def _pages(config: Config, api: Api, store: Store, links: Links) -> Pages:
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


def _apns_lane(config: Config, section: ApnsSection, forget: Forget) -> Lane:
    key, certificate = section.key, section.certificate
    bearer = None
    if key is not None:
        bearer = ProviderToken(key.key_id, key.team_id, key.pem, time.monotonic)
    manners = Manners(
        answer_within=APNS_MANNERS.answer_within,
        quiet=APNS_MANNERS.quiet,
        idle_ping=APNS_MANNERS.idle_ping,
        max_age=APNS_MANNERS.max_age,
        probe=bearer is not None,
    )
    options = client_options(
        section.host,
        (b"h2",),
        section.ca_pem,
        certificate.pem if certificate else None,
        certificate.key_pem if certificate else None,
    )
    provider = Apns(section.name, _authority(section.host, section.port), bearer)
    return _lane(config, section, provider, options, manners, APNS_PATIENCE, forget)


def _fcm_lane(config: Config, section: FcmSection, token: AccessToken, forget: Forget) -> Lane:
    options = client_options(section.host, (b"h2",), section.ca_pem)
    authority = _authority(section.host, section.port)
    project = section.account.project_id
    provider = Fcm(section.name, authority, project, token.current, token.invalidate)
    return _lane(config, section, provider, options, FCM_MANNERS, FCM_PATIENCE, forget)


def _lane(
    config: Config,
    section: ApnsSection | FcmSection,
    provider: Provider,
    options: Any,
    manners: Manners,
    patience: Patience,
    forget: Forget,
) -> Lane:
    random = SystemRandom()
    endpoint = HostnameEndpoint(reactor, section.host, section.port, timeout=15)
    connect = wrapClientTLS(options, endpoint).connect
    size = section.connections
    pool = Pool(section.name, connect, manners, size, reactor, random, _refusal)
    return Lane(
        provider, pool, reactor, time.time, random, forget,
        limit=config.limits.queue, keep_for=config.bouncerd.keep_for, patience=patience,
    )  # fmt: skip


def _refusal(debug: bytes) -> str | None:
    outcome = goaway_outcome(debug)
    return outcome.reason if isinstance(outcome, Misconfigured) else None


def _access_token(section: FcmSection) -> AccessToken:
    account = section.account
    assertion = GoogleAssertion(
        account.client_email, account.private_key_id, account.private_key_pem, account.token_uri
    )
    policy = BrowserLikePolicyForHTTPS(trustRoot=TrustRoots(section.ca_pem))
    agent = Agent(reactor, policy, connectTimeout=10)
    return AccessToken(section.name, assertion, agent, reactor, time.time)


def _authority(host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port == 443 else f"{name}:{port}"
