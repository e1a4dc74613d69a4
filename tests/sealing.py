"""A phone and its server, for end-to-end registrations: boxes as the apps make them.

The boxes are made by PyNaCl itself; the daemon's own code only opens them.
"""

import json
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from nacl.public import PrivateKey, PublicKey, SealedBox
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.api import PREFIX
from bouncerd.bouncer import Rules
from bouncerd.boxes import Boxes
from bouncerd.model import SealedDevice
from bouncerd.store.base import StoreUnavailable
from bouncerd.store.sqlite import SQLiteStore
from bouncerd.uploads import AuditRow, RealmRow, Upload
from tests.in_memory import (
    ANDROID,
    APP,
    NOW,
    PHONE,
    Answer,
    Daemon,
    basic,
    read_answer,
    result,
    spell,
)

OLD_KEY, CURRENT_KEY, FOREIGN_KEY = (PrivateKey(bytes([n]) * 32) for n in (1, 2, 3))
BOXES = Boxes([bytes(CURRENT_KEY), bytes(OLD_KEY)])
REALM = "9aa61d0b-8ce5-488d-8e9e-fedc346e6836"
OTHER_ORG = "0d5a6a6a-0b5a-4d5a-8e9e-000000000000"
OTHER_REALM = "0d5a6a6a-0b5a-4d5a-8e9e-fedc346e0000"

APPLE: dict[str, Any] = {
    "token_kind": "apns", "token": PHONE, "timestamp": int(NOW), "ios_app_id": APP,
}  # fmt: skip
GOOGLE: dict[str, Any] = {"token_kind": "fcm", "token": ANDROID, "timestamp": int(NOW)}


def base64(data: bytes) -> str:
    """Encode as the apps do."""
    return b64encode(data).decode()


def public(key: PrivateKey) -> str:
    """Spell the public half."""
    return base64(bytes(key.public_key))


def sealed(plaintext: bytes, key: PrivateKey = CURRENT_KEY) -> str:
    """Close a box to a key."""
    return base64(SealedBox(PublicKey(bytes(key.public_key))).encrypt(plaintext))


def token_id(token: str) -> str:
    """Return what the app tells its server instead of the token."""
    return base64(sha256(token.encode()).digest()[:8])


def registration(
    phone: object = APPLE, key: PrivateKey = CURRENT_KEY, **changes: str
) -> dict[str, str]:
    """Return the form of `push/e2ee/register`; `phone` is what is in the box."""
    token = str(phone.get("token", "")) if isinstance(phone, dict) else ""
    text = json.dumps(phone, ensure_ascii=False)
    form = {
        "realm_uuid": REALM,
        "token_id": token_id(token),
        "encrypted_push_registration": sealed(text.encode("utf-8", "surrogatepass"), key),
        "bouncer_public_key": public(key),
    }
    return {**form, **changes}


def eleven(phone: object = APPLE, push_account_id: int = 10) -> dict[str, str]:
    """Return the form that an 11.x server sends."""
    form = registration(phone)
    del form["token_id"]
    return {**form, "push_account_id": str(push_account_id)}


def for_apple(
    token: str = PHONE, priority: int = 10, push_type: str = "alert", **payload: Any
) -> dict[str, Any]:
    """Return an item of `push/e2ee/notify`."""
    return {
        "token_id": token_id(token),
        "http_headers": {"apns_priority": priority, "apns_push_type": push_type},
        "payload": {"push_key_id": 4022250974, "encrypted_data": "c2VjcmV0", **payload},
    }


def for_google(token: str = ANDROID, priority: str = "high", **payload: Any) -> dict[str, Any]:
    """Return an item of `push/e2ee/notify`."""
    return {
        "token_id": token_id(token),
        "fcm_priority": priority,
        "payload": {"push_key_id": 20, "encrypted_data": "c2VjcmV0", **payload},
    }


def asking(*items: object, realm: str = REALM) -> dict[str, Any]:
    """Return the body of `push/e2ee/notify`."""
    return {"realm_uuid": realm, "push_requests": list(items)}


def house(
    *, rules: Rules | None = None, boxes: Boxes = BOXES, users: int = 0, **more: Any
) -> Daemon:
    """Return a daemon with a server of one realm, which has so many users (0: nobody knows)."""
    daemon = Daemon(rules=rules, boxes=boxes, **more)
    add_realm(daemon, daemon.enrol(), REALM, users=users)
    return daemon


def add_realm(daemon: Daemon, server_id: int, uuid: str, users: int = 0) -> int:
    """Make a realm known, as an upload does; return its row id."""
    row = RealmRow(
        uuid, 2, "chat.example.org", "Example", 10, NOW - 1, False, False, "{}", "secret"
    )
    rows = [AuditRow(1, 2, 101, NOW, False, "{}", users)] if users else []
    upload = Upload([], [], rows or None, [row], "12.0", "", 468, {})
    realm_id: int = result(daemon.store.upload(server_id, upload, daemon.clock.seconds()))[0].id
    return realm_id


def register(daemon: Daemon, *phones: dict[str, Any]) -> None:
    """Register phones, as they say of themselves."""
    for phone in phones:
        answer = daemon.post_form("push/e2ee/register", **registration(phone))
        assert answer.status == 200, answer.body


def notify(daemon: Daemon, *items: object) -> Answer:
    """Ask for pushes."""
    return daemon.post_json("push/e2ee/notify", asking(*items))


class HalfAStore(SQLiteStore):
    """A store that answers about sealed devices a few times, and then no more."""

    answers: int = 10**9
    silent = False

    def sealed_devices(self, realm_id: int, token_ids: Any) -> Deferred[list[SealedDevice]]:
        self.answers -= 1
        if self.answers < 0:
            return Deferred() if self.silent else fail(StoreUnavailable("down"))
        return super().sealed_devices(realm_id, token_ids)


class SealedTests(SynchronousTestCase):
    """A server with an iPhone and an Android phone, whose tokens it does not know."""

    def setUp(self) -> None:
        self.daemon = house(store=lambda now: HalfAStore(None, None, now))
        register(self.daemon, APPLE, GOOGLE)

    @property
    def store(self) -> HalfAStore:
        store = self.daemon.store
        assert isinstance(store, HalfAStore)
        return store

    def answered(self, *items: object, **expected: object) -> None:
        """Check an answer; what is not expected otherwise is nothing."""
        answer = notify(self.daemon, *items)
        self.assertEqual(
            (answer.status, answer.json),
            (200, {
                "result": "success",
                "msg": "",
                "apple_successfully_sent_count": 0,
                "android_successfully_sent_count": 0,
                "delete_token_ids": [],
                "realm_push_status": {"can_push": True, "expected_end_timestamp": None},
                **expected,
            }),
        )  # fmt: skip

    def pending(self, *items: object, status: int = 200) -> Callable[[], Any]:
        channel, transport = self.daemon.connect()
        body = json.dumps(asking(*items)).encode()
        fields = {"Authorization": basic(), "Content-Type": "application/json"}
        channel.dataReceived(spell("POST", PREFIX + "push/e2ee/notify", body, fields))
        self.assertEqual(transport.value(), b"")

        def read() -> Any:
            answer = read_answer(transport.value())
            self.assertEqual(answer.status, status)
            return answer.json

        return read
