"""What FCM checks in a message (fcm.md 3 and 7.1). Both spellings of proto JSON are known."""

import re
from typing import Any

from bouncerd.fakes.google_errors import TOO_BIG, bad_field, fcm_error, invalid
from bouncerd.fakes.steps import Respond

MOST_BYTES = 4096  # keys and values of the data, in UTF-8
LONGEST_TTL = 2_419_200  # seconds
TARGETS = ("token", "fid", "topic", "condition")
TTL = re.compile(r"(\d{1,12})(\.\d{1,9})?s")
RESERVED_KEYS = ("from", "message_type")
RESERVED_BEGINNINGS = ("google", "gcm")

REQUEST_FIELDS = {"message", "validate_only", "validateOnly"}
MESSAGE_FIELDS = {
    *TARGETS, "data", "notification", "android", "apns", "webpush", "fcm_options", "fcmOptions",
    "name",
}  # fmt: skip
ANDROID_FIELDS = {
    "priority", "ttl", "data", "notification", "collapse_key", "collapseKey", "fcm_options",
    "fcmOptions", "restricted_package_name", "restrictedPackageName", "direct_boot_ok",
    "directBootOk", "bandwidth_constrained_ok", "bandwidthConstrainedOk",
    "restricted_satellite_ok", "restrictedSatelliteOk",
}  # fmt: skip


class Unacceptable(Exception):
    """A message that FCM refuses; `rule` is the violation this is, "" for none."""

    def __init__(self, answer: Respond, rule: str = "") -> None:
        super().__init__(answer.name)
        self.answer = answer
        self.rule = rule


def check_request(content: Any) -> dict[str, Any]:
    """Check a parsed request body and return its message; raises Unacceptable."""
    request = _object(content, "", REQUEST_FIELDS)
    message = _object(request.get("message"), "message", MESSAGE_FIELDS)
    targets = [name for name in TARGETS if name in message]
    if len(targets) != 1:
        raise Unacceptable(
            invalid(
                "Exactly one of token, fid, topic or condition is required",
                fcm_error("INVALID_ARGUMENT"),
            )
        )
    if not isinstance(message[targets[0]], str):
        raise _wrong_type(f"message.{targets[0]}", message[targets[0]])
    data = _check_data(message.get("data", {}), "message.data")
    if "android" in message:
        android = _object(message["android"], "message.android", ANDROID_FIELDS)
        _check_android(android)
        data = _check_data(android.get("data", data), "message.android.data")
    if sum(len(key.encode()) + len(value.encode()) for key, value in data.items()) > MOST_BYTES:
        raise Unacceptable(TOO_BIG, "data over 4096 bytes")
    return message


def _object(value: Any, path: str, known: set[str]) -> dict[str, Any]:
    """Take a JSON object that has no unknown fields."""
    if not isinstance(value, dict):
        raise _wrong_type(path, value)
    for name in value:
        if name not in known:
            where = f"Unknown name \"{name}\" at '{path}': Cannot find field."
            text = f"Invalid JSON payload received. {where}"
            raise Unacceptable(invalid(text, bad_field(path, text)))
    return value


def _check_data(data: Any, path: str) -> dict[str, str]:
    """Check a map of strings to strings."""
    if not isinstance(data, dict):
        raise _wrong_type(path, data)
    for index, (key, value) in enumerate(data.items()):
        if not isinstance(value, str):
            shown = str(value).lower() if isinstance(value, bool) else value
            text = f"Invalid value at '{path}[{index}].value' (TYPE_STRING), {shown}"
            raise Unacceptable(
                invalid(text, bad_field(f"{path}[{index}].value", text)), "data that is no string"
            )
        if key in RESERVED_KEYS or key.startswith(RESERVED_BEGINNINGS):
            text = f"Invalid data payload key: {key}"
            raise Unacceptable(
                invalid(text, fcm_error("INVALID_ARGUMENT"), bad_field(f"{path}[{index}]", text))
            )
    return data


def _check_android(android: dict[str, Any]) -> None:
    """Check how the message is to be delivered."""
    priority = android.get("priority", "NORMAL")
    if not isinstance(priority, str) or priority.upper() not in ("HIGH", "NORMAL"):
        text = f"Invalid value at 'message.android.priority' (AndroidMessagePriority), {priority!r}"
        raise Unacceptable(invalid(text, bad_field("message.android.priority", text)))
    ttl = android.get("ttl", "0s")
    match = TTL.fullmatch(ttl) if isinstance(ttl, str) else None
    if match is None or int(match[1]) > LONGEST_TTL:
        text = "Invalid value at 'message.android.ttl' (Duration)"
        raise Unacceptable(invalid(text, bad_field("message.android.ttl", text)))


def _wrong_type(path: str, value: object) -> Unacceptable:
    text = f"Invalid value at '{path}', {type(value).__name__}"
    return Unacceptable(invalid(text, bad_field(path, text)))
