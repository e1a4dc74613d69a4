"""Bad weather: a scene in which everything happens at once, from one seed.

A seed is another schedule of calls and faults, and replays.
"""

from collections import Counter
from random import Random

from bouncerd.fakes import frames, steps
from bouncerd.fakes.rules import CONNECT, Match, Rule
from bouncerd.fakes.steps import limit
from bouncerd.model import Message
from bouncerd.patience import Patience
from tests.faults import APPLE, GOOGLE, Fault
from tests.scene import Scene
from tests.scenes import KNOWN, AppleScene, GoogleScene

STORM = 12.0  # seconds of bad weather
NETWORK = ("refused", "silent", "slow", "crowded")


class Storm(Scene):
    """One schedule, played to its end."""

    faults: list[Fault]

    def prepare(self) -> None:
        """Draw the schedule."""
        self.slow_store = 0.5
        self.reached: Counter[str] = Counter()
        self._rules: list[tuple[Rule, Fault]] = []
        for fault in self.random.sample(self.faults, 7):
            if fault.when in ("request", "connect"):
                self.befall(fault)
            else:
                self.clock.callLater(self.random.uniform(1, STORM), self.befall, fault)
        self._plans = [
            (self.random.uniform(2, STORM), plan)
            for plan, probability in ((self.hand_over, 0.25), (self.adopt, 0.25))
            if self.random.random() < probability
        ]

    def change_weather(self, name: str) -> None:
        """Do to the network, or to the credential, what this is called."""
        self.network.weather = name if name in ("refused", "silent", "slow") else "fine"
        self.front.door.most_per_second = 0 if name == "crowded" else None

    def call(self) -> None:
        """Bring one call; sometimes the next one comes from within its answer."""
        server = self.random.choice(["flood", "flood", "b", "c"])
        count = self.random.choice([1, 1, 2, 4, 9 if server == "flood" else 1])
        pushes = [self.push(server, lasts=self.random.choice([30, 600])) for _ in range(count)]
        call = self.admit(server, pushes)
        if call is not None:
            call.settled.addCallback(self.settled).addErrback(self.failures.append)

    def settled(self, _: object) -> None:
        """Hear that a call may be answered; the books balance in that very moment."""
        self.check()
        if self.random.random() < 0.2 and self.clock.seconds() < STORM:
            self.call()

    def befall(self, fault: Fault) -> None:
        """Let a fault happen, now or to what matches."""
        self.excuses |= fault.excuses
        if fault.when == "request":
            match = Match(above=fault.match.above, probability=self.random.choice([0.05, 0.2, 0.5]))
            self._rule(match, fault, self.random.randint(1, 8))
        elif fault.when == "connect":
            self._rule(Match(CONNECT, probability=0.7), fault, self.random.randint(1, 2))
        elif fault.when == "live":
            self.reached[fault.id] += len(self.front.connections)
            self.front.tell(*fault.act)
        else:
            dials = len(self.network.dials)
            self.change_weather(fault.name)
            self.clock.callLater(self.random.uniform(2, 8), self.clear, fault, dials)
            if self.front.connections and self.random.random() < 0.7:
                self.front.tell(steps.Close("abort"))

    def clear(self, fault: Fault, dials: int) -> None:
        """End a spell of weather; one of the network's was felt if somebody dialed in it."""
        self.change_weather("fine")
        self.reached[fault.id] += fault.name not in NETWORK or len(self.network.dials) > dials

    def _rule(self, match: Match, fault: Fault, count: int) -> None:
        self._rules.append((self.front.on(match, *fault.act, count=count), fault))

    def storm(self) -> None:
        """Have everything happen at once."""
        self.prepare()
        self.start()
        while self.clock.seconds() < STORM:
            if self.random.random() < 0.4:
                self.call()
            self.clock.advance(self.random.choice([0.01, 0.4, 1.0, 2.0]) * self.random.random())
            due = [plan for plan in self._plans if plan[0] <= self.clock.seconds()]
            for plan in due:
                self._plans.remove(plan)
                plan[1]()
                self.reached[plan[1].__name__] += 1
        for rule, fault in self._rules:
            self.reached[fault.id] += rule.used

    def clear_up(self) -> None:
        """Let the sun shine until all is delivered or out of time."""
        self.clock.advance(8.1)  # the last spells of weather end
        self.front.rules.clear()
        usual = ((frames.INITIAL_WINDOW_SIZE, 65_535), (frames.HEADER_TABLE_SIZE, 4_096))
        self.front.tell(
            steps.Settings(usual), limit(100), steps.Credit(), steps.Chop(0), steps.Slow(0)
        )
        for _ in range(80):
            if not self.lane.waiting:
                break
            self.clock.advance(10.0)


class AppleStorm(Storm, AppleScene):
    """Bad weather at Apple."""

    faults = APPLE

    def __init__(self, seed: int) -> None:
        random = Random(seed)
        token_mode = random.random() < 0.5
        super().__init__(
            seed,
            token_mode=token_mode,
            size=random.randint(1, 3),
            limit=random.choice([10, 60, 400]),
            latency=(0.01, 0.2),
            throttle=random.random() < 0.3,
            patience=Patience(first=2.0),
            answer_within=15,
            quiet=8,
            idle_close=random.choice([None, 40.0]),
            idle_ping=30.0,
            probe=token_mode or random.random() < 0.5,
            max_age=random.choice([15.0, 5_000.0]),
        )

    def message(self, body: bytes = b"") -> Message:
        """Make an alert, small or large."""
        return super().message(b"{" + b" " * self.random.choice([0, 0, 0, 0, 300, 4_000]) + b"}")

    def change_weather(self, name: str) -> None:
        """Spoil the credential, too."""
        super().change_weather(name)
        self.front.skew = 7_200.0 if name in ("fast", "wedged") else 0.0
        self.front.temper.wedge = name == "wedged"
        if name == "revoked":
            self.front.bearers.revoke("KEY1")
        else:
            self.front.bearers.add(KNOWN)


class GoogleStorm(Storm, GoogleScene):
    """Bad weather at Google."""

    faults = GOOGLE

    def __init__(self, seed: int) -> None:
        random = Random(seed)
        super().__init__(
            seed,
            size=random.randint(1, 3),
            limit=random.choice([10, 60, 400]),
            latency=(0.01, 0.2),
            idle_close=random.choice([30.0, 180.0]),
            max_age=random.choice([15.0, 2_700.0]),
        )

    def message(self, body: bytes = b"") -> Message:
        """Make a message, small or large."""
        content = b"x" * self.random.choice([0, 0, 0, 0, 300, 3_900])
        return super().message(b'{"content":"%s"}' % content)

    def change_weather(self, name: str) -> None:
        """Spoil the access token, or the quota, too."""
        super().change_weather(name)
        self.front.quota = 3 if name == "quota" else None
        if name == "revoked":
            self.tokens.revoke()
        elif name == "no token":
            self.token = None
            self.lane.pump()
        else:
            self.renew()
