"""Who calls, and whether that is true (bouncer-api.md 1.4)."""

from base64 import b64encode
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.basicauth import Credentials, digest, new_key, prove, read_credentials
from bouncerd.envelope import WireError
from bouncerd.model import Server

UUID = "5c1f8a52-3d0e-4b7e-9a51-0f2f6d1c7a10"
SERVER = Server(1, UUID, "chat.example.org", "a@example.org", digest("right"))


def header(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


class ReadTests(SynchronousTestCase):
    """The Authorization header."""

    def told(self, text: str | None) -> tuple[int, str]:
        error = self.assertRaises(WireError, read_credentials, text)
        self.assertEqual("WWW-Authenticate" in error.headers, error.status == 401)
        return error.status, error.msg

    def test_spellings_of_the_id(self) -> None:
        """A server may spell its id as UUIDs can be spelled; errors repeat its spelling."""
        for role in [UUID, UUID.upper(), UUID.replace("-", ""), "{" + UUID + "}"]:
            credentials = read_credentials(header(f"{role}:right"))
            self.assertEqual((credentials.role, credentials.uuid), (role, UUID))
        self.assertIsNone(read_credentials(header("no-uuid:right")).uuid)

    def test_refusals(self) -> None:
        """Each kind of bad header gets the words servers know."""
        invalid = 401, "Invalid authorization header for basic auth"
        self.assertEqual(self.told(None), (401, "Missing authorization header for basic auth"))
        for text in [
            "",
            "Basic",
            "Basic !!!",
            "Basic abc",
            "a b c",
            "Basic ü",
            header("a:b:c"),
            header("a"),
        ]:
            self.assertEqual(self.told(text), invalid, text)
        self.assertEqual(
            self.told("Bearer x"), (400, "This endpoint requires HTTP basic authentication.")
        )
        self.assertEqual(
            self.told(header("a@b:c")), (400, "Must validate with valid Zulip server API key")
        )

    @given(st.text() | st.binary().map(lambda data: "Basic " + b64encode(data).decode()))
    def test_anything(self, text: str) -> None:
        """No header makes it fail in any other way."""
        try:
            read_credentials(text)
        except WireError as error:
            self.assertIn(error.status, (400, 401))

    def test_the_key_is_not_shown(self) -> None:
        """Neither credentials nor servers show keys, hashed or not."""
        shown = repr(read_credentials(header(f"{UUID}:right"))) + repr(SERVER)
        self.assertNotIn("right", shown)
        self.assertNotIn("digest", shown)


class ProveTests(SynchronousTestCase):
    """Whether a server is who it says it is."""

    rotated = replace(SERVER, old_key_digest=digest("former"), old_key_until=1000.0)

    def prove(self, key: str, server: Server | None, now: float = 0.0, **how: bool) -> Server:
        return prove(Credentials("ROLE", UUID, digest(key)), server, now, **how)

    def told(self, key: str, server: Server | None, now: float = 0.0, **how: bool) -> str:
        error = self.assertRaises(WireError, self.prove, key, server, now, **how)
        self.assertEqual((error.status, error.code), (401, "UNAUTHORIZED"))
        return str(error.msg)

    def test_the_right_key(self) -> None:
        """The right key opens."""
        self.assertIs(self.prove("right", SERVER), SERVER)

    def test_refusals(self) -> None:
        """Unknown, wrong key and deactivated are told apart, in this order."""
        gone = replace(SERVER, deactivated=True)
        self.assertIn("ROLE is not registered", self.told("right", None))
        self.assertIn("key does not match role ROLE", self.told("wrong", SERVER))
        self.assertIn("key does not match role ROLE", self.told("wrong", gone))
        self.assertIn("has been deactivated", self.told("right", gone))

    def test_the_former_key(self) -> None:
        """After a rotation the former key opens, too, until its time is up."""
        for key in ["right", "former"]:
            self.assertIs(self.prove(key, self.rotated, 999.9), self.rotated)
        self.assertIn("key does not match role ROLE", self.told("former", self.rotated, 1000.0))
        self.assertIs(self.prove("right", self.rotated, 1000.0), self.rotated)

    def test_where_the_former_key_does_not_do(self) -> None:
        """What ends a registration takes the current key only."""
        self.assertIn("key does not match", self.told("former", self.rotated, old_key=False))
        self.assertIs(self.prove("right", self.rotated, old_key=False), self.rotated)

    def test_a_former_key_of_a_deactivated_server(self) -> None:
        """The former key gets the same words as the current one: nothing is given away."""
        gone = replace(self.rotated, deactivated=True)
        self.assertIn("has been deactivated", self.told("former", gone))

    def test_new_keys(self) -> None:
        """New keys are 64 letters and digits, no two alike."""
        keys = {new_key() for _ in range(100)}
        self.assertEqual(len(keys), 100)
        self.assertTrue(all(len(key) == 64 and key.isalnum() and key.isascii() for key in keys))
