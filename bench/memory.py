"""Does memory stay flat? Millions of pushes through one lane and one connection, and its size.

    python -m bench.memory [--pushes 5000000] [--size 600] [--within 0.10]

HAProxy in Apple's place, as in bench.link, but with the whole lane: calls of twenty pushes of fifty
servers, each push with a device of its own. Five million of 600 bytes are 3 GB on one connection,
beyond what its window could hold (2 GiB) if it were never widened. Exits with status 1 if the
process grew by more than `--within`, from a twentieth of the way on.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed

from bench.apns_by_haproxy import haproxy
from bouncerd.apns import Apns
from bouncerd.lane import Lane
from bouncerd.ledger import End
from bouncerd.model import Device, Gone, Kind, Message, Push
from bouncerd.patience import APNS_PATIENCE
from bouncerd.pool import Pool
from bouncerd.providers import APNS_MANNERS
from bouncerd.routes import Routes

reactor: Any = _reactor
PAGE = resource.getpagesize()
CALL = 20  # pushes
KEPT = 2_000  # waiting or in flight
SAMPLES = 40


class Flow:
    """Keeps a lane busy, and looks at the process now and then."""

    def __init__(self, lane: Lane, pushes: int, size: int) -> None:
        self.lane = lane
        self.samples: list[float] = []  # MiB
        self._routes = Routes({None: lane}, {})
        self._pushes = pushes
        self._message = Message(Kind.APNS, b"{" + b" " * (size - 2) + b"}", push_type="alert")
        self._next = 0
        self._began = time.monotonic()

    def note(self, _push: Push, _kind: str, _reason: str) -> None:
        """Hear of an end: bring more."""
        done = sum(self.lane.ledger.ends.values())
        if done % (self._pushes // SAMPLES) == 0:
            self._look(done)
        if done == self._pushes:
            reactor.callLater(0, reactor.stop)
        elif done % CALL == 0 and self.lane.waiting <= KEPT:
            reactor.callLater(0, self.fill)

    def fill(self) -> None:
        """Bring calls while there is room."""
        while self.lane.waiting < KEPT and self._next < self._pushes:
            server = f"server {self._next // CALL % 50}"
            self._routes.admit(server, [self._push(server) for _ in range(CALL)])

    def _push(self, server: str) -> Push:
        number = self._next
        self._next += 1
        device = Device(number, Kind.APNS, f"{number:064x}", "org.example.app", 0.0)
        push_id = f"{number:08x}-0000-4000-8000-000000000000"
        return Push(push_id, server, device, self._message, time.time() + 600.0)

    def _look(self, done: int) -> None:
        mebibytes = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20
        self.samples.append(mebibytes)
        rate = done / (time.monotonic() - self._began)
        print(f"{done:>9,} pushes  {mebibytes:6.1f} MiB  {rate:7,.0f}/s", flush=True)


def _forget(_push: Push, _gone: Gone, _sent_at: float) -> Deferred[None]:
    return succeed(None)


def _flow(connect: Callable[..., Any], pushes: int, size: int) -> Flow:
    pool = Pool("apns", connect, APNS_MANNERS, 1, reactor, Random(1))
    flows: list[Flow] = []
    lane = Lane(
        Apns("apns", "localhost", None), pool, reactor, time.time, Random(2), _forget,
        limit=100_000, keep_for=600.0, patience=APNS_PATIENCE,
        note=lambda *what: flows[0].note(*what),  # noqa: PLW0108 -- there is none yet
    )  # fmt: skip
    flows.append(Flow(lane, pushes, size))
    pool.start(lane)
    return flows[0]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=5_000_000)
    parser.add_argument("--size", type=int, default=600)
    parser.add_argument("--within", type=float, default=0.10)
    asked = parser.parse_args()
    os.sched_setaffinity(0, {0})
    with tempfile.TemporaryDirectory() as directory, haproxy(Path(directory), 1) as running:
        endpoint = running.endpoint(reactor)
        flow = _flow(endpoint.connect, asked.pushes, asked.size)
        reactor.callWhenRunning(flow.fill)
        reactor.run()
    ends = {end.value: count for end, count in flow.lane.ledger.ends.items() if count}
    settled = flow.samples[SAMPLES // 20 :]
    grown = max(settled) / settled[0] - 1
    print(f"{ends}; from {settled[0]:.1f} to at most {max(settled):.1f} MiB: {grown:+.1%}")
    if ends != {End.DELIVERED.value: asked.pushes} or grown > asked.within:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
