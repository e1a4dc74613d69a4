"""The recorded exchanges in tests/vectors: how to send them again, and how answers compare.

`reference-9.x` is what the reference bouncer answered, `client-9.x` what a real Zulip 9.x server
sent. Read as UTF-8 and split at line feeds only. Bodies are sent with numbers as recorded.
"""

import gzip
import json
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hpack

from bouncerd.apns import Apns
from bouncerd.fcm import Fcm
from bouncerd.http2 import Request
from bouncerd.model import Delivered, Gone, Kind, Misconfigured, Outcome, Push, Refused, Retry
from tests.in_memory import Answer, basic, form

VECTORS = Path(__file__).parent / "vectors"
PREFIX = "/api/v1/remotes/"

Exchange = Mapping[str, Any]


def load(name: str) -> list[Exchange]:
    """Read a file of vectors."""
    with gzip.open(VECTORS / f"{name}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines.read().split("\n") if line]


def scenarios() -> Iterator[tuple[str, list[Exchange]]]:
    """Yield the reference's scenarios, whole and in order."""
    for name, exchanges in groupby(load("reference-9.x"), lambda each: str(each["scenario"])):
        yield name, list(exchanges)


def endpoint(exchange: Exchange) -> str:
    """Name the endpoint of a request, without the prefix that all share."""
    path: str = exchange["request"]["path"]
    return path.partition("?")[0].removeprefix(PREFIX)


def body_of(request: Exchange) -> bytes:
    """Return the body that was sent."""
    if request.get("form") is not None:
        return form(request["form"])
    if request.get("json") is not None:
        compact = json.dumps(request["json"], ensure_ascii=False, separators=(",", ":"))
        return compact.encode("utf-8", "surrogatepass")
    if request.get("raw") is not None:
        return str(request["raw"]).encode()
    return b64decode(request.get("raw_b64") or "")


def headers_of(request: Exchange) -> dict[str, str]:
    """Return the headers that were sent."""
    headers = dict(request["headers"])
    if headers.get("authorization") == "basic":
        headers["authorization"] = basic(request["auth"]["org_id"], request["auth"]["org_key"])
    return headers


# --- what the recording's stand-ins for Apple and Google said, by the start of a token

_APNS_OUTCOMES: Mapping[str, Outcome] = {
    "aa40b": Gone("BadDeviceToken"),
    "aa40d": Gone("DeviceTokenNotForTopic"),
    "aa40c": Misconfigured("TopicDisallowed"),
    "aa429": Retry("TooManyRequests"),
    "aa500": Retry("InternalServerError"),
    "aa503": Retry("ServiceUnavailable"),
    "aa403": Retry("ExpiredProviderToken", spoiled=True),
    "aa413": Refused("PayloadTooLarge"),
    "aa0c1": Retry("cut off"),
}
_FCM_OUTCOMES: Mapping[str, Outcome] = {
    "fcm-unregistered": Gone("UNREGISTERED"),
    "fcm-senderid": Gone("SENDER_ID_MISMATCH"),
    "fcm-quota": Retry("QUOTA_EXCEEDED"),
    "fcm-invalid": Refused("INVALID_ARGUMENT"),
    "fcm-auth": Misconfigured("THIRD_PARTY_AUTH_ERROR"),
    "fcm-503": Retry("UNAVAILABLE"),
    "fcm-500": Retry("INTERNAL"),
}


def outcome(now: Callable[[], float]) -> Callable[[Push], Outcome]:
    """Make the lanes say what the recording's providers said; Apple's 410 tells the time."""

    def of(push: Push) -> Outcome:
        token = push.device.token
        if push.device.kind is Kind.APNS and token.startswith("aa410"):
            return Gone("Unregistered", since=now())
        table = _APNS_OUTCOMES if push.device.kind is Kind.APNS else _FCM_OUTCOMES
        return next((table[start] for start in table if token.startswith(start)), Delivered())

    return of


# --- comparing


def normalised(body: Any) -> Any:
    """Return a JSON answer without what means nothing or cannot be the same.

    That is the order of `deleted_devices`, when to ask again, and where plans are looked at: its
    host is a setting, its last segment is signed.
    """
    if not isinstance(body, dict):
        return body
    same = dict(body)
    if "deleted_devices" in body:
        deleted = body["deleted_devices"]
        same["deleted_devices"] = {name: sorted(tokens) for name, tokens in deleted.items()}
    if "retry-after" in body:
        same["retry-after"] = type(body["retry-after"]).__name__
    if "billing_access_url" in body:
        same["billing_access_url"] = urlsplit(body["billing_access_url"]).path.rpartition("/")[0]
    return same


def json_of(answer: Answer) -> Any:
    """Return an answer's JSON, or None as the recording does for an empty body."""
    return answer.json if answer.body else None


def first_attempts(upstream: Mapping[str, Any]) -> "Counter[str]":
    """Count what the reference sent to Apple and Google, its library's retries left out."""
    apns = {each["device_token"]: _apns(each) for each in reversed(upstream["apns"])}
    fcm = {each["message"]["token"]: _fcm(each) for each in upstream["fcm"]}
    return Counter([*apns.values(), *fcm.values()])


def _fcm(recorded: Mapping[str, Any]) -> str:
    assert not recorded["body_other_keys"]
    return _line(recorded["path"], _timeless({"message": recorded["message"]}))


def _apns(recorded: Mapping[str, Any]) -> str:
    assert 86_395 < recorded["expiration_minus_now"] <= 86_400  # it took time to arrive
    path = "/3/device/" + recorded["device_token"]
    return _line(path, recorded["topic"], 86_400, recorded["payload"])


def _timeless(body: Any) -> Any:
    """Leave out when a test notification was sent."""
    data = body["message"].get("data", {})
    return body if data.get("event") != "test" else _without_time(body, data)


def _without_time(body: Any, data: Any) -> Any:
    return {"message": {**body["message"], "data": {**data, "time": "now"}}}


def _line(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True)


# Spelled by what really spells them, for a project of the recording's name.
_APNS = Apns("apns", "localhost", None)
_FCM = Fcm("fcm", "localhost", "ref-project", lambda: "token", lambda _token: None)


def attempts(pushes: Iterable[Push], now: float) -> "Counter[str]":
    """Count what Apple and Google get of what we gave to the lanes, in the same words."""
    return Counter(filter(None, [_attempt(push, now) for push in pushes]))


def _attempt(push: Push, now: float) -> str | None:
    provider: Any = _FCM if push.device.kind is Kind.FCM else _APNS
    request = provider.request(provider.session(now), push, now)
    if not isinstance(request, Request):
        return None  # nothing that could be sent
    fields: Any = dict(hpack.Decoder().decode(request.block))
    body = json.loads(request.body)
    if push.device.kind is Kind.FCM:
        return _line(fields[":path"], _timeless(body))
    lifetime = int(fields["apns-expiration"]) - int(now)
    return _line(fields[":path"], fields["apns-topic"], lifetime, body)
