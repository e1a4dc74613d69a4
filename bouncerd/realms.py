"""An organization as its server describes it (bouncer-api.md 7.6).

Pure: what JSON said in, a RealmRow out, or the WireError it deserves.
"""

from collections.abc import Mapping

from bouncerd import members
from bouncerd.envelope import bad_request, compact
from bouncerd.identifiers import checked_random_uuid
from bouncerd.members import Object
from bouncerd.uploads import RealmRow

_ORG_TYPES = frozenset({0, 10, 20, 30, 35, 40, 50, 60, 70, 80, 90, 100, 1000})
_REALM_KEYS = frozenset(
    {
        *("id", "host", "url", "name", "org_type", "date_created", "deactivated"),
        *("is_system_bot_realm", "authentication_methods", "uuid", "uuid_owner_secret"),
    }
)


def parse_realm(item: object, where: str, *, only_known_keys: bool = False) -> RealmRow:
    """Read a realm (7.6); `where` is its path."""
    row = members.an_object(item, where, "RealmDataForAnalytics")
    local_id, host = members.integer(row, "id", where), members.text(row, "host", where)
    members.text(row, "url", where)
    name = members.text(row, "name", where) if "name" in row else ""
    org_type = _org_type(row, where) if "org_type" in row else 0
    date_created = members.time(row, "date_created", where)
    deactivated: bool = members.member(row, "deactivated", bool, where)
    is_bots = "is_system_bot_realm" in row and members.member(
        row, "is_system_bot_realm", bool, where
    )
    methods = _methods(row, where)
    uuid: str = members.member(row, "uuid", str, where)
    parsed = RealmRow(
        checked_random_uuid(uuid, members.path(where, "uuid")),
        local_id,
        host,
        name,
        org_type,
        date_created,
        deactivated,
        is_bots,
        compact(methods).decode(),
        members.text(row, "uuid_owner_secret", where),
    )
    if only_known_keys:
        _refuse_others(row, where)
    return parsed


def _refuse_others(row: Object, where: str) -> None:
    for key in row:
        if key not in _REALM_KEYS:
            raise bad_request(f'Argument "{key}" at {members.path(where, key)} is unexpected')


def _org_type(row: Object, where: str) -> int:
    org_type: int = members.member(row, "org_type", int, where)
    if org_type not in _ORG_TYPES:
        path = members.path(where, "org_type")
        raise bad_request(f"Invalid {path}: Value error, Not a valid org_type value")
    return org_type


def _methods(row: Object, where: str) -> Mapping[str, bool]:
    key = "authentication_methods"
    if key not in row:
        return {}
    methods: Mapping[str, bool] = members.member(row, key, dict, where)
    for name, enabled in methods.items():
        members.typed(enabled, bool, members.path(members.path(where, key), name))
    return methods
