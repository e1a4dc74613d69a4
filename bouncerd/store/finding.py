"""The one look-up of each call: a server, a realm, and a user's phones (the hot path)."""

from itertools import product

from bouncerd.model import Device, Found, Identity
from bouncerd.store.rows import (
    DEVICE,
    REALM,
    SERVER,
    Row,
    Value,
    a_device,
    a_realm,
    a_server,
    columns,
    findable,
    in_range,
)

# Not ordered by the database: sorting the two or three rows of a user here costs less.
_DEVICES = """
    LEFT JOIN devices d ON d.server_id = s.id AND (d.user_uuid = ? OR d.user_id = ?)
"""


class LookUp:
    """One look-up, with or without a realm and devices: what is not asked for costs nothing."""

    def __init__(self, realm: bool, devices: bool) -> None:
        self._devices = len(SERVER) + (len(REALM) if realm else 0)
        self._has_realm, self._has_devices = realm, devices
        wanted = [columns(SERVER, "s")]
        wanted += [columns(REALM, "r")] if realm else []
        wanted += [columns(DEVICE, "d")] if devices else []
        realms = " LEFT JOIN realms r ON r.uuid = ?" if realm else ""
        phones = _DEVICES if devices else ""
        self.text = f"SELECT {', '.join(wanted)} FROM servers s{realms}{phones} WHERE s.uuid = ?"  # noqa: S608

    def found(self, rows: list[Row]) -> Found:
        """Understand the rows."""
        if not rows:
            return Found(None)
        first = rows[0]
        realm = None
        if self._has_realm and first[len(SERVER)] is not None:
            realm = a_realm(first[len(SERVER) : self._devices])
        devices = []
        if self._has_devices and first[self._devices] is not None:
            devices = [a_device(row[self._devices :]) for row in rows]
            if len(devices) > 1:
                devices.sort(key=age)
        return Found(a_server(first), realm, devices)


_LOOK_UPS = {asked: LookUp(*asked) for asked in product((False, True), repeat=2)}


def find(
    uuid: str, identity: Identity | None, realm_uuid: str | None
) -> tuple[LookUp, tuple[Value, ...]]:
    """Return the look-up that brings what is asked for, and its parameters."""
    parameters: list[Value] = []
    if realm_uuid is not None:
        parameters.append(findable(realm_uuid))
    if identity is not None:
        parameters += user(identity)
    parameters.append(findable(uuid))
    return _LOOK_UPS[realm_uuid is not None, identity is not None], tuple(parameters)


def user(identity: Identity) -> tuple[str | None, int | None]:
    """Spell an identity for a search, in the order (uuid, number); NULL equals nothing."""
    user_uuid = identity.user_uuid
    return user_uuid and findable(user_uuid), in_range(identity.user_id)


def age(device: Device) -> int:
    """Return what devices are ordered by: the order of their first registration."""
    return device.id
