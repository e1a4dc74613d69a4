"""A lane for tests: over a pool, over a server in memory, on one clock."""

from collections.abc import Callable
from random import Random

from twisted.internet.defer import Deferred, succeed

from bouncerd.calls import Call
from bouncerd.lane import Lane, Note
from bouncerd.link import Manners
from bouncerd.model import Gone, Push
from bouncerd.patience import APNS_PATIENCE, Patience
from bouncerd.pool import Pool
from bouncerd.routes import Routes
from tests.memory import APP, Server, SimpleProvider, a_push
from tests.virtual import VirtualClock

MANNERS = Manners(answer_within=30, quiet=15)


class LaneKit:
    """A lane over a pool over a server in memory, on one clock."""

    def __init__(
        self,
        *,
        limit: int = 100,
        keep_for: float = 600.0,
        size: int = 1,
        patience: Patience = APNS_PATIENCE,
        manners: Manners = MANNERS,
        note: Note | None = None,
        provider: SimpleProvider | None = None,
        refusal: Callable[[bytes], str | None] = lambda _debug: None,
        **server: int,
    ) -> None:
        self.clock = VirtualClock()
        self.server = Server(self.clock, **server)
        self.provider = provider or SimpleProvider()
        self.forgotten: list[tuple[Push, Gone, float]] = []
        self.forgetting: Deferred[None] | None = None
        self.forget_fails = False
        random = Random(7)
        self.pool = Pool("apns", self.server.connect, manners, size, self.clock, random, refusal)
        self.lane = Lane(
            self.provider, self.pool, self.clock, self.clock.seconds, random, self.forget,
            limit=limit, keep_for=keep_for, patience=patience, note=note,
        )  # fmt: skip
        self.routes = Routes({None: self.lane}, {})

    def forget(self, push: Push, gone: Gone, sent_at: float) -> Deferred[None]:
        """Be the store."""
        self.forgotten.append((push, gone, sent_at))
        if self.forget_fails:
            raise RuntimeError("canary")
        return self.forgetting or succeed(None)

    def start(self) -> None:
        """Connect."""
        self.pool.start(self.lane)
        self.clock.pump([0.0, 1.0, 1.0])

    def admit(
        self, count: int = 1, server: str = "s1", token: str = "c0ffee", app: str = APP
    ) -> Call:
        """Bring a call of so many pushes."""
        call = self.routes.admit(server, [a_push(token, server, app=app) for _ in range(count)])
        self.clock.advance(0)
        return call

    def ends(self) -> dict[str, int]:
        """Return the ends that occurred."""
        self.check()
        return {end.value: count for end, count in self.lane.ledger.ends.items() if count}

    def check(self) -> None:
        """Hold the books against the queue."""
        assert self.lane.ledger.waiting() == self.lane.waiting
