"""The daemon between its callers' bytes and its lanes, in memory and on one clock.

Real from HTTP down to SQLite; only the lanes are stand-ins, which keep what they are given and
say what its provider would have said.
"""

import http.client
import io
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent

from bouncerd.addresses import IPNetwork
from bouncerd.api import LONG_BODIES, Api
from bouncerd.basicauth import digest
from bouncerd.bouncer import Bouncer, Rules
from bouncerd.boxes import Boxes
from bouncerd.calls import Call
from bouncerd.challenge import Challenge
from bouncerd.channel import Bounds, Channel
from bouncerd.counting import Counting
from bouncerd.lane import Lane
from bouncerd.links import Links
from bouncerd.logs import Verbosity
from bouncerd.mailboxes import Mailboxes
from bouncerd.markup import Contact
from bouncerd.model import (
    Delivered,
    Found,
    Gone,
    Identity,
    Kind,
    Outcome,
    Push,
    Server,
)  # fmt: skip
from bouncerd.pages import Pages, Setting
from bouncerd.registry import Admission, Registry
from bouncerd.resolving import Names
from bouncerd.routes import Routes
from bouncerd.sealedpush import SealedPushes
from bouncerd.site import Site
from bouncerd.store.base import Store, StoreUnavailable
from bouncerd.store.sqlite import SQLiteStore
from bouncerd.strangers import Strangers
from bouncerd.tallies import Tallies
from bouncerd.transfers import Transfers
from bouncerd.uploading import Uploads
from tests.names import DISPOSABLE, Nowhere, RecordedNames

ORG_ID = "5c1f8a52-3d0e-4b7e-9a51-0f2f6d1c7a10"
KEY = "k" * 64
USER = "3f6d2b1e-6a55-4f0e-8b1c-2c9a7f4e5d21"
PHONE = "c0ffee" * 10 + "abcd"
ANDROID = "android-token:APA91b"
APP = "org.example.App"
NOW = 1_800_000_000.0

_T = TypeVar("_T")

Forget = Callable[[Push, Gone, float], Deferred[None]]


class RecordingLane:
    """A lane that delivers at once, or does what `outcome` says of a push.

    Kept pushes (`holding`) neither end nor settle until `release`.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.pushes: list[Push] = []
        self.room = True
        self.holding = False
        self.forget: Forget | None = None
        self.note: Callable[[Push, str, str], None] = lambda _push, _kind, _reason: None
        self.outcome: Callable[[Push], Outcome] = lambda _push: Delivered()
        self._now = now
        self._held: list[tuple[Call, Push]] = []

    def can_take(self, _server: str, _count: int) -> bool:
        return self.room

    def put(self, call: Call, pushes: Sequence[Push]) -> None:
        self.pushes += pushes
        self._held += [(call, push) for push in pushes]
        if not self.holding:
            self.release()

    def release(self) -> None:
        held, self._held = self._held, []
        for call, push in held:
            self._end(call, push)

    def give_back(self) -> None:
        """Act as a lane does that stops and has sent nothing."""
        held, self._held = self._held, []
        for call, _push in held:
            call.returned = True
            call.settle_one()

    def _end(self, call: Call, push: Push) -> None:
        outcome = self.outcome(push)
        kind = type(outcome).__name__.lower()
        self.note(push, kind, "" if isinstance(outcome, Delivered) else outcome.reason)
        if isinstance(outcome, Delivered):
            call.delivered_one(push)
        if isinstance(outcome, Gone) and self.forget is not None:
            forgotten = self.forget(push, outcome, self._now())
            forgotten.addCallback(lambda _: call.settle_one())
        else:
            call.settle_one()


class TroubledStore(SQLiteStore):
    """A store that can be made to fail, or not to answer, and counts its look-ups."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(None, None, now)
        self.down = False
        self.silent = False
        self.lookups = 0

    def _or_trouble(self, real: Callable[[], Deferred[_T]]) -> Deferred[_T]:
        if self.down:
            return fail(StoreUnavailable("down"))
        return Deferred() if self.silent else real()

    def server(self, uuid: str) -> Deferred[Server | None]:
        self.lookups += 1
        return self._or_trouble(lambda: super(TroubledStore, self).server(uuid))

    def find(self, uuid: str, identity: Identity | None, realm_uuid: str | None) -> Deferred[Found]:
        self.lookups += 1
        return self._or_trouble(lambda: super(TroubledStore, self).find(uuid, identity, realm_uuid))

    def forget(
        self, server_id: int, device_ids: Sequence[int], registered_before: float
    ) -> Deferred[int]:
        real = super().forget
        return self._or_trouble(lambda: real(server_id, device_ids, registered_before))


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Daemon:
    """Site, API, bouncer and store, wired as tap.py does, with a lane for each platform."""

    def __init__(
        self,
        *,
        store: Callable[[Callable[[], float]], Store] | None = None,
        rules: Rules | None = None,
        bounds: Bounds | None = None,
        support: str = "",
        verbose: bool = False,
        answer_within: float = 12.0,
        requests_per_minute: int = 1000,
        at: float = NOW,
        public_url: str = "https://push.example.org",
        trusted: Sequence[IPNetwork] = (),
        boxes: Boxes | None = None,
        free_users: int | None = None,
        admission: Admission | None = None,
        agent: IAgent | None = None,
        registrations_per_hour: int = 1_000_000,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(at)
        now = self.clock.seconds
        self.store: Store = store(now) if store else SQLiteStore(None, None, now)
        self.apns, self.fcm = RecordingLane(now), RecordingLane(now)
        apns, fcm = cast(Lane, self.apns), cast(Lane, self.fcm)
        tallies = self.tallies = Tallies(now)
        self.apns.note, self.fcm.note = partial(tallies.note, "apns"), partial(tallies.note, "fcm")
        self.routes = Routes({None: apns}, {None: fcm}, partial(tallies.note, "none"))
        self.counting = Counting(self.store, tallies, self.clock, now)
        rules = rules or Rules(keep_for=3600.0, devices_per_user=200)
        pushing = self.store, self.routes, self.clock, now, rules
        self.bouncer = Bouncer(*pushing, free_users=free_users, tallies=tallies)
        self.sealed = SealedPushes(*pushing, boxes or Boxes(), free_users, tallies=tallies)
        self.apns.forget = self.fcm.forget = self.bouncer.forget
        links = Links(self.store, now, public_url, support)
        mailboxes = Mailboxes(Names(RecordedNames(), self.clock), self.clock, DISPOSABLE)
        admission = admission or Admission(support=support)
        self.registry = Registry(self.store, self.clock, now, admission, mailboxes)
        challenge = Challenge(agent or Nowhere(), self.clock)
        self.transfers = Transfers(self.store, challenge, self.clock, now, support)
        self.api = Api(
            self.bouncer,
            self.registry,
            self.transfers,
            Strangers(registrations_per_hour, trusted, self.clock),
            self.store,
            self.clock,
            sealed=self.sealed,
            uploads=Uploads(self.store, self.clock, now, free_users),
            links=links,
            now=now,
            answer_within=answer_within,
            requests_per_minute=requests_per_minute,
            support=support,
        )
        setting = Setting(Contact(support, "https://example.org/terms"), free_users, answer_within)
        resource = self.api.resource()
        pages = Pages(resource, self.store, links, self.clock, now, setting, trusted)
        self.site = Site(
            pages,
            self.clock,
            now,
            bounds or Bounds(bodies=LONG_BODIES),
            verbosity=Verbosity(verbose),
            knows=self.api.knows,
        )

    @property
    def pushes(self) -> list[Push]:
        return self.apns.pushes + self.fcm.pushes

    def connect(self) -> tuple[Channel, StringTransport]:
        """Open a connection."""
        channel = self.site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        return channel, transport

    def raw(self, request: bytes) -> Answer:
        """Send bytes on a connection of their own, and read the one answer."""
        channel, transport = self.connect()
        channel.dataReceived(request)
        channel.connectionLost(Failure(ConnectionDone()))
        return read_answer(transport.value(), request.split(b" ", 1)[0].decode("latin-1"))

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, without credentials of its own."""
        return self.raw(spell(method, path, body, headers or {}))

    def post_json(self, path: str, value: object, headers: Mapping[str, str] = {}) -> Answer:
        """Send JSON as the enrolled server."""
        body = json.dumps(value, ensure_ascii=False).encode()
        fields = {"Content-Type": "application/json", "Authorization": basic(), **headers}
        return self.send("POST", f"/api/v1/remotes/{path}", body, fields)

    def post_form(self, path: str, headers: Mapping[str, str] = {}, /, **values: str) -> Answer:
        """Send a form as the enrolled server."""
        fields = {**FORM, "Authorization": basic(), **headers}
        return self.send("POST", f"/api/v1/remotes/{path}", form(values), fields)

    def enrol(
        self, org_id: str = ORG_ID, key: str = KEY, hostname: str = "chat.example.org"
    ) -> int:
        """Make a server known; return its row id."""
        email = "admin@example.org"
        added = self.store.add_server(org_id, hostname, email, digest(key), self.clock.seconds())
        result(added)
        server_id: int = result(self.store.server(org_id)).id
        return server_id


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def form(values: Mapping[str, str]) -> bytes:
    """Encode a form as python-requests does."""
    return urlencode(values).encode()


def basic(org_id: str = ORG_ID, key: str = KEY) -> str:
    """Spell credentials."""
    return "Basic " + b64encode(f"{org_id}:{key}".encode()).decode()


def spell(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Write a request down."""
    fields = {"Host": "127.0.0.1:9090", **headers}
    if body or method == "POST":
        fields.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


class _Socket(io.BytesIO):
    def makefile(self, _mode: str) -> io.BytesIO:
        return self


def read_answer(data: bytes, method: str = "POST") -> Answer:
    """Read an answer as another HTTP library sees it."""
    response = http.client.HTTPResponse(cast(Any, _Socket(data)), method=method)
    response.begin()
    return Answer(response.status, response.headers, response.read())


def result(deferred: Deferred[Any]) -> Any:
    """Return what has fired."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "it has not fired"
    return results[0]


def always(outcome: Outcome) -> Callable[[Push], Outcome]:
    """Make a lane say this of every push."""
    return lambda _push: outcome


def tokens(pushes: Sequence[Push], kind: Kind) -> list[str]:
    """Name the phones pushed to."""
    return [push.device.token for push in pushes if push.device.kind is kind]
