"""A bad day at Apple's in full size: 20,000 pushes of 50 servers, over real TLS."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.task import LoopingCall, deferLater

from bouncerd.fakes.credentials import Credentials, make
from bouncerd.tls import client_options
from tests.faults import LATE
from tests.onslaught import onslaught
from tests.scenes import AppleScene

reactor: Any = _reactor
PUSHES = 20_000


class RealScene(AppleScene):
    """The scene on sockets, in real time: the books are looked at each 10 ms."""

    def __init__(self, made: Credentials, **others: Any) -> None:
        self.made = made
        super().__init__(**others)

    def build_clock(self) -> Any:
        """Use the reactor's."""
        return reactor

    def build_network(self, tls: Any) -> Any:
        """Listen, and dial."""
        context = self.made.context()
        self.port = self.front.listen(reactor, context)
        options = client_options("localhost", (b"h2",), self.made.ca_file.read_bytes())
        host: Any = self.port.getHost()
        number = host.port
        address = HostnameEndpoint(reactor, "127.0.0.1", number, timeout=10)
        return SimpleNamespace(connect=wrapClientTLS(options, address).connect)

    def now(self) -> float:
        """Tell the real time."""
        return time.time()


@pytest_twisted.ensureDeferred
async def test_twenty_thousand(tmp_path: Path) -> None:
    """0 unaccounted; unknown and twice only where nobody could know; the books balance."""
    scene = RealScene(make(tmp_path), size=2, limit=PUSHES)
    scene.excuses |= LATE
    scene.start()
    books = LoopingCall(scene.check)
    books.start(0.01)
    began = time.monotonic()
    for seconds in onslaught(scene, PUSHES):
        await deferLater(reactor, seconds)
        assert time.monotonic() < began + 300.0, scene.lane.waiting
    books.stop()
    await scene.lane.stop(10.0)
    await scene.pool.stop()
    await maybeDeferred(scene.port.stopListening)
    scene.judge()
    shown = len(scene.shown())
    twice = shown - len({scene.identity(each) for each in scene.shown()})
    print(  # noqa: T201 - the figures are what it is for
        f"{scene.accepted} pushes in {time.monotonic() - began:.0f} s on"
        f" {len(scene.front.ledger.visits)} connections: {dict(scene.totals())}; {twice} shown"
        f" twice; {dict(scene.retries)} retries"
    )
    assert scene.accepted == PUSHES
