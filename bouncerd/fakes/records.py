"""What the fakes saw: requests, connections, and the rules that a client broke.

The fakes are a test product: what they record is content, and is meant to be looked at. It
never leaves the process that asserts on it, or the operator's own screen.
"""

import json
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SPACING = 0.99  # seconds between two connections at least; clocks and networks are not exact

Field = tuple[bytes, bytes, bool]  # name, value, whether it came as "never indexed"


@dataclass(slots=True, eq=False)
class Received:
    """One request: where and when it came in, what it said, and what became of it.

    `at` and `answered_at` are the clock's seconds. `token` and `topic` are filled in by the
    service that reads the request. `verdict` is "" while nothing was answered, then the status
    and reason ("200", "410 Unregistered"), "reset CODE", "dropped", "withdrawn" (the client
    reset the stream) or "ignored" (above a GOAWAY's last stream: not looked at).
    """

    connection: int
    stream: int
    at: float
    fields: tuple[Field, ...]
    body: bytes = b""
    token: str = ""
    topic: str = ""
    verdict: str = ""
    answered_at: float | None = None
    said: tuple[tuple[str, str], ...] = ()  # the answer's headers, those of every answer excepted

    def header(self, name: bytes) -> bytes | None:
        """Find the first value of a header."""
        return next((value for key, value, _ in self.fields if key == name), None)

    def headers(self) -> dict[str, str]:
        """Return all headers as text; of a repeated one, the last value."""
        return {key.decode("latin-1"): value.decode("latin-1") for key, value, _ in self.fields}

    def never_indexed(self, name: bytes) -> bool:
        """Tell whether a header is there and came with the "never indexed" bit."""
        flags = [flag for key, _, flag in self.fields if key == name]
        return bool(flags) and all(flags)

    @property
    def path(self) -> str:
        """The request's `:path`."""
        return (self.header(b":path") or b"").decode("latin-1")

    @property
    def accepted(self) -> bool:
        """Whether the answer was a 200."""
        return self.verdict == "200"

    def json(self) -> Any:
        """Parse the body; raises ValueError if it is not JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that a well-behaved client does not do; `rule` is from a fixed vocabulary."""

    rule: str
    connection: int
    stream: int
    at: float
    detail: str = ""


@dataclass(slots=True, eq=False)
class Visit:
    """One connection from accept to loss."""

    number: int
    opened_at: float
    closed_at: float | None = None
    protocol: str | None = None  # what ALPN settled on; None without ALPN or without TLS
    client_settings: dict[int, int] = field(default_factory=dict)
    streams: int = 0
    open_streams: int = 0
    most_streams: int = 0  # at once
    pings: int = 0
    settings_acks: int = 0
    goaway_sent: list[int] = field(default_factory=list)  # the last_stream_id of each
    goaway_received: bool = False


class Ledger:
    """Everything a fake saw. Tests fail on `violations`; `remarks` are only worth knowing.

    Remarks are what retries and restarts may well do: the same `apns-id` seen twice, two
    connections within a second (with `one_client` that is a violation: there are no others).
    `keep` bounds `received` for a fake that runs for days.
    """

    one_client = False

    def __init__(self, keep: int | None = None) -> None:
        self.received: deque[Received] = deque(maxlen=keep)
        self.violations: deque[Violation] = deque(maxlen=keep)
        self.remarks: deque[Violation] = deque(maxlen=keep)
        self.visits: deque[Visit] = deque(maxlen=keep)
        self.seen = 0  # requests ever, also those no longer kept
        self.watch: Callable[[Received], None] | None = None  # told of each once it is answered

    def visit(self, now: float) -> Visit:
        """Open the record of a new connection."""
        if self.visits and now - self.visits[-1].opened_at < SPACING:
            number = self.visits[-1].number + 1
            listed = self.violations if self.one_client else self.remarks
            listed.append(Violation("connected again within a second", number, 0, now))
        visit = Visit(self.visits[-1].number + 1 if self.visits else 1, now)
        self.visits.append(visit)
        return visit

    def receive(self, received: Received) -> None:
        """Add a request whose headers are in; its body may still be on its way."""
        self.seen += 1
        self.received.append(received)

    def settle(self, received: Received, verdict: str, now: float) -> bool:
        """Note what a request was answered; False, and nothing noted, if it was before."""
        if received.verdict:
            return False
        received.verdict, received.answered_at = verdict, now
        if self.watch is not None:
            self.watch(received)
        return True

    def violate(self, rule: str, visit: Visit, stream: int, now: float, detail: str = "") -> None:
        """Note that a client broke a rule."""
        self.violations.append(Violation(rule, visit.number, stream, now, detail))

    def remark(self, rule: str, visit: Visit, stream: int, now: float, detail: str = "") -> None:
        """Note something unusual but allowed."""
        self.remarks.append(Violation(rule, visit.number, stream, now, detail))

    def rules_broken(self) -> list[str]:
        """Name each broken rule once, in alphabetical order: what a test asserts to be empty."""
        return sorted({violation.rule for violation in self.violations})

    def accepted(self) -> list[Received]:
        """List the requests answered 200."""
        return [received for received in self.received if received.accepted]

    def verdicts(self) -> Counter[str]:
        """Count the requests by what they were answered."""
        return Counter(received.verdict for received in self.received)
