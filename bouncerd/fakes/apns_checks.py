"""What Apple checks in a push apart from who sent it, in the order of apns.md 7.2."""

import re
from typing import NamedTuple

ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
DEVICE_TOKEN = re.compile(rb"(?:[0-9a-fA-F]{2}){1,200}\Z")
DEVICE_PATH = b"/3/device/"
PRIORITIES = (b"10", b"5", b"1")
COLLAPSE_BYTES = 64
PAYLOAD_BYTES = 4096
VOIP_PAYLOAD_BYTES = 5120

# push type -> what its topic has behind the bundle id
TOPIC_SUFFIXES = {
    b"alert": "",
    b"background": "",
    b"voip": ".voip",
    b"complication": ".complication",
    b"controls": ".push-type.controls",
    b"fileprovider": ".pushkit.fileprovider",
    b"liveactivity": ".push-type.liveactivity",
    b"location": ".location-query",
    b"mdm": "",
    b"pushtotalk": ".voip-ptt",
    b"widgets": ".push-type.widgets",
}


class Problem(NamedTuple):
    """Why a push is refused: an HTTP status and Apple's word for it."""

    status: int
    reason: str
    timestamp: int | None = None  # ms, on a 410


Lines = dict[bytes, bytes]  # a request's headers, by name


def check_form(lines: Lines, *, doubled: bool, topic_needed: bool) -> Problem | None:
    """Find the first thing wrong with a request's headers; `doubled`: one came twice."""
    problem = _check_target(lines)
    if problem is not None:
        return problem
    if doubled:
        return Problem(400, "DuplicateHeaders")
    if topic_needed and not lines.get(b"apns-topic"):
        return Problem(400, "MissingTopic")
    return _check_manner(lines)


def check_payload(lines: Lines, body: bytes) -> Problem | None:
    """Find what is wrong with a request's body: its size only."""
    if not body:
        return Problem(400, "PayloadEmpty")
    most = VOIP_PAYLOAD_BYTES if lines.get(b"apns-push-type") == b"voip" else PAYLOAD_BYTES
    return Problem(413, "PayloadTooLarge") if len(body) > most else None


def bundle_id(lines: Lines, topic: str) -> str:
    """Take the push type's suffix off a topic."""
    return topic.removesuffix(TOPIC_SUFFIXES.get(lines.get(b"apns-push-type", b"alert"), ""))


def _check_target(lines: Lines) -> Problem | None:
    """Check `apns-id`, method and path."""
    push_id = lines.get(b"apns-id")
    if push_id is not None and not ID.match(push_id):
        return Problem(400, "BadMessageId")
    if lines.get(b":method") != b"POST":
        return Problem(405, "MethodNotAllowed")
    path = lines.get(b":path", b"")
    if not path.startswith(DEVICE_PATH):
        return Problem(404, "BadPath")
    token = path[len(DEVICE_PATH) :]
    if not token:
        return Problem(400, "MissingDeviceToken")
    return None if DEVICE_TOKEN.match(token) else Problem(400, "BadDeviceToken")


def _check_manner(lines: Lines) -> Problem | None:
    """Check the headers that say how to deliver."""
    if len(lines.get(b"apns-collapse-id", b"")) > COLLAPSE_BYTES:
        return Problem(400, "BadCollapseId")
    priority, push_type = lines.get(b"apns-priority", b"10"), lines.get(b"apns-push-type")
    if priority not in PRIORITIES or (
        # The default is 10, which a background push may not have.
        push_type == b"background" and priority == b"10"
    ):
        return Problem(400, "BadPriority")
    if push_type is not None and push_type not in TOPIC_SUFFIXES:
        return Problem(400, "InvalidPushType")
    expiration = lines.get(b"apns-expiration", b"0")
    if not (expiration.isdigit() and len(expiration) <= 10):
        return Problem(400, "BadExpirationDate")
    return None
