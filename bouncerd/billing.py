"""What `server/billing` is asked: where an organization's owner sees its plan (bouncer-api.md 14).

Pure. Who the owner is is checked for its shape and not kept: plans are the organization's.
"""

from dataclasses import dataclass

from bouncerd import members
from bouncerd.envelope import bad_request, parse_json
from bouncerd.forms import Form
from bouncerd.identifiers import checked_random_uuid
from bouncerd.realms import parse_realm
from bouncerd.wire import RealmRequest

_SCHEMES = ("https://", "http://")
_PAGES = ("sponsorship", "upgrade", "billing", "plans", "deactivate")


@dataclass(frozen=True, slots=True)
class BillingRequest(RealmRequest):
    """An organization whose plan is to be seen."""


def parse_billing(form: Form) -> BillingRequest:
    """Read `server/billing`. There is one page, so that `next_page` is checked and not followed."""
    _check_user(_json(form, "user"))
    realm = parse_realm(_json(form, "realm"), "realm", only_known_keys=True)
    _check_one_of(form, "uri_scheme", _SCHEMES)
    _check_one_of(form, "next_page", _PAGES)
    return BillingRequest(realm.uuid)


def _json(form: Form, name: str) -> object:
    try:
        return parse_json(form.text(name))
    except ValueError:
        raise bad_request(f"{name} is not valid JSON") from None


def _check_user(item: object) -> None:
    user = members.an_object(item, "user", "UserDataForRemoteBilling")
    uuid: str = members.member(user, "uuid", str, "user")
    checked_random_uuid(uuid, members.path("user", "uuid"))
    members.text(user, "email", "user")
    members.text(user, "full_name", "user")


def _check_one_of(form: Form, name: str, allowed: tuple[str, ...]) -> None:
    value = form.maybe_text(name)
    if value is not None and value not in allowed:
        raise bad_request(f"Invalid {name}")
