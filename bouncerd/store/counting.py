"""SQL about what became of pushes: sums that processes add to, each sum once; and leases.

Rows are written in one order by all, so that two processes never wait for each other in a circle.
"""

import json
from collections.abc import Iterable, Iterator, Sequence

from bouncerd.leasing import Ask, Entry, Lease, grant
from bouncerd.store.rows import (
    Many,
    Row,
    Script,
    Statement,
    Value,
    findable,
    in_pieces,
    moment,
    number,
    text,
)
from bouncerd.tallies import DAY, Counts, OutcomeCount, PushCount

_AT_ONCE = 500  # rows that are deleted in one transaction at most, of each table

# Says whether this is the first time, and makes another process of that name wait until that is
# certain.
_CLAIM = """
    INSERT INTO count_writers (writer, number, added_at) VALUES (?, ?, ?)
    ON CONFLICT (writer) DO UPDATE SET number = excluded.number, added_at = excluded.added_at
    WHERE count_writers.number < excluded.number
    RETURNING number
"""
_ADD_OUTCOME = """
    INSERT INTO outcomes (server_id, day, provider, app, kind, reason, count, first_at, last_at)
    SELECT s.id, ?, ?, ?, ?, ?, ?, ?, ? FROM servers s WHERE s.uuid = ?
    ON CONFLICT (server_id, day, provider, app, kind, reason) DO UPDATE SET
        count = outcomes.count + excluded.count,
        first_at = CASE WHEN excluded.first_at < outcomes.first_at
                        THEN excluded.first_at ELSE outcomes.first_at END,
        last_at = CASE WHEN excluded.last_at > outcomes.last_at
                       THEN excluded.last_at ELSE outcomes.last_at END
"""
_ADD_PUSHES = """
    INSERT INTO push_counts (server_id, realm_id, day, received, forwarded)
    SELECT %s, ?, ?, ? FROM %s WHERE uuid = ?
    ON CONFLICT (server_id, realm_id, day) DO UPDATE SET
        received = push_counts.received + excluded.received,
        forwarded = push_counts.forwarded + excluded.forwarded
"""
_ADD_PUSHES_OF_SERVER = _ADD_PUSHES % ("id, 0", "servers")
_ADD_PUSHES_OF_REALM = _ADD_PUSHES % ("server_id, id", "realms")

_OUTCOMES = """
    SELECT s.uuid, o.day, o.provider, o.app, o.kind, o.reason, o.count, o.first_at, o.last_at
    FROM servers s JOIN outcomes o ON o.server_id = s.id
    WHERE s.uuid = ? AND o.day >= ?
    ORDER BY o.day, o.provider, o.app, o.kind, o.reason
"""
_PUSHES = """
    SELECT COALESCE(r.uuid, s.uuid), c.day, c.received, c.forwarded
    FROM servers s
    JOIN push_counts c ON c.server_id = s.id
    LEFT JOIN realms r ON r.id = c.realm_id
    WHERE s.uuid = ? AND c.day >= ?
    ORDER BY c.day, c.realm_id
"""

_PRUNE = """
    DELETE FROM {table}
    WHERE {key} IN (SELECT {key} FROM {table} WHERE {age} < ? LIMIT ?)
    RETURNING {key}
"""
_PRUNE_OUTCOMES = _PRUNE.format(table="outcomes", key="id", age="day")
_PRUNE_PUSHES = _PRUNE.format(table="push_counts", key="id", age="day")
_PRUNE_WRITERS = _PRUNE.format(table="count_writers", key="writer", age="added_at")
_PRUNE_LEASES = _PRUNE.format(table="leases", key="key", age="touched_at")

# The row is locked until the transaction ends, where a database has more than one writer; only
# then is it read, and the clock after that.
_LOCK_LEASES = """
    INSERT INTO leases (key, log, touched_at) VALUES (?, '[]', 0)
    ON CONFLICT (key) DO UPDATE SET key = excluded.key
    RETURNING log, %s
"""
_STORE_LEASES = "UPDATE leases SET log = ?, touched_at = ? WHERE key = ?"


# Reads.


def outcomes(server_uuid: str, since_day: int) -> Statement:
    """Find what a server's pushes met, from a day on."""
    return _OUTCOMES, (findable(server_uuid), number(since_day))


def the_outcomes(rows: list[Row]) -> list[OutcomeCount]:
    """Understand the rows of `outcomes`."""
    return [OutcomeCount(*row) for row in rows]


def push_counts(server_uuid: str, since_day: int) -> Statement:
    """Find the daily counts of a server and its realms, from a day on."""
    return _PUSHES, (findable(server_uuid), number(since_day))


def the_push_counts(rows: list[Row]) -> list[PushCount]:
    """Understand the rows of `push_counts`."""
    return [PushCount(*row) for row in rows]


# Writes.


def add(writer: str, number_of: int, counts: Counts, now: float) -> Script[bool]:
    """Add sums unless they were; say which."""
    if not (yield _CLAIM, (text(writer), number(number_of), moment(now))):
        return False
    yield from in_pieces(_ADD_OUTCOME, map(_outcome, sorted(counts.outcomes, key=_by_key)))
    yield from in_pieces(_ADD_PUSHES_OF_SERVER, _pushes(counts.servers))
    yield from in_pieces(_ADD_PUSHES_OF_REALM, _pushes(counts.realms))
    return True


def _by_key(row: OutcomeCount) -> tuple[str, int, str, str, str, str]:
    return row.server, row.day, row.provider, row.app, row.kind, row.reason


def _outcome(row: OutcomeCount) -> tuple[Value, ...]:
    facts = text(row.provider), text(row.app), text(row.kind), text(row.reason)
    sums = number(row.count), moment(row.first), moment(row.last)
    return number(row.day), *facts, *sums, findable(row.server)


def _pushes(rows: Iterable[PushCount]) -> Iterator[tuple[Value, ...]]:
    for row in sorted(rows, key=lambda row: (row.of, row.day)):
        yield number(row.day), number(row.received), number(row.forwarded), findable(row.of)


def prune(outcomes_before: int, pushes_before: int) -> Script[int]:
    """Delete some of what is from before these days, and say how many rows; 0: it is all gone."""
    old = moment(outcomes_before * DAY)
    deleted = 0
    for statement, before in (
        (_PRUNE_OUTCOMES, number(outcomes_before)),
        (_PRUNE_PUSHES, number(pushes_before)),
        (_PRUNE_WRITERS, old),
        (_PRUNE_LEASES, old),
    ):
        deleted += len((yield statement, (before, _AT_ONCE)))
    return deleted


def lease(asks: Sequence[Ask], window: float, clock: Statement) -> Script[list[Lease]]:
    """Grant what can be granted, in the order asked; each ask is for another key.

    `clock` is an expression for unix time as the database has it, with its parameters.
    """
    now_sql, now_parameters = clock
    leases: dict[str, Lease] = {}
    stored: list[tuple[Value, ...]] = []
    for ask in sorted(asks, key=lambda ask: ask.key):
        [(log, time)] = yield _LOCK_LEASES % now_sql, (text(ask.key), *now_parameters)
        now = float(time)
        entries = [Entry(*entry) for entry in json.loads(log)]
        leases[ask.key], entries = grant(entries, ask, now, window)
        stored.append((json.dumps(entries, separators=(",", ":")), now, ask.key))
    yield Many(_STORE_LEASES, stored)
    return [leases[ask.key] for ask in asks]
