"""What the bouncer does for servers: phones, pushes, dead tokens."""

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.bouncer import Caller, Rules
from bouncerd.envelope import WireError
from bouncerd.model import Gone, Identity, Kind, Message, Push
from bouncerd.wire import Notify, Registration, Unregistration
from tests.in_memory import (
    ANDROID,
    APP,
    NOW,
    ORG_ID,
    PHONE,
    USER,
    Daemon,
    TroubledStore,
    result,
)  # fmt: skip

OTHER_ID = "9aa61d0b-8ce5-488d-8e9e-fedc346e6836"
BOTH = Identity(5, USER)
BY_ID = Identity(5, None)
BY_UUID = Identity(None, USER)


class BouncerTests(SynchronousTestCase):
    """A daemon with one server, whose user has the number 5 and the UUID USER."""

    rules = Rules(keep_for=3600.0, devices_per_user=3)

    def setUp(self) -> None:
        self.daemon = Daemon(store=TroubledStore, rules=self.rules)
        self.daemon.enrol()

    @property
    def store(self) -> TroubledStore:
        store = self.daemon.store
        assert isinstance(store, TroubledStore)
        return store

    def run_now(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def failing(self, work: Coroutine[Any, Any, Any], *kinds: type[Exception]) -> Any:
        return self.failureResultOf(Deferred.fromCoroutine(work), *kinds).value

    def told(self, work: Coroutine[Any, Any, Any]) -> str:
        return str(self.failing(work, WireError).msg)

    def caller(self, user: Identity = BOTH, org_id: str = ORG_ID, within: float = 12.0) -> Caller:
        found = result(self.daemon.store.find(org_id, user, None))
        return Caller(found.server, found.devices, self.daemon.clock.seconds() + within)

    def register(
        self,
        token: str = PHONE,
        kind: Kind = Kind.APNS,
        user: Identity = BOTH,
        app: str | None = APP,
        org_id: str = ORG_ID,
    ) -> None:
        asked = Registration(user, None, kind, token, app if kind is Kind.APNS else None)
        self.run_now(self.daemon.bouncer.register(self.caller(user, org_id), asked))

    def listed(self, user: Identity = BOTH, org_id: str = ORG_ID) -> list[str]:
        return [device.token for device in self.caller(user, org_id).devices]

    def notify(self, **changes: Any) -> Notify:
        nothing = Notify(BOTH, None, {}, {}, {}, [], [])
        return replace(nothing, **changes)


class PhoneTests(BouncerTests):
    """Phones that come and go."""

    def test_register_and_unregister(self) -> None:
        """A phone is remembered until it is unregistered, which succeeds once."""
        self.register()
        asked = Unregistration(BOTH, None, Kind.APNS, PHONE.upper())
        self.run_now(self.daemon.bouncer.unregister(self.caller(), asked))
        self.assertEqual(self.listed(), [])
        again = self.daemon.bouncer.unregister(self.caller(), asked)
        self.assertEqual(self.told(again), "Token does not exist")

    def test_by_number_then_by_uuid(self) -> None:
        """A phone known by its user's number becomes one known by UUID."""
        self.register(user=BY_ID)
        self.register()
        self.assertEqual(self.listed(), [PHONE])
        self.assertEqual(self.listed(BY_ID), [])

    def test_unregister_all(self) -> None:
        """All phones of one user go, of both kinds, and nobody else's."""
        self.register()
        self.register(ANDROID, Kind.FCM)
        self.register("abcd", user=Identity(6, None))
        self.run_now(self.daemon.bouncer.unregister_all(self.caller(), self.notify()))
        self.assertEqual((self.listed(), self.listed(Identity(6, None))), ([], ["abcd"]))
        self.run_now(self.daemon.bouncer.unregister_all(self.caller(), self.notify()))

    def test_too_many(self) -> None:
        """A user has at most so many phones of a kind; those it has can register again."""
        for token in ["aaaa", "bbbb", "cccc"]:
            self.register(token)
        asked = Registration(BOTH, None, Kind.APNS, "dddd", APP)
        self.assertEqual(
            self.told(self.daemon.bouncer.register(self.caller(), asked)),
            "Too many devices are registered for this user (limit: 3)",
        )
        self.register("AAAA")
        self.register(ANDROID, Kind.FCM)
        self.assertEqual(len(self.listed()), 4)


class ForgetTests(BouncerTests):
    """Dead tokens."""

    def setUp(self) -> None:
        super().setUp()
        self.daemon.enrol(OTHER_ID, hostname="other.example.org")
        self.register()
        self.register(org_id=OTHER_ID)

    def push(self) -> Push:
        found = result(self.daemon.store.find(ORG_ID, BOTH, None))
        messages = Message(Kind.APNS, b"{}"), None
        [push] = self.daemon.bouncer._pushes(found.server, found.devices, messages)
        return push

    def left(self) -> tuple[bool, bool]:
        return bool(self.listed()), bool(self.listed(org_id=OTHER_ID))

    def forget(self, gone: Gone, sent_at: float, push: Push | None = None) -> None:
        push = push or self.push()
        self.assertIsNone(self.successResultOf(self.daemon.bouncer.forget(push, gone, sent_at)))

    def test_with_a_time(self) -> None:
        """A token that its provider calls dead since later is dead for everybody."""
        self.forget(Gone("Unregistered", since=NOW + 1), NOW + 5)
        self.assertEqual(self.left(), (False, False))

    def test_with_an_earlier_time(self) -> None:
        """A phone that registered after its token died has it back."""
        self.forget(Gone("Unregistered", since=NOW - 1), NOW + 5)
        self.assertEqual(self.left(), (True, True))

    def test_of_another_app(self) -> None:
        """A token is dead for the app it was pushed to with."""
        push = self.push()
        push = replace(push, device=replace(push.device, app_id="org.other"))
        self.forget(Gone("Unregistered", since=NOW + 1), NOW + 5, push)
        self.assertEqual(self.left(), (True, True))

    def test_without_a_time(self) -> None:
        """Any other reason is the caller's own affair."""
        self.forget(Gone("BadDeviceToken"), NOW + 5)
        self.assertEqual(self.left(), (False, True))

    def test_registered_since_it_was_sent(self) -> None:
        """A phone that registered again while its push was under way is kept."""
        push = self.push()
        self.daemon.clock.advance(10)
        self.register()
        self.forget(Gone("BadDeviceToken"), NOW + 5, push)
        self.assertEqual(self.left(), (True, True))

    def test_it_never_fails(self) -> None:
        """A store that cannot answer keeps the phone; the push has ended all the same."""
        push = self.push()
        self.store.down = True
        self.forget(Gone("BadDeviceToken"), NOW + 5, push)
