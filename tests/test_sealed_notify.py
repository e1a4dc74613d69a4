"""`push/e2ee/notify`, from the body that a server sends to the pushes and the answer."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher

from bouncerd.model import (
    Gone,
    Kind,
    Misconfigured,
    Outcome,
    Refused,
    Retry,
)
from bouncerd.routes import Routes
from tests.in_memory import (
    ANDROID,
    APP,
    NOW,
    ORG_ID,
    PHONE,
    always,
    basic,
    result,
    tokens,
)
from tests.sealing import (
    APPLE,
    GOOGLE,
    OTHER_ORG,
    OTHER_REALM,
    REALM,
    SealedTests,
    add_realm,
    asking,
    eleven,
    for_apple,
    for_google,
    house,
    notify,
    register,
    token_id,
)

TWO = {**APPLE, "token": "aaaa"}


class NotifyTests(SealedTests):
    """A server asks for pushes to phones whose tokens it does not know."""

    # --- what is pushed

    def test_both_kinds(self) -> None:
        """Each phone gets what its platform wants, with an id and a life of its own."""
        self.answered(
            for_apple(),
            for_google(),
            apple_successfully_sent_count=1,
            android_successfully_sent_count=1,
        )
        apple, android = self.daemon.pushes
        self.assertEqual((apple.device.token, apple.device.app_id), (PHONE, APP))
        self.assertEqual(
            list(json.loads(apple.message.body)), ["push_key_id", "encrypted_data", "aps"]
        )
        self.assertEqual(android.device.token, ANDROID)
        self.assertEqual(
            json.loads(android.message.body), {"push_key_id": "20", "encrypted_data": "c2VjcmV0"}
        )
        self.assertNotEqual(apple.id, android.id)
        for push in (apple, android):
            self.assertEqual((push.expires_at, push.server), (NOW + 3600, ORG_ID))
            self.assertIsNone(push.message.expiration)

    def test_each_its_own(self) -> None:
        """Each request has its own message, priority and push type."""
        register(self.daemon, TWO)
        self.answered(
            for_apple(encrypted_data="one"),
            for_apple("aaaa", 5, "background", encrypted_data="two"),
            apple_successfully_sent_count=2,
        )
        one, two = self.daemon.apns.pushes
        self.assertEqual(json.loads(one.message.body)["encrypted_data"], "one")
        self.assertEqual(json.loads(two.message.body)["encrypted_data"], "two")
        self.assertEqual((one.message.priority, one.message.push_type), (10, "alert"))
        self.assertEqual((two.message.priority, two.message.push_type), (5, "background"))

    def test_one_phone_of_two_users(self) -> None:
        """A phone that is asked for twice is pushed to twice: the messages differ."""
        self.answered(for_apple(), for_apple(), apple_successfully_sent_count=2)
        self.assertEqual(tokens(self.daemon.pushes, Kind.APNS), [PHONE, PHONE])

    def test_nothing(self) -> None:
        """Asking for nothing is fine."""
        self.answered()

    def test_many(self) -> None:
        """A call may be for hundreds of phones."""
        names = [f"phone-{number}" for number in range(600)]
        register(self.daemon, *({**GOOGLE, "token": name} for name in names))
        items = [for_google(name) for name in names]
        self.answered(*items, android_successfully_sent_count=600)

    # --- what cannot be

    def test_unknown(self) -> None:
        """A phone that we do not know, in whatever way, is to be deleted, once."""
        unknown = [token_id("x"), "", "AAAA", token_id(PHONE.upper())]
        items = [{**for_google(), "token_id": each} for each in [*unknown, token_id("x")]]
        self.answered(
            *items, for_google(), android_successfully_sent_count=1, delete_token_ids=unknown
        )
        self.assertEqual(len(self.daemon.pushes), 1)

    def test_other_realms_phones(self) -> None:
        """A realm does not get at another one's phones."""
        other = self.daemon.enrol(OTHER_ORG, hostname="b.example.org")
        add_realm(self.daemon, other, OTHER_REALM)
        auth = {"Authorization": basic(OTHER_ORG)}
        body = asking(for_apple(), realm=OTHER_REALM)
        answer = self.daemon.post_json("push/e2ee/notify", body, auth)
        self.assertEqual(answer.json["delete_token_ids"], [token_id(PHONE)])
        self.assertEqual(self.daemon.pushes, [])

    def test_wrong_platform(self) -> None:
        """What is for the other platform goes nowhere, and nobody is deleted for that."""
        self.answered({**for_google(), "token_id": token_id(PHONE)})
        self.answered({**for_apple(), "token_id": token_id(ANDROID)})
        self.assertEqual(self.daemon.pushes, [])

    def test_not_base64(self) -> None:
        """An id that is none is a mistake, and nothing is sent."""
        for wrong in ("x", "+wKIhyAx/Eg", "-wKIhyAx_Eg=", "ü", " "):
            answer = notify(self.daemon, for_google(), {**for_google(), "token_id": wrong})
            self.assertEqual(
                (answer.status, answer.json["code"], answer.json["msg"]),
                (400, "BAD_REQUEST", "`token_id` is not Base64 encoded"),
            )
        self.assertEqual(self.daemon.pushes, [])

    def test_not_configured(self) -> None:
        """A platform that nobody configured gets nothing; the other one does."""
        self.daemon.sealed._routes = Routes({}, self.daemon.routes._fcm)
        self.answered(for_apple(), for_google(), android_successfully_sent_count=1)

    def test_realm(self) -> None:
        """The realm must be one that this very server has uploaded."""
        answer = self.daemon.post_json("push/e2ee/notify", asking(realm=OTHER_REALM))
        self.assertEqual(
            (answer.status, answer.json),
            (403, {"result": "error", "msg": "Organization not registered",
                   "code": "MISSING_REMOTE_REALM"}),
        )  # fmt: skip
        other = self.daemon.enrol(OTHER_ORG, hostname="b.example.org")
        add_realm(self.daemon, other, OTHER_REALM)
        answer = self.daemon.post_json("push/e2ee/notify", asking(realm=OTHER_REALM))
        self.assertEqual(
            (answer.status, answer.json["code"]), (403, "REMOTE_REALM_SERVER_MISMATCH_ERROR")
        )

    # --- when it does not go well

    def test_other_failures(self) -> None:
        """What failed for another reason is not counted, and its phone stays."""
        outcomes: list[Outcome] = [Refused("x"), Retry("x"), Misconfigured("x")]
        for outcome in outcomes:
            self.daemon.apns.outcome = always(outcome)
            self.answered(for_apple(), for_google(), android_successfully_sent_count=1)

    def test_no_room(self) -> None:
        """If one platform has no room nothing is sent, and the server asks again later."""
        self.daemon.fcm.room = False
        answer = notify(self.daemon, for_apple(), for_google())
        self.assertEqual(answer.status, 503)
        self.assertEqual(self.daemon.pushes, [])

    def test_stopping(self) -> None:
        """What was not sent when we stop goes back to the server."""
        self.daemon.apns.holding = True
        pending = self.pending(for_apple(), status=503)
        self.daemon.apns.give_back()
        pending()

    def test_slow_provider(self) -> None:
        """The answer counts what was delivered in time; the rest goes on."""
        self.daemon.apns.holding = True
        pending = self.pending(for_apple(), for_google())
        self.daemon.clock.advance(12)
        answer = pending()
        self.assertEqual(answer["apple_successfully_sent_count"], 0)
        self.assertEqual(answer["android_successfully_sent_count"], 1)
        self.assertEqual(answer["delete_token_ids"], [])

    def test_store_down(self) -> None:
        """Without a store nothing is sent, and the server asks again later."""
        self.store.answers = 0
        self.assertEqual(notify(self.daemon, for_apple()).status, 503)
        self.assertEqual(self.daemon.pushes, [])

    def test_store_down_after_sending(self) -> None:
        """A store that fails after sending fails nothing: nobody is listed as dead."""
        self.daemon.apns.outcome = always(Gone("BadDeviceToken"))
        self.store.answers = 1
        unknown = {**for_google(), "token_id": token_id("x")}
        self.answered(for_apple(), for_google(), unknown, android_successfully_sent_count=1)

    def test_store_silent_after_sending(self) -> None:
        """Nor does one that says nothing."""
        self.store.answers, self.store.silent = 1, True
        self.daemon.apns.outcome = always(Gone("BadDeviceToken"))
        pending = self.pending(for_apple())
        self.daemon.clock.advance(13.1)
        self.assertEqual(pending()["delete_token_ids"], [])

    def test_one_look(self) -> None:
        """When all was delivered the store is asked once."""
        self.store.answers = 1
        self.answered(for_apple(), apple_successfully_sent_count=1)

    # --- entitlement

    def test_not_entitled(self) -> None:
        """A realm that needs a plan is told so, and nothing is sent."""
        self.daemon = house(free_users=10, users=11)
        register(self.daemon, APPLE)
        answer = notify(self.daemon, for_apple())
        self.assertEqual(answer.status, 400)
        self.assertEqual(answer.json, {
            "result": "error",
            "code": "PUSH_NOTIFICATIONS_DISALLOWED",
            "msg": "Your plan doesn't allow sending push notifications. Reason provided by the"
            " server: Push notifications access with 10+ users requires signing up for a plan."
            " https://zulip.com/plans/",
        })  # fmt: skip
        self.assertEqual(self.daemon.pushes, [])

    def test_plan_that_ends(self) -> None:
        """A realm whose plan is about to end can announce that."""
        self.daemon = house(free_users=10, users=11)
        register(self.daemon, APPLE)
        result(self.daemon.store.set_plan(REALM, 103, NOW + 1000, NOW))
        status = {"can_push": True, "expected_end_timestamp": int(NOW + 1000)}
        self.answered(for_apple(), apple_successfully_sent_count=1, realm_push_status=status)

    def test_old_server(self) -> None:
        """The code is the same for a server that never said how new it is."""
        self.daemon = house(free_users=10)
        answer = notify(self.daemon, for_apple())
        self.assertEqual(answer.json["code"], "PUSH_NOTIFICATIONS_DISALLOWED")
        self.assertTrue(answer.json["msg"].endswith("server: Missing data"))

    # --- the dialect of 11.x

    def by_number(self, number: int) -> dict[str, Any]:
        payload = {"push_account_id": 10, "encrypted_data": "x"}
        return {"device_id": number, "fcm_priority": "high", "payload": payload}

    def test_eleven(self) -> None:
        """An 11.x server addresses phones by number, and is told numbers."""
        phone = {**GOOGLE, "token": "eleven"}
        number = self.daemon.post_form("push/e2ee/register", **eleven(phone)).json["device_id"]
        unknown = [number + 1, -1, 2**63, -(2**70)]
        self.answered(
            *map(self.by_number, [number, *unknown]),
            android_successfully_sent_count=1,
            delete_device_ids=unknown,
        )
        (push,) = self.daemon.pushes
        self.assertEqual(push.message.body, b'{"push_account_id":"10","encrypted_data":"x"}')

    def test_eleven_dead(self) -> None:
        """A phone that is found dead is told by its number."""
        phone = {**GOOGLE, "token": "eleven"}
        number = self.daemon.post_form("push/e2ee/register", **eleven(phone)).json["device_id"]
        self.daemon.fcm.outcome = always(Gone("UNREGISTERED"))
        self.answered(self.by_number(number), delete_device_ids=[number])

    def test_both_dialects(self) -> None:
        """Both may be spoken in one call."""
        self.answered(
            for_apple(),
            self.by_number(99),
            for_google("x"),
            apple_successfully_sent_count=1,
            delete_token_ids=[token_id("x")],
            delete_device_ids=[99],
        )

    # --- whatever is sent

    @given(
        st.lists(
            st.sampled_from([for_apple(), for_google(), {"device_id": 1}, 5]).flatmap(
                lambda item: (
                    st.fixed_dictionaries(
                        {},
                        optional={
                            **{name: st.just(value) for name, value in dict(item).items()},
                            "token_id": st.sampled_from([token_id(PHONE), "", "x", 5, None]),
                            "device_id": st.sampled_from([1, 2**70, None]),
                        },
                    )
                    if isinstance(item, dict)
                    else st.just(item)
                )
            ),
            max_size=4,
        )
    )
    def test_any_items(self, items: list[object]) -> None:
        """Every body is answered, and never as if it were our fault."""
        answer = notify(self.daemon, *items)
        self.assertIn(answer.status, (200, 400))
        self.assertEqual(answer.json["result"], "success" if answer.status == 200 else "error")

    def test_nothing_logged(self) -> None:
        """Neither content nor a token nor its id is in any log, whatever becomes of a push."""
        logged = EventLoggingObserver()
        globalLogPublisher.addObserver(logged)
        self.addCleanup(globalLogPublisher.removeObserver, logged)
        item = for_apple(encrypted_data="canary", canary="canary")
        outcomes: list[Outcome] = [Refused("x"), Retry("x"), Misconfigured("x"), Gone("x")]
        for outcome in outcomes:
            self.daemon.apns.outcome = always(outcome)
            self.assertEqual(notify(self.daemon, item).status, 200)
        for wrong in ({"token_id": "canary"}, {"payload": "canary"}, {"http_headers": "canary"}):
            answer = notify(self.daemon, {**item, **wrong})
            self.assertEqual(answer.status, 400)
            self.assertNotIn(b"canary", answer.body)
        for event in logged:
            text = f"{formatEvent(event)} {event!r}"
            for secret in ("canary", PHONE, token_id(PHONE)):
                self.assertNotIn(secret, text)
