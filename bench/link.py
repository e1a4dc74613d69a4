"""How many pushes a link alone carries, in pushes per second of its own CPU time.

    python -m bench.link [--pushes 200000] [--streams 100] [--connections 1]

One process on CPU 0, HAProxy in Apple's place on CPU 1. A push is a POST to /3/device/<64 hex>
with five fields, a 200-byte token among them, and 600 bytes of body; a given number is kept in
flight.
"""

import argparse
import gc
import os
import resource
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor as _reactor

from bench.apns_by_haproxy import haproxy
from bouncerd.endings import Answered, Ending
from bouncerd.http2 import Request, Template
from bouncerd.link import Manners
from bouncerd.pool import Pool

reactor: Any = _reactor


class Load:
    """Keeps requests in flight, and counts answers."""

    def __init__(self, pool: Pool, pushes: int, streams: int) -> None:
        self.pool = pool
        self.pushes = pushes
        self.streams = streams
        self.sent = self.answered = 0
        self.began = self.cpu = 0.0
        fields = [
            ("authorization", "bearer " + "j" * 200),
            ("apns-topic", "org.example.app"),
            ("apns-push-type", "alert"),
        ]
        self.template = Template("localhost:19443", fields)
        self.body = bytes(600)

    def pump(self) -> None:
        """Fill up."""
        if not self.began:
            self.began, self.cpu = time.monotonic(), _cpu()
        while self.sent < self.pushes and self.sent - self.answered < self.streams:
            link = self.pool.pick()
            if link is None:
                return
            token = b"%064x" % self.sent
            own = (
                (b"apns-id", b"7b1f0e6f-7b5c-4b43-9f1a-64f1d7a6b111"),
                (b"apns-expiration", b"1"),
            )
            link.send(Ear(self), Request(self.template, b"/3/device/" + token, own, self.body))
            self.sent += 1

    def no_link(self) -> None:
        """Say so: the figures mean nothing then."""
        if self.answered < self.pushes:
            print("the link was lost")


class Ear:
    """The ticket of one push."""

    __slots__ = ("load",)

    def __init__(self, load: Load) -> None:
        self.load = load

    def ended(self, ending: Ending) -> None:
        """Count it."""
        assert isinstance(ending, Answered)
        assert ending.response.status == 200
        load = self.load
        load.answered += 1
        if load.answered == load.pushes:
            cpu, wall = _cpu() - load.cpu, time.monotonic() - load.began
            print(
                f"{load.pushes} pushes, {load.streams} streams: {load.pushes / cpu:,.0f} per"
                f" CPU-second ({1e6 * cpu / load.pushes:.1f} us each), {load.pushes / wall:,.0f}/s"
            )
            reactor.stop()


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=200_000)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--connections", type=int, default=1)
    asked = parser.parse_args()
    os.sched_setaffinity(0, {0})
    with tempfile.TemporaryDirectory() as directory, haproxy(Path(directory), 1) as running:
        endpoint = running.endpoint(reactor)
        manners = Manners(answer_within=30, quiet=15)
        pool = Pool("apns", endpoint.connect, manners, asked.connections, reactor, Random(1))
        load = Load(pool, asked.pushes, asked.streams)
        gc.freeze()
        reactor.callWhenRunning(pool.start, load)
        reactor.callLater(120, reactor.stop)
        reactor.run()


if __name__ == "__main__":
    main()
