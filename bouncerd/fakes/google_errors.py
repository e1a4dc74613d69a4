"""Google's error answers, word for word as far as they are known (fcm.md 2.2 and 4)."""

import json
from typing import Any

from bouncerd.fakes.steps import Headers, Respond

JSON: Headers = (("content-type", "application/json; charset=UTF-8"),)
HTML: Headers = (("content-type", "text/html; charset=UTF-8"),)
_TYPES = "type.googleapis.com/"

NOT_A_TOKEN = "The registration token is not a valid FCM registration token"  # noqa: S105 - no password
TOO_LARGE = "Message is too large. The maximum is 4K (4096 bytes)."


def fcm_error(code: str) -> dict[str, Any]:
    """Make the detail that says what FCM thinks: the one to act on."""
    return {"@type": _TYPES + "google.firebase.fcm.v1.FcmError", "errorCode": code}


def bad_field(field: str, description: str) -> dict[str, Any]:
    """Make the detail that names a field of the request."""
    violation = {"field": field, "description": description}
    return {"@type": _TYPES + "google.rpc.BadRequest", "fieldViolations": [violation]}


def error_info(reason: str, domain: str = "googleapis.com") -> dict[str, Any]:
    """Make the detail that explains trouble with authority, quota or enablement."""
    return {"@type": _TYPES + "google.rpc.ErrorInfo", "reason": reason, "domain": domain}


def error(
    code: int, status: str, message: str, *details: dict[str, Any], headers: Headers = ()
) -> Respond:
    """Make an error answer: HTTP `code`, canonical gRPC `status`, text and details."""
    content: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        content["details"] = list(details)
    body = json.dumps({"error": content}, indent=2).encode() + b"\n"
    word = next((detail["errorCode"] for detail in details if "errorCode" in detail), status)
    return Respond(code, JSON + headers, body, name=f"{code} {word}")


def page(code: int, title: str) -> Respond:
    """Make the HTML page that Google's front end answers with when no service did."""
    body = f"<!DOCTYPE html>\n<html lang=en>\n<title>Error {code} ({title})!!1</title>\n"
    return Respond(code, HTML, body.encode(), name=f"{code} HTML")


def invalid(message: str, *details: dict[str, Any]) -> Respond:
    """Make a 400 about the request itself."""
    return error(400, "INVALID_ARGUMENT", message, *details)


def retry_later(respond: Respond, retry_after: str) -> Respond:
    """Add a `retry-after` header to an answer, whatever it says."""
    headers = (*respond.headers, ("retry-after", retry_after))
    return Respond(respond.status, headers, respond.body, name=respond.name)


UNREGISTERED = error(404, "NOT_FOUND", "Requested entity was not found.", fcm_error("UNREGISTERED"))
SENDER_ID_MISMATCH = error(
    403, "PERMISSION_DENIED", "SenderId mismatch", fcm_error("SENDER_ID_MISMATCH")
)
QUOTA_EXCEEDED = error(
    429,
    "RESOURCE_EXHAUSTED",
    "Resource has been exhausted (e.g. check quota).",
    fcm_error("QUOTA_EXCEEDED"),
)
UNAVAILABLE = error(
    503, "UNAVAILABLE", "The service is currently unavailable.", fcm_error("UNAVAILABLE")
)
INTERNAL = error(500, "INTERNAL", "Internal error encountered.", fcm_error("INTERNAL"))
THIRD_PARTY_AUTH = error(
    401,
    "UNAUTHENTICATED",
    "Auth error from APNS or Web Push Service",
    fcm_error("THIRD_PARTY_AUTH_ERROR"),
)
INVALID_ARGUMENT = invalid("Request contains an invalid argument.", fcm_error("INVALID_ARGUMENT"))
INVALID_TOKEN = invalid(
    NOT_A_TOKEN,
    fcm_error("INVALID_ARGUMENT"),
    bad_field("message.token", "Invalid registration token"),
)
INVALID_TOKEN_BY_TEXT = invalid(NOT_A_TOKEN, fcm_error("INVALID_ARGUMENT"))
TOO_BIG = invalid(TOO_LARGE, fcm_error("INVALID_ARGUMENT"))
ANDROID_TOO_BIG = invalid("Android message is too big", fcm_error("INVALID_ARGUMENT"))
EXPIRED_ACCESS = error(
    401,
    "UNAUTHENTICATED",
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie "
    "or other valid authentication credential.",
    error_info("ACCESS_TOKEN_EXPIRED"),
)
NO_CREDENTIALS = error(
    401,
    "UNAUTHENTICATED",
    "Request is missing required authentication credential.",
    error_info("CREDENTIALS_MISSING"),
)
NO_PERMISSION = error(
    403,
    "PERMISSION_DENIED",
    "Permission 'cloudmessaging.messages.create' denied on resource (or it may not exist).",
    error_info("IAM_PERMISSION_DENIED", "cloudresourcemanager.googleapis.com"),
)
SERVICE_DISABLED = error(
    403,
    "PERMISSION_DENIED",
    "Firebase Cloud Messaging API has not been used in project before or it is disabled.",
    error_info("SERVICE_DISABLED"),
)
NO_PROJECT = error(404, "NOT_FOUND", "Requested entity was not found.")
NO_PAGE = page(404, "Not Found")
BAD_GATEWAY = page(502, "Server Error")
GATEWAY_TIMEOUT = error(504, "DEADLINE_EXCEEDED", "Deadline exceeded.")

# By name, for the admin port.
ERRORS = {
    name.lower(): value for name, value in list(globals().items()) if isinstance(value, Respond)
}
