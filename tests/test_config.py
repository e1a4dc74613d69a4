"""The configuration file: its defaults, its checks, and what is never in a message."""

import base64
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.config import Config, ConfigError, read
from bouncerd.credentials import is_legacy_fcm_key
from bouncerd.settings import DEFAULTS, Proxy

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SAMPLE = Path(__file__).parent.parent / "etc" / "bouncer.ini"
PRODUCTION_MARK = x509.ObjectIdentifier("1.2.840.113635.100.6.3.2")
SANDBOX_MARK = x509.ObjectIdentifier("1.2.840.113635.100.6.3.1")
CANARY = "swordfish"
LEGACY_KEY = "AAAAabcdefg:" + "APA91b" + "x" * 134

TOKEN_SECTION = """
[apns]
topics = org.example.app
key_file = AuthKey.p8
key_id = ABC123DEFG
team_id = DEF123GHIJ
"""
CERTIFICATE_SECTION = """
[apns]
topics = org.example.app
cert_file = push.pem
"""
FCM_SECTION = """
[fcm]
credentials = fcm.json
"""


@cache
def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def another_p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def rsa_2048() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pem(key: PrivateKeyTypes, password: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def certificate(
    key: ec.EllipticCurvePrivateKey | None = None,
    since: timedelta = timedelta(days=-10),
    until: timedelta = timedelta(days=300),
    *marks: x509.ObjectIdentifier,
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "push")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key((key or p256()).public_key())
        .serial_number(7)
        .not_valid_before(NOW + since)
        .not_valid_after(NOW + until)
    )
    for mark in marks:
        builder = builder.add_extension(x509.UnrecognizedExtension(mark, b"\x05\x00"), False)
    signed = builder.sign(another_p256(), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def account(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "type": "service_account",
        "project_id": "example-project",
        "private_key_id": "0123456789abcdef",
        "private_key": pem(rsa_2048()).decode(),
        "client_email": "push@example-project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    } | changes
    return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()


class ReadingCase(SynchronousTestCase):
    """A directory with good key material, and a configuration file written into it."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.put("AuthKey.p8", pem(p256()))
        self.put("push.pem", certificate() + pem(p256()))
        self.put("fcm.json", account())
        self.put("ca.pem", certificate())

    def put(self, name: str, content: bytes, mode: int = 0o600) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def read(
        self,
        text: str | bytes,
        instance: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> Config:
        path = self.put("bouncer.ini", text if isinstance(text, bytes) else text.encode())
        return read(path, instance, environ or {}, now=NOW.timestamp())

    def problems(self, text: str | bytes, instance: str = "") -> list[str]:
        """Return what is wrong with a file, without the file's name in front."""
        error = self.assertRaises(ConfigError, self.read, text, instance)
        prefix = f"{self.directory}/bouncer.ini: "
        for problem in error.problems:
            self.assertTrue(problem.startswith(prefix), problem)
            self.assertEqual(problem.splitlines(), [problem], "a problem is one line")
        return [problem.removeprefix(prefix) for problem in error.problems]

    def assert_problem(self, text: str | bytes, *parts: str) -> None:
        """Assert that a file has exactly one problem, and that its line has these parts."""
        problems = self.problems(text)
        self.assertEqual(len(problems), 1, problems)
        for part in parts:
            self.assertIn(part.replace("DIR", str(self.directory)), problems[0])


class DefaultsTests(ReadingCase):
    """What holds where the file says nothing."""

    def test_least_file(self) -> None:
        """A file with an empty [bouncerd] is enough, and has the documented defaults."""
        config = self.read("[bouncerd]\n")
        daemon, limits = config.bouncerd, config.limits
        self.assertEqual(daemon.listen, ("tcp:9090:interface=127.0.0.1",))
        self.assertEqual(daemon.admin_listen, ("tcp:9091:interface=127.0.0.1",))
        self.assertEqual(daemon.store, "sqlite:/var/lib/bouncerd/bouncerd.db")
        self.assertEqual((daemon.public_url, daemon.terms_url, daemon.support), ("", "", ""))
        self.assertEqual((daemon.answer_within, daemon.keep_for), (12.0, 3600.0))
        self.assertEqual(daemon.trusted_proxies, ())
        self.assertEqual((limits.requests_per_minute, limits.registrations_per_hour), (1000, 60))
        self.assertEqual((limits.queue, limits.devices_per_user), (20000, 200))
        self.assertEqual(config.registration.open, True)
        self.assertEqual(config.registration.check_email_domain, True)
        self.assertEqual(config.registration.old_key_grace, 600.0)
        self.assertEqual(config.entitlement.free_users, 10)
        self.assertEqual((config.apns, config.fcm, config.e2ee.private_keys), ((), (), ()))
        self.assertEqual(config.warnings, ())

    def test_empty_values(self) -> None:
        """A key that is there but empty has its default, as if it were left out."""
        keys = [key for key in DEFAULTS["bouncerd"] if "listen" not in key]
        emptied = "[bouncerd]\n" + "".join(f"{key} =\n" for key in keys)
        emptied += "[limits]\n" + "".join(f"{key} =\n" for key in DEFAULTS["limits"])
        emptied += "[registration]\nopen =\nold_key_grace =\n[entitlement]\nfree_users =\n"
        least = self.read("[bouncerd]\n")
        config = self.read(emptied)
        self.assertEqual(config, least)

    def test_no_admin_listener(self) -> None:
        """An empty admin_listen switches that listener off; an empty listen is a mistake."""
        self.assertEqual(self.read("[bouncerd]\nadmin_listen =\n").bouncerd.admin_listen, ())
        self.assert_problem("[bouncerd]\nlisten =\n", "[bouncerd] listen: found nothing")

    def test_provider_defaults(self) -> None:
        """Providers are the real ones, with two connections, unless the file says otherwise."""
        config = self.read("[bouncerd]\n" + TOKEN_SECTION + FCM_SECTION)
        (apns,), (fcm,) = config.apns, config.fcm
        self.assertEqual((apns.host, apns.port), ("api.push.apple.com", 443))
        self.assertEqual((apns.environment, apns.connections), ("production", 2))
        self.assertEqual((fcm.host, fcm.port), ("fcm.googleapis.com", 443))
        self.assertEqual((fcm.connections, fcm.servers), (2, frozenset()))
        self.assertEqual((apns.ca_pem, fcm.ca_pem), (None, None))

    def test_sandbox(self) -> None:
        """The environment chooses Apple's host; a url overrides it."""
        text = "[bouncerd]\n" + TOKEN_SECTION + "environment = sandbox\n"
        self.assertEqual(self.read(text).apns[0].host, "api.sandbox.push.apple.com")
        apns = self.read(text + "url = https://localhost:2197\n").apns[0]
        self.assertEqual((apns.host, apns.port), ("localhost", 2197))


class SampleTests(ReadingCase):
    """etc/bouncer.ini, which an operator starts from."""

    def sample(self) -> str:
        return SAMPLE.read_text(encoding="utf-8")

    def test_every_key_with_its_default(self) -> None:
        """The sample has every key; each value is the default, but where there can be none."""
        examples = {
            ("apns", "topics"): "org.example.app",
            ("apns", "key_file"): "AuthKey.p8",
            ("apns", "key_id"): "ABC123DEFG",
            ("apns", "team_id"): "DEF123GHIJ",
            ("fcm", "credentials"): "fcm.json",
        }
        values: dict[tuple[str, str], str] = {}
        section = ""
        for line in self.sample().splitlines():
            if line.startswith("["):
                section = line.partition("]")[0][1:]
            elif " =" in line and not line.startswith((";", " ")):
                key, _, value = line.partition(" =")
                values[section, key] = value.partition(" ;")[0].strip()
                self.assertGreater(len(line.partition(";")[2].split()), 2, line)
        expected = {(name, key): v for name, keys in DEFAULTS.items() for key, v in keys.items()}
        self.assertEqual(values, expected | examples)

    def test_sample_is_read(self) -> None:
        """With the files it names beside it, the sample is a configuration that works."""
        config = self.read(self.sample())
        self.assertEqual(config.bouncerd, self.read("[bouncerd]\n").bouncerd)
        self.assertEqual(config.limits, self.read("[bouncerd]\n").limits)
        self.assertEqual(config.registration, self.read("[bouncerd]\n").registration)
        self.assertEqual(config.entitlement, self.read("[bouncerd]\n").entitlement)
        self.assertEqual(config.apns[0].topics, frozenset({"org.example.app"}))
        self.assertEqual(config.fcm[0].account.project_id, "example-project")
        self.assertEqual(config.warnings, ())

    def test_documented_sample(self) -> None:
        """A file as the documentation shows it, comments after its values and all, is read."""
        self.put("e2ee.keys", base64.b64encode(bytes(32)) + b"\n")
        config = self.read(
            "[bouncerd]\n"
            "listen = tcp:0:interface=127.0.0.1       ; tcp:, ssl:, unix:, systemd:\n"
            "store = sqlite:/tmp/some where/x.db ; or postgresql://user@host/db\n"
            "answer_within = 12                          ; seconds\n"
            "trusted_proxies =                           ; addresses\n"
            "[registration]\n"
            "check_email_domain = no  ; no for closed networks\n"
            "[entitlement]\n"
            "free_users = unlimited\n"
            "[apns]                                      ; or several [apns:NAME]\n"
            "topics = org.example.app\n"
            "key_file = AuthKey.p8                       ; token authentication: these three\n"
            "key_id = ABC123DEFG\n"
            "team_id = DEF123GHIJ\n"
            "cert_file =                                 ; certificate authentication\n"
            "url = https://127.0.0.1:2197\n"
            "ca_file = ca.pem                            ; extra trust root\n"
            "[e2ee]\n"
            "private_keys = e2ee.keys\n"
        )
        self.assertEqual(config.bouncerd.store, "sqlite:/tmp/some where/x.db")
        self.assertEqual(config.bouncerd.listen, ("tcp:0:interface=127.0.0.1",))
        self.assertEqual(config.entitlement.free_users, None)
        self.assertEqual(config.registration.check_email_domain, False)
        self.assertEqual(config.apns[0].host, "127.0.0.1")
        self.assertEqual(config.e2ee.private_keys, (bytes(32),))


class SyntaxTests(ReadingCase):
    """What is not INI, and what is in it too often."""

    def test_missing_file(self) -> None:
        """A file that is not there, a directory or one without permission is named."""
        for path, reason in ((self.directory / "no.ini", "No such"), (self.directory, "Is a dir")):
            error = self.assertRaises(ConfigError, read, path, now=NOW.timestamp())
            self.assertEqual(len(error.problems), 1)
            self.assertIn(f"{path}: cannot be read ({reason}", error.problems[0])

    def test_empty_file(self) -> None:
        """A file without [bouncerd] is probably the wrong one."""
        for text in ("", "# nothing\n", "[limits]\nqueue = 5\n"):
            self.assert_problem(text, "[bouncerd]: is not there")

    def test_not_utf8(self) -> None:
        """The line that is not UTF-8 is named; a byte order mark is no mistake."""
        self.assert_problem(b"[bouncerd]\nsupport = caf\xe9\n", "line 2: not UTF-8")
        self.assertEqual(self.read(b"\xef\xbb\xbf[bouncerd]\n").bouncerd.support, "")

    def test_no_section(self) -> None:
        """A key before the first section is told with its line, and the rest is still read."""
        problems = self.problems("listen = tcp:1\nstore = x\n[bouncerd]\nkeep_for = x\n")
        self.assertEqual(len(problems), 2, problems)
        self.assertIn("line 1: stands before the first section", problems[0])
        self.assertIn("keep_for", problems[1])

    def test_lines_that_are_nothing(self) -> None:
        """Lines that are neither section nor key are told by number, never quoted."""
        problems = self.problems(f"[bouncerd]\n{CANARY}\n\nx y {CANARY}\n[limits]\nqueue = no\n")
        self.assertEqual(problems[0], "line 2: neither [section] nor key = value")
        self.assertEqual(problems[1], "line 4: neither [section] nor key = value")
        self.assertIn("[limits] queue", problems[2])

    def test_duplicates(self) -> None:
        """Each repeated key or section is told with its line, all of them at once."""
        problems = self.problems(
            "[bouncerd]\nsupport = a\nsupport = b\nsupport = c\n"
            "[limits]\nqueue = 5\n[limits]\nqueue = 6\nqueue = 7\n"
        )
        self.assertEqual(
            problems,
            [
                "line 3: [bouncerd] support is there twice; accepted: once",
                "line 4: [bouncerd] support is there twice; accepted: once",
                "line 7: [limits] is there twice; accepted: once",
            ],
        )

    def test_unknown_keys(self) -> None:
        """An unknown key or section names the one that was probably meant."""
        named = "accepted: [apns], or [apns:NAME] of up to 40 letters, digits, dots, _ and -"
        self.assertEqual(
            self.problems(
                "[bouncerd]\nlistn = tcp:1\nqueue = 5\nzzz = 1\n[limit]\nqueue = 4\n[apns:]\n"
                "[DEFAULT]\nlisten = tcp:2\n"
            ),
            [
                "[bouncerd] listn: unknown key; did you mean listen?",
                "[bouncerd] queue: unknown key; accepted: in [limits]",
                "[bouncerd] zzz: unknown key; accepted: " + ", ".join(DEFAULTS["bouncerd"]),
                "[limit]: unknown section; did you mean limits?",
                f"[apns:]: unknown section; {named}",
                "[DEFAULT]: unknown section; accepted: "
                + ", ".join([*DEFAULTS, "apns:NAME", "fcm:NAME"]),
            ],
        )

    def test_pasted_key(self) -> None:
        """A private key pasted into the file is told as such, and no piece of it is quoted."""
        pasted = pem(p256()).decode()
        for text in (
            f"[bouncerd]\n[apns]\nkey_file = {pasted}",
            "[bouncerd]\n[apns]\nkey_file = " + pasted.replace("\n", "\n    "),
        ):
            self.assert_problem(text, "holds a private key; accepted: the path of a file")

    def test_all_at_once(self) -> None:
        """Mistakes of every kind in one file are told in one go."""
        problems = self.problems(
            "[bouncerd]\nlisten = 9090\nanswer_within = 20\nstore = mysql://x\nsupport = x\n"
            "[limits]\nqueue = many\n[registration]\nopen = maybe\n"
            "[apns]\ntopics =\nkey_file = none.p8\nkey_id = short\n[fcm]\nurl = http://x\n"
        )
        told = [problem.partition(":")[0] for problem in problems]
        self.assertEqual(
            told,
            [
                "[bouncerd] listen",
                "[bouncerd] store",
                "[bouncerd] answer_within",
                "[limits] queue",
                "[registration] open",
                "[apns] topics",
                "[apns] key_id",
                "[apns] team_id",
                "[apns] key_file",
                "[fcm] url",
                "[fcm] credentials",
            ],
        )

    @given(st.text(alphabet=st.sampled_from("[]apns:=; \n\tkey_file%{}x\\\x00é"), max_size=120))
    def test_any_text(self, text: str) -> None:
        """Whatever a file holds, it is a configuration or a list of problems."""
        path = self.put("any.ini", text.encode())
        try:
            read(path, environ={}, now=NOW.timestamp())
        except ConfigError as error:
            self.assertTrue(error.problems)
            for problem in error.problems:
                self.assertEqual(problem.splitlines(), [problem])


class ValueTests(ReadingCase):
    """Numbers, words, addresses: what is taken and what is refused."""

    def test_numbers(self) -> None:
        """A number out of its range, or no number, is told with the range."""
        for key, value, accepted in (
            ("answer_within", "15", "from 0.1 to less than 15"),
            ("answer_within", "0", "from 0.1 to less than 15"),
            ("keep_for", "1h", "a number of seconds, from 1 to"),
            ("keep_for", "nan", "a number of seconds"),
            ("keep_for", "-5", "a number of seconds"),
        ):
            self.assert_problem(
                f"[bouncerd]\n{key} = {value}\n", f'[bouncerd] {key}: found "{value}"', accepted
            )
        for value in ("0", "1.5", "1,000", "-1", "²"):
            self.assert_problem(f"[bouncerd]\n[limits]\nqueue = {value}\n", f'found "{value}"')
        self.assert_problem(
            "[bouncerd]\n[entitlement]\nfree_users = all\n", 'found "all"', "or unlimited"
        )

    def test_fractions(self) -> None:
        """Seconds may have a fraction; an old key may be dead at once."""
        config = self.read("[bouncerd]\nanswer_within = 14.5\n[registration]\nold_key_grace = 0\n")
        self.assertEqual(config.bouncerd.answer_within, 14.5)
        self.assertEqual(config.registration.old_key_grace, 0.0)

    def test_yes_and_no(self) -> None:
        """Yes and no may be spelled in the usual ways."""
        for word, value in (("yes", True), ("No", False), ("on", True), ("false", False)):
            config = self.read(f"[bouncerd]\n[registration]\nopen = {word}\n")
            self.assertEqual(config.registration.open, value)
        self.assert_problem(
            "[bouncerd]\n[registration]\nopen = si\n", 'found "si"; accepted: yes or no'
        )

    def test_two_lines(self) -> None:
        """A second line where one is meant is told."""
        self.assert_problem("[bouncerd]\nsupport = a\n  b\n", "found 2 lines; accepted: one")

    def test_long_values(self) -> None:
        """A long value is told by its length."""
        self.assert_problem(f"[bouncerd]\nkeep_for = {'9' * 200}\n", "found 200 characters")

    def test_proxies(self) -> None:
        """Addresses and networks are parted by commas, spaces or lines."""
        config = self.read("[bouncerd]\ntrusted_proxies = 127.0.0.1, 10.0.0.0/8\n  ::1\n")
        self.assertEqual(
            config.bouncerd.trusted_proxies,
            (ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("::1")),
        )
        self.assert_problem("[bouncerd]\ntrusted_proxies = localhost\n", 'found "localhost"')
        self.assert_problem(
            "[bouncerd]\ntrusted_proxies = 10.1.2.3/8\n", "network of this one is 10.0.0.0/8"
        )

    def test_public_url(self) -> None:
        """Links need https, but on this machine itself; a slash at the end does not count."""
        config = self.read("[bouncerd]\npublic_url = https://push.example.org/\n")
        self.assertEqual(config.bouncerd.public_url, "https://push.example.org")
        config = self.read("[bouncerd]\npublic_url = http://127.0.0.1:9090\n")
        self.assertEqual(config.bouncerd.public_url, "http://127.0.0.1:9090")
        for url in ("push.example.org", "http://push.example.org", "https://", "https://x/?a"):
            self.assert_problem(f"[bouncerd]\npublic_url = {url}\n", f'found "{url}"')
        self.assert_problem("[bouncerd]\nterms_url = ftp://example.org\n", "terms_url: found")

    def test_provider_url(self) -> None:
        """A provider's url is an https address without a path, and says why http is refused."""
        start = "[bouncerd]\n" + TOKEN_SECTION
        for url in ("http://x:1", "https://x/path", "https://x:0", "https://x:99999", "x:443"):
            self.assert_problem(start + f"url = {url}\n", f'found "{url}"', "https://host:port")
        self.assert_problem(start + "url = http://x:1\n", "unencrypted")
        self.assert_problem(
            start + f"url = https://u:{CANARY}@x\n", "found an address with a user name in it"
        )
        config = self.read(start + "url = https://[::1]:8443/\n")
        self.assertEqual((config.apns[0].host, config.apns[0].port), ("::1", 8443))

    def test_store(self) -> None:
        """A store is SQLite or PostgreSQL; what follows its kind is never told."""
        for store in (
            "sqlite:x.db",
            "sqlite:/a b/c.db",
            f"postgresql://u:{CANARY}@h:5432/db",
            f"postgresql://u:{CANARY}@h1:5432,[::1]:65535/db?target_session_attrs=read-write",
            f"postgresql://{CANARY}@%2Frun%2Fpostgresql/db",
            f"postgresql:///{CANARY}",
        ):
            config = self.read(f"[bouncerd]\nstore = {store}\n")
            self.assertEqual(config.bouncerd.store, store)
            self.assertNotIn(store, repr(config))
        for store in (
            f"postgresql:{CANARY}",
            f"mysql://u:{CANARY}@h/db",
            f"postgresql://h:{CANARY}",
            f"postgresql://{CANARY}@h:65536/db",
            f"postgresql://{CANARY}@h1,h2:0/db",
        ):
            problems = self.problems(f"[bouncerd]\nstore = {store}\n")
            self.assertIn("accepted: sqlite:PATH or postgresql://", problems[0])
            self.assertNotIn(CANARY, problems[0])


class EndpointTests(ReadingCase):
    """Where the daemon listens."""

    def test_accepted(self) -> None:
        """Endpoint strings of the documented kinds are taken as they are, one a line."""
        endpoints = (
            "tcp:9090",
            "tcp:port=0:interface=127.0.0.1:backlog=128",
            r"tcp:8080:interface=\:\:1",
            "unix:/run/bouncerd/api.sock:mode=660",
            "systemd:domain=INET:name=bouncerd.socket",
            "systemd:domain=UNIX:index=0",
            "systemd:INET6:0",
        )
        config = self.read("[bouncerd]\nlisten =\n  " + "\n  ".join(endpoints) + "\n")
        self.assertEqual(config.bouncerd.listen, endpoints)

    def test_refused(self) -> None:
        """A malformed endpoint says what about it is wrong."""
        for endpoint, wrong in (
            ("9090", 'unknown kind "9090"'),
            ("http:80", 'unknown kind "http"'),
            ("tcp:", "tcp: needs a port"),
            ("tcp:http", 'port "http" is not a number from 0 to 65535'),
            ("tcp:65536", "65535"),
            ("tcp:1:interface=localhost", 'interface "localhost" is not an address'),
            ("tcp:1:intreface=::1", "did you mean interface?"),
            ("tcp:1:port=2", "port is there twice"),
            ("tcp:1:backlog=x", "backlog"),
            ("unix:", "unix: needs a address"),
            ("unix:/x:mode=999", 'mode "999" is not octal'),
            ("systemd:domain=INET", "an index or a name"),
            ("systemd:domain=IPX:index=0", 'domain "IPX"'),
            ("systemd:domain=INET:index=x", 'index "x"'),
            ("tcp:9090 tcp:9091", "port"),
        ):
            text = f"[bouncerd]\nlisten = {endpoint}\n"
            self.assert_problem(text, f'[bouncerd] listen: "{endpoint}"', wrong, "accepted: tcp:")

    def test_instance(self) -> None:
        """{instance} is replaced by the option of that name, and is a mistake without it."""
        text = "[bouncerd]\nlisten = unix:/run/b-{instance}.sock\nadmin_listen = tcp:91{instance}\n"
        config = self.read(text, instance="07")
        self.assertEqual(config.bouncerd.listen, ("unix:/run/b-07.sock",))
        self.assertEqual(config.bouncerd.admin_listen, ("tcp:9107",))
        problems = self.problems(text)
        self.assertEqual(len(problems), 2)
        self.assertIn("{instance} stands for the option --instance, not given", problems[0])
        self.assertIn("not a plain name", self.problems(text, instance="../x")[0])

    def test_admin_is_private(self) -> None:
        """The admin listener is never the public one, and is warned of where others reach it."""
        same = "[bouncerd]\nlisten = tcp:80\nadmin_listen = tcp:80\n"
        self.assert_problem(same, "[bouncerd] admin_listen", "is in listen too")
        config = self.read("[bouncerd]\nadmin_listen = tcp:9091\n")
        self.assertEqual(len(config.warnings), 1)
        self.assertIn("[bouncerd] admin_listen", config.warnings[0])
        self.assertEqual(self.read("[bouncerd]\nadmin_listen = unix:/x\n").warnings, ())

    def test_tls(self) -> None:
        """The files of an ssl: endpoint are looked at before anybody listens."""
        good = self.put("server.pem", certificate() + pem(p256()))
        line = f"[bouncerd]\nlisten = ssl:443:privateKey={good}"
        self.assertEqual(len(self.read(line).bouncerd.listen), 1)
        lone = self.put("lone.pem", certificate(another_p256()))
        self.assert_problem(f"{line}:certKey={lone}\n", "does not match its certificate")
        self.assert_problem("[bouncerd]\nlisten = ssl:443:privateKey=/no\n", "No such file")


class ApnsKeyTests(ReadingCase):
    """Token authentication: key_file, key_id and team_id."""

    def refuse(self, content: bytes, *parts: str) -> None:
        self.put("AuthKey.p8", content)
        self.assert_problem(
            "[bouncerd]\n" + TOKEN_SECTION, "[apns] key_file: DIR/AuthKey.p8", *parts
        )

    def test_key(self) -> None:
        """A key of Apple's with its ids is what a section sends with."""
        section = self.read("[bouncerd]\n" + TOKEN_SECTION).apns[0]
        key = section.key
        assert key is not None
        self.assertEqual((key.key_id, key.team_id), ("ABC123DEFG", "DEF123GHIJ"))
        self.assertEqual(key.pem, pem(p256()))
        self.assertIsNone(section.certificate)
        self.assertEqual(section.topics, frozenset({"org.example.app"}))

    def test_wrong_keys(self) -> None:
        """A file that is no unencrypted P-256 key is named, with what it is instead."""
        self.refuse(pem(rsa_2048()), "holds an RSA key", "P-256")
        self.refuse(pem(ec.generate_private_key(ec.SECP384R1())), "on secp384r1, not on P-256")
        self.refuse(pem(p256(), b"password"), "holds an encrypted private key")
        self.refuse(certificate(), "holds a certificate but no private key")
        self.refuse(pem(p256())[:90], "is cut off")
        self.refuse(b"", "is empty")
        self.refuse(CANARY.encode(), "is not PEM")
        self.refuse(b"\x30\x82\x01\x00", "is binary")
        self.refuse(pem(p256()) + pem(another_p256()), "more than one private key")
        body = base64.b64encode(CANARY.encode() * 5)
        broken = b"-----BEGIN PRIVATE KEY-----\n" + body + b"\n-----END PRIVATE KEY-----\n"
        self.refuse(broken, "cannot be read")

    def test_ids(self) -> None:
        """The ids have ten letters or digits; what was found is told."""
        text = "[bouncerd]\n" + TOKEN_SECTION
        self.assert_problem(text.replace("ABC123DEFG", "ABC123"), '[apns] key_id: found "ABC123"')
        self.assert_problem(text.replace("DEF123GHIJ", ""), "[apns] team_id: found nothing")

    def test_unreadable_files(self) -> None:
        """A file that is missing, a directory, a pipe or too large is named."""
        self.put("AuthKey.p8", b"x" * (1 << 21))
        text = "[bouncerd]\n" + TOKEN_SECTION
        self.assert_problem(text, "is larger than a key file can be")
        key = self.directory / "AuthKey.p8"
        key.unlink()
        self.assert_problem(text, "[apns] key_file: no file DIR/AuthKey.p8")
        os.mkfifo(key)
        self.assert_problem(text, "is not a file")
        key.unlink()
        key.mkdir()
        self.assert_problem(text, "DIR/AuthKey.p8 is a directory")

    def test_where_files_lie(self) -> None:
        """systemd's credentials come first, then what lies beside the configuration file."""
        credentials = self.directory / "credentials"
        credentials.mkdir()
        environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
        text = "[bouncerd]\n" + TOKEN_SECTION
        self.assertEqual(self.read(text, environ=environ).copies, ())
        beside = self.read(text, environ=environ).apns[0].key
        assert beside is not None
        self.assertEqual(beside.pem, pem(p256()))
        self.put("credentials/AuthKey.p8", pem(another_p256()))
        first = self.read(text, environ=environ).apns[0].key
        assert first is not None
        self.assertEqual(first.pem, pem(another_p256()))
        self.assertEqual(self.read(text, environ=environ).copies, ("[apns] key_file",))
        (self.directory / "AuthKey.p8").unlink()
        (credentials / "AuthKey.p8").unlink()
        error = self.assertRaises(ConfigError, self.read, text, environ=environ)
        self.assertIn(f"{credentials}/AuthKey.p8 nor {self.directory}/AuthKey.p8", str(error))

    def test_open_to_all(self) -> None:
        """A key that every user of the machine can read is worth a warning."""
        self.put("AuthKey.p8", pem(p256()), 0o644)
        config = self.read("[bouncerd]\n" + TOKEN_SECTION)
        self.assertEqual(
            config.warnings,
            (f"[apns] key_file: every user can read {self.directory}/AuthKey.p8",),
        )

    def test_pasted_secrets(self) -> None:
        """A secret pasted where a path belongs is never quoted."""
        secret = base64.b64encode(bytes(range(32))).decode()
        for pasted in (secret, secret.rstrip("="), "{" + CANARY + "}"):
            problems = self.problems(f"[bouncerd]\n[e2ee]\nprivate_keys = {pasted}\n")
            self.assertIn("found what is not the path of a file", problems[0])
            self.assertNotIn(pasted, problems[0])


class ApnsCertificateTests(ReadingCase):
    """Certificate authentication: cert_file."""

    def refuse(self, content: bytes, *parts: str) -> None:
        self.put("push.pem", content)
        self.assert_problem(
            "[bouncerd]\n" + CERTIFICATE_SECTION, "[apns] cert_file: DIR/push.pem", *parts
        )

    def test_certificate(self) -> None:
        """Leaf, chain and key may stand in the file in any order."""
        leaf, chain = certificate(), certificate(another_p256())
        self.put("push.pem", pem(p256()) + chain + b"Bag Attributes\n" + leaf)
        section = self.read("[bouncerd]\n" + CERTIFICATE_SECTION).apns[0]
        found = section.certificate
        assert found is not None
        self.assertEqual(found.pem, leaf + chain)
        self.assertEqual(found.key_pem, pem(p256()))
        self.assertEqual(found.expires_at, (NOW + timedelta(days=300)).timestamp())
        self.assertIsNone(section.key)

    def test_dates(self) -> None:
        """A certificate that is not valid today says since or until when."""
        day = timedelta(days=1)
        self.refuse(certificate(None, -9 * day, -day) + pem(p256()), "expired on 2026-11-21")
        self.refuse(certificate(None, day, 9 * day) + pem(p256()), "not valid before 2026-11-23")

    def test_wrong_pairs(self) -> None:
        """A certificate needs its own key, unencrypted."""
        self.refuse(certificate(), "holds a certificate but no private key")
        self.refuse(pem(p256()), "has no certificate")
        self.refuse(certificate() + pem(another_p256()), "does not match its certificate")
        self.refuse(certificate() + pem(p256(), b"password"), "encrypted private key")
        self.refuse(b"\x30\x82", "PKCS#12")
        body = base64.b64encode(CANARY.encode() * 5)
        broken = b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n"
        self.refuse(broken + pem(p256()), "a certificate that cannot be read")

    def test_warnings(self) -> None:
        """A certificate that expires soon, or is for the other environment, is warned of."""
        soon = certificate(None, timedelta(days=-10), timedelta(days=29), SANDBOX_MARK)
        self.put("push.pem", soon + pem(p256()))
        self.assertEqual(
            self.read("[bouncerd]\n" + CERTIFICATE_SECTION).warnings,
            (
                "[apns] cert_file: the certificate expires on 2026-12-21",
                "[apns] cert_file: a sandbox certificate, but environment = production",
            ),
        )
        both = certificate(None, timedelta(0), timedelta(days=31), SANDBOX_MARK, PRODUCTION_MARK)
        self.put("push.pem", both + pem(p256()))
        self.assertEqual(self.read("[bouncerd]\n" + CERTIFICATE_SECTION).warnings, ())

    def test_one_of_the_two(self) -> None:
        """A section has a key or a certificate: not both, not neither."""
        both = "[bouncerd]\n" + TOKEN_SECTION + "cert_file = push.pem\n"
        self.assert_problem(both, "[apns] key_file: cert_file is set too; accepted: one")
        neither = "[bouncerd]\n[apns]\ntopics = *\n"
        self.assert_problem(neither, "key_file: found nothing", "key_id, team_id; or cert_file")

    def test_ca(self) -> None:
        """An extra trust root is one or more certificates; a key beside them is left behind."""
        text = "[bouncerd]\n" + TOKEN_SECTION + "ca_file = ca.pem\n"
        self.put("ca.pem", certificate() + pem(p256()), 0o644)
        config = self.read(text)
        self.assertEqual(config.apns[0].ca_pem, certificate_only(config.apns[0].ca_pem))
        self.assertEqual(config.warnings, ())
        self.put("ca.pem", pem(p256()))
        self.assert_problem(text, "[apns] ca_file: DIR/ca.pem has no certificate")
        self.put("ca.pem", b"")
        self.assert_problem(text, "DIR/ca.pem is empty")


def certificate_only(found: bytes | None) -> bytes:
    """Return what a trust root should be: certificates, no key."""
    assert found is not None
    assert b"PRIVATE" not in found
    (one,) = x509.load_pem_x509_certificates(found)
    return one.public_bytes(serialization.Encoding.PEM)


class FcmTests(ReadingCase):
    """Service accounts."""

    def refuse(self, content: bytes, *parts: str) -> None:
        self.put("fcm.json", content)
        self.assert_problem("[bouncerd]\n" + FCM_SECTION, "[fcm] credentials: DIR/fcm.json", *parts)

    def test_account(self) -> None:
        """A service account gives project, address, key and token address."""
        account = self.read("[bouncerd]\n" + FCM_SECTION).fcm[0].account
        self.assertEqual(account.project_id, "example-project")
        self.assertEqual(account.client_email, "push@example-project.iam.gserviceaccount.com")
        self.assertEqual(account.private_key_id, "0123456789abcdef")
        self.assertEqual(account.private_key_pem, pem(rsa_2048()))
        self.assertEqual(account.token_uri, "https://oauth2.googleapis.com/token")

    def test_escaped_line_ends(self) -> None:
        """A key whose line ends became \\n on the way through an environment is read."""
        key = pem(rsa_2048()).decode().replace("\n", "\\n")
        self.put("fcm.json", account(private_key=key))
        found = self.read("[bouncerd]\n" + FCM_SECTION).fcm[0].account
        self.assertEqual(found.private_key_pem, pem(rsa_2048()))

    def test_wrong_accounts(self) -> None:
        """What is no service account is named, with what is wrong about it."""
        self.refuse(b"{", "is not JSON")
        self.refuse(b"[" * 100_000, "is not JSON")
        self.refuse(b"\xff\xfe\x00", "is not JSON")
        self.refuse(b"[]", "is not a JSON object")
        self.refuse(b"{}", "it lacks type")
        self.refuse(account(type=CANARY), "its type is another one")
        self.refuse(json.dumps({"project_info": {}}).encode(), "google-services.json")
        self.refuse(json.dumps({"installed": {}}).encode(), "OAuth client file")
        self.refuse(account(project_id=None, token_uri=5), "lacks project_id, token_uri")
        self.refuse(account(private_key=CANARY), "has a private_key that is not PEM")
        self.refuse(account(private_key=pem(p256()).decode()), "elliptic-curve key, not an RSA")
        self.refuse(account(project_id=f"a/{CANARY}"), "project_id")
        self.refuse(account(client_email=CANARY), "client_email")
        self.refuse(account(private_key_id="a b"), "private_key_id")
        for uri in ("http://oauth2.googleapis.com/token", "https://", "https://u@h/", "ftp://x"):
            self.refuse(account(token_uri=uri), "token_uri that is not an https:// address")

    def test_legacy_keys(self) -> None:
        """A server key of the old FCM is met with the way to a service account."""
        self.refuse(LEGACY_KEY.encode() + b"\n", "switched off in 2024", "Generate new private key")
        pasted = f"[bouncerd]\n[fcm]\ncredentials = {LEGACY_KEY}\n"
        self.assert_problem(pasted, "[fcm] credentials: holds a legacy server key")
        self.assertNotIn(LEGACY_KEY[:20], self.problems(pasted)[0])
        for key in ("api_key", "server_key", "android_gcm_api_key"):
            told = self.problems(f"[bouncerd]\n{FCM_SECTION}{key} = {LEGACY_KEY}\n")[0]
            self.assertIn("FCM HTTP v1 needs a service account", told)
            self.assertNotIn(LEGACY_KEY[:20], told)
        self.assertFalse(is_legacy_fcm_key("fcm.json"))

    def test_no_credentials(self) -> None:
        """A section without credentials cannot send."""
        self.assert_problem("[bouncerd]\n[fcm]\n", "[fcm] credentials: found nothing")


class ObservingTests(ReadingCase):
    """How the log and alerts are wanted."""

    def test_log_level(self) -> None:
        """Two levels, the quiet one by default."""
        self.assertEqual(self.read("[bouncerd]\n").bouncerd.log_level, "normal")
        text = "[bouncerd]\nlog_level = Verbose\n"
        self.assertEqual(self.read(text).bouncerd.log_level, "verbose")
        told = '[bouncerd] log_level: found "debug"; accepted: normal or verbose'
        self.assert_problem("[bouncerd]\nlog_level = debug\n", told)

    def test_alert_command(self) -> None:
        """It is split as a shell would; its words may be a secret, and are never repeated."""
        text = f"[bouncerd]\nalert_command = /bin/sh -c 'a  b' {CANARY}\n"
        config = self.read(text)
        self.assertEqual(config.bouncerd.alert_command, ("/bin/sh", "-c", "a  b", CANARY))
        self.assertNotIn(CANARY, repr(config))
        self.assertEqual(config.warnings, ())
        (problem,) = self.problems(f"[bouncerd]\nalert_command = 'a {CANARY}\n")
        self.assertIn("alert_command: found a quotation that does not end", problem)
        self.assertNotIn(CANARY, problem)

    def test_alert_command_is_not_there(self) -> None:
        """A program that cannot be found is a warning."""
        config = self.read(f"[bouncerd]\nalert_command = /nonexistent/{CANARY}\n")
        self.assertIn("alert_command: there is no such program", config.warnings[0])
        self.assertNotIn(CANARY, config.warnings[0])


class ProxyTests(ReadingCase):
    """The way out of a closed network."""

    def proxy(self, value: str) -> Proxy | None:
        return self.read("[bouncerd]\n" + FCM_SECTION + f"proxy = {value}\n").fcm[0].proxy

    def test_proxies(self) -> None:
        """A proxy is named by its address, perhaps with a user and a password."""
        self.assertIsNone(self.proxy(""))
        self.assertEqual(self.proxy("http://proxy.lan:3128"), Proxy("proxy.lan", 3128))
        self.assertEqual(self.proxy("http://[fd00::1]:80/"), Proxy("fd00::1", 80))
        found = self.proxy("http://me:p%40ss:@word@10.0.0.1:8080")
        self.assertEqual(
            found, Proxy("10.0.0.1", 8080, base64.b64encode(b"me:p@ss:@word").decode())
        )
        self.assertNotIn("p@ss", repr(found))
        text = "[bouncerd]\n" + TOKEN_SECTION + "proxy = http://p:1\n"
        self.assertEqual(self.read(text).apns[0].proxy, Proxy("p", 1))

    def test_mistakes(self) -> None:
        """What is no proxy's address is told; what may hold a password is not repeated."""
        for value in (
            "proxy.lan:3128",
            "http://proxy.lan",
            "https://proxy.lan:3128",
            "socks5://proxy.lan:1080",
            "http://proxy.lan:0",
            "http://proxy.lan:99999",
            "http://proxy.lan:3128/path",
            "http://me:hunter2@",
            "me:hunter2@proxy.lan:3128",
            "http://hunter2@proxy.lan:3128",
            "http://me:hunter2%0a@proxy.lan:3128",
        ):
            text = "[bouncerd]\n" + FCM_SECTION + f"proxy = {value}\n"
            self.assert_problem(text, "[fcm] proxy: found", "accepted: http://host:port")
            self.assertNotIn("hunter2", "".join(self.problems(text)))


class SeveralSectionsTests(ReadingCase):
    """Several apps, several Firebase projects."""

    def apns(self, name: str, topics: str, environment: str = "production") -> str:
        section = TOKEN_SECTION.replace("[apns]", f"[{name}]").replace("org.example.app", topics)
        return f"{section}environment = {environment}\n"

    def fcm(self, name: str, servers: str) -> str:
        return f"\n[{name}]\nservers = {servers}\ncredentials = fcm.json\n"

    def test_side_by_side(self) -> None:
        """Sections may stand side by side, named or not, each with its own topics."""
        config = self.read(
            "[bouncerd]\n"
            + self.apns("apns", "*")
            + self.apns("apns:one", "org.example.one, org.example.two\n  org.example.three")
            + self.apns("apns:dev", "org.example.one.dev", "sandbox")
            + self.fcm("fcm", "")
            + self.fcm("fcm:one", "b2e0ea5e-3b0f-4d4a-8d6f-1c4f0f2f2b11")
        )
        self.assertEqual([each.name for each in config.apns], ["apns", "apns:one", "apns:dev"])
        self.assertIsNone(config.apns[0].topics)
        self.assertEqual(len(config.apns[1].topics or ()), 3)
        self.assertEqual(config.fcm[1].servers, {"b2e0ea5e-3b0f-4d4a-8d6f-1c4f0f2f2b11"})

    def test_same_topic(self) -> None:
        """A topic in two sections is told, as are two sections for any.

        Also where one is for the sandbox: nothing in a registration says which a phone is of.
        """
        self.assert_problem(
            "[bouncerd]\n" + self.apns("apns", "a.b c.d") + self.apns("apns:x", "c.d"),
            "[apns:x] topics: c.d is in [apns] too",
        )
        self.assert_problem(
            "[bouncerd]\n" + self.apns("apns", "a.b") + self.apns("apns:x", "a.b", "sandbox"),
            "[apns:x] topics: a.b is in [apns] too",
        )
        self.assert_problem(
            "[bouncerd]\n" + self.apns("apns:y", "*") + self.apns("apns:x", "*", "sandbox"),
            "[apns:x] topics: * is in [apns:y] too",
        )

    def test_same_server(self) -> None:
        """A server in two sections is told, as are two sections for all others."""
        uuid = "b2e0ea5e-3b0f-4d4a-8d6f-1c4f0f2f2b11"
        self.assert_problem(
            "[bouncerd]\n" + self.fcm("fcm:a", uuid) + self.fcm("fcm:b", uuid.upper()),
            f"[fcm:b] servers: {uuid} is in [fcm:a] too",
        )
        self.assert_problem(
            "[bouncerd]\n" + self.fcm("fcm", "") + self.fcm("fcm:b", ""),
            "[fcm:b] servers: empty (the default for all servers) is in [fcm] too",
        )

    def test_wrong_words(self) -> None:
        """Topics are bundle ids or * alone; servers are UUIDs."""
        for topics, word in (("* a.b", "*"), ("org/example", "org/example"), ("a..b", "a..b")):
            self.assert_problem(
                "[bouncerd]\n" + self.apns("apns", topics), f'[apns] topics: found "{word}"'
            )
        self.assert_problem(
            "[bouncerd]\n" + self.fcm("fcm", "zulip.example.org"),
            '[fcm] servers: found "zulip.example.org"; accepted: the zulip_org_id',
        )


class E2eeTests(ReadingCase):
    """Keys of the end-to-end encrypted registration."""

    TEXT = "[bouncerd]\n[e2ee]\nprivate_keys = e2ee.keys\n"

    def test_keys(self) -> None:
        """One base64 key a line, the first is current; comments and blank lines do not count."""
        keys = (bytes(32), bytes(range(32)))
        lines = [b"# current", base64.b64encode(keys[0]), b"", base64.b64encode(keys[1])]
        self.put("e2ee.keys", b"\r\n".join(lines))
        self.assertEqual(self.read(self.TEXT).e2ee.private_keys, keys)

    def test_wrong_keys(self) -> None:
        """The line that is no key is told by its number, and is never quoted."""
        good = base64.b64encode(bytes(32)) + b"\n"
        for content, wrong in (
            (good + base64.b64encode(bytes(31)), "line 2 is not the base64 form of 32 bytes"),
            (CANARY.encode(), "line 1 is not the base64 form"),
            (b"\n" + b"\xff" * 44, "line 2 is not the base64 form"),
            (good + good, "line 2 repeats an earlier key"),
            (b"# none\n", "holds no key"),
        ):
            self.put("e2ee.keys", content)
            self.assert_problem(self.TEXT, f"[e2ee] private_keys: DIR/e2ee.keys {wrong}")


class SecretsTests(ReadingCase):
    """Nothing secret is in a message or a repr."""

    def test_repr(self) -> None:
        """A configuration printed by mistake shows no key, password or private content."""
        self.put("e2ee.keys", base64.b64encode(b"k" * 32))
        text = f"[bouncerd]\nstore = postgresql://u:{CANARY}@h/db\n" + TOKEN_SECTION + FCM_SECTION
        text += "[apns:x]\ntopics = a.b\ncert_file = push.pem\n[e2ee]\nprivate_keys = e2ee.keys\n"
        shown = repr(self.read(text))
        for secret in ("PRIVATE KEY", CANARY, "k" * 32):
            self.assertNotIn(secret, shown)
        self.assertIn("org.example.app", shown)

    def test_canaries(self) -> None:
        """A word planted in every file and every secret's key is in no problem."""
        broken: tuple[Callable[[bytes], bytes], ...] = (
            lambda word: word,
            lambda word: b"-----BEGIN PRIVATE KEY-----\n" + word + b"\n-----END PRIVATE KEY-----",
            lambda word: b"-----BEGIN CERTIFICATE-----\n" + word + b"\n-----END CERTIFICATE-----",
            lambda word: b'{"type": "' + word + b'"}',
            lambda word: account(private_key=word.decode()),
            lambda word: account(token_uri=word.decode(), project_id=word.decode() + "/"),
        )
        text = f"[bouncerd]\nstore = {CANARY}://{CANARY}:{CANARY}\n" + TOKEN_SECTION + FCM_SECTION
        text += "ca_file = ca.pem\n[apns:x]\ntopics = a.b\ncert_file = push.pem\n"
        text += "[e2ee]\nprivate_keys = e2ee.keys\n"
        for spoil in broken:
            for name in ("AuthKey.p8", "push.pem", "fcm.json", "ca.pem", "e2ee.keys"):
                self.put(name, spoil(CANARY.encode()))
            told = "\n".join(self.problems(text))
            self.assertNotIn(CANARY, told)
            self.assertGreater(told.count("\n"), 3, told)

    def test_names_of_fields(self) -> None:
        """Every field of the configuration's sections has its key, by the same name."""
        config = self.read("[bouncerd]\n")
        for name in ("bouncerd", "limits", "registration", "entitlement", "e2ee"):
            found = [each.name for each in fields(getattr(config, name))]
            self.assertEqual(found, list(DEFAULTS[name]))
