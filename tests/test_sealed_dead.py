"""Phones that turn out to be dead when something is pushed to them end to end."""

from bouncerd.model import Delivered, Gone
from tests.in_memory import APP, NOW, PHONE, USER, always, result
from tests.sealing import (
    APPLE,
    OTHER_ORG,
    OTHER_REALM,
    REALM,
    SealedTests,
    add_realm,
    for_apple,
    for_google,
    notify,
    register,
    token_id,
)


class DeadPhoneTests(SealedTests):
    """Marked, told, and never pushed to again unless they come back."""

    def expired(self, token: str) -> float | None:
        realm_id = result(self.store.realm(REALM)).id
        (device,) = [
            device
            for device in result(self.store.sealed_devices_by_id(realm_id, range(99)))
            if device.token == token
        ]
        expired_at: float | None = device.expired_at
        return expired_at

    def test_dead(self) -> None:
        """A token that is found dead is in the same answer, marked, and not pushed to again."""
        self.daemon.apns.outcome = always(Gone("BadDeviceToken"))
        for _ in range(2):
            self.answered(
                for_apple(),
                for_google(),
                android_successfully_sent_count=1,
                delete_token_ids=[token_id(PHONE)],
            )
        self.assertEqual(self.expired(PHONE), NOW)
        self.assertEqual(len(self.daemon.apns.pushes), 1)

    def test_dead_and_back(self) -> None:
        """A phone that registers again is pushed to again."""
        self.daemon.apns.outcome = always(Gone("BadDeviceToken"))
        notify(self.daemon, for_apple())
        self.daemon.apns.outcome = always(Delivered())
        register(self.daemon, APPLE)
        self.answered(for_apple(), apple_successfully_sent_count=1)

    def test_back_before_the_news(self) -> None:
        """Old news of a token does not touch what was registered since it was sent."""
        self.daemon.apns.holding = True
        pending = self.pending(for_apple())
        self.daemon.clock.advance(1)
        register(self.daemon, APPLE)
        self.daemon.apns._now = lambda: NOW
        self.daemon.apns.outcome = always(Gone("BadDeviceToken"))
        self.daemon.apns.release()
        self.assertEqual(pending()["delete_token_ids"], [])
        self.assertIsNone(self.expired(PHONE))

    def test_own_realm_only(self) -> None:
        """What Apple says without a time touches the caller's realm only."""
        self.in_another_realm()
        self.daemon.apns.outcome = always(Gone("DeviceTokenNotForTopic"))
        self.answered(for_apple(), delete_token_ids=[token_id(PHONE)])
        self.assertTrue(self.lives_elsewhere())

    def test_everywhere(self) -> None:
        """What Apple says with a time goes for everyone who registered the token before."""
        self.in_another_realm()
        self.daemon.apns.outcome = always(Gone("Unregistered", since=NOW))
        self.answered(for_apple(), delete_token_ids=[token_id(PHONE)])
        self.assertFalse(self.lives_elsewhere())

    def test_before_registration(self) -> None:
        """A token that was dead before it was registered has come back to life since."""
        self.daemon.apns.outcome = always(Gone("Unregistered", since=NOW - 1))
        self.answered(for_apple())
        self.assertIsNone(self.expired(PHONE))

    def in_another_realm(self) -> None:
        other = self.daemon.enrol(OTHER_ORG, hostname="b.example.org")
        self.other_realm = add_realm(self.daemon, other, OTHER_REALM)
        device = result(self.store.sealed_devices_by_id(1, [1]))[0]
        result(
            self.store.register_sealed(
                self.other_realm, device.token_id, device.kind, PHONE, APP, None, NOW
            )
        )

    def lives_elsewhere(self) -> bool:
        return bool(result(self.store.count_sealed(self.other_realm)))

    def test_legacy_rows_stay(self) -> None:
        """What the phone registered in the clear is another matter, and the other way round."""
        phone = {"token": PHONE, "token_kind": "1", "ios_app_id": APP}
        self.daemon.post_form("push/register", user_uuid=USER, **phone)
        self.daemon.apns.outcome = always(Gone("BadDeviceToken"))
        notify(self.daemon, for_apple())
        legacy = {"user_uuid": USER, "apple_devices": [PHONE], "apns_payload": {}}
        answer = self.daemon.post_json("push/notify", legacy).json
        self.assertEqual(answer["total_apple_devices"], 1)
        register(self.daemon, APPLE)
        self.daemon.post_form("push/register", user_uuid=USER, **phone)
        self.daemon.post_json("push/notify", legacy)
        self.assertIsNone(self.expired(PHONE))
