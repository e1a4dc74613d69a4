"""What servers upload of themselves, read and checked (bouncer-api.md 1.6, 7).

Pure: a Form in, an Upload out, or the WireError it deserves. Checks stand in the order in which
callers are told of them. Functions that return `InPieces` pause (see bulk.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bouncerd import members
from bouncerd.bulk import InPieces, read_list, read_scalar
from bouncerd.envelope import WireError, bad_request, compact, parse_json
from bouncerd.forms import Form
from bouncerd.members import BITS_32, BITS_64, Object
from bouncerd.realms import parse_realm
from bouncerd.uploads import AuditRow, CountRow, Marks, RealmRow, Upload

MAX_ROWS = 10_000  # of a list; servers send no more

# Statistics that are stored. Others are accepted and dropped: a failure could switch pushes off
# for a whole server, and newer servers have more of them.
_STORED = frozenset(
    {
        *("messages_sent:is_bot:hour", "messages_sent:message_type:day"),
        *("messages_sent:client:day", "messages_in_stream:is_bot:day"),
        *("messages_read::hour", "messages_read_interactions::hour"),
        *("active_users_audit:is_bot:day", "realm_active_humans::day"),
        *("1day_actives::day", "7day_actives::day", "15day_actives::day"),
        *("minutes_active::day", "upload_quota_used_bytes::day", "ai_credit_usage::day"),
    }
)
_OURS = frozenset({"mobile_pushes_received::day", "mobile_pushes_forwarded::day"})
_EVENT_TYPES = frozenset({101, 102, 103, 104, 105, 201, 202, 229})
_ROLES = ("100", "200", "300", "400", "600")

_MAX_VERSION = 128
_CHECKED = 1000  # rows at once

# Stands for an audit row's data that is no JSON: it is told of after all else that may be wrong.
_MALFORMED = ""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Parsed:
    """An upload of the right shape, with all its rows."""

    realm_counts: Sequence[CountRow]
    installation_counts: Sequence[CountRow]
    audit_rows: Sequence[AuditRow] | None
    realms: Sequence[RealmRow] | None
    version: str | None
    merge_base: str | None
    feature_level: int | None


def parse_upload(form: Form) -> InPieces[Parsed]:
    """Read `server/analytics`."""
    return Parsed(
        (yield from _rows(form, "realm_counts", _realm_count)),
        (yield from _rows(form, "installation_counts", _installation_count)),
        (yield from _maybe_rows(form, "realmauditlog_rows", _audit_row)),
        (yield from _maybe_rows(form, "realms", parse_realm)),
        _version(form),
        _merge_base(form),
        _feature_level(form),
    )


def check(parsed: Parsed, marks: Marks) -> InPieces[Upload]:
    """Apply the rules for rows (7.4, 7.5), and drop what is not stored."""
    realm_counts, installation_counts = parsed.realm_counts, parsed.installation_counts
    audit_rows = parsed.audit_rows or ()
    yield from _check_rows(realm_counts, marks.realm_count, _check_property)
    yield from _check_rows(installation_counts, marks.installation_count, _check_property)
    yield from _check_rows(audit_rows, marks.audit_log, _check_event)
    if any(row.extra_data == _MALFORMED for row in audit_rows):
        raise bad_request("Malformed audit log data")
    lists: Mapping[str, Sequence[CountRow | AuditRow]] = {
        "realm_count": realm_counts,
        "installation_count": installation_counts,
        "audit_log": audit_rows,
    }
    return Upload(
        [row for row in realm_counts if row.property in _STORED],
        [row for row in installation_counts if row.property in _STORED],
        parsed.audit_rows,
        parsed.realms,
        parsed.version,
        parsed.merge_base,
        parsed.feature_level,
        {name: rows[-1].id for name, rows in lists.items() if rows},
    )


def out_of_order() -> WireError:
    """Build the answer to rows that were sent before."""
    return bad_request("Data is out of order.")


def duplicate_realm() -> WireError:
    """Build the answer to a realm that another server has, or a new one that comes twice."""
    return bad_request("Duplicate registration detected.")


def too_many_realms() -> WireError:
    """Build the answer to more realms than any server has, with those it had before."""
    return bad_request("Too many organizations are registered for this server")


# --- the rules for rows


def _check_rows(rows: Sequence[Any], mark: int, check_row: Callable[[Any], None]) -> InPieces[None]:
    for number, row in enumerate(rows, 1):
        check_row(row)
        if row.id <= mark:
            raise out_of_order()
        mark = row.id
        if number % _CHECKED == 0:
            yield


def _check_property(row: CountRow) -> None:
    if row.property in _OURS:
        raise bad_request(f"Invalid property {row.property}")


def _check_event(row: AuditRow) -> None:
    if row.event_type not in _EVENT_TYPES:
        raise bad_request("Invalid event type.")


# --- parameters


def _rows(form: Form, name: str, read: Callable[[object, str], _T]) -> InPieces[list[_T]]:
    return (yield from read_list(name, form.text(name), read, MAX_ROWS))


def _maybe_rows(
    form: Form, name: str, read: Callable[[object, str], _T]
) -> InPieces[list[_T] | None]:
    if form.maybe_text(name) is None:
        return None
    return (yield from _rows(form, name, read))


def _version(form: Form) -> str | None:
    name = "version"
    if form.maybe_text(name) is None:
        return None
    return members.storable(members.typed(read_scalar(form, name), str, name), name)[:_MAX_VERSION]


def _merge_base(form: Form) -> str | None:
    name = "merge_base"
    if form.maybe_text(name) is None:
        return None
    return members.storable(members.typed(read_scalar(form, name), str, name), name, _MAX_VERSION)


def _feature_level(form: Form) -> int | None:
    name = "api_feature_level"
    if form.maybe_text(name) is None:
        return None
    return members.in_range(members.typed(read_scalar(form, name), int, name), 0, BITS_32, name)


# --- rows; `where` is a row's path


def _realm_count(item: object, where: str) -> CountRow:
    row = members.an_object(item, where, "RealmCountDataForAnalytics")
    return CountRow(
        property=members.text(row, "property", where),
        realm=members.integer(row, "realm", where),
        id=members.integer(row, "id", where),
        end_time=members.time(row, "end_time", where),
        subgroup=_subgroup(row, where),
        value=members.integer(row, "value", where, BITS_64),
    )


def _installation_count(item: object, where: str) -> CountRow:
    row = members.an_object(item, where, "InstallationCountDataForAnalytics")
    return CountRow(
        property=members.text(row, "property", where),
        id=members.integer(row, "id", where),
        end_time=members.time(row, "end_time", where),
        subgroup=_subgroup(row, where),
        value=members.integer(row, "value", where, BITS_64),
    )


def _audit_row(item: object, where: str) -> AuditRow:
    row = members.an_object(item, where, "RealmAuditLogDataForAnalytics")
    row_id, realm = members.integer(row, "id", where), members.integer(row, "realm", where)
    event_time = members.time(row, "event_time", where)
    backfilled: bool = members.member(row, "backfilled", bool, where)
    data = _extra_data(row, where)
    event_type: int = members.member(row, "event_type", int, where)
    text = _MALFORMED if data is None else compact(data).decode()
    return AuditRow(row_id, realm, event_type, event_time, backfilled, text, _humans(data))


def _subgroup(row: Object, where: str) -> str | None:
    if row.get("subgroup", "") is None:
        return None
    return members.text(row, "subgroup", where)


def _extra_data(row: Object, where: str) -> object:
    """Return what an audit row tells; None if it is malformed."""
    data = row.get("extra_data", row)
    if data is None:
        return {}
    if data is row:
        raise members.missing(where, "extra_data")
    if isinstance(data, str):
        try:
            return parse_json(data) or {}
        except ValueError:
            return None
    # The reference names the first of the types that it could be.
    return members.typed(
        data, dict, members.path(members.path(where, "extra_data"), "str"), "a string"
    )


def _humans(data: object) -> int | None:
    """Count the humans of all roles (7.5), if a row tells."""
    roles = _within(_within(data, "10"), "11")
    if not isinstance(roles, dict):
        return None
    humans = 0
    for role in _ROLES:
        count = roles.get(role, 0)
        if type(count) is not int or not 0 <= count < BITS_32:
            return None
        humans += count
    return humans


def _within(data: object, key: str) -> object:
    return data.get(key) if isinstance(data, dict) else None
