"""The stand-in for Google's token endpoint checks assertions and counts calls."""

from functools import cache
from typing import Any
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes.credentials import make_account
from bouncerd.fakes.google_tokens import (
    FORM,
    GOOGLE,
    GRANT,
    HANG,
    SCOPES,
    Canned,
    TokenEndpoint,
    canned_error,
)
from tests.fakes_kit import NOW

ACCOUNT = make_account() | {"token_uri": "https://127.0.0.1:1/token"}
STRANGER = make_account()


@cache
def _key(pem: str) -> Any:
    """Parse a private key once: that is the slow part."""
    return load_pem_private_key(pem.encode(), None)


class TokenTests(SynchronousTestCase):
    """What callers get, and what they must send for it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = TokenEndpoint(self.clock, ACCOUNT, now=lambda: NOW + self.clock.seconds())
        self.treq: Any = StubTreq(self.endpoint)

    def assertion(self, account: Any = ACCOUNT, **claims: Any) -> str:
        """Sign an assertion that is right but for what is given."""
        right = {
            "iss": account["client_email"],
            "scope": SCOPES[0],
            "aud": GOOGLE,
            "iat": int(NOW),
            "exp": int(NOW) + 3600,
        }
        kid = {"kid": account["private_key_id"]}
        return jwt.encode(right | claims, _key(account["private_key"]), "RS256", headers=kid)

    def call(self, assertion: str, grant: str = GRANT, content_type: str = FORM) -> Deferred[Any]:
        """Call the endpoint; the Deferred has status and body."""
        body = urlencode({"grant_type": grant, "assertion": assertion}).encode()
        answered: Deferred[Any] = self.treq.post(
            "https://oauth2.googleapis.com/token",
            body,
            headers={"content-type": content_type},
        )
        return answered.addCallback(
            lambda response: response.json().addCallback(lambda content: (response.code, content))
        )

    def error(self, *arguments: str) -> str:
        """Call the endpoint; return OAuth's word for what was wrong."""
        status, content = self.successResultOf(self.call(*arguments))
        self.assertEqual((status, set(content)), (400, {"error", "error_description"}))
        return str(content["error"])

    def test_token(self) -> None:
        """A right assertion is given a token that FCM then accepts until it expires."""
        status, content = self.successResultOf(self.call(self.assertion()))
        self.assertEqual((status, content["token_type"]), (200, "Bearer"))
        self.assertEqual(content["expires_in"], 3599)
        token = content["access_token"]
        self.assertTrue(self.endpoint.accepts(token))
        self.clock.advance(3599)
        self.assertFalse(self.endpoint.accepts(token))
        self.assertEqual([call.verdict for call in self.endpoint.calls], ["200"])

    def test_fresh(self) -> None:
        """Every call is given another token."""
        tokens = {
            self.successResultOf(self.call(self.assertion()))[1]["access_token"] for _ in range(3)
        }
        self.assertEqual((len(tokens), len(self.endpoint.calls)), (3, 3))

    def test_allowances(self) -> None:
        """The endpoint's own address will do as audience, and the broader scope."""
        allowed: tuple[dict[str, Any], ...] = (
            {"aud": ACCOUNT["token_uri"]},
            {"scope": f"x {SCOPES[1]}"},
        )
        for claims in allowed:
            with self.subTest(claims=claims):
                status, _ = self.successResultOf(self.call(self.assertion(**claims)))
                self.assertEqual(status, 200)

    def test_signature(self) -> None:
        """Another account's key, another algorithm and rubbish fail as bad signatures."""
        foreign = STRANGER | {"private_key_id": ACCOUNT["private_key_id"]}
        weak = jwt.encode({}, "x" * 40, "HS256", headers={"kid": ACCOUNT["private_key_id"]})
        for assertion in (self.assertion(foreign), weak, "a.b.c", ""):
            with self.subTest(assertion=assertion[:20]):
                self.assertEqual(self.error(assertion), "invalid_grant")

    def test_key_id(self) -> None:
        """A deleted key is no longer known by its id."""
        claims = jwt.decode(self.assertion(), options={"verify_signature": False})
        assertion = jwt.encode(claims, ACCOUNT["private_key"], "RS256", headers={"kid": "x"})
        self.assertEqual(self.error(assertion), "invalid_grant")

    def test_claims(self) -> None:
        """Account, audience, scope and times are checked, each with Google's word."""
        for word, claims in (
            ("invalid_grant", {"iss": "someone@else"}),
            ("invalid_grant", {"aud": "https://example.org"}),
            ("invalid_scope", {"scope": "openid"}),
            ("invalid_grant", {"exp": int(NOW) + 3601}),
            ("invalid_grant", {"iat": int(NOW) - 400}),
            ("invalid_grant", {"iat": int(NOW) + 400, "exp": int(NOW) + 800}),
            ("invalid_grant", {"exp": int(NOW)}),
            ("invalid_grant", {"iat": str(NOW)}),
        ):
            with self.subTest(claims=claims):
                self.assertEqual(self.error(self.assertion(**claims)), word)

    def test_form(self) -> None:
        """Another grant or another content type is refused, and so is GET."""
        self.assertEqual(self.error(self.assertion(), "password"), "unsupported_grant_type")
        self.assertEqual(self.error(self.assertion(), GRANT, "application/json"), "invalid_request")
        response = self.successResultOf(self.treq.get("https://oauth2.googleapis.com/token"))
        self.assertEqual(response.code, 405)

    def test_clock(self) -> None:
        """Google's clock may be moved against ours."""
        self.endpoint.skew = 600
        self.assertEqual(self.error(self.assertion()), "invalid_grant")

    def test_script(self) -> None:
        """The next answers can be anything, then the book again."""
        self.endpoint.script.append(canned_error("temporarily_unavailable", status=503))
        self.endpoint.script.append(Canned(200, b'{"access_token": "odd"}'))
        statuses = [self.successResultOf(self.call(self.assertion())) for _ in range(3)]
        self.assertEqual(statuses[0][0], 503)
        self.assertEqual(statuses[1][1], {"access_token": "odd"})
        self.assertEqual(statuses[2][1]["token_type"], "Bearer")
        verdicts = [call.verdict for call in self.endpoint.calls]
        self.assertEqual(verdicts, ["503 temporarily_unavailable", "200", "200"])

    def test_expires_in(self) -> None:
        """What is said about the lifetime can be odd or missing."""
        self.endpoint.expires_in = None
        _, content = self.successResultOf(self.call(self.assertion()))
        self.assertNotIn("expires_in", content)
        self.endpoint.expires_in = "30"
        _, content = self.successResultOf(self.call(self.assertion()))
        self.assertEqual(content["expires_in"], "30")

    def test_late(self) -> None:
        """An answer may be late; a second call meanwhile is a violation."""
        self.endpoint.delay = 2.0
        first = self.call(self.assertion())
        self.assertNoResult(first)
        self.assertEqual(self.endpoint.violations, [])
        second = self.call(self.assertion())
        self.assertEqual(self.endpoint.violations, ["two token calls at once"])
        self.clock.advance(2)
        self.treq.flush()
        self.assertEqual(self.successResultOf(first)[0], 200)
        self.assertEqual(self.successResultOf(second)[0], 200)

    def test_hang(self) -> None:
        """A call may never be answered."""
        self.endpoint.script.append(Canned(200, b"", HANG))
        self.assertNoResult(self.call(self.assertion()))
        self.clock.advance(3600)
