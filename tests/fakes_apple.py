"""A desk to push to the stand-in for Apple from: a client, a clock and a key."""

from typing import Any

from twisted.internet.task import Clock

from bouncerd.fakes.apns import Apns
from bouncerd.fakes.bearers import Key
from tests.fakes_kit import NOW, Answer, RawClient, bearer, known, push_lines, signing_key

BODY = b'{"aps":{"alert":"hello"}}'
KEY, OTHER_KEY = signing_key(), signing_key()
BEARER = bearer(KEY)


class AppleDesk:
    """A fake, a client and a clock, to push through."""

    def __init__(self, *keys: Key, mode: str = "token", sandbox: bool = False) -> None:
        self.clock = Clock()
        self.apns = Apns(
            self.clock,
            keys=keys or (known(KEY),),
            mode=mode,
            sandbox=sandbox,
            now=lambda: NOW + self.clock.seconds(),
            latency=(0, 0),
        )
        self.client = RawClient(self.apns)

    def push(
        self,
        authorization: str = BEARER,
        token: str = "ab" * 32,
        body: bytes = BODY,
        **others: Any,
    ) -> Answer:
        """Send one push and return its answer."""
        lines = push_lines(authorization, token, **others)
        return self.client.answer(self.client.request(lines, body))

    def verdict(self, authorization: str = BEARER, **others: Any) -> str:
        """Send one push; say what was recorded as its answer."""
        self.push(authorization, **others)
        return self.apns.ledger.received[-1].verdict

    def broken(self) -> list[str]:
        """Name the rules that the client broke."""
        return self.apns.ledger.rules_broken()
