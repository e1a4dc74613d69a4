"""What strangers and hostile servers would have us do at the expense of others."""

import json
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.api import LONG_BODIES, PREFIX
from bouncerd.bulk import read_long_form
from bouncerd.channel import Bounds, Channel
from bouncerd.envelope import WireError
from bouncerd.model import Found, Identity
from bouncerd.reading import Sent
from tests.in_memory import (
    FORM,
    KEY,
    NOW,
    ORG_ID,
    USER,
    Answer,
    Daemon,
    TroubledStore,
    basic,
    form,
    result,
    spell,
)
from tests.test_store_uploads import a_realm_row, an_upload

STRANGER = basic(key="x" * 64)
EMPTY = {"realm_counts": "[]", "installation_counts": "[]"}


class WatchedStore(TroubledStore):
    """A store that remembers whose phones were looked for."""

    def find(self, uuid: str, identity: Identity | None, realm_uuid: str | None) -> Deferred[Found]:
        self.asked = [*getattr(self, "asked", []), identity]
        return super().find(uuid, identity, realm_uuid)


class LongBodyTests(SynchronousTestCase):
    """Long bodies of those whom we do not know."""

    def setUp(self) -> None:
        bounds = Bounds(body=100, bodies=LONG_BODIES, long_bodies=2)
        self.daemon = Daemon(store=WatchedStore, bounds=bounds)
        self.daemon.enrol()

    def begin(self, authorization: str | None) -> tuple[Channel, StringTransport]:
        """Send all of a long upload but its last byte."""
        channel, transport = self.daemon.connect()
        headers = {**FORM, "Authorization": authorization} if authorization else FORM
        body = form({**EMPTY, "x": "x" * 200})
        channel.dataReceived(spell("POST", PREFIX + "server/analytics", body, headers)[:-1])
        return channel, transport

    def test_no_room_for_strangers(self) -> None:
        """Strangers are sent away as soon as their body gets long, and take nobody's place."""
        for authorization in (STRANGER, None, "Basic", basic("nobody"), STRANGER):
            _, transport = self.begin(authorization)
            self.assertIn(b" 401 ", transport.value())
            self.assertIn(b'"UNAUTHORIZED"', transport.value())
            self.assertEqual(self.daemon.site.long_bodies, set())
        channel, transport = self.begin(basic())
        self.assertEqual(transport.value(), b"")
        channel.dataReceived(b"x")
        self.assertIn(b" 200 ", transport.value())

    def test_no_store(self) -> None:
        """While nobody can say who is known a long body is told 503, which does no harm."""
        store = self.daemon.store
        assert isinstance(store, WatchedStore)
        store.down = True
        self.assertIn(b" 503 ", self.begin(basic())[1].value())
        self.assertEqual(self.daemon.site.long_bodies, set())

    def test_slow_store(self) -> None:
        """Who has sent all by then, or hung up, is not told twice."""
        store = self.daemon.store
        assert isinstance(store, WatchedStore)
        store.silent = True
        complete, whole = self.begin(STRANGER)
        complete.dataReceived(b"x")
        left, nothing = self.begin(STRANGER)
        left.connectionLost(Failure(ConnectionDone()))
        self.daemon.clock.advance(12)
        self.assertEqual(whole.value().count(b"HTTP/1.1 503 "), 1)
        self.assertEqual(nothing.value(), b"")
        self.assertEqual(self.daemon.site.long_bodies, set())


class ReadingTests(SynchronousTestCase):
    """What is read of a body before it is known whose it is."""

    def setUp(self) -> None:
        self.daemon = Daemon(store=WatchedStore, requests_per_minute=3)
        self.daemon.enrol()

    def notify(self, size: int, authorization: str) -> Answer:
        padding = {"zulip": "x" * size}
        asked = {"user_id": 5, "gcm_payload": padding}
        return self.daemon.post_json("push/notify", asked, {"Authorization": authorization})

    @property
    def asked(self) -> list[Identity | None]:
        return getattr(self.daemon.store, "asked", [])

    def test_strangers(self) -> None:
        """Of a stranger's long body nothing is read: that takes longer than a look-up."""
        self.assertEqual(self.notify(100_000, STRANGER).status, 401)
        self.assertEqual(self.asked, [None])

    def test_short(self) -> None:
        """Server and user are looked for at once where the body is as short as they are."""
        self.assertEqual(self.notify(5_000, basic()).status, 200)
        self.assertEqual(self.asked, [Identity(5, None)])

    def test_long(self) -> None:
        """A server's long body is read and counts as one request; one too many is not read."""
        answers = [self.notify(100_000, basic()) for _ in range(4)]
        self.assertEqual([answer.status for answer in answers], [200, 200, 200, 429])
        self.assertEqual(answers[0].headers["X-RateLimit-Remaining"], "2")
        self.assertEqual(self.asked, [None, Identity(5, None)] * 3 + [None])

    def test_long_names(self) -> None:
        """Of a host name that nobody can have it is said so, whatever is wrong with it."""
        hostname = "é.a" * 20_000
        sent = form({"hostname": hostname})
        answer = self.daemon.send("POST", PREFIX + "server/register/transfer", sent, FORM)
        self.assertEqual(answer.json["msg"], f"{hostname} not yet registered")

    def test_long_logins(self) -> None:
        """What is too long for an id and a key is not read, and is no try."""
        sent = form({"zulip_org_id": ORG_ID, "zulip_org_key": KEY, "x": "x" * 5000})
        for _ in range(20):
            answer = self.daemon.send("POST", "/serverlogin/", sent, FORM)
            self.assertEqual(answer.status, 400)

    def test_not_shown(self) -> None:
        """What was sent is in no repr."""
        self.assertNotIn("canary", repr(Sent(b"canary", "canary", b"canary")))


class ConnectionTests(SynchronousTestCase):
    """Connections without end."""

    def test_flapping(self) -> None:
        """Who comes and goes where there is room for one more fills no log."""
        lines: list[object] = []
        observer = cast(ILogObserver, lines.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        daemon = Daemon(bounds=Bounds(connections=1))
        for _ in range(200):
            channel, _transport = daemon.connect()
            self.assertIsNone(daemon.site.buildProtocol(None))
            channel.connectionLost(Failure(ConnectionDone()))
        self.assertLess(len(lines), 25)


class UploadTests(SynchronousTestCase):
    """Uploads that no server makes."""

    def refused(self, content: bytes) -> str:
        with self.assertRaises(WireError) as caught:
            for _ in read_long_form(content, FORM["Content-Type"], b""):
                pass
        msg: str = caught.exception.msg
        return msg

    def test_long_names(self) -> None:
        """A parameter's name becomes part of the answer, so that it is short."""
        self.assertEqual(self.refused(b"a" * 5000), "The name of a parameter is too long")

    def test_realms_without_end(self) -> None:
        """A server that makes up ever new organizations is stopped: all of them cost each upload.

        What it has stays, and goes on.
        """
        daemon = Daemon()
        server_id = daemon.enrol()
        made_up = [USER[:-5] + f"{number:05d}" for number in range(20_000)]
        for part in (made_up[:10_000], made_up[10_000:]):
            rows = [a_realm_row(uuid, number) for number, uuid in enumerate(part)]
            upload = an_upload(realms=rows)
            self.assertEqual(len(result(daemon.store.upload(server_id, upload, NOW))), 10_000)
        self.assertEqual(self.upload(daemon, made_up[0]).status, 200)
        answer = self.upload(daemon, "9aa61d0b-8ce5-488d-8e9e-fedc346e6836")
        self.assertEqual(answer.status, 400)
        self.assertEqual(
            answer.json["msg"], "Too many organizations are registered for this server"
        )

    def upload(self, daemon: Daemon, uuid: str) -> Answer:
        realm = {
            "id": 1, "host": "chat.example.org", "url": "https://chat.example.org", "name": "x",
            "org_type": 10, "date_created": 1.5, "deactivated": False, "uuid": uuid,
            "is_system_bot_realm": False, "authentication_methods": {}, "uuid_owner_secret": "x",
        }  # fmt: skip
        return daemon.post_form("server/analytics", **EMPTY, realms=json.dumps([realm]))
