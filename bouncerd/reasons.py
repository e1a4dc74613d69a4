"""The reasons of ends and retries in a few classes, for metrics: what somebody would do about it.

Pure. A reason is a word of ours or a documented one of a provider's (`model.Outcome`).
"""

import re

#: The classes; `docs/metrics.md` says what each means.
CLASSES = (
    "none", "token", "payload", "credential", "throttled", "provider", "connection", "overdue",
    "shed", "stop", "other",
)  # fmt: skip

_BY_END = {
    "delivered": "none",
    "gone": "token",
    "expired": "overdue",
    "returned": "stop",
    "unknown": "connection",
    "handed_over": "stop",
    "lost": "stop",
}
_NAMED = {
    "credential": """
        InvalidProviderToken MissingProviderToken BadTopic TopicDisallowed MissingTopic
        BadCertificate BadCertificateEnvironment Forbidden BadEnvironmentKeyIdInToken
        BadEnvironmentKeyInToken UnrelatedKeyIdInToken ExpiredProviderToken
        TooManyProviderTokenUpdates THIRD_PARTY_AUTH_ERROR APNS_AUTH_ERROR ACCESS_TOKEN_EXPIRED
        ACCESS_TOKEN_SCOPE_INSUFFICIENT ACCESS_TOKEN_TYPE_UNSUPPORTED CREDENTIALS_MISSING
        IAM_PERMISSION_DENIED SERVICE_DISABLED PERMISSION_DENIED UNAUTHENTICATED NOT_FOUND
    """,
    "throttled": "TooManyRequests QUOTA_EXCEEDED RESOURCE_EXHAUSTED",
    "provider": """
        InternalServerError ServiceUnavailable Shutdown IdleTimeout INTERNAL UNAVAILABLE ABORTED
        CANCELLED DATA_LOSS DEADLINE_EXCEEDED UNKNOWN UNSPECIFIED_ERROR
    """,
}
_BY_NAME = {name: group for group, names in _NAMED.items() for name in names.split()} | {
    "no access token": "credential",
    "shed": "shed",
    "cut off": "connection",
}
_STATUS = re.compile(r"\(([0-9]{3})\)$")


def reason_class(kind: str, reason: str) -> str:
    """Return the class of a reason; `kind` is how the push ended, or `retry`."""
    if reason == "shed":
        return "shed"
    if kind in _BY_END:
        return _BY_END[kind]
    word = reason.partition(" ")[0]
    if found := _BY_NAME.get(reason) or _BY_NAME.get(word):
        return found
    if status := _STATUS.search(reason):
        return _by_status(int(status[1]))
    return "payload" if kind == "refused" else "other"


def _by_status(status: int) -> str:
    if status == 429:
        return "throttled"
    if status >= 500 or status == 408:
        return "provider"
    return "credential" if status < 400 or status in (401, 403, 404) else "payload"
