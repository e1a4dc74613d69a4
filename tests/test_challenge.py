"""What a host answers to a challenge, and what its server is told of that."""

import gzip
import json
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL.SSL import Error as TLSError
from service_identity.exceptions import VerificationError
from treq.testing import RequestTraversalAgent
from twisted.internet import error as network
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from bouncerd.challenge import MAX_BODY, Challenge, secret_in
from bouncerd.envelope import WireError

TOKEN = "cP6_u-9h" * 5
ERROR = "An error occurred while communicating with the host."
Render = Callable[[Request], bytes | int]


class Host(Resource):
    """A Zulip server, or what stands at its name; answers as it is told."""

    isLeaf = True

    def __init__(self, answer: Render) -> None:
        super().__init__()
        self.answer = answer
        self.requests: list[Request] = []

    def render(self, request: Request) -> bytes | int:
        self.requests.append(request)
        return self.answer(request)


def says(value: object, status: int = 200, **headers: str) -> Render:
    """Answer in JSON, or with bytes as they are."""

    def render(request: Request) -> bytes:
        request.setResponseCode(status)
        for name, field in headers.items():
            request.setHeader(name.replace("_", "-"), field)
        return value if isinstance(value, bytes) else json.dumps(value).encode()

    return render


@implementer(IAgent)
class Failing:
    """An agent all of whose requests fail so."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803 (IAgent's)
    ) -> Deferred[IResponse]:
        return fail(self.reason)


class ChallengeTests(SynchronousTestCase):
    """Hosts of all kinds."""

    def setUp(self) -> None:
        self.clock = Clock()

    def ask(self, answer: Render) -> Deferred[str]:
        self.host = Host(answer)
        agent = RequestTraversalAgent(self.host)
        challenge = Challenge(agent, self.clock)
        asked = Deferred.fromCoroutine(challenge.ask("chat.example.org", TOKEN, 8.0))
        agent.flush()
        return asked

    def told(self, asked: Deferred[str]) -> str:
        error = self.failureResultOf(asked, WireError).value
        self.assertEqual((error.status, error.code), (400, "BAD_REQUEST"))
        return str(error.msg)

    def test_a_good_host(self) -> None:
        """A Zulip server is asked for what only it can know, and shows the secret."""
        good = {"result": "success", "msg": "", "verification_secret": "ABCD"}
        self.assertEqual(self.successResultOf(self.ask(says(good))), "ABCD")
        [request] = self.host.requests
        self.assertEqual(request.method, b"GET")
        self.assertEqual(request.uri, f"/api/v1/zulip-services/verify/{TOKEN}/".encode())
        self.assertEqual(request.getHeader("host"), "chat.example.org")
        self.assertEqual(request.requestHeaders.getRawHeaders("accept-encoding"), ["identity"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_prepared(self) -> None:
        """A host that knows nothing of a transfer says so."""
        said = {"result": "error", "msg": "x", "code": _NOT_PREPARED}
        told = self.told(self.ask(says(said, 400)))
        self.assertEqual(told, "The host reported it has no verification secret.")
        told = self.told(self.ask(says(said, 500)))
        self.assertEqual(told, "Error response received from the host: 500")

    def test_other_answers(self) -> None:
        """Another status is told, and nothing else of the answer; redirects are not followed."""
        for status in [201, 204, 301, 302, 308, 400, 401, 404, 429, 500, 503]:
            answer = says(b"", status, location="https://10.0.0.1/")
            told = self.told(self.ask(answer))
            self.assertEqual(told, f"Error response received from the host: {status}")
            self.assertEqual(len(self.host.requests), 1)

    def test_nonsense(self) -> None:
        """A 200 that holds no secret is no answer."""
        for body in [b"", b"<html>", b"\xff", b"[]", b'"x"', b"{}", b"[" * 60_000,
                     b'{"verification_secret": 5}', b'{"verification_secret": null}']:  # fmt: skip
            self.assertEqual(self.told(self.ask(says(body))), ERROR)

    def test_too_long(self) -> None:
        """An answer that does not end is not read to its end."""
        self.assertEqual(self.told(self.ask(says(b" " * (MAX_BODY + 1)))), ERROR)
        padded = b'{"verification_secret": "AB"}'.ljust(MAX_BODY)
        self.assertEqual(self.successResultOf(self.ask(says(padded))), "AB")

    def test_compressed(self) -> None:
        """What is compressed, unasked, is not unpacked."""
        packed = gzip.compress(b'{"verification_secret": "AB"}')
        for encoding in ["gzip", "br", "identity, gzip"]:
            asked = self.ask(says(packed, content_encoding=encoding))
            self.assertEqual(self.told(asked), ERROR)
        plain = says({"verification_secret": "AB"}, content_encoding="identity")
        self.assertEqual(self.successResultOf(self.ask(plain)), "AB")

    def test_silence(self) -> None:
        """A host has so long to answer, whether it says nothing or never comes to an end."""

        def trickle(request: Request) -> int:
            request.write(b"{")
            return NOT_DONE_YET

        for answer in [lambda _request: NOT_DONE_YET, trickle]:
            asked = self.ask(answer)
            self.clock.advance(7.9)
            self.assertNoResult(asked)
            self.clock.advance(0.1)
            self.assertEqual(
                self.told(asked), "The request timed out while communicating with the host."
            )

    def test_failures(self) -> None:
        """Of a failure its kind is told, in the contract's words."""
        tls = "SSL error occurred while communicating with the host."
        connection = "Connection error occurred while communicating with the host."
        timeout = "The request timed out while communicating with the host."
        for reason, words in {
            never(TLSError([("SSL routines", "", "certificate verify failed")])): tls,
            never(VerificationError(errors=[])): tls,
            never(network.ConnectionLost()): connection,
            never(network.ConnectionDone()): connection,
            never(network.ConnectionAborted()): ERROR,
            network.ConnectionRefusedError(): connection,
            network.NoRouteError(): connection,
            network.TimeoutError(): timeout,
            network.TCPTimedOutError(): connection,
            ValueError("https://user:secret@host"): ERROR,
        }.items():
            challenge = Challenge(Failing(reason), self.clock)
            asked = Deferred.fromCoroutine(challenge.ask("chat.example.org", TOKEN, 8.0))
            self.assertEqual(self.told(asked), words, repr(reason))

    @given(st.integers(100, 599), st.binary(max_size=200))
    def test_anything(self, status: int, body: bytes) -> None:
        """No answer makes it fail in any other way, and none is repeated."""
        try:
            secret_in(status, body)
        except WireError as error:
            self.assertEqual(error.status, 400)


_NOT_PREPARED = "REMOTE_SERVER_VERIFICATION_SECRET_NOT_PREPARED"


def never(reason: Exception) -> ResponseNeverReceived:
    """Wrap it as Twisted does what happens on a connection."""
    return ResponseNeverReceived([Failure(reason)])
