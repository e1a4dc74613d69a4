"""A Zulip server as a bouncer sees it: registers itself and its users' phones, sends messages.

Blocking calls of the standard library, for demonstrations and tests that run the daemon.
What it sends has the shape that real servers send (bouncer-api.md 10.1 and 11.1).
"""

import base64
import json
import secrets
import time
import urllib.error
import urllib.request
import uuid
from typing import Any
from urllib.parse import urlencode

from bouncerd.model import Kind

AGENT = "ZulipServer/9.2"
PATIENCE = 15.0  # seconds: what real servers wait for an answer

# Whatever proxy the environment names, it is not for loopback.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class CallFailed(Exception):
    """A call that was not answered with success; the message is for the person at the screen."""


class ZulipServer:
    """One server with one user. `base` is the bouncer's address, without a path."""

    def __init__(self, base: str, hostname: str = "chat.example.org") -> None:
        self.base = base
        self.hostname = hostname
        self.org_id = str(uuid.uuid4())
        self.org_key = secrets.token_hex(32)
        self.user = {"user_id": 17, "user_uuid": str(uuid.uuid4())}
        self._message_id = 1000

    def register(self) -> dict[str, Any]:
        """Register the server itself."""
        return self._form(
            "server/register",
            zulip_org_id=self.org_id,
            zulip_org_key=self.org_key,
            hostname=self.hostname,
            contact_email=f"admin@{self.hostname}",
        )

    def register_phone(self, kind: Kind, token: str, app_id: str | None = None) -> dict[str, Any]:
        """Register a phone of the user; `app_id` for Apple's."""
        app = {} if app_id is None else {"ios_app_id": app_id}
        return self._form(
            "push/register",
            server_uuid=self.org_id,
            token=token,
            token_kind=int(kind),
            **self.user,
            **app,
        )

    def notify(self, sender: str, text: str, phones: dict[Kind, list[str]]) -> dict[str, Any]:
        """Send a direct message's notification to the user's phones."""
        return self._json("push/notify", self.notification(sender, text, phones))

    def notification(self, sender: str, text: str, phones: dict[Kind, list[str]]) -> dict[str, Any]:
        """Build the body of a `push/notify` call."""
        self._message_id += 1
        url = f"https://{self.hostname}"
        base = {
            "server": self.hostname,
            "realm_id": 2,
            "realm_uri": url,
            "realm_url": url,
            "realm_name": "Example",
            "user_id": 17,
            "sender_id": 9,
            "sender_email": f"{sender.lower()}@{self.hostname}",
            "time": int(time.time()),
            "recipient_type": "private",
        }
        android = {
            "event": "message",
            "zulip_message_id": self._message_id,
            "content": text,
            "content_truncated": False,
            "sender_full_name": sender,
            "sender_avatar_url": f"{url}/avatar/9",
        }
        return {
            **self.user,
            "realm_uuid": None,
            "gcm_payload": base | android,
            "gcm_options": {"priority": "high"},
            "apns_payload": {
                "alert": {"title": sender, "subtitle": "", "body": text},
                "sound": "default",
                "badge": 0,
                "custom": {"zulip": base | {"message_ids": [self._message_id]}},
            },
            "android_devices": phones.get(Kind.FCM, []),
            "apple_devices": phones.get(Kind.APNS, []),
        }

    def _form(self, path: str, **parameters: object) -> dict[str, Any]:
        body = urlencode(parameters).encode()
        return self._call(path, body, "application/x-www-form-urlencoded")

    def _json(self, path: str, content: object) -> dict[str, Any]:
        return self._call(path, json.dumps(content).encode(), "application/json")

    def _call(self, path: str, body: bytes, content_type: str) -> dict[str, Any]:
        """Call the bouncer; raises CallFailed with its own words."""
        credentials = base64.b64encode(f"{self.org_id}:{self.org_key}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - the address is the caller's own
            f"{self.base}/api/v1/remotes/{path}",
            body,
            {
                "authorization": f"Basic {credentials}",
                "content-type": content_type,
                "user-agent": AGENT,
            },
        )
        try:
            with DIRECT.open(request, timeout=PATIENCE) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                words = error.read(500).decode("utf-8", "replace").strip()
            raise CallFailed(f"{path} was answered {error.code}: {words}") from None
        except (OSError, ValueError) as error:
            raise CallFailed(f"{path} failed: {error}") from None
