"""A stranger's answer: read if it makes sense, and never a reason to stop."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.answers import LONGEST_WAIT, json_object, number, retry_after

NOW = 1_784_280_000.0  # Fri, 17 Jul 2026 09:20:00 GMT


class JsonObjectTests(SynchronousTestCase):
    """Bodies."""

    def test_objects_are_read(self) -> None:
        """A JSON object is returned as it is."""
        self.assertEqual(json_object(b'{"reason": "Shutdown"}'), {"reason": "Shutdown"})

    def test_anything_else_is_an_empty_object(self) -> None:
        """Web pages, other JSON, cut-off JSON and bottomless nesting say nothing."""
        for body in (b"", b"<html>", b"[1]", b'"a"', b'{"reason"', b"\xff\xfe{", b"[" * 16_000):
            self.assertEqual(json_object(body), {}, body[:20])

    @given(st.binary(max_size=300))
    def test_no_bytes_raise(self, body: bytes) -> None:
        """Whatever a body holds, reading it does not fail."""
        self.assertIsInstance(json_object(body), dict)


class NumberTests(SynchronousTestCase):
    """Numbers in JSON."""

    def test_numbers_are_read_quoted_or_not(self) -> None:
        """An integer, a fraction and digits in quotes are numbers."""
        self.assertEqual([number(3599), number(0.5), number("30")], [3599.0, 0.5, 30.0])

    def test_anything_else_is_none(self) -> None:
        """Truth values, text, NaN and what no float holds are not."""
        for value in (True, None, "soon", [1], float("nan"), float("inf"), 10**400, "1e999"):
            self.assertIsNone(number(value))


class RetryAfterTests(SynchronousTestCase):
    """How long we let ourselves be told to wait."""

    def test_seconds_and_dates(self) -> None:
        """Both forms are understood."""
        self.assertEqual(retry_after(b"120", NOW), 120.0)
        self.assertEqual(retry_after(b"Fri, 17 Jul 2026 09:21:30 GMT", NOW), 90.0)

    def test_never_over_an_hour_nor_into_the_past(self) -> None:
        """An absurd wait is an hour; a time gone by is no wait."""
        self.assertEqual(retry_after(b"1000000000", NOW), LONGEST_WAIT)
        self.assertEqual(retry_after(b"Fri, 17 Jul 2099 09:20:00 GMT", NOW), LONGEST_WAIT)
        self.assertEqual(retry_after(b"Thu, 16 Jul 2026 09:20:00 GMT", NOW), 0.0)
        self.assertEqual(retry_after(b"0", NOW), 0.0)

    def test_what_is_neither_counts_as_absent(self) -> None:
        """A negative number, text and an endless value are as if nothing had been said."""
        for value in (None, b"", b"-5", b"soon", b"1.5", b"9" * 100, b"Fri, 99 Jul 2026 25:00:00"):
            self.assertIsNone(retry_after(value, NOW), value)

    @given(st.binary(max_size=64))
    def test_no_value_raises(self, value: bytes) -> None:
        """Whatever the field holds, there is a wait within bounds or none."""
        wait = retry_after(value, NOW)
        self.assertTrue(wait is None or 0 <= wait <= LONGEST_WAIT)
