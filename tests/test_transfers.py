"""Servers that lost their credentials, and those who would like to have them."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bouncerd.basicauth import digest
from bouncerd.envelope import WireError
from bouncerd.forms import Form
from bouncerd.transfers import (
    DAY,
    PER_ADDRESS,
    PER_DAY,
    PER_HOST,
    Claim,
    host_to_ask,
    parse_claim,
    parse_transfer,
)
from tests.in_memory import (
    FORM,
    KEY,
    ORG_ID,
    Answer,
    Daemon,
    basic,
    form,
    result,
)

HOST = "chat.example.org"
TOKEN = "cP6_u-9h" * 5
PATH = "/api/v1/remotes/server/register"
USED_UP = (
    "The global limits on recent usage of this endpoint have been reached."
    " Please try again later or reach out to ops@example.org for assistance."
)


class ZulipServers(Resource):
    """All the hosts there are: each shows the secret that it was last given, if any."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.secrets: dict[str, str] = {}
        self.asked: list[str] = []
        self.silent = False

    def render_GET(self, request: Request) -> bytes | int:  # noqa: N802 -- Twisted's name
        host = request.getHeader("host") or ""
        self.asked.append(host)
        if self.silent:
            return NOT_DONE_YET
        if host not in self.secrets or not request.uri.endswith(f"/{TOKEN}/".encode()):
            request.setResponseCode(400)
            return json.dumps({"code": "REMOTE_SERVER_VERIFICATION_SECRET_NOT_PREPARED"}).encode()
        return json.dumps({"verification_secret": self.secrets[host]}).encode()


class ParseTests(SynchronousTestCase):
    """What is asked."""

    def told(self, parse: Callable[[Form], Any], **fields: str) -> str:
        return str(self.assertRaises(WireError, parse, Form(fields)).msg)

    def test_transfer(self) -> None:
        """A host name must be there, and be one."""
        self.assertEqual(parse_transfer(Form({"hostname": HOST})), HOST)
        self.assertEqual(self.told(parse_transfer), "Missing 'hostname' argument")
        self.assertEqual(self.told(parse_transfer, hostname="x"), "x is not a valid hostname")
        told = self.told(parse_transfer, hostname="a.org/x")
        self.assertIn("contains invalid components", told)

    def test_claim(self) -> None:
        """A token must be there, and fit into a path."""
        asked = parse_claim(Form({"hostname": HOST, "access_token": TOKEN}))
        self.assertEqual(asked, Claim(HOST, TOKEN))
        self.assertNotIn(TOKEN, repr(asked))
        self.assertEqual(self.told(parse_claim), "Missing 'hostname' argument")
        told = self.told(parse_claim, hostname=HOST)
        self.assertEqual(told, "Missing 'access_token' argument")
        for token in ["", "..", "a/b", "a?b", "a#b", "a%2fb", "a b", "ä", "a\n", "x" * 257, "a=="]:
            told = self.told(parse_claim, hostname=HOST, access_token=token)
            self.assertEqual(told, "access_token has invalid format")

    def test_hosts(self) -> None:
        """A host is asked at the default port, under its name in ASCII."""
        for hostname, host in {
            HOST: HOST,
            "CHAT.example.org.": HOST,
            "chat.example.org:443": HOST,
            "münchen.example.org": "xn--mnchen-3ya.example.org",
            "xn--mnchen-3ya.example.org": "xn--mnchen-3ya.example.org",
            "192.0.2.1": "192.0.2.1",
            "[2001:db8::1]:443": "[2001:db8::1]",
        }.items():
            self.assertEqual(host_to_ask(hostname), host)
        for hostname in ["chat.example.org:8443", "chat.example.org:80", "chat.example.org:0443"]:
            error = self.assertRaises(WireError, host_to_ask, hostname)
            self.assertIn("names a port", error.msg)
        error = self.assertRaises(WireError, host_to_ask, "🎉.example.org")
        self.assertEqual(error.msg, "An error occurred while communicating with the host.")


class HostsTests(SynchronousTestCase):
    """A daemon, a server that it knows, and that server's host."""

    def setUp(self) -> None:
        self.zulip = ZulipServers()
        self.agent = RequestTraversalAgent(self.zulip)
        self.daemon = Daemon(agent=self.agent, support="ops@example.org")
        self.daemon.enrol()

    def post(self, path: str, **values: str) -> Answer:
        return self.daemon.send("POST", PATH + path, form(values), FORM)

    def prepare(self, hostname: str = HOST) -> str:
        answer = self.post("/transfer", hostname=hostname)
        self.assertEqual((answer.status, answer.json["result"]), (200, "success"))
        return str(answer.json["verification_secret"])

    def verify(
        self, hostname: str = HOST, client: str = "203.0.113.1", token: str = TOKEN
    ) -> "Deferred[tuple[str, str]]":
        by = self.daemon.clock.seconds() + 12
        work = self.daemon.transfers.verify(Claim(hostname, token), client, by)
        verified = Deferred.fromCoroutine(work)
        self.agent.flush()
        return verified

    def refused(self, *args: Any, **kwargs: Any) -> WireError:
        error: WireError = self.failureResultOf(self.verify(*args, **kwargs), WireError).value
        return error

    def key_works(self, key: str) -> bool:
        headers = {**FORM, "Authorization": basic(ORG_ID, key)}
        path = "/api/v1/remotes/push/unregister/all"
        return self.daemon.send("POST", path, b"user_id=5", headers).status == 200


class TransferTests(HostsTests):
    """The two calls, and what happens between them."""

    def test_the_whole(self) -> None:
        """A server that shows that the host is its own gets new credentials; old ones are dead."""
        rotated = {"zulip_org_id": ORG_ID, "zulip_org_key": KEY, "new_org_key": "n" * 64}
        self.post("", hostname=HOST, contact_email="a@example.org", **rotated)
        self.assertTrue(self.key_works(KEY))  # for a while
        self.zulip.secrets[HOST] = self.prepare()
        uuid, key = self.successResultOf(self.verify())
        self.assertEqual((uuid, len(key)), (ORG_ID, 64))
        self.assertTrue(self.key_works(key))
        self.assertFalse(self.key_works("n" * 64))
        self.assertFalse(self.key_works(KEY))
        self.assertEqual(result(self.daemon.store.server(ORG_ID)).key_digest, digest(key))

    def test_over_http(self) -> None:
        """The second call is answered with id and key, once the host has answered."""
        self.zulip.secrets[HOST] = self.prepare()
        answer = self.post("/verify_challenge", hostname=HOST, access_token=TOKEN)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.json["zulip_org_id"], ORG_ID)
        self.assertTrue(self.key_works(answer.json["zulip_org_key"]))

    def test_unknown_hosts(self) -> None:
        """Of a host that nobody registered, or whose server left, nothing is asked."""
        for hostname in ["other.example.org", "CHAT.example.org"]:
            answer = self.post("/transfer", hostname=hostname)
            self.assertEqual(answer.status, 400)
            self.assertEqual(answer.json["msg"], f"{hostname} not yet registered")
            self.assertEqual(self.refused(hostname).msg, "Registration not found for this hostname")
        result(self.daemon.store.deactivate_server(ORG_ID, 0.0))
        answer = self.post("/transfer", hostname=HOST)
        self.assertEqual(answer.json["msg"], f"{HOST} not yet registered")
        self.assertEqual(self.refused().msg, "Registration not found for this hostname")
        self.assertEqual(self.zulip.asked, [])

    def test_a_port(self) -> None:
        """A registration with a port of its own cannot be transferred, and is told so at once."""
        named = replace(result(self.daemon.store.server(ORG_ID)), hostname="chat.example.org:8443")
        result(
            self.daemon.store.update_server(
                ORG_ID, named.hostname, named.contact_email, None, self.daemon.clock.seconds()
            )
        )
        answer = self.post("/transfer", hostname=named.hostname)
        self.assertEqual(answer.status, 400)
        self.assertIn("names a port", answer.json["msg"])
        self.assertIn("names a port", self.refused(named.hostname).msg)
        self.assertEqual(self.zulip.asked, [])

    def test_not_shown(self) -> None:
        """A host that does not show the secret, or another one, changes nothing."""
        words = {}
        self.prepare()
        words["nothing"] = self.refused().msg
        self.zulip.secrets[HOST] = "x"
        words["junk"] = self.refused().msg
        self.zulip.secrets[HOST] = "00" * 50
        words["forged"] = self.refused().msg
        self.daemon.enrol("9aa61d0b-8ce5-488d-8e9e-fedc346e6836", "k", "other.example.org")
        self.zulip.secrets[HOST] = self.prepare("other.example.org")
        words["another's"] = self.refused().msg
        self.assertEqual(
            words,
            {
                "nothing": "The host reported it has no verification secret.",
                "junk": "The verification secret is malformed",
                "forged": "The verification secret is invalid",
                "another's": "The verification secret is for a different hostname",
            },
        )
        self.assertTrue(self.key_works(KEY))

    def test_too_late(self) -> None:
        """A secret is good for ten seconds."""
        self.zulip.secrets[HOST] = self.prepare()
        self.daemon.clock.advance(10.5)
        self.assertEqual(self.refused().msg, "The verification secret has expired")

    def test_a_slow_host(self) -> None:
        """A caller is answered in time, however slow the host is."""
        self.zulip.silent = True
        verified = self.verify()
        self.daemon.clock.advance(7.9)
        self.assertNoResult(verified)
        self.daemon.clock.advance(0.1)
        error = self.failureResultOf(verified, WireError).value
        self.assertEqual(error.msg, "The request timed out while communicating with the host.")


class LimitTests(HostsTests):
    """How often hosts are asked, and at whose expense."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(40):
            self.daemon.enrol(f"{number:08x}-0000-4000-8000-000000000000", "k", _host(number))

    def test_unknown_hosts_do_not_count(self) -> None:
        """A stranger who names hosts that nobody registered uses nothing up."""
        for number in range(3 * PER_DAY):
            self.assertEqual(self.refused(f"x{number}.example.org").status, 400)
        self.assertEqual(self.refused().status, 400)

    def test_an_address(self) -> None:
        """One client's challenges are limited, which hosts it may name; others' are not."""
        for number in range(PER_ADDRESS):
            self.assertEqual(self.refused(_host(number)).status, 400)
        error = self.refused(_host(20))
        self.assertEqual((error.status, error.code), (429, "RATE_LIMIT_HIT"))
        self.assertEqual(error.data, {"retry-after": DAY})
        self.zulip.secrets[HOST] = self.prepare()
        self.successResultOf(self.verify(client="198.51.100.1"))

    def test_a_host(self) -> None:
        """One host's challenges are limited, whoever asks for them; other hosts' are not."""
        for number in range(PER_HOST):
            self.assertEqual(self.refused(HOST, f"client {number}").status, 400)
        error = self.refused(HOST, "another client")
        self.assertEqual((error.status, error.data), (429, {"retry-after": DAY}))
        self.assertEqual(self.refused(_host(1), "another client").status, 400)

    def test_the_day(self) -> None:
        """All together are limited, too; then nobody is asked, and the operator is named."""
        for number in range(PER_DAY):
            self.assertEqual(self.refused(_host(number), f"client {number}").status, 400)
        asked = len(self.zulip.asked)
        error = self.refused(HOST, "another client")
        self.assertEqual((error.status, error.code, error.msg), (429, "RATE_LIMIT_HIT", USED_UP))
        self.assertEqual((error.data, error.headers), ({}, {}))
        self.assertEqual(self.refused("unknown.example.org", "another client").status, 400)
        self.assertEqual(len(self.zulip.asked), asked)
        self.daemon.clock.advance(DAY)
        self.assertEqual(self.refused(HOST, "another client").status, 400)

    def test_successes_are_given_back(self) -> None:
        """Who shows that a host is its own takes nothing from others."""
        for number in range(PER_DAY + 5):
            host = _host(number)
            self.zulip.secrets[host] = self.prepare(host)
            self.successResultOf(self.verify(host, f"client {number}"))
        self.assertEqual(self.refused().status, 400)


def _host(number: int) -> str:
    return f"chat{number}.example.org"
