"""Strict JSON, and the outer form of answers."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.envelope import (
    MAX_DEPTH,
    WireError,
    bad_request,
    compact,
    parse_json,
    render_error,
    render_success,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


class ParseTests(SynchronousTestCase):
    """What counts as JSON."""

    def refused(self, text: str) -> None:
        error = self.assertRaises(ValueError, parse_json, text)
        self.assertEqual(str(error), "not JSON")
        self.assertIsNone(error.__cause__)
        self.assertIsNone(error.__context__, "the parser's own error holds the text")

    @given(VALUES)
    def test_what_we_write_we_read(self, value: object) -> None:
        """JSON of any shape comes through unchanged, numbers beyond 64 bits included."""
        self.assertEqual(parse_json(compact(value).decode()), value)

    def test_not_json(self) -> None:
        """What only looks like JSON is refused, and not repeated."""
        for text in ["", "{", "nul", "{} {}", "01", "'a'", '{"a":1,}', "\ufeff{}", '"\n"', "[1 2]"]:
            self.refused(text)

    def test_numbers_that_are_none(self) -> None:
        """Not-a-number, infinity and numbers without end are refused."""
        for text in ["NaN", "[Infinity]", "-Infinity", "1e999", "-1e400", "9" * 5000]:
            self.refused(text)

    def test_big_integers(self) -> None:
        """An integer beyond 64 bits stays exact."""
        self.assertEqual(parse_json("12345678901234567890123"), 12345678901234567890123)

    def test_half_a_surrogate_pair(self) -> None:
        """An escape that is no character is refused; a pair of them is one."""
        for text in ['"\\ud83d"', '["\\uDC00"]', '{"\\ud83d":1}', '"\\udc00\\ud83d"']:
            self.refused(text)
        self.assertEqual(parse_json('"\\ud83c\\udf89"'), "🎉")
        self.assertEqual(parse_json('"\\\\ud83d"'), "\\ud83d")

    def test_depth(self) -> None:
        """Nesting has a limit, whatever the nesting is of; width has none."""
        for start, end in [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")]:
            steps = len(start.replace('"a":', ""))
            deep = MAX_DEPTH // steps
            parse_json(start * deep + "1" + end * deep)
            self.refused(start * (deep + 1) + "1" + end * (deep + 1))
            self.refused(start * 100_000)
        self.assertEqual(len(parse_json("[" + "[]," * 5000 + "[]]")), 5001)  # type: ignore[arg-type]

    def test_duplicate_keys(self) -> None:
        """Of two equal keys the last one counts, as it does for the reference."""
        self.assertEqual(parse_json('{"a":1,"a":2}'), {"a": 2})


class RenderTests(SynchronousTestCase):
    """What answers look like."""

    def test_success(self) -> None:
        """A success says so, ends in a line feed, and names what was ignored in order."""
        self.assertEqual(render_success(), b'{"result":"success","msg":""}\n')
        body = json.loads(render_success({"created": True}, ["b", "a"]))
        self.assertTrue(body["created"])
        self.assertEqual(body["ignored_parameters_unsupported"], ["a", "b"])

    def test_error(self) -> None:
        """An error has its message, its code and its data; some have no code."""
        body = json.loads(render_error(bad_request("Nö", code="X", role="r")))
        self.assertEqual(body, {"result": "error", "msg": "Nö", "code": "X", "role": "r"})
        self.assertNotIn("code", json.loads(render_error(WireError(405, None, "No"))))

    def test_an_error_does_not_tell(self) -> None:
        """What an error says to its caller is not in its own text, which may be logged."""
        error = bad_request("hush", var_name="hush")
        self.assertNotIn("hush", str(error) + repr(error))
