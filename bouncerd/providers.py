"""One lane for each section of a provider: its credentials, its pool of links, its manners."""

import time
from random import SystemRandom
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS

from bouncerd.apns import Apns, goaway_outcome
from bouncerd.bearer import GoogleAssertion, ProviderToken
from bouncerd.config import ApnsSection, Config, FcmSection
from bouncerd.fcm import Fcm
from bouncerd.lane import Forget, Lane, Provider
from bouncerd.link import Manners
from bouncerd.model import Misconfigured
from bouncerd.oauth import AccessToken
from bouncerd.patience import APNS_PATIENCE, FCM_PATIENCE, Patience
from bouncerd.pool import Pool
from bouncerd.routes import Routes
from bouncerd.tls import TrustRoots, client_options

APNS_MANNERS = Manners(answer_within=30, quiet=15, idle_ping=600, max_age=86_400)
# Google ends connections at about an hour and dislikes PINGs on idle ones (fcm.md 5).
FCM_MANNERS = Manners(answer_within=15, quiet=20, idle_close=180, max_age=2_700)


def build_routes(
    config: Config, reactor: Any, forget: Forget
) -> tuple[Routes, dict[str, AccessToken]]:
    """Return all lanes as routes, and the access tokens by section."""
    tokens: dict[str, AccessToken] = {}
    apns: dict[str | None, Lane] = {}
    for apns_section in config.apns:
        lane = _apns_lane(config, apns_section, reactor, forget)
        topics = apns_section.topics
        apns.update(dict.fromkeys([None] if topics is None else topics, lane))
    fcm: dict[str | None, Lane] = {}
    for fcm_section in config.fcm:
        token = tokens[fcm_section.name] = _access_token(fcm_section, reactor)
        lane = _fcm_lane(config, fcm_section, token, reactor, forget)
        token.on_change = lane.pump
        fcm.update(dict.fromkeys(fcm_section.servers or [None], lane))
    return Routes(apns, fcm), tokens


def _apns_lane(config: Config, section: ApnsSection, reactor: Any, forget: Forget) -> Lane:
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
    return _lane(config, section, provider, options, manners, APNS_PATIENCE, reactor, forget)


def _fcm_lane(
    config: Config, section: FcmSection, token: AccessToken, reactor: Any, forget: Forget
) -> Lane:
    options = client_options(section.host, (b"h2",), section.ca_pem)
    authority = _authority(section.host, section.port)
    project = section.account.project_id
    provider = Fcm(section.name, authority, project, token.current, token.invalidate)
    return _lane(config, section, provider, options, FCM_MANNERS, FCM_PATIENCE, reactor, forget)


def _lane(
    config: Config,
    section: ApnsSection | FcmSection,
    provider: Provider,
    options: Any,
    manners: Manners,
    patience: Patience,
    reactor: Any,
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


def _access_token(section: FcmSection, reactor: Any) -> AccessToken:
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
