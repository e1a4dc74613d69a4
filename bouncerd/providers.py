"""What a lane works with, made of one section of a provider: credentials, links, manners."""

import time
from dataclasses import dataclass, replace
from random import SystemRandom
from typing import Any

from twisted.internet.endpoints import wrapClientTLS
from twisted.web.client import Agent

from bouncerd.apns import Apns, goaway_outcome
from bouncerd.bearer import GoogleAssertion, ProviderToken
from bouncerd.config import ApnsSection, FcmSection
from bouncerd.egress import WaysOut, way_to
from bouncerd.fcm import Fcm
from bouncerd.lane import Provider
from bouncerd.link import Manners
from bouncerd.model import Misconfigured
from bouncerd.oauth import AccessToken
from bouncerd.patience import APNS_PATIENCE, FCM_PATIENCE, Patience
from bouncerd.pool import Pool
from bouncerd.tls import client_options

APNS_MANNERS = Manners(answer_within=30, quiet=15, idle_ping=600, max_age=86_400)
# Google ends connections at about an hour and dislikes PINGs on idle ones (fcm.md 5).
FCM_MANNERS = Manners(answer_within=15, quiet=20, idle_close=180, max_age=2_700)

Section = ApnsSection | FcmSection


@dataclass(frozen=True, slots=True)
class Outfit:
    """What a lane works with. All of it belongs together, so that all is replaced together."""

    section: Section
    provider: Provider
    pool: Pool
    patience: Patience
    token: AccessToken | None = None


def outfit(section: Section, reactor: Any, before: Outfit | None = None) -> Outfit:
    """Make what a section says; nothing of it is started.

    Of what its lane worked with `before` goes on what this section leaves as it was.
    """
    if isinstance(section, ApnsSection):
        return _apns_outfit(section, reactor)
    return _fcm_outfit(section, reactor, before)


def _apns_outfit(section: ApnsSection, reactor: Any) -> Outfit:
    key, certificate = section.key, section.certificate
    bearer = None
    if key is not None:
        bearer = ProviderToken(key.key_id, key.team_id, key.pem, time.monotonic)
    options = client_options(
        section.host,
        (b"h2",),
        section.ca_pem,
        certificate.pem if certificate else None,
        certificate.key_pem if certificate else None,
    )
    manners = replace(APNS_MANNERS, probe=bearer is not None)
    provider = Apns(section.name, _authority(section.host, section.port), bearer)
    pool = _pool(section, options, manners, reactor)
    return Outfit(section, provider, pool, APNS_PATIENCE)


def _fcm_outfit(section: FcmSection, reactor: Any, before: Outfit | None) -> Outfit:
    token = _kept_token(section, before) or _access_token(section, reactor)
    authority = _authority(section.host, section.port)
    project = section.account.project_id
    provider = Fcm(section.name, authority, project, token.current, token.invalidate)
    options = client_options(section.host, (b"h2",), section.ca_pem)
    pool = _pool(section, options, FCM_MANNERS, reactor)
    return Outfit(section, provider, pool, FCM_PATIENCE, token)


def _pool(section: Section, options: Any, manners: Manners, reactor: Any) -> Pool:
    endpoint = way_to(reactor, section.host, section.port, section.proxy)
    connect = wrapClientTLS(options, endpoint).connect
    size = section.connections
    return Pool(section.name, connect, manners, size, reactor, SystemRandom(), _refusal)


def _refusal(debug: bytes) -> str | None:
    outcome = goaway_outcome(debug)
    return outcome.reason if isinstance(outcome, Misconfigured) else None


def _kept_token(section: FcmSection, before: Outfit | None) -> AccessToken | None:
    """Return the access token that is there already, if it is this account's, fetched this way."""
    if before is None or not isinstance(before.section, FcmSection):
        return None
    same = all(
        getattr(section, name) == getattr(before.section, name)
        for name in ("account", "ca_pem", "proxy")
    )
    return before.token if same else None


def _access_token(section: FcmSection, reactor: Any) -> AccessToken:
    account = section.account
    assertion = GoogleAssertion(
        account.client_email, account.private_key_id, account.private_key_pem, account.token_uri
    )
    agent = Agent.usingEndpointFactory(reactor, WaysOut(reactor, section.proxy, section.ca_pem))
    return AccessToken(section.name, assertion, agent, reactor, time.time)


def _authority(host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port == 443 else f"{name}:{port}"
