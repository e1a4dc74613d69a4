"""A stand-in for APNs that is never the bottleneck: HAProxy, TLS and HTTP/2, one thread.

It reads the whole body, then answers 200 with the apns-id. Its 65,535-byte connection window makes
the client wait for credit, as Apple's does. Loopback only.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS

from bouncerd.fakes.credentials import Credentials, make
from bouncerd.tls import client_options

PORT = 19443

CONFIG = """
global
    nbthread 1
    tune.h2.max-concurrent-streams 1000
defaults
    mode http
    timeout client 60s
    timeout http-request 60s
frontend apns
    bind 127.0.0.1:{port} ssl crt {pem} alpn h2
    http-request wait-for-body time 10s
    http-request return status 200 hdr apns-id %[req.hdr(apns-id)]
"""


@dataclass(frozen=True)
class Running:
    """Where it listens, and the credentials that it and its clients use."""

    port: int
    credentials: Credentials

    def endpoint(self, reactor: Any) -> Any:
        """Return where a client connects, over TLS and asking for HTTP/2."""
        options = client_options("localhost", (b"h2",), self.credentials.ca_file.read_bytes())
        return wrapClientTLS(options, HostnameEndpoint(reactor, "localhost", self.port))


@contextmanager
def haproxy(directory: Path, cpu: int) -> Iterator[Running]:
    """Run it, pinned to one CPU."""
    program = shutil.which("haproxy")
    if program is None:
        raise SystemExit("haproxy is not installed (apt-get install haproxy)")
    credentials = make(directory)
    pem = directory / "haproxy.pem"
    key = credentials.server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(credentials.server_certificate.public_bytes(Encoding.PEM) + key)
    config = directory / "haproxy.cfg"
    config.write_text(CONFIG.format(port=PORT, pem=pem))
    child = subprocess.Popen(["taskset", "-c", str(cpu), program, "-db", "-f", str(config)])
    time.sleep(0.7)
    try:
        yield Running(PORT, credentials)
    finally:
        child.terminate()
        child.wait()
