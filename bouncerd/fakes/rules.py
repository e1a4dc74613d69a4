"""Rules: what a fake does differently, to which streams and how often. Data, first match wins."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from bouncerd.fakes.steps import Script

REQUEST, CONNECT, HANDSHAKE = "request", "connect", "handshake"


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule is about; a field left alone matches everything.

    `event`: "request" (its body is in), "connect" (accepted; the greeting is replaced) or
    "handshake" (TLS is done). `token` is a prefix of the device token, `topic` the whole one,
    `connection` a connection's number from 1, `nth` the n-th stream of its connection from 1,
    `above` all streams after the n-th, `probability` a share of what matches otherwise.
    """

    event: str = REQUEST
    token: str = ""
    topic: str = ""
    connection: int = 0
    nth: int = 0
    above: int = 0
    probability: float = 1.0

    def covers(self, connection: int, nth: int, token: str, topic: str) -> bool:
        """Tell whether these facts fit, chance left aside."""
        return (
            token.startswith(self.token)
            and (not self.topic or topic == self.topic)
            and (not self.connection or connection == self.connection)
            and (not self.nth or nth == self.nth)
            and nth >= self.above + (1 if self.above else 0)
        )


@dataclass(slots=True, eq=False)
class Rule:
    """Do `act` to what matches, `count` times (None: always). `used` says how often it was."""

    match: Match
    act: Script
    count: int | None = None
    used: int = 0


@dataclass(slots=True)
class Rules:
    """The rules of one fake, in order."""

    chance: random.Random
    listed: list[Rule] = field(default_factory=list)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.listed)

    def add(self, match: Match, act: Script, count: int | None = None) -> Rule:
        """Append a rule."""
        rule = Rule(match, act, count)
        self.listed.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Take a rule away."""
        self.listed.remove(rule)

    def clear(self) -> None:
        """Forget all rules."""
        self.listed.clear()

    def find(
        self, event: str, connection: int, nth: int = 0, token: str = "", topic: str = ""
    ) -> Script | None:
        """Find what to do, and use up one of the rule's times; None: nothing special."""
        for rule in self.listed:
            match = rule.match
            if match.event != event or not match.covers(connection, nth, token, topic):
                continue
            if rule.count is not None and rule.used >= rule.count:
                continue
            if match.probability < 1 and self.chance.random() >= match.probability:
                continue
            rule.used += 1
            return rule.act
        return None
