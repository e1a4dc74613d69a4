"""Whose request it is, and which addresses are the internet's."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.addresses import IPNetwork, block_of, client_address, is_public, read_address

PROXIES: list[IPNetwork] = [IPv4Network("10.0.0.0/8"), IPv4Network("127.0.0.1/32"),
                            IPv6Network("fd00::/8")]  # fmt: skip


class ClientTests(SynchronousTestCase):
    """Who asks, where proxies may stand between."""

    def client(self, peer: str | None, *forwarded: str, trusted: bool = True) -> str:
        return str(client_address(peer, forwarded, PROXIES if trusted else []))

    def test_no_proxy(self) -> None:
        """Without a proxy it is the peer, whatever it says of others."""
        self.assertEqual(self.client("198.51.100.7"), "198.51.100.7")
        self.assertEqual(self.client("198.51.100.7", "203.0.113.1"), "198.51.100.7")
        self.assertEqual(self.client("10.0.0.1", "203.0.113.1", trusted=False), "10.0.0.1")

    def test_behind_a_proxy(self) -> None:
        """A trusted proxy says who asked it; what stands further left is hearsay."""
        self.assertEqual(self.client("10.0.0.1", "203.0.113.1"), "203.0.113.1")
        self.assertEqual(self.client("10.0.0.1", "192.0.2.9, 203.0.113.1"), "203.0.113.1")
        self.assertEqual(self.client("10.0.0.1", "192.0.2.9", "203.0.113.1"), "203.0.113.1")

    def test_behind_several(self) -> None:
        """Trusted proxies may stand in a row, and be all that there is."""
        self.assertEqual(self.client("10.0.0.1", "203.0.113.1, 10.2.2.2, fd00::3"), "203.0.113.1")
        self.assertEqual(self.client("10.0.0.1", "10.3.3.3,10.2.2.2"), "10.3.3.3")
        self.assertEqual(self.client("10.0.0.1"), "10.0.0.1")

    def test_spellings(self) -> None:
        """Ports, brackets, zones and mapped addresses are seen through."""
        for spelled, meant in {
            "203.0.113.1:4711": "203.0.113.1",
            "[2001:db8::1]:4711": "2001:db8::1",
            "[2001:db8::1]": "2001:db8::1",
            " 2001:DB8::1 ": "2001:db8::1",
            "::ffff:203.0.113.1": "203.0.113.1",
            "fe80::1%eth0": "fe80::1",
        }.items():
            self.assertEqual(self.client("::ffff:10.0.0.1", spelled), meant)

    def test_a_proxy_that_names_nobody(self) -> None:
        """Where no address is told the proxy that should have stands for itself."""
        for silent in ["", "unknown", "_hidden", "203.0.113.1, ", "203.0.113.1, x, 10.2.2.2"]:
            self.assertIn(self.client("10.0.0.1", silent), ("10.0.0.1", "10.2.2.2"), silent)

    def test_a_unix_socket(self) -> None:
        """Who comes through a unix socket is on this host: believed if 127.0.0.1 is."""
        self.assertEqual(self.client(None, "203.0.113.1"), "203.0.113.1")
        self.assertEqual(self.client(None, "203.0.113.1", trusted=False), "127.0.0.1")

    @given(st.lists(st.text(max_size=60), max_size=3))
    def test_anything(self, forwarded: list[str]) -> None:
        """No header makes it fail, and only a trusted peer's counts."""
        self.client("10.0.0.1", *forwarded)
        self.assertEqual(self.client("198.51.100.7", *forwarded), "198.51.100.7")


class BlockTests(SynchronousTestCase):
    """What one client can have."""

    def test_blocks(self) -> None:
        """An address of IPv4, and a /64 of IPv6, are one client."""
        for address, block in {
            "203.0.113.1": "203.0.113.1",
            "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
            "2001:db8:1:2::": "2001:db8:1:2::/64",
            "2001:db8:1:3::1": "2001:db8:1:3::/64",
        }.items():
            self.assertEqual(block_of(ip_address(address)), block)


class PublicTests(SynchronousTestCase):
    """Where we may connect to on a stranger's word."""

    def test_public(self) -> None:
        """Addresses of the internet are fine."""
        for text in ["8.8.8.8", "1.1.1.1", "93.184.216.34", "223.255.255.1", "2606:4700::1111",
                     "2a01:4f8::1", "2001:4860:4860::8888", "2400::1"]:  # fmt: skip
            self.assertTrue(is_public(ip_address(text)), text)

    def test_not_public(self) -> None:
        """This host's, private, link-local, shared, documentation, tunnels, multicast: never."""
        for text in [
            "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
            "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1",
            "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.88.99.1",
            "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8",
            "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1",
            "2001:2::1", "2001:db8::1", "2002:7f00:1::1", "2002:808:808::1", "3fff::1", "fc00::1",
            "fd12::1", "fe80::1", "fec0::1", "ff02::1", "ff0e::1", "4000::1", "5f00::1",
        ]:  # fmt: skip
            self.assertFalse(is_public(ip_address(text)), text)

    @given(st.ip_addresses(v=6))
    def test_ipv6(self, address: object) -> None:
        """Of IPv6 nothing is public but what is given out, less what carries other addresses."""
        address = ip_address(str(address))
        if is_public(address):
            self.assertIn(address, ip_network("2000::/3"))
            self.assertNotIn(address, ip_network("2002::/16"))
            self.assertNotIn(address, ip_network("2001::/23"))

    def test_reading(self) -> None:
        """Other bases and shortened forms are no addresses: nothing is guessed."""
        for text in ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "localhost", "", "::1::"]:
            self.assertIsNone(read_address(text), text)
