"""Apple's provider API: a push as a request, an answer as an outcome.

Knows apns.md 2 to 4 and 5.5; nothing of sockets, queues or Twisted. A token, an app id and a
payload come from strangers, and so does the answer: what cannot be sent is an outcome at once,
and a reason goes on only if Apple documents it.
"""

import enum
import re

from bouncerd.answers import json_object, number, retry_after
from bouncerd.bearer import Adoption, ProviderToken
from bouncerd.http2 import Request, Response, Template
from bouncerd.model import (
    About,
    Delivered,
    Gone,
    Message,
    Misconfigured,
    Outcome,
    Push,
    Refused,
    Retry,
)

_HEX = re.compile(r"[0-9a-fA-F]{2,400}")
_TOPIC = re.compile(r"[!-~]{1,255}")
_MAX_PAYLOAD = 4096
_MAX_VOIP_PAYLOAD = 5120
#: Tenants choose app ids, so their templates are bounded; 20 µs remake one.
_MAX_TEMPLATES = 256
#: Seconds before a device that got too many pushes in a row gets another (apns.md 4.1).
_HOT_DEVICE_WAIT = 30.0
#: Answers of InternalServerError in a row that show a wedged connection (apns.md 4.1).
_WEDGED = 3

_DELIVERED = Delivered()


class _Verdict(enum.Enum):
    """The classes of apns.md 4.1. `…_LINK`: the connection is spoiled as well."""

    TOKEN = enum.auto()
    PAYLOAD = enum.auto()
    CONFIG = enum.auto()
    CONFIG_LINK = enum.auto()
    RETRY = enum.auto()
    RETRY_LINK = enum.auto()


_REASONS: dict[str, tuple[int, _Verdict]] = {
    "BadCollapseId": (400, _Verdict.PAYLOAD),
    "BadDeviceToken": (400, _Verdict.TOKEN),
    "BadExpirationDate": (400, _Verdict.PAYLOAD),
    "BadMessageId": (400, _Verdict.PAYLOAD),
    "BadPriority": (400, _Verdict.PAYLOAD),
    "BadTopic": (400, _Verdict.CONFIG),
    "DeviceTokenNotForTopic": (400, _Verdict.TOKEN),
    "DuplicateHeaders": (400, _Verdict.PAYLOAD),
    "IdleTimeout": (400, _Verdict.RETRY_LINK),
    "InvalidPushType": (400, _Verdict.PAYLOAD),
    "MissingDeviceToken": (400, _Verdict.PAYLOAD),
    "MissingTopic": (400, _Verdict.CONFIG),
    "PayloadEmpty": (400, _Verdict.PAYLOAD),
    "TopicDisallowed": (400, _Verdict.CONFIG),
    "BadCertificate": (403, _Verdict.CONFIG_LINK),
    "BadCertificateEnvironment": (403, _Verdict.CONFIG_LINK),
    "ExpiredProviderToken": (403, _Verdict.RETRY_LINK),
    "Forbidden": (403, _Verdict.CONFIG),
    "InvalidProviderToken": (403, _Verdict.CONFIG_LINK),
    "MissingProviderToken": (403, _Verdict.CONFIG),
    "UnrelatedKeyIdInToken": (403, _Verdict.RETRY_LINK),
    "BadEnvironmentKeyIdInToken": (403, _Verdict.CONFIG),
    "BadEnvironmentKeyInToken": (403, _Verdict.CONFIG),  # a spelling seen in the wild
    "BadPath": (404, _Verdict.PAYLOAD),
    "MethodNotAllowed": (405, _Verdict.PAYLOAD),
    "Unregistered": (410, _Verdict.TOKEN),
    "ExpiredToken": (410, _Verdict.TOKEN),
    "PayloadTooLarge": (413, _Verdict.PAYLOAD),
    "TooManyRequests": (429, _Verdict.RETRY),
    "TooManyProviderTokenUpdates": (429, _Verdict.RETRY_LINK),
    "InternalServerError": (500, _Verdict.RETRY),
    "ServiceUnavailable": (503, _Verdict.RETRY),
    "Shutdown": (503, _Verdict.RETRY_LINK),
}


_ABOUT = {
    "TooManyRequests": About.DEVICE,
    "TooManyProviderTokenUpdates": About.CREDENTIAL,
}


class Session:
    """What one HTTP/2 connection to Apple has of its own: its token, and what was made with it."""

    __slots__ = ("adoption", "errors", "templates")

    def __init__(self, adoption: Adoption | None) -> None:
        self.adoption = adoption
        self.errors = 0  # InternalServerError, in a row
        self.templates: dict[tuple[str, str | None, int | None], Template] = {}


class Apns:
    """One `[apns]` section. `bearer` is None where a TLS client certificate authenticates."""

    #: A request can be made at any time: nothing has to be fetched for it.
    ready = True

    def __init__(self, name: str, authority: str, bearer: ProviderToken | None) -> None:
        self.name = name
        self._authority = authority
        self._bearer = bearer

    def bearer_issued_at(self) -> int | None:
        """Return when the newest bearer token in use was issued (unix seconds), if there is any."""
        return None if self._bearer is None else self._bearer.newest_issued_at()

    def session(self, now: float) -> Session:
        """Return the state of a new connection, made at `now` (unix seconds)."""
        return Session(None if self._bearer is None else self._bearer.adopt(now))

    def request(self, session: Session, push: Push, now: float) -> Request | Outcome:
        """Return the request for a push, or what became of it where there can be none."""
        message, device = push.message, push.device
        if not message.body:
            return Refused("PayloadEmpty")
        if len(message.body) > _MAX_PAYLOAD and len(message.body) > _limit(message):
            return Refused("PayloadTooLarge")
        if len(device.token) & 1 or not _HEX.fullmatch(device.token):
            # What Apple would call BadDeviceToken; the name tells that Apple was not asked.
            return Gone("malformed token")
        if device.app_id is None or not _TOPIC.fullmatch(device.app_id):
            return Refused("no usable app id")
        fields: tuple[tuple[bytes, bytes], ...] = ((b"apns-id", push.id.encode()),)
        if message.expiration is not None:
            fields += ((b"apns-expiration", b"%d" % message.expiration),)
        try:
            template = self._template(session, device.app_id, message, now)
            path = b"/3/device/" + device.token.encode()
            return Request(template, path, fields, message.body)
        except ValueError:
            return Refused("unusable header field")

    def outcome(
        self,
        session: Session,
        push: Push,  # noqa: ARG002 (the seam's: FCM needs it)
        response: Response,
        now: float,
    ) -> Outcome:
        """Say what an answer means (apns.md 4.1). Any answer has a meaning; none raises."""
        if response.status == 200:
            session.errors = 0
            if self._bearer is not None and session.adoption is not None:
                self._bearer.accepted(session.adoption)
            return _DELIVERED
        said = json_object(response.body)
        reason = said.get("reason")
        wait = retry_after(response.header(b"retry-after"), now) or None
        if not isinstance(reason, str) or _REASONS.get(reason, (0,))[0] != response.status:
            session.errors = 0
            return _by_status(response, reason, wait)
        if reason == "ExpiredProviderToken" and self._clock_is_wrong(session, now):
            return Misconfigured("ExpiredProviderToken (host clock)", spoiled=True)
        if reason == "TooManyRequests":
            wait = max(wait or 0.0, _HOT_DEVICE_WAIT)
        session.errors = session.errors + 1 if reason == "InternalServerError" else 0
        if session.errors >= _WEDGED:
            return Retry(reason, wait, spoiled=True)
        since = _since(said, now) if response.status == 410 else None
        return _outcome(reason, wait, since)

    def goodbye(self, debug: bytes) -> Retry | Misconfigured | None:
        """Say what the debug data of a GOAWAY mean for us; None: routine."""
        return goaway_outcome(debug)

    def _clock_is_wrong(self, session: Session, now: float) -> bool:
        if self._bearer is None or session.adoption is None:
            return False
        return self._bearer.clock_is_wrong(session.adoption, now)

    def _template(self, session: Session, topic: str, message: Message, now: float) -> Template:
        """Return the fields that pushes of one kind share on this connection, encoded once."""
        adoption, templates = session.adoption, session.templates
        if self._bearer is not None and adoption is not None and self._bearer.renew(adoption, now):
            templates.clear()
        key = (topic, message.push_type, message.priority)
        template = templates.get(key)
        if template is None:
            if len(templates) >= _MAX_TEMPLATES:
                templates.clear()
            fields = [("apns-topic", topic)]
            if adoption is not None:
                fields.insert(0, ("authorization", adoption.authorization))
            if message.push_type is not None:
                fields.append(("apns-push-type", message.push_type))
            if message.priority is not None:
                fields.append(("apns-priority", str(message.priority)))
            template = templates[key] = Template(self._authority, fields)
        return template


def goaway_outcome(debug: bytes) -> Retry | Misconfigured | None:
    """Say what the debug data of a GOAWAY mean (apns.md 5.5); None: routine, or nothing known.

    Misconfigured is for the whole connection: its streams are formally safe to send again, and
    sending them again would go on for ever.
    """
    reason = json_object(debug).get("reason")
    if not isinstance(reason, str):
        reason = debug[:128].decode("latin-1").strip()
    if reason.startswith("Maximum active streams violated"):
        return Retry("stream limit", spoiled=True, about=About.STREAMS)
    match _REASONS.get(reason, (0, None))[1]:
        case _Verdict.CONFIG | _Verdict.CONFIG_LINK:
            return Misconfigured(reason, spoiled=True)
        case _Verdict.RETRY | _Verdict.RETRY_LINK:
            return Retry(reason, spoiled=True)
        case _:
            return None


def _limit(message: Message) -> int:
    return _MAX_VOIP_PAYLOAD if message.push_type == "voip" else _MAX_PAYLOAD


def _since(said: dict[str, object], now: float) -> float | None:
    """Return since when Apple knows that a token is dead, in unix seconds (apns.md 4.2).

    Apple's clock may be ahead of ours a little, but a time far ahead is nonsense, and believed it
    would also delete what is registered after the push was sent.
    """
    milliseconds = number(said.get("timestamp"))
    if milliseconds is None or not 0 < milliseconds / 1000 < now + 300:
        return None
    return min(milliseconds / 1000, now)


def _outcome(reason: str, wait: float | None, since: float | None) -> Outcome:
    """Return the outcome for a reason that Apple documents."""
    match _REASONS[reason][1]:
        case _Verdict.TOKEN:
            return Gone(reason, since)
        case _Verdict.PAYLOAD:
            return Refused(reason)
        case _Verdict.CONFIG | _Verdict.CONFIG_LINK as verdict:
            return Misconfigured(reason, spoiled=verdict is _Verdict.CONFIG_LINK)
        case _Verdict.RETRY | _Verdict.RETRY_LINK as verdict:
            about = _ABOUT.get(reason, About.PUSH)
            return Retry(reason, wait, spoiled=verdict is _Verdict.RETRY_LINK, about=about)


def _by_status(response: Response, reason: object, wait: float | None) -> Outcome:
    """Classify an answer without a reason, with an unknown one, or with one of another status."""
    status = response.status
    if reason is None:
        # A 410 cut off before its body is still Apple's word on the token, but only if it is
        # Apple that speaks: any web server behind a wrong `url` may answer 410.
        if status == 410 and response.header(b"apns-id") is not None:
            return Gone("no reason (410)")
        label = f"no reason ({status})"
    elif isinstance(reason, str) and reason in _REASONS:
        label = f"{reason} ({status})"
    else:
        label = f"unknown reason ({status})"
    if status == 429:
        return Retry(label, max(wait or 0.0, _HOT_DEVICE_WAIT), about=About.DEVICE)
    if status >= 500 or status == 408:
        return Retry(label, wait)
    if status >= 400:
        return Refused(label)
    if 200 <= status < 300:
        return _DELIVERED
    return Misconfigured(label)
