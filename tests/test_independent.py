"""Servers that share no line with us or with h2: nghttpd and HAProxy read what we send.

Both come with Debian; `.ci/run` installs them. Where one is missing its test is skipped.
"""

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.task import deferLater

from bouncerd.endings import Answered, Ending
from bouncerd.fakes.credentials import make
from bouncerd.http2 import Request, Response, Template
from bouncerd.link import Manners
from bouncerd.pool import Pool
from bouncerd.tls import client_options
from tests.house import free_port, reactor

HAPROXY = """
global
    nbthread 1
    tune.h2.max-concurrent-streams 50
defaults
    mode http
    timeout client 30s
    timeout http-request 30s
frontend apns
    bind 127.0.0.1:{port} ssl crt {pem} alpn h2
    http-request wait-for-body time 5s
    http-request return status 400 hdr x-path %[path] hdr x-token %[req.hdr(authorization)] \
hdr x-size %[req.body_size] content-type application/json string '{{"reason":"BadDeviceToken"}}'
"""


class Ears:
    """Counts endings, and says when the last has come."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.endings: list[Ending] = []
        self.all: Deferred[None] = Deferred()

    def ended(self, ending: Ending) -> None:
        """Count."""
        self.endings.append(ending)
        if len(self.endings) == self.expected:
            self.all.callback(None)


class Ticket:
    """One request's ticket."""

    def __init__(self, ears: Ears) -> None:
        self.ended: Callable[[Ending], None] = ears.ended


class Sender:
    """A lodger that sends so many requests, as room comes."""

    def __init__(self, pool: Pool, requests: list[Request]) -> None:
        self.pool = pool
        self.requests = requests
        self.ears = Ears(len(requests))

    def pump(self) -> None:
        """Send what fits."""
        while self.requests:
            link = self.pool.pick()
            if link is None:
                return
            link.send(Ticket(self.ears), self.requests.pop())

    def no_link(self) -> None:
        """Fail: none of these servers may end a connection."""
        if not self.ears.all.called:
            self.ears.all.errback(AssertionError("the connection was lost"))


@contextmanager
def child(*command: str) -> Iterator[None]:
    """Run a server; end it by its id."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


async def exchange(port: int, ca_pem: bytes, sizes: list[int]) -> list[Response]:
    """Send requests with bodies of these sizes; return the answers."""
    template = Template(f"localhost:{port}", [("authorization", "bearer " + "j" * 200)])
    requests = [
        Request(template, b"/3/device/%064x" % number, ((b"apns-id", b"%d" % number),), bytes(size))
        for number, size in enumerate(sizes)
    ]
    options = client_options("localhost", (b"h2",), ca_pem)
    endpoint = wrapClientTLS(options, HostnameEndpoint(reactor, "localhost", port))
    pool = Pool("peer", endpoint.connect, Manners(30, 15), 1, reactor, Random(1))
    sender = Sender(pool, requests)
    pool.start(sender)
    sender.ears.all.addTimeout(30, reactor)
    await sender.ears.all
    await pool.stop()
    await deferLater(reactor, 0)
    assert all(isinstance(ending, Answered) for ending in sender.ears.endings)
    return [each.response for each in sender.ears.endings if isinstance(each, Answered)]


def files(directory: Path) -> tuple[Path, Path, bytes]:
    """Write a server's key and certificate; return them and the CA's certificate."""
    made = make(directory)
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    key.write_bytes(
        made.server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    certificate.write_bytes(made.server_certificate.public_bytes(Encoding.PEM))
    return key, certificate, made.ca_file.read_bytes()


@pytest.mark.skipif(shutil.which("nghttpd") is None, reason="nghttpd is not installed")
@pytest.mark.parametrize("settings", [[], ["-m", "3"], ["-w", "8"], ["-W", "10"], ["-c", "0"]])
@pytest_twisted.ensureDeferred
async def test_nghttpd(tmp_path: Path, settings: list[str]) -> None:
    """nghttp2's server finds no fault: few streams, windows of 255 bytes, no header table."""
    key, certificate, ca_pem = files(tmp_path)
    port = free_port()
    sizes = [0, 1, 600, 4_096, 16_000] * 40
    flags = ["-a", "127.0.0.1", "-d", str(tmp_path), *settings]
    with child("nghttpd", *flags, str(port), str(key), str(certificate)):
        responses = await exchange(port, ca_pem, sizes)
    assert Counter(response.status for response in responses) == {404: len(sizes)}


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
@pytest_twisted.ensureDeferred
async def test_haproxy(tmp_path: Path) -> None:
    """HAProxy reads each request as we meant it, and its refusals are read whole."""
    key, certificate, ca_pem = files(tmp_path)
    pem, config, port = tmp_path / "both.pem", tmp_path / "haproxy.cfg", free_port()
    pem.write_bytes(certificate.read_bytes() + key.read_bytes())
    config.write_text(HAPROXY.format(port=port, pem=pem))
    sizes = [0, 600, 4_096] * 500
    with child("haproxy", "-db", "-f", str(config)):
        responses = await exchange(port, ca_pem, sizes)
    assert Counter(response.status for response in responses) == {400: len(sizes)}
    assert {response.body for response in responses} == {b'{"reason":"BadDeviceToken"}'}
    seen: Any = Counter(
        (int(response.header(b"x-path")[-64:], 16), int(response.header(b"x-size") or 0))  # type: ignore[index]
        for response in responses
    )
    assert seen == Counter(enumerate(sizes))
    assert {response.header(b"x-token") for response in responses} == {b"bearer " + b"j" * 200}
