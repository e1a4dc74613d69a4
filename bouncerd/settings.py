"""A configuration's shape: its sections as frozen dataclasses, and every key with its default.

`config` reads files into this; secrets are in no repr.
"""

from dataclasses import dataclass, field
from pathlib import Path

from bouncerd.credentials import ApnsKey, ClientCertificate, ServiceAccount
from bouncerd.ini import IPNetwork

APNS_HOSTS = {"production": "api.push.apple.com", "sandbox": "api.sandbox.push.apple.com"}

# Every section, every key, and its default as the file would have it. Keys without one: empty.
DEFAULTS: dict[str, dict[str, str]] = {
    "bouncerd": {
        "listen": "tcp:9090:interface=127.0.0.1",
        "admin_listen": "tcp:9091:interface=127.0.0.1",
        "public_url": "",
        "store": "sqlite:/var/lib/bouncerd/bouncerd.db",
        "answer_within": "12",
        "keep_for": "3600",
        "trusted_proxies": "",
        "terms_url": "",
        "support": "",
        "log_level": "normal",
        "alert_command": "",
    },
    "limits": {
        "requests_per_minute": "1000",
        "registrations_per_hour": "60",
        "queue": "20000",
        "devices_per_user": "200",
    },
    "registration": {"open": "yes", "check_email_domain": "yes", "old_key_grace": "600"},
    "entitlement": {"free_users": "10"},
    "apns": {
        "topics": "",
        "environment": "production",
        "key_file": "",
        "key_id": "",
        "team_id": "",
        "cert_file": "",
        "url": "",
        "ca_file": "",
        "proxy": "",
        "connections": "2",
    },
    "fcm": {
        "servers": "",
        "credentials": "",
        "url": "https://fcm.googleapis.com",
        "ca_file": "",
        "proxy": "",
        "connections": "2",
    },
    "e2ee": {"private_keys": ""},
}


@dataclass(frozen=True, slots=True)
class Daemon:
    """[bouncerd]. `store` may hold a password, `alert_command` (its words) a key to something."""

    listen: tuple[str, ...]
    admin_listen: tuple[str, ...]
    public_url: str
    store: str = field(repr=False)
    answer_within: float
    keep_for: float
    trusted_proxies: tuple[IPNetwork, ...]
    terms_url: str
    support: str
    log_level: str = "normal"
    alert_command: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """[limits]."""

    requests_per_minute: int
    registrations_per_hour: int
    queue: int
    devices_per_user: int


@dataclass(frozen=True, slots=True)
class Registration:
    """[registration]. `old_key_grace` in seconds."""

    open: bool
    check_email_domain: bool
    old_key_grace: float


@dataclass(frozen=True, slots=True)
class Entitlement:
    """[entitlement]. `free_users` None: no plans, everyone may push."""

    free_users: int | None


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy on the way out. `credentials`: user:password in base64, or nothing."""

    host: str
    port: int
    credentials: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ApnsSection:
    """[apns] or [apns:NAME], with a key or a certificate. `topics` None: any."""

    name: str
    topics: frozenset[str] | None
    host: str
    port: int
    environment: str
    key: ApnsKey | None
    certificate: ClientCertificate | None
    ca_pem: bytes | None
    connections: int
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True)
class FcmSection:
    """[fcm] or [fcm:NAME]. No `servers`: the one for all that no other section names."""

    name: str
    servers: frozenset[str]
    host: str
    port: int
    account: ServiceAccount
    ca_pem: bytes | None
    connections: int
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True)
class E2ee:
    """[e2ee]. 32 bytes each, the current one first."""

    private_keys: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration file. `warnings`: what will work but needs the operator's eye.

    `copies`: the keys whose files are copies of systemd's, as they were when the process started.
    """

    path: Path
    bouncerd: Daemon
    limits: Limits
    registration: Registration
    entitlement: Entitlement
    apns: tuple[ApnsSection, ...]
    fcm: tuple[FcmSection, ...]
    e2ee: E2ee
    warnings: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()

    @property
    def providers(self) -> tuple[ApnsSection | FcmSection, ...]:
        """The sections of all providers."""
        return (*self.apns, *self.fcm)
