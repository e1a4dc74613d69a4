"""The fault matrix: what upstream may do, by its id, and what must hold then.

A row is one fault for the first of five pushes, or for the first connection, or for all that
live; the others must be delivered, the books balance at every step, and no rule be broken.
Scenarios that need more are test methods; `shows` says of which ids.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bouncerd.fakes.rules import CONNECT, Match
from bouncerd.fakes.steps import Script
from tests.scene import Scene

F = TypeVar("F", bound=Callable[..., Any])

PUSHES = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One fault, and what must have come of the first push: its `end`, after so many `attempts`.

    `when`: "request", "connect" or "live". `links`: connections that it takes. `within`: seconds
    in which all have ended. `again`: whether a phone may see the push twice.
    """

    id: str
    what: str
    act: Script
    end: str = "delivered"
    when: str = "request"
    attempts: int = 1
    links: int = 1
    within: float = 5.0
    again: bool = False
    excuses: frozenset[str] = frozenset()
    others: Mapping[str, Any] = field(default_factory=dict)  # for the scene

    def play(self, build: Callable[..., Scene]) -> None:
        """Play it; raises AssertionError."""
        scene = build(**self.others)
        scene.excuses |= self.excuses
        if self.when == "connect":
            scene.front.on(Match(CONNECT), *self.act, count=1)
        scene.start()
        if self.when != "connect":
            scene.clock.advance(1.0)
        if self.when == "live":
            scene.send(1)
            scene.clock.advance(0.2)
        first = scene.push()
        if self.when == "request":
            scene.front.on(Match(), *self.act, count=1)
        scene.admit("s", [first])
        scene.clock.advance(0.02)
        if self.when == "live":
            scene.front.tell(*self.act)
        others = scene.send(PUSHES - 1)
        scene.clock.advance(self.within)
        for push in others:
            assert scene.ends[push.id] == ["delivered"], scene.ends
        self.judge(scene, first.id)
        scene.stop()
        scene.judge()

    def judge(self, scene: Scene, identity: str) -> None:
        """Hold the first push against the row."""
        ledger = scene.front.ledger
        assert scene.ends[identity] == [self.end], (scene.ends[identity], scene.heard[identity])
        assert len(scene.heard[identity]) == self.attempts, scene.heard[identity]
        assert len(ledger.visits) == self.links, list(ledger.visits)
        shown = [each for each in scene.shown() if scene.identity(each) == identity]
        assert len(shown) <= 1 + self.again, shown
        assert bool(shown) == (self.end == "delivered"), (self.end, shown)


def shows(*ids: str) -> Callable[[F], F]:
    """Say which ids a test method is the scenario of."""

    def mark(method: F) -> F:
        method.ids = ids  # type: ignore[attr-defined]
        return method

    return mark


def shown_by(*cases: object) -> set[str]:
    """List the ids that the functions of these classes and modules are scenarios of."""
    return {each for case in cases for method in vars(case).values() for each in _ids(method)}


def _ids(method: object) -> Iterable[str]:
    found: Iterable[str] = getattr(method, "ids", ())
    return found
