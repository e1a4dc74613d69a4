"""What a lane adds to a push, in microseconds of CPU: taken, given to a link, judged, ended.

    python -m bench.lane [--pushes 200000] [--servers 50] [--in-flight 100]

The link is a stand-in that keeps its tickets and answers each; the clock is a virtual one. What
the caller's side of a push costs (the Call) is in the figure, what the link costs is not.
"""

import argparse
import gc
import time
from collections import deque
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from bouncerd.endings import Answered
from bouncerd.http2 import Request, Response, Template
from bouncerd.lane import Lane
from bouncerd.model import Delivered, Device, Gone, Kind, Message, Outcome, Push
from bouncerd.patience import APNS_PATIENCE
from bouncerd.routes import Routes

_TEMPLATE = Template("localhost", [("apns-topic", "org.example.app")])
_REQUEST = Request(_TEMPLATE, b"/3/device/c0ffee", (), b"{}")
_ANSWER = Response(200, (), b"", True)
_DELIVERED = Delivered()


class Provider:
    """Says yes."""

    name = "apns"
    ready = True

    def session(self, _now: float) -> object:
        """Keep nothing."""
        return self

    def request(self, _session: object, _push: Push, _now: float) -> Request | Outcome:
        """Return the same each time."""
        return _REQUEST

    def outcome(self, _session: object, _push: Push, _answer: Response, _now: float) -> Outcome:
        """Be content."""
        return _DELIVERED

    def goodbye(self, _debug: bytes) -> None:
        """Hear nothing."""


class Link:
    """Keeps tickets."""

    draining = False
    goaway = None

    def __init__(self, size: int) -> None:
        self.session: object = None
        self.useful = True
        self.tickets: deque[Any] = deque()
        self._size = size

    @property
    def free(self) -> int:
        """How much room there is."""
        return self._size - len(self.tickets)

    @property
    def in_flight(self) -> int:
        """How many it holds."""
        return len(self.tickets)

    def send(self, ticket: Any, _request: Request) -> None:
        """Keep it."""
        self.tickets.append(ticket)

    def answer(self, count: int) -> None:
        """Answer the oldest."""
        for _ in range(min(count, len(self.tickets))):
            ticket = self.tickets.popleft()
            ticket.ended(Answered(ticket, _ANSWER))


class Pool:
    """One link."""

    ready = True
    refused = ""

    def __init__(self, size: int) -> None:
        self.link = Link(size)

    def pick(self) -> Link | None:
        """Return it while it has room."""
        return self.link if self.link.free else None

    def wake(self) -> None:
        """Do nothing."""

    def link_useful(self, link: Link) -> None:
        """Do nothing."""


def _forget(_push: Push, _gone: Gone, _sent_at: float) -> Deferred[None]:
    return succeed(None)


def measure(pushes: int, servers: int, in_flight: int) -> float:
    """Return microseconds for each push."""
    clock = Clock()
    pool: Any = Pool(in_flight)
    provider: Any = Provider()
    lane = Lane(
        provider, pool, clock, clock.seconds, Random(1), _forget,
        limit=20_000, keep_for=3600.0, patience=APNS_PATIENCE,
    )  # fmt: skip
    routes = Routes({None: lane}, {})
    device = Device(1, Kind.APNS, "c0ffee", "org.example.app", 0.0)
    message = Message(Kind.APNS, b"{}")
    batches = [
        [Push("0", f"server-{number % servers}", device, message, 86_400.0) for _ in range(3)]
        for number in range(pushes // 3)
    ]
    gc.collect()
    gc.freeze()
    began = time.process_time()
    for number, batch in enumerate(batches):
        routes.admit(batch[0].server, batch)
        if number % 8 == 7:
            pool.link.answer(24)
            lane.pump()
    while lane.waiting:
        pool.link.answer(in_flight)
        lane.pump()
    spent = time.process_time() - began
    assert lane.ledger.accepted == len(batches) * 3
    return 1e6 * spent / lane.ledger.accepted


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=200_000)
    parser.add_argument("--servers", type=int, default=50)
    parser.add_argument("--in-flight", type=int, default=100)
    asked = parser.parse_args()
    rounds = [measure(asked.pushes, asked.servers, asked.in_flight) for _ in range(5)]
    print(f"{asked.pushes} pushes, {asked.servers} servers: {min(rounds):.2f} us each at best")


if __name__ == "__main__":
    main()
