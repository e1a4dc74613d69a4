"""The journey of an end-to-end encrypted push, whole: a box in, real TLS and HTTP/2 out."""

import base64
import json
import signal
import time
from typing import Any

import pytest_twisted

from tests.house import TOPIC, House
from tests.sealing import (
    CURRENT_KEY,
    FOREIGN_KEY,
    OLD_KEY,
    REALM,
    asking,
    for_apple,
    for_google,
    public,
    registration,
    token_id,
)
from tests.test_journey import ANDROID, IPHONE, Rent

DEAD = "aa410" + "0" * 59
SECRET = base64.b64encode(b"Wherefore art thou" * 3).decode()


async def move_in(house: House) -> None:
    """Start a house with two keys, and a server that has uploaded its realm."""
    keys = [base64.b64encode(bytes(key)).decode() for key in (CURRENT_KEY, OLD_KEY)]
    (house.directory / "e2ee.keys").write_text("\n".join(keys))
    house.ini += "[e2ee]\nprivate_keys = e2ee.keys\n"
    await house.start()
    await house.enrol()
    realm = {
        "id": 2, "uuid": REALM, "uuid_owner_secret": "zuliprealm_x", "host": "chat.example.org",
        "url": "https://chat.example.org", "name": "Example", "org_type": 10,
        "date_created": 1_700_000_000.5, "deactivated": False, "is_system_bot_realm": False,
        "authentication_methods": {"Email": True},
    }  # fmt: skip
    upload = {
        "realm_counts": "[]", "installation_counts": "[]", "realmauditlog_rows": "[]",
        "realms": json.dumps([realm]), "version": '"12.0"', "merge_base": '""',
        "api_feature_level": "468",
    }  # fmt: skip
    status, answer = await house.call("server/analytics", upload)
    assert status == 200, answer


def phone(token: str, **more: Any) -> dict[str, Any]:
    """Return what a phone seals now."""
    kind = "fcm" if token == ANDROID else "apns"
    app = {} if kind == "fcm" else {"ios_app_id": TOPIC}
    return {"token": token, "token_kind": kind, "timestamp": int(time.time()), **app, **more}


@pytest_twisted.ensureDeferred
async def test_a_sealed_message_reaches_both_phones(rent: Rent) -> None:
    """Each phone gets what only it can read, with the headers that its server asked for."""
    house = rent()
    await move_in(house)
    for token, key in ((IPHONE, CURRENT_KEY), (DEAD, CURRENT_KEY), (ANDROID, OLD_KEY)):
        status, answer = await house.call("push/e2ee/register", registration(phone(token), key))
        assert (status, answer) == (200, {"result": "success", "msg": ""})
    status, answer = await house.call(
        "push/e2ee/register", registration(phone(IPHONE), FOREIGN_KEY)
    )
    assert (status, answer["code"]) == (400, "INVALID_BOUNCER_PUBLIC_KEY")
    items = [
        for_apple(IPHONE, encrypted_data=SECRET),
        for_apple(IPHONE, 5, "background", encrypted_data=SECRET),
        for_apple(DEAD, encrypted_data=SECRET),
        for_google(ANDROID, encrypted_data=SECRET),
        for_google("never registered"),
    ]
    status, answer = await house.call("push/e2ee/notify", body=asking(*items))
    assert (status, answer) == (200, {
        "result": "success",
        "msg": "",
        "apple_successfully_sent_count": 2,
        "android_successfully_sent_count": 1,
        "delete_token_ids": [token_id(DEAD), token_id("never registered")],
        "realm_push_status": {"can_push": True, "expected_end_timestamp": None},
    })  # fmt: skip
    apple = sorted(house.apns.ledger.accepted(), key=lambda each: each.headers()["apns-priority"])
    headers = [each.headers() for each in apple]
    sent = [(each["apns-push-type"], each["apns-priority"], each["apns-topic"]) for each in headers]
    assert sent == [("alert", "10", TOPIC), ("background", "5", TOPIC)]
    assert not any("apns-expiration" in each or "apns-collapse-id" in each for each in headers)
    for each in apple:
        assert each.path == f"/3/device/{IPHONE}"
        assert each.json() == {
            "push_key_id": 4022250974,
            "encrypted_data": SECRET,
            "aps": {"mutable-content": 1, "alert": {"title": "New notification"}},
        }
    (google,) = house.fcm.ledger.accepted()
    assert google.json()["message"] == {
        "token": ANDROID,
        "data": {"push_key_id": "20", "encrypted_data": SECRET},
        "android": {"priority": "high"},
    }
    _, answer = await house.call("push/e2ee/notify", body=asking(for_apple(DEAD)))
    assert answer["delete_token_ids"] == [token_id(DEAD)]
    assert len([each for each in house.apns.ledger.received if each.token == DEAD]) == 1
    assert house.apns.ledger.rules_broken() == house.fcm.ledger.rules_broken() == []
    assert await house.stop() == -signal.SIGTERM
    log = house.log()
    assert not any(each in log for each in (SECRET, IPHONE, ANDROID, token_id(IPHONE)))
    assert public(CURRENT_KEY) in log  # what an app must be built with
    for file in house.directory.glob("bouncerd.db*"):
        assert SECRET.encode() not in file.read_bytes()
