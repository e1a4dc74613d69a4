"""Our few web pages, beside the API: what plan somebody has, and /version.

An organization's owner gets here by a link (bouncer-api.md 14), a server's operator by its id and
key. Nothing changes by a GET; what a browser holds afterwards is a sealed cookie. Any other path
is the API's.
"""

# Twisted's server is not annotated.
# mypy: allow-untyped-calls

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from math import ceil
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

import bouncerd
from bouncerd import entitlement, markup
from bouncerd.addresses import IPNetwork
from bouncerd.basicauth import Credentials, digest, prove
from bouncerd.deadline import TooLate, until
from bouncerd.envelope import WireError, compact
from bouncerd.forms import read_form
from bouncerd.identifiers import canonical_uuid
from bouncerd.limits import SlidingLog
from bouncerd.links import LASTS, LOGIN, Links, Sight
from bouncerd.model import Realm, Server
from bouncerd.site import Request, note_fault
from bouncerd.store.base import Store, StoreUnavailable
from bouncerd.strangers import client_of

_PLAN = "/plan/"
_SERVER_LOGIN = "/serverlogin/"
_COOKIE = "bouncerd-plan"

# Keys cannot be guessed; this keeps those who try from costing us much.
_TRIES = 10  # from one place
_TRIES_FOR_ONE_ID = 50  # more than that: one place alone cannot lock an operator out
_TRIES_WITHIN = 600.0  # seconds
_MOST_NAMES = 10_000
_LONGEST_LOGIN = 4096  # bytes of a form: what strangers send is read only if that costs little

_PLAN_NAMES = {
    entitlement.SELF_MANAGED: "none",
    entitlement.LEGACY: "legacy",
    entitlement.COMMUNITY: "community (sponsored)",
    entitlement.BASIC: "basic",
    entitlement.BUSINESS: "business",
    entitlement.ENTERPRISE: "enterprise",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What the operator says of this bouncer. `free_users` None: plans are switched off."""

    contact: markup.Contact
    free_users: int | None
    answer_within: float  # seconds


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a browser."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


_Answer = Callable[[Request, str], Coroutine[Any, Any, Page]]


class Pages(Resource):
    """Answers what browsers ask; hands the rest to `api`.

    `trusted` are the proxies that are believed when they say who asks.
    """

    isLeaf = True

    def __init__(
        self,
        api: IResource,
        store: Store,
        links: Links,
        clock: IReactorTime,
        now: Callable[[], float],
        setting: Setting,
        trusted: Sequence[IPNetwork] = (),
    ) -> None:
        super().__init__()
        self._api = api
        self._store = store
        self._links = links
        self._clock = clock
        self._now = now
        self.setting = setting
        self._trusted = trusted
        self._tries = SlidingLog(_TRIES_WITHIN, _MOST_NAMES)
        # A proxy may have given us a place below its root. Hosts are never taken from a request.
        self._below = urlsplit(links.public_url).path
        self._pages: dict[str, tuple[_Answer, tuple[str, ...]]] = {
            "/version": (_version, ("GET",)),
            _PLAN: (self._plan, ("GET",)),
            _SERVER_LOGIN: (self._server_login, ("GET", "POST")),
            _SERVER_LOGIN.rstrip("/"): (self._server_login, ("GET", "POST")),
            LOGIN: (self._by_link, ("GET",)),
        }

    def render(self, request: Any) -> Any:
        """Answer, or let the API do it."""
        path = "/" + b"/".join(request.postpath or ()).decode()
        place = LOGIN if path.startswith(LOGIN) else path
        if place not in self._pages:
            return self._api.render(request)
        answer, methods = self._pages[place]
        request.endpoint = place.strip("/")
        method = request.method.decode("latin-1")
        if {"HEAD": "GET"}.get(method, method) in methods:
            self._send(request, answer(request, path.removeprefix(LOGIN)))
        else:
            self._send(request, _wrong_method(methods))
        return NOT_DONE_YET

    # --- pages

    async def _by_link(self, _request: Request, sealed: str) -> Page:
        sight = await self._links.from_link(sealed)
        if sight is None:
            return await self._closed("This link is not valid, or no longer.")
        return await self._seen(sight)

    async def _server_login(self, request: Request, _: str) -> Page:
        if request.method != b"POST":
            return await self._login("")
        if request.getHeader(b"sec-fetch-site") not in (None, b"same-origin", b"none"):
            return await self._login("This form was sent from another site.", 403)
        assert request.content is not None
        content_type = request.getHeader(b"content-type") or b""
        content = request.content.read()
        if len(content) > _LONGEST_LOGIN:
            return await self._login("This is no id and no key.", 400)
        try:
            form = read_form(content, content_type.decode("latin-1"), b"")
        except WireError as error:
            return await self._login(error.msg, error.status)
        org_id = form.maybe_text("zulip_org_id") or ""
        key = form.maybe_text("zulip_org_key") or ""
        wait = self._wait(client_of(request, self._trusted), org_id)
        if wait is not None:
            page = await self._login("Too many attempts. Try again later.", 429)
            return Page(page.body, page.status, {**page.headers, "Retry-After": str(wait)})
        credentials = Credentials(org_id, canonical_uuid(org_id), digest(key))
        # What is no uuid is looked for, too: unknown and wrong take the same time.
        found = await self._store.find(credentials.uuid or "", None, None)
        try:
            server = prove(credentials, found.server, self._now())
        except WireError:
            return await self._login("No active server has this id and this key.", 403)
        return await self._seen(Sight(server.uuid))

    async def _plan(self, request: Request, _: str) -> Page:
        cookie = request.getCookie(_COOKIE.encode()) or b""
        sight = await self._links.from_cookie(cookie.decode("latin-1"))
        if sight is None:
            return await self._closed("You are not logged in, or no longer.")
        found = await self._store.find(sight.server, None, sight.realm)
        server, realm = found.server, found.realm
        if server is None or server.deactivated:
            return await self._closed("This server is not registered here any more.")
        if sight.realm is not None and (realm is None or realm.server_id != server.id):
            return await self._closed("This organization is not registered here any more.")
        return _html(await markup.plan_page(self._facts(server, realm), self.setting.contact))

    def _facts(self, server: Server, realm: Realm | None) -> markup.Plan:
        now, free_users = self._now(), self.setting.free_users
        verdict = entitlement.judge(server, realm, free_users, now)
        holder = server if realm is None else realm
        return markup.Plan(
            whose=server.hostname if realm is None else realm.name or realm.host,
            place=server.hostname if realm is None else realm.host,
            is_server=realm is None,
            plan=_PLAN_NAMES.get(holder.plan_type, "none"),
            ends_at=holder.plan_ends_at,
            users=entitlement.known_users(server, realm, now),
            free_users=free_users,
            can_push=verdict.can_push,
            why=verdict.reason,
        )

    # --- what pages have in common

    async def _seen(self, sight: Sight) -> Page:
        """Send a browser on to the plan, with what lets it see that."""
        cookie = f"{_COOKIE}={await self._links.to_cookie(sight)}; Max-Age={int(LASTS)}"
        cookie += f"; Path={self._below}{_PLAN}; HttpOnly; SameSite=Lax"
        if self._links.public_url.startswith("https:"):
            cookie += "; Secure"
        return Page(b"", 303, {"Location": f"{self._below}{_PLAN}", "Set-Cookie": cookie})

    async def _login(self, wrong: str, status: int = 200) -> Page:
        action = f"{self._below}{_SERVER_LOGIN}"
        return _html(await markup.login_page(action, self.setting.contact, wrong), status)

    async def _closed(self, why: str) -> Page:
        way = " Open plan management in your Zulip organization, or log in as a server."
        page = await markup.notice_page("Not available", why + way, self.setting.contact)
        return _html(page, 403)

    def _wait(self, address: str, org_id: str) -> int | None:
        """Count a try to log in; say how many seconds to wait if it is one too many."""
        # Cut: what is longer is no id, and must not fill our memory.
        names = {f"from {address}": _TRIES, f"as {org_id[:36].lower()}": _TRIES_FOR_ONE_ID}
        for name, limit in names.items():
            verdict = self._tries.take(name, limit, self._clock.seconds())
            if verdict.retry_in is not None:
                return ceil(verdict.retry_in)
        return None

    def _send(self, request: Request, work: Coroutine[Any, Any, Page]) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def send(page: Page) -> None:
            if gone:
                return
            request.setResponseCode(page.status)
            for name, value in {"Cache-Control": "no-store", **page.headers}.items():
                request.responseHeaders.setRawHeaders(name, [value])
            request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(page.body)])
            request.write(page.body)
            request.finish()

        by = self._clock.seconds() + self.setting.answer_within
        answered = until(by, self._clock, Deferred.fromCoroutine(work))
        answered.addErrback(lambda reason: self._failed(request, reason)).addCallback(send)

    def _failed(self, request: Request, reason: Failure) -> Deferred[Page]:
        status, text = 503, "We are busy. Try again later."
        if not reason.check(StoreUnavailable, TooLate):
            note_fault(request, reason)
            status, text = 500, "Something went wrong on our side."
        page = markup.notice_page("Not now", text, self.setting.contact)
        return Deferred.fromCoroutine(page).addCallback(_html, status)


async def _version(_request: Request, _: str) -> Page:
    about = {"name": "bouncerd", "version": bouncerd.__version__, "source": _source()}
    return Page(compact(about) + b"\n", headers={"Content-Type": "application/json"})


def _source() -> str | None:
    """Say where the source is, as the installed package has it."""
    try:
        found = metadata.metadata("bouncerd").get_all("Home-page")
    except metadata.PackageNotFoundError:
        return None
    return found[0] if found else None


async def _wrong_method(methods: tuple[str, ...]) -> Page:
    error = {"result": "error", "msg": "Method Not Allowed", "allowed_methods": list(methods)}
    headers = {"Allow": ", ".join(methods), "Content-Type": "application/json"}
    return Page(compact(error) + b"\n", 405, headers)


def _html(body: bytes, status: int = 200) -> Page:
    return Page(body, status, dict(markup.HEADERS))
