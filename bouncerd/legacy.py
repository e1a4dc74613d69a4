"""What legacy pushes say to Apple and Google (bouncer-api.md 9.6, 9.7, 10, 11).

Pure: payloads as Zulip servers send them in, a Message for each platform out. All of it is
content, so that no error here says more than where in the request the mistake is.
"""

from collections.abc import Mapping
from typing import Any

from bouncerd.envelope import bad_request, compact
from bouncerd.model import Kind, Message

Payload = Mapping[str, Any]

APNS_LIFETIME = 86400  # seconds; what servers expect of a legacy push (11.2)

# Apple and Google take 4 KiB; 200 ids of a removal fit. The newest are the ones still on screen.
_MAX_MESSAGE_IDS = 200

_GCM = 'request["gcm_payload"]'
_APNS = 'request["apns_payload"]'


def checked_gcm(payload: Payload) -> Payload:
    """Return a `gcm_payload` with its removals cut to what fits."""
    _check_time(payload, _GCM)
    return _trimmed(payload, _GCM)


def checked_apns(payload: Payload, gcm_payload: Payload) -> Payload:
    """Return an `apns_payload` of the expected shape, its removals cut to what fits."""
    custom = payload.get("custom", {})
    _check_dict(custom, f'{_APNS}["custom"]')
    path = f'{_APNS}["custom"]["zulip"]'
    zulip = custom.get("zulip", {})
    _check_dict(zulip, path)
    if "time" not in gcm_payload:
        _check_time(zulip, path)
    trimmed = _trimmed(zulip, path)
    if trimmed is zulip:
        return payload
    return {**payload, "custom": {**custom, "zulip": trimmed}}


def apns_message(payload: Payload, now: float) -> Message:
    """Build what Apple gets for a checked `apns_payload`."""
    if "message_ids" in payload:
        return _ancient_apns_message(payload, now)
    custom: Payload = payload.get("custom", {})
    aps = {name: value for name, value in payload.items() if name != "custom"}
    removal = custom.get("zulip", {}).get("event") == "remove"
    return _apns({**custom, "aps": aps}, now, urgent=not removal)


def _ancient_apns_message(payload: Payload, now: float) -> Message:
    # Zulip 1.6 sent an alert and the ids, nothing else; today's apps look for them elsewhere.
    if "alert" not in payload:
        raise bad_request(f'{_APNS}["alert"] field is missing: Field required')
    zulip = {"message_ids": payload["message_ids"]}
    return _apns({"zulip": zulip, "aps": {"alert": payload["alert"], "badge": 0}}, now, urgent=True)


def fcm_message(payload: Payload, options: Payload) -> Message:
    """Build what Google gets for a checked `gcm_payload`; raise for options we do not know."""
    return _fcm(payload, urgent=_priority(payload, options) == "high")


def build_test_message(kind: Kind, base_payload: Payload, now: float) -> Message:
    """Build the test notification; its text is the bouncer's own (9.7)."""
    base = 'request["base_payload"]'
    if "realm_name" not in base_payload:
        raise bad_request(f'{base}["realm_name"] field is missing: Field required')
    if "realm_url" not in base_payload and "realm_uri" not in base_payload:
        raise bad_request(f'{base}["realm_url"] field is missing: Field required')
    zulip = {**base_payload, "event": "test"}
    if kind is Kind.FCM:
        return _fcm({**zulip, "time": int(now)}, urgent=True)
    url = base_payload.get("realm_url", base_payload.get("realm_uri"))
    body = f"This is a test notification from {base_payload['realm_name']} ({url})."
    alert = {"title": "Test notification", "body": body}
    return _apns({"zulip": zulip, "aps": {"alert": alert, "sound": "default"}}, now, urgent=True)


def _apns(body: Payload, now: float, *, urgent: bool) -> Message:
    # A removal is an alert without an alert: it sets the badge. Apple throttles `background`.
    return Message(
        Kind.APNS,
        compact(body),
        urgent=urgent,
        expiration=int(now) + APNS_LIFETIME,
        push_type="alert",
    )


def _fcm(payload: Payload, *, urgent: bool) -> Message:
    # Google takes text only. The apps read what Python's str() makes of everything else.
    data = {name: value if type(value) is str else str(value) for name, value in payload.items()}
    return Message(Kind.FCM, compact(data), urgent=urgent)


def _priority(payload: Payload, options: Payload) -> str:
    priority = options.get("priority")
    if priority is None:
        priority = "high" if payload.get("event") == "message" else "normal"
    elif priority not in ("normal", "high"):
        raise bad_request(f"Invalid GCM option to bouncer: priority {priority!r}")
    others = {name: value for name, value in options.items() if name != "priority"}
    if others:
        raise bad_request(f"Invalid GCM options to bouncer: {compact(others).decode()}")
    return str(priority)


def _trimmed(payload: Payload, path: str) -> Payload:
    ids = payload.get("zulip_message_ids")
    if payload.get("event") != "remove" or not ids:
        return payload
    numbers = _numbers(ids) if isinstance(ids, str) else None
    if numbers is None:
        raise bad_request(f'{path}["zulip_message_ids"] has invalid format')
    newest = sorted(numbers)[-_MAX_MESSAGE_IDS:]
    return {**payload, "zulip_message_ids": ",".join(map(str, newest))}


def _numbers(text: str) -> list[int] | None:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        return None


def _check_dict(value: object, path: str) -> None:
    if not isinstance(value, dict):
        raise bad_request(f"{path} is not a dict")


def _check_time(payload: Payload, path: str) -> None:
    if not isinstance(payload.get("time"), int | float | None):
        raise bad_request(f'{path}["time"] is not a float')
