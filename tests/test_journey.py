"""The journey of a push, whole: HTTP in, real TLS and HTTP/2 out, for each provider and proof."""

import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from bouncerd.fakes.apns import goaway
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Close, Reset
from tests.house import House, a_message, reactor

IPHONE, ANDROID = "c0ffee" * 10, "fGl0:APA91b-android-token"

Rent = Callable[..., House]


@pytest_twisted.ensureDeferred
async def test_a_message_reaches_both_phones(rent: Rent) -> None:
    """With token authentication one call reaches an iPhone and an Android phone."""
    house = rent()
    await house.start()
    await house.enrol()
    await house.add_phone(IPHONE, 1)
    await house.add_phone(ANDROID, 2)
    status, answer = await house.call("push/notify", body=a_message("Wherefore art thou"))
    assert (status, answer["result"]) == (200, "success"), answer
    assert (answer["total_apple_devices"], answer["total_android_devices"]) == (1, 1)
    (apple,) = house.apns.ledger.accepted()
    assert apple.path == f"/3/device/{IPHONE}"
    assert apple.headers()["apns-topic"] == "org.example.app"
    assert apple.headers()["authorization"].startswith("bearer ")
    assert apple.json()["aps"]["alert"]["body"] == "Wherefore art thou"
    assert apple.json()["zulip"]["message_ids"] == [101]
    (google,) = house.fcm.ledger.accepted()
    message = google.json()["message"]
    assert message["token"] == ANDROID
    assert message["data"]["content"] == "Wherefore art thou"
    assert message["data"]["realm_id"] == "2"
    assert message["android"] == {"priority": "high"}
    assert house.apns.ledger.rules_broken() == house.fcm.ledger.rules_broken() == []
    assert len(house.tokens.calls) == 1
    assert await house.stop() == -signal.SIGTERM
    assert "Wherefore" not in house.log()


@pytest_twisted.ensureDeferred
async def test_with_a_certificate(rent: Rent) -> None:
    """With a client certificate there is no token in any request, and the push arrives."""
    house = rent("certificate")
    await house.start()
    await house.enrol()
    await house.add_phone(IPHONE, 1)
    status, _ = await house.call("push/notify", body=a_message())
    assert status == 200
    (apple,) = house.apns.ledger.accepted()
    assert "authorization" not in apple.headers()
    assert house.apns.ledger.rules_broken() == []


@pytest_twisted.ensureDeferred
async def test_dead_tokens_are_named_and_forgotten(rent: Rent) -> None:
    """A token that Apple or Google calls dead is in the same answer, and is not sent to again."""
    house = rent()
    await house.start()
    await house.enrol()
    dead_iphone, dead_android = "aa410" + "0" * 59, "fcm-unregistered-1"
    for token, kind in ((dead_iphone, 1), (IPHONE, 1), (dead_android, 2), (ANDROID, 2)):
        await house.add_phone(token, kind)
    listed: dict[str, Any] = {
        "apple_devices": [dead_iphone, IPHONE],
        "android_devices": [dead_android, ANDROID],
    }
    _, answer = await house.call("push/notify", body=a_message(**listed))
    assert answer["deleted_devices"] == {
        "apple_devices": [dead_iphone],
        "android_devices": [dead_android],
    }
    _, answer = await house.call("push/notify", body=a_message(**listed))
    assert (answer["total_apple_devices"], answer["total_android_devices"]) == (1, 1)
    seen = Counter(received.token for received in house.apns.ledger.received)
    assert seen == {dead_iphone: 1, IPHONE: 2}


@pytest_twisted.ensureDeferred
async def test_two_thousand_pushes_through_goaways_and_refusals(rent: Rent) -> None:
    """Graceful and abrupt GOAWAY, refused streams: each accepted push has exactly one end."""
    house = rent()
    house.apns.on(Match(nth=150), goaway("Shutdown"), count=3)
    house.apns.on(Match(nth=90), goaway("Shutdown", last_stream=101), Close(), count=2)
    house.apns.on(Match(probability=0.05), Reset(7), count=100)
    await house.start()
    await house.enrol()
    phones = 40
    for number in range(phones):
        await house.add_phone(f"{number:064x}", 1)
    calls = 50
    answers: list[tuple[int, dict[str, Any]]] = []
    for _ in range(calls // 10):
        batch = [_call(house) for _ in range(10)]
        answers += await gatherResults(batch)
    assert Counter(status for status, _ in answers) == {200: calls}
    for _ in range(300):
        if await house.metric('bouncerd_pushes_waiting{provider="apns"}') == 0:
            break
        await deferLater(reactor, 0.1)
    ends = {
        end: await house.metric(f'bouncerd_pushes_ended_total{{end="{end}",provider="apns"}}')
        for end in ("delivered", "gone", "refused", "expired", "returned", "unknown", "lost")
    }
    accepted = await house.metric('bouncerd_pushes_accepted_total{provider="apns"}')
    assert accepted == sum(ends.values()) == calls * phones
    assert ends["delivered"] + ends["unknown"] == accepted, ends
    delivered = Counter(received.header(b"apns-id") for received in house.apns.ledger.accepted())
    assert len(delivered) >= ends["delivered"]
    assert house.apns.ledger.rules_broken() == []


def _call(house: House) -> Any:
    return Deferred.fromCoroutine(house.call("push/notify", body=a_message()))
