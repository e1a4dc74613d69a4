"""Zulip servers as the proof needs them: every answer that they get is searched."""

import base64
import json
import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from bouncerd.fakes.privacy.canaries import STORE, foreign_word, word
from bouncerd.fakes.privacy.evidence import Evidence
from bouncerd.fakes.privacy.premises import APP, Failed

API = "/api/v1/remotes/"
_FORM, _JSON = "application/x-www-form-urlencoded", "application/json"


@dataclass
class Answer:
    """What came back: 0 and nothing if the connection was closed without a word."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Read it as JSON."""
        return json.loads(self.body)


@dataclass
class Tenant:
    """One Zulip server with one user."""

    name: str
    port: int
    evidence: Evidence
    org_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    user_uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    realm_uuid: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __post_init__(self) -> None:
        key = (word() + word() + word())[:64]
        self.key = self.evidence.plant("the key of a server", key, self.name, repeatable=False)
        self.user = {"user_id": 17, "user_uuid": self.user_uuid}

    # --- canaries

    def fresh(self, name: str) -> str:
        """Plant a word."""
        return self.evidence.plant(name, word(), self.name)

    def foreign(self, name: str) -> str:
        """Plant a word of letters that get escaped."""
        return self.evidence.plant(name, foreign_word(), self.name)

    def token(self, name: str, text: str) -> str:
        """Plant a device token, which the store keeps."""
        return self.evidence.plant(name, text, self.name, STORE)

    # --- calls

    def form(self, path: str, /, **members: object) -> Answer:
        """Send a form."""
        return self.post(path, urlencode(members).encode(), _FORM)

    def json(self, path: str, content: object) -> Answer:
        """Send JSON."""
        return self.post(path, json.dumps(content, ensure_ascii=False).encode(), _JSON)

    def post(
        self, path: str, body: bytes, kind: str = _JSON, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a body, with our id and key unless the headers say otherwise."""
        return self.send(self.spell("POST", API + path, body, kind, headers))

    def spell(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        kind: str = _JSON,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Spell a request."""
        pair = base64.b64encode(f"{self.org_id}:{self.key}".encode()).decode()
        lines = {
            "Host": "push.example.org",
            "Authorization": f"Basic {pair}",
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Connection": "close",
            **(headers or {}),
        }
        head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items())]
        return "\r\n".join([*head, "", ""]).encode() + body

    def send(self, octets: bytes, *, hang_up: bool = False) -> Answer:
        """Send some bytes, and search whatever comes back; `hang_up` does not wait for it."""
        self.evidence.calls += 1
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=20) as line:
                line.sendall(octets)
                data = b"" if hang_up else _whole(line)
        except ConnectionError:
            data = b""
        except TimeoutError:
            raise Failed(f"a call was not answered in 20 s: {octets[:400]!r}") from None
        head, _, body = data.partition(b"\r\n\r\n")
        words = head.split(b" ", 2)
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        self.evidence.answer(self.name, octets, status, data)
        return Answer(status, body)

    def must(self, answer: Answer, what: str) -> Answer:
        """Raise Failed unless the answer is a success: otherwise there is nothing to prove."""
        if answer.status != 200:
            raise Failed(f"{what} was answered {answer.status}: {answer.body[:300]!r}")
        return answer

    # --- what every server does

    def register(self) -> None:
        """Register the server itself."""
        members = {"zulip_org_id": self.org_id, "zulip_org_key": self.key}
        host = f"{self.name}.example.org"
        members |= {"hostname": host, "contact_email": f"admin@{host}"}
        self.must(self.form("server/register", **members), "a registration")

    def add_phone(self, kind: int, token: str) -> None:
        """Register a phone of the user."""
        app = {"ios_app_id": APP} if kind == 1 else {}
        answer = self.form("push/register", token=token, token_kind=kind, **self.user, **app)
        self.must(answer, "a phone's registration")


def _whole(line: socket.socket) -> bytes:
    """Read an answer, or what there is of it."""
    data = b""
    while piece := line.recv(65_536):
        data += piece
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
        if end and length and len(body) >= int(length[1]):
            break
    return data
