"""The nouns: servers, devices, messages, pushes, and what a provider says of one.

Knows the standard library only: no HTTP, no SQL, no Twisted. Whatever carries content or a
secret has a repr without it, so that neither a log line nor a traceback can show it.
"""

import enum
from dataclasses import dataclass, field
from typing import NoReturn


class Kind(enum.IntEnum):
    """A device's platform; the values are `token_kind` on the wire (bouncer-api.md 9.2)."""

    APNS = 1
    FCM = 2


@dataclass(frozen=True, slots=True)
class Server:
    """A registered Zulip server. Its key is known by its digest only."""

    id: int
    uuid: str
    hostname: str
    contact_email: str
    key_digest: bytes = field(repr=False)
    deactivated: bool = False
    # The key before the latest rotation, and until when (unix seconds) it is still good.
    old_key_digest: bytes | None = field(default=None, repr=False)
    old_key_until: float = 0.0
    feature_level: int | None = None  # of its latest upload; None: it has never said
    data_at: float | None = None  # of its latest audit data (bouncer-api.md 7.3 step 5)
    users: int = 0  # of all its realms together, by the latest audit data
    plan_type: int = 100  # bouncer-api.md 2
    plan_ends_at: float | None = None
    requests_per_minute: int | None = None  # None: as configured for all
    registered_at: float = field(default=0.0, compare=False)  # first, in unix seconds


@dataclass(frozen=True, slots=True)
class Realm:
    """An organization on a server (bouncer-api.md 7.6). Its uuid is unique across servers."""

    id: int
    uuid: str
    server_id: int
    users: int = 0  # by its latest audit data; 0 if there is none
    plan_type: int = 100
    plan_ends_at: float | None = None
    host: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What one look-up brings: who asks, about which realm, and the user's phones."""

    server: "Server | None"
    realm: Realm | None = None
    devices: "list[Device]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SealedDevice:
    """A phone registered end to end (bouncer-api.md 12): one row for a token and a realm."""

    id: int
    realm_id: int
    token_id: bytes  # the first 8 bytes of SHA-256 of the token's text
    kind: "Kind"
    token: str = field(repr=False)
    app_id: str | None
    registered_at: float
    expired_at: float | None = None  # marked dead then; registering again revives it
    push_account_id: int | None = None  # of 11.x servers


@dataclass(frozen=True, slots=True)
class Identity:
    """A user of one server, by number, by UUID or by both (bouncer-api.md 9.1)."""

    user_id: int | None
    user_uuid: str | None


@dataclass(frozen=True, slots=True)
class Device:
    """One phone's registration. `registered_at` is the last one, in unix seconds."""

    id: int
    kind: Kind
    token: str = field(repr=False)
    app_id: str | None
    registered_at: float
    user_id: int | None = None
    user_uuid: str | None = None
    sealed: bool = False  # registered end to end: `id` is a SealedDevice's, and no user is known


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """What is sent, encoded once for one platform and shared by its devices.

    `body` is content. For APNs it is the whole request body; for FCM the JSON object `data`.
    `expiration` (unix seconds), `priority` and `push_type` become APNs headers; None leaves
    the header out. `urgent` is FCM's high priority, and goes before what is not urgent in a lane.
    """

    kind: Kind
    body: bytes
    urgent: bool = True
    expiration: int | None = None
    priority: int | None = None
    push_type: str | None = None

    def __repr__(self) -> str:
        return f"<Message {self.kind.name} {len(self.body)} bytes>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a message is content: it is not pickled")


@dataclass(frozen=True, slots=True)
class Push:
    """One message for one device, on behalf of one server (`server` is its uuid).

    `id` is a canonical lower-case UUID, the same over all attempts (apns.md 3, `apns-id`).
    `expires_at` (unix seconds) is when it stops being worth sending. `realm` is the uuid of the
    realm it is for, where that is known. One that is not `counted` is no `mobile_pushes` (9.7).
    """

    id: str
    server: str
    device: Device
    message: Message
    expires_at: float
    realm: str | None = None
    counted: bool = True


# What a provider's answer says. `reason` is always one of our own words or a documented reason
# of the provider's, never text that came in with the answer: it is logged and counted.


@dataclass(frozen=True, slots=True)
class Delivered:
    """The provider accepted the push."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The token is dead for this app; `since` (unix seconds) only where the provider says so."""

    reason: str
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """This push can never go; its device is fine."""

    reason: str


class About(enum.Enum):
    """What must be given time, where a provider asks for time."""

    PUSH = enum.auto()
    DEVICE = enum.auto()  # all pushes to it wait
    CREDENTIAL = enum.auto()  # so do all that go with it, if other links hear the same
    STREAMS = enum.auto()  # a link had too many under way


@dataclass(frozen=True, slots=True)
class Retry:
    """Send it again, `after` seconds if the provider said so; `spoiled`: not on this link."""

    reason: str
    after: float | None = None
    spoiled: bool = False
    about: About = About.PUSH


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """The operator must act: nothing with this credential and app can go. Keep the push."""

    reason: str
    spoiled: bool = False


Outcome = Delivered | Gone | Refused | Retry | Misconfigured
