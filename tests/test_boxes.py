"""Boxes closed by PyNaCl, as the apps do, and opened by us."""

from base64 import b64encode
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.boxes import Boxes, decoded
from tests.sealing import BOXES, CURRENT_KEY, FOREIGN_KEY, OLD_KEY, base64, public, sealed


class BoxesTests(SynchronousTestCase):
    """Any of our keys opens what was closed to it."""

    def test_public_keys(self) -> None:
        """An app carries a public key in base64; the operator can tell which is the current one."""
        self.assertEqual(BOXES.public_keys, [public(CURRENT_KEY), public(OLD_KEY)])

    def test_every_key(self) -> None:
        """Apps that still carry the key before go on working."""
        for key in (OLD_KEY, CURRENT_KEY):
            self.assertIn(public(key), BOXES)
            self.assertEqual(BOXES.open(public(key), sealed(b"a phone", key)), b"a phone")

    def test_foreign_key(self) -> None:
        """A key that is not ours, or is ours in another spelling, is none of ours."""
        key = public(CURRENT_KEY)
        for other in (public(FOREIGN_KEY), key.rstrip("="), f" {key}", key.lower(), "", "é"):
            self.assertNotIn(other, BOXES)
        self.assertNotIn(key, Boxes())

    def test_not_opened(self) -> None:
        """What cannot be opened is told from what can, whatever it is."""
        box = sealed(b"a phone")
        other_end = box[:-8] + ("A" * 8 if box[-8:] != "A" * 8 else "B" * 8)
        for wrong in (
            "", "x", "=", "é", "\ud800", box[:-1], box + "=", f" {box}", box.replace("=", ""),
            box + "\n", box[:40], other_end, sealed(b"a phone", OLD_KEY), base64(bytes(48)),
            base64(bytes(100)), base64(b"\xff" * 100), base64(b"x" * 47),
        ):  # fmt: skip
            if wrong != box:
                self.assertIsNone(BOXES.open(public(CURRENT_KEY), wrong), wrong)

    def test_vectors(self) -> None:
        """Keys are those of RFC 7748 (6.1, Bob), and a box made once before opens for ever."""
        bob = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
        public_key = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
        (ours,) = Boxes([bytes.fromhex(bob)]).public_keys
        self.assertEqual(ours, base64(bytes.fromhex(public_key)))
        box = (
            "F/OW7KZUbDvcygLn0DZY6KOSnNJj9e//7EaLKCkXcy6vQpzjMkfkmAQvHIhi4mEk1wr8XOE5kZ7JkXUq12zt"
            "yIyYUZ9mINvu/zxoYR+6XPgpvaGAzFg5ekvkaKP5rt/7iS3AqnfjpBswlc6/VKvKuve5X6XEMKZttX7tdraQ"
            "WUv5F3uMGnE8HMKbQiU="
        )
        boxes = Boxes([bytes(range(32))])
        self.assertEqual(boxes.public_keys, ["j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8="])
        self.assertEqual(
            boxes.open(boxes.public_keys[0], box),
            b'{"token_kind":"apns","token":"c0ffee","timestamp":1771900000,'
            b'"ios_app_id":"org.example.App"}',
        )

    def test_decoded(self) -> None:
        """Base64 is the standard one, padded, with nothing in between."""
        self.assertEqual(decoded("+wKIhyAx/Eg="), bytes.fromhex("fb0288872031fc48"))
        for wrong in ("+wKIhyAx/Eg", "-wKIhyAx_Eg=", "+wKI hyAx/Eg=", "+wKI\nhyAx/Eg=", "ü", "a"):
            self.assertIsNone(decoded(wrong), wrong)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """Nothing that somebody makes up opens, and nothing raises."""
        self.assertIsNone(BOXES.open(public(CURRENT_KEY), b64encode(data).decode()))

    def test_any_flip(self) -> None:
        """A box with one bit changed does not open."""
        random = Random(5)
        box = bytearray(decoded(sealed(b"x" * 50)) or b"")
        for _ in range(50):
            at, bit = random.randrange(len(box)), 1 << random.randrange(8)
            box[at] ^= bit
            self.assertIsNone(BOXES.open(public(CURRENT_KEY), base64(bytes(box))), at)
            box[at] ^= bit
