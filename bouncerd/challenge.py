"""The challenge of a transfer: what a host answers at a path that only its Zulip server knows.

HTTP/1.1 by treq (bouncer-api.md 5.3). What a host says is compared and decoded, never repeated;
of what went wrong the caller is told the contract's words.
"""

from typing import cast

import treq
from OpenSSL.SSL import Error as TLSError
from service_identity.exceptions import CertificateError, VerificationError
from treq.client import HTTPClient
from twisted.internet import error as network
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from bouncerd import __version__
from bouncerd.answers import json_object
from bouncerd.envelope import WireError, bad_request

#: Bytes of a body.
MAX_BODY = 65_536

_NOT_PREPARED = "REMOTE_SERVER_VERIFICATION_SECRET_NOT_PREPARED"
_HEADERS = Headers({"User-Agent": [f"bouncerd/{__version__}"], "Accept": ["application/json"]})


class Challenge:
    """Asks hosts for their secrets; `agent` decides what they may be connected to."""

    def __init__(self, agent: IAgent, clock: IReactorTime) -> None:
        self._agent = _Plain(agent)
        self._clock = clock

    async def ask(self, host: str, access_token: str, within: float) -> str:
        """Return the secret that a host (in ASCII) shows, within so many seconds."""
        asked = Deferred.fromCoroutine(self._ask(host, access_token))
        asked.addTimeout(within, self._clock, _too_slow)
        try:
            status, body = await asked
        except Exception as error:  # noqa: BLE001 -- whatever it is, the host is to blame
            raise _explained(Failure(error)) from None
        return secret_in(status, body)

    async def _ask(self, host: str, access_token: str) -> tuple[int, bytes]:
        client = HTTPClient(self._agent)  # a new one: no host sees another's cookies
        url = f"https://{host}/api/v1/zulip-services/verify/{access_token}/"
        response: IResponse = await client.get(
            url,
            headers=_HEADERS,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,  # type: ignore[arg-type] # given none, treq takes the global one
        )
        body = bytearray()

        def keep(data: bytes) -> None:
            body.extend(data)
            if len(body) > MAX_BODY:
                raise _Unusable

        await treq.collect(response, keep)
        return response.code, bytes(body)


class _Unusable(Exception):
    """The host's answer is none."""


@implementer(IAgent)
class _Plain:
    """Asks for answers as they are: what is compressed may be a thousand times as long."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803 (IAgent's)
    ) -> Deferred[IResponse]:
        """Ask, and refuse an answer in another form."""
        plain = Headers() if headers is None else headers.copy()
        plain.setRawHeaders(b"Accept-Encoding", [b"identity"])
        asked = self._agent.request(method, uri, plain, bodyProducer)
        return asked.addCallback(_as_it_is)


def _as_it_is(response: IResponse) -> IResponse:
    encodings = response.headers.getRawHeaders(b"Content-Encoding", [])
    if any(each.lower() != b"identity" for each in encodings):
        raise _Unusable
    return response


def secret_in(status: int, body: bytes) -> str:
    """Return the secret that an answer holds, or raise the WireError it deserves."""
    said = json_object(body)
    if status == 400 and said.get("code") == _NOT_PREPARED:
        raise bad_request("The host reported it has no verification secret.")
    if status != 200:
        raise bad_request(f"Error response received from the host: {status}")
    secret = said.get("verification_secret")
    if not isinstance(secret, str):
        raise unusable_host()
    return secret


def unusable_host() -> WireError:
    """Build the answer where a host cannot be asked, or gives no answer of the right form."""
    return bad_request("An error occurred while communicating with the host.")


def _too_slow(_result: object, _seconds: float) -> Failure:
    return Failure(network.TimeoutError())


def _explained(failure: Failure) -> WireError:
    # What went wrong on a connection is listed within what went wrong with the request.
    inner = cast(list[Failure], getattr(failure.value, "reasons", None) or [])
    kinds = [failure, *inner]

    def among(*classes: type[Exception]) -> bool:
        return any(each.check(*classes) is not None for each in kinds)

    if among(TLSError, VerificationError, CertificateError):
        return bad_request("SSL error occurred while communicating with the host.")
    if among(network.TimeoutError, CancelledError):
        return bad_request("The request timed out while communicating with the host.")
    if among(network.ConnectionAborted):  # by us: it said too much
        return unusable_host()
    if among(network.ConnectError, network.ConnectionLost, network.ConnectionDone):
        return bad_request("Connection error occurred while communicating with the host.")
    return unusable_host()
