"""One line a minute on what went well, which has no lines of its own; none if nothing happened."""

from collections import Counter
from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bouncerd.lane import Lane
from bouncerd.ledger import Ledger
from bouncerd.meters import Requests
from bouncerd.watch import Ticker

log = Logger()

EVERY = 60.0


class Summary(Ticker):
    """Tells what has changed in the books since the last line."""

    def __init__(
        self,
        clock: IReactorTime,
        requests: Requests,
        lanes: Sequence[Lane],
        nowhere: Ledger,
    ) -> None:
        super().__init__(clock, EVERY)
        self._requests = requests
        self._lanes = lanes
        self._nowhere = nowhere
        self._told: Counter[str] = Counter()
        self._told_at = clock.seconds()

    def tick(self) -> None:
        """Tell."""
        now, at = self._now(), self._clock.seconds()
        new = Counter({name: max(now[name] - self._told[name], 0) for name in now})
        since = at - self._told_at
        self._told, self._told_at = now, at
        if not any(new.values()):
            return
        log.info(
            "In {seconds} s: {requests} calls, {failed} of them without success; pushes:"
            " {delivered} delivered, {gone} gone, {refused} refused, {expired} expired,"
            " {retries} retries, {waiting} waiting",
            seconds=round(since),
            requests=new["requests"],
            failed=new["failed"],
            delivered=new["delivered"],
            gone=new["gone"],
            refused=new["refused"],
            expired=new["expired"],
            returned=new["returned"],
            unknown=new["unknown"],
            lost=new["lost"],
            retries=new["retries"],
            waiting=sum(lane.waiting for lane in self._lanes),
        )

    def _now(self) -> Counter[str]:
        books = [lane.ledger for lane in self._lanes]
        now = Counter(requests=self._requests.total(), failed=self._requests.failed())
        for ledger in [*books, self._nowhere]:
            for end, count in ledger.ends.items():
                now[end.value] += count
        for lane in self._lanes:
            for (kind, _), count in lane.reasons.items():
                if kind == "retry":
                    now["retries"] += count
        return now
