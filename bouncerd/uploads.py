"""What a Zulip server uploads of itself: statistics, audit rows, realms (bouncer-api.md 7).

Pure shapes; wire spelling is analytics.py's, storing is the store's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CountRow:
    """One row of realm counts (`realm`: the local number) or, without one, of the installation."""

    id: int
    property: str
    subgroup: str | None
    end_time: float  # unix seconds
    value: int
    realm: int | None = None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of a realm's audit log; `humans` only where it carries user counts (7.5)."""

    id: int
    realm: int
    event_type: int
    event_time: float
    backfilled: bool
    extra_data: str = field(repr=False)  # JSON
    humans: int | None = None  # sum of all roles, guests included


@dataclass(frozen=True, slots=True)
class RealmRow:
    """A realm as its server describes it (7.6). `authentication_methods` is JSON."""

    uuid: str
    local_id: int
    host: str
    name: str
    org_type: int
    date_created: float
    deactivated: bool
    is_system_bot_realm: bool
    authentication_methods: str
    owner_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """One call to server/analytics. `audit_rows` and `realms` None: not sent at all."""

    realm_counts: Sequence[CountRow]
    installation_counts: Sequence[CountRow]
    audit_rows: Sequence[AuditRow] | None
    realms: Sequence[RealmRow] | None
    version: str | None
    merge_base: str | None
    feature_level: int | None
    # Highest id in each list as it came, rows that are accepted and dropped included (7.4).
    highest: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Marks:
    """The highest row ids received so far, 0 if none (7.2)."""

    realm_count: int = 0
    installation_count: int = 0
    audit_log: int = 0
