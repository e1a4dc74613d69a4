"""Look-ups that wait, made one statement of PostgreSQL's, and its rows told apart (the hot path).

Pure. One such statement costs little more than a look-up by itself, at both ends.
"""

from collections.abc import Iterable, Sequence

from bouncerd.model import Found, Identity, Server
from bouncerd.store.finding import age, user
from bouncerd.store.rows import (
    DEVICE,
    REALM,
    SERVER,
    Row,
    a_device,
    a_realm,
    a_server,
    columns,
    findable,
)

#: What is asked: a server's uuid, a user of it, a realm's uuid.
Asked = tuple[str, Identity | None, str | None]

# A user's devices are found by one of two indexes, each by itself: an OR would leave the choice
# to the planner, whose statistics of a young table may be wrong.
_DEVICES = f"SELECT {columns(DEVICE, 'd')} FROM devices d WHERE d.server_id = s.id"  # noqa: S608
_FIND = f"""
    SELECT w.n, {columns(SERVER, "s")}, {columns(REALM, "r")}, {columns(DEVICE, "d")}
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
         WITH ORDINALITY AS w (uuid, realm_uuid, user_uuid, user_id, n)
    JOIN servers s ON s.uuid = w.uuid
    LEFT JOIN realms r ON r.uuid = w.realm_uuid
    LEFT JOIN LATERAL (
        {_DEVICES} AND d.user_uuid = w.user_uuid UNION ALL {_DEVICES} AND d.user_id = w.user_id
    ) d ON true
"""  # noqa: S608
_REALM = 1 + len(SERVER)  # where in a row the parts begin
_DEVICE = _REALM + len(REALM)
_NOBODY = Identity(None, None)

#: A connection that looks up runs this once. A plan is made for the statement as it is, once, by
#: index and never by reading tables whole: they are big, whatever the statistics may still say.
PREPARE = f"""
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    PREPARE find (text[], text[], text[], bigint[]) AS {_FIND};
"""
EXECUTE = "EXECUTE find (?, ?, ?, ?)"


def parameters(asked: Iterable[Asked]) -> tuple[str, str, str, str]:
    """Return the parameters of EXECUTE for several look-ups, as literals of arrays.

    So they are four values for the driver, however many are asked for.
    """
    servers, realms, uuids, numbers = [], [], [], []
    for uuid, identity, realm_uuid in asked:
        user_uuid, number = user(identity or _NOBODY)
        servers.append(_element(findable(uuid)))
        realms.append(_element(realm_uuid and findable(realm_uuid)))
        uuids.append(_element(user_uuid))
        numbers.append("NULL" if number is None else str(number))
    return _array(servers), _array(realms), _array(uuids), _array(numbers)


def told_apart(rows: Iterable[Row], count: int) -> list[Found]:
    """Return what was found by each of so many look-ups."""
    found: list[Found | None] = [None] * count
    servers: dict[int, Server] = {}
    for row in rows:
        number = row[0] - 1
        mine = found[number]
        if mine is None:
            server = servers.get(row[1])
            if server is None:
                server = servers[row[1]] = a_server(row[1:_REALM])
            realm = None if row[_REALM] is None else a_realm(row[_REALM:_DEVICE])
            mine = found[number] = Found(server, realm)
        if row[_DEVICE] is not None:
            mine.devices.append(a_device(row[_DEVICE:]))
    return [Found(None) if each is None else _in_order(each) for each in found]


def _in_order(found: Found) -> Found:
    if len(found.devices) > 1:
        found.devices.sort(key=age)
    return found


def _array(elements: Sequence[str]) -> str:
    return f"{{{','.join(elements)}}}"


def _element(text: str | None) -> str:
    if text is None:
        return "NULL"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
