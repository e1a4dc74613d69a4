"""The HTTP API: which path does what for whom (bouncer-api.md 1, 15).

The only module that knows Klein. A handler reads nothing of the request and writes nothing of the
answer: it gets what was asked, by whom, and returns the answer's members or raises a WireError.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar, cast

from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from bouncerd import wire
from bouncerd.basicauth import Credentials, prove, read_credentials
from bouncerd.bouncer import Bouncer, Caller
from bouncerd.calls import Saturated
from bouncerd.deadline import TooLate, until
from bouncerd.enrolment import parse_enrolment
from bouncerd.envelope import WireError, render_error, render_success
from bouncerd.forms import Form, read_form, unasked
from bouncerd.model import Device, Server
from bouncerd.site import INTERNAL_ERROR, Request, note_fault
from bouncerd.store.base import Store, StoreUnavailable

PREFIX = "/api/v1/remotes/"

_T = TypeVar("_T")
_Members: TypeAlias = Mapping[str, object] | None
_Handler: TypeAlias = Callable[["Api", Caller, _T], Coroutine[Any, Any, _Members]]
_Route: TypeAlias = Callable[["Api", Request], Deferred[bytes]]

# Servers call these before they have credentials.
_REGISTER = PREFIX + "server/register"
_OPEN = frozenset({_REGISTER.encode()})


class Sent(NamedTuple):
    """What is read of a request, at once: when it is worked on, its sender may be gone."""

    content: bytes
    content_type: str
    query: bytes


@dataclass(frozen=True, slots=True)
class Asked(Generic[_T]):
    """What was asked, and which parameters nobody wanted."""

    what: _T
    ignored: list[str]


_Read: TypeAlias = Callable[[Sent], Asked[_T]]


def _form(parse: Callable[[Form], _T]) -> _Read[_T]:
    def read(sent: Sent) -> Asked[_T]:
        form = read_form(*sent)
        return Asked(parse(form), form.ignored)

    return read


def _body(parse: Callable[[bytes], _T]) -> _Read[_T]:
    return lambda sent: Asked(parse(sent.content), unasked(*sent))


def _tried(read: _Read[_T], sent: Sent) -> Asked[_T] | WireError:
    try:
        return read(sent)
    except WireError as error:
        return error


def _authenticated(app: Klein, path: str, read: _Read[_T]) -> Callable[[_Handler[_T]], _Route]:
    """Make a handler a route that only a known server gets to, as its argument."""

    def decorate(handler: _Handler[_T]) -> _Route:
        async def answer(api: "Api", request: Request, sent: Sent, by: float) -> bytes:
            credentials = read_credentials(_header(request, b"authorization"))
            # Read first: one look-up is for the server and for the user it asks about. But what
            # is wrong with a request is for its server to know only.
            asked = _tried(read, sent)
            found = None if isinstance(asked, WireError) else asked.what
            server, devices = await api.look_up(credentials, found, by)
            server = prove(credentials, server)
            request.caller = server.uuid
            if isinstance(asked, WireError):
                raise asked
            members = await handler(api, Caller(server, devices, by), asked.what)
            return render_success(members, asked.ignored)

        @app.route(PREFIX + path, methods=["POST"], endpoint=path)
        def route(api: "Api", request: Request) -> Deferred[bytes]:
            request.endpoint = path
            return api.detached(request, answer(api, request, _sent(request), api.deadline()))

        return route

    return decorate


class Api:
    """The endpoints. `answer_within` is in seconds; `support` says whom to ask for help."""

    app = Klein()

    def __init__(
        self,
        bouncer: Bouncer,
        store: Store,
        clock: IReactorTime,
        *,
        answer_within: float,
        support: str = "",
    ) -> None:
        self._bouncer = bouncer
        self._store = store
        self._clock = clock
        self._answer_within = answer_within
        contact = f" Contact {support} if this persists." if support else ""
        self._busy = WireError(
            503,
            None,
            f"The push bouncer is busy; try again later.{contact}",
            headers={"Retry-After": "5"},
        )

    def resource(self) -> KleinResource:
        """Return what a Site serves."""
        return self.app.resource()

    @app.route(_REGISTER, methods=["POST"], endpoint="server/register")
    def register_server(self, request: Request) -> Deferred[bytes]:
        """Add or update a server; its credentials are parameters."""
        request.endpoint = "server/register"
        return self.detached(request, self._register_server(_sent(request), self.deadline()))

    async def _register_server(self, sent: Sent, by: float) -> bytes:
        form = read_form(*sent)
        asked = parse_enrolment(form)
        created = await self._bouncer.enrol(asked, by)
        return render_success({"created": created}, form.ignored)

    @_authenticated(app, "push/register", _form(wire.parse_register))
    async def register(self, caller: Caller, asked: wire.Registration) -> _Members:
        """Remember a phone."""
        await self._bouncer.register(caller, asked)
        return None

    @_authenticated(app, "push/unregister", _form(wire.parse_unregister))
    async def unregister(self, caller: Caller, asked: wire.Unregistration) -> _Members:
        """Forget a phone."""
        await self._bouncer.unregister(caller, asked)
        return None

    @_authenticated(app, "push/unregister/all", _form(wire.parse_unregister_all))
    async def unregister_all(self, caller: Caller, asked: wire.UserRequest) -> _Members:
        """Forget a user's phones."""
        await self._bouncer.unregister_all(caller, asked)
        return None

    @_authenticated(app, "push/notify", _body(wire.parse_notify))
    async def notify(self, caller: Caller, asked: wire.Notify) -> _Members:
        """Push to a user's phones."""
        return wire.render_notified(await self._bouncer.notify(caller, asked))

    @_authenticated(app, "push/test_notification", _body(wire.parse_test_notification))
    async def test_notification(self, caller: Caller, asked: wire.TestNotification) -> _Members:
        """Push a test to one phone."""
        await self._bouncer.test_notification(caller, asked)
        return None

    # --- errors

    @app.handle_errors(WireError)
    def wire_error(self, request: IRequest, failure: Failure) -> bytes:
        """Answer what a caller did wrong."""
        error = failure.value
        assert isinstance(error, WireError)
        return self._answer(request, error.status, render_error(error), error.headers)

    @app.handle_errors(Saturated, StoreUnavailable, TooLate)
    def busy(self, request: IRequest, failure: Failure) -> bytes:  # noqa: ARG002
        """Answer 503: servers ask again after that, and lose the message after a 429."""
        return self._answer(request, 503, render_error(self._busy), self._busy.headers)

    @app.handle_errors(MethodNotAllowed)
    def wrong_method(self, request: IRequest, failure: Failure) -> bytes:
        """Answer 405, or OPTIONS."""
        error = failure.value
        assert isinstance(error, MethodNotAllowed)
        allowed = sorted(set(error.valid_methods or ()) - {"OPTIONS"})
        headers = {"Allow": ", ".join(allowed)}
        path = b"/" + b"/".join(request.postpath or ())
        if request.method == b"OPTIONS" and path not in _OPEN:
            return self._answer(request, 204, b"", headers)
        body = render_error(
            WireError(405, None, "Method Not Allowed", {"allowed_methods": allowed})
        )
        return self._answer(request, 405, body, headers)

    @app.handle_errors(HTTPException)
    def no_such_path(self, request: IRequest, failure: Failure) -> bytes:  # noqa: ARG002
        """Answer 404, also where URL routing would redirect: that turns a POST into a GET."""
        error = WireError(404, None, "This push bouncer has no such endpoint")
        return self._answer(request, 404, render_error(error))

    @app.handle_errors(Exception)
    def fault(self, request: IRequest, failure: Failure) -> bytes:
        """Answer 500."""
        note_fault(cast(Request, request), failure)
        return self._answer(request, 500, render_error(INTERNAL_ERROR))

    # --- for the routes

    def deadline(self) -> float:
        """Say when what comes in now must be answered."""
        return self._clock.seconds() + self._answer_within

    def look_up(
        self, credentials: Credentials, asked: object, by: float
    ) -> Deferred[tuple[Server | None, list[Device]]]:
        """Find the server of these credentials, and the phones of the user it asks about."""
        if credentials.uuid is None:
            return succeed((None, []))
        if isinstance(asked, wire.UserRequest):
            found = self._store.lookup(credentials.uuid, asked.identity)
        else:
            found = self._store.server(credentials.uuid).addCallback(lambda server: (server, []))
        return until(by, self._clock, found)

    def detached(self, request: Request, work: Coroutine[Any, Any, bytes]) -> Deferred[bytes]:
        """Start work that goes on when its caller hangs up: Klein cancels only what is returned."""
        answer: Deferred[bytes] = Deferred()

        def done(body: bytes) -> None:
            # After a cancellation a Deferred takes one late result, and drops it.
            answer.callback(self._answer(request, 200, body))

        def failed(reason: Failure) -> None:
            if answer.called and not reason.check(WireError, Saturated, StoreUnavailable, TooLate):
                note_fault(request, reason)
            answer.errback(reason)

        Deferred.fromCoroutine(work).addCallbacks(done, failed)
        return answer

    def _answer(
        self, request: IRequest, status: int, body: bytes, headers: Mapping[str, str] | None = None
    ) -> bytes:
        request.setResponseCode(status)
        fields = request.responseHeaders
        if body:
            fields.setRawHeaders(b"Content-Type", [b"application/json"])
            fields.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
        fields.setRawHeaders(b"Cache-Control", [_NEVER])
        fields.setRawHeaders(b"Expires", fields.getRawHeaders(b"Date", [b"0"]))
        for name, value in (headers or {}).items():
            fields.setRawHeaders(name.encode(), [value.encode()])
        return body


_NEVER = b"max-age=0, no-cache, no-store, must-revalidate, private"


def _sent(request: Request) -> Sent:
    assert request.content is not None
    query = request.uri.partition(b"?")[2]
    return Sent(request.content.read(), _header(request, b"content-type") or "", query)


def _header(request: Request, name: bytes) -> str | None:
    values = request.requestHeaders.getRawHeaders(name)
    return None if values is None else b",".join(values).decode("latin-1")
