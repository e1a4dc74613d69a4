"""Form parameters, however they come."""

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.envelope import WireError
from bouncerd.forms import Form, read_form, unasked

URLENCODED = "application/x-www-form-urlencoded"


class ReadTests(SynchronousTestCase):
    """From bytes to parameters."""

    def value(
        self, content: bytes, content_type: str = URLENCODED, query: bytes = b""
    ) -> str | None:
        return read_form(content, content_type, query).maybe_text("a")

    def test_urlencoded(self) -> None:
        """A form's values are decoded: plus signs, percents, UTF-8, empty and repeated ones."""
        self.assertEqual(self.value(b"a=1+2%2B3%C3%BC"), "1 2+3ü")
        self.assertEqual(self.value(b"a="), "")
        self.assertEqual(self.value(b"a=1&a=2"), "2")
        self.assertIsNone(self.value(b"b=1"))

    def test_bytes_that_are_no_text(self) -> None:
        """Bytes that are not UTF-8 are replaced or read as Latin-1; nothing fails."""
        self.assertEqual(self.value(b"a=%ff"), "\ufffd")
        self.assertEqual(self.value(b"a=\xff"), "ÿ")

    def test_content_type(self) -> None:
        """Only a form's body is read, whatever the case and parameters of its type."""
        self.assertEqual(
            self.value(b"a=1", "Application/X-WWW-Form-Urlencoded; charset=utf-8"), "1"
        )
        self.assertIsNone(self.value(b"a=1", ""))
        self.assertIsNone(self.value(b'{"a": 1}', "application/json"))

    def test_body_before_query(self) -> None:
        """A parameter in the body wins over one in the query string."""
        self.assertEqual(self.value(b"a=1", query=b"a=2"), "1")
        self.assertEqual(self.value(b"", "", query=b"a=2"), "2")

    def test_too_many(self) -> None:
        """A thousand parameters and no more."""
        self.assertEqual(self.value(b"&".join([b"a=1"] * 1000)), "1")
        error = self.assertRaises(WireError, self.value, b"&".join([b"a=1"] * 1001))
        self.assertEqual(error.status, 400)

    def test_multipart(self) -> None:
        """A multipart form is read, too; files in it are none of our parameters."""
        parts = [
            b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\nfirst\r\n',
            b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xc3\xbc second\r\n',
            b'--xx\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nfile\r\n',
            b"--xx--\r\n",
        ]
        form = read_form(b"".join(parts), 'multipart/form-data; boundary="xx"', b"")
        self.assertEqual(form.maybe_text("a"), "ü second")
        self.assertIsNone(form.maybe_text("f"))

    def test_broken_multipart(self) -> None:
        """A multipart body that breaks off, or has no boundary, is an error."""
        for kind in ["multipart/form-data", "multipart/form-data; boundary=xx"]:
            for body in [
                b"",
                b"nothing",
                b"--xx\r\nContent-Disposition: form-data; name=a\r\n\r\n1",
            ]:
                error = self.assertRaises(WireError, read_form, body, kind, b"")
                self.assertEqual(error.msg, "Malformed multipart body")

    def test_json_bodies(self) -> None:
        """Parameters beside a JSON body are named as unknown."""
        self.assertEqual(unasked(b"{}", "application/json", b""), [])
        self.assertEqual(unasked(b"{}", "application/json", b"x=1"), ["x"])
        self.assertEqual(unasked(b'{"a":1}', URLENCODED, b""), ['{"a":1}'])


class FormTests(SynchronousTestCase):
    """Asking for parameters."""

    def told(self, ask: str, *arguments: object, **fields: str) -> tuple[str, str | None]:
        error = self.assertRaises(WireError, getattr(Form(fields), ask), *arguments)
        return error.msg, error.code

    def test_missing(self) -> None:
        """A missing parameter is named."""
        self.assertEqual(
            self.told("text", "token"), ("Missing 'token' argument", "REQUEST_VARIABLE_MISSING")
        )
        error = self.assertRaises(WireError, Form({}).integer, "n")
        self.assertEqual(error.data, {"var_name": "n"})

    def test_integers(self) -> None:
        """An integer is a JSON integer: no text, no fraction, no truth value, no null."""
        self.assertEqual(Form({"n": " -5 "}).integer("n"), -5)
        self.assertEqual(Form({"n": "9" * 30}).integer("n"), int("9" * 30))
        for text in ["x", "", "01", "+1", "1_0", "{", "9" * 5000, "NaN"]:
            self.assertEqual(self.told("integer", "n", n=text)[0], "n is not valid JSON")
        for text in ["1.0", '"1"', "true", "null", "[1]", "1e2"]:
            self.assertEqual(self.told("maybe_integer", "n", n=text)[0], "n is not an integer")

    def test_lengths(self) -> None:
        """Lengths are in characters."""
        self.assertEqual(Form({"a": "ü" * 5}).fixed("a", 5), "üüüüü")
        self.assertEqual(self.told("fixed", "a", 5, a="1234")[0], "a is not length 5")
        self.assertEqual(self.told("maybe_fixed", "a", 5, a="")[0], "a is not length 5")
        self.assertIsNone(Form({}).maybe_fixed("a", 5))
        self.assertEqual(
            self.told("limited", "a", 3, a="1234")[0], "a is too long (limit: 3 characters)"
        )

    def test_ignored(self) -> None:
        """What nobody asked for is known by name."""
        form = Form({"a": "1", "b": "2", "c": "3"})
        form.text("b")
        self.assertEqual(form.ignored, ["a", "c"])
