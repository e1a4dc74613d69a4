"""The secret of a transfer: whose it is, and how long it is good."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.envelope import WireError
from bouncerd.proofs import Proofs

HOST = "chat.example.org"
NOW = 1_800_000_000.5
SECRET = bytes(range(32))


class ProofTests(SynchronousTestCase):
    """Secrets as hosts bring them back."""

    def setUp(self) -> None:
        self.proofs = Proofs(SECRET)
        self.text = self.proofs.issue(HOST, NOW)

    def told(self, text: str, hostname: str = HOST, now: float = NOW) -> str:
        error = self.assertRaises(WireError, self.proofs.check, text, hostname, now)
        self.assertEqual((error.status, error.code), (400, "BAD_REQUEST"))
        return str(error.msg)

    def test_good(self) -> None:
        """A secret is good for its host for ten seconds, also after a restart or elsewhere."""
        for later in [-1.0, 0.0, 9.9, 10.0]:
            Proofs(SECRET).check(self.text, HOST, NOW + later)

    def test_too_late(self) -> None:
        """After that it has expired; one from a future beyond any clock's error has, too."""
        for later in [10.1, 3600.0, -11.0]:
            told = self.told(self.text, now=NOW + later)
            self.assertEqual(told, "The verification secret has expired")

    def test_another_host(self) -> None:
        """It is good for one host only, to the letter."""
        for hostname in ["other.example.org", "CHAT.example.org", HOST + ".", HOST[:-1], ""]:
            told = self.told(self.text, hostname)
            self.assertEqual(told, "The verification secret is for a different hostname")

    def test_forged(self) -> None:
        """What we did not make is invalid: changed, cut, of another store, made up."""
        others = Proofs(bytes(32)).issue(HOST, NOW)
        for text in [others, self.text[:-2], self.text + "00", "00" * 60, "", "00"]:
            self.assertEqual(self.told(text), "The verification secret is invalid")

    def test_malformed(self) -> None:
        """What is not even base16 is told apart."""
        for text in ["x", self.text[:-1], self.text.lower(), "ü" * 80, "null", "0x00"]:
            self.assertEqual(self.told(text), "The verification secret is malformed")

    @given(st.integers(0, 71), st.integers(1, 255))
    def test_any_change(self, place: int, change: int) -> None:
        """No byte can be changed."""
        whole = bytearray.fromhex(Proofs(SECRET).issue(HOST * 2, NOW))
        whole[place] ^= change
        with self.assertRaises(WireError):
            Proofs(SECRET).check(whole.hex().upper(), HOST * 2, NOW)
