"""Google's FCM HTTP v1: a push as a request, an answer as an outcome.

Knows fcm.md 1, 3 and 4; nothing of sockets, queues, OAuth or Twisted: the access token comes from
a callable, and a token that Google refuses is reported to another. What a stranger's answer says
goes on only as words that Google documents, or as our own.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from bouncerd.answers import json_object, retry_after
from bouncerd.http2 import Request, Response, Template
from bouncerd.model import About, Delivered, Gone, Misconfigured, Outcome, Push, Refused, Retry

_MAX_DATA = 4096
#: Seconds before anything is tried again, and after a 429 that does not say (fcm.md 4.3).
_LEAST_WAIT = 10.0
_QUOTA_WAIT = 60.0
#: Pushes of which something is remembered. Those that were lost leave their entries behind.
_MAX_REMEMBERED = 4096

_HEAD = b'{"message":{"token":'
_DATA = b',"data":'
_TAILS = {
    True: b',"android":{"priority":"high"}}}',
    False: b',"android":{"priority":"normal"}}}',
}

_DELIVERED = Delivered()

_FCM_ERROR = "google.firebase.fcm.v1.FcmError"
_APNS_ERROR = "google.firebase.fcm.v1.ApnsError"
_BAD_REQUEST = "google.rpc.BadRequest"
_ERROR_INFO = "google.rpc.ErrorInfo"

# The words that an outcome's reason may repeat (fcm.md 4.1 and 4.2).
_CODES = frozenset(
    {
        "APNS_AUTH_ERROR",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "QUOTA_EXCEEDED",
        "SENDER_ID_MISMATCH",
        "THIRD_PARTY_AUTH_ERROR",
        "UNAVAILABLE",
        "UNREGISTERED",
        "UNSPECIFIED_ERROR",
    }
)
_INFO_REASONS = frozenset(
    {
        "ACCESS_TOKEN_EXPIRED",
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        "ACCESS_TOKEN_TYPE_UNSUPPORTED",
        "CREDENTIALS_MISSING",
        "IAM_PERMISSION_DENIED",
        "SERVICE_DISABLED",
    }
)
_STATUSES = frozenset(
    {
        "ABORTED",
        "ALREADY_EXISTS",
        "CANCELLED",
        "DATA_LOSS",
        "DEADLINE_EXCEEDED",
        "FAILED_PRECONDITION",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "OUT_OF_RANGE",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNAUTHENTICATED",
        "UNAVAILABLE",
        "UNIMPLEMENTED",
        "UNKNOWN",
    }
)
# How Google's text begins where a registration token is what is wrong. Its beginning, because
# the rest of such a text may quote the message.
_BAD_TOKEN_TEXTS = (
    "the registration token is not a valid fcm registration token",
    "invalid registration token",
)
_TOO_BIG_TEXTS = ("android message is too big", "message is too large")


@dataclass(frozen=True, slots=True)
class _Fault:
    """What the body of an error says. `code` is FcmError's, "" if that is none we know."""

    code: str | None
    reason: str
    bad_token: bool = False
    too_big: bool = False


class Session:
    """What one HTTP/2 connection to Google has of its own: the access token it last used."""

    __slots__ = ("sent", "template", "token")

    def __init__(self) -> None:
        self.token: str | None = None
        self.template: Template | None = None
        self.sent: dict[str, str] = {}  # the access token that each push in flight went with


class Fcm:
    """One `[fcm]` section.

    `access_token` returns the token of now or None; `on_unauthorized` takes one that Google
    refused, so that it is replaced.
    """

    def __init__(
        self,
        name: str,
        authority: str,
        project_id: str,
        access_token: Callable[[], str | None],
        on_unauthorized: Callable[[str], None],
    ) -> None:
        self.name = name
        self._authority = authority
        self._path = f"/v1/projects/{project_id}/messages:send".encode("ascii")
        self._access_token = access_token
        self._on_unauthorized = on_unauthorized
        self._bounced: dict[str, str] = {}  # pushes that met a 401 once

    @property
    def ready(self) -> bool:
        """Whether there is an access token to send with."""
        return self._access_token() is not None

    def session(self, now: float) -> Session:  # noqa: ARG002 (the seam's: APNs needs it)
        """Return the state of a new connection, made at `now` (unix seconds)."""
        return Session()

    def request(
        self,
        session: Session,
        push: Push,
        now: float,  # noqa: ARG002 (the seam's: APNs needs it)
    ) -> Request | Outcome:
        """Return the request for a push, or what became of it where there can be none."""
        message = push.message
        token = self._access_token()
        if token is None:
            return Retry("no access token")
        # JSON is never shorter than what it holds, so a short body needs no look inside.
        if len(message.body) > _MAX_DATA and _data_size(message.body) > _MAX_DATA:
            return Refused("data over 4096 bytes")
        if token != session.token or session.template is None:
            session.token, session.template = token, self._template(token)
        target = json.dumps(push.device.token).encode()
        data = b"" if message.body == b"{}" else _DATA + message.body
        body = b"".join((_HEAD, target, data, _TAILS[message.urgent]))
        try:
            request = Request(session.template, self._path, (), body)
        except ValueError:
            return Refused("message over the frame size")
        _remember(session.sent, push.id, token)
        return request

    def outcome(self, session: Session, push: Push, response: Response, now: float) -> Outcome:
        """Say what an answer means (fcm.md 4.2). Any answer has a meaning; none raises."""
        token = session.sent.pop(push.id, session.token)
        status = response.status
        if 200 <= status < 300:
            if self._bounced:
                self._bounced.pop(push.id, None)
            return _DELIVERED
        fault = _fault(response)
        wait = retry_after(response.header(b"retry-after"), now)
        if status == 429 or fault.code == "QUOTA_EXCEEDED":
            wait = max(_QUOTA_WAIT if wait is None else wait, _LEAST_WAIT)
            return Retry(fault.reason, wait, about=About.DEVICE)
        if status >= 500 or status in (408, 499) or fault.code in ("UNAVAILABLE", "INTERNAL"):
            return Retry(fault.reason, max(wait or 0.0, _LEAST_WAIT))
        if status == 401 and fault.code is None:
            return self._unauthorized(push, token, fault.reason)
        return _refusal(status, fault, complete=response.complete)

    def goodbye(self, debug: bytes) -> Retry | None:
        """Say what the debug data of a GOAWAY mean for us (fcm.md 5); None: routine."""
        if debug.startswith(b"exceeded_max_concurrent_streams"):
            return Retry("stream limit", spoiled=True, about=About.STREAMS)
        return None

    def _unauthorized(self, push: Push, token: str | None, reason: str) -> Outcome:
        """Have a refused access token replaced and the push sent again, once (fcm.md 2.3)."""
        if token is not None:
            self._on_unauthorized(token)
        if push.id in self._bounced:
            return Misconfigured(reason)
        _remember(self._bounced, push.id, reason)
        return Retry(reason, after=0.0)

    def _template(self, token: str) -> Template:
        fields = [("authorization", f"Bearer {token}"), ("content-type", "application/json")]
        return Template(self._authority, fields)


def _remember(memory: dict[str, str], push_id: str, fact: str) -> None:
    memory[push_id] = fact
    if len(memory) > _MAX_REMEMBERED:
        del memory[next(iter(memory))]


def _refusal(status: int, fault: _Fault, *, complete: bool) -> Outcome:
    """Classify an answer that says no: 3xx and 4xx, what is sent again excepted."""
    if status < 400:
        return Misconfigured(fault.reason)  # no such answer exists: not FCM, a wrong `url`
    match fault.code:
        case "UNREGISTERED" | "SENDER_ID_MISMATCH":
            return Gone(fault.reason)
        case "THIRD_PARTY_AUTH_ERROR" | "APNS_AUTH_ERROR":
            return Misconfigured(fault.reason)
        case "INVALID_ARGUMENT" if status == 400 and fault.bad_token:
            return Gone("INVALID_ARGUMENT (token)")
        case "INVALID_ARGUMENT" if fault.too_big:
            return Refused("INVALID_ARGUMENT (size)")
        case None if status in (403, 404) and complete:
            # A lost role or a wrong project: it says nothing of the device. (Cut off, it may
            # have been about the device after all, and must stop neither it nor the others.)
            return Misconfigured(fault.reason)
        case _:
            return Refused(fault.reason)


def _fault(response: Response) -> _Fault:
    """Read an error's body: FcmError's code, else ErrorInfo's, else the status (fcm.md 4.1)."""
    error = json_object(response.body).get("error")
    if not isinstance(error, dict):
        return _Fault(None, f"no error code ({response.status})")
    listed = error.get("details")
    details = (
        [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    )
    codes = [each.get("errorCode") for each in _of_type(details, _FCM_ERROR)]
    infos = [each.get("reason") for each in _of_type(details, _ERROR_INFO)]
    text = error.get("message")
    text = text.strip().lower() if isinstance(text, str) else ""
    code = _known(codes, _CODES) or "" if codes else None
    known = code or _known(infos, _INFO_REASONS) or _known([error.get("status")], _STATUSES)
    return _Fault(
        code,
        known or f"unknown error ({response.status})",
        bad_token=text.startswith(_BAD_TOKEN_TEXTS) or _blames_token(details),
        too_big=text.startswith(_TOO_BIG_TEXTS),
    )


def _blames_token(details: list[dict[str, object]]) -> bool:
    for detail in _of_type(details, _BAD_REQUEST):
        violations = detail.get("fieldViolations")
        for each in violations if isinstance(violations, list) else ():
            if isinstance(each, dict) and each.get("field") == "message.token":
                return True
    return any(
        each.get("statusCode") == 410 and each.get("reason") == "Unregistered"
        for each in _of_type(details, _APNS_ERROR)
    )


def _of_type(details: list[dict[str, object]], suffix: str) -> list[dict[str, object]]:
    named = [(each.get("@type"), each) for each in details]
    return [each for name, each in named if isinstance(name, str) and name.endswith(suffix)]


def _known(words: list[object], vocabulary: frozenset[str]) -> str | None:
    return next((each for each in words if isinstance(each, str) and each in vocabulary), None)


def _data_size(body: bytes) -> int:
    """Return how many bytes Google counts: the keys and the values of `data` (fcm.md 3)."""
    return sum(_size(key) + _size(value) for key, value in json_object(body).items())


def _size(text: object) -> int:
    return len(str(text).encode(errors="surrogatepass"))
