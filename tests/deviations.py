"""Where we answer otherwise than the recorded reference, and why: one table, at most 15 rules.

A rule says exactly which difference it allows. What differs in any other way is a mistake of ours.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.recordings import Exchange, endpoint, normalised


@dataclass(frozen=True)
class Difference:
    """One exchange, our answer to it, and what each of us sent to Apple and Google.

    `earlier` names the rules that earlier exchanges of the scenario were covered by.
    """

    exchange: Exchange
    status: int
    ours: Any
    sent: "Counter[str]"
    recorded: "Counter[str]"
    earlier: frozenset[str] = frozenset()

    @property
    def request(self) -> Any:
        return self.exchange["request"]

    @property
    def asked(self) -> Any:
        """The parameters, from wherever they came."""
        return (self.request.get("form") or {}) | (self.request.get("json") or {})

    @property
    def their_status(self) -> int:
        status: int = self.exchange["response"]["status"]
        return status

    @property
    def theirs(self) -> Any:
        return self.exchange["response"]["json"]

    @property
    def their_msg(self) -> str:
        return str((self.theirs or {}).get("msg", ""))

    @property
    def our_msg(self) -> str:
        return str((self.ours or {}).get("msg", ""))

    @property
    def statuses(self) -> tuple[int, int]:
        """Theirs and ours."""
        return self.their_status, self.status

    @property
    def is_none(self) -> bool:
        """Whether there is no difference: same status, same JSON, same first attempts."""
        ours: object = (self.status, normalised(self.ours), self.sent)
        return bool(ours == (self.their_status, normalised(self.theirs), self.recorded))

    def told(self) -> str:
        """Spell it for a report."""
        told = [f"{self.exchange['id']} ({self.exchange['title']})"]
        told.append(f"expected {self.their_status} {json.dumps(self.theirs)}")
        told.append(f"got {self.status} {json.dumps(self.ours)}")
        for count, what in (
            (self.sent - self.recorded, "sent"),
            (self.recorded - self.sent, "not"),
        ):
            told += [f"{what} {line}" for line in count]
        return ", ".join(told)

    def answered_alike_but(self, *members: str) -> bool:
        """Say whether the answers have the same status, and differ in these members at most."""
        one, two = normalised(self.theirs), normalised(self.ours)
        if self.statuses[0] != self.statuses[1] or not isinstance(one, dict):
            return False
        return bool(_without(one, members) == _without(two, members))


def _without(body: Any, members: tuple[str, ...]) -> Any:
    return {name: value for name, value in body.items() if name not in members}


@dataclass(frozen=True)
class Deviation:
    """A rule. `seen`: the recordings here need it; others were recorded as well."""

    name: str
    why: str
    covers: Callable[[Difference], bool]
    seen: bool = True


_SUCCESS = {"result": "success", "msg": ""}


def _fault(each: Difference) -> bool:
    """500 becomes a 400 with a code; nothing is sent."""
    return (
        each.statuses == (500, 400)
        and each.ours["code"] in ("BAD_REQUEST", "REQUEST_VARIABLE_MISSING")
        and not each.sent
    )


def _served(each: Difference) -> bool:
    """500 becomes a plain success, and the one phone gets its one test."""
    return (
        each.statuses == (500, 200)
        and endpoint(each.exchange) == "push/test_notification"
        and each.ours == _SUCCESS
        and each.sent.total() == 1
    )


_NO_SUCH_ENDPOINT = {"result": "error", "msg": "This push bouncer has no such endpoint"}


_OLD_SERVER = {
    "result": "error",
    "msg": "Your plan doesn't allow sending push notifications.",
    "code": "INVALID_ZULIP_SERVER",
}
_NEWER = (
    "push/e2ee/register", "push/e2ee/notify",
    "server/register/transfer", "server/register/verify_challenge",
)  # fmt: skip


def _no_page(each: Difference) -> bool:
    """A 404 gets JSON; an endpoint of later versions says what the request lacks."""
    if each.their_status != 404 or each.theirs is not None:
        return False
    if endpoint(each.exchange) in _NEWER:
        return each.status in (400, 401, 405) and bool(each.ours["result"] == "error")
    return each.status == 404 and bool(each.ours == _NO_SUCH_ENDPOINT)


def _new_server(each: Difference) -> bool:
    """A server that has registered lately, and never uploaded, may push."""
    return (
        each.statuses == (400, 200)
        and endpoint(each.exchange) == "push/notify"
        and each.theirs == _OLD_SERVER
        and each.ours["realm"] is None
    )


def _junk_in_hostname(each: Difference) -> bool:
    msg = f"{each.asked.get('hostname')} contains invalid components (e.g., path, query, fragment)."
    return each.statuses == (200, 400) and each.our_msg == msg


_TAKEN = "HOSTNAME_ALREADY_IN_USE_BOUNCER_ERROR"


def _hostname_taken(each: Difference) -> bool:
    """The same words with another code; or the name of a server that is gone is free again."""
    if endpoint(each.exchange) != "server/register":
        return False
    hostname = each.asked["hostname"]
    taken = {"code": _TAKEN, "hostname": hostname}
    msg = f"A server with hostname {hostname} already exists"
    if each.statuses == (400, 400):
        return each.answered_alike_but(*taken) and taken.items() <= each.ours.items()
    if each.statuses == (400, 200):
        return bool(each.their_msg == msg and "deactivated" in each.exchange["title"])
    # Renamed to a name that another server has.
    return each.statuses == (200, 400) and taken.items() <= each.ours.items()


def _method_field(each: Difference) -> bool:
    """The form's `method` chose what a POST does; to us it is a POST."""
    sent = each.request["method"] == "POST" and "method" in each.asked
    return sent and each.statuses in ((405, 400), (405, 200), (200, 405))


def _host_header(each: Difference) -> bool:
    return (
        each.statuses == (401, 200)
        and each.their_msg == "Invalid subdomain for push notifications bouncer"
    )


_LATER = "later servers may say more"
_MARKS = ("last_realm_count_id", "last_installation_count_id", "last_realmauditlog_id")


def _tolerated(each: Difference) -> bool:
    """A key of a realm, or a statistic, of later versions is passed over; and then known."""
    if endpoint(each.exchange) == "server/analytics/status":
        return _LATER in each.earlier and each.answered_alike_but(*_MARKS)
    if endpoint(each.exchange) != "server/analytics":
        return False
    if each.statuses == (200, 400):
        return _LATER in each.earlier and each.our_msg == "Data is out of order."
    return each.statuses == (400, 200) and each.their_msg.startswith(
        ('Argument "', "Invalid property ")
    )


def _apart_from(each: Difference, *starts: str) -> bool:
    """Say whether all differences of two pushes are about tokens that begin like that."""

    def concerned(text: str) -> bool:
        return text.startswith(starts)

    def rest(body: Any) -> Any:
        kept = _without(body, ("total_android_devices", "total_apple_devices"))
        lists = kept.pop("deleted_devices", {})
        return kept, {
            name: [token for token in tokens if not concerned(token)]
            for name, tokens in lists.items()
        }

    def others(lines: "Counter[str]") -> "Counter[str]":
        return Counter({line: n for line, n in lines.items() if not concerned(_token(line))})

    return (
        endpoint(each.exchange) in ("push/notify", "push/test_notification")
        and each.statuses in ((200, 200), (400, 200), (200, 400))
        and (each.status != each.their_status or rest(each.theirs) == rest(each.ours))
        and others(each.sent) == others(each.recorded)
        and any(concerned(token) for token in _tokens(each))
    )


def _token(line: str) -> str:
    """Name the phone that a line of upstream traffic is for."""
    place, *_, body = json.loads(line)
    return str(body["message"]["token"] if "message" in body else place.removeprefix("/3/device/"))


def _tokens(each: Difference) -> list[str]:
    """Name the phones that an exchange is about."""
    named = [_token(line) for line in [*each.sent, *each.recorded]]
    named += [each.asked.get("token") or ""]
    for name in ("android_devices", "apple_devices"):
        named += each.asked.get(name) or []
    return named


def _dead_elsewhere(each: Difference) -> bool:
    """A token that a provider called dead, without saying since when, for another server."""
    return _apart_from(each, "fcm-unregistered", "aa40b", "aa40d")


def _other_sender(each: Difference) -> bool:
    return _apart_from(each, "fcm-senderid")


def _too_large(each: Difference) -> bool:
    """Only what is over Apple's and Google's 4 KiB is missing."""
    missing = each.recorded - each.sent
    return (
        each.answered_alike_but()
        and not each.sent - each.recorded
        and all(len(_body(line).encode()) > 4096 for line in missing)
    )


def _body(line: str) -> str:
    return json.dumps(json.loads(line)[-1], ensure_ascii=False)


def _hex_token(each: Difference) -> bool:
    """9.x wants base64, later versions want hexadecimal; we take both."""
    token = each.asked.get("token", "")
    return (
        each.statuses == (400, 200)
        and each.their_msg == "Invalid APNS token"
        and set(token.lower()) <= set("0123456789abcdef \t\r\n")
    )


def _strict_json(each: Difference) -> bool:
    """NaN or an infinity, written or as a number too large, was taken for a number."""
    return (
        each.statuses in ((200, 400), (400, 400))
        and each.our_msg.endswith(("Malformed JSON", "is not valid JSON"))
        and each.ours["code"] == "BAD_REQUEST"
        and any(word in json.dumps(each.request) for word in ("NaN", "Infinity", "1e", "\\ud"))
    )


def _case_of_token(each: Difference) -> bool:
    """Two spellings of one of Apple's tokens are one phone."""
    spelled = {token for token in _tokens(each) if token != token.lower()}
    alike = {_token(line).lower() for line in each.sent} == {
        _token(line).lower() for line in each.recorded
    }
    one_phone = endpoint(each.exchange) == "push/notify" and each.answered_alike_but(
        "total_apple_devices", "deleted_devices"
    )
    known = each.statuses == (400, 200) and (
        each.their_msg == "Token does not exist"
        or each.theirs.get("code") == "INVALID_REMOTE_PUSH_DEVICE_TOKEN"
    )
    return bool(spelled) and ((one_phone and alike) or known)


DEVIATIONS = [
    Deviation(
        "bad input is 400",
        "Servers repeat what got a 5xx, and it can never succeed.",
        _fault,
    ),
    Deviation(
        "a test that can be sent is sent",
        "The reference faults where a phone is registered by number and by UUID, and where a"
        " server has `realm_url` and no `realm_uri`. Nothing is wrong with either.",
        _served,
    ),
    Deviation(
        "404 is JSON",
        "Servers read `msg` of every 4xx; it sends HTML. And 9.x has no newer endpoints.",
        _no_page,
    ),
    Deviation(
        "a new server may push",
        "The reference wants an upload first, and says so in words that nobody understands.",
        _new_server,
        seen=False,
    ),
    Deviation(
        "a host name is a host",
        "Newer bouncers refuse path, query and fragment, too; user info is as meaningless, and"
        " dangerous where a URL is made of it.",
        _junk_in_hostname,
    ),
    Deviation(
        "a taken host name has a code",
        "10.x servers give advice by it; older ones show `msg`, which is the same. Also where a"
        " known server takes the name; and a server that is gone holds none, as in newer bouncers.",
        _hostname_taken,
    ),
    Deviation(
        "`method` is no parameter",
        "A form field must not choose what a request does.",
        _method_field,
    ),
    Deviation("Host means nothing", "We serve one thing, whatever name leads to us.", _host_header),
    Deviation(
        _LATER,
        "A refused upload can switch pushes off on a whole server; so a statistic or a key of a"
        " realm that we do not know is passed over.",
        _tolerated,
    ),
    Deviation(
        "a token is dead for who says so",
        "Only a 410 with a time speaks for other servers, or one server could delete another's"
        " phones. Google, and Apple's 400, give no time.",
        _dead_elsewhere,
    ),
    Deviation(
        "SENDER_ID_MISMATCH is for ever",
        "The token belongs to another Firebase project; the reference pushes to it again and"
        " again, and Google counts that.",
        _other_sender,
    ),
    Deviation(
        "what would be refused for its size is not sent",
        "Apple and Google take 4 KiB. The answer is the same.",
        _too_large,
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
