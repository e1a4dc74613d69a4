"""Registration as Zulip servers and strangers see it, from the first call to the last."""

from ipaddress import ip_network
from typing import Any

from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.api import PREFIX
from bouncerd.limits import HOUR
from bouncerd.registry import Admission
from tests.in_memory import (
    FORM,
    KEY,
    NOW,
    ORG_ID,
    Answer,
    Daemon,
    basic,
    form,
    read_answer,
    result,
    spell,
)

NEW_KEY = "n" * 64
OPEN = ["server/register", "server/register/transfer", "server/register/verify_challenge"]
SERVER = {
    "zulip_org_id": ORG_ID,
    "zulip_org_key": KEY,
    "hostname": "chat.example.org",
    "contact_email": "admin@example.org",
}


class ServerTests(SynchronousTestCase):
    """A Zulip server that speaks to a daemon."""

    def setUp(self) -> None:
        self.daemon = Daemon()

    def register(self, **changes: str) -> Answer:
        return self.daemon.send("POST", PREFIX + OPEN[0], form(SERVER | changes), FORM)

    def call(self, endpoint: str, key: str = KEY, body: bytes = b"{}") -> Answer:
        headers = {"Content-Type": "application/json", "Authorization": basic(ORG_ID, key)}
        return self.daemon.send("POST", PREFIX + endpoint, body, headers)

    def works(self, key: str = KEY) -> bool:
        answer = self.call("push/unregister/all?user_id=5", key)
        self.assertIn(answer.status, (200, 401))
        return answer.status == 200

    def told(self, answer: Answer, status: int = 400) -> str:
        self.assertEqual(answer.status, status)
        return str(answer.json["msg"])


class LifeTests(ServerTests):
    """From the first registration to the last."""

    def test_rotation(self) -> None:
        """A server whose key was rotated may finish its upload with the former key."""
        self.assertTrue(self.register().json["created"])
        self.assertFalse(self.register(new_org_key=NEW_KEY).json["created"])
        self.assertTrue(self.works(KEY))
        self.assertTrue(self.works(NEW_KEY))
        told = self.told(self.register(new_org_key="m" * 64))
        self.assertIn("key does not match role", told)
        told = self.told(self.call("server/deactivate", KEY), 401)
        self.assertIn("key does not match role", told)
        self.daemon.clock.advance(600)
        self.assertFalse(self.works(KEY))
        self.assertTrue(self.works(NEW_KEY))

    def test_rotation_without_grace(self) -> None:
        """Where the operator wants no grace the former key is dead at once."""
        self.daemon = Daemon(admission=Admission(old_key_grace=0.0))
        self.register()
        self.register(new_org_key=NEW_KEY)
        self.assertFalse(self.works(KEY))
        self.assertTrue(self.works(NEW_KEY))

    def test_leaving(self) -> None:
        """A server that leaves is told so wherever it calls, until the operator takes it back."""
        self.register()
        answer = self.call("server/deactivate")
        self.assertEqual((answer.status, answer.json), (200, {"result": "success", "msg": ""}))
        answer = self.call("server/deactivate")
        self.assertEqual((answer.status, answer.json["code"]), (401, "UNAUTHORIZED"))
        self.assertEqual(answer.headers["WWW-Authenticate"], 'Basic realm="zulip"')
        answer = self.register()
        self.assertEqual((answer.status, answer.json["code"]), (401, "REALM_DEACTIVATED"))
        self.assertIsNone(answer.headers["WWW-Authenticate"])
        result(self.daemon.store.reactivate_server(ORG_ID, NOW))
        self.assertTrue(self.works())

    def test_leaving_with_a_plan(self) -> None:
        """A server with a plan gets the answer that its own command has words for."""
        self.register()
        result(self.daemon.store.set_plan(ORG_ID, 103, None, NOW))
        answer = self.call("server/deactivate")
        self.assertEqual(answer.status, 400)
        self.assertEqual(
            answer.json,
            {
                "result": "error",
                "msg": "",
                "code": "BAD_REQUEST",
                "error_description": "server deactivation with existing plan",
            },
        )
        self.assertTrue(self.works())

    def test_not_open(self) -> None:
        """A closed bouncer tells a new server whom to ask."""
        self.daemon = Daemon(admission=Admission(is_open=False, support="ops@example.org"))
        self.assertIn("Contact ops@example.org.", self.told(self.register()))

    def test_domains(self) -> None:
        """A contact address that cannot be real is refused in the reference's words."""
        for email, words in {
            "a@mailinator.com": "Please use your real email address.",
            "a@example.com": "Invalid email address.",
            "a@corp.nomx.test": "corp.nomx.test is invalid because it does not have any MX records",
            "a@corp.nxdomain.test": "corp.nxdomain.test does not exist",
        }.items():
            self.assertEqual(self.told(self.register(contact_email=email)), words)

    def test_methods(self) -> None:
        """What has no credentials is POST only, OPTIONS included; leaving knows OPTIONS."""
        for endpoint in OPEN:
            for method in ["GET", "OPTIONS", "PUT"]:
                self.assertEqual(self.daemon.send(method, PREFIX + endpoint).status, 405)
        self.assertEqual(self.daemon.send("OPTIONS", PREFIX + "server/deactivate").status, 204)
        self.assertEqual(self.daemon.send("GET", PREFIX + "server/deactivate").status, 405)

    def test_superfluous_parameters(self) -> None:
        """What nobody asked for is named, on success only."""
        ignored = "ignored_parameters_unsupported"
        self.assertEqual(self.register(surprise="1").json[ignored], ["surprise"])
        answer = self.call("server/deactivate?x=1")
        self.assertEqual(answer.json[ignored], ["x"])


class StrangerTests(ServerTests):
    """How often one may ask who has no credentials."""

    def setUp(self) -> None:
        trusted = [ip_network("127.0.0.1"), ip_network("192.168.1.1")]
        self.daemon = Daemon(registrations_per_hour=3, trusted=trusted)

    def ask(self, endpoint: str = OPEN[0], peer: IAddress | None = None, **headers: str) -> Answer:
        channel = self.daemon.site.buildProtocol(peer)
        transport = StringTransport(peerAddress=peer)
        channel.makeConnection(transport)
        fields = {**FORM, **{name.replace("_", "-"): value for name, value in headers.items()}}
        channel.dataReceived(spell("POST", PREFIX + endpoint, form(SERVER), fields))
        return read_answer(transport.value())

    def let_in(self, **who: Any) -> bool:
        answer = self.ask(**who)
        self.assertIn(answer.status, (200, 429))
        return answer.status == 200

    def test_too_often(self) -> None:
        """All calls without credentials count together; one too many is told when to come again."""
        for endpoint in OPEN:
            self.assertNotEqual(self.ask(endpoint).status, 429)
            self.daemon.clock.advance(10)
        answer = self.ask()
        self.assertEqual(answer.status, 429)
        self.assertEqual(
            answer.json,
            {
                "result": "error",
                "msg": "API usage exceeded rate limit",
                "code": "RATE_LIMIT_HIT",
                "retry-after": HOUR - 30,
            },
        )
        self.assertEqual(float(answer.headers["Retry-After"]), HOUR - 30)
        self.daemon.clock.advance(HOUR - 31)
        self.assertFalse(self.let_in())
        self.daemon.clock.advance(1)
        self.assertTrue(self.let_in())
        self.assertFalse(self.let_in())

    def test_others(self) -> None:
        """Behind a proxy that is trusted each client has its own share."""
        for _ in range(3):
            self.assertTrue(self.let_in(x_forwarded_for="203.0.113.1"))
        self.assertFalse(self.let_in(x_forwarded_for="203.0.113.1"))
        self.assertFalse(self.let_in(x_forwarded_for="198.51.100.1, 203.0.113.1"))
        self.assertTrue(self.let_in(x_forwarded_for="203.0.113.2"))

    def test_a_block(self) -> None:
        """A /64 of IPv6 is one client."""
        for number in range(3):
            self.assertTrue(self.let_in(peer=IPv6Address("TCP", f"2001:db8::{number}", 1)))
        self.assertFalse(self.let_in(peer=IPv6Address("TCP", "2001:db8::ffff", 1)))
        self.assertTrue(self.let_in(peer=IPv6Address("TCP", "2001:db8:0:1::1", 1)))

    def test_a_unix_socket(self) -> None:
        """A proxy on a unix socket is believed if 127.0.0.1 is."""
        for client in ["203.0.113.1"] * 3 + ["203.0.113.2"]:
            self.assertTrue(self.let_in(peer=UNIXAddress(None), x_forwarded_for=client))
        self.assertFalse(self.let_in(peer=UNIXAddress(None), x_forwarded_for="203.0.113.1"))

    def test_a_liar(self) -> None:
        """Who is no trusted proxy counts itself, whatever it says."""
        peer = IPv6Address("TCP", "2001:db8::1", 1)
        for number in range(3):
            self.assertTrue(self.let_in(peer=peer, x_forwarded_for=f"203.0.113.{number}"))
        self.assertFalse(self.let_in(peer=peer, x_forwarded_for="203.0.113.9"))

    def test_servers_are_not_strangers(self) -> None:
        """What comes with credentials is not counted here."""
        self.register()
        for _ in range(9):
            self.assertTrue(self.works())
