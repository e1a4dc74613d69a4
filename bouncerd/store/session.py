"""One connection to a database server, kept up; what waits for it is told when it is not.

Knows no driver. Nothing that was asked is ever cancelled: who waits is told after some seconds
that there is no answer, and a connection that stays silent is given up as a whole.
"""

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bouncerd.store.base import StoreError, StoreUnavailable
from bouncerd.store.rows import Row, Value

log = Logger()

#: Seconds that a caller waits, for an answer or for a connection. Callers of ours have 5.
PATIENCE = 3.5
CLOSE_WITHIN = 10.0  # seconds for what was asked for before
_LOOK_EVERY = 0.25
_BEAT_EVERY = 1.0  # an idle connection is asked something: silence is noticed before it hurts
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 1.0  # between attempts to connect


class Lost(Exception):
    """The connection is gone. What became of a statement on it is not known."""


class Again(Exception):
    """Another transaction was in the way and this one undone; the same may succeed now."""


class ReadOnly(StoreUnavailable):
    """The database takes no writes: a standby, or an administrator's decision."""


class Connection(Protocol):
    """A connection as a driver makes it."""

    def run(self, statement: str, parameters: Sequence[Value] = ()) -> Deferred[list[Row]]:
        """Run one statement, one at a time; `%s` stands for a parameter.

        Fails with Lost, Again, Conflict, or StoreUnavailable in our own words.
        """

    def close(self) -> None:
        """Let go at once; what runs fails with Lost."""


#: Connects, or fails with StoreUnavailable. Tells by the argument that the connection was lost
#: while nothing ran.
Dial: TypeAlias = Callable[[Callable[[Connection], None]], Deferred[Connection]]
Run: TypeAlias = Callable[[str, Sequence[Value]], Awaitable[list[Row]]]


class Work(Protocol):
    """What is to be done by a connection, and those who wait for it."""

    def waits(self) -> bool:
        """Tell whether there is something to do."""

    async def turn(self, run: Run) -> None:
        """Do some of it; raise Lost if the connection is no good (any more)."""

    def give_up(self, reason: str, asked_before: float = math.inf) -> None:
        """Fail those who wait, what is being done for them included, with StoreUnavailable."""


class Session:
    """Connects, gives its connection to its work turn by turn, and connects again."""

    def __init__(
        self,
        what: str,
        dial: Dial,
        work: Work,
        clock: IReactorTime,
        *,
        answers_within: float = PATIENCE,
        patience: float = PATIENCE,
        beats: bool = False,
        gone: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`what` the store cannot be if this fails: "read".

        Seconds: `answers_within` a statement has its answer, `patience` a caller waits. `gone`
        is told (and why) once the database has been out of reach for as long as callers wait.
        """
        self._what, self._dial, self._work, self._clock = what, dial, work, clock
        self._answers_within, self._patience, self._beats = answers_within, patience, beats
        self._gone = gone
        self._connection: Connection | None = None
        self._made_at = -math.inf
        self._busy = False
        self._asked_at: float | None = None  # what has no answer yet
        self._heard_at = -math.inf
        self._silent_since: float | None = None
        self._reason = "not connected yet"
        self._told = False
        self._delay = _FIRST_DELAY
        self._redial: IDelayedCall | None = None
        self._look: IDelayedCall | None = None
        self._up: list[Deferred[None]] = []
        self._closing_since: float | None = None
        self._closed: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        """Connect; fires once it is connected for the first time."""
        up: Deferred[None] = Deferred()
        self._up.append(up)
        self._silent_since = self._clock.seconds()
        self._look = self._clock.callLater(_LOOK_EVERY, self._looked)
        self._connect()
        return up

    def refusal(self) -> StoreUnavailable | None:
        """Say why nothing can be asked now, or None."""
        if self._closing_since is not None:
            return StoreUnavailable("closed")
        return StoreUnavailable(self._reason) if self._is_out() else None

    def wake(self) -> None:
        """Notice that there is work."""
        connection = self._connection
        if connection is None or self._busy or not self._work.waits():
            return
        self._do(self._work.turn(partial(self._run, connection)), connection)

    def restart(self, reason: str) -> None:
        """Tell all who wait that there will be no answer, and connect anew."""
        self._work.give_up(reason)
        if self._connection is not None and self._busy:
            self._drop(reason)

    def close(self) -> Deferred[None]:
        """Finish what was asked for, if it can be done, and let go."""
        if self._look is None:
            return succeed(None)
        if self._closing_since is None:
            self._closing_since = self._clock.seconds()
            self._end_if_done()
        return self._closed

    # Turns.

    def _do(self, turn: Awaitable[object], connection: Connection) -> None:
        self._busy = True
        Deferred.fromCoroutine(_awaited(turn)).addCallbacks(
            self._turned, self._failed, callbackArgs=(connection,), errbackArgs=(connection,)
        )

    async def _run(
        self, connection: Connection, statement: str, parameters: Sequence[Value] = ()
    ) -> list[Row]:
        if connection is not self._connection:
            raise Lost
        self._asked_at = self._clock.seconds()
        try:
            return await connection.run(statement, parameters)
        finally:
            if connection is self._connection:
                self._asked_at, self._heard_at = None, self._clock.seconds()

    def _turned(self, _: object, connection: Connection) -> None:
        if connection is self._connection:
            self._busy = False
            self.wake()
            self._end_if_done()

    def _failed(self, failure: Failure, connection: Connection) -> None:
        if not failure.check(Lost, StoreUnavailable):
            log.failure("A turn of the store's failed", failure)
        if connection is self._connection:
            self._drop("the connection was lost")

    # Connecting.

    def _connect(self) -> None:
        self._redial = None
        self._dial(self._lost).addCallbacks(self._made, self._not_made)

    def _made(self, connection: Connection) -> None:
        if self._look is None:  # closed meanwhile
            connection.close()
            return
        self._connection, self._made_at = connection, self._clock.seconds()
        self._heard_at, self._asked_at, self._busy = self._made_at, None, False
        self._silent_since = None
        if self._told:
            log.info("The store can be {what} again", what=self._what)
        self._told = False
        up, self._up = self._up, []
        for each in up:
            each.callback(None)
        self.wake()
        self._end_if_done()

    def _not_made(self, failure: Failure) -> None:
        if failure.check(StoreUnavailable, StoreError):
            self._reason = str(failure.value)
        else:
            log.failure("Connecting to the store failed", failure)
            self._reason = "not reachable"
        self._connect_later()

    def _lost(self, connection: Connection) -> None:
        if connection is self._connection and not self._busy:
            self._drop("the connection was lost")

    def _drop(self, reason: str, silent_since: float | None = None) -> None:
        """Give the connection up, and make another."""
        connection, self._connection = self._connection, None
        now = self._clock.seconds()
        self._reason, self._busy, self._asked_at = reason, False, None
        self._silent_since = now if silent_since is None else silent_since
        if now - self._made_at >= _LONGEST_DELAY:  # else it may be one of many in a row
            self._delay = _FIRST_DELAY
        self._connect_later()
        if connection is not None:
            connection.close()
        self._end_if_done()

    def _connect_later(self) -> None:
        if self._look is None:
            return
        delay = self._delay * (0.5 + random.random() / 2)  # noqa: S311  (not all at once)
        self._delay = min(2 * self._delay, _LONGEST_DELAY)
        self._redial = self._clock.callLater(delay, self._connect)

    # Time.

    def _is_out(self) -> bool:
        since = self._silent_since
        return since is not None and self._clock.seconds() - since >= PATIENCE

    def _looked(self) -> None:
        """See to whoever waits too long, and to a connection that is silent."""
        self._look = self._clock.callLater(_LOOK_EVERY, self._looked)
        now = self._clock.seconds()
        silent = self._silent_since is not None
        why = self._reason if silent else "no answer in time"
        self._work.give_up(why, now - self._patience)
        if self._asked_at is not None and now - self._asked_at > self._answers_within:
            self._drop("no answer in time", self._asked_at)
        if self._is_out():
            self._tell()
            self._work.give_up(self._reason)
        connection = self._connection
        idle = connection is not None and not self._busy
        if self._beats and idle and now - self._heard_at >= _BEAT_EVERY:
            assert connection is not None
            self._do(self._run(connection, "SELECT 1"), connection)
        self._end_if_done()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            what, why = self._what, self._reason
            log.error("The store cannot be {what}: {reason}", what=what, reason=why)
            self._gone(self._reason)

    # The end.

    def _end_if_done(self) -> None:
        if self._closing_since is None or self._look is None:
            return
        late = self._clock.seconds() - self._closing_since >= CLOSE_WITHIN
        if self._connection is not None and (self._busy or self._work.waits()) and not late:
            return
        self._look.cancel()
        self._look = None
        if self._redial is not None and self._redial.active():
            self._redial.cancel()
        self._work.give_up("closed")
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._closed.callback(None)


async def _awaited(turn: Awaitable[object]) -> None:
    await turn
