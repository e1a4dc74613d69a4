"""Everything that Apple does on a bad day, one after the other, under steady traffic.

Fifty servers push; two connections carry it. In the end nothing is unaccounted for, `unknown` is
only what was cut off twice, and a phone sees a push twice only where the first attempt's fate was
unknown (Scene.judge).
"""

from collections.abc import Callable, Iterator
from random import Random

from bouncerd.fakes import frames
from bouncerd.fakes.apns import goaway, refuse
from bouncerd.fakes.exchange import Exchange
from bouncerd.fakes.front import Front
from bouncerd.fakes.rules import Match
from bouncerd.fakes.steps import Close, GoAway, Ignore, Reset, Script, limit
from tests.scene import Scene

SERVERS = [f"server {number}" for number in range(50)]
SECONDS = 20.0  # of traffic
STEP = 0.1
Act = Callable[[Front], object]


def _one(*act: object) -> Act:
    script: Script = act  # type: ignore[assignment]

    def play(front: Front) -> None:
        for connection in front.connections[:1]:
            connection.play(script, Exchange(connection))

    return play


def _all(*act: object) -> Act:
    script: Script = act  # type: ignore[assignment]
    return lambda front: front.tell(*script)


def _some(probability: float, count: int, *act: object) -> Act:
    script: Script = act  # type: ignore[assignment]
    return lambda front: front.on(Match(probability=probability), *script, count=count)


#: Seconds after the beginning, and what happens then.
PLAN: list[tuple[float, Act]] = [
    (1.0, _one(goaway("Shutdown"))),
    (2.0, _all(goaway("Shutdown"))),
    (3.0, _one(GoAway(), Close("abort"))),
    (4.0, _all(GoAway(0), Close("fin"))),
    (5.0, _some(0.3, 300, Reset(frames.REFUSED_STREAM))),
    (7.0, _all(limit(1))),
    (7.5, _all(limit(1_000))),
    (8.0, _all(limit(1))),
    (8.5, _all(limit(1_000))),
    (9.0, _one(Close("abort"))),
    (10.5, _all(Close("cut"))),
    (12.0, _some(0.3, 200, refuse(500, "InternalServerError"))),
    (12.5, _some(0.3, 200, refuse(503, "ServiceUnavailable"))),
    (14.0, _one(Ignore())),  # a black hole, the other connection works
    (16.0, _some(0.1, 20, Reset(frames.INTERNAL_ERROR))),
    (17.0, _some(0.01, 3, Close("abort"))),
]


def onslaught(scene: Scene, pushes: int) -> Iterator[float]:
    """Bring so many pushes, and all of PLAN; yield how many seconds to let pass."""
    random, plan = Random(7), list(PLAN)
    steps = round(SECONDS / STEP)
    for step in range(steps):
        while plan and plan[0][0] <= step * STEP:
            plan.pop(0)[1](scene.front)
        due = pushes * (step + 1) // steps - scene.accepted
        while due > 0:
            count = min(due, random.randint(1, 20))
            scene.send(count, server=random.choice(SERVERS))
            due -= count
        yield STEP
    scene.front.rules.clear()
    while scene.lane.waiting:
        yield 1.0
