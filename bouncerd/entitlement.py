"""Who may push: by plan, or by having few users (bouncer-api.md 8).

Pure. What it needs is computed when data or plans change and comes with the look-up that finds
the caller, so that it costs a push nothing.
"""

from dataclasses import dataclass

from bouncerd.envelope import WireError, bad_request
from bouncerd.model import Realm, Server

SELF_MANAGED = 100  # no plan
LEGACY, COMMUNITY, BASIC, BUSINESS, ENTERPRISE = 101, 102, 103, 104, 105
PLANS = frozenset({SELF_MANAGED, LEGACY, COMMUNITY, BASIC, BUSINESS, ENTERPRISE})

_FRESH = 2 * 86_400.0  # seconds for which a user count is good
_FIRST_UPLOAD_WITHIN = 2 * 3_600.0  # seconds after registration

MISSING_DATA = "Missing data"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a server may push, and until when if its plan is about to end (unix seconds)."""

    can_push: bool
    expected_end: int | None
    reason: str

    def status(self) -> dict[str, object]:
        """Return what servers are told of it."""
        return {"can_push": self.can_push, "expected_end_timestamp": self.expected_end}


def judge(server: Server, realm: Realm | None, free_users: int | None, now: float) -> Verdict:
    """Say whether a server may push for this realm, or at all; `free_users` None: it always may."""
    if free_users is None:
        return Verdict(True, None, "No plans here")
    holder = next((each for each in (realm, server) if each and _has_plan(each, now)), None)
    if holder is not None and holder.plan_type == COMMUNITY:
        return Verdict(True, None, "Community plan")
    users = known_users(server, realm, now)
    if holder is None:
        return _without_plan(users, free_users)
    if holder.plan_ends_at is None:
        return Verdict(True, None, "Active plan")
    if users is not None and users <= free_users:
        return Verdict(True, None, "Expiring plan few users")
    return Verdict(True, int(holder.plan_ends_at), "Scheduled end")


def known_users(server: Server, realm: Realm | None, now: float) -> int | None:
    """Count the users, if what we know of them is not too old.

    Servers upload hourly. One that has just registered and has not yet uploaded anything may push
    all the same: upstream refuses it, with a message that nobody understands.
    """
    if server.data_at is None:
        new = now - server.registered_at <= _FIRST_UPLOAD_WITHIN
        return 0 if new and realm is None and server.feature_level is None else None
    if now - server.data_at > _FRESH:
        return None
    return server.users if realm is None else realm.users


def refusal(verdict: Verdict, server: Server) -> WireError:
    """Build the answer to a legacy push that is not allowed (9.6 step 2).

    Servers older than 8.0 know one code only. Those never say their feature level.
    """
    if server.feature_level is None:
        return bad_request(_NOT_ALLOWED, code="INVALID_ZULIP_SERVER")
    return disallowed(verdict)


def disallowed(verdict: Verdict) -> WireError:
    """Build the answer to a push that is not allowed, for servers that know its code."""
    msg = f"{_NOT_ALLOWED} Reason provided by the server: {verdict.reason}"
    return bad_request(msg, code="PUSH_NOTIFICATIONS_DISALLOWED")


_NOT_ALLOWED = "Your plan doesn't allow sending push notifications."


def _has_plan(holder: Server | Realm, now: float) -> bool:
    if holder.plan_type not in PLANS or holder.plan_type == SELF_MANAGED:
        return False
    return holder.plan_ends_at is None or holder.plan_ends_at > now


def _without_plan(users: int | None, free_users: int) -> Verdict:
    if users is None:
        return Verdict(False, None, MISSING_DATA)
    if users > free_users:
        # The contract's words, address included: servers show them to their users as they are.
        return Verdict(
            False,
            None,
            f"Push notifications access with {free_users}+ users requires signing up for a plan."
            " https://zulip.com/plans/",
        )
    return Verdict(True, None, "No plan few users")
