"""`twistd bouncerd-fakes` as a program: real sockets, Python's own TLS, and h2 for a client."""

import json
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived, StreamEnded
from hpack import NeverIndexedHeaderTuple
from twisted.trial.unittest import SynchronousTestCase

from bouncerd import config
from bouncerd.fakes.credentials import KEY_ID, TEAM_ID
from tests.fakes_kit import SECRETS, Lines, push_lines

ROOT = Path(__file__).parent.parent
TWISTD = "from twisted.scripts.twistd import run; run()"
PATIENCE = 20.0  # seconds


class Program:
    """One running `twistd bouncerd-fakes` and its directory."""

    def __init__(self, *options: str) -> None:
        self.holder = tempfile.TemporaryDirectory()
        self.directory = Path(self.holder.name)
        command = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "bouncerd-fakes"]
        command += ["--directory", self.holder.name, "--apns-latency", "0"]
        command += ["--received", str(self.directory / "received"), *options]
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def wait(self) -> dict[str, str]:
        """Wait until it says that it is ready; return what it says."""
        ready, until = self.directory / "ready.json", time.monotonic() + PATIENCE
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError((self.directory / "log").read_text())
            time.sleep(0.02)
        return dict(json.loads(ready.read_text()))

    def stop(self) -> int:
        """End it as systemd would; return its exit status, which tells of the signal."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        self.holder.cleanup()
        return status

    def trust(self) -> ssl.SSLContext:
        """Make a TLS context that trusts its CA and nothing else."""
        return ssl.create_default_context(cafile=str(self.directory / "ca.pem"))

    def bearer(self) -> str:
        """Sign a provider token with the key it has written."""
        key = (self.directory / f"AuthKey_{KEY_ID}.p8").read_bytes()
        claims = {"iss": TEAM_ID, "iat": int(time.time())}
        return "bearer " + jwt.encode(claims, key, "ES256", headers={"kid": KEY_ID})


def ask(address: str, context: ssl.SSLContext, lines: Lines, body: bytes) -> tuple[int, bytes]:
    """Send one HTTP/2 request over TLS; return status and body. Raises OSError."""
    port = int(address.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        h2 = H2Connection()
        h2.initiate_connection()
        connection.sendall(h2.data_to_send())
        status, answer = 0, b""
        while True:
            data = connection.recv(65536)
            if not data:
                raise ConnectionError("closed without an answer")
            for event in h2.receive_data(data):
                if isinstance(event, RemoteSettingsChanged) and h2.highest_outbound_stream_id < 1:
                    hidden = [
                        NeverIndexedHeaderTuple(*line) if line[0] in SECRETS else line
                        for line in lines
                    ]
                    h2.send_headers(1, hidden)
                    h2.send_data(1, body, end_stream=True)
                elif isinstance(event, ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, DataReceived):
                    answer += event.data
                elif isinstance(event, StreamEnded):
                    return status, answer
            connection.sendall(h2.data_to_send())


class ProgramTests(SynchronousTestCase):
    """What others see of the fakes, with both ways to authenticate."""

    program: Program
    strict: Program

    @classmethod
    def setUpClass(cls) -> None:  # noqa: N802 - unittest's name
        cls.program = Program("--mode", "either")
        cls.strict = Program("--mode", "certificate", "--sandbox")
        cls.ready, cls.strictly = cls.program.wait(), cls.strict.wait()

    @classmethod
    def tearDownClass(cls) -> None:  # noqa: N802 - unittest's name
        assert (cls.program.stop(), cls.strict.stop()) == (-signal.SIGTERM,) * 2

    ready: dict[str, str]
    strictly: dict[str, str]

    def push(self, context: ssl.SSLContext, token: str = "ab" * 32, strict: bool = False) -> int:
        """Push to the fake of Apple; return the status."""
        address = (self.strictly if strict else self.ready)["apns"]
        lines = push_lines(self.program.bearer(), token)
        return ask(address, context, lines, b'{"aps":{"alert":{"title":"Ann","body":"Hi"}}}')[0]

    def call(self, method: str, path: str, content: Any = None) -> Any:
        """Call the admin port."""
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.ready["admin"] + path, body, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def test_negotiation(self) -> None:
        """HTTP/2 is spoken with ALPN and without, over TLS 1.2 and 1.3."""
        for protocols, newest in (
            (["h2"], ssl.TLSVersion.TLSv1_3),
            ([], ssl.TLSVersion.TLSv1_3),
            (["h2"], ssl.TLSVersion.TLSv1_2),
        ):
            with self.subTest(protocols=protocols, newest=newest):
                context = self.program.trust()
                context.maximum_version = newest
                if protocols:
                    context.set_alpn_protocols(protocols)
                self.assertEqual(self.push(context), 200)
        visits = self.call("GET", "/state")["apns"]["connections"]
        self.assertIn("h2", [visit["protocol"] for visit in visits])
        self.assertIn(None, [visit["protocol"] for visit in visits])

    def test_client_certificate(self) -> None:
        """A good client certificate is enough; none, an expired or a foreign one is not."""
        for name, accepted in (
            ("apns-client.pem", True),
            ("apns-client-expired.pem", False),
            ("apns-client-foreign.pem", False),
            (None, False),
        ):
            for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                with self.subTest(name=name, newest=newest):
                    context = self.strict.trust()
                    context.maximum_version = newest
                    if name is not None:
                        context.load_cert_chain(self.strict.directory / name)
                    if accepted:
                        self.assertEqual(self.push(context, strict=True), 200)
                    else:
                        with self.assertRaises(OSError):
                            self.push(context, strict=True)

    def test_received_lines(self) -> None:
        """Each push is shown in a line, its token shortened."""
        self.push(self.program.trust(), "deadbeef" * 8)
        lines = (self.program.directory / "received").read_text().splitlines()
        shown = [json.loads(line) for line in lines]
        self.assertEqual(shown[0]["ready"], self.ready)
        push = next(one for one in shown if one.get("token") == "deadbeef…")
        self.assertEqual(
            (push["provider"], push["title"], push["body"], push["verdict"]),
            ("apns", "Ann", "Hi", "200"),
        )

    def test_message(self) -> None:
        """An access token of the token endpoint is good for a message to FCM."""
        account = json.loads((self.program.directory / "service-account.json").read_text())
        self.assertEqual(account["token_uri"], self.ready["tokens"])
        now = int(time.time())
        claims = {
            "iss": account["client_email"],
            "scope": "https://www.googleapis.com/auth/firebase.messaging",
            "aud": account["token_uri"],
            "iat": now,
            "exp": now + 3600,
        }
        kid = {"kid": account["private_key_id"]}
        assertion = jwt.encode(claims, account["private_key"], "RS256", headers=kid)
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        form = urlencode({"grant_type": grant, "assertion": assertion}).encode()
        with urllib.request.urlopen(
            account["token_uri"], form, PATIENCE, context=self.program.trust()
        ) as answer:
            access = json.load(answer)["access_token"]
        status, body = ask(
            self.ready["fcm"],
            self.program.trust(),
            [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "localhost"),
                (":path", f"/v1/projects/{account['project_id']}/messages:send"),
                ("authorization", f"Bearer {access}"),
                ("content-type", "application/json"),
            ],
            b'{"message": {"token": "t", "data": {"content": "Hi"}}}',
        )
        self.assertEqual((status, list(json.loads(body))), (200, ["name"]))
        self.assertEqual(self.call("GET", "/received?provider=fcm")["fcm"][0]["token"], "t")

    def test_rules(self) -> None:
        """Rules can be added and taken away while it runs."""
        act = [{"step": "refuse", "status": 410, "reason": "Unregistered", "timestamp": 5}]
        rule = {"provider": "apns", "match": {"token": "ca"}, "do": act}
        self.assertEqual(self.call("POST", "/rules", rule), {"rules": 1})
        self.assertEqual(self.push(self.program.trust(), "cafe"), 410)
        self.assertEqual(self.call("DELETE", "/rules"), {"rules": 0})
        self.assertEqual(self.push(self.program.trust(), "cafe"), 200)

    def test_bad_rules(self) -> None:
        """A rule that makes no sense is refused with a reason."""
        contents: tuple[Any, ...] = (
            {"provider": "apple"},
            {"provider": "apns", "do": {}},
            {"provider": "apns", "do": [{"step": "explode"}]},
            {"provider": "apns", "do": [{"step": "wait"}]},
            {"provider": "fcm", "do": [{"step": "google", "error": "none"}]},
            {"provider": "apns", "match": {"colour": "red"}, "do": []},
            [],
        )
        for content in contents:
            with (
                self.subTest(content=content),
                self.assertRaises(urllib.error.HTTPError) as caught,
            ):
                self.call("POST", "/rules", content)
            self.assertEqual(caught.exception.code, 400)
            self.assertIn("error", json.load(caught.exception))

    def test_other_controls(self) -> None:
        """Clocks, token answers and live connections can be worked from outside too."""
        self.assertEqual(self.call("POST", "/clock", {"skew": 60}), {"skew": 60})
        self.assertEqual(self.call("POST", "/clock", {"skew": 0}), {"skew": 0})
        self.assertEqual(self.call("DELETE", "/tokens"), {})
        limits = {"provider": "fcm", "connects": 100, "messages": 1_000_000}
        self.assertEqual(self.call("POST", "/limits", limits)["turned_away"], 0)
        told = {"provider": "fcm", "do": [{"step": "goaway", "last_stream": 0, "debug": "bye"}]}
        self.assertIn("connections", self.call("POST", "/tell", told))
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.call("GET", "/nothing")
        self.assertEqual(caught.exception.code, 404)
        caught.exception.close()

    def test_configuration(self) -> None:
        """The configuration it writes is one that bouncerd takes."""
        for ready, mode in ((self.ready, "key"), (self.strictly, "certificate")):
            read = config.read(Path(ready["configuration"]), now=time.time())
            (apns,), (fcm,) = read.apns, read.fcm
            self.assertEqual(apns.key is not None, mode == "key")
            self.assertEqual(apns.certificate is not None, mode == "certificate")
            self.assertEqual(f"https://{fcm.host}:{fcm.port}", ready["fcm"])

    def test_port_taken(self) -> None:
        """A port that is taken ends it with one clear line."""
        port = self.ready["apns"].rpartition(":")[2]
        second = Program("--apns-port", port)
        self.assertEqual(second.process.wait(PATIENCE), 1)
        self.assertIn(f"127.0.0.1:{port}", (second.directory / "log").read_text())
        second.holder.cleanup()
