"""Our few HTML pages: complete in themselves, no script, nothing loaded from anywhere.

Whatever goes in comes out escaped. A page is bytes; who sends it also sends `HEADERS`.
"""

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from twisted.web.template import Tag, flattenString, tags

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:3rem auto;padding:0 1rem}"
    "th{text-align:left;padding-right:1.5rem;vertical-align:top;font-weight:600}"
    "label{display:block;margin:1rem 0 .25rem}input{font:inherit;width:100%;padding:.3rem}"
    "button{font:inherit;margin-top:1.5rem;padding:.4rem 1.2rem}.wrong{color:#b00020}"
)
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}


@dataclass(frozen=True, slots=True)
class Contact:
    """How to reach who runs this: words, and the address of the terms; each may be empty."""

    support: str
    terms_url: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to say of the plan of a server, or of an organization on one."""

    whose: str
    place: str  # its host name
    is_server: bool
    plan: str
    ends_at: float | None  # unix seconds
    users: int | None  # None: no recent data
    free_users: int | None  # None: plans are switched off
    can_push: bool
    why: str


async def plan_page(plan: Plan, contact: Contact) -> bytes:
    """Say what plan somebody has, its limit and count."""
    rows = [
        ("Server" if plan.is_server else "Organization", plan.whose),
        ("Host name", plan.place),
        ("Plan", plan.plan),
        ("Users", "unknown: no recent data" if plan.users is None else str(plan.users)),
        ("Without a plan", _limit(plan.free_users)),
        ("Mobile notifications", f"{'on' if plan.can_push else 'off'} ({plan.why})"),
    ]
    if plan.ends_at is not None:
        day = datetime.fromtimestamp(plan.ends_at, UTC).strftime("%Y-%m-%d")
        rows.insert(3, ("Ends on", day))
    table = tags.table(*[tags.tr(tags.th(name), tags.td(value)) for name, value in rows])
    return await _page("Mobile push notifications", [table, _reach(contact)])


async def login_page(action: str, contact: Contact, wrong: str = "") -> bytes:
    """Ask for the credentials of a server; `wrong` says what was, the last time."""
    form = tags.form(
        tags.label("Server id (zulip_org_id)", for_="org-id"),
        tags.input(
            id="org-id", name="zulip_org_id", required="required", autocomplete="username",
            maxlength="36",
        ),
        tags.label("Server key (zulip_org_key)", for_="org-key"),
        tags.input(
            id="org-key", name="zulip_org_key", type="password", required="required",
            autocomplete="current-password", maxlength="64",
        ),
        tags.button("Log in", type="submit"),
        method="post",
        action=action,
    )  # fmt: skip
    found = "Both stand in /etc/zulip/zulip-secrets.conf of your Zulip server."
    said = [tags.p(wrong, class_="wrong", role="alert")] if wrong else []
    return await _page("Log in as a server", [*said, form, tags.p(found), _reach(contact)])


async def notice_page(title: str, text: str, contact: Contact) -> bytes:
    """Say one thing."""
    return await _page(title, [tags.p(text), _reach(contact)])


def _limit(free_users: int | None) -> str:
    return "any number of users" if free_users is None else f"up to {free_users} users"


def _reach(contact: Contact) -> Tag:
    words = "Questions go to the operator of this push notification service"
    said: list[object] = [f"{words}: {contact.support}. " if contact.support else f"{words}. "]
    if contact.terms_url:
        said.append(tags.a("Terms", href=contact.terms_url, rel="noreferrer"))
    return tags.p(*said)  # type: ignore[arg-type]  # text and tags, as it takes them


async def _page(title: str, content: list[Tag]) -> bytes:
    head = tags.head(
        tags.meta(charset="utf-8"),
        tags.meta(name="viewport", content="width=device-width,initial-scale=1"),
        tags.title(title),
        tags.style(_STYLE),
    )
    whole = tags.html(head, tags.body(tags.h1(title), *content), lang="en")
    return b"<!DOCTYPE html>\n" + await flattenString(None, whole) + b"\n"
