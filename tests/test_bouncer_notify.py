"""What the bouncer does when a server asks for pushes, and when it answers."""

import json
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from bouncerd.calls import Saturated
from bouncerd.envelope import WireError
from bouncerd.model import Gone, Identity, Kind, Outcome, Refused, Retry
from bouncerd.wire import Notify, TestNotification
from tests.in_memory import ANDROID, NOW, ORG_ID, PHONE, always, tokens
from tests.test_bouncer import BOTH, BY_ID, BY_UUID, BouncerTests


class NotifyTests(BouncerTests):
    """Pushing to a user's phones."""

    def pushed(self, asked: Notify | None = None, user: Identity = BOTH) -> Any:
        return self.run_now(self.daemon.bouncer.notify(self.caller(user), asked or self.notify()))

    def test_both_kinds(self) -> None:
        """Each phone gets its platform's message, with an id and a life of its own."""
        self.register()
        self.register(ANDROID, Kind.FCM)
        asked = self.notify(gcm_payload={"n": 5}, apns_payload={"alert": "x"})
        answer = self.pushed(asked)
        self.assertEqual((answer.total_apple_devices, answer.total_android_devices), (1, 1))
        apple, android = self.daemon.pushes
        self.assertEqual(json.loads(apple.message.body), {"aps": {"alert": "x"}})
        self.assertEqual(json.loads(android.message.body), {"n": "5"})
        self.assertNotEqual(apple.id, android.id)
        self.assertEqual((apple.expires_at, apple.server), (NOW + 3600, ORG_ID))

    def test_one_encoding(self) -> None:
        """Phones of one platform share one encoded message."""
        self.register("aaaa")
        self.register("bbbb")
        self.pushed()
        first, second = self.daemon.apns.pushes
        self.assertIs(first.message, second.message)

    def test_doubles(self) -> None:
        """A phone registered by number and by UUID is pushed to once, and then is one."""
        self.register(user=BY_ID)
        self.register(PHONE.upper(), user=BY_UUID)
        self.register("abcd", user=BY_ID)
        self.assertEqual(self.pushed().total_apple_devices, 2)
        self.assertEqual(tokens(self.daemon.apns.pushes, Kind.APNS), [PHONE.upper(), "abcd"])
        self.assertEqual(self.listed(BY_ID), ["abcd"])

    def test_a_double_registered_again(self) -> None:
        """A row that was registered again since it was read is not deleted."""
        self.register(user=BY_ID)
        self.register(user=BY_UUID)
        caller = self.caller()
        self.daemon.clock.advance(1)
        self.register(user=BY_ID)
        self.run_now(self.daemon.bouncer.notify(caller, self.notify()))
        self.assertEqual(self.listed(BY_ID), [PHONE])

    def test_no_app(self) -> None:
        """An iPhone of unknown app is counted, and cannot be pushed to."""
        self.register(app=None)
        self.assertEqual(self.pushed().total_apple_devices, 1)
        self.assertEqual(self.daemon.pushes, [])

    def test_options_matter_only_to_google(self) -> None:
        """Bad options are refused if there is an Android phone to push to, before any push."""
        asked = self.notify(gcm_options={"x": 1})
        self.register()
        self.pushed(asked)
        self.register(ANDROID, Kind.FCM)
        del self.daemon.apns.pushes[:]
        self.assertIn(
            "Invalid GCM options", self.told(self.daemon.bouncer.notify(self.caller(), asked))
        )
        self.assertEqual(self.daemon.pushes, [])

    def test_no_google_section(self) -> None:
        """Without Google's credentials the options are of no interest, and iPhones are served."""
        self.daemon.routes._fcm = {}
        self.register()
        self.register(ANDROID, Kind.FCM)
        self.pushed(self.notify(gcm_options={"x": 1}))
        self.assertEqual(len(self.daemon.apns.pushes), 1)
        self.assertEqual(self.daemon.routes.nowhere.accepted, 1)

    def test_no_room(self) -> None:
        """A saturated process takes nothing of the call, and changes nothing."""
        self.register(user=BY_ID)
        self.register(user=BY_UUID)
        self.register(ANDROID, Kind.FCM)
        self.daemon.fcm.room = False
        self.failing(self.daemon.bouncer.notify(self.caller(), self.notify()), Saturated)
        self.assertEqual(self.daemon.pushes, [])
        self.assertEqual(self.listed(BY_ID), [PHONE])

    def test_stopping(self) -> None:
        """What a stopping daemon gives back unsent is its caller's again."""
        self.register()
        self.daemon.apns.holding = True
        answer = Deferred.fromCoroutine(self.daemon.bouncer.notify(self.caller(), self.notify()))
        self.daemon.apns.give_back()
        self.failureResultOf(answer, Saturated)


class AnswerTests(BouncerTests):
    """When the answer comes, and what it says of phones we do not have."""

    def test_it_waits_for_the_first_attempt(self) -> None:
        """The answer comes when the pushes have gone, not before."""
        self.register()
        self.daemon.apns.holding = True
        answer = Deferred.fromCoroutine(self.daemon.bouncer.notify(self.caller(), self.notify()))
        self.daemon.clock.advance(11.9)
        self.assertNoResult(answer)
        self.daemon.apns.release()
        self.assertEqual(self.successResultOf(answer).total_apple_devices, 1)
        self.assertEqual(len([c for c in self.daemon.clock.getDelayedCalls() if c.active()]), 0)

    def test_it_waits_no_longer_than_its_caller(self) -> None:
        """After so many seconds the answer comes without them, and they go on."""
        self.register()
        self.daemon.apns.holding = True
        asked = self.notify(apple_devices=[PHONE, "gone"])
        answer = Deferred.fromCoroutine(self.daemon.bouncer.notify(self.caller(), asked))
        self.daemon.clock.advance(12.0)
        self.assertEqual(self.successResultOf(answer).deleted_apple_devices, ["gone"])
        self.daemon.apns.release()

    def test_dead_tokens_are_told(self) -> None:
        """A phone found dead by this very push is in its answer."""
        self.register()
        self.daemon.apns.outcome = always(Gone("Unregistered", since=NOW))
        asked = self.notify(apple_devices=[PHONE], android_devices=["unknown"])
        answer = self.run_now(self.daemon.bouncer.notify(self.caller(), asked))
        self.assertEqual(answer.total_apple_devices, 1)
        self.assertEqual(answer.deleted_apple_devices, [PHONE])
        self.assertEqual(answer.deleted_android_devices, ["unknown"])

    def test_a_phone_registered_meanwhile(self) -> None:
        """A phone that registers while its user is pushed to is not called deleted."""
        caller = self.caller()
        self.register(ANDROID, Kind.FCM)
        asked = self.notify(android_devices=[ANDROID])
        answer = self.run_now(self.daemon.bouncer.notify(caller, asked))
        self.assertEqual(answer.deleted_android_devices, [])
        self.assertEqual(answer.total_android_devices, 0)

    def test_one_look_is_enough(self) -> None:
        """When all was delivered and all that is listed is known, the store is asked once."""
        self.register()
        self.store.lookups = 0
        asked = self.notify(apple_devices=[PHONE.upper()])
        answer = self.run_now(self.daemon.bouncer.notify(self.caller(), asked))
        self.assertEqual(answer.deleted_apple_devices, [])
        self.assertEqual(self.store.lookups, 1)

    def test_in_doubt_nothing_is_deleted(self) -> None:
        """After the pushes no fault of the store makes the call fail, or calls a phone deleted."""
        self.register()
        caller = self.caller()
        asked = self.notify(apple_devices=["unknown"])
        for self.store.down, self.store.silent in [(True, False), (False, True)]:
            answer = Deferred.fromCoroutine(self.daemon.bouncer.notify(caller, asked))
            self.daemon.clock.advance(13.0)
            self.assertEqual(self.successResultOf(answer).deleted_apple_devices, [])
        self.assertEqual(len(self.daemon.apns.pushes), 2)

    def test_deletions_of_doubles_may_fail(self) -> None:
        """A store that cannot delete a double does not make a push fail."""
        self.register(user=BY_ID)
        self.register(user=BY_UUID)
        caller = self.caller()
        for self.store.down, self.store.silent in [(True, False), (False, True)]:
            answer = Deferred.fromCoroutine(self.daemon.bouncer.notify(caller, self.notify()))
            self.daemon.clock.advance(13.0)
            self.successResultOf(answer)
        self.assertEqual(len(self.daemon.apns.pushes), 2)


class TestNotificationTests(BouncerTests):
    """Tests of one phone."""

    def asked(self, **changes: Any) -> TestNotification:
        base = {"realm_name": "Org", "realm_uri": "u"}
        return replace(TestNotification(BOTH, None, 1, PHONE, base), **changes)

    def test_one_phone(self) -> None:
        """Only that phone gets it, in whatever case its token is spelled."""
        self.register(user=BY_ID)
        self.register(user=BY_UUID)
        self.register("abcd")
        work = self.daemon.bouncer.test_notification(self.caller(), self.asked(token=PHONE.upper()))
        self.run_now(work)
        self.assertEqual(tokens(self.daemon.apns.pushes, Kind.APNS), [PHONE])

    def test_unknown(self) -> None:
        """A phone we do not have, of that kind, is not recognized."""
        self.register()
        wrong: list[dict[str, Any]] = [
            {"token": "abcd"},
            {"kind": 2},
            {"kind": 17},
            {"token": "\ud800\0"},
        ]
        for changes in wrong:
            work = self.daemon.bouncer.test_notification(self.caller(), self.asked(**changes))
            self.assertEqual(self.failing(work, WireError).code, "INVALID_REMOTE_PUSH_DEVICE_TOKEN")

    def test_failures_are_no_errors(self) -> None:
        """What Apple or Google say of it does not change the answer."""
        self.register()
        outcomes: list[Outcome] = [Refused("x"), Retry("x"), Gone("x")]
        for outcome in outcomes:
            self.daemon.apns.outcome = always(outcome)
            self.run_now(self.daemon.bouncer.test_notification(self.caller(), self.asked()))
