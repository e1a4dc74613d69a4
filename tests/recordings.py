"""The recorded exchanges in tests/vectors: how to send them again, and how answers compare.

`reference-9.x` is what the reference bouncer answered, `client-9.x` what a real Zulip 9.x server
sent. Read as UTF-8 and split at line feeds only. Bodies are sent with numbers as recorded.
"""

import gzip
import json
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

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
    """Return a JSON answer without what means nothing: the order of `deleted_devices`."""
    if not isinstance(body, dict) or "deleted_devices" not in body:
        return body
    deleted = {name: sorted(tokens) for name, tokens in body["deleted_devices"].items()}
    return {**body, "deleted_devices": deleted}


def json_of(answer: Answer) -> Any:
    """Return an answer's JSON, or None as the recording does for an empty body."""
    return answer.json if answer.body else None


def first_attempts(upstream: Mapping[str, Any]) -> "Counter[str]":
    """Count what the reference sent to Apple and Google, its library's retries left out."""
    apns = {each["device_token"]: _apns(each) for each in reversed(upstream["apns"])}
    fcm = {each["message"]["token"]: _fcm(each["message"]) for each in upstream["fcm"]}
    return Counter([*apns.values(), *fcm.values()])


def _apns(recorded: Mapping[str, Any]) -> str:
    return _line("apns", recorded["device_token"], recorded["topic"], recorded["payload"])


def _fcm(message: Mapping[str, Any]) -> str:
    assert set(message) <= {"token", "data", "android"}
    urgent = message["android"] == {"priority": "high"}
    return _line("fcm", message["token"], urgent, _timeless(message.get("data", {})))


def _timeless(data: Mapping[str, str]) -> Mapping[str, str]:
    """Leave out when a test notification was sent."""
    return {**data, "time": "now"} if data.get("event") == "test" else data


def _line(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True)


def attempts(pushes: list[Push], now: float) -> "Counter[str]":
    """Count what we gave to the lanes, in the same words."""
    return Counter(_push(push, now) for push in pushes)


def _push(push: Push, now: float) -> str:
    device, message = push.device, push.message
    if device.kind is Kind.FCM:
        return _line("fcm", device.token, message.urgent, _timeless(json.loads(message.body)))
    assert message.expiration == int(now) + 86400
    return _line("apns", device.token, device.app_id, json.loads(message.body))


# --- where we differ


@dataclass(frozen=True)
class Deviation:
    """A rule under which our answer to an exchange is another one, on purpose.

    `seen`: the recordings here need it. Others would need the rest.
    """

    name: str
    why: str
    covers: Callable[[Exchange, Answer], bool]
    seen: bool = True


def _fault(exchange: Exchange, answer: Answer) -> bool:
    return bool(exchange["response"]["status"] == 500 and answer.status in (200, 400))


def _no_page(exchange: Exchange, answer: Answer) -> bool:
    return bool(exchange["response"]["status"] == answer.status == 404)


def _junk_in_hostname(exchange: Exchange, answer: Answer) -> bool:
    return answer.status == 400 and "contains invalid components" in answer.json["msg"]


def _hostname_taken(exchange: Exchange, answer: Answer) -> bool:
    return (
        answer.status == 400
        and answer.json.get("code") == "HOSTNAME_ALREADY_IN_USE_BOUNCER_ERROR"
        and answer.json["msg"].endswith(" already exists")
    )


def _method_field(exchange: Exchange, answer: Answer) -> bool:
    request = exchange["request"]
    return "method" in (request.get("form") or {}) and answer.status in (400, 404, 405)


def _kept_elsewhere(exchange: Exchange, answer: Answer) -> bool:
    return exchange["scenario"] == "push-notify/fcm-gone-everywhere" and answer.status == 200


def _other_sender(exchange: Exchange, answer: Answer) -> bool:
    return "SENDER_ID_MISMATCH" in exchange["title"] and answer.status == 200


def _hex_token(exchange: Exchange, answer: Answer) -> bool:
    msg = (exchange["response"]["json"] or {}).get("msg")
    return msg == "Invalid APNS token" and answer.json["msg"] != msg


def _strict_json(exchange: Exchange, answer: Answer) -> bool:
    return answer.status == 400 and answer.json["msg"].endswith(
        ("Malformed JSON", "not valid JSON")
    )


def _case_of_token(exchange: Exchange, answer: Answer) -> bool:
    request = exchange["request"]
    sent = (request.get("form") or {}) | (request.get("json") or {})
    tokens = [sent.get("token", ""), *sent.get("apple_devices", ())]
    capitals = any(isinstance(token, str) and token != token.lower() for token in tokens)
    return (capitals or "case" in exchange["title"]) and answer.status in (200, 400)


DEVIATIONS = [
    Deviation(
        "bad input is 400",
        "The reference faults (500), and servers repeat what can never succeed. We answer 400, or"
        " serve the request where it makes sense (a phone registered twice; no `realm_uri`).",
        _fault,
    ),
    Deviation(
        "404 is JSON", "Servers read `msg` of every 4xx; the reference sends HTML.", _no_page
    ),
    Deviation(
        "a host name is a host",
        "Newer bouncers refuse path, query and fragment, too; user info is as meaningless, and"
        " dangerous where a URL is made of it.",
        _junk_in_hostname,
    ),
    Deviation(
        "a taken host name has a code",
        "10.x servers know HOSTNAME_ALREADY_IN_USE_BOUNCER_ERROR and give advice; older ones"
        " show `msg`, which is the same. Also refused when a known server takes the name.",
        _hostname_taken,
    ),
    Deviation(
        "`method` is no parameter",
        "A form field must not choose what a request does.",
        _method_field,
    ),
    Deviation(
        "a token is dead for who says so",
        "Only a 410 with a time speaks for other servers, or one server could delete another's"
        " phones. Google gives no time.",
        _kept_elsewhere,
    ),
    Deviation(
        "SENDER_ID_MISMATCH is for ever",
        "The token belongs to another Firebase project; the reference pushes to it again and"
        " again, and Google counts that.",
        _other_sender,
    ),
    Deviation(
        "Apple's tokens are hexadecimal",
        "Newer bouncers take any hexadecimal text, 9.x takes base64; we take what either takes.",
        _hex_token,
        seen=False,
    ),
    Deviation(
        "JSON is what RFC 8259 says",
        "NaN and infinities are no JSON, and Apple and Google refuse what is made of them.",
        _strict_json,
        seen=False,
    ),
    Deviation(
        "Apple's tokens have no case",
        "As in newer bouncers, or one phone is pushed to twice.",
        _case_of_token,
        seen=False,
    ),
]
