"""Google's OAuth token endpoint for service accounts, over HTTP/1.1 (fcm.md 2.2 and 7.1)."""

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLContextFactory,
    IReactorTime,
)
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

GOOGLE = "https://oauth2.googleapis.com/token"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
FORM = "application/x-www-form-urlencoded"
SCOPES = (
    "https://www.googleapis.com/auth/firebase.messaging",
    "https://www.googleapis.com/auth/cloud-platform",
)
LONGEST = 3600  # seconds between `iat` and `exp`
DRIFT = 300  # seconds that the client's clock may be off
HANG = -1.0  # as a delay: never answer

BAD_SIGNATURE = "Invalid JWT Signature."
BAD_TIME = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
    "Check your iat and exp values in the JWT claim."
)


@dataclass(frozen=True, slots=True)
class Canned:
    """An answer given instead of the right one, `delay` seconds late (HANG: never)."""

    status: int
    body: Mapping[str, Any] | bytes
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenCall:
    """One call: when it came (the clock's seconds), from where, and what was answered."""

    at: float
    verdict: str


class Refusal(Exception):
    """The endpoint's reason not to hand out a token, in OAuth's words."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error, "error_description": description}


class TokenEndpoint(Resource):
    """Checks assertions of one service account and hands out opaque access tokens.

    `account` is the parsed service account file (with its private key: it is a fake's). `now`
    is the wall clock in unix seconds, moved by `skew`. `script` holds answers for the next
    calls, used up one by one; `expires_in` is what is promised, None leaves it out.
    """

    isLeaf = True

    def __init__(
        self,
        clock: IReactorTime,
        account: Mapping[str, str],
        *,
        now: Callable[[], float] = time.time,
        delay: float = 0.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self.account = account
        self.skew = 0.0
        self.delay = delay
        self.expires_in: int | str | None = 3599
        self.script: deque[Canned] = deque()
        self.calls: list[TokenCall] = []
        self.violations: list[str] = []
        self._clock = clock
        self._now = now
        self._public = _public_key(account["private_key"])
        self._expiry: dict[str, float] = {}
        self._serial = 0
        self._in_flight = 0

    def now(self) -> float:
        """Tell the time by Google's clock, in unix seconds."""
        return self._now() + self.skew

    def accepts(self, token: str) -> bool:
        """Tell whether an access token is good now."""
        return self._expiry.get(token, 0.0) > self.now()

    def knows(self, token: str) -> bool:
        """Tell whether an access token was ever handed out, and not revoked."""
        return token in self._expiry

    def revoke(self) -> None:
        """Make every access token worthless."""
        self._expiry.clear()

    def issue(self) -> str:
        """Hand out a new access token."""
        self._serial += 1
        lifetime = self.expires_in if isinstance(self.expires_in, int) else 3599
        token = f"ya29.fake-{self._serial:06}-" + "x" * 200
        self._expiry[token] = self.now() + lifetime
        return token

    def listen(
        self,
        reactor: Any,
        context: IOpenSSLContextFactory | None,
        port: int = 0,
        interface: str = "127.0.0.1",
    ) -> IListeningPort:
        """Serve over TLS, or in clear text without a context; port 0 chooses one."""
        site = Site(self, reactor=reactor)
        site.noisy = False
        if context is None:
            return reactor.listenTCP(port, site, interface=interface)  # type: ignore[no-any-return]
        return reactor.listenSSL(port, site, context, interface=interface)  # type: ignore[no-any-return]

    def render(self, request: Request) -> int:
        """Answer a call, after the delay."""
        self._in_flight += 1
        if self._in_flight > 1:
            self.violations.append("two token calls at once")
        canned = self.script.popleft() if self.script else self._reply(request)
        body = canned.body if isinstance(canned.body, bytes) else json.dumps(canned.body).encode()
        verdict = "200" if canned.status == 200 else f"{canned.status} {_word(canned.body)}"
        self.calls.append(TokenCall(self._clock.seconds(), verdict.strip()))
        gone: list[bool] = []
        request.notifyFinish().addBoth(self._finished, gone)
        if canned.delay != HANG:
            delay = canned.delay or self.delay
            if delay:
                self._clock.callLater(delay, self._write, request, canned.status, body, gone)
            else:
                self._write(request, canned.status, body, gone)
        return NOT_DONE_YET

    def _write(self, request: Request, status: int, body: bytes, gone: list[bool]) -> None:
        if gone:
            return
        request.setResponseCode(status)
        request.setHeader(b"content-type", b"application/json; charset=utf-8")
        request.setHeader(b"cache-control", b"private")
        request.write(body)
        request.finish()

    def _finished(self, _: object, gone: list[bool]) -> None:
        """Note that a call is over: answered, or given up by the client."""
        gone.append(True)
        self._in_flight -= 1

    def _reply(self, request: Request) -> Canned:
        """Check a call by the book."""
        try:
            self._check(request)
        except Refusal as refusal:
            return Canned(refusal.status, refusal.body)
        body: dict[str, Any] = {"access_token": self.issue(), "token_type": "Bearer"}
        if self.expires_in is not None:
            body["expires_in"] = self.expires_in
        return Canned(200, body)

    def _check(self, request: Request) -> None:
        """Check method, form and assertion; raises Refusal."""
        if request.method != b"POST":
            raise Refusal("invalid_request", "Method not allowed", 405)
        content_type = (request.getHeader("content-type") or "").partition(";")[0].strip()
        if content_type != FORM:
            raise Refusal("invalid_request", "Bad Request: content type")
        if _only(request, b"grant_type") != GRANT:
            raise Refusal("unsupported_grant_type", f"Invalid grant_type, use {GRANT}")
        claims = self._verified(_only(request, b"assertion"))
        if claims.get("iss") != self.account["client_email"]:
            raise Refusal("invalid_grant", "Invalid grant: account not found")
        if claims.get("aud") not in (GOOGLE, self.account.get("token_uri", GOOGLE)):
            raise Refusal("invalid_grant", "Invalid JWT: Failed audience check.")
        if not set(str(claims.get("scope", "")).split()) & set(SCOPES):
            raise Refusal("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        issued, expires = claims.get("iat"), claims.get("exp")
        if not isinstance(issued, int) or not isinstance(expires, int):
            raise Refusal("invalid_grant", BAD_TIME)
        if not 0 < expires - issued <= LONGEST or abs(self.now() - issued) > DRIFT:
            raise Refusal("invalid_grant", BAD_TIME)

    def _verified(self, assertion: str) -> dict[str, Any]:
        """Verify the signature and the key id of an assertion; return its claims."""
        unchecked = ("exp", "iat", "nbf", "aud", "iss", "sub", "jti")  # checked in our own words
        try:
            if jwt.get_unverified_header(assertion).get("kid") != self.account["private_key_id"]:
                raise Refusal("invalid_grant", BAD_SIGNATURE)
            return jwt.decode(
                assertion,
                self._public,
                algorithms=["RS256"],
                options={f"verify_{claim}": False for claim in unchecked},  # type: ignore[arg-type]
            )
        except jwt.InvalidTokenError:
            raise Refusal("invalid_grant", BAD_SIGNATURE) from None


def canned_error(error: str, description: str = "", status: int = 400) -> Canned:
    """Make an OAuth error answer."""
    return Canned(status, {"error": error, "error_description": description})


@cache
def _public_key(pem: str) -> RSAPublicKey:
    """Read the public half of an account's key."""
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    return key.public_key()


def _only(request: Request, name: bytes) -> str:
    """Return the one value of a form field, "" if there is not exactly one."""
    values = (request.args or {}).get(name, [])
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _word(body: Mapping[str, Any] | bytes) -> str:
    return "" if isinstance(body, bytes) else str(body.get("error", ""))
