"""`twistd bouncerd-fakes`: Apple, Google and Google's token endpoint on loopback.

Into the directory it writes a CA, credentials, `bouncer.ini` (a configuration of bouncerd that
uses them) and last of all `ready.json` with the addresses. What is received goes to standard
output or a file, a JSON object per line; `ready` is such a line too.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from twisted.application.service import Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.python import usage
from twisted.web.server import Site

from bouncerd.fakes.apns import CERTIFICATE, EITHER, TOKEN, Apns
from bouncerd.fakes.control import Control
from bouncerd.fakes.credentials import PROJECT, make
from bouncerd.fakes.fcm import Fcm
from bouncerd.fakes.google_tokens import TokenEndpoint
from bouncerd.fakes.ini import configuration
from bouncerd.fakes.records import Ledger, Received

KEEP = 10_000  # requests to remember
SHOWN = 8  # characters of a token
CLIENT = {TOKEN: "", CERTIFICATE: "required", EITHER: "optional"}


def milliseconds(text: str) -> tuple[float, float]:
    """Read "20-80" or "0" as a range in seconds."""
    low, _, high = text.partition("-")
    return float(low) / 1000, float(high or low) / 1000


class Options(usage.Options):
    """What `twistd bouncerd-fakes` takes."""

    synopsis = "[--directory DIR] [options]"
    longdesc = "Stand-ins for APNs, FCM and Google's token endpoint, on 127.0.0.1."
    optParameters = [
        ["directory", "d", "bouncerd-fakes", "Where credentials and configuration are written."],
        ["apns-port", None, 0, "Port of APNs; 0 chooses one.", int],
        ["fcm-port", None, 0, "Port of FCM; 0 chooses one.", int],
        ["token-port", None, 0, "Port of the token endpoint; 0 chooses one.", int],
        ["admin-port", None, 0, "Port for rules and records, plain HTTP; 0 chooses one.", int],
        ["mode", None, TOKEN, "What APNs asks for: token, certificate or either."],
        ["topic", None, "org.example.app", "The bundle id in the client certificates."],
        ["apns-latency", None, "20-80", "Milliseconds that APNs takes."],
        ["fcm-latency", None, "30-150", "Milliseconds that FCM takes."],
        ["received", None, "-", "File to append what is received to; - is standard output."],
        ["listen", None, "tcp:9090:interface=127.0.0.1", "`listen` in the bouncer.ini written."],
        ["admin-listen", None, "tcp:9091:interface=127.0.0.1", "`admin_listen` in it."],
    ]
    optFlags = [
        ["sandbox", None, "Be Apple's sandbox."],
        ["strict", None, "Refuse device tokens that were not declared."],
    ]

    def postOptions(self) -> None:
        """Check what the types do not."""
        if self["mode"] not in CLIENT:
            raise usage.UsageError("--mode is token, certificate or either")
        for name in ("apns-latency", "fcm-latency"):
            try:
                self[name] = milliseconds(self[name])
            except ValueError:
                raise usage.UsageError(f"--{name} is like 20-80, or one number") from None


class Fakes(Service):
    """The fakes, listening from start to stop."""

    name = "bouncerd-fakes"

    def __init__(self, options: Options, reactor: Any, out: TextIO) -> None:
        self._options = options
        self._reactor = reactor
        self._out = out
        self._ports: list[Any] = []  # IListeningPort, whose addresses have ports
        self._directory = Path(options["directory"]).resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._ready = self._directory / "ready.json"
        self._ready.unlink(missing_ok=True)
        self.credentials = make(self._directory, bundle_id=options["topic"])
        self.tokens = TokenEndpoint(reactor, self.credentials.account)
        self.apns = Apns(
            reactor,
            mode=options["mode"],
            sandbox=bool(options["sandbox"]),
            keys=(self.credentials.apns_key,),
            latency=options["apns-latency"],
            ledger=_ledger("apns", self._show),
        )
        self.apns.temper.strict_tokens = bool(options["strict"])
        self.fcm = Fcm(
            reactor,
            PROJECT,
            self.tokens,
            latency=options["fcm-latency"],
            ledger=_ledger("fcm", self._show),
        )

    def startService(self) -> None:
        """Listen, write the configuration, say that all is ready."""
        try:
            addresses = self._listen()
        except CannotListenError as error:
            print(f"bouncerd-fakes: {error}", file=sys.stderr)  # noqa: T201 - for the operator
            raise SystemExit(1) from None
        self.credentials.address_account(addresses["tokens"])
        text = configuration(
            self.credentials,
            mode=self._options["mode"],
            environment=self.apns.environment,
            apns_url=addresses["apns"],
            fcm_url=addresses["fcm"],
            listen=self._options["listen"],
            admin_listen=self._options["admin-listen"],
        )
        ini = self._directory / "bouncer.ini"
        ini.write_text(text, "utf-8")
        ready = addresses | {"configuration": str(ini)}
        # Renamed into place, so that whoever waits for the file never reads half of it.
        unfinished = self._ready.with_suffix(".new")
        unfinished.write_text(json.dumps(ready), "utf-8")
        unfinished.rename(self._ready)
        self._show({"ready": ready})
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's

    def stopService(self) -> Deferred[Any]:
        """Stop listening and drop every connection."""
        self._ready.unlink(missing_ok=True)
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's
        for connection in [*self.apns.connections, *self.fcm.connections]:
            connection.close("fin")
        ports, self._ports = self._ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports])

    def _listen(self) -> dict[str, str]:
        """Open all ports; return the addresses."""
        options, made = self._options, self.credentials
        control = Site(Control(self.apns, self.fcm, self.tokens), reactor=self._reactor)
        control.noisy = False
        with_client = made.context(client=CLIENT[options["mode"]])
        http1 = made.context(alpn=(b"http/1.1",))
        self._ports = [
            self.apns.listen(self._reactor, with_client, options["apns-port"]),
            self.fcm.listen(self._reactor, made.context(), options["fcm-port"]),
            self.tokens.listen(self._reactor, http1, options["token-port"]),
            self._reactor.listenTCP(options["admin-port"], control, interface="127.0.0.1"),
        ]
        apns, fcm, tokens, admin = (port.getHost().port for port in self._ports)
        return {
            "apns": f"https://127.0.0.1:{apns}",
            "fcm": f"https://127.0.0.1:{fcm}",
            "tokens": f"https://127.0.0.1:{tokens}/token",
            "admin": f"http://127.0.0.1:{admin}",
        }

    def _show(self, line: dict[str, Any]) -> None:
        self._out.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._out.flush()


def _ledger(provider: str, show: Callable[[dict[str, Any]], None]) -> Ledger:
    """Make a ledger that shows each request once it is answered."""
    ledger = Ledger(KEEP)
    ledger.watch = lambda received: show(summary(provider, received))
    return ledger


def summary(provider: str, received: Received) -> dict[str, Any]:
    """Say in a few words what was received: for the eye, so the token is shortened."""
    title, body = _words(received)
    return {
        "provider": provider,
        "verdict": received.verdict,
        "token": received.token[:SHOWN] + ("…" if len(received.token) > SHOWN else ""),
        "topic": received.topic,
        "title": title,
        "body": body,
        "at": received.at,
        "seconds": round((received.answered_at or received.at) - received.at, 4),
        "connection": received.connection,
    }


def _words(received: Received) -> tuple[str | None, str | None]:
    """Find what a user would read: an alert of Apple's, or Zulip's data for Android."""
    try:
        content = received.json()
        if "aps" in content:
            alert = content["aps"].get("alert")
            return (None, alert) if isinstance(alert, str) else (alert["title"], alert["body"])
        data = content["message"]["data"]
        return data.get("sender_full_name"), data.get("content", data.get("event"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, None


def makeService(options: Options) -> Fakes:
    """Build the service, with the reactor that twistd has chosen."""
    if options["received"] == "-":
        # Not sys.stdout: twistd has put its log there.
        return Fakes(options, reactor, sys.__stdout__ or sys.stdout)
    path = Path(options["received"])
    return Fakes(options, reactor, path.open("a", encoding="utf-8"))
