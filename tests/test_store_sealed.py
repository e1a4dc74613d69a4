"""What every store must do with phones registered end to end: find, expire, revive, count."""

import hashlib
from typing import Any

from bouncerd.model import Kind, SealedDevice
from bouncerd.store.base import StoreUnavailable, TooMany
from tests.test_store_contract import APP
from tests.test_store_uploads import OTHER_REALM, UploadCase, a_realm_row


def token_id(token: str) -> bytes:
    """Return how a server names a token (bouncer-api.md 12.2)."""
    return hashlib.sha256(token.encode()).digest()[:8]


class SealedContract(UploadCase):
    """The behaviour of any store toward sealed registrations."""

    __test__ = False

    def setUp(self) -> None:
        super().setUp()
        [mine] = self.upload(realms=[a_realm_row()])
        [other] = self.upload(realms=[a_realm_row(OTHER_REALM)], server=self.two)
        self.mine, self.other = mine.id, other.id

    def seal(
        self, token: str, *, realm: int | None = None, now: float = 1000.0, **more: Any
    ) -> int:
        facts = {"kind": Kind.APNS, "app_id": APP, "account": None, "limit": None, **more}
        return self.do(
            self.store.register_sealed(
                self.mine if realm is None else realm,
                token_id(token),
                facts["kind"],
                token,
                facts["app_id"] if facts["kind"] == Kind.APNS else None,
                facts["account"],
                now,
                facts["limit"],
            )
        )

    def sealed(self, *tokens: str, realm: int | None = None) -> list[SealedDevice]:
        realm = self.mine if realm is None else realm
        return self.do(self.store.sealed_devices(realm, [token_id(token) for token in tokens]))

    def count(self, realm: int | None = None) -> int:
        return self.do(self.store.count_sealed(self.mine if realm is None else realm))

    # Registered and found.

    def test_found_as_registered(self) -> None:
        """A phone comes back with all that a push needs, by token id and by row."""
        row = self.seal("c0ffee", now=1234.5, account=-7)
        expected = SealedDevice(
            row, self.mine, token_id("c0ffee"), Kind.APNS, "c0ffee", APP, 1234.5, None, -7
        )
        self.assertEqual(self.sealed("c0ffee"), [expected])
        self.assertEqual(self.do(self.store.sealed_devices_by_id(self.mine, [row])), [expected])
        self.assertIs(type(self.sealed("c0ffee")[0].kind), Kind)

    def test_many_are_found_at_once(self) -> None:
        """However many are asked for and in whatever order, each is found once, oldest first."""
        tokens = [f"token {n}" for n in range(20)]
        rows = [self.seal(token, kind=Kind.FCM) for token in tokens]
        strangers = [f"stranger {n}" for n in range(700)]
        found = self.sealed(*reversed(tokens), *strangers, *tokens)
        self.assertEqual([device.id for device in found], rows)
        ids = [*reversed(rows), *range(10**6, 10**6 + 700), *rows, 2**70]
        self.assertEqual(self.do(self.store.sealed_devices_by_id(self.mine, ids)), found)
        self.assertEqual(self.sealed(), [])

    def test_spelling_matters(self) -> None:
        """Tokens are compared as registered: two spellings are two phones, Apple's too."""
        self.seal("c0ffee")
        self.seal("C0FFEE")
        self.assertEqual(
            [device.token for device in self.sealed("c0ffee", "C0FFEE")], ["c0ffee", "C0FFEE"]
        )

    def test_registering_again(self) -> None:
        """A phone that registers again is the same row, renewed, with what it says now."""
        first = self.seal("c0ffee", account=5, app_id="org.example.old")
        again = self.seal("c0ffee", now=2000.0)
        self.assertEqual(again, first)
        [device] = self.sealed("c0ffee")
        self.assertEqual((device.registered_at, device.app_id), (2000.0, APP))
        self.assertEqual(device.push_account_id, 5)
        self.seal("c0ffee", account=6)
        self.assertEqual(self.sealed("c0ffee")[0].push_account_id, 6)

    def test_realms_are_apart(self) -> None:
        """One phone in two realms is two rows; each realm finds its own only."""
        mine, other = self.seal("c0ffee"), self.seal("c0ffee", realm=self.other)
        self.assertNotEqual(mine, other)
        self.assertEqual([device.id for device in self.sealed("c0ffee")], [mine])
        by_id = self.do(self.store.sealed_devices_by_id(self.mine, [mine, other]))
        self.assertEqual([device.id for device in by_id], [mine])
        self.do(self.store.expire_sealed([other], 1e12, 3000.0))
        self.assertEqual((self.count(), self.count(self.other)), (1, 0))

    def test_any_alphabet(self) -> None:
        """Texts outside ASCII and long ones come back as they were."""
        for token in ("ü€😀\n' -- %s ?", "a" * 4096):
            self.seal(token, kind=Kind.FCM)
            self.assertEqual([device.token for device in self.sealed(token)], [token])

    def test_what_no_database_holds(self) -> None:
        """Such a phone is refused without being repeated, and found nowhere."""
        arguments: list[tuple[bytes, Kind, str, str | None, int | None]] = [
            (b"12345678", Kind.FCM, "canary\0", None, None),
            (b"12345678", Kind.FCM, "canary\ud800", None, None),
            (b"12345678", Kind.APNS, "c0ffee", "canary\0", None),
            (b"12345678", Kind.FCM, "c0ffee", None, 2**63),
            (b"1234567", Kind.FCM, "canary", None, None),
            (b"123456789", Kind.FCM, "canary", None, None),
        ]
        for facts in arguments:
            text = self.refused(self.store.register_sealed(self.mine, *facts, 1.0), ValueError)
            self.assertNotIn("canary", text)
            self.assertNotIn(str(2**63), text)
        self.assertEqual(self.count(), 0)
        for token in ("canary\0", "canary\ud800"):
            everywhere = self.store.expire_sealed_everywhere(Kind.FCM, token, None, 1e12, 1.0)
            self.assertEqual(self.do(everywhere), 0)
        self.assertEqual(self.do(self.store.expire_sealed([2**63], 1e12, 1.0)), 0)
        self.assertEqual(self.do(self.store.sealed_devices(2**63, [b"12345678"])), [])
        self.assertEqual(self.count(2**63), 0)

    def test_realm_gone_meanwhile(self) -> None:
        """A phone of a realm that does not exist is not stored; the caller asks again."""
        nowhere = self.store.register_sealed(999, b"12345678", Kind.FCM, "t", None, None, 1.0)
        self.refused(nowhere, StoreUnavailable)

    # Expired and revived.

    def test_expire(self) -> None:
        """A dead token is marked and not deleted; marking it again changes nothing."""
        row = self.seal("c0ffee", now=1000.0)
        self.assertEqual(self.do(self.store.expire_sealed([row, 999], 1000.0, 2000.0)), 1)
        self.assertEqual(self.do(self.store.expire_sealed([row], 1000.0, 3000.0)), 0)
        [device] = self.sealed("c0ffee")
        self.assertEqual((device.id, device.expired_at), (row, 2000.0))
        self.assertEqual(self.count(), 0)

    def test_expire_compares_times(self) -> None:
        """A phone that registered after the push was sent is not marked."""
        row = self.seal("c0ffee", now=1000.001)
        self.assertEqual(self.do(self.store.expire_sealed([row], 1000.0, 2000.0)), 0)
        self.assertIsNone(self.sealed("c0ffee")[0].expired_at)

    def test_revive(self) -> None:
        """A phone that was marked dead lives again once it registers again, as the same row."""
        row = self.seal("c0ffee")
        self.do(self.store.expire_sealed([row], 1e12, 2000.0))
        self.assertEqual(self.seal("c0ffee", now=3000.0), row)
        [device] = self.sealed("c0ffee")
        self.assertEqual((device.expired_at, device.registered_at), (None, 3000.0))
        self.assertEqual(self.count(), 1)

    def test_expire_everywhere(self) -> None:
        """A token that Apple calls dead is marked in all realms, where it is older than that."""
        self.seal("c0ffee", now=1000.0)
        self.seal("c0ffee", realm=self.other, now=1000.0)
        self.seal("decade", now=1000.0)
        for before, marked in ((999.0, 0), (1000.0, 2), (1000.0, 0)):
            everywhere = self.store.expire_sealed_everywhere(
                Kind.APNS, "c0ffee", APP, before, 2000.0
            )
            self.assertEqual(self.do(everywhere), marked)
        self.assertEqual((self.count(), self.count(self.other)), (1, 0))

    def test_expire_everywhere_is_for_one_app(self) -> None:
        """Another app's, platform's or spelling's row is not marked."""
        self.seal("c0ffee")
        for which in ((Kind.APNS, "c0ffee", "org.other"), (Kind.APNS, "C0FFEE", APP)):
            self.assertEqual(self.do(self.store.expire_sealed_everywhere(*which, 1e12, 2000.0)), 0)
        for kind, app in ((Kind.FCM, None), (Kind.FCM, APP), (Kind.APNS, None)):
            everywhere = self.store.expire_sealed_everywhere(kind, "c0ffee", app, 1e12, 2000.0)
            self.assertEqual(self.do(everywhere), 0)
        alike = token_id("decade"), Kind.APNS, "another token", APP, None, 1000.0
        self.do(self.store.register_sealed(self.mine, *alike))
        everywhere = self.store.expire_sealed_everywhere(Kind.APNS, "decade", APP, 1e12, 2000.0)
        self.assertEqual(self.do(everywhere), 0)
        self.seal("android", kind=Kind.FCM)
        everywhere = self.store.expire_sealed_everywhere(Kind.FCM, "android", None, 1e12, 2000.0)
        self.assertEqual(self.do(everywhere), 1)

    # Counted.

    def test_limit(self) -> None:
        """One phone too many is refused; known ones go on, and a dead one makes room."""
        first = self.seal("aa01", limit=2)
        self.seal("aa02", limit=2)
        refused = self.store.register_sealed(
            self.mine, token_id("aa03"), Kind.APNS, "aa03", APP, None, 1.0, 2
        )
        self.refused(refused, TooMany)
        self.assertEqual(self.sealed("aa03"), [])
        self.assertEqual(self.seal("aa01", limit=2), first)
        self.seal("aa03", realm=self.other, limit=2)
        self.do(self.store.expire_sealed([first], 1e12, 2000.0))
        self.seal("aa03", limit=2)
        revival = self.store.register_sealed(
            self.mine, token_id("aa01"), Kind.APNS, "aa01", APP, None, 1.0, 2
        )
        self.refused(revival, TooMany)
        self.assertEqual((self.count(), self.count(self.other)), (2, 1))

    def test_legacy_phones_are_others(self) -> None:
        """The same token registered in the clear is another row, untouched by all this."""
        self.register("c0ffee")
        row = self.seal("c0ffee")
        self.do(self.store.expire_sealed([row], 1e12, 2000.0))
        self.assertEqual(self.tokens(), ["c0ffee"])
