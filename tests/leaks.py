"""Builds of the daemon that leak, each into another place: the proof of privacy must find them.

Each function runs in the daemon's process before the daemon. Whatever it changes is imported
within it, so that the daemon starts as it does otherwise.
"""

# ruff: noqa: PLC0415

import json
import os
import sqlite3
import tempfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOME = Path(os.environ.get("TMPDIR", "/nowhere")).parent
kept: list[Any] = []


def _on_push(leak: Callable[[Any], object]) -> None:
    """Do something with each push on its way to Apple."""
    from bouncerd.apns import Apns

    original = Apns.request

    def request(self: Apns, session: Any, push: Any, now: float) -> Any:
        leak(push)
        return original(self, session, push, now)

    Apns.request = request  # type: ignore[method-assign]  # this is what a leak is


def _say(what: str) -> None:
    from twisted.logger import Logger

    Logger("bouncerd.lane").info("Push: {what}", what=what)


def _words(push: Any) -> str:
    body = json.loads(push.message.body)
    return str(body["aps"].get("alert", {}).get("body", ""))


def log() -> None:
    """Log the text, in a field that may be logged."""
    _on_push(lambda push: _say(_words(push)))


def encoded_log() -> None:
    """Log the text in a form in which nobody would see it."""
    _on_push(lambda push: _say(b64encode(b"x" + _words(push).encode()).decode()[:150]))


def token() -> None:
    """Log the beginning of the token."""
    _on_push(lambda push: _say(push.device.token[:10]))


def exception() -> None:
    """Log what exceptions hold."""
    from bouncerd import redaction

    original = redaction.described

    def described(kind: Any, value: Any, tb: Any) -> Any:
        return {**original(kind, value, tb), "said": str(getattr(value, "args", ""))}

    redaction.described = described


def metric() -> None:
    """Tell the latest text as a label of a metric."""
    import prometheus_client

    original = prometheus_client.generate_latest
    latest = ["nothing yet"]

    def generate_latest(registry: Any) -> bytes:
        return original(registry) + f'latest_push{{text="{latest[0]}"}} 1\n'.encode()

    prometheus_client.generate_latest = generate_latest  # type: ignore[assignment]

    def keep(push: Any) -> None:
        latest[0] = _words(push)

    _on_push(keep)


def row() -> None:
    """Keep the text in the store, where the reason of an event would be."""

    def keep(push: Any) -> None:
        with sqlite3.connect(HOME / "bouncerd.db", timeout=1) as database:
            database.execute(
                "INSERT INTO server_events (server_id, event, happened_at)"
                " SELECT id, ?, 0 FROM servers LIMIT 1",
                [_words(push)],
            )

    _on_push(keep)


def handed_over_on_disk() -> None:
    """Keep what waits in a file, in case systemd has no place for it."""
    from bouncerd import handover

    original = handover.encode

    def encode(*arguments: Any) -> bytes:
        data = original(*arguments)
        (HOME / "bouncerd.db.waiting").write_bytes(data)
        return data

    handover.encode = encode  # type: ignore[assignment]


def nameless_file() -> None:
    """Keep the text in a file that has no name, but is on a disk."""

    def keep(push: Any) -> None:
        file = tempfile.TemporaryFile()  # noqa: SIM115 -- it stays open
        file.write(push.message.body)
        file.flush()
        kept.append(file)

    _on_push(keep)


def temporary_file() -> None:
    """Leave a file behind."""
    _on_push(lambda push: tempfile.mkstemp())


def answer() -> None:
    """Tell the next caller, whoever it is, what the one before him said."""
    from bouncerd import envelope

    original = envelope.render_success
    latest = [""]

    def render_success(*arguments: Any) -> bytes:
        members = json.loads(original(*arguments))
        return json.dumps({**members, "latest": latest[0]}).encode()

    def keep(push: Any) -> None:
        latest[0] = _words(push)

    envelope.render_success = render_success  # type: ignore[assignment]
    _on_push(keep)


def core() -> None:
    """Let the kernel write the memory of a process that dies into a file."""
    from bouncerd import cores

    cores.forbid = lambda: None
