"""`systemctl reload` as an operator meets it: a new key under load, mistakes, other changes."""

import base64
import fcntl
import json
import os
import signal
import termios
from collections.abc import Callable
from typing import Any

import pytest_twisted
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.task import deferLater

from bouncerd.fakes import credentials as fakes
from bouncerd.fakes.bearers import Key
from bouncerd.fakes.credentials import TEAM_ID
from bouncerd.fakes.google_tokens import _public_key
from bouncerd.fakes.records import Received
from tests.house import TOPIC, USER, House, a_message, reactor
from tests.traffic import PHONES, Load, delivered, furnished, hears

Rent = Callable[..., House]


def new_key(house: House, key_id: str) -> bytes:
    """Make another key of the team's, known to Apple, and return its .p8."""
    key = ec.generate_private_key(ec.SECP256R1())
    house.apns.bearers.add(Key(key_id, TEAM_ID, key.public_key()))
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def key_of(received: Received) -> str:
    """Return the id of the key that a push was sent with."""
    header = (received.header(b"authorization") or b"").split()[1].split(b".")[0]
    return str(json.loads(base64.urlsafe_b64decode(header + b"=="))["kid"])


def hang_up(house: House) -> None:
    """Do what `systemctl reload` does."""
    assert house.child is not None
    house.child.send_signal(signal.SIGHUP)


@pytest_twisted.ensureDeferred
async def test_a_new_key_under_load(rent: Rent) -> None:
    """A new key is used on new connections only; not one push is lost, none sent twice."""
    house = rent()
    await furnished(house)
    load = Load(house)
    load.start()
    await load.more(100)
    (house.directory / "new.p8").write_bytes(new_key(house, "SECONDKEY1"))
    (house.directory / "new.p8").chmod(0o600)
    old_key, old_file = house.credentials.apns_key.key_id, house.credentials.apns_key_file.name
    house.ini = house.ini.replace(old_file, "new.p8").replace(old_key, "SECONDKEY1")
    assert house.config_file.exists()
    hang_up(house)
    hang_up(house)
    await hears(house, "Lane apns uses new connections")
    await load.more(100)
    await load.stop()
    await delivered(house, load.sent)
    keys: dict[int, set[str]] = {}
    for received in house.apns.ledger.received:
        keys.setdefault(received.connection, set()).add(key_of(received))
    assert all(len(used) == 1 for used in keys.values()), keys
    assert set.union(*keys.values()) == {old_key, "SECONDKEY1"}
    last = max(keys)
    assert keys[last] == {"SECONDKEY1"}
    assert house.apns.ledger.rules_broken() == []
    assert not house.apns.ledger.remarks, house.apns.ledger.remarks
    assert len(house.apns.ledger.accepted()) == load.sent
    for _ in range(100):
        open_ = [visit for visit in house.apns.ledger.visits if visit.closed_at is None]
        if all(keys.get(visit.number, {""}) != {old_key} for visit in open_):
            break
        await deferLater(reactor, 0.05)
    else:
        raise AssertionError("the old connections stay")
    assert "Reloaded: [apns]" in house.log()
    assert house.log().count("Reloaded: ") in (1, 2)


@pytest_twisted.ensureDeferred
async def test_mistakes(rent: Rent) -> None:
    """With a mistake in any file the old configuration goes on, and each mistake is one line."""
    house = rent()
    await furnished(house)
    good, key = house.ini, house.credentials.apns_key_file
    text = key.read_bytes()
    house.ini = good.replace("[fcm]", "[fcn]")
    no_key = b"-----BEGIN PRIVATE KEY-----\nbm8=\n-----END PRIVATE KEY-----\n"
    for count, broken in enumerate((b"", no_key), start=1):
        assert house.config_file.exists()
        key.write_bytes(broken)
        hang_up(house)
        await hears(house, "The old configuration goes on", count)
        status, answer = await house.call("push/notify", body=a_message())
        assert (status, answer["total_apple_devices"]) == (200, PHONES), answer
        house.ini = good
    assert "[fcn]: unknown section" in house.log()
    assert "private key that cannot be read" in house.log()
    key.write_bytes(text)
    hang_up(house)
    await hears(house, "Reloaded: nothing has changed")
    await delivered(house, 2 * PHONES)
    assert {visit.closed_at for visit in house.apns.ledger.visits} == {None}


def shown(house: House) -> set[int]:
    """Return the numbers of the certificates that open connections were opened with."""
    transports: list[Any] = [connection.transport for connection in house.apns.connections]
    return {each.getPeerCertificate().get_serial_number() for each in transports}


@pytest_twisted.ensureDeferred
async def test_a_new_certificate(rent: Rent) -> None:
    """A client certificate is replaced in its file: new connections show the new one."""
    house = rent("certificate")
    await furnished(house)
    first = shown(house)
    load = Load(house)
    load.start(2)
    await load.more(2 * PHONES)
    credentials = house.credentials
    fakes._write_client(credentials.client_file, credentials.authority, TOPIC)
    hang_up(house)
    await hears(house, "Lane apns uses new connections")
    await load.more(2 * PHONES)
    await load.stop()
    await delivered(house, load.sent)
    assert house.apns.ledger.rules_broken() == []
    for _ in range(100):
        if shown(house) and not shown(house) & first:
            return
        await deferLater(reactor, 0.05)
    raise AssertionError("the old connections stay")


@pytest_twisted.ensureDeferred
async def test_the_rest_of_the_file(rent: Rent) -> None:
    """Limits, support and plans hold from the next call on; a new listener needs a restart."""
    house = rent()
    await furnished(house)
    good = house.ini
    house.ini = good.replace("[limits]", "[limits]\ndevices_per_user = 10")
    house.ini = house.ini.replace("[bouncerd]", "[bouncerd]\nsupport = ops@example.org\n")
    house.ini = house.ini.replace(f"tcp:{house.port}", "tcp:1")
    house.ini = house.ini.replace("check_email_domain = no", "check_email_domain = no\nopen = no")
    assert house.config_file.exists()
    hang_up(house)
    await hears(house, "needs a restart: listen")
    form = {"token": "cd" * 32, "token_kind": "1", "ios_app_id": TOPIC, **USER}
    status, answer = await house.call("push/register", form)
    assert status == 400, answer
    assert "limit: 10" in answer["msg"]
    stranger = {
        "zulip_org_id": "b2e0ea5e-3b0f-4d4a-8d6f-1c4f0f2f2b11",
        "zulip_org_key": "z" * 64,
        "hostname": "other.example.org",
        "contact_email": "admin@other.example.org",
    }
    status, answer = await house.call("server/register", stranger, server=None)
    assert status in (400, 403), answer
    assert "ops@example.org" in answer["msg"]


@pytest_twisted.ensureDeferred
async def test_sections_come_and_go(rent: Rent) -> None:
    """A provider's section may be added and taken away while the daemon runs."""
    house = rent()
    await furnished(house)
    good = house.ini
    house.ini = good.replace("[apns]", "[apns:other]")
    assert house.config_file.exists()
    hang_up(house)
    await hears(house, "Lane apns has ended")
    for _ in range(200):
        _, health = await house.health()
        if health["providers"].get("apns:other", {}).get("state") == "up":
            break
        await deferLater(reactor, 0.05)
    assert "apns" not in health["providers"], health
    status, answer = await house.call("push/notify", body=a_message())
    assert (status, answer["total_apple_devices"]) == (200, PHONES), answer
    ended: Any = 'bouncerd_pushes_ended_total{end="delivered",provider="apns:other"}'
    assert await house.metric(ended) == PHONES


@pytest_twisted.ensureDeferred
async def test_an_account_that_google_refuses(rent: Rent) -> None:
    """The old account goes on until the new one has got an access token."""
    house = rent()
    await furnished(house)
    await house.add_phone("android-phone", 2)
    file, old = house.credentials.account_file, house.credentials.account
    new = {**fakes.make_account(), "token_uri": old["token_uri"]}
    file.write_text(json.dumps(new))
    hang_up(house)
    await hears(house, "no new access token from Google: invalid_grant")
    status, answer = await house.call("push/notify", body=a_message())
    assert (status, answer["total_android_devices"]) == (200, 1)
    assert await house.metric('bouncerd_pushes_ended_total{end="delivered",provider="fcm"}') == 1
    house.tokens.account, house.tokens._public = new, _public_key(new["private_key"])
    house.ini = house.ini.replace("[fcm]", "[fcm]\nconnections = 3")
    assert house.config_file.exists()
    hang_up(house)
    await hears(house, "Lane fcm uses new connections")
    await house.call("push/notify", body=a_message())
    assert await house.metric('bouncerd_pushes_ended_total{end="delivered",provider="fcm"}') == 2
    assert house.fcm.ledger.rules_broken() == []


@pytest_twisted.ensureDeferred
async def test_a_terminal_that_is_closed(rent: Rent) -> None:
    """In the foreground of a terminal the daemon goes when the terminal does."""
    house = rent()
    master, slave = os.openpty()
    child = house.launch(
        stdin=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    await hears(house, "Provider apns is up")
    hang_up(house)
    await hears(house, "Reloaded: nothing has changed")
    os.close(master)
    for _ in range(400):
        if child.poll() is not None:
            break
        await deferLater(reactor, 0.05)
    assert child.poll() == 0, house.log()
    assert house.log().count("Reloaded") == 1
