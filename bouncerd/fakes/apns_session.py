"""What Apple remembers of one connection, and whom it takes its client for (apns.md 2)."""

from collections.abc import Callable
from dataclasses import dataclass

from bouncerd.fakes.apns_checks import Problem
from bouncerd.fakes.bearers import Bearer, Bearers, Key
from bouncerd.fakes.certificates import CertificateUse

LONGEST_AGE = 3600.0  # seconds that a provider token may be used, and clocks may differ
BETWEEN_TOKENS = 1200.0  # seconds between two distinct tokens on one connection
ORDINARY_STREAMS = 1000

INVALID = Problem(403, "InvalidProviderToken")
EXPIRED = Problem(403, "ExpiredProviderToken")
TOO_MANY = Problem(429, "TooManyProviderTokenUpdates")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a provider token is judged against; `wall` in unix seconds, `clock` monotonic."""

    bearers: Bearers
    environment: str
    wedge: bool  # an expired token spoils the connection for good
    wall: float
    clock: float
    topic: str
    violate: Callable[[str], None]


@dataclass(slots=True)
class Session:
    """One connection's memory, from its first push on."""

    bearer: bytes = b""  # the provider token last used
    adopted_at: float = 0.0  # the clock's seconds when it was first used here
    key: Key | None = None  # of the first push
    spoiled: Problem | None = None  # what every further push is answered
    certificate: CertificateUse | None = None
    limit: int = ORDINARY_STREAMS  # the number of streams last announced

    def check_bearer(self, header: bytes | None, now: Circumstances) -> Problem | None:
        """Judge the `authorization` of a push; remember the token if it is good."""
        if self.spoiled is not None:
            return self.spoiled
        if not header or header[:7].lower() != b"bearer ":
            return Problem(403, "MissingProviderToken")
        token = header[7:]
        bearer = now.bearers.read(token)
        if bearer is None:
            return INVALID
        return (
            self._check_age(bearer, now)
            or self._check_key(bearer, now)
            or self._adopt(token, bearer, now)
        )

    def _check_age(self, bearer: Bearer, now: Circumstances) -> Problem | None:
        age = now.wall - bearer.issued_at
        if age < -LONGEST_AGE:
            return INVALID
        if age <= LONGEST_AGE:
            return None
        now.violate("provider token older than 60 minutes")
        if now.wedge:
            self.spoiled = Problem(500, "InternalServerError")
        return EXPIRED

    def _check_key(self, bearer: Bearer, now: Circumstances) -> Problem | None:
        """Hold a connection to the team and the kind of key that its first push had."""
        key, first = bearer.key, self.key or bearer.key
        if key.environment not in (None, now.environment):
            return Problem(403, "BadEnvironmentKeyIdInToken")
        if key.team_id != first.team_id:
            return INVALID
        bound = key.topics is not None or first.topics is not None
        if bound and key.key_id not in (first.key_id, first.related):
            return Problem(403, "UnrelatedKeyIdInToken")
        if key.topics is not None and now.topic not in key.topics:
            return Problem(400, "TopicDisallowed")
        return None

    def _adopt(self, token: bytes, bearer: Bearer, now: Circumstances) -> Problem | None:
        """Take a token that differs from the last one, if that was long enough ago."""
        if token == self.bearer:
            return None
        if self.bearer and now.clock - self.adopted_at < BETWEEN_TOKENS:
            now.violate("provider token changed within 20 minutes")
            self.spoiled = TOO_MANY
            return TOO_MANY
        self.bearer, self.adopted_at, self.key = token, now.clock, self.key or bearer.key
        return None
