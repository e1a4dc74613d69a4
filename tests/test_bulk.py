"""Long forms and lists: as they would be read at once, but in pieces."""

import json
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.bulk import InPieces, read_list, read_long_form, read_scalar
from bouncerd.envelope import WireError, bad_request
from bouncerd.forms import Form, read_form

_T = TypeVar("_T")

URLENCODED = "application/x-www-form-urlencoded"


def finished(work: InPieces[_T]) -> tuple[_T, int]:
    """Do all of it; return what comes of it, and how often it paused."""
    pauses = 0
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value, pauses
        pauses += 1


def long_form(content: bytes, content_type: str = URLENCODED, query: bytes = b"") -> Form:
    return finished(read_long_form(content, content_type, query))[0]


def told(work: InPieces[object]) -> str:
    """Return what its sender is told is wrong."""
    try:
        finished(work)
    except WireError as error:
        return error.msg
    raise AssertionError("nothing is wrong with it")


class FormTests(SynchronousTestCase):
    """Forms of megabytes."""

    @given(
        st.lists(st.tuples(st.text(), st.text())),
        st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3),
        st.booleans(),
    )
    @example([("a", "1"), ("a", "2"), ("", "x"), ("b", "")], [("a", "0")], True)
    def test_like_a_short_one(
        self, fields: list[tuple[str, str]], query: list[tuple[str, str]], plus: bool
    ) -> None:
        """A server cannot tell that its data is read in another manner than its other requests."""
        spell = quote_plus if plus else quote
        content, asked = (
            "&".join(f"{spell(name)}={spell(value)}" for name, value in pairs).encode()
            for pairs in (fields, query)
        )
        expected = read_form(content, URLENCODED, asked)
        self.assertEqual(long_form(content, query=asked)._fields, expected._fields)

    @given(st.text(alphabet="a=&+%é4C3A9"))
    def test_odd_ones(self, text: str) -> None:
        """Nor where it is spelled oddly."""
        content = text.encode()
        self.assertEqual(long_form(content)._fields, read_form(content, URLENCODED, b"")._fields)

    def test_cut_anywhere(self) -> None:
        """Where it is cut into pieces shows nowhere."""
        for shift in range(12):
            value = "x" * shift + "é𝄞+% " * 9000
            for spelled in (quote(value), value.replace("%", "%25").replace("+", "%2B")):
                form, pauses = finished(
                    read_long_form(f"v={spelled}&w=1".encode(), URLENCODED, b"")
                )
                self.assertEqual((form.text("v"), form.text("w")), (value, "1"))
                self.assertGreater(pauses, 3)

    def test_junk(self) -> None:
        """What is no text is replaced, in pieces too."""
        form, pauses = finished(read_long_form(b"v=" + b"\xff%" * 50_000, URLENCODED, b""))
        self.assertEqual(form.text("v"), "\N{REPLACEMENT CHARACTER}%" * 50_000)
        self.assertGreater(pauses, 5)

    def test_other_types(self) -> None:
        """A multipart form is read if it is short; a body of another type is no form."""
        content = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
        multipart = "multipart/form-data; boundary=x"
        self.assertEqual(long_form(content, multipart).text("a"), "1")
        self.assertIsNone(long_form(b"a=1", "application/json").maybe_text("a"))
        self.assertIn(URLENCODED, told(read_long_form(content + b" " * 300_000, multipart, b"")))

    def test_many_fields(self) -> None:
        """A form has up to a thousand parameters, whether long or short."""
        self.assertEqual(long_form(b"a=1&" * 999 + b"b=2").text("b"), "2")
        message = told(read_long_form(b"&" * 25_000_000, URLENCODED, b""))
        self.assertEqual(message, "Too many parameters")


def listed(text: str, limit: int = 1000) -> list[Any]:
    return finished(read_list("rows", text, lambda item, path: item, limit))[0]


def wrong(text: str, limit: int = 1000) -> str:
    return told(read_list("rows", text, _integer, limit))


def _integer(item: object, path: str) -> int:
    if type(item) is not int:
        raise bad_request(f"{path} is not an integer")
    return item


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


class ListTests(SynchronousTestCase):
    """JSON lists of megabytes."""

    @given(st.lists(json_values, max_size=5), st.sampled_from([None, 0, 3]), st.booleans())
    def test_like_json(self, items: list[Any], indent: int | None, escaped: bool) -> None:
        """A list is what JSON says it is, however it is laid out."""
        text = json.dumps(items, indent=indent, ensure_ascii=escaped)
        self.assertEqual(listed(f" {text}\n"), items)

    @given(st.text(alphabet='[]{},:"1e- \\ntrufals'))
    def test_no_json(self, text: str) -> None:
        """What is no JSON list is refused, as it would be if it were read at once."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            self.assertEqual(wrong(text), "rows is not valid JSON")
            return
        if isinstance(value, list):
            self.assertEqual(listed(text), value)
        else:
            self.assertEqual(wrong(text), "rows is not a list")

    def test_no_list(self) -> None:
        """Another JSON value is no list; one too long to be looked at is told so, too."""
        for text in ["{}", "null", "1", '"[]"', " true ", '"' + "x" * 100_000 + '"']:
            self.assertEqual(wrong(text), "rows is not a list")
        for text in ["", "x", "[", "[1", "[1,", "[1,]", "[]]", "[1] 2", "[,1]", "[1 2]", "[NaN]",
                     "[1e999]", '["\\ud800"]', "[" * 5000, "[" * 300 + "]" * 300]:  # fmt: skip
            self.assertEqual(wrong(text), "rows is not valid JSON", text[:20])

    def test_mistakes(self) -> None:
        """The first wrong row is told of, unless it is no JSON at all or too long."""
        self.assertEqual(wrong('[1, "x", null, 2]'), "rows[1] is not an integer")
        self.assertEqual(wrong('[1, "x", null, 2'), "rows is not valid JSON")
        self.assertEqual(wrong('["x"] x'), "rows is not valid JSON")

    def test_limit(self) -> None:
        """One row too many is refused, and costs no more than the rows before it."""
        self.assertEqual(listed("[1,1,1]", 3), [1, 1, 1])
        told_ = "rows is too long (limit: 3 rows)"
        self.assertEqual(wrong("[1,1,1,1]", 3), told_)
        self.assertEqual(wrong('["x",1,1,1,', 3), told_)

    def test_pauses(self) -> None:
        """However long a list is, others have their turn after every few rows."""
        rows = [{"name": "é" * 80, "id": number} for number in range(10_000)]
        text = json.dumps(rows, ensure_ascii=False)
        found, pauses = finished(read_list("rows", text, lambda item, _: item, 10_000))
        self.assertEqual(found, rows)
        self.assertGreaterEqual(pauses, 200)

    def test_long_rows(self) -> None:
        """A row longer than any server sends is refused before it is taken in."""
        row = json.dumps("x" * 16_000)
        self.assertEqual(len(listed(f"[{row}, {row}, {row}]")), 3)
        message = wrong("[" + json.dumps("x" * 1_000_000) + "]")
        self.assertIn("a row of it is longer than 16384 characters", message)


class ScalarTests(SynchronousTestCase):
    """Short parameters beside the long ones."""

    def test_scalar(self) -> None:
        """A short parameter is JSON, and refused unread if it is not short."""
        form = Form({"a": '"9.2"', "b": "x", "c": "[" * 70_000})
        self.assertEqual(read_scalar(form, "a"), "9.2")
        self.assertIsNone(read_scalar(form, "d"))
        self.assertEqual(self.failed(form, "b"), "b is not valid JSON")
        self.assertEqual(self.failed(form, "c"), "c is too long (limit: 65536 characters)")

    def failed(self, form: Form, name: str) -> str:
        return str(self.assertRaises(WireError, read_scalar, form, name).msg)
