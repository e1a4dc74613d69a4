"""Servers whose tokens are mostly bad: they get one push in flight until that changes. Pure.

Apple drops connections on which too much is refused (apns.md 4.1, 5.1), so that one server's junk
would cost all the others theirs. What counts is each server's own latest results; one that has
none bad is not even remembered.
"""

from collections import OrderedDict

#: The weight of the newest result in a server's score.
NEWEST = 1 / 16
#: Score above which probation begins (fifteen bad ones in a row), and below which it ends.
BEGINS, ENDS = 0.6, 0.4
_FORGOTTEN = 0.02


class Probation:
    """Scores by server: 0.0 all good, 1.0 all bad. Bounded; those on probation are kept longest."""

    def __init__(self, most_servers: int = 10_000) -> None:
        self._most = most_servers
        self._scores: OrderedDict[str, float] = OrderedDict()
        self._on: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Return how many are on probation."""
        return len(self._on)

    @property
    def watches(self) -> bool:
        """Whether any server has had a bad token of late: else good ones are no news."""
        return bool(self._scores or self._on)

    def on(self, server: str) -> bool:
        """Whether a server is on probation."""
        return server in self._on

    def judged(self, server: str, *, bad: bool) -> None:
        """Take note of a result; nothing is kept of those who have only good ones."""
        scores = self._on if server in self._on else self._scores
        score = scores.get(server)
        if score is None:
            if not bad:
                return
            score = 0.0
        score += ((1.0 if bad else 0.0) - score) * NEWEST
        if scores is self._on:
            if score < ENDS:
                del self._on[server]
                self._keep(self._scores, server, score)
            else:
                scores[server] = score
        elif score > BEGINS:
            self._scores.pop(server, None)
            self._keep(self._on, server, score)
        elif score < _FORGOTTEN:
            del scores[server]
        else:
            self._keep(scores, server, score)

    def _keep(self, scores: OrderedDict[str, float], server: str, score: float) -> None:
        if server not in scores and len(scores) >= self._most:
            scores.popitem(last=False)
        scores[server] = score
