"""What each section of a configuration means: its text to its dataclass.

Each function notes what is wrong at its `Section`, and what deserves the operator's eye at
`Files.warnings`; it never raises, so that all mistakes of a file are found in one go.
"""

import base64
import re
import shlex
import shutil
import uuid
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bouncerd import credentials, listening
from bouncerd.credentials import ApnsKey, ClientCertificate, ServiceAccount, Unusable
from bouncerd.files import Files, content
from bouncerd.ini import Section, https_parts, shown
from bouncerd.settings import (
    APNS_HOSTS,
    ApnsSection,
    Daemon,
    E2ee,
    Entitlement,
    FcmSection,
    Limits,
    Proxy,
    Registration,
)

_REAL_SERVERS_HANG_UP = 15.0
_FCM_KEEPS_AT_MOST = 28 * 86400.0  # fcm.md 3
_TOPIC = re.compile(r"[A-Za-z0-9-]{1,100}(\.[A-Za-z0-9-]{1,100}){0,20}")
_PLACE = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._%-]*)"
    r"(:([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])?)?"
)
_INSTANCE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def bouncerd(section: Section, files: Files, instance: str) -> Daemon:
    """Read [bouncerd]; `instance` stands for `{instance}` in endpoints."""
    listen = _endpoints(section, "listen", files, instance)
    admin_listen = _endpoints(section, "admin_listen", files, instance)
    if not listen and not section.problems:
        section.problem("listen", "found nothing", listening.ACCEPTED)
    for shared in sorted(set(listen) & set(admin_listen)):
        section.problem("admin_listen", f"{shown(shared)} is in listen too", "another one")
    return Daemon(
        listen=listen,
        admin_listen=admin_listen,
        public_url=_public_url(section),
        store=_store(section),
        answer_within=section.seconds("answer_within", 0.1, _REAL_SERVERS_HANG_UP, below=True),
        keep_for=section.seconds("keep_for", 1, _FCM_KEEPS_AT_MOST),
        trusted_proxies=section.networks("trusted_proxies"),
        terms_url=section.address("terms_url", ("https", "http")),
        support=section.text("support"),
        log_level=section.one_of("log_level", ("normal", "verbose")),
        alert_command=_command(section, files),
    )


def _command(section: Section, files: Files) -> tuple[str, ...]:
    """Split alert_command as a shell would; no shell ever sees it, and no message repeats it."""
    try:
        words = tuple(shlex.split(section.text("alert_command")))
    except ValueError:
        accepted = "a program and its arguments, quoted as for a shell"
        section.problem("alert_command", "found a quotation that does not end", accepted)
        return ()
    if words and shutil.which(words[0]) is None:
        files.warnings.append("[bouncerd] alert_command: there is no such program here")
    return words


def limits(section: Section) -> Limits:
    """Read [limits]."""
    return Limits(
        requests_per_minute=section.whole("requests_per_minute", 1, 10**9),
        registrations_per_hour=section.whole("registrations_per_hour", 1, 10**9),
        queue=section.whole("queue", 1, 10**7),
        devices_per_user=section.whole("devices_per_user", 1, 10**6),
    )


def registration(section: Section) -> Registration:
    """Read [registration]."""
    return Registration(
        open=section.yes("open"),
        check_email_domain=section.yes("check_email_domain"),
        old_key_grace=section.seconds("old_key_grace", 0, 365 * 86400.0),
    )


def entitlement(section: Section) -> Entitlement:
    """Read [entitlement]."""
    if section.text("free_users").lower() == "unlimited":
        return Entitlement(None)
    return Entitlement(section.whole("free_users", 0, 10**9, otherwise="unlimited"))


def apns(section: Section, files: Files) -> ApnsSection | None:
    """Read an [apns] section; None if its credential cannot be used."""
    environment = section.one_of("environment", tuple(APNS_HOSTS))
    topics = _topics(section)
    host, port = section.origin("url", f"https://{APNS_HOSTS[environment]}")
    ca_pem = _ca(section, files)
    connections = section.whole("connections", 1, 100)
    proxy = _proxy(section)
    by_key, by_certificate = bool(section.given("key_file")), bool(section.given("cert_file"))
    if by_key and by_certificate:
        section.problem("key_file", "cert_file is set too", "one of the two")
    if not by_key and not by_certificate:
        section.problem("key_file", "found nothing", "key_file, key_id, team_id; or cert_file")
    key = _apns_key(section, files) if by_key else None
    certificate = _apns_certificate(section, files, environment) if by_certificate else None
    if key is None and certificate is None:
        return None
    return ApnsSection(
        name=section.name,
        topics=topics,
        host=host,
        port=port,
        environment=environment,
        key=key,
        certificate=certificate,
        ca_pem=ca_pem,
        connections=connections,
        proxy=proxy,
    )


def fcm(section: Section, files: Files) -> FcmSection | None:
    """Read an [fcm] section; None if its credential cannot be used."""
    servers = _servers(section)
    host, port = section.origin("url", "")
    ca_pem = _ca(section, files)
    connections = section.whole("connections", 1, 100)
    proxy = _proxy(section)
    account = _account(section, files)
    if account is None:
        return None
    return FcmSection(section.name, servers, host, port, account, ca_pem, connections, proxy)


def e2ee(section: Section, files: Files) -> E2ee:
    """Read [e2ee]."""
    accepted = "a file with one base64 key of 32 bytes a line"
    keys = files.read(section, "private_keys", accepted, credentials.e2ee_keys)
    return E2ee(keys or ())


def overlaps(apns: Sequence[ApnsSection], fcm: Sequence[FcmSection]) -> list[str]:
    """Name what two sections claim both: nobody could say which of them sends."""
    problems: list[str] = []
    for one, two in combinations(apns, 2):
        problems += _shared(two.name, "topics", _topics_of_both(one, two), one.name)
    for first, second in combinations(fcm, 2):
        problems += _shared(second.name, "servers", _servers_of_both(first, second), first.name)
    return problems


def _topics_of_both(one: ApnsSection, two: ApnsSection) -> set[str]:
    if one.topics is None and two.topics is None:
        return {"*"}
    if one.topics is None or two.topics is None:
        return set()
    return set(one.topics & two.topics)


def _servers_of_both(one: FcmSection, two: FcmSection) -> set[str]:
    if not one.servers and not two.servers:
        return {"empty (the default for all servers)"}
    return set(one.servers & two.servers)


def _shared(name: str, key: str, values: set[str], other: str) -> list[str]:
    return [
        f"[{name}] {key}: {value} is in [{other}] too; accepted: each in one section"
        for value in sorted(values)
    ]


def _endpoints(section: Section, key: str, files: Files, instance: str) -> tuple[str, ...]:
    endpoints: list[str] = []
    for line in section.lines(key):
        try:
            endpoint = _for_instance(line, instance)
            found = listening.arguments(endpoint)
            if found["kind"] == "ssl":
                _check_server_certificate(found, files.now)
        except listening.Malformed as wrong:
            section.problem(key, f"{shown(line)}: {wrong}", listening.ACCEPTED)
            continue
        if key == "admin_listen" and not listening.is_local(found):
            files.warnings.append(
                f"[bouncerd] admin_listen: {shown(endpoint)} can be reached from other machines,"
                " and asks for no authentication"
            )
        endpoints.append(endpoint)
    return tuple(endpoints)


def _for_instance(endpoint: str, instance: str) -> str:
    if "{instance}" not in endpoint:
        return endpoint
    if not instance:
        raise listening.Malformed("{instance} stands for the option --instance, not given")
    if not _INSTANCE.fullmatch(instance):
        raise listening.Malformed(f"--instance {shown(instance)} is not a plain name")
    return endpoint.replace("{instance}", instance)


def _check_server_certificate(found: Mapping[str, str], now: float) -> None:
    """Raise Malformed if the files that an ssl: endpoint will open cannot be used."""
    key = found.get("privateKey", "server.pem")
    certificate = found.get("certKey", key)
    try:
        credentials.client_certificate(content(Path(certificate)), now, content(Path(key)))
    except Unusable as wrong:
        files = certificate if certificate == key else f"{certificate} with {key}"
        raise listening.Malformed(f"{files} {wrong}") from None


def _public_url(section: Section) -> str:
    url = section.address("public_url", ("https", "http"))
    host = urlsplit(url).hostname or ""
    if url.startswith("http://") and host not in ("localhost", "127.0.0.1", "::1"):
        section.problem("public_url", f"found {shown(url)}", "https:// (links carry secrets)")
    return url


def _store(section: Section) -> str:
    """Return the store's address. It may hold a password: what was found is never told."""
    store = section.text("store")
    kind, _, rest = store.partition(":")
    if kind == "sqlite" and rest:
        return store
    if kind == "postgresql" and rest.startswith("//"):
        # One place or several, as libpq has it: a name, an address, or a socket's directory.
        places = re.split(r"[/?#]", rest[2:], maxsplit=1)[0].rpartition("@")[2].split(",")
        if all(map(_PLACE.fullmatch, places)):
            return store
    found = f"{kind}: and then not a store" if kind in ("sqlite", "postgresql") else "another kind"
    accepted = "sqlite:PATH or postgresql://user@host/database"
    section.problem("store", f"found {found}", accepted)
    return store


def _topics(section: Section) -> frozenset[str] | None:
    words = section.words("topics")
    if words == ["*"]:
        return None
    accepted = "bundle ids such as org.example.app, or * alone for any"
    if not words:
        section.problem("topics", "found nothing", accepted)
    for word in words:
        if not _TOPIC.fullmatch(word):
            section.problem("topics", f"found {shown(word)}", accepted)
    return frozenset(words)


def _servers(section: Section) -> frozenset[str]:
    servers: set[str] = set()
    for word in section.words("servers"):
        try:
            servers.add(str(uuid.UUID(word)))
        except ValueError:
            accepted = "the zulip_org_id of each server, a UUID"
            section.problem("servers", f"found {shown(word)}", accepted)
    return frozenset(servers)


def _ca(section: Section, files: Files) -> bytes | None:
    accepted = "certificates in PEM"
    return files.read(section, "ca_file", accepted, credentials.trust_roots, secret=False)


def _proxy(section: Section) -> Proxy | None:
    """Read http://user:password@host:port; what was found is told if no password can be in it."""
    value = section.text("proxy")
    if not value:
        return None
    scheme, _, rest = value.partition("://")
    user, at, place = rest.rpartition("@")
    host, port, path = https_parts(f"https://{place}")
    credentials = unquote(user).encode()
    plain = b":" in credentials and not re.search(rb"[\x00-\x1f\x7f]", credentials)
    with_port = re.search(r":[0-9]+/?$", place)
    if scheme == "http" and host and with_port and path in ("", "/") and (plain or not at):
        return Proxy(host, port, base64.b64encode(credentials).decode("ascii"))
    found = "an address with a user name in it" if "@" in value else shown(value)
    accepted = "http://host:port or http://user:password@host:port, or nothing"
    section.problem("proxy", f"found {found}", accepted)
    return None


def _apns_key(section: Section, files: Files) -> ApnsKey | None:
    key_id, team_id = section.text("key_id"), section.text("team_id")
    for name, value in (("key_id", key_id), ("team_id", team_id)):
        if not re.fullmatch(r"[A-Za-z0-9]{10}", value):
            section.problem(name, f"found {shown(value)}", "10 letters or digits")
    accepted = "an unencrypted P-256 private key in PEM, as Apple's .p8 files are"
    pem = files.read(section, "key_file", accepted, credentials.signing_key)
    return None if pem is None else ApnsKey(key_id, team_id, pem)


def _apns_certificate(section: Section, files: Files, environment: str) -> ClientCertificate | None:
    def use(data: bytes) -> ClientCertificate:
        return credentials.client_certificate(data, files.now)

    accepted = "a valid certificate and its unencrypted private key, both in PEM"
    certificate = files.read(section, "cert_file", accepted, use)
    if certificate is None:
        return None
    where = f"[{section.name}] cert_file:"
    if day := credentials.expires_soon(certificate, files.now):
        files.warnings.append(f"{where} the certificate expires on {day}")
    if other := credentials.foreign_environment(certificate, environment):
        files.warnings.append(f"{where} a {other} certificate, but environment = {environment}")
    return certificate


def _account(section: Section, files: Files) -> ServiceAccount | None:
    accepted = "the JSON file of a service account"
    value = section.given("credentials")
    if not value:
        section.problem("credentials", "found nothing", accepted)
        return None
    if credentials.is_legacy_fcm_key(value):
        section.problem("credentials", credentials.LEGACY_KEY, accepted)
        return None
    return files.read(section, "credentials", accepted, credentials.service_account)
