"""Calls that are wrong, each in its own way, and each with a word of its own in it.

The comment beside one names the class of exception that it is likeliest to raise in a daemon.
"""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

from bouncerd.fakes.privacy.tenants import API, Tenant

_FORM = "application/x-www-form-urlencoded"
_NOTIFY, _TEST = "push/notify", "push/test_notification"
_SEALED = "push/e2ee/notify"


def content(word: str) -> dict[str, Any]:
    """Return a message as real servers send it, with a word wherever something could be told."""
    return {
        "event": "message", "server": word, "realm_id": 2, "realm_name": word, "realm_url": word,
        "user_id": 17, "sender_id": 4, "sender_email": word, "sender_full_name": word,
        "sender_avatar_url": word, "recipient_type": "stream", "stream": word, "topic": word,
        "content": word, word: word, "zulip_message_id": 7, "time": 1_795_338_928,
    }  # fmt: skip


def notification(tenant: Tenant, word: str, **changes: Any) -> dict[str, Any]:
    """Return the body of a legacy push to all phones of the user."""
    said = content(word)
    return {
        **tenant.user,
        "realm_uuid": None,
        "gcm_payload": said,
        "gcm_options": {"priority": "high"},
        "apns_payload": {
            "alert": {"title": word, "subtitle": word, "body": word},
            "custom": {"zulip": {**said, "message_ids": [7]}},
        },
        "android_devices": [],
        "apple_devices": [],
        **changes,
    }


def mistakes(tenant: Tenant) -> Iterator[tuple[str, bytes]]:
    """Yield what is wrong with a call, and the call."""
    for name, path, body in _bodies(tenant):
        yield name, tenant.spell("POST", API + path, body)
    for name, path, members in _forms(tenant):
        yield name, tenant.spell("POST", API + path, urlencode(members).encode(), _FORM)
    yield from _heads(tenant)
    yield from _streams(tenant)


def _bodies(tenant: Tenant) -> Iterator[tuple[str, str, bytes]]:
    """Yield bodies that are not JSON, or not the JSON that is asked for."""

    def word(name: str) -> str:
        return tenant.fresh(f"content of a malformed call ({name})")

    def said(name: str, **changes: Any) -> tuple[str, str, bytes]:
        return name, _NOTIFY, json.dumps(notification(tenant, word(name), **changes)).encode()

    whole = json.dumps(notification(tenant, word("cut off"))).encode()
    yield "cut off", _NOTIFY, whole[:-2]  # JSONDecodeError
    whole = json.dumps(notification(tenant, word("not UTF-8"))).encode()
    yield "not UTF-8", _NOTIFY, whole[:-1] + b'"\xff\xfe"}'  # UnicodeDecodeError
    whole = json.dumps(notification(tenant, word("NaN"))).encode()
    yield "NaN", _NOTIFY, whole.replace(b'"user_id": 17,', b'"user_id": NaN,', 1)  # ValueError
    deep = b"[" * 50_000 + word("nested without end").encode()
    yield "nested without end", _NOTIFY, b'{"gcm_payload": ' + deep  # RecursionError
    half = f'{{"gcm_payload": {{"content": "{word("half a surrogate pair")} \\ud800"}}}}'
    yield "half a surrogate pair", _NOTIFY, half.encode()  # UnicodeEncodeError
    digits = b'{"user_id": 1' + b"0" * 9000 + b', "x": "' + word("a huge number").encode() + b'"}'
    yield "a huge number", _NOTIFY, digits  # ValueError of int()
    yield "a list", _NOTIFY, json.dumps([notification(tenant, word("a list"))]).encode()
    yield "a text", _NOTIFY, json.dumps(word("a text")).encode()
    yield said("a number that is text", user_id=tenant.fresh("a user's id"))  # TypeError
    yield said("no user", user_id=None, user_uuid=None)
    yield said("a UUID that is none", user_uuid=tenant.fresh("a user's UUID"))  # ValueError
    yield said("a realm that is none", realm_uuid=tenant.fresh("a realm's UUID"))
    yield said("a payload that is a list", gcm_payload=[tenant.fresh("content in a list")])
    yield said("a payload that is text", apns_payload=tenant.fresh("content that is a text"))
    bare = tenant.fresh("content in the wrong place")
    yield said("custom that is text", apns_payload={"custom": bare})  # AttributeError
    yield said("zulip that is text", apns_payload={"custom": {"zulip": bare}})
    yield said("a time that is text", gcm_payload={"time": bare})  # TypeError
    removal = {"event": "remove", "zulip_message_ids": bare}
    yield said("ids that are text", gcm_payload=removal)  # ValueError of int()
    yield said("ids of another kind", gcm_payload={**removal, "zulip_message_ids": [bare]})
    yield said("ancient, without an alert", apns_payload={"message_ids": bare})  # KeyError
    yield said("an unknown option", gcm_options={bare: bare})
    yield said("an unknown priority", gcm_options={"priority": bare})
    yield said("devices that are text", apple_devices=bare, android_devices=bare)
    yield said("devices of another kind", apple_devices=[[bare]])
    yield said("a NUL", gcm_payload={"content": bare + "\0"})
    yield said("a number beyond 64 bits", user_id=10**30)  # OverflowError
    for name, change in _tests(tenant):
        said_of = {"user_id": 17, "token": word(name), "token_kind": 1}
        body = {**said_of, "base_payload": content(word(name)), **change}
        yield name, _TEST, json.dumps(body).encode()
    for name, requests in _sealed(word):
        body = {"realm_uuid": tenant.realm_uuid, "push_requests": requests}
        yield name, _SEALED, json.dumps(body).encode()


def _tests(tenant: Tenant) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "a test for an unknown phone", {}
    yield "a test of no kind", {"token_kind": tenant.fresh("a kind")}
    yield "a test without a realm", {"base_payload": {"x": tenant.fresh("content of a test")}}
    yield "a test with a list", {"base_payload": [tenant.fresh("content of a test")]}


def _sealed(word: Callable[[str], str]) -> Iterator[tuple[str, Any]]:
    yield "a sealed push that is text", word("a sealed push that is text")
    headers = {"apns_priority": 10, "apns_push_type": "alert"}
    for name, change in (
        ("a sealed push without an address", {}),
        ("a sealed push to an odd address", {"token_id": word("a sealed address")}),
        ("a sealed push without headers", {"token_id": "AAAAAAAAAAA=", "http_headers": None}),
        ("a sealed push that is a list", {"token_id": "AAAAAAAAAAA=", "payload": []}),
    ):
        secret = word(name)
        payload = {"push_key_id": secret, "encrypted_data": secret}
        yield name, [{"http_headers": headers, "payload": payload, **change}]
    secret = word("a sealed push of an odd type")
    odd = {"apns_priority": secret, "apns_push_type": secret}
    yield "a sealed push of an odd type", [{"token_id": secret, "http_headers": odd, "payload": {}}]


def _forms(tenant: Tenant) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield forms with something wrong in them: tokens, keys, boxes, uploads."""
    user = tenant.user

    def word(name: str) -> str:
        return tenant.fresh(f"a malformed form ({name})")

    for path in ("push/register", "push/unregister"):
        yield f"{path}: base64", path, {**user, "token": word("a token"), "token_kind": 1}
        yield f"{path}: kind", path, {**user, "token": word("a token"), "token_kind": word("kind")}
        bad = {"user_id": word("a user"), "token": word("a token"), "token_kind": 2}
        yield f"{path}: user", path, bad
    app = {"token": "ab" * 32, "token_kind": 1, "ios_app_id": word("an app") + "\r\n"}
    yield "push/register: app", "push/register", {**user, **app}
    box = {"realm_uuid": tenant.realm_uuid, "token_id": word("a token id")}
    closed = {"encrypted_push_registration": word("a box"), "bouncer_public_key": word("a key")}
    yield "push/e2ee/register: box", "push/e2ee/register", {**box, **closed}
    for key, value in (
        ("realm_counts", json.dumps([{"property": word("an upload"), "id": "x"}])),
        ("installation_counts", word("an upload")),
        ("realms", json.dumps([{"id": 1, "host": word("an upload"), "name": word("an upload")}])),
        ("realmauditlog_rows", json.dumps([{"extra_data": word("an upload")}])),
    ):
        counts = {"realm_counts": "[]", "installation_counts": "[]", key: value}
        yield f"server/analytics: {key}", "server/analytics", counts
    claim = {"hostname": word("a host") + ".example.org", "access_token": word("a claim")}
    yield "verify_challenge", "server/register/verify_challenge", claim
    yield "transfer", "server/register/transfer", {"hostname": word("a host") + "_.example.org"}
    server = {"zulip_org_id": word("an org id"), "zulip_org_key": word("an org key")}
    contact = {"hostname": word("a host"), "contact_email": word("an address")}
    yield "server/register: id", "server/register", {**server, **contact}
    server["zulip_org_id"] = tenant.org_id
    yield "server/register: key", "server/register", {**server, **contact}
    yield "server/billing", "server/billing", {"uri_scheme": word("x"), "user": word("a user")}


def _heads(tenant: Tenant) -> Iterator[tuple[str, bytes]]:
    """Yield requests whose head is odd."""

    def word(name: str) -> str:
        return tenant.fresh(f"a malformed head ({name})")

    body = b"{}"
    for name, value in (
        ("no base64", "Basic " + word("authorization")),
        ("another scheme", "Bearer " + word("authorization")),
        ("no colon", "Basic " + base64.b64encode(word("authorization").encode()).decode()),
        ("a wrong key", _basic(tenant.org_id, word("a key"))),
        ("an unknown id", _basic(word("an id"), word("a key"))),
        ("an address for an id", _basic(word("an address") + "@example.org", "x")),
    ):
        headers = {"Authorization": value}
        yield name, tenant.spell("POST", API + _NOTIFY, body, headers=headers)
    latin = "Basic " + base64.b64encode(b"\xff" + word("authorization").encode()).decode()
    yield "no text", tenant.spell("POST", API + _NOTIFY, body, headers={"Authorization": latin})
    yield "an unknown path", tenant.spell("POST", API + word("a path"), body)
    yield "an unknown page", tenant.spell("GET", "/" + word("a path"))
    yield "a query", tenant.spell("POST", f"{API}{_NOTIFY}?{word('a query')}=1", body)
    yield "a method", tenant.spell(word("a method").upper(), API + _NOTIFY, body)
    yield "odd escapes", tenant.spell("POST", f"{API}%ff%zz{word('a path')}", body)
    names = ("User-Agent", "X-Forwarded-For", "Referer", "Host", "Cookie", "X-Request-Id")
    headers = {name: word(name) for name in names}
    yield "headers", tenant.spell("POST", API + _NOTIFY, body, headers=headers)
    page = urlencode({"zulip_org_id": tenant.org_id, "zulip_org_key": word("a page's key")})
    yield "a page's form", tenant.spell("POST", "/serverlogin/", page.encode(), _FORM)
    page = urlencode({"server_org_id": word("a page's id"), "server_org_secret": word("a key")})
    yield "a page's other form", tenant.spell("POST", "/serverlogin/", page.encode(), _FORM)


def _streams(tenant: Tenant) -> Iterator[tuple[str, bytes]]:
    """Yield bytes that are no request, or not a whole one."""

    def word(name: str) -> bytes:
        return tenant.fresh(f"bytes that are no request ({name})").encode()

    start = f"POST {API}{_NOTIFY} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
    yield "no HTTP", word("no HTTP") + b"\r\n\r\n"
    yield "a long line", b"GET /" + word("a long line") * 2000 + b" HTTP/1.1\r\n\r\n"
    yield "a header without a colon", start + word("no colon") + b"\r\n\r\n"
    yield "a length that is none", start + b"Content-Length: " + word("a length") + b"\r\n\r\n"
    yield "two lengths", start + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n" + word("two")
    yield "odd chunks", start + b"Transfer-Encoding: chunked\r\n\r\n" + word("chunks") + b"\r\n"
    yield "too long", start + b"Content-Length: 99999999999\r\n\r\n" + word("too long")
    multipart = b"Content-Type: multipart/form-data; boundary=x\r\n"
    part = b"--x\r\nContent-Disposition: form-data; name=" + word("a part") + b"\r\n\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(part)
    yield "half a part", start + multipart + length + part
    kind = b"Content-Type: text/plain; charset=" + word("a charset") + b"\r\n"
    yield "a charset", start + kind + b"Content-Length: 2\r\n\r\n{}"


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
