"""What the push endpoints are asked, and what they answer (bouncer-api.md 9).

Pure: the bytes of a body or a Form in, a frozen request out, or the WireError it deserves. Checks
stand in the order in which callers are told of them.
"""

from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bouncerd import identifiers
from bouncerd.bodies import Object, json_object, optional, or_empty, path, required, typed
from bouncerd.envelope import WireError, bad_request
from bouncerd.forms import Form
from bouncerd.legacy import Payload, checked_apns, checked_gcm
from bouncerd.model import Device, Identity, Kind

_MAX_TOKEN = 4096
_MAX_APP_ID = 1024  # becomes a header field

# Spelled once, not for each body: it took a fifth of the time that reading one takes.
_USER_UUID, _REALM_UUID = path("user_uuid"), path("realm_uuid")


@dataclass(frozen=True, slots=True)
class RealmRequest:
    """What names a realm and no user."""

    realm_uuid: str | None


@dataclass(frozen=True, slots=True)
class UserRequest:
    """What every push endpoint is told: whose phones, and of which realm."""

    identity: Identity
    realm_uuid: str | None


@dataclass(frozen=True, slots=True)
class Registration(UserRequest):
    """A phone to remember."""

    kind: Kind
    token: str = field(repr=False)
    app_id: str | None


@dataclass(frozen=True, slots=True)
class Unregistration(UserRequest):
    """A phone to forget."""

    kind: Kind
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Notify(UserRequest):
    """A message for all phones of a user, and which phones the caller believes those are."""

    gcm_payload: Payload = field(repr=False)
    apns_payload: Payload = field(repr=False)
    gcm_options: Payload = field(repr=False)
    android_devices: list[str] = field(repr=False)
    apple_devices: list[str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TestNotification(UserRequest):
    """A test for one phone. `kind` is as sent: a wrong one is a phone we do not know."""

    __test__ = False  # for pytest: the name is the endpoint's

    kind: int
    token: str = field(repr=False)
    base_payload: Payload = field(repr=False)


@dataclass(frozen=True, slots=True)
class Notified:
    """What became of a Notify. The totals are phones found, not successes (9.6)."""

    total_android_devices: int
    total_apple_devices: int
    deleted_android_devices: list[str] = field(repr=False)
    deleted_apple_devices: list[str] = field(repr=False)
    realm: Object | None = None


def parse_register(form: Form) -> Registration:
    """Read `push/register`."""
    user_id = form.maybe_integer("user_id")
    user_uuid = form.maybe_text("user_uuid")
    realm_uuid = form.maybe_text("realm_uuid")
    token = form.text("token")
    token_kind = form.integer("token_kind")
    app_id = _app_id(form)
    kind = _checked_kind(token_kind, token)
    if kind is Kind.APNS and app_id is None:
        raise bad_request("Missing ios_app_id")
    user = identifiers.identity(user_id, user_uuid)
    if not identifiers.is_storable(user):
        raise bad_request("user_id is too large")
    realm = identifiers.realm(realm_uuid, user)
    return Registration(user, realm, kind, token, app_id if kind is Kind.APNS else None)


def parse_unregister(form: Form) -> Unregistration:
    """Read `push/unregister`."""
    token = form.text("token")
    token_kind = form.integer("token_kind")
    user_id = form.maybe_integer("user_id")
    user_uuid = form.maybe_text("user_uuid")
    realm_uuid = form.maybe_text("realm_uuid")
    kind = _checked_kind(token_kind, token)
    user = identifiers.identity(user_id, user_uuid)
    return Unregistration(user, identifiers.realm(realm_uuid, user), kind, token)


def parse_unregister_all(form: Form) -> UserRequest:
    """Read `push/unregister/all`."""
    user_id = form.maybe_integer("user_id")
    user_uuid = form.maybe_text("user_uuid")
    realm_uuid = form.maybe_text("realm_uuid")
    user = identifiers.identity(user_id, user_uuid)
    return UserRequest(user, identifiers.realm(realm_uuid, user))


def parse_notify(content: bytes) -> Notify:
    """Read `push/notify`."""
    body = json_object(content, "RemoteServerNotificationPayload")
    user_id = optional(body, "user_id", int)
    user_uuid = optional(body, "user_uuid", str)
    realm_uuid = optional(body, "realm_uuid", str)
    gcm_payload = or_empty(body, "gcm_payload", dict)
    apns_payload = or_empty(body, "apns_payload", dict)
    gcm_options = or_empty(body, "gcm_options", dict)
    android_devices = _texts(body, "android_devices")
    apple_devices = _texts(body, "apple_devices")
    user = identifiers.identity(user_id, user_uuid, _USER_UUID)
    return Notify(
        user,
        identifiers.realm(realm_uuid, user, _REALM_UUID),
        checked_gcm(gcm_payload),
        checked_apns(apns_payload, gcm_payload),
        gcm_options,
        android_devices,
        apple_devices,
    )


_TEST_KEYS = frozenset({"token", "token_kind", "user_id", "user_uuid", "realm_uuid"})
_TEST_KEYS |= {"base_payload"}


def parse_test_notification(content: bytes) -> TestNotification:
    """Read `push/test_notification`; other than `push/notify` it refuses unknown keys."""
    body = json_object(content, "TestNotificationPayload")
    token = required(body, "token", str)
    token_kind = required(body, "token_kind", int)
    user_id = required(body, "user_id", int)
    user_uuid = required(body, "user_uuid", str)
    realm_uuid = optional(body, "realm_uuid", str)
    base_payload = required(body, "base_payload", dict)
    for key in body:
        if key not in _TEST_KEYS:
            raise bad_request(f'Argument "{key}" at {path(key)} is unexpected')
    user = identifiers.identity(user_id, user_uuid, _USER_UUID)
    realm = identifiers.realm(realm_uuid, user, _REALM_UUID)
    return TestNotification(user, realm, token_kind, token, base_payload)


def render_notified(notified: Notified) -> Object:
    """Return the members of `push/notify`'s answer."""
    return {
        "total_android_devices": notified.total_android_devices,
        "total_apple_devices": notified.total_apple_devices,
        "deleted_devices": {
            "android_devices": notified.deleted_android_devices,
            "apple_devices": notified.deleted_apple_devices,
        },
        "realm": notified.realm,
    }


def deleted_android(listed: Iterable[str], devices: Iterable[Device]) -> list[str]:
    """Return the Android tokens a caller listed that are none of these devices'."""
    return sorted(set(listed) - {each.token for each in devices if each.kind is Kind.FCM})


def deleted_apple(listed: Iterable[str], devices: Iterable[Device]) -> list[str]:
    """Return the Apple tokens a caller listed that are none of these devices'.

    They are one token in any case. Of several spellings listed the first is kept, or the phone
    would go on being pushed to twice.
    """
    wanted = {each.token.lower() for each in devices if each.kind is Kind.APNS}
    deleted = []
    for token in dict.fromkeys(listed):
        if token.lower() in wanted:
            wanted.remove(token.lower())
        else:
            deleted.append(token)
    return sorted(deleted)


def realm_elsewhere() -> WireError:
    """Build the answer to a request about another server's realm (9.1)."""
    return WireError(
        403,
        "REMOTE_REALM_SERVER_MISMATCH_ERROR",
        "Your organization is registered to a different Zulip server."
        " Please contact Zulip support for assistance in resolving this issue.",
    )


def unrecognised_device() -> WireError:
    """Build the answer to a test notification for a phone that we do not know."""
    return bad_request(
        "Device not recognized by the push bouncer", code="INVALID_REMOTE_PUSH_DEVICE_TOKEN"
    )


def _app_id(form: Form) -> str | None:
    app_id = form.maybe_text("ios_app_id")
    if app_id is None:
        return None
    allowed = app_id.isascii() and app_id.translate(_HYPHEN_AND_DOT).isalnum()
    if not allowed:
        raise bad_request("ios_app_id has invalid format")
    if len(app_id) > _MAX_APP_ID:
        raise bad_request(f"ios_app_id is too long (limit: {_MAX_APP_ID} characters)")
    return app_id


# Turned into a letter, so that isalnum() says whether there is anything else.
_HYPHEN_AND_DOT = str.maketrans("-.", "aa")


def _checked_kind(token_kind: int, token: str) -> Kind:
    if token_kind not in (Kind.APNS, Kind.FCM):
        raise bad_request("Invalid token type")
    # A NUL is nothing that a database or a push service could hold.
    if not token or len(token) > _MAX_TOKEN or "\0" in token:
        raise bad_request("Empty or invalid length token")
    kind = Kind(token_kind)
    if kind is Kind.APNS and not (_is_base64(token) or identifiers.is_hex(token)):
        raise bad_request("Invalid APNS token")
    return kind


def _is_base64(token: str) -> bool:
    # As 9.x checks it, which skips what is not in the alphabet.
    try:
        b64decode(token)
    except ValueError:
        return False
    return True


def _texts(body: Object, name: str) -> list[str]:
    values: list[Any] = or_empty(body, name, list)
    return [typed(value, str, name, index) for index, value in enumerate(values)]
