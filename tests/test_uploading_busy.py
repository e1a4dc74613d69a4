"""Many uploads at once, and long ones."""

import gc
import json
from collections.abc import Iterator
from time import thread_time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.analytics import MAX_ROWS, check, parse_upload
from bouncerd.api import LONG_BODIES, PREFIX
from bouncerd.bulk import InPieces, read_long_form
from bouncerd.channel import Bounds, Channel
from bouncerd.model import Realm
from bouncerd.uploading import UPLOAD_WITHIN
from bouncerd.uploads import Marks, Upload
from tests.in_memory import FORM, KEY, ORG_ID, Daemon, TroubledStore, basic, form, result, spell
from tests.test_analytics import AUDIT, COUNT


class SlowStore(TroubledStore):
    """A store whose uploads take as long as a test wants."""

    uploads: list[Deferred[list[Realm]]]

    def upload(self, server_id: int, upload: Upload, now: float) -> Deferred[list[Realm]]:
        self.uploads = [*getattr(self, "uploads", []), Deferred()]
        return self.uploads[-1]


class BusyTests(SynchronousTestCase):
    """Many uploads at once. A refusal could switch pushes off, a 503 does not (section 3)."""

    def setUp(self) -> None:
        self.daemon = Daemon(store=SlowStore, free_users=10)

    @property
    def running(self) -> list[Deferred[list[Realm]]]:
        return getattr(self.daemon.store, "uploads", [])

    def begin(self, number: int) -> Any:
        """Begin an upload of one of many servers; return what is written to it."""
        org_id = ORG_ID[:-2] + f"{number:02d}"
        if result(self.daemon.store.server(org_id)) is None:
            self.daemon.enrol(org_id, KEY, f"{number}.example.org")
        channel, transport = self.daemon.connect()
        body = form({"realm_counts": "[]", "installation_counts": "[]"})
        headers = {**FORM, "Authorization": basic(org_id)}
        channel.dataReceived(spell("POST", "/api/v1/remotes/server/analytics", body, headers))
        return transport

    def test_four_at_once(self) -> None:
        """Four servers upload at once; the fifth waits and is served then."""
        transports = [self.begin(number) for number in range(5)]
        self.assertEqual(len(self.running), 4)
        self.running[0].callback([])
        self.assertEqual(len(self.running), 5)
        self.running[4].callback([])
        self.assertIn(b" 200 ", transports[0].value())
        self.assertIn(b" 200 ", transports[4].value())
        self.assertEqual(transports[1].value(), b"")

    def test_one_of_each(self) -> None:
        """A server's second upload waits for the first; a third is told to come again."""
        transports = [self.begin(1) for _ in range(3)]
        self.assertEqual(len(self.running), 1)
        self.assertIn(b" 503 ", transports[2].value())
        self.running[0].callback([])
        self.running[1].callback([])
        self.assertIn(b" 200 ", transports[1].value())

    def test_too_slow(self) -> None:
        """Nobody waits longer than a server does; what is being stored keeps its turn."""
        transports = [self.begin(number) for number in range(5)]
        self.daemon.clock.advance(UPLOAD_WITHIN)
        for transport in transports:
            self.assertIn(b" 503 ", transport.value())
        waiting = self.begin(9)
        self.assertEqual(len(self.running), 4)
        self.running[0].callback([])
        self.assertEqual(len(self.running), 5)
        self.running[4].callback([])
        self.assertIn(b" 200 ", waiting.value())

    def test_after_a_failure(self) -> None:
        """An upload that fails, for whatever reason, leaves its turn to others."""
        for number in range(6):
            self.begin(number)
            self.running[-1].errback(ConnectionError())
        self.begin(9)
        self.assertEqual(len(self.running), 7)
        self.daemon.post_form("server/analytics", {"Authorization": basic(ORG_ID[:-2] + "01")})
        self.begin(1)
        self.assertEqual(len(self.running), 8)


class PiecesTests(SynchronousTestCase):
    """The longest upload there is, and those who wait meanwhile."""

    def test_longest_piece(self) -> None:
        """Nobody waits for more than a small part of 50 ms, whatever a server uploads."""
        numbers = range(1, MAX_ROWS + 1)
        lists = {
            "realm_counts": [{**COUNT, "id": number} for number in numbers],
            "installation_counts": [{**COUNT, "id": number} for number in numbers],
            "realmauditlog_rows": [{**AUDIT, "id": number} for number in numbers],
        }
        body = form({name: json.dumps(rows) for name, rows in lists.items()})
        self.assertGreater(len(body), 5_000_000)

        def whole() -> InPieces[Upload]:
            read = yield from read_long_form(body, FORM["Content-Type"], b"")
            return (yield from check((yield from parse_upload(read)), Marks()))

        gc.disable()  # not of ours alone: this process holds all tests
        self.addCleanup(gc.enable)
        pieces = list(timed(whole()))
        self.assertGreater(len(pieces), 500)
        self.assertLess(max(pieces), 0.025)


def timed(work: InPieces[Upload]) -> Iterator[float]:
    """Yield what each piece took, in seconds of this thread's own time."""
    while True:
        began = thread_time()
        try:
            next(work)
        except StopIteration:
            return
        yield thread_time() - began


class LongBodyTests(SynchronousTestCase):
    """Bodies of megabytes, which anybody may begin to send."""

    def setUp(self) -> None:
        self.daemon = Daemon(bounds=Bounds(body=100, bodies=LONG_BODIES, long_bodies=2))
        self.daemon.enrol()

    def begin(self, size: int) -> tuple[Channel, StringTransport]:
        """Send all of a body but its last byte."""
        channel, transport = self.daemon.connect()
        body = form({"realm_counts": "[]", "installation_counts": "[]", "x": ""})
        body += b"x" * (size - len(body))
        headers = {**FORM, "Authorization": basic()}
        request = spell("POST", PREFIX + "server/analytics", body, headers)
        channel.dataReceived(request[:-1])
        return channel, transport

    def test_room(self) -> None:
        """Of long bodies there is room for some; others are told 503, which does no harm."""
        first, second, third = (self.begin(200) for _ in range(3))
        short = self.begin(80)
        self.assertIn(b" 503 ", third[1].value())
        self.assertEqual([each[1].value() for each in (first, second, short)], [b"", b"", b""])
        for channel, transport in (short, first, second):
            channel.dataReceived(b"x")
            self.assertIn(b" 200 ", transport.value())
        self.assertEqual(self.daemon.site.long_bodies, set())

    def test_hanging_up(self) -> None:
        """Who hangs up makes room."""
        for _ in range(5):
            channel, transport = self.begin(200)
            self.assertEqual(transport.value(), b"")
            channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.daemon.site.long_bodies, set())
