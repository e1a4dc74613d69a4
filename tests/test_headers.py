"""Reading header blocks: what hpack writes is read as it was, and what it refuses is refused."""

from typing import Any

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.frames import ProtocolFault
from bouncerd.headers import MAX_TABLE, HeaderReader

TEXT = st.one_of(
    st.sampled_from([b"content-type", b":status", b"200", b"apns-id", b"application/json", b""]),
    st.binary(max_size=60),
)


def as_bytes(fields: Any) -> list[tuple[bytes, bytes]]:
    """Return plain pairs."""
    return [(bytes(name), bytes(value)) for name, value in fields]


class HeaderReaderTests(SynchronousTestCase):
    """Against hpack, as writer and as reader."""

    @settings(max_examples=300)
    @given(st.data())
    def test_reads_what_hpack_writes(self, data: Any) -> None:
        """Any sequence of blocks, with and without Huffman coding, with table sizes that change."""
        encoder, reader = hpack.Encoder(), HeaderReader(65_536)
        for _ in range(data.draw(st.integers(1, 8))):
            if not data.draw(st.integers(0, 3)):
                encoder.header_table_size = data.draw(st.integers(0, MAX_TABLE))
            fields = data.draw(st.lists(st.tuples(TEXT, TEXT, st.booleans()), max_size=12))
            block = encoder.encode(fields, huffman=data.draw(st.booleans()))
            self.assertEqual(reader.read(block), [(name, value) for name, value, _ in fields])

    @settings(max_examples=500)
    @given(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
    def test_agrees_with_hpack_on_anything(self, blocks: list[bytes]) -> None:
        """Arbitrary bytes are read as hpack reads them, or refused with a fault of the peer's."""
        reader, oracle = HeaderReader(65_536), hpack.Decoder(max_header_list_size=65_536)
        for block in blocks:
            try:
                expected = as_bytes(oracle.decode(block, raw=True))
            except hpack.HPACKError:
                expected = None
            try:
                read = reader.read(block)
            except ProtocolFault:
                return  # the connection ends: stricter than hpack is allowed
            self.assertIsNotNone(expected, block)
            self.assertEqual(read, expected)

    def test_a_bomb_is_refused(self) -> None:
        """A few bytes that stand for megabytes of fields end the connection."""
        reader = HeaderReader(65_536)
        big = hpack.Encoder().encode([(b"x", b"y" * 3_000)], huffman=False)
        reader.read(big)
        with self.assertRaises(ProtocolFault):
            reader.read(b"\xbe" * 1_000)

    def test_refusals(self) -> None:
        """Index 0, an index beyond the table, cut strings, endless integers, late size updates."""
        for block in (
            b"\x80",
            b"\xbe",
            b"\x00\x05ab",
            b"\x00",
            b"\xff" * 9,
            b"\x88\x20",
            b"\x3f\xe2\x1f",
        ):
            with self.assertRaises(ProtocolFault):
                HeaderReader(65_536).read(block)
