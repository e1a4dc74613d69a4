"""Why PostgreSQL refuses, in our own words: its own quote what it was asked.

Pure. Of a statement there is a code to go by; of a connection only what the server says.
"""

from bouncerd.store.base import StoreError, StoreUnavailable
from bouncerd.store.session import ReadOnly

CANCELLED = "57014"
_READ_ONLY = "25006"
_WHY = {
    _READ_ONLY: "read-only",
    "42501": "permission denied",
    "53100": "no space left",
    "53200": "out of memory",
    "53300": "too many connections",
    "55P03": "locked by another process",
    CANCELLED: "cancelled by the server",
}
# What a server says when it refuses a connection; there is no code to go by. What is not here
# may pass, and is tried again.
_HOPELESS = (
    ("password authentication failed", "the password is wrong"),
    ("no password supplied", "a password is needed"),
    ("authentication failed", "the user may not connect"),
    ("no pg_hba.conf entry", "the server does not let this host, user or database in"),
    ('role "', "there is no such user"),
    ('database "', "there is no such database"),
    ("certificate verify failed", "the server's certificate cannot be verified"),
    ("does not support SSL", "the server has no TLS"),
    ("does not match host name", "the server's certificate is another host's"),
)
_PASSING = (
    ("too many clients", "too many connections"),
    ("too many connections", "too many connections"),
    ("remaining connection slots", "too many connections"),
    ("starting up", "the server is starting up"),
    ("shutting down", "the server is shutting down"),
    ("recovery", "the server is recovering"),
    ("refused", "connection refused"),
    ("could not translate host name", "no address of its host name"),
    ("No such file", "no server at this socket"),
)


class Hopeless(StoreError):
    """The server will not let us in, however often we ask."""


def unavailable(code: str) -> StoreUnavailable:
    """Name the reason of a refused statement, by its SQLSTATE."""
    reason = _WHY.get(code, "refused")
    return ReadOnly(reason) if code == _READ_ONLY else StoreUnavailable(reason)


def refused(text: str) -> StoreUnavailable | Hopeless:
    """Name the reason for which no connection was made, by what the library says of it."""
    hopeless = [reason for words, reason in _HOPELESS if words in text]
    # Of several hosts one may be hopeless and another only down.
    passing = [reason for words, reason in _PASSING if words in text]
    if hopeless and not passing:
        return Hopeless(hopeless[0])
    return StoreUnavailable((passing or ["not reachable"])[0])
