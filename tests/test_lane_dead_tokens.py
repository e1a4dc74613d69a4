"""A phone's token from registration to its death at the provider, and back again."""

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bouncerd import wire
from bouncerd.basicauth import digest
from bouncerd.bouncer import Bouncer, Caller, Rules
from bouncerd.lane import Lane
from bouncerd.model import Gone, Identity, Kind, Push
from bouncerd.patience import APNS_PATIENCE
from bouncerd.pool import Pool
from bouncerd.routes import Routes
from bouncerd.store.sqlite import SQLiteStore
from tests.lane_kit import MANNERS
from tests.memory import APP, Server, SimpleProvider
from tests.virtual import VirtualClock


class RevivalTests(SynchronousTestCase):
    """A phone from registration to its provider and back, with a real store."""

    def setUp(self) -> None:
        self.clock = VirtualClock()
        self.clock.advance(1_000.0)
        self.store = SQLiteStore(None, None, self.clock.seconds)
        self.apple = Server(self.clock)
        self.since = 0.0
        provider = SimpleProvider()
        test = self

        class Dated(SimpleProvider):
            """Says since when a token is dead."""

            def outcome(self, session: object, push: Push, response: Any, now: float) -> Any:
                if response.status == 410:
                    return Gone("Unregistered", test.since)
                return provider.outcome(session, push, response, now)

        pool = Pool("apns", self.apple.connect, MANNERS, 1, self.clock, Random(7))
        self.lane = Lane(
            Dated(), pool, self.clock, self.clock.seconds, Random(7), self.forget,
            limit=100, keep_for=600.0, patience=APNS_PATIENCE,
        )  # fmt: skip
        rules = Rules(keep_for=600.0, devices_per_user=10)
        routes = Routes({None: self.lane}, {})
        self.bouncer = Bouncer(self.store, routes, self.clock, self.clock.seconds, rules)
        for uuid, host in (("s1", "one.example.org"), ("s2", "two.example.org")):
            self.successResultOf(
                self.store.add_server(uuid, host, "a@example.org", digest("k"), 0.0)
            )
        pool.start(self.lane)
        self.clock.pump([0.0, 1.0, 1.0])
        self.user = Identity(5, None)

    def forget(self, push: Push, gone: Gone, sent_at: float) -> Deferred[None]:
        """Have the bouncer do so."""
        return self.bouncer.forget(push, gone, sent_at)

    def run_(self, coroutine: Any) -> Any:
        """Return what a coroutine returns, now."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def caller(self, uuid: str = "s1") -> Caller:
        """Look a server and its user's phones up."""
        found = self.successResultOf(self.store.find(uuid, self.user, None))
        assert found.server is not None
        return Caller(found.server, found.devices, self.clock.seconds() + 12)

    def register(self, uuid: str = "s1") -> None:
        """Register the phone."""
        asked = wire.Registration(self.user, None, Kind.APNS, "c0ffee", APP)
        self.run_(self.bouncer.register(self.caller(uuid), asked))

    def notify(self, status: int, uuid: str = "s1") -> tuple[int, list[str]]:
        """Push to the user's phones; return how many it has, and which are deleted."""
        asked = wire.Notify(
            self.user,
            None,
            apns_payload={"alert": "x", "custom": {"zulip": {}}},
            gcm_payload={},
            gcm_options={},
            android_devices=[],
            apple_devices=["c0ffee"],
        )
        notified = Deferred.fromCoroutine(self.bouncer.notify(self.caller(uuid), asked))
        self.clock.advance(0)
        self.apple.answer_all(status)
        answer = self.successResultOf(notified)
        return answer.total_apple_devices, list(answer.deleted_apple_devices)

    def test_dead_then_registered_again(self) -> None:
        """A phone that is gone is deleted, and its server told; when it registers it has pushes."""
        self.register()
        self.since = self.clock.seconds() + 1
        self.clock.advance(5.0)
        self.assertEqual(self.notify(410), (1, ["c0ffee"]))
        self.assertEqual(self.notify(200), (0, ["c0ffee"]))
        self.register()
        self.assertEqual(self.notify(200), (1, []))

    def test_registered_since(self) -> None:
        """News older than the registration delete nothing: the app was installed again."""
        self.since = self.clock.seconds() - 100
        self.register()
        self.clock.advance(5.0)
        self.assertEqual(self.notify(410), (1, []))
        self.assertEqual(self.notify(200), (1, []))

    def test_registered_while_it_was_judged(self) -> None:
        """A registration between the push and its answer counts."""
        self.register()
        self.clock.advance(5.0)
        asked = self.caller()
        self.since = self.clock.seconds()
        self.clock.advance(1.0)
        self.register()
        self.assertEqual(len(asked.devices), 1)
        self.assertEqual(self.notify(410), (1, []))

    def test_everywhere_only_with_a_time(self) -> None:
        """Apple's 410 speaks for all servers; a bad token for the one that sent it."""
        self.register("s1")
        self.register("s2")
        self.clock.advance(5.0)
        self.assertEqual(self.notify(404, "s1"), (1, ["c0ffee"]))
        self.assertEqual(self.notify(200, "s2"), (1, []))
        self.register("s1")
        self.since = self.clock.seconds() + 1
        self.clock.advance(5.0)
        self.assertEqual(self.notify(410, "s1"), (1, ["c0ffee"]))
        self.assertEqual(self.notify(200, "s2"), (0, ["c0ffee"]))
