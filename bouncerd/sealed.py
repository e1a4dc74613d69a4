"""What the end-to-end encrypted endpoints are asked, and what they answer (bouncer-api.md 12, 13).

Pure: a Form, a body or an opened box in, a frozen request out, or the WireError it deserves. There
are two dialects: Zulip 12 names a phone by a hash of its token, 11.x by the number we gave it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

from bouncerd import identifiers
from bouncerd.bodies import Object, Step, json_object, path, required, typed
from bouncerd.envelope import WireError, bad_request, compact, parse_json
from bouncerd.forms import Form
from bouncerd.model import Kind, Message
from bouncerd.wire import RealmRequest

_T = TypeVar("_T")

#: How old (seconds) a registration may be when it gets here: servers queue it, at times for long.
FRESH = 86_400

_MAX_TOKEN = 4096
_MAX_APP_ID = 1024  # becomes a header field
_APP_ID = re.compile(r"[.A-Za-z0-9-]+")
_KINDS = {"apns": Kind.APNS, "fcm": Kind.FCM}

_PRIORITIES = (10, 5, 1)
_PUSH_TYPES = (
    "alert", "background", "voip", "complication", "fileprovider", "mdm", "liveactivity",
)  # fmt: skip
# The phone's extension replaces this text by what it decrypts; without an alert it is not asked.
_DEFAULT_APS = {"mutable-content": 1, "alert": {"title": "New notification"}}


@dataclass(frozen=True, slots=True)
class SealedRegistration(RealmRequest):
    """A phone to remember, in a box; of `token_id` and `push_account_id` one is set."""

    token_id: str | None = field(repr=False)
    push_account_id: int | None
    box: str = field(repr=False)
    public_key: str


@dataclass(frozen=True, slots=True)
class Phone:
    """What a phone says of itself in the box; `timestamp` (unix seconds) is when it did."""

    kind: Kind
    token: str = field(repr=False)
    app_id: str | None
    timestamp: int


@dataclass(frozen=True, slots=True)
class SealedRequest:
    """One push. `address` is a token id in base64 (text) or a number of ours."""

    address: str | int = field(repr=False)
    message: Message


@dataclass(frozen=True, slots=True)
class SealedNotify(RealmRequest):
    """Pushes to phones of one realm, each with a message of its own."""

    requests: list[SealedRequest]


@dataclass(frozen=True, slots=True)
class SealedNotified:
    """What became of a SealedNotify. Counts are successes; `dead` are addresses as they came.

    `status` is what there is to say of the realm's entitlement.
    """

    apple: int
    android: int
    dead: list[str | int] = field(repr=False)
    by_number: bool  # some phone was addressed so
    status: Object


def parse_sealed_registration(form: Form) -> SealedRegistration:
    """Read `push/e2ee/register`."""
    realm_uuid = form.text("realm_uuid")
    push_account_id = None
    token_id = form.maybe_text("token_id")
    if token_id is None:
        push_account_id = form.maybe_integer("push_account_id")
        if push_account_id is None:
            form.text("token_id")  # which is what is missing
        elif not -(2**63) <= push_account_id < 2**63:
            raise bad_request("push_account_id is too large")
    box = form.text("encrypted_push_registration")
    public_key = form.text("bouncer_public_key")
    realm_uuid = identifiers.checked_uuid(realm_uuid, "realm_uuid")
    return SealedRegistration(realm_uuid, token_id, push_account_id, box, public_key)


def read_phone(opened: bytes | None) -> Phone:
    """Read what was in the box; None is one that could not be opened."""
    said = _object_in(opened)
    kind = _KINDS.get(str(said.get("token_kind")))
    token, app_id, timestamp = (said.get(name) for name in ("token", "ios_app_id", "timestamp"))
    # A NUL is nothing that a database or a push service could hold.
    if not isinstance(token, str) or not 0 < len(token) <= _MAX_TOKEN or "\0" in token:
        raise invalid_registration()
    if kind is Kind.APNS:
        if not (identifiers.is_hex(token) and isinstance(app_id, str) and _is_app_id(app_id)):
            raise invalid_registration()
    elif app_id is not None or kind is None:
        raise invalid_registration()
    if type(timestamp) is not int:  # a bool is no integer here
        raise invalid_registration()
    return Phone(kind, token, app_id, timestamp)


def token_id_of(token: str) -> bytes:
    """Return what a token is known by: 8 bytes of the hash of its text, in the case it came in."""
    return sha256(token.encode()).digest()[:8]


def parse_sealed_notify(content: bytes) -> SealedNotify:
    """Read `push/e2ee/notify`."""
    body = json_object(content, "SendE2EEPushNotificationPayload")
    realm_uuid = required(body, "realm_uuid", str)
    items: list[object] = required(body, "push_requests", list)
    requests = [_request(item, "push_requests", index) for index, item in enumerate(items)]
    return SealedNotify(identifiers.checked_uuid(realm_uuid, path("realm_uuid")), requests)


def render_sealed_notified(notified: SealedNotified) -> Object:
    """Return the members of `push/e2ee/notify`'s answer."""
    members: dict[str, object] = {
        "apple_successfully_sent_count": notified.apple,
        "android_successfully_sent_count": notified.android,
        "delete_token_ids": [each for each in notified.dead if isinstance(each, str)],
        "realm_push_status": notified.status,
    }
    if notified.by_number:
        members["delete_device_ids"] = [each for each in notified.dead if isinstance(each, int)]
    return members


def missing_realm() -> WireError:
    """Build the answer to a request about a realm that its server has not uploaded."""
    return WireError(403, "MISSING_REMOTE_REALM", "Organization not registered")


def unknown_key() -> WireError:
    """Build the answer to a box closed to a key that is not ours: the app must be updated."""
    return bad_request("Invalid bouncer_public_key", code="INVALID_BOUNCER_PUBLIC_KEY")


def invalid_registration() -> WireError:
    """Build the answer to everything that may be wrong with a box and what is in it."""
    return bad_request("Invalid encrypted_push_registration")


def stale_registration() -> WireError:
    """Build the answer to a box closed too long ago: the app makes a new one."""
    return bad_request("Request expired", code="REQUEST_EXPIRED")


def _object_in(opened: bytes | None) -> Mapping[str, object]:
    try:
        said = None if opened is None else parse_json(opened.decode())
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise invalid_registration()
    return said


def _is_app_id(text: str) -> bool:
    return len(text) <= _MAX_APP_ID and _APP_ID.fullmatch(text) is not None


def _request(item: object, *at: Step) -> SealedRequest:
    fields: Object = typed(item, dict, *at)
    by_number = "token_id" not in fields and "device_id" in fields
    address: str | int = (
        required(fields, "device_id", int, *at)
        if by_number
        else required(fields, "token_id", str, *at)
    )
    key = "push_account_id" if by_number else "push_key_id"
    if "fcm_priority" in fields and "http_headers" not in fields:
        return SealedRequest(address, _fcm_message(fields, key, at))
    return SealedRequest(address, _apns_message(fields, key, at))


def _apns_message(fields: Object, key: str, at: tuple[Step, ...]) -> Message:
    headers: Object = required(fields, "http_headers", dict, *at)
    priority = _one_of(_PRIORITIES, headers, "apns_priority", *at, "http_headers")
    push_type = _one_of(_PUSH_TYPES, headers, "apns_push_type", *at, "http_headers")
    payload = _payload(fields, key, at)
    if "aps" in payload:
        typed(payload["aps"], dict, *at, "payload", "aps")
    else:
        payload = {**payload, "aps": _DEFAULT_APS}
    # No expiration: a phone that was off all week gets the last one, as Apple sees fit.
    return Message(
        Kind.APNS, compact(payload), urgent=priority == 10, priority=priority, push_type=push_type
    )


def _fcm_message(fields: Object, key: str, at: tuple[Step, ...]) -> Message:
    priority = _one_of(("high", "normal"), fields, "fcm_priority", *at)
    payload = _payload(fields, key, at)
    data = {key: str(payload[key]), "encrypted_data": payload["encrypted_data"]}
    return Message(Kind.FCM, compact(data), urgent=priority == "high")


def _payload(fields: Object, key: str, at: tuple[Step, ...]) -> Object:
    payload: Object = required(fields, "payload", dict, *at)
    required(payload, key, int, *at, "payload")
    required(payload, "encrypted_data", str, *at, "payload")
    return payload


def _one_of(allowed: tuple[_T, ...], parent: Object, name: str, *above: Step) -> _T:
    if name not in parent:
        raise bad_request(f"{path(*above, name)} field is missing: Field required")
    for each in allowed:
        if type(parent[name]) is type(each) and parent[name] == each:
            return each
    raise bad_request(f"Invalid {path(*above, name)}")
