"""Our web pages: what an organization's owner and a server's operator see of a plan."""

import json
from http.cookies import SimpleCookie
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote, urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import bouncerd
from tests.in_memory import (
    FORM,
    KEY,
    NOW,
    ORG_ID,
    USER,
    Answer,
    Daemon,
    TroubledStore,
    form,
    result,
)

REALM = "9aa61d0b-8ce5-488d-8e9e-fedc346e6836"
OTHER_ORG = "64ca9374-34d7-48ef-9606-db19c23866fc"
REALM_ITEM: dict[str, Any] = {
    "id": 2, "host": "chat.example.org", "url": "https://chat.example.org", "name": "A <b>& Co",
    "org_type": 10, "date_created": 1_700_000_000.5, "deactivated": False,
    "is_system_bot_realm": False, "authentication_methods": {"Email": True}, "uuid": REALM,
    "uuid_owner_secret": "zuliprealm_" + "x" * 32,
}  # fmt: skip
OWNER = {"uuid": USER, "email": "owner@example.org", "full_name": "Owner"}
AUDIT_ROW = {
    "id": 1, "realm": 2, "event_time": 1_700_000_001.5, "backfilled": False, "event_type": 101,
    "extra_data": {"10": {"11": {"100": 1, "200": 0, "300": 0, "400": 6, "600": 0}, "12": 2}},
}  # fmt: skip


def bill(daemon: Daemon, **changed: Any) -> Answer:
    """Ask for the owner's link as a Zulip server does."""
    asked = {"user": OWNER, "realm": REALM_ITEM, **changed}
    values = {name: value if name in ("uri_scheme", "next_page") else json.dumps(value)
              for name, value in asked.items() if value is not None}  # fmt: skip
    return daemon.post_form("server/billing", **values)


def upload(daemon: Daemon) -> None:
    """Make the realm known, with seven users."""
    answer = daemon.post_form(
        "server/analytics",
        realm_counts="[]",
        installation_counts="[]",
        realmauditlog_rows=json.dumps([AUDIT_ROW]),
        realms=json.dumps([REALM_ITEM]),
        version='"9.2"',
        api_feature_level="278",
    )
    assert answer.status == 200, answer.body


class BrowserTests(SynchronousTestCase):
    """What a browser sees."""

    def setUp(self) -> None:
        self.daemon = Daemon(free_users=10, support="push@example.org")
        self.daemon.enrol()
        upload(self.daemon)
        self.cookie = ""

    def get(self, path: str, **headers: str) -> Answer:
        return self.daemon.send("GET", path, headers={"Cookie": self.cookie, **headers})

    def follow(self, answer: Answer) -> Answer:
        """Go where a page sends the browser, with what it was given."""
        self.assertEqual(answer.status, 303)
        cookie = SimpleCookie(answer.headers["Set-Cookie"])
        self.cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in cookie.items())
        return self.get(answer.headers["Location"] or "")

    def link(self) -> str:
        url = urlsplit(bill(self.daemon).json["billing_access_url"])
        self.assertEqual((url.scheme, url.netloc), ("https", "push.example.org"))
        self.assertTrue(url.path.startswith("/remote-billing-login/"))
        path: str = url.path
        return path

    def log_in(self, org_id: str = ORG_ID, key: str = KEY, **headers: str) -> Answer:
        body = form({"zulip_org_id": org_id, "zulip_org_key": key})
        return self.daemon.send("POST", "/serverlogin/", body, {**FORM, **headers})

    def test_an_owner(self) -> None:
        """The owner of an organization sees its plan, its limit and count, and whom to ask."""
        page = self.follow(self.get(self.link()))
        self.assertEqual(page.status, 200)
        text = page.body.decode()
        for expected in (
            "A &lt;b&gt;&amp; Co",
            "chat.example.org",
            ">7<",
            "up to 10 users",
            "push@example.org",
            "https://example.org/terms",
            ">none<",
            "on (",
        ):
            self.assertIn(expected, text)  # fmt: skip
        self.assertNotIn("<b>", text)
        self.assertNotIn("owner@example.org", text)

    def test_a_plan(self) -> None:
        """What the operator set is there at the next look."""
        path = self.link()
        self.assertTrue(result(self.daemon.store.set_plan(REALM, 104, NOW + 86_400, NOW)))
        text = self.follow(self.get(path)).body.decode()
        self.assertIn(">business<", text)
        self.assertIn(">2027-01-16<", text)

    def test_headers(self) -> None:
        """Pages run no script, load nothing, and are neither framed, cached nor found."""
        for path in ("/serverlogin/", "/plan/", "/remote-billing-login/x"):
            answer = self.get(path)
            policy = answer.headers["Content-Security-Policy"] or ""
            self.assertTrue(policy.startswith("default-src 'none'; style-src 'sha256-"), policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertEqual(answer.headers["Cache-Control"], "no-store")
            self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(answer.headers["Referrer-Policy"], "no-referrer")
            self.assertEqual(answer.headers["Content-Type"], "text/html; charset=utf-8")
            for outside in ("<script", " src=", "<link", "@import", "url("):
                self.assertNotIn(outside, answer.body.decode())

    def test_cookie(self) -> None:
        """The cookie is for our page alone, out of reach of scripts and other sites."""
        said = self.get(self.link()).headers["Set-Cookie"] or ""
        for attribute in ("HttpOnly", "SameSite=Lax", "Secure", "Path=/plan/", "Max-Age=7200"):
            self.assertIn(f"; {attribute}", said)
        self.assertNotIn("owner", said)

    def test_nothing_changes_by_looking(self) -> None:
        """Whoever opens a link first does not use it up, nor change anything."""
        path = self.link()
        first = self.follow(self.get(path)).body
        self.assertEqual(self.daemon.send("HEAD", path).status, 303)
        self.assertEqual(self.follow(self.get(path)).body, first)

    def test_time(self) -> None:
        """A link, and what it was exchanged for, end after two hours."""
        path = self.link()
        page = self.follow(self.get(path))
        self.daemon.clock.advance(7201)
        self.assertEqual(self.get(path).status, 403)
        self.assertEqual(self.get("/plan/").status, 403)
        self.assertEqual(page.status, 200)

    @settings(max_examples=60)
    @given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=90))
    def test_forged(self, junk: str) -> None:
        """What we did not seal opens nothing."""
        path = "/remote-billing-login/" + quote(junk)
        self.assertIn(self.daemon.send("GET", path).status, (403, 404))
        self.assertEqual(self.get("/plan/", Cookie=f"bouncerd-plan={junk}").status, 403)

    def test_a_link_is_no_cookie(self) -> None:
        """What stands in a link, and in a browser's history, cannot be used as a cookie."""
        token = self.link().rpartition("/")[2]
        self.assertEqual(self.get("/plan/", Cookie=f"bouncerd-plan={token}").status, 403)

    def test_what_is_gone(self) -> None:
        """A cookie shows nothing of a server or an organization that is not here any more."""
        self.assertEqual(self.follow(self.log_in()).status, 200)
        result(self.daemon.store.deactivate_server(ORG_ID, NOW))
        self.assertEqual(self.get("/plan/").status, 403)

    def test_a_server(self) -> None:
        """The operator of a server logs in with its id and key, and sees the server's plan."""
        page = self.get("/serverlogin/")
        self.assertIn('action="/serverlogin/"', page.body.decode())
        self.assertEqual(self.get("/serverlogin").body, page.body)
        text = self.follow(self.log_in()).body.decode()
        self.assertIn("chat.example.org", text)
        self.assertIn(">7<", text)
        self.assertNotIn(KEY, text)

    def test_wrong_credentials(self) -> None:
        """An unknown id and a wrong key look the same, and neither is repeated."""
        answers = [
            self.log_in(key="x" * 64), self.log_in(OTHER_ORG), self.log_in("<b>"),
            self.log_in("", ""), self.log_in("a@b"), self.log_in("\0", "\0"),
        ]  # fmt: skip
        self.assertEqual({answer.status for answer in answers}, {403})
        self.assertEqual(len({answer.body for answer in answers}), 1)
        self.assertIsNone(answers[0].headers["Set-Cookie"])

    def test_query(self) -> None:
        """A key in a query string, which proxies log, is not taken."""
        query = form({"zulip_org_id": ORG_ID, "zulip_org_key": KEY}).decode()
        self.assertEqual(self.daemon.send("POST", f"/serverlogin/?{query}", b"", FORM).status, 403)

    def test_other_sites(self) -> None:
        """Another site cannot log a browser in."""
        sent = self.log_in(**{"Sec-Fetch-Site": "cross-site"})
        self.assertEqual((sent.status, sent.headers["Set-Cookie"]), (403, None))
        self.assertEqual(self.log_in(**{"Sec-Fetch-Site": "same-origin"}).status, 303)

    def test_malformed_form(self) -> None:
        """A form that is none is refused with a page."""
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = self.daemon.send("POST", "/serverlogin/", b"junk", headers)
        self.assertEqual(answer.status, 400)
        self.assertIn(b"Malformed multipart body", answer.body)

    def test_many_tries(self) -> None:
        """Who tries many keys has to wait, from one place as well as for one id."""
        for number in range(10):
            self.assertEqual(self.log_in(f"{number}").status, 403)
        refused = self.log_in()
        self.assertEqual((refused.status, refused.headers["Retry-After"]), (429, "600"))
        self.daemon.clock.advance(601)
        self.assertEqual(self.log_in().status, 303)

    def test_many_places(self) -> None:
        """Tries for one id count together, from wherever; a trusted proxy says from where."""
        self.daemon = Daemon(trusted=[ip_network("192.168.0.0/16")])
        self.daemon.enrol()
        for number in range(50):
            answer = self.log_in(ORG_ID.upper(), "x", **{"X-Forwarded-For": f"203.0.113.{number}"})
            self.assertEqual(answer.status, 403)
        self.assertEqual(self.log_in(**{"X-Forwarded-For": "203.0.113.99"}).status, 429)
        fine = self.log_in("another", **{"X-Forwarded-For": "203.0.113.99"})
        self.assertEqual(fine.status, 403)

    def test_methods(self) -> None:
        """Other methods are refused as everywhere."""
        for path, allowed in [
            ("/plan/", "GET"),
            ("/serverlogin/", "GET, POST"),
            ("/version", "GET"),
        ]:
            answer = self.daemon.send("PUT", path)
            self.assertEqual((answer.status, answer.headers["Allow"]), (405, allowed))
            self.assertEqual(answer.json["msg"], "Method Not Allowed")

    def test_trouble(self) -> None:
        """With the database gone there is a page that says so, and a status that is true."""
        daemon = Daemon(store=TroubledStore)
        daemon.enrol()
        assert isinstance(daemon.store, TroubledStore)
        self.daemon, daemon.store.down = daemon, True
        answer = self.log_in()
        self.assertEqual(answer.status, 503)
        self.assertIn(b"Try again later", answer.body)

    def test_below_a_path(self) -> None:
        """Behind a proxy that gives us a path of its own, links and forms have it."""
        self.daemon = Daemon(public_url="https://example.org/push", free_users=10)
        self.daemon.enrol()
        self.assertIn(b'action="/push/serverlogin/"', self.get("/serverlogin/").body)
        sent = self.log_in()
        self.assertEqual(sent.headers["Location"], "/push/plan/")
        self.assertIn("Path=/push/plan/;", sent.headers["Set-Cookie"] or "")


class BillingTests(SynchronousTestCase):
    """`server/billing`, as a Zulip server sees it."""

    def setUp(self) -> None:
        self.daemon = Daemon(support="push@example.org")
        self.daemon.enrol()
        upload(self.daemon)

    def test_unknown_realm(self) -> None:
        """A realm that was never uploaded has a code of its own: servers upload, and ask again."""
        realm = {**REALM_ITEM, "uuid": "cb7bcdd3-4775-447c-a99d-db08f76f5369"}
        answer = bill(self.daemon, realm=realm)
        self.assertEqual((answer.status, answer.json["code"]), (403, "MISSING_REMOTE_REALM"))
        self.assertEqual(answer.json["msg"], "Organization not registered")

    def test_no_public_url(self) -> None:
        """Without `public_url` nobody is sent anywhere: the answer says whom to ask."""
        self.daemon = Daemon(public_url="", support="push@example.org")
        self.daemon.enrol()
        upload(self.daemon)
        answer = bill(self.daemon)
        self.assertEqual((answer.status, answer.json["code"]), (400, "BAD_REQUEST"))
        self.assertIn("push@example.org", answer.json["msg"])

    def test_host(self) -> None:
        """A link never leads where a Host header says."""
        values = {"user": json.dumps(OWNER), "realm": json.dumps(REALM_ITEM)}
        answer = self.daemon.post_form("server/billing", {"Host": "evil.example"}, **values)
        self.assertTrue(
            answer.json["billing_access_url"].startswith("https://push.example.org/remote-billing")
        )

    def test_bad_input(self) -> None:
        """What is wrong is named by its path."""
        an_object = "Input should be a valid dictionary or instance of"
        cases: list[tuple[dict[str, Any], str]] = [
            ({"user": None}, "Missing 'user' argument"),
            ({"user": []}, f"Invalid user: {an_object} UserDataForRemoteBilling"),
            ({"user": {**OWNER, "uuid": "x"}}, 'user["uuid"] has invalid format'),
            ({"user": {**OWNER, "email": 5}}, 'user["email"] is not a string'),
            ({"user": {"uuid": USER, "email": "x"}},
             'user["full_name"] field is missing: Field required'),
            ({"realm": {**REALM_ITEM, "x": 1}}, 'Argument "x" at realm["x"] is unexpected'),
            ({"uri_scheme": "ftp://"}, "Invalid uri_scheme"),
            ({"next_page": ""}, "Invalid next_page"),
        ]  # fmt: skip
        for changed, msg in cases:
            answer = bill(self.daemon, **changed)
            self.assertEqual((answer.status, answer.json["msg"]), (400, msg))


class VersionTests(SynchronousTestCase):
    """`/version`."""

    def test_version(self) -> None:
        """Anybody may ask what this is, and of which version."""
        answer = Daemon().send("GET", "/version")
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        self.assertEqual(answer.json["name"], "bouncerd")
        self.assertEqual(answer.json["version"], bouncerd.__version__)
        self.assertIn("source", answer.json)
