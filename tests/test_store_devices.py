"""What every store must do with devices: find, renew, delete, and keep tenants apart."""

from bouncerd.model import Device, Found, Identity, Kind
from tests.test_store_contract import (
    ALICE,
    ALICE_BY_ID,
    ALICE_BY_UUID,
    APP,
    BOB,
    ONE,
    TWO,
    StoreCase,
)


class DevicesContract(StoreCase):
    """The behaviour of any store toward devices."""

    __test__ = False

    # Registering devices.

    def test_device_is_found_as_registered(self) -> None:
        """A registered phone comes back with all that a push needs."""
        self.register("c0ffee", ALICE_BY_UUID, now=1234.5)
        found = self.do(self.store.find(ONE, ALICE, None))
        [device] = found.devices
        self.assertEqual(found.server, self.known(ONE))
        expected = Device(
            device.id, Kind.APNS, "c0ffee", APP, 1234.5, None, ALICE_BY_UUID.user_uuid
        )
        self.assertEqual(device, expected)
        self.assertIs(type(device.kind), Kind)

    def test_user_by_either_id(self) -> None:
        """A user with both ids has the phones registered by the one and by the other."""
        self.register("aa01", ALICE_BY_ID)
        self.register("aa02", ALICE_BY_UUID)
        self.assertEqual(self.tokens(ALICE_BY_ID), ["aa01"])
        self.assertEqual(self.tokens(ALICE_BY_UUID), ["aa02"])
        self.assertEqual(self.tokens(ALICE), ["aa01", "aa02"])
        self.assertEqual(self.tokens(BOB), [])

    def test_devices_are_ordered_by_first_registration(self) -> None:
        """Phones are listed oldest first, whatever the ids and tokens; renewing moves none."""
        for token in ("ee", "aa", "cc"):
            self.register(token, ALICE_BY_ID)
        for token in ("dd", "bb"):
            self.register(token, ALICE_BY_UUID)
        self.register("ee", ALICE_BY_ID, now=2000.0)
        self.assertEqual(self.tokens(), ["ee", "aa", "cc", "dd", "bb"])

    def test_nobody_has_no_devices(self) -> None:
        """Without any id there is no user, even where rows lack one of the two."""
        self.register("aa01", ALICE_BY_ID)
        self.register("aa02", ALICE_BY_UUID)
        self.assertEqual(self.devices(Identity(None, None)), [])

    def test_registering_again_renews(self) -> None:
        """A phone that registers again is the same row, with a new time and its first app."""
        self.register("c0ffee", now=1000.0)
        [before] = self.devices()
        self.register("c0ffee", app_id="org.example.other", now=2000.0)
        [after] = self.devices()
        self.assertEqual((after.id, after.registered_at, after.app_id), (before.id, 2000.0, APP))

    def test_apns_tokens_have_no_case(self) -> None:
        """One iPhone in two spellings is one phone, spelled as it was first."""
        self.register("C0ffEE", now=1000.0)
        self.register("c0FFee", now=2000.0)
        [device] = self.devices()
        self.assertEqual((device.token, device.registered_at), ("C0ffEE", 2000.0))

    def test_fcm_tokens_have_case(self) -> None:
        """Two spellings of an Android token are two phones."""
        self.register("Token:A", kind=Kind.FCM)
        self.register("token:a", kind=Kind.FCM)
        self.assertEqual(self.tokens(), ["Token:A", "token:a"])

    def test_kinds_are_apart(self) -> None:
        """The same text as a token of Apple's and of Google's is two phones."""
        self.register("c0ffee", kind=Kind.APNS)
        self.register("c0ffee", kind=Kind.FCM)
        self.assertEqual([d.kind for d in self.devices()], [Kind.APNS, Kind.FCM])

    def test_number_gives_way_to_uuid(self) -> None:
        """A phone known by the user's number is known by the UUID once both are given."""
        self.register("C0ffee", ALICE_BY_ID)
        self.register("c0ffee", ALICE)
        self.assertEqual(self.tokens(ALICE_BY_ID), [])
        [device] = self.devices()
        self.assertEqual((device.user_id, device.user_uuid), (None, ALICE.user_uuid))

    def test_number_gives_way_to_uuid_known_already(self) -> None:
        """Where both rows exist, registering with both ids leaves one, renewed."""
        self.register("c0ffee", ALICE_BY_ID)
        self.register("c0ffee", ALICE_BY_UUID)
        self.assertEqual(len(self.devices()), 2)
        self.register("c0ffee", ALICE, now=2000.0)
        [device] = self.devices()
        self.assertEqual((device.user_uuid, device.registered_at), (ALICE.user_uuid, 2000.0))

    def test_longest_token(self) -> None:
        """A token may have 4096 characters, and two of them differ in the last."""
        self.register("a" * 4096, kind=Kind.FCM)
        self.register("a" * 4095 + "b", kind=Kind.FCM)
        self.assertEqual([len(token) for token in self.tokens()], [4096, 4096])

    def test_any_alphabet(self) -> None:
        """Texts outside ASCII come back as they were."""
        odd = "ü€😀\n\x7f '\"; -- %s ? :x"
        self.register(odd, kind=Kind.FCM)
        self.assertEqual(self.tokens(), [odd])
        self.assertTrue(self.do(self.store.unregister(self.one, ALICE, Kind.FCM, odd)))
        self.do(self.store.update_server(ONE, "zülip.example.org", odd, None, 1.0))
        found = self.do(self.store.server_by_hostname("zülip.example.org"))
        self.assertEqual(found and found.contact_email, odd)

    def test_big_numbers(self) -> None:
        """User numbers may be as big as 64 bits allow, and negative."""
        for number in (2**63 - 1, -(2**63), 0, -5, 99999999999):
            identity = Identity(number, None)
            self.register("c0ffee", identity)
            self.assertEqual([d.user_id for d in self.devices(identity)], [number])

    def test_numbers_beyond_64_bits(self) -> None:
        """Such a number is nobody's; with a UUID beside it, the UUID counts (as upstream)."""
        for number in (2**63, -(2**63) - 1, 10**30):
            nobody = Identity(number, None)
            refusal = self.store.register(self.one, nobody, Kind.APNS, "c0ffee", APP, 1.0)
            self.assertNotIn(str(number), self.refused(refusal, ValueError))
            self.assertEqual(self.devices(nobody), [])
            self.assertEqual(self.do(self.store.unregister_all(self.one, nobody)), 0)
            self.assertEqual(self.do(self.store.count_devices(self.one, nobody, Kind.APNS)), 0)
            self.assertEqual(self.do(self.store.forget(self.one, [number], 1e12)), 0)
            self.register("c0ffee", Identity(number, ALICE.user_uuid))
        self.assertEqual(self.tokens(Identity(10**30, ALICE.user_uuid)), ["c0ffee"])

    def test_registering_nobody(self) -> None:
        """A phone without any user is refused."""
        nobody = Identity(None, None)
        self.refused(
            self.store.register(self.one, nobody, Kind.APNS, "c0ffee", APP, 1.0), ValueError
        )

    def test_text_that_no_database_holds(self) -> None:
        """NUL and half a surrogate pair are refused without being repeated, and found nowhere."""
        self.register("c0ffee")
        for bad in ("canary\0", "canary\ud800", "\udfffcanary"):
            odd = Identity(None, bad)
            refusals = [
                self.store.register(self.one, odd, Kind.FCM, "t", None, 1.0),
                self.store.register(self.one, ALICE, Kind.FCM, bad, None, 1.0),
                self.store.register(self.one, ALICE, Kind.APNS, "t", bad, 1.0),
                self.store.add_server(bad, "h.example.org", "e@example.org", b"k", 1.0),
                self.store.add_server("u", bad, "e@example.org", b"k", 1.0),
                self.store.update_server(ONE, "h.example.org", bad, b"k", 1.0),
            ]
            for refusal in refusals:
                self.assertNotIn("canary", self.refused(refusal, ValueError))
            self.assertIsNone(self.do(self.store.server(bad)))
            self.assertIsNone(self.do(self.store.server_by_hostname(bad)))
            self.assertEqual(self.do(self.store.find(bad, odd, bad)), Found(None))
            self.assertEqual(self.devices(odd), [])
            self.assertFalse(self.do(self.store.unregister(self.one, odd, Kind.FCM, bad)))
            self.assertEqual(self.do(self.store.forget_everywhere(Kind.FCM, bad, bad, 1e12)), 0)
        self.assertEqual(self.tokens(), ["c0ffee"])

    # Deleting devices.

    def test_unregister(self) -> None:
        """Logging out on one phone removes that one, in any spelling, and says so once."""
        self.register("C0ffee")
        self.register("beef")
        gone = self.store.unregister(self.one, ALICE, Kind.APNS, "c0FFEE")
        self.assertIs(self.do(gone), True)
        again = self.store.unregister(self.one, ALICE, Kind.APNS, "c0FFEE")
        self.assertIs(self.do(again), False)
        self.assertEqual(self.tokens(), ["beef"])

    def test_unregister_by_both_ids(self) -> None:
        """Logging out removes the rows of the number and of the UUID."""
        self.register("c0ffee", ALICE_BY_ID)
        self.register("c0ffee", ALICE_BY_UUID)
        self.assertTrue(self.do(self.store.unregister(self.one, ALICE, Kind.APNS, "c0ffee")))
        self.assertEqual(self.devices(), [])

    def test_unregister_leaves_others(self) -> None:
        """Another user's row of the same phone stays, and so does the other platform's."""
        self.register("c0ffee", BOB)
        self.register("c0ffee", ALICE, Kind.FCM)
        self.assertFalse(self.do(self.store.unregister(self.one, ALICE, Kind.APNS, "c0ffee")))
        self.assertEqual((self.tokens(BOB), self.tokens(ALICE)), (["c0ffee"], ["c0ffee"]))

    def test_unregister_all(self) -> None:
        """All of a user's phones go, of both platforms and both ids; nobody else's do."""
        self.register("aa01", ALICE_BY_ID)
        self.register("aa02", ALICE_BY_UUID)
        self.register("aa03", ALICE, Kind.FCM)
        self.register("bb01", BOB)
        self.assertEqual(self.do(self.store.unregister_all(self.one, ALICE)), 3)
        self.assertEqual(self.do(self.store.unregister_all(self.one, ALICE)), 0)
        self.assertEqual((self.devices(), self.tokens(BOB)), ([], ["bb01"]))

    def test_forget_compares_times(self) -> None:
        """A dead token's row goes if registered before or at that time, not if after it."""
        for token, now in (("aa01", 999.0), ("aa02", 1000.0), ("aa03", 1000.001)):
            self.register(token, now=now)
        ids = [device.id for device in self.devices()]
        self.assertEqual(self.do(self.store.forget(self.one, ids, 1000.0)), 2)
        self.assertEqual(self.tokens(), ["aa03"])

    def test_forget_after_registering_again(self) -> None:
        """A phone that registered again while its push was on its way is kept."""
        self.register("c0ffee", now=1000.0)
        [device] = self.devices()
        self.register("c0ffee", now=1002.0)
        self.assertEqual(self.do(self.store.forget(self.one, [device.id], 1001.0)), 0)
        self.assertEqual(self.tokens(), ["c0ffee"])

    def test_row_ids_are_not_used_again(self) -> None:
        """A late answer about a row that is gone touches no newer registration."""
        self.register("aa01", now=1000.0)
        [device] = self.devices()
        self.do(self.store.unregister_all(self.one, ALICE))
        self.register("aa02", now=1000.0)
        self.assertEqual(self.do(self.store.forget(self.one, [device.id], 1000.0)), 0)
        self.assertEqual(self.tokens(), ["aa02"])

    def test_forget_only_own_rows(self) -> None:
        """One server's dead tokens never delete a row of another, even by its number."""
        self.register("c0ffee", server=self.two)
        [device] = self.devices(uuid=TWO)
        self.assertEqual(self.do(self.store.forget(self.one, [device.id, 10**6], 1e12)), 0)
        self.assertEqual(self.tokens(uuid=TWO), ["c0ffee"])

    def test_forget_nothing(self) -> None:
        """Forgetting no rows is no error."""
        self.assertEqual(self.do(self.store.forget(self.one, [], 1e12)), 0)

    def test_forget_everywhere(self) -> None:
        """Apple's word that a token is dead counts for all servers, users and spellings."""
        self.register("C0ffee", ALICE_BY_ID)
        self.register("c0ffee", BOB)
        self.register("c0FFEE", ALICE, server=self.two)
        self.register("beef")
        forgotten = self.store.forget_everywhere(Kind.APNS, "c0ffeE", APP, 1000.0)
        self.assertEqual(self.do(forgotten), 3)
        self.assertEqual(self.tokens(), ["beef"])
        self.assertEqual((self.tokens(BOB), self.tokens(uuid=TWO)), ([], []))

    def test_forget_everywhere_compares_times(self) -> None:
        """Before or at the time of the 410: deleted. After it: the phone came back."""
        self.register("c0ffee", ALICE, now=999.0)
        self.register("c0ffee", BOB, now=1000.0)
        self.register("c0ffee", ALICE, server=self.two, now=1000.001)
        forgotten = self.store.forget_everywhere(Kind.APNS, "c0ffee", APP, 1000.0)
        self.assertEqual(self.do(forgotten), 2)
        self.assertEqual((self.tokens(), self.tokens(BOB)), ([], []))
        self.assertEqual(self.tokens(uuid=TWO), ["c0ffee"])

    def test_forget_everywhere_is_for_one_app(self) -> None:
        """A token that is dead for one app may live for another, and for Google."""
        self.register("c0ffee", ALICE, app_id="org.example.other")
        self.register("c0ffee", BOB, Kind.FCM)
        self.assertEqual(self.do(self.store.forget_everywhere(Kind.APNS, "c0ffee", APP, 1e12)), 0)
        self.assertEqual(self.do(self.store.forget_everywhere(Kind.APNS, "c0ffee", None, 1e12)), 0)
        self.assertEqual(self.do(self.store.forget_everywhere(Kind.FCM, "c0ffee", None, 1e12)), 1)
        self.assertEqual((self.tokens(), self.tokens(BOB)), (["c0ffee"], []))

    def test_count_devices(self) -> None:
        """A user's phones are counted per platform."""
        self.register("aa01", ALICE_BY_ID)
        self.register("aa02", ALICE_BY_UUID)
        self.register("aa03", ALICE, Kind.FCM)
        self.register("bb01", BOB)
        self.assertEqual(self.do(self.store.count_devices(self.one, ALICE, Kind.APNS)), 2)
        self.assertEqual(self.do(self.store.count_devices(self.one, ALICE, Kind.FCM)), 1)
        self.assertEqual(self.do(self.store.count_devices(self.two, ALICE, Kind.FCM)), 0)

    # Tenants.

    def test_tenants_are_apart(self) -> None:
        """The same user and token on two servers are two rows; what one does stays its own."""
        self.register("c0ffee", server=self.one)
        self.register("c0ffee", server=self.two)
        self.assertTrue(self.do(self.store.unregister(self.one, ALICE, Kind.APNS, "c0ffee")))
        self.assertEqual((self.tokens(uuid=ONE), self.tokens(uuid=TWO)), ([], ["c0ffee"]))
        self.assertEqual(self.do(self.store.unregister_all(self.one, ALICE)), 0)
        self.register("c0ffee", ALICE, server=self.one)
        self.assertEqual(self.do(self.store.unregister_all(self.one, ALICE)), 1)
        self.assertEqual(self.tokens(uuid=TWO), ["c0ffee"])
