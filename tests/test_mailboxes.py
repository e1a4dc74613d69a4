"""Whether a contact address may be real, and what that takes when DNS does not behave."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSQueryRefusedError, DNSServerError
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.envelope import WireError
from bouncerd.mailboxes import Mailboxes
from bouncerd.resolving import QUERY_TIME, Names
from tests.names import DISPOSABLE, NXDOMAIN, SILENCE, RecordedNames, Zone, a, mx, ns, records

NAME = "corp.test"
NO_MX = "corp.test is invalid because it does not have any MX records"
GONE = "corp.test does not exist"
BROKEN = DNSServerError("SERVFAIL")


class MailboxTests(SynchronousTestCase):
    """The domains of contact addresses."""

    def setUp(self) -> None:
        self.clock = Clock()

    def check(self, zone: Zone, email: str = "a@corp.test", within: float = 12.0) -> Deferred[None]:
        mailboxes = Mailboxes(Names(zone, self.clock), self.clock, DISPOSABLE)
        return Deferred.fromCoroutine(mailboxes.check(email, self.clock.seconds() + within))

    def refused(self, zone: Zone, email: str = "a@corp.test") -> str:
        error = self.failureResultOf(self.check(zone, email), WireError).value
        self.assertEqual((error.status, error.code, error.data), (400, "BAD_REQUEST", {}))
        return str(error.msg)

    def fine(self, zone: Zone, email: str = "a@corp.test") -> None:
        self.assertIsNone(self.successResultOf(self.check(zone, email)))

    def zone(self, mx: Any = (), a: Any = (), aaaa: Any = (), ns: Any = ()) -> Zone:
        return Zone(MX={NAME: mx}, A={NAME: a}, AAAA={NAME: aaaa}, NS={NAME: ns})

    def test_mail_is_taken(self) -> None:
        """A domain with a mail server is fine, and nothing else is asked."""
        zone = self.zone(mx=mx())
        self.fine(zone)
        self.assertEqual(zone.asked, [("MX", NAME)])

    def test_no_mail_server(self) -> None:
        """A domain that exists without a mail server is refused, whatever shows that it exists."""
        self.assertEqual(self.refused(self.zone(a=a("192.0.2.1"))), NO_MX)
        self.assertEqual(self.refused(self.zone(aaaa=a("2001:db8::1"))), NO_MX)
        self.assertEqual(self.refused(self.zone(ns=ns())), NO_MX)
        self.assertEqual(self.refused(self.zone(ns=ns(), a=NXDOMAIN, aaaa=BROKEN)), NO_MX)

    def test_mail_is_not_wanted(self) -> None:
        """A domain that says that it takes no mail has no mail server."""
        self.assertEqual(self.refused(self.zone(mx=mx(""), a=a("192.0.2.1"))), NO_MX)

    def test_dns_of_a_closed_network(self) -> None:
        """A DNS that knows no name at all, not even the root, refuses nobody."""
        unknown = {NAME: NXDOMAIN, "test": NXDOMAIN, "": NXDOMAIN}
        zone = Zone(MX=unknown, A=unknown, AAAA=unknown, NS=unknown)
        self.fine(zone)
        zone.answers["MX"] = {**unknown, "test": mx()}
        self.assertEqual(self.refused(zone), GONE)

    def test_no_such_domain(self) -> None:
        """A domain that does not exist is refused."""
        self.assertEqual(self.refused(self.zone()), GONE)
        self.assertEqual(self.refused(self.zone(*[NXDOMAIN] * 4)), GONE)

    def test_aliases(self) -> None:
        """Records that lead elsewhere are no answer by themselves."""
        alias = records(dns.Record_CNAME("other.test"))
        self.assertEqual(self.refused(self.zone(mx=alias, a=alias)), GONE)
        self.fine(self.zone(mx=alias + mx()))

    def test_dns_fails(self) -> None:
        """When DNS does not know, the address is taken: an honest admin must get in."""
        for failure in [BROKEN, DNSQueryRefusedError("REFUSED"), OSError("no route"), TypeError()]:
            self.fine(self.zone(mx=failure))
            self.fine(self.zone(a=failure))
            self.fine(self.zone(mx=NXDOMAIN, a=NXDOMAIN, aaaa=failure, ns=NXDOMAIN))

    def test_dns_is_silent(self) -> None:
        """A question has three seconds, and the last ones share theirs."""
        checked = self.check(self.zone(mx=SILENCE))
        self.clock.advance(QUERY_TIME - 0.1)
        self.assertNoResult(checked)
        self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(checked))
        checked = self.check(self.zone(a=SILENCE, aaaa=SILENCE, ns=SILENCE))
        self.clock.advance(QUERY_TIME)
        self.assertIsNone(self.successResultOf(checked))

    def test_the_whole_is_limited(self) -> None:
        """However slow DNS is, half of the time until the answer is left."""
        checked = self.check(self.zone(mx=SILENCE), within=2.0)
        self.clock.advance(0.9)
        self.assertNoResult(checked)
        self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(checked))
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_throw_away_addresses(self) -> None:
        """Domains of throw-away addresses are refused if the operator has the list of them."""
        for email in ["a@mailinator.com", "a@MAILINATOR.com"]:
            told = self.refused(RecordedNames(), email)
            self.assertEqual(told, "Please use your real email address.")
        self.fine(RecordedNames(), "a@x.mailinator.com")

    def test_hosts_without_dns(self) -> None:
        """Of an address in brackets, or of this host, there is nothing to ask."""
        for email in ["a@[192.0.2.1]", "root@localhost"]:
            zone = Zone()
            self.fine(zone, email)
            self.assertEqual(zone.asked, [])

    def test_names_in_other_scripts(self) -> None:
        """A name is asked for in ASCII, and told as it was sent."""
        zone = Zone(A={"xn--mnchen-3ya.test": a("192.0.2.1")})
        told = self.refused(zone, "a@münchen.test")
        self.assertTrue(told.startswith("münchen.test is invalid"))
        self.assertEqual({name for _kind, name in zone.asked}, {"xn--mnchen-3ya.test"})
