"""The HTTP API: which path does what for whom (bouncer-api.md 1, 15).

The only module that knows Klein. A handler reads nothing of the request and writes nothing of the
answer: it gets what was asked, by whom, and returns the answer's members or raises a WireError.
"""

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

from klein import Klein
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from bouncerd import wire
from bouncerd.basicauth import Credentials, prove, read_credentials
from bouncerd.billing import BillingRequest, parse_billing
from bouncerd.bouncer import Bouncer, Caller
from bouncerd.calls import Saturated
from bouncerd.deadline import TooLate, until
from bouncerd.direct import Direct, end, write_head
from bouncerd.enrolment import Enrolment, parse_enrolment
from bouncerd.envelope import WireError, render_error, render_success
from bouncerd.limiter import Limiter, OwnLimiter
from bouncerd.limits import too_many_requests
from bouncerd.links import Links, Sight
from bouncerd.model import Found, Server
from bouncerd.reading import (
    Read,
    Sent,
    as_body,
    as_form,
    as_nothing,
    as_sent,
    header,
    tried,
    what_was_sent,
)
from bouncerd.registry import Registry
from bouncerd.sealed import (
    SealedNotify,
    SealedRegistration,
    missing_realm,
    parse_sealed_notify,
    parse_sealed_registration,
    render_sealed_notified,
)
from bouncerd.sealedpush import SealedPushes
from bouncerd.site import INTERNAL_ERROR, Request, note_fault
from bouncerd.store.base import Store, StoreUnavailable
from bouncerd.strangers import Stranger, Strangers
from bouncerd.transfers import Claim, Transfers, parse_claim, parse_transfer
from bouncerd.uploading import LONGEST_UPLOAD, UPLOAD_WITHIN, Uploads

PREFIX = "/api/v1/remotes/"

_T = TypeVar("_T")
_Members: TypeAlias = Mapping[str, object] | None
_Handler: TypeAlias = Callable[["Api", Caller, _T], Coroutine[Any, Any, _Members]]
_Welcome: TypeAlias = Callable[["Api", Stranger, _T], Coroutine[Any, Any, _Members]]
_Answer: TypeAlias = Callable[["Api", Request, Sent, float], Coroutine[Any, Any, bytes]]
_Route: TypeAlias = Callable[["Api", Request], Deferred[bytes]]

# Servers call these before they have credentials.
_REGISTER, _TRANSFER = "server/register", "server/register/transfer"
_CLAIM = "server/register/verify_challenge"
_OPEN = frozenset((PREFIX + path).encode() for path in (_REGISTER, _TRANSFER, _CLAIM))
# What ends a registration takes the current key only.
_DEACTIVATE = "server/deactivate"

_ANALYTICS = "server/analytics"
# Bodies that may be longer than others, in bytes, by path.
LONG_BODIES = {(PREFIX + _ANALYTICS).encode(): LONGEST_UPLOAD}
# Bytes of a body that is read before it is known whose it is. To read what is longer takes much
# longer than to look for its server, so that no stranger makes us do it.
_SHORT = 16 * 1024


# Asked so often that routing would cost a sixth of the work: what answers these without, by path.
_OFTEN: dict[bytes, Callable[["Api", Request], None]] = {}


def _routed(app: Klein, path: str, method: str, answer: _Answer, *, often: bool = False) -> _Route:
    """Make what answers a request a route."""

    def begin(api: "Api", request: Request) -> Coroutine[Any, Any, bytes]:
        request.endpoint = path
        return answer(api, request, what_was_sent(request), api.deadline())

    @app.route(PREFIX + path, methods=[method], endpoint=path)
    def route(api: "Api", request: Request) -> Deferred[bytes]:
        return api.detached(request, begin(api, request))

    if often:
        _OFTEN[(PREFIX + path).encode()] = lambda api, request: api.serve(
            request, begin(api, request)
        )
    return route


def _open(app: Klein, path: str, read: Read[_T]) -> Callable[[_Welcome[_T]], _Route]:
    """Make a handler a route for anybody, so many times an hour."""

    def decorate(handler: _Welcome[_T]) -> _Route:
        async def answer(api: "Api", request: Request, sent: Sent, by: float) -> bytes:
            stranger = api.strangers.let_in(request, by)
            asked = read(sent)
            return render_success(await handler(api, stranger, asked.what), asked.ignored)

        return _routed(app, path, "POST", answer)

    return decorate


def _authenticated(
    app: Klein, path: str, read: Read[_T], method: str = "POST", *, often: bool = False
) -> Callable[[_Handler[_T]], _Route]:
    """Make a handler a route that only a known server gets to, as its argument."""

    def decorate(handler: _Handler[_T]) -> _Route:
        async def answer(api: "Api", request: Request, sent: Sent, by: float) -> bytes:
            credentials = read_credentials(header(request, b"authorization"))
            is_long = len(sent.content) > _SHORT
            if is_long:
                await api.count(request, await api.proven(credentials, by), by)
            # Read first: one look-up is for the server and for the user it asks about. But what
            # is wrong with a request is for its server to know only.
            asked = tried(read, sent)
            found = None if isinstance(asked, WireError) else asked.what
            known = await api.look_up(credentials, found, by)
            server = prove(credentials, known.server, api.now(), old_key=path != _DEACTIVATE)
            request.caller = server.uuid
            if not is_long:
                await api.count(request, server, by)
            if isinstance(asked, WireError):
                raise asked
            if known.realm is not None and known.realm.server_id != server.id:
                raise wire.realm_elsewhere()
            caller = Caller(server, known.devices, by, known.realm)
            members = await handler(api, caller, asked.what)
            return render_success(members, asked.ignored)

        return _routed(app, path, method, answer, often=often)

    return decorate


class Api:
    """The endpoints. `answer_within` is in seconds; `support` says whom to ask for help."""

    app = Klein()

    def __init__(
        self,
        bouncer: Bouncer,
        registry: Registry,
        transfers: Transfers,
        strangers: Strangers,
        store: Store,
        clock: IReactorTime,
        *,
        sealed: SealedPushes,
        uploads: Uploads,
        links: Links,
        now: Callable[[], float],
        answer_within: float,
        requests_per_minute: int = 1000,
        limiter: Limiter | None = None,
        support: str = "",
    ) -> None:
        self._bouncer = bouncer
        self._registry = registry
        self._transfers = transfers
        self.strangers = strangers
        self._sealed = sealed
        self._uploads = uploads
        self._links = links
        self._store = store
        self._clock = clock
        self._now = now
        self._answer_within = answer_within
        self.requests_per_minute = requests_per_minute
        self._limiter = OwnLimiter(clock) if limiter is None else limiter  # an empty one is false
        self.support = support

    def resource(self) -> IResource:
        """Return what a Site serves."""
        often = {path: partial(serve, self) for path, serve in _OFTEN.items()}
        return Direct(often, self.app.resource())

    @_open(app, _REGISTER, as_form(parse_enrolment))
    async def register_server(self, stranger: Stranger, asked: Enrolment) -> _Members:
        """Add or update a server; its credentials are parameters."""
        return {"created": await self._registry.enrol(asked, stranger.by)}

    @_open(app, _TRANSFER, as_form(parse_transfer))
    async def transfer(self, stranger: Stranger, hostname: str) -> _Members:
        """Begin to give a server that lost its credentials new ones."""
        return {"verification_secret": await self._transfers.prepare(hostname, stranger.by)}

    @_open(app, _CLAIM, as_form(parse_claim))
    async def verify_challenge(self, stranger: Stranger, claim: Claim) -> _Members:
        """Give them, if the host shows that it is the server's."""
        uuid, key = await self._transfers.verify(claim, stranger.client, stranger.by)
        return {"zulip_org_id": uuid, "zulip_org_key": key}

    @_authenticated(app, _DEACTIVATE, as_nothing)
    async def deactivate_server(self, caller: Caller, _asked: None) -> _Members:
        """End a server's registration."""
        await self._registry.deactivate(caller.server, caller.by)
        return None

    @_authenticated(app, "push/register", as_form(wire.parse_register))
    async def register(self, caller: Caller, asked: wire.Registration) -> _Members:
        """Remember a phone."""
        await self._bouncer.register(caller, asked)
        return None

    @_authenticated(app, "push/unregister", as_form(wire.parse_unregister))
    async def unregister(self, caller: Caller, asked: wire.Unregistration) -> _Members:
        """Forget a phone."""
        await self._bouncer.unregister(caller, asked)
        return None

    @_authenticated(app, "push/unregister/all", as_form(wire.parse_unregister_all))
    async def unregister_all(self, caller: Caller, asked: wire.UserRequest) -> _Members:
        """Forget a user's phones."""
        await self._bouncer.unregister_all(caller, asked)
        return None

    @_authenticated(app, "push/notify", as_body(wire.parse_notify), often=True)
    async def notify(self, caller: Caller, asked: wire.Notify) -> _Members:
        """Push to a user's phones."""
        return wire.render_notified(await self._bouncer.notify(caller, asked))

    @_authenticated(app, "push/test_notification", as_body(wire.parse_test_notification))
    async def test_notification(self, caller: Caller, asked: wire.TestNotification) -> _Members:
        """Push a test to one phone."""
        await self._bouncer.test_notification(caller, asked)
        return None

    @_authenticated(app, "push/e2ee/register", as_form(parse_sealed_registration))
    async def register_sealed(self, caller: Caller, asked: SealedRegistration) -> _Members:
        """Remember a phone that says who it is in a box; 11.x wants our number for it."""
        number = await self._sealed.register(caller, asked)
        return {"device_id": number} if asked.token_id is None else None

    @_authenticated(app, "push/e2ee/notify", as_body(parse_sealed_notify), often=True)
    async def notify_sealed(self, caller: Caller, asked: SealedNotify) -> _Members:
        """Push to phones of a realm what is closed to us."""
        return render_sealed_notified(await self._sealed.notify(caller, asked))

    @_authenticated(app, "server/billing", as_form(parse_billing))
    async def billing(self, caller: Caller, asked: BillingRequest) -> _Members:  # noqa: ARG002
        """Say where an organization's owner sees its plan."""
        if caller.realm is None:
            raise missing_realm()
        sight = Sight(caller.server.uuid, caller.realm.uuid)
        return {"billing_access_url": await self._links.to_plan(sight)}

    @_authenticated(app, "server/analytics/status", as_nothing, method="GET")
    async def upload_status(self, caller: Caller, _asked: None) -> _Members:
        """Say how far a server has uploaded."""
        return await self._uploads.status(caller.server, caller.by)

    @_authenticated(app, _ANALYTICS, as_sent)
    async def upload(self, caller: Caller, asked: Sent) -> _Members:
        """Store what a server says of itself. It is long: only a known server's is read."""
        by = self._clock.seconds() + UPLOAD_WITHIN
        return await self._uploads.upload(caller.server, *asked, by)

    # --- errors

    @app.handle_errors(MethodNotAllowed)
    def wrong_method(self, request: IRequest, failure: Failure) -> bytes:
        """Answer 405, or OPTIONS."""
        error = failure.value
        assert isinstance(error, MethodNotAllowed)
        allowed = sorted(set(error.valid_methods or ()) - {"OPTIONS"})
        headers = {"Allow": ", ".join(allowed)}
        path = b"/" + b"/".join(request.postpath or ())
        if request.method == b"OPTIONS" and path not in _OPEN:
            return write_head(request, 204, b"", headers)
        body = render_error(
            WireError(405, None, "Method Not Allowed", {"allowed_methods": allowed})
        )
        return write_head(request, 405, body, headers)

    @app.handle_errors(HTTPException)
    def no_such_path(self, request: IRequest, failure: Failure) -> bytes:  # noqa: ARG002
        """Answer 404, also where URL routing would redirect: that turns a POST into a GET."""
        error = WireError(404, None, "This push bouncer has no such endpoint")
        return write_head(request, 404, render_error(error))

    @app.handle_errors(Exception)
    def failed(self, request: IRequest, failure: Failure) -> bytes:
        """Answer what a caller did wrong, or that we are busy, or that we failed."""
        return self._failed(cast(Request, request), failure)

    def _failed(self, request: Request, failure: Failure) -> bytes:
        error = failure.value
        if isinstance(error, _BUSY):
            # Servers ask again after a 503, and lose the message after a 429.
            contact = f" Contact {self.support} if this persists." if self.support else ""
            text = f"The push bouncer is busy; try again later.{contact}"
            error = WireError(503, None, text, headers={"Retry-After": "5"})
        if isinstance(error, WireError):
            return write_head(request, error.status, render_error(error), error.headers)
        note_fault(request, failure)
        return write_head(request, 500, render_error(INTERNAL_ERROR))

    # --- for the routes

    def deadline(self) -> float:
        """Say when what comes in now must be answered."""
        return self._clock.seconds() + self._answer_within

    def now(self) -> float:
        """Return the wall clock's time."""
        return self._now()

    async def count(self, request: Request, server: Server, by: float) -> None:
        """Count a server's request, and say so in headers; refuse one too many (1.7)."""
        own = server.requests_per_minute
        limit = self.requests_per_minute if own is None else own
        verdict = await self._limiter.take(server.uuid, limit, by)
        for name, value in verdict.headers(self._now()).items():
            request.responseHeaders.setRawHeaders(name, [value])
        if verdict.retry_in is not None:
            raise too_many_requests(verdict.retry_in)

    async def proven(self, credentials: Credentials, by: float) -> Server:
        """Find the server of these credentials, or raise the WireError they deserve."""
        found = await self.look_up(credentials, None, by)
        return prove(credentials, found.server, self._now())

    def knows(self, request: Request) -> Deferred[bool]:
        """Say whether a request, of which the head came in, is a server's that we know."""

        async def ask(authorization: str | None) -> bool:
            try:
                await self.proven(read_credentials(authorization), self.deadline())
            except WireError:
                return False
            return True

        return Deferred.fromCoroutine(ask(header(request, b"authorization")))

    def look_up(self, credentials: Credentials, asked: object, by: float) -> Deferred[Found]:
        """Find the server of these credentials, and the realm and the user it asks about."""
        if credentials.uuid is None:
            return succeed(Found(None))
        identity, realm_uuid = None, None
        if isinstance(asked, wire.UserRequest):
            identity, realm_uuid = asked.identity, asked.realm_uuid
        elif isinstance(asked, wire.RealmRequest):
            realm_uuid = asked.realm_uuid
        found = self._store.find(credentials.uuid, identity, realm_uuid)
        return until(by, self._clock, found)

    def serve(self, request: Request, work: Coroutine[Any, Any, bytes]) -> None:
        """Do work and answer; it goes on when its caller hangs up."""

        def done(body: bytes) -> None:
            end(request, write_head(request, 200, body))

        def failed(reason: Failure) -> None:
            end(request, self._failed(request, reason))

        Deferred.fromCoroutine(work).addCallbacks(done, failed)

    def detached(self, request: Request, work: Coroutine[Any, Any, bytes]) -> Deferred[bytes]:
        """Start work that goes on when its caller hangs up: Klein cancels only what is returned."""
        answer: Deferred[bytes] = Deferred()

        def done(body: bytes) -> None:
            # After a cancellation a Deferred takes one late result, and drops it.
            answer.callback(write_head(request, 200, body))

        def failed(reason: Failure) -> None:
            if answer.called and not reason.check(WireError, *_BUSY):
                note_fault(request, reason)
            answer.errback(reason)

        Deferred.fromCoroutine(work).addCallbacks(done, failed)
        return answer


_BUSY = Saturated, StoreUnavailable, TooLate
