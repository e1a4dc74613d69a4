"""What is done to the daemon, act by act. After each act everything is searched."""

import base64
import json
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from nacl.public import PrivateKey, SealedBox

from bouncerd.fakes.privacy.canaries import word as a_word
from bouncerd.fakes.privacy.evidence import Evidence
from bouncerd.fakes.privacy.mishaps import KINDS, PLACES
from bouncerd.fakes.privacy.mistakes import content, mistakes, notification
from bouncerd.fakes.privacy.premises import APP, Failed, Premises
from bouncerd.fakes.privacy.searching import ERASED, look_at_files, look_for_erased
from bouncerd.fakes.privacy.tenants import Tenant

# Tokens that begin so are answered otherwise by the stand-ins.
_ECHOED = "e0"
_HELD = "e1"
_DOWN = [{"step": "refuse", "status": 503, "reason": "ServiceUnavailable"}]
MISHAPS = "\nfrom bouncerd.fakes.privacy import mishaps; mishaps.install()\n"
_PATIENCE = 15.0  # seconds for a push to arrive

_APPLE_ERRORS = (400, 403, 404, 405, 410, 413, 429, 500, 503, 599)
_GOOGLE_ERRORS = (400, 401, 403, 404, 429, 500, 503)


@dataclass
class Stage:
    """The daemon, two tenants, and what was seen so far."""

    premises: Premises
    evidence: Evidence
    alice: Tenant = field(init=False)
    bob: Tenant = field(init=False)

    def __post_init__(self) -> None:
        port = self.premises.keeper.port
        self.alice = Tenant("alice", port, self.evidence)
        self.bob = Tenant("bob", port, self.evidence)

    def did(self, what: str) -> None:
        """Note for the report what was done, once."""
        if what not in self.evidence.driven:
            self.evidence.driven.append(what)

    def bystander(self) -> None:
        """Have the other tenant ask for something, to see whether he is told of what he is not."""
        word = self.bob.fresh("content of another tenant")
        self.bob.must(self.bob.json("push/notify", notification(self.bob, word)), "a push")
        self.bob.json("push/test_notification", {"user_id": 17, "token": "x", "token_kind": 2})

    def arrived(self, words: set[str]) -> bool:
        """Say whether all these words have come to the providers."""
        bodies = "".join(
            push["body"] for pushes in self.premises.received().values() for push in pushes
        )
        return all(word in bodies for word in words)

    def wait_until(self, what: str, condition: Callable[[], Any]) -> None:
        """Wait until it is so, or raise Failed."""
        until = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > until:
                raise Failed(what)
            time.sleep(0.05)


def arrivals(stage: Stage) -> None:
    """Register two servers, their realms and phones, in both ways; erase one phone again."""
    alice, bob = stage.alice, stage.bob
    for tenant in (alice, bob):
        tenant.register()
        _upload(tenant)
        tenant.add_phone(1, tenant.token("a device token of Apple's", _hex_token("")))
        tenant.add_phone(2, tenant.token("a device token of Google's", a_word()))
    erased = alice.token(ERASED, _hex_token(""))
    alice.add_phone(1, erased)
    alice.must(alice.form("push/unregister", token=erased, token_kind=1, **alice.user), "erasing")
    stage.did("registration of servers, realms and phones; erasure of a phone")


def pushes(stage: Stage) -> None:
    """Send what is in order: a legacy push, a removal, a test, an encrypted push."""
    alice = stage.alice
    said = {key: f"{alice.fresh('content: ' + key)} {alice.foreign('content: ' + key)}"
            for key in ("server", "realm_name", "realm_url", "sender_email", "sender_full_name",
                        "sender_avatar_url", "stream", "topic", "content")}  # fmt: skip
    said[alice.fresh("content: a key")] = alice.fresh("content: a value")
    said |= {"event": "message", "recipient_type": "stream"}
    words = {word for text in said.values() for word in text.split() if len(word) > 15}
    alert = {name: alice.fresh(f"content: alert {name}") for name in ("title", "subtitle", "body")}
    words |= set(alert.values())
    apns = {"alert": alert, "custom": {"zulip": {**said, "message_ids": [7]}}}
    body = notification(alice, "", gcm_payload=said, apns_payload=apns)
    answer = alice.must(alice.json("push/notify", body), "a push").json()
    if not answer["total_apple_devices"] or not answer["total_android_devices"]:
        raise Failed("the phones are not known")
    stage.wait_until("what was said did not arrive", lambda: stage.arrived(words))
    removal = {"event": "remove", "zulip_message_ids": "1,2", "server": alice.fresh("a removal")}
    body = notification(alice, "", gcm_payload=removal, apns_payload={"custom": {"zulip": removal}})
    alice.must(alice.json("push/notify", body), "a removal")
    tokens = [each for each in stage.evidence.canaries if each.tenant == alice.name]
    token = next(each.text for each in tokens if each.name == "a device token of Apple's")
    test = {**alice.user, "token": token, "token_kind": 1}
    test["base_payload"] = content(alice.fresh("content of a test"))
    alice.must(alice.json("push/test_notification", test), "a test")
    _encrypted(stage)
    stage.bystander()
    stage.did("success: legacy push, removal, test notification, end-to-end encrypted push")


def errors(stage: Stage) -> None:
    """Send calls with a mistake, each of another kind."""
    count = 0
    for _, octets in mistakes(stage.alice):
        stage.alice.send(octets)
        count += 1
    for share in (0.3, 0.7):  # of a call that is cut off by its caller
        octets = stage.alice.spell(
            "POST", "/api/v1/remotes/push/notify", _cut_off(stage.alice), "application/json"
        )
        stage.alice.send(octets[: int(len(octets) * share)], hang_up=True)
        count += 1
    stage.bystander()
    stage.did(f"{count} malformed calls: bodies, forms, heads, bytes that are no HTTP, hang-ups")


def refusals(stage: Stage) -> None:
    """Have the providers refuse pushes and repeat what is in them, in every status."""
    alice, premises = stage.alice, stage.premises
    statuses = {"apns": _APPLE_ERRORS, "fcm": _GOOGLE_ERRORS}
    for kind, provider in ((1, "apns"), (2, "fcm")):
        for status in statuses[provider]:
            user = {"user_id": 1000 + status, "user_uuid": None}
            for body in _echoes(alice.fresh("content that a provider repeats")):
                token = _hex_token(_ECHOED) if kind == 1 else f"{_ECHOED}{_hex_token('')}"
                alice.token("a device token that is refused", token)
                app = {"ios_app_id": APP} if kind == 1 else {}
                form = {"token": token, "token_kind": kind, "user_id": user["user_id"], **app}
                alice.must(alice.form("push/register", **form), "a phone's registration")
                headers = [["retry-after", "1"], ["x-said", alice.fresh("a provider's header")]]
                answer = {"step": "respond", "status": status, "body": body, "headers": headers}
                premises.rule(provider, token, answer)
            word = alice.fresh("content of a push that is refused")
            alice.json("push/notify", notification(alice, word, **user))
    premises.tell("DELETE", "/rules")
    stage.bystander()
    kinds = sum(map(len, statuses.values()))
    stage.did(f"{kinds} statuses of refusal by Apple and Google, whose answers repeat content")


def access(stage: Stage) -> None:
    """Have Google's token endpoint fail for a while, and repeat what it likes."""
    _ask_for_access(stage, 500)
    word = stage.alice.fresh("content of a push without an access token")
    stage.alice.json("push/notify", notification(stage.alice, word))
    stage.wait_until("a push did not arrive", lambda: stage.arrived({word}))
    stage.did("a failure of Google's token endpoint")


def denial(stage: Stage) -> None:
    """Have Google's token endpoint refuse us; it is not asked again for long."""
    _ask_for_access(stage, 400)
    word = stage.alice.fresh("content of a push without an access token")
    stage.alice.json("push/notify", notification(stage.alice, word))
    stage.did("a refusal by Google's token endpoint")


def verbosity(stage: Stage) -> None:
    """Have the log tell as much as it ever does (SIGHUP)."""
    stage.premises.reload(verbose=True)
    stage.did("log_level = verbose, by SIGHUP")


def lock(stage: Stage) -> None:
    """Have somebody else hold the store's lock, so that nothing can be written."""
    other = sqlite3.connect(stage.premises.store, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        token = stage.alice.token("a device token that finds no store", _hex_token(""))
        form = {"token": token, "token_kind": 1, "ios_app_id": APP, **stage.alice.user}
        answer = stage.alice.form("push/register", **form)
        if answer.status < 500:
            raise Failed(f"a store that is locked was answered {answer.status}")
        other.execute("ROLLBACK")
    finally:
        other.close()
    stage.did("a store that is locked by somebody else")


def succession(stage: Stage) -> None:
    """Restart the daemon while pushes wait: the next process sends them."""
    word = _waiting(stage, "content that is handed over")
    status = stage.premises.stop(signal.SIGTERM)
    kept = stage.premises.keeper.kept
    if not kept:
        raise Failed(f"nothing was handed over (it ended with status {status})")
    look_at_files(stage.premises, stage.evidence)
    look_for_erased(stage.premises, stage.evidence)
    stage.premises.tell("DELETE", "/rules")
    stage.premises.start()
    stage.wait_until("what was handed over did not arrive", lambda: stage.arrived({word}))
    stage.bystander()
    stage.did(f"SIGTERM while a push waits, and its hand-over in memory ({kept} bytes)")


def abortion(stage: Stage) -> None:
    """End the daemon by SIGABRT while it has content, as the watchdog does.

    From the next start on its own code fails on demand.
    """
    _waiting(stage, "content at a SIGABRT")
    status = stage.premises.stop(signal.SIGABRT)
    if status != -signal.SIGABRT:
        raise Failed(f"SIGABRT: it ended with status {status}")
    stage.premises.tell("DELETE", "/rules")
    look_at_files(stage.premises, stage.evidence)
    stage.premises.prelude += MISHAPS
    stage.premises.start()
    stage.did("SIGABRT while a push waits, with no limit on core files from outside")


def failures(stage: Stage) -> None:
    """Have the daemon's own code fail, in each place and each way, with content in its hands."""
    alice = stage.alice
    token = alice.token("a device token of Apple's", _hex_token(""))
    user = {"user_id": 99, "user_uuid": None}
    form = {"token": token, "token_kind": 1, "user_id": 99, "ios_app_id": APP}
    alice.must(alice.form("push/register", **form), "a phone's registration")
    for where in PLACES:
        for kind in KINDS:
            word = alice.fresh(f"content in an exception ({kind}, in {where})")
            text = f"mishap {where} {kind}: {word} {alice.foreign('content in an exception')}"
            alert = {"alert": {"title": "x", "body": text}}
            alice.json("push/notify", notification(alice, "", apns_payload=alert, **user))
    stage.bystander()
    stage.did(f"{len(KINDS)} kinds of exceptions and warnings, in {len(PLACES)} places")


def damage(stage: Stage) -> None:
    """Destroy the store under the daemon, and go on calling; then stop it."""
    with stage.premises.store.open("r+b") as file:
        file.write(b"\0" * 65_536)
    for path in stage.premises.home.glob("*-wal"):
        path.write_bytes(b"")
    alice = stage.alice
    alice.json("push/notify", notification(alice, alice.fresh("content, and no store")))
    token = alice.token("a device token, and no store", _hex_token(""))
    alice.form("push/register", token=token, token_kind=1, ios_app_id=APP, **alice.user)
    alice.form("server/analytics", realm_counts="[]", installation_counts="[]")
    stage.premises.stop()
    stage.did("a store that is destroyed while it is in use")


def _waiting(stage: Stage, name: str) -> str:
    """Have a push wait for its provider; return a word of it."""
    alice, token = stage.alice, _hex_token(_HELD)
    alice.token("a device token that waits", token)
    form = {"token": token, "token_kind": 1, "user_id": 77, "ios_app_id": APP}
    alice.must(alice.form("push/register", **form), "a phone's registration")
    stage.premises.rule("apns", _HELD, *_DOWN)
    word = alice.fresh(name)
    user = {"user_id": 77, "user_uuid": None}
    alice.must(alice.json("push/notify", notification(alice, word, **user)), "a push that waits")
    return word


def _upload(tenant: Tenant) -> None:
    secret = tenant.evidence.plant("a realm's secret", a_word(), tenant.name)
    realm = {
        "id": 2, "host": f"{tenant.name}.example.org", "url": f"https://{tenant.name}.example.org",
        "name": "Example", "org_type": 10, "date_created": 1.7e9, "deactivated": False,
        "is_system_bot_realm": False, "authentication_methods": {"Email": True},
        "uuid": tenant.realm_uuid, "uuid_owner_secret": secret,
    }  # fmt: skip
    lists = {"realm_counts": "[]", "installation_counts": "[]", "realmauditlog_rows": "[]"}
    form = {**lists, "realms": json.dumps([realm]), "version": json.dumps("12.0")}
    tenant.must(tenant.form("server/analytics", **form), "an upload")


def _encrypted(stage: Stage) -> None:
    alice = stage.alice
    key = PrivateKey(stage.premises.e2ee_key)
    public = base64.b64encode(bytes(key.public_key)).decode()
    token = alice.token("a device token in a box", _hex_token(""))
    phone = {"token_kind": "apns", "token": token, "timestamp": int(time.time()), "ios_app_id": APP}
    box = base64.b64encode(SealedBox(key.public_key).encrypt(json.dumps(phone).encode())).decode()
    token_id = base64.b64encode(sha256(token.encode()).digest()[:8]).decode()
    form = {
        "realm_uuid": alice.realm_uuid,
        "token_id": token_id,
        "encrypted_push_registration": box,
        "bouncer_public_key": public,
    }
    alice.must(alice.form("push/e2ee/register", **form), "a phone's registration in a box")
    word = alice.fresh("an encrypted payload")
    push = {
        "token_id": token_id,
        "http_headers": {"apns_priority": 10, "apns_push_type": "alert"},
        "payload": {"push_key_id": 20, "encrypted_data": base64.b64encode(word.encode()).decode()},
    }
    body = {"realm_uuid": alice.realm_uuid, "push_requests": [push]}
    answer = alice.must(alice.json("push/e2ee/notify", body), "an encrypted push").json()
    if answer["apple_successfully_sent_count"] != 1:
        raise Failed("an encrypted push was not sent")


def _ask_for_access(stage: Stage, status: int) -> None:
    """Make the daemon ask for a new access token, and be told so."""
    premises, word = stage.premises, stage.alice.fresh("what the token endpoint says")
    said = {"error": word, "error_description": word, "access_token": word}
    premises.tell("POST", "/tokens", {"status": status, "body": said})
    premises.tell("DELETE", "/tokens")
    before = _token_calls(premises)
    word = stage.alice.fresh("content of a push without an access token")
    stage.alice.json("push/notify", notification(stage.alice, word))
    stage.wait_until("no new access token", lambda: _token_calls(premises) > before)


def _token_calls(premises: Premises) -> int:
    return len(premises.tell("GET", "/state")["tokens"]["calls"])


def _cut_off(tenant: Tenant) -> bytes:
    word = tenant.fresh("content of a call that is cut off")
    return json.dumps(notification(tenant, word)).encode()


def _echoes(word: str) -> tuple[str, ...]:
    """Return bodies that repeat a word: as Apple's, as Google's, as nobody's."""
    google = {"code": 400, "message": word, "status": word, "details": [{"errorCode": word}]}
    return (
        json.dumps({"reason": word, "timestamp": word}),
        json.dumps({"error": google}),
        word,
        json.dumps([word]),
    )


def _hex_token(start: str) -> str:
    return (start + sha256(str(time.time_ns()).encode()).hexdigest())[:64]
