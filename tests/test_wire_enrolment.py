"""Which servers may enrol, and under which names (bouncer-api.md 4)."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.basicauth import digest
from bouncerd.enrolment import (
    check_email,
    check_hostname,
    check_uuid,
    parse_enrolment,
    split_port,
)
from bouncerd.envelope import WireError
from bouncerd.forms import Form

FIELDS = {
    "zulip_org_id": "5c1f8a52-3d0e-4b7e-9a51-0f2f6d1c7a10",
    "zulip_org_key": "k" * 64,
    "hostname": "chat.example.org",
    "contact_email": "admin@example.org",
}


class ParseTests(SynchronousTestCase):
    """`server/register` as a whole."""

    def told(self, **changes: str) -> str:
        return str(self.assertRaises(WireError, parse_enrolment, Form(FIELDS | changes)).msg)

    def test_good(self) -> None:
        """A server's facts are taken as sent; of keys only the digest is kept."""
        asked = parse_enrolment(Form(FIELDS | {"new_org_key": "n" * 64}))
        self.assertEqual(asked.hostname, "chat.example.org")
        self.assertEqual(asked.key_digest, digest("k" * 64))
        self.assertEqual(asked.new_key_digest, digest("n" * 64))
        self.assertNotIn("kkkk", repr(asked))

    def test_order(self) -> None:
        """Of several mistakes the first in the contract's order is told."""
        bad = {"hostname": "x" * 129, "contact_email": "x", "zulip_org_id": "x" * 36}
        self.assertEqual(self.told(**bad), "hostname is too long (limit: 128 characters)")
        bad |= {"hostname": "x", "new_org_key": "short"}
        self.assertEqual(self.told(**bad), "new_org_key is not length 64")
        del bad["new_org_key"]
        self.assertEqual(self.told(**bad), "x is not a valid hostname")
        bad["hostname"] = "chat.example.org"
        self.assertEqual(self.told(**bad), "Enter a valid email address.")
        bad["contact_email"] = "a@example.org"
        parse_enrolment(Form(FIELDS | bad))  # the id comes last, after the domain of the address

    def test_uuids(self) -> None:
        """Only a version 4 UUID in its own normal form is an id."""
        for uuid in [
            "5C1F8A52-3D0E-4B7E-9A51-0F2F6D1C7A10",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "{5c1f8a523d0e4b7e9a510f2f6d1c7a10}--",
        ]:
            error = self.assertRaises(WireError, check_uuid, uuid)
            self.assertEqual(error.msg, "Invalid UUID")
        check_uuid(FIELDS["zulip_org_id"])

    def test_ports(self) -> None:
        """A port is told from the colons of an address."""
        for text, parts in {
            "a.org": ("a.org", ""),
            "a.org:8443": ("a.org", "8443"),
            "[2001:db8::1]": ("[2001:db8::1]", ""),
            "[2001:db8::1]:443": ("[2001:db8::1]", "443"),
        }.items():
            self.assertEqual(split_port(text), parts)


class HostnameTests(SynchronousTestCase):
    """Host names."""

    def test_good(self) -> None:
        """Names, addresses and ports that URLs can have are taken."""
        for text in [
            "chat.example.org", "LOCALHOST", "localhost:8443", "a.b-c.d1.org:1", "192.0.2.77:443",
            "[2001:db8::1]", "[2001:db8::1]:65535", "example.org.",
            "xn--mnchen-3ya.example.xn--p1ai", "münchen.example.org",
            "1.2.example", "例え.テスト", "🎉.example.org",
        ]:  # fmt: skip
            check_hostname(text)

    def test_bad(self) -> None:
        """What is no host is refused in the caller's own spelling."""
        for text in [
            "", "chat", "a_b.org", "-a.org", "a-.org", "a..org", ".org", "a.o", "a.1", "a.org1",
            "a b.org", "a.org ", "a.org\n", "a.org:", "a.org:123456", "a.org:x", "a.org:１",
            "[::g]", "[::1", "::1", "[fe80::1%eth0]", "256.1.1.1", "01.2.3.4", "http://a.org",
            "@a@b.org", "a" * 64 + ".org", "a.org\0", "%61.org", "a.org\\", "[192.0.2.1]",
        ]:  # fmt: skip
            error = self.assertRaises(WireError, check_hostname, text)
            self.assertEqual(error.msg, f"{text} is not a valid hostname", text)

    def test_more_than_a_host(self) -> None:
        """A path, a query, a fragment or a user is not part of a host name."""
        for text in ["a.org/", "a.org/x", "a.org?x=1", "a.org#x", "user:pw@a.org"]:
            error = self.assertRaises(WireError, check_hostname, text)
            self.assertIn("contains invalid components", error.msg)

    @given(st.text(max_size=128))
    def test_anything(self, text: str) -> None:
        """No text makes it fail in any other way."""
        try:
            check_hostname(text)
        except WireError as error:
            self.assertEqual(error.status, 400)


class EmailTests(SynchronousTestCase):
    """Contact addresses."""

    def test_good(self) -> None:
        """Addresses that somebody may read are taken."""
        for text in [
            "a@example.org", "a.b+c@sub.example.com", "root@localhost", "a@[192.0.2.1]",
            "a@[2001:db8::1]", "a@münchen.example.org", '"a"@example.org', "O'Hara@example.org",
        ]:  # fmt: skip
            check_email(text)

    def test_bad(self) -> None:
        """What is no address is refused."""
        for text in [
            "", "a", "@example.org", "a@", "a@b@example.org", ".a@example.org", "a..b@example.org",
            '"a b"@example.org', "ü@example.org", "a@example", "a@-a.org", "a@a.o", "a@[::g]",
            "Admin <a@example.org>", "a@example.org\n", "a b@example.org", "a@example..org",
            "a" * 320 + "@example.org", "a@[fe80::1%eth0]", "a@a_b.org",
        ]:  # fmt: skip
            error = self.assertRaises(WireError, check_email, text)
            self.assertEqual(error.msg, "Enter a valid email address.", text)

    def test_the_example_domain(self) -> None:
        """Nobody reads mail at example.com."""
        error = self.assertRaises(WireError, check_email, "a@EXAMPLE.com")
        self.assertEqual(error.msg, "Invalid email address.")

    @given(st.text(max_size=330))
    def test_anything(self, text: str) -> None:
        """No text makes it fail in any other way."""
        try:
            check_email(text)
        except WireError as error:
            self.assertEqual(error.status, 400)
