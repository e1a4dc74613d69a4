"""Google's access tokens: one per service account, fetched by treq, a fresh one always at hand.

Knows fcm.md 2.2 and 2.3. Nobody waits for an exchange here: `current` is a token that is good, or
None. Of what the endpoint says only documented codes go on; the text beside them is compared,
never repeated.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Protocol

from treq.client import HTTPClient
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.reflect import qual
from twisted.web.client import FileBodyProducer, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgent, IResponse

from bouncerd.answers import json_object, number
from bouncerd.seldom import Seldom
from bouncerd.words import NotConnected

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: Seconds for a whole exchange; bytes of an answer.
TIMEOUT = 10.0
MAX_ANSWER = 65_536
MAX_TOKEN = 4096
#: Seconds before its end that a token is replaced, with jitter on top; and that its use ends.
EARLY = 300.0
EARLY_JITTER = 60.0
MARGIN = 30.0
#: Seconds between exchanges: at least, after a refusal, and at most while it fails.
PACE = 10.0
REFUSED_WAIT = 60.0
LONGEST_BACKOFF = 60.0
#: What is assumed where the answer does not say, and what is believed at most, in seconds.
UNSAID_LIFETIME = 600.0
LONGEST_LIFETIME = 43_200.0

_TEMPORARY = frozenset({"internal_failure", "server_error", "temporarily_unavailable"})
_REFUSALS = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
# What an invalid_grant is about, by a phrase of its description.
_HINTS = (
    ("jwt signature", "its key was deleted or disabled"),
    ("short-lived token", "is this host's clock right?"),
    ("reasonable timeframe", "is this host's clock right?"),
    ("not found", "no such account"),
    ("deleted", "no such account"),
)

log = Logger()


class Assertion(Protocol):
    """What an account shows to get a token; `bearer.GoogleAssertion` is one."""

    token_uri: str

    def sign(self, now: float) -> str:
        """Return an assertion that is good at `now` (unix seconds)."""


@dataclass(frozen=True, slots=True)
class State:
    """What the last exchange came to: `ok`, `starting`, `down` or `refused`; and why."""

    name: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """A token, and its lifetime in seconds from the moment it was asked for."""

    token: str = field(repr=False)
    lifetime: float


class Down(Exception):
    """The exchange failed for now: try again soon. The text is ours."""


class AccountRefused(Exception):
    """Google wants no more of this account: the operator must act. The text is ours."""


class AccessToken:
    """The access token of one service account, kept fresh. `name` is for the log.

    `clock` times everything; `now` is the wall clock (unix seconds) for the assertion.
    """

    def __init__(
        self,
        name: str,
        assertion: Assertion,
        agent: IAgent,
        clock: IReactorTime,
        now: Callable[[], float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.state = State("starting")
        #: Called when a new token has come, and when one has run out. Never within `invalidate`.
        self.on_change: Callable[[], None] = _nothing
        self._name = name
        self._assertion = assertion
        self._http = HTTPClient(agent, data_to_body_producer=self._form)
        self._clock = clock
        self._now = now
        self._jitter = jitter
        #: When the token's use ends, by the clock; None if there is none.
        self.good_until: float | None = None
        self._token: str | None = None
        self._asked_at = 0.0
        self._failures = 0
        self._alerts = Seldom()
        self._running = False
        self._exchange: Deferred[Grant] | None = None
        self._next: IDelayedCall | None = None
        self._lapse: IDelayedCall | None = None

    def start(self) -> None:
        """Ask for the first token now, and for each next one in time."""
        self._running = True
        self._ask()

    def stop(self) -> None:
        """Ask no more; an exchange under way is given up."""
        self._running = False
        _cancel(self._next)
        _cancel(self._lapse)
        if self._exchange is not None:
            self._exchange.cancel()

    def current(self) -> str | None:
        """Return a token that is good now, if there is one."""
        return self._token

    def invalidate(self, token: str) -> None:
        """Replace a token that FCM refused, unless that is done; not more often than PACE."""
        if token != self._token:
            return
        if self._exchange is None and self._running:
            waited = self._clock.seconds() - self._asked_at  # negative after a step of the clock
            self._ask_in(min(max(PACE - waited, 0.0), PACE))
        self._discard()

    # --- one exchange at a time

    def _ask_in(self, delay: float) -> None:
        _cancel(self._next)
        self._next = self._clock.callLater(delay, self._ask)

    def _ask(self) -> None:
        self._next = None
        self._asked_at = self._clock.seconds()
        exchange = self._exchange = Deferred.fromCoroutine(self._fetch())
        exchange.addTimeout(TIMEOUT, self._clock, _timed_out)
        settled = exchange.addCallbacks(self._granted, self._failed)
        settled.addErrback(lambda failure: log.failure("an exchange was not settled", failure))

    async def _fetch(self) -> Grant:
        response: IResponse = await self._http.post(
            self._assertion.token_uri,
            data={"grant_type": GRANT_TYPE, "assertion": self._assertion.sign(self._now())},
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,  # type: ignore[arg-type] # given none, treq takes the global one
        )
        body = _Body()
        response.deliverBody(body)
        return judge(response.code, await body.read)

    def _form(self, form: bytes) -> FileBodyProducer:
        # treq's own choice would be paced by the global reactor.
        cooperator = Cooperator(scheduler=lambda step: self._clock.callLater(0, step))
        return FileBodyProducer(BytesIO(form), cooperator=cooperator)

    def _granted(self, grant: Grant) -> None:
        self._exchange = None
        self._failures = 0
        elapsed = min(max(self._clock.seconds() - self._asked_at, 0.0), TIMEOUT)
        # A short-lived token is replaced at half its life and used for nine tenths of it.
        early = min(EARLY + EARLY_JITTER * self._jitter(), grant.lifetime / 2)
        margin = min(MARGIN, grant.lifetime / 10)
        self._ask_in(max(grant.lifetime - early, PACE) - elapsed)
        _cancel(self._lapse)
        lapse = max(grant.lifetime - margin - elapsed, 0.0)
        self._lapse = self._clock.callLater(lapse, self._lapsed)
        self.good_until = self._clock.seconds() + lapse
        self._token = grant.token
        self._enter(State("ok"))
        self.on_change()

    def _failed(self, failure: Failure) -> None:
        self._exchange = None
        if not self._running:
            return
        if failure.check(AccountRefused) is not None:
            self._ask_in(REFUSED_WAIT)
            self._enter(State("refused", str(failure.value)))
            return
        ceiling = min(2.0 ** min(self._failures, 10), LONGEST_BACKOFF)
        self._failures += 1
        self._ask_in(ceiling * (1 + self._jitter()) / 2)
        self._enter(State("down", _why(failure)))

    def _enter(self, state: State) -> None:
        before, self.state = self.state, state
        if state == before or (state.name == "ok" and before.name == "starting"):
            return
        if state.name == "ok":
            log.info("{account}: Google gives access tokens again", account=self._name)
            return
        refused = state.name == "refused"
        alerts = refused and self._alerts.due(self._name, self._clock.seconds())
        rest = "" if self._token is None else " (the old one is still good)"
        if alerts:
            log.error(
                "{account}: no new access token from Google: {reason}{rest}",
                account=self._name,
                reason=state.reason,
                rest=rest,
                alert="credential-refused",
            )
        else:
            log.warn(
                "{account}: no new access token from Google: {reason}{rest}",
                account=self._name,
                reason=state.reason,
                rest=rest,
            )

    # --- a token's end

    def _lapsed(self) -> None:
        log.error("{account}: the access token has run out; pushes wait", account=self._name)
        self._discard()
        self.on_change()

    def _discard(self) -> None:
        _cancel(self._lapse)
        self._token = self.good_until = None


def judge(status: int, body: bytes) -> Grant:
    """Return what an answer of the token endpoint grants, or raise Down or AccountRefused."""
    said = json_object(body)
    if status == 200:
        return _grant(said)
    error, description = _word(said.get("error")), _word(said.get("error_description")).lower()
    if status >= 500 or status in (408, 429) or _TEMPORARY & {error, description}:
        raise Down(f"HTTP {status}")
    if error not in _REFUSALS:
        raise AccountRefused(f"unknown error (HTTP {status})")
    hint = next((words for phrase, words in _HINTS if phrase in description), "")
    raise AccountRefused(f"{error} ({hint})" if hint and error == "invalid_grant" else error)


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _grant(said: dict[str, object]) -> Grant:
    token, kind = said.get("access_token"), said.get("token_type", "Bearer")
    if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN:
        raise Down("an answer without a token")
    if not all("!" <= character <= "~" for character in token):
        raise Down("a token that fits no header")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise Down("a token that is no bearer token")
    lifetime = number(said.get("expires_in"))
    if lifetime is None:
        lifetime = UNSAID_LIFETIME
    if lifetime <= 0:
        raise Down("a token that has run out")
    return Grant(token, min(lifetime, LONGEST_LIFETIME))


class _Body(protocol.Protocol):
    """An answer's body, up to MAX_ANSWER. `read` closes the connection when cancelled."""

    def __init__(self) -> None:
        self.read: Deferred[bytes] = Deferred(self._hang_up)
        self._chunks: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        if self.read.called:
            return
        self._size += len(data)
        self._chunks.append(data)
        if self._size > MAX_ANSWER:
            self._hang_up(self.read, Down("an answer that does not end"))

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        if self.read.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss) is not None:
            self.read.callback(b"".join(self._chunks))
        else:
            self.read.errback(Down("an answer that broke off"))

    def _hang_up(self, read: Deferred[bytes], why: Exception | None = None) -> None:
        read.errback(why or CancelledError())
        if self.transport is not None:
            self.transport.loseConnection()


def _timed_out(_result: object, _seconds: float) -> Failure:
    return Failure(Down("timeout"))


def _why(failure: Failure) -> str:
    """Name what went wrong: our own words, or classes of exceptions."""
    if failure.check(Down) is not None:
        return str(failure.value)
    if isinstance(failure.value, NotConnected):
        return failure.value.why
    inner = getattr(failure.value, "reasons", None) or []
    return ": ".join(_name(each) for each in (failure, *inner))


def _name(failure: Failure) -> str:
    kind = type(failure.value)
    return qual(kind) if kind.__name__ == "Error" else kind.__name__  # OpenSSL's, for one


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()


def _nothing() -> None:
    """Nobody listens."""
