"""Apple's push service, as a provider sees it (apns.md sections 2 to 5 and 7)."""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from twisted.internet.interfaces import IReactorTime

from bouncerd.fakes import frames
from bouncerd.fakes.apns_checks import (
    DEVICE_PATH,
    Lines,
    Problem,
    bundle_id,
    check_form,
    check_payload,
)
from bouncerd.fakes.apns_session import ORDINARY_STREAMS, Circumstances, Session
from bouncerd.fakes.bearers import Bearers, Key
from bouncerd.fakes.certificates import read_use
from bouncerd.fakes.exchange import Exchange
from bouncerd.fakes.front import Front
from bouncerd.fakes.records import Ledger, Received
from bouncerd.fakes.server import Connection
from bouncerd.fakes.steps import Close, GoAway, Headers, Respond, Script

TOKEN, CERTIFICATE, EITHER = "token", "certificate", "either"  # what authenticates a client


def refuse(status: int, reason: str, timestamp: int | None = None, **details: Any) -> Respond:
    """Make the step that refuses as Apple does; `timestamp` in ms, `details` as in `Respond`."""
    body: dict[str, object] = {"reason": reason}
    if timestamp is not None:
        body["timestamp"] = timestamp
    return Respond(
        status,
        (("content-type", "application/json"),),
        json.dumps(body, separators=(",", ":")).encode(),
        name=f"{status} {reason}",
        **details,
    )


def goaway(reason: str, last_stream: int | None = None, code: int = frames.NO_ERROR) -> GoAway:
    """Make the step that sends GOAWAY with a reason as Apple words it."""
    return GoAway(last_stream, code, json.dumps({"reason": reason}).encode())


REMEMBERED = 100_000  # push ids, to know one that comes again by
ACCEPT: Script = (Respond(200),)
GONE_PREFIX = "aa410"  # 410 Unregistered, as of now

# What tokens with these beginnings are answered, as in the recorded exchanges of the reference.
PREFIXES: Mapping[str, Script] = {
    "aa40b": (refuse(400, "BadDeviceToken"),),
    "aa40d": (refuse(400, "DeviceTokenNotForTopic"),),
    "aa40c": (refuse(400, "TopicDisallowed"),),
    "aa429": (refuse(429, "TooManyRequests"),),
    "aa500": (refuse(500, "InternalServerError"),),
    "aa503": (refuse(503, "ServiceUnavailable"),),
    "aa403": (refuse(403, "ExpiredProviderToken"),),
    "aa413": (refuse(413, "PayloadTooLarge"),),
    "aa0c1": (Close("abort"),),
}


@cache
def _refusal(problem: Problem) -> Script:
    return (refuse(*problem),)


@dataclass(frozen=True, slots=True)
class Declared:
    """A device token known to the fake; `unregistered_at` in unix seconds, None while alive."""

    topic: str
    environment: str
    unregistered_at: float | None = None


@dataclass(slots=True)
class Temper:
    """How strict Apple is today.

    `topics`: the bundle ids that credentials may push to (None: any). `strict_tokens`: refuse
    tokens that were not declared. `throttle_on_reject`: one stream only after a refusal, until
    the next success. `wedge`: after one expired provider token a connection answers 500 for
    ever. `prefixes`: obey the token prefixes of the recorded exchanges.
    """

    topics: frozenset[str] | None = None
    strict_tokens: bool = False
    throttle_on_reject: bool = False
    wedge: bool = True
    prefixes: bool = True


class Apns(Front):
    """A stand-in for `api.push.apple.com`, or with `sandbox` for its sandbox.

    `mode` says what a client proves itself with: "token", "certificate" or "either". `now` is
    the wall clock in unix seconds; set `skew` to move Apple's away from it. Without TLS there
    is no certificate to ask for: the mode "certificate" then takes anyone.
    """

    name = "apns"

    def __init__(
        self,
        clock: IReactorTime,
        *,
        mode: str = TOKEN,
        sandbox: bool = False,
        keys: tuple[Key, ...] = (),
        now: Callable[[], float] = time.time,
        latency: tuple[float, float] = (0.020, 0.080),
        seed: int = 0,
        temper: Temper | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(clock, latency=latency, seed=seed, ledger=ledger)
        self.mode = mode
        self.environment = "sandbox" if sandbox else "production"
        self.skew = 0.0
        self.temper = temper or Temper()
        self.bearers = Bearers(keys)
        self.declared: dict[str, Declared] = {}
        self._now = now
        self._seen_ids: set[bytes] = set()

    def now(self) -> float:
        """Tell the time by Apple's clock, in unix seconds."""
        return self._now() + self.skew

    def declare(
        self, token: str, topic: str, environment: str = "", unregistered_at: float | None = None
    ) -> None:
        """Make a device token known: its app, its environment, since when it is dead."""
        self.declared[token] = Declared(topic, environment or self.environment, unregistered_at)

    # -- what connections call

    def opened(self, connection: Connection) -> None:
        """Begin with an empty session."""
        connection.session = Session()

    def secured(self, connection: Connection) -> None:
        """Read the client's certificate; turn away one of the other environment."""
        if self.mode == TOKEN:
            return
        use = connection.session.certificate = read_use(connection.transport)
        if use is not None and self.environment not in use.environments:
            turned_away = (goaway("BadCertificateEnvironment", 0), Close("fin"))
            connection.play(turned_away, Exchange(connection))

    def first_settings(self, connection: Connection) -> Mapping[int, int]:
        """Return Apple's SETTINGS: with provider tokens, one stream until the first success."""
        connection.session.limit = ORDINARY_STREAMS if self.mode == CERTIFICATE else 1
        return {
            frames.HEADER_TABLE_SIZE: 4096,
            frames.MAX_CONCURRENT_STREAMS: connection.session.limit,
            frames.INITIAL_WINDOW_SIZE: 65535,
            frames.MAX_FRAME_SIZE: 16384,
            frames.MAX_HEADER_LIST_SIZE: 8000,
        }

    def echo(self, received: Received) -> Headers:
        """Return `apns-id`, and in the sandbox `apns-unique-id` too."""
        push_id = received.header(b"apns-id")
        line = ("apns-id", push_id.decode("latin-1") if push_id else self._uuid())
        if self.environment == "sandbox":
            return (line, ("apns-unique-id", self._uuid()))
        return (line,)

    def settled(self, connection: Connection, received: Received) -> None:
        """Raise the limit after a success; lower it after a refusal if so minded."""
        session, verdict = connection.session, received.verdict
        if verdict == "200":
            wanted = ORDINARY_STREAMS
        elif self.temper.throttle_on_reject and verdict[0] in "45" and verdict[:3] != "410":
            wanted = 1
        else:
            return
        if wanted != session.limit:
            session.limit = wanted
            connection.send_settings({frames.MAX_CONCURRENT_STREAMS: wanted})

    def judge(self, connection: Connection, received: Received) -> Script:
        """Read a push and answer it by the book."""
        lines = {name: value for name, value, _ in received.fields}
        path = lines.get(b":path", b"")
        if path.startswith(DEVICE_PATH):
            received.token = path[len(DEVICE_PATH) :].decode("latin-1")
        received.topic = lines.get(b"apns-topic", b"").decode("latin-1")
        self._watch(connection, received, lines)
        problem = (
            check_form(
                lines,
                doubled=len(lines) != len(received.fields),
                topic_needed=connection.session.certificate is None,
            )
            or self._check_sender(connection, received, lines)
            or self._check_device(connection, received, lines)
            or check_payload(lines, received.body)
        )
        if problem is not None:
            if problem.status == 413:
                self.violate("payload too large", connection, received)
            return _refusal(problem)
        return self._accept(received.token)

    def _check_sender(
        self, connection: Connection, received: Received, lines: Lines
    ) -> Problem | None:
        """Ask for a provider token, unless a certificate stands in its place."""
        session: Session = connection.session
        if session.certificate is not None or self.mode == CERTIFICATE:
            return None
        return session.check_bearer(
            lines.get(b"authorization"),
            Circumstances(
                self.bearers,
                self.environment,
                self.temper.wedge,
                self.now(),
                self.clock.seconds(),
                bundle_id(lines, received.topic),
                lambda rule: self.violate(rule, connection, received),
            ),
        )

    def _check_device(
        self, connection: Connection, received: Received, lines: Lines
    ) -> Problem | None:
        """Compare the push with what is known of its device and its app."""
        topic = bundle_id(lines, received.topic)
        use = connection.session.certificate
        if use is not None:
            topic = topic or use.bundle_id
        allowed = self.temper.topics if use is None else frozenset((use.bundle_id,))
        if allowed is not None and topic not in allowed:
            return Problem(400, "TopicDisallowed" if use is None else "BadTopic")
        device = self.declared.get(received.token)
        if device is None:
            return Problem(400, "BadDeviceToken") if self.temper.strict_tokens else None
        if device.environment != self.environment:
            return Problem(400, "BadDeviceToken")
        if device.topic != topic:
            return Problem(400, "DeviceTokenNotForTopic")
        if device.unregistered_at is not None:
            return Problem(410, "Unregistered", round(device.unregistered_at * 1000))
        return None

    def _accept(self, token: str) -> Script:
        """Accept a push, or treat it as the beginning of its token says."""
        if not self.temper.prefixes:
            return ACCEPT
        if token.startswith(GONE_PREFIX):
            return (refuse(410, "Unregistered", round(self.now() * 1000)),)
        return PREFIXES.get(token[:5], ACCEPT)

    def _watch(self, connection: Connection, received: Received, lines: Lines) -> None:
        """Record what a good client does not do, whatever the answer will be."""
        for name, _, hidden in received.fields:
            if not hidden and name in (b":path", b"authorization"):
                self.violate(f"{name.decode()} not never-indexed", connection, received)
        if b"host" in lines and b":authority" in lines:
            self.violate("both host and :authority", connection, received)
        if not received.topic:
            self.violate("topic missing", connection, received)
        push_id = lines.get(b"apns-id")
        if push_id in self._seen_ids:
            self.ledger.remark(
                "apns-id seen before", connection.visit, received.stream, self.clock.seconds()
            )
        elif push_id is not None:
            if len(self._seen_ids) >= REMEMBERED:
                self._seen_ids.clear()
            self._seen_ids.add(push_id)

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))
