"""The admin port: what was received, and rules at run time, as JSON over plain HTTP.

    GET    /received?provider=apns&since=0   requests from the given number on, oldest first
    GET    /state                            connections, verdicts, violations, token calls
    POST   /rules     {"provider", "match", "do", "count"}
    DELETE /rules                            all of them
    POST   /tell      {"provider", "do"}     a script for each live connection, now
    POST   /limits    {"provider", "connects", "messages"}   per second; per minute (FCM); null: any
    POST   /clock     {"skew"}               seconds that Apple's and Google's clocks are ahead
    POST   /tokens    {"status", "body", "delay"}   the token endpoint's next answer
    DELETE /tokens                           revoke all access tokens

Loopback only, without authentication.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Request

from bouncerd.fakes.apns import Apns
from bouncerd.fakes.fcm import Fcm
from bouncerd.fakes.front import Front
from bouncerd.fakes.google_tokens import Canned, TokenEndpoint
from bouncerd.fakes.records import Ledger, Received
from bouncerd.fakes.scripting import read_match, read_script


class Control(Resource):
    """The one resource of the admin port."""

    isLeaf = True

    def __init__(self, apns: Apns, fcm: Fcm, tokens: TokenEndpoint) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._apns = apns
        self._fcm = fcm
        self._tokens = tokens
        self._fronts: Mapping[str, Front] = {"apns": apns, "fcm": fcm}
        self._calls: dict[tuple[bytes, bytes], Callable[[Request], Any]] = {
            (b"GET", b"/received"): self._received,
            (b"GET", b"/state"): self._state,
            (b"POST", b"/rules"): self._add_rule,
            (b"DELETE", b"/rules"): self._clear_rules,
            (b"POST", b"/tell"): self._tell,
            (b"POST", b"/limits"): self._set_limits,
            (b"POST", b"/clock"): self._set_clock,
            (b"POST", b"/tokens"): self._script_tokens,
            (b"DELETE", b"/tokens"): self._revoke_tokens,
        }

    def render(self, request: Request) -> bytes:
        """Answer a call: 200 with JSON, 404, or 400 with what was wrong."""
        request.setHeader(b"content-type", b"application/json")
        call = self._calls.get((request.method, request.path))
        try:
            answer = {"error": "no such thing here"} if call is None else call(request)
            request.setResponseCode(404 if call is None else 200)
        except ValueError as error:
            request.setResponseCode(400)
            answer = {"error": str(error)}
        return json.dumps(answer, indent=1).encode() + b"\n"

    def _received(self, request: Request) -> Any:
        since = int(_argument(request, b"since") or 0)
        name = _argument(request, b"provider")
        fronts = {name: self._front({"provider": name})} if name else self._fronts
        return {name: _received(front.ledger, since) for name, front in fronts.items()}

    def _state(self, _: Request) -> Any:
        calls = {"calls": [asdict(call) for call in self._tokens.calls]}
        state = {name: _state(front.ledger) for name, front in self._fronts.items()}
        return state | {"tokens": calls | {"violations": self._tokens.violations}}

    def _add_rule(self, request: Request) -> Any:
        content = _content(request)
        front = self._front(content)
        count = content.get("count")
        front.on(read_match(content.get("match", {})), *read_script(content.get("do")), count=count)
        return {"rules": len(front.rules.listed)}

    def _clear_rules(self, _: Request) -> Any:
        for front in self._fronts.values():
            front.rules.clear()
        return {"rules": 0}

    def _tell(self, request: Request) -> Any:
        content = _content(request)
        front = self._front(content)
        told = len(front.connections)
        front.tell(*read_script(content.get("do")))
        return {"connections": told}

    def _set_limits(self, request: Request) -> Any:
        content = _content(request)
        door = self._front(content).door
        door.most_per_second = content.get("connects")
        if content["provider"] == "fcm":
            self._fcm.quota = content.get("messages")
        return {"busiest_second": door.busiest_second, "turned_away": door.turned_away}

    def _set_clock(self, request: Request) -> Any:
        self._apns.skew = self._tokens.skew = float(_content(request).get("skew", 0))
        return {"skew": self._apns.skew}

    def _script_tokens(self, request: Request) -> Any:
        content = _content(request)
        body = content.get("body", {})
        body = body.encode() if isinstance(body, str) else body
        delay = float(content.get("delay", 0))
        self._tokens.script.append(Canned(int(content.get("status", 500)), body, delay))
        return {"answers": len(self._tokens.script)}

    def _revoke_tokens(self, _: Request) -> Any:
        self._tokens.revoke()
        return {}

    def _front(self, content: Mapping[str, Any]) -> Front:
        """Find the fake that a call is about; raises ValueError."""
        front = self._fronts.get(str(content.get("provider")))
        if front is None:
            raise ValueError("`provider` is apns or fcm")
        return front


def describe(received: Received) -> dict[str, Any]:
    """Return a request as JSON can say it, body included."""
    return {
        "connection": received.connection,
        "stream": received.stream,
        "at": received.at,
        "answered_at": received.answered_at,
        "verdict": received.verdict,
        "token": received.token,
        "topic": received.topic,
        "headers": received.headers(),
        "body": received.body.decode("utf-8", "replace"),
    }


def _received(ledger: Ledger, since: int) -> list[dict[str, Any]]:
    """List requests from number `since` (from 0) on, as far as they are still kept."""
    first = ledger.seen - len(ledger.received)
    return [describe(one) for one in list(ledger.received)[max(since - first, 0) :]]


def _state(ledger: Ledger) -> dict[str, Any]:
    return {
        "received": ledger.seen,
        "verdicts": ledger.verdicts(),
        "connections": [asdict(visit) for visit in ledger.visits],
        "violations": [asdict(violation) for violation in ledger.violations],
        "remarks": [asdict(remark) for remark in ledger.remarks],
    }


def _content(request: Request) -> dict[str, Any]:
    """Parse a request's body; raises ValueError."""
    content = json.load(request.content) if request.content is not None else None
    if not isinstance(content, dict):
        raise ValueError("the body is a JSON object")
    return content


def _argument(request: Request, name: bytes) -> str:
    value: bytes = (request.args or {}).get(name, [b""])[0]
    return value.decode("latin-1")
