"""Bearer tokens: what they say, and when a connection may have another."""

import base64
import functools
import json
from random import Random

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.bearer import GENERATION, HOLD, Adoption, GoogleAssertion, ProviderToken

START = 850_000.0 * GENERATION  # a generation begins
MINUTE = 60.0


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """Return a private key as our configuration hands it over."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@functools.cache
def apple_key() -> bytes:
    """Return a key as of a .p8 file, the same for all tests."""
    return pem(ec.generate_private_key(ec.SECP256R1()))


@functools.cache
def google_key() -> bytes:
    """Return a service account's key, the same for all tests."""
    return pem(rsa.generate_private_key(65537, 2048))


def no_rfc6979() -> ec.ECDSA:
    """Stand for an OpenSSL without deterministic signatures."""
    raise UnsupportedAlgorithm("not here")


def provider_token(clock: Clock | None = None) -> ProviderToken:
    """Return Apple's token of the shared key, as another process would make it too."""
    return ProviderToken("ABC123DEFG", "DEF123GHIJ", apple_key(), (clock or Clock()).seconds)


def read(authorization: str) -> dict[str, object]:
    """Return the claims of a header's value, its signature verified."""
    scheme, token = authorization.split(" ")
    assert scheme == "bearer"
    public = load_pem_private_key(apple_key(), None).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    claims: dict[str, object] = jwt.decode(
        token, public, algorithms=["ES256"], options={"verify_iat": False}
    )
    return claims


class MintingTests(SynchronousTestCase):
    """What Apple is shown."""

    def test_token_says_key_team_and_generation(self) -> None:
        """The header names the key; the claims are the team and a time rounded to 35 minutes."""
        adoption = provider_token().adopt(START + 34 * MINUTE)
        self.assertEqual(
            jwt.get_unverified_header(adoption.authorization.split(" ")[1]),
            {"alg": "ES256", "kid": "ABC123DEFG"},
        )
        self.assertEqual(read(adoption.authorization), {"iss": "DEF123GHIJ", "iat": int(START)})

    def test_signature_is_64_raw_bytes(self) -> None:
        """The signature has JOSE's form, not OpenSSL's."""
        token = provider_token()
        for generation in range(20):  # a number that begins with a zero byte keeps its width
            signature = token.adopt(START + generation * GENERATION).authorization.split(".")[2]
            self.assertEqual(len(base64.urlsafe_b64decode(signature + "==")), 64)

    def test_every_process_mints_the_same_bytes(self) -> None:
        """Two processes, or two runs of one, show Apple one token within a generation."""
        first, second = provider_token(), provider_token()
        self.assertTrue(first.deterministic)
        self.assertEqual(
            first.adopt(START).authorization,
            second.adopt(START + 34 * MINUTE).authorization,
        )

    def test_next_generation_is_another_token(self) -> None:
        """After 35 minutes there is a new one."""
        token = provider_token()
        self.assertNotEqual(
            token.adopt(START).authorization, token.adopt(START + GENERATION).authorization
        )

    def test_without_rfc6979_a_process_still_has_one_token_a_generation(self) -> None:
        """On an old OpenSSL tokens are valid, shared among connections, and it can be told."""
        token = ProviderToken(
            "ABC123DEFG", "DEF123GHIJ", apple_key(), Clock().seconds, algorithm=no_rfc6979
        )
        self.assertFalse(token.deterministic)
        first = token.adopt(START).authorization
        self.assertEqual(read(first)["iat"], int(START))
        token.adopt(START + GENERATION)
        self.assertEqual(token.adopt(START + MINUTE).authorization, first)

    def test_few_tokens_are_kept(self) -> None:
        """A process that runs for months does not hold every token it had."""
        token = provider_token()
        for generation in range(5):
            token.adopt(START + generation * GENERATION)
        self.assertEqual(sorted(token._minted), [850_003, 850_004])

    def test_neither_token_nor_key_is_shown(self) -> None:
        """A traceback or log line with these objects gives nothing away."""
        token = provider_token()
        adoption = token.adopt(START)
        secret = adoption.authorization.split(" ")[1]
        self.assertNotIn(secret[:20], repr(adoption) + repr(token))

    def test_other_keys_are_refused(self) -> None:
        """A key of the wrong kind is a mistake in the program: the configuration was checked."""
        self.assertRaises(TypeError, ProviderToken, "k", "t", google_key(), Clock().seconds)


class RenewingTests(SynchronousTestCase):
    """When one connection moves to a newer token."""

    def setUp(self) -> None:
        """Keep two clocks, which a step of the host's separates."""
        self.clock = Clock()
        self.token = provider_token(self.clock)
        self.now = START

    def pass_time(self, seconds: float) -> None:
        """Let both clocks run."""
        self.clock.advance(seconds)
        self.now += seconds

    def renew(self, adoption: Adoption) -> bool:
        """Ask as each request does."""
        return self.token.renew(adoption, self.now)

    def test_nothing_changes_within_a_generation(self) -> None:
        """For 35 minutes a connection keeps its token."""
        adoption = self.token.adopt(self.now)
        self.pass_time(GENERATION - 1)
        self.assertFalse(self.renew(adoption))

    def test_steady_connection_follows_each_generation(self) -> None:
        """A connection that is old enough takes the new token as soon as there is one."""
        adoption = self.token.adopt(self.now)
        self.pass_time(GENERATION)
        self.assertTrue(self.renew(adoption))
        self.assertEqual(read(adoption.authorization)["iat"], int(self.now))
        self.assertFalse(self.renew(adoption))

    def test_young_connection_waits_21_minutes(self) -> None:
        """One opened just before a new generation keeps the old token until 21 minutes passed."""
        self.pass_time(GENERATION - MINUTE)
        adoption = self.token.adopt(self.now)
        old = adoption.authorization
        self.pass_time(HOLD - 1)
        self.assertFalse(self.renew(adoption))
        self.assertEqual(adoption.authorization, old)
        self.pass_time(1)
        self.assertTrue(self.renew(adoption))

    def test_connection_idle_for_hours_shows_a_fresh_token(self) -> None:
        """The first push after a quiet night does not carry last night's token."""
        adoption = self.token.adopt(self.now)
        self.pass_time(8 * 3600)
        self.assertTrue(self.renew(adoption))
        self.assertLess(self.now - adoption.generation * GENERATION, GENERATION)

    def test_small_step_of_the_clock_changes_nothing_early(self) -> None:
        """A clock set by half an hour does not give a connection a second token in 20 minutes."""
        for step in (30 * MINUTE, -30 * MINUTE):
            self.pass_time(GENERATION / 2)
            adoption = self.token.adopt(self.now)
            self.now += step
            self.assertFalse(self.renew(adoption))

    def test_large_step_of_the_clock_replaces_the_token_once(self) -> None:
        """After a machine slept for hours its token is replaced at once; a jumping clock waits."""
        for step in (59 * MINUTE, -59 * MINUTE, 3 * 3600.0, -3 * 3600.0):
            self.now = START
            adoption = self.token.adopt(self.now)
            self.now += step
            self.assertTrue(self.renew(adoption))
            self.now += step
            self.assertFalse(self.renew(adoption))
            self.pass_time(HOLD)
            self.assertTrue(self.renew(adoption))

    def test_clock_is_blamed_only_for_a_token_apple_never_took(self) -> None:
        """Expired by Apple's clock, brand-new by ours and never accepted: our clock is wrong."""
        adoption = self.token.adopt(self.now)
        self.assertTrue(self.token.clock_is_wrong(adoption, self.now))
        self.token.accepted(adoption)
        self.assertFalse(self.token.clock_is_wrong(adoption, self.now))

    def test_clock_is_not_blamed_for_an_old_token(self) -> None:
        """A token of the generation before is worth another try with the newest."""
        adoption = self.token.adopt(self.now)
        self.pass_time(GENERATION)
        self.assertFalse(self.token.clock_is_wrong(adoption, self.now))

    def test_hours_of_connections_opened_at_random_break_no_rule_of_apples(self) -> None:
        """No token over an hour old, none changed within 20 minutes, two of a team at once.

        Two processes of one team, each with connections that open and close at random and push
        at random, over six simulated hours, several times.
        """
        for seed in range(15):
            self.simulate(Random(seed))

    def simulate(self, random: Random) -> None:
        """Run six hours; check at each push."""
        processes = [provider_token(self.clock), provider_token(self.clock)]
        connections: list[tuple[ProviderToken, Adoption]] = []
        changed: dict[int, float] = {}
        end = self.now + 6 * 3600
        while self.now < end:
            self.pass_time(random.uniform(1, 90))
            if random.random() < 0.1 or not connections:
                process = random.choice(processes)
                connections.append((process, process.adopt(self.now)))
                changed[id(connections[-1][1])] = self.now
            if random.random() < 0.05:
                connections.pop(random.randrange(len(connections)))
            live = set()
            for process, adoption in connections:
                if process.renew(adoption, self.now):
                    self.assertGreater(self.now - changed[id(adoption)], 20 * MINUTE)
                    changed[id(adoption)] = self.now
                self.assertLess(self.now - adoption.generation * GENERATION, 57 * MINUTE)
                live.add(adoption.authorization)
            self.assertLessEqual(len(live), 2)


class GoogleAssertionTests(SynchronousTestCase):
    """What Google's token endpoint is shown."""

    def test_assertion_says_account_scope_audience_and_an_hour(self) -> None:
        """The claims are Google's, issued 30 s ago in case our clock is fast, for an hour."""
        uri = "https://oauth2.example/token"
        text = GoogleAssertion("push@p.example", "kid1", google_key(), uri).sign(START + 0.9)
        public = load_pem_private_key(google_key(), None).public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        claims = jwt.decode(
            text, public, algorithms=["RS256"], audience=uri, options={"verify_exp": False}
        )
        self.assertEqual(
            claims,
            {
                "iss": "push@p.example",
                "scope": "https://www.googleapis.com/auth/firebase.messaging",
                "aud": uri,
                "iat": int(START) - 30,
                "exp": int(START) - 30 + 3600,
            },
        )
        header = json.loads(base64.urlsafe_b64decode(text.split(".")[0] + "=="))
        self.assertEqual(header, {"alg": "RS256", "kid": "kid1", "typ": "JWT"})

    def test_other_keys_are_refused(self) -> None:
        """A key of the wrong kind is a mistake in the program: the configuration was checked."""
        self.assertRaises(TypeError, GoogleAssertion, "a@b", "k", apple_key(), "https://x/")
