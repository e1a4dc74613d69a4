"""Sealed text: links and cookies that only we can make."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.seals import Seal, key_for

KEY = key_for(b"s" * 32, "test")


class SealTests(SynchronousTestCase):
    """What comes back of what was sealed."""

    def test_lifetime(self) -> None:
        """A link works until its time is up, and not a second longer."""
        sealed = Seal(KEY, 7200).close("ü text", 1000.0)
        self.assertEqual(Seal(KEY, 7200).open(sealed, 8200.0), "ü text")
        self.assertIsNone(Seal(KEY, 7200).open(sealed, 8201.0))

    def test_alphabet(self) -> None:
        """It can stand in a path and in a cookie as it is."""
        for text in ("", "a", "ab", "abc", "\xff" * 50):
            self.assertRegex(Seal(KEY, 60).close(text, 1.8e9), r"^[A-Za-z0-9_-]+$")

    @given(st.integers(0, 200), st.integers(1, 255))
    def test_changed(self, place: int, change: int) -> None:
        """Nobody can change what it says, nor its end."""
        sealed = bytearray(Seal(KEY, 60).close("server realm", 1000.0).encode())
        place %= len(sealed)
        # The last letter has bits that mean nothing.
        sealed[place] = sealed[place] ^ change
        found = Seal(KEY, 60).open(sealed.decode("latin-1"), 1000.0)
        self.assertIn(found, (None,) if place < len(sealed) - 1 else (None, "server realm"))

    @given(st.text(max_size=120))
    def test_junk(self, text: str) -> None:
        """Whatever stands in its place is no seal, and no fault of ours."""
        self.assertIsNone(Seal(KEY, 60).open(text, 1000.0))

    def test_purposes(self) -> None:
        """What was sealed for one purpose opens for no other, nor with another store's secret."""
        sealed = Seal(key_for(b"s" * 32, "link"), 60).close("x", 1000.0)
        for secret, purpose in [(b"s" * 32, "cookie"), (b"t" * 32, "link")]:
            self.assertIsNone(Seal(key_for(secret, purpose), 60).open(sealed, 1000.0))
