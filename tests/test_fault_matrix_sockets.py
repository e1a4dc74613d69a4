"""What only sockets can show (apns.md 7.3: C4, W2, X2), over real TLS on loopback."""

import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.task import deferLater

from bouncerd.apns import Apns
from bouncerd.endings import Answered, Ending
from bouncerd.fakes.apns import CERTIFICATE
from bouncerd.fakes.apns import Apns as Apple
from bouncerd.fakes.credentials import Credentials, make
from bouncerd.fakes.door import Gate
from bouncerd.fakes.steps import Slow
from bouncerd.fakes.swift import Swift
from bouncerd.http2 import Request, Template
from bouncerd.lane import Lane
from bouncerd.ledger import End
from bouncerd.link import Manners
from bouncerd.model import Gone, Push
from bouncerd.patience import Patience
from bouncerd.pool import Pool
from bouncerd.routes import Routes
from bouncerd.tls import client_options
from tests.matrix import shows
from tests.memory import a_push

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

reactor: Any = _reactor
MANNERS = Manners(answer_within=30, quiet=15)


class Site:
    """A server on loopback, and what reaches it."""

    def __init__(self, directory: Path, server: Any) -> None:
        self.made: Credentials = make(directory)
        self.port = reactor.listenSSL(0, server, self.made.context(), interface="127.0.0.1")
        self.gate = Gate(reactor, self.port)
        self.pools: list[Pool] = []

    def pool(self, size: int = 1, manners: Manners = MANNERS) -> Pool:
        """Make a pool to it."""
        options = client_options("localhost", (b"h2",), self.made.ca_file.read_bytes())
        address = HostnameEndpoint(reactor, "127.0.0.1", self.gate.number, timeout=10)
        connect = wrapClientTLS(options, address).connect
        self.pools.append(Pool("apns", connect, manners, size, reactor, Random(1)))
        return self.pools[-1]

    def lane(self, pool: Pool) -> Lane:
        """Make a lane to it."""
        return Lane(
            Apns("apns", "localhost", None), pool, reactor, time.time, Random(2), _forget,
            limit=100_000, keep_for=600.0, patience=Patience(first=0.1, cut_off=0.0),
        )  # fmt: skip

    async def close(self) -> None:
        """Hang up on everybody."""
        for pool in self.pools:
            await pool.stop()
        await self.gate.refuse()


def _forget(_push: Push, _gone: Gone, _sent_at: float) -> "Deferred[None]":
    raise AssertionError("no phone is gone")


async def until(fact: Callable[[], object], within: float = 20.0) -> None:
    """Wait until something is so."""
    by = time.monotonic() + within
    while not fact():
        assert time.monotonic() < by, "it did not come to pass"
        await deferLater(reactor, 0.02)


@shows("C4")
@pytest_twisted.ensureDeferred
async def test_a_port_that_refuses_and_opens(tmp_path: Path) -> None:
    """Connections are refused by the kernel, then taken: what waited is delivered."""
    apple = Apple(reactor, mode=CERTIFICATE, latency=(0, 0))
    site = Site(tmp_path, apple)
    await site.gate.refuse()
    pool = site.pool()
    lane = site.lane(pool)
    pool.start(lane)
    call = Routes({None: lane}, {}).admit("s1", [_sized(1, b"{}")])
    await until(lambda: call.settled.called)
    assert lane.ledger.ends[End.DELIVERED] == 0
    await until(lambda: "refused" in pool.state().why)
    site.gate.welcome()
    await until(lambda: lane.ledger.ends[End.DELIVERED] == 1)
    assert apple.ledger.rules_broken() == []
    await site.close()


@shows("C4")
@pytest_twisted.ensureDeferred
async def test_a_server_that_accepts_late(tmp_path: Path) -> None:
    """The kernel lets us knock, the server opens later: one connection waits, no second knocks."""
    apple = Apple(reactor, mode=CERTIFICATE, latency=(0, 0))
    site = Site(tmp_path, apple)
    site.gate.leave_waiting(1.5)
    pool = site.pool()
    lane = site.lane(pool)
    pool.start(lane)
    Routes({None: lane}, {}).admit("s1", [_sized(1, b"{}")])
    await deferLater(reactor, 0.5)
    assert lane.ledger.ends[End.DELIVERED] == 0
    await until(lambda: lane.ledger.ends[End.DELIVERED] == 1)
    assert len(apple.ledger.visits) == 1
    await site.close()


@shows("W2")
@pytest_twisted.ensureDeferred
async def test_a_small_buffer_read_slowly(tmp_path: Path) -> None:
    """A server that drains a small buffer slowly gets everything, once, and our memory is bounded.

    What Twisted would buffer beyond the socket stays unsent in the lane.
    """
    apple = Apple(reactor, mode=CERTIFICATE, latency=(0, 0))
    site = Site(tmp_path, apple)
    pool = site.pool()
    lane = site.lane(pool)
    pool.start(lane)
    await until(lambda: pool.ready)
    apple.tell(Slow(400_000, 32_768))
    body = b"{" + b" " * 4_000 + b"}"
    pushes = [_sized(number, body) for number in range(200)]
    Routes({None: lane}, {}).admit("s1", pushes)
    await deferLater(reactor, 0.3)
    assert lane.ledger.ends[End.DELIVERED] < 200
    await until(lambda: lane.ledger.ends[End.DELIVERED] == 200, 40.0)
    assert len(apple.ledger.accepted()) == 200
    assert apple.ledger.rules_broken() == []
    await site.close()


@shows("X2")
@pytest_twisted.ensureDeferred
async def test_fifty_connections(tmp_path: Path) -> None:
    """Fifty connections at once; on two of them a thousand streams, also at once."""
    swift = Swift()
    site = Site(tmp_path, swift)
    swift.answering = False
    loads = [Load(site.pool(), 20 if number > 1 else 1_000, 1_000) for number in range(50)]
    for load in loads:
        load.pool.start(load)
    await until(lambda: swift.most_connections == 50, 30.0)
    await until(lambda: all(load.sent == 1_000 for load in loads[:2]), 30.0)
    await until(lambda: swift.most_streams == 1_000, 30.0)
    swift.release()
    await until(lambda: all(load.answered == load.pushes for load in loads), 60.0)
    assert swift.requests == 2_960
    await site.close()


@shows("X2")
@pytest_twisted.ensureDeferred
async def test_the_rate(tmp_path: Path) -> None:
    """Both ends together, in one process on one core, do well over 2,500 pushes a second of CPU.

    So the server alone does over 5,000: it does the smaller part of the work.
    """
    swift = Swift()
    site = Site(tmp_path, swift)
    load = Load(site.pool(), 10_000, 200)
    began = time.process_time()
    load.pool.start(load)
    await until(lambda: load.answered == 10_000, 60.0)
    rate = 10_000 / (time.process_time() - began)
    assert rate > 2_500, rate
    await site.close()


class Load:
    """Keeps requests in flight, and counts answers."""

    def __init__(self, pool: Pool, pushes: int, streams: int) -> None:
        self.pool = pool
        self.pushes = pushes
        self.sent = self.answered = 0
        self._streams = streams
        self._template = Template("localhost", [("apns-topic", "org.example.app")])

    def pump(self) -> None:
        """Fill up."""
        while self.sent < self.pushes and self.sent - self.answered < self._streams:
            link = self.pool.pick()
            if link is None:
                return
            own = ((b"apns-id", b"7b1f0e6f-7b5c-4b43-9f1a-64f1d7a6b111"),)
            path = b"/3/device/%064x" % self.sent
            link.send(Ear(self), Request(self._template, path, own, b"{}"))
            self.sent += 1

    def no_link(self) -> None:
        """Mind nothing."""


class Ear:
    """The ticket of one request."""

    __slots__ = ("load",)

    def __init__(self, load: Load) -> None:
        self.load = load

    def ended(self, ending: Ending) -> None:
        """Count it."""
        assert isinstance(ending, Answered)
        self.load.answered += 1


def _sized(number: int, body: bytes) -> Push:
    push = a_push(f"{number:08x}")
    message = type(push.message)(push.message.kind, body)
    return Push(push.id, push.server, push.device, message, time.time() + 600.0)
