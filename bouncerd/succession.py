"""What waits goes from one process to the next, in the memory that systemd keeps between them.

The old one stores it and waits for the barrier before it counts it as handed over. The new one
reads it, has it removed, waits for the barrier, and only then sends: a crash before that loses
nothing, and a crash after it sends nothing twice.
"""

import os
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import replace

from twisted.logger import Logger

from bouncerd import handover
from bouncerd.handover import HandOver, Unreadable
from bouncerd.ledger import End
from bouncerd.notifying import Notifier
from bouncerd.passing import Waiting
from bouncerd.routes import Routes

log = Logger()

#: What the descriptors are called in systemd's store.
NAME, PROBE = "bouncerd-waiting", "bouncerd-probe"
_ALERT = "pushes-lost"
_FIRST = 3  # of passed descriptors: sd_listen_fds(3)


def inherited(environ: MutableMapping[str, str]) -> list[int]:
    """Return the descriptors of what earlier processes left; our children will not be told.

    Twisted takes the other variables of sd_listen_fds(3) away when its endpoints are imported.
    """
    found = []
    names = environ.pop("LISTEN_FDNAMES", "")
    for descriptor, name in enumerate(names.split(":") if names else [], _FIRST):
        if name not in (NAME, PROBE) or not _is_open(descriptor):
            continue
        os.set_inheritable(descriptor, False)
        if name == NAME:
            found.append(descriptor)
        else:  # of a process that was killed while it tried the store
            os.close(descriptor)
    return found


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class Succession:
    """Both ends of the hand-over. `left`: the descriptors of `inherited`; `now`: unix time."""

    def __init__(self, notifier: Notifier, left: Sequence[int], now: Callable[[], float]) -> None:
        self._notifier = notifier
        self._left = list(left)
        self._now = now
        #: Whether what we leave would be kept; known once `begin` is over.
        self.kept = False

    async def begin(self, routes: Routes) -> None:
        """Take up what was left, and find out whether what we leave would be kept."""
        await self._take_up(routes)
        self.kept = await self._notifier.keeps(PROBE)
        if self._notifier.heard and not self.kept:
            log.info("No descriptor store: at a stop, what waits has a few seconds, and is lost")

    async def pass_on(self, waiting: Sequence[Waiting]) -> bool:
        """Leave what waits to the next process; False: it is still ours alone."""
        try:
            descriptor = handover.seal(handover.encode(waiting, self._now()))
        except Exception:  # noqa: BLE001 -- whatever it is: what waits is still ours, and can be sent
            log.failure("What waits could not be written down for the next process")
            return False
        try:
            self._notifier.store(descriptor, NAME)
            if await self._notifier.barrier():
                return True
            # It may come to be stored yet; nobody may take it up then.
            handover.mark_taken(descriptor)
            self._notifier.remove(NAME)
            return False
        finally:
            os.close(descriptor)

    async def _take_up(self, routes: Routes) -> None:
        left, self._left = _told_apart(self._left), []
        if not left:
            return
        waiting = [each for descriptor in left for each in self._read(descriptor, routes)]
        self._notifier.remove(NAME)
        self._notifier.remove(PROBE)
        if not await self._notifier.barrier():
            log.warn("The supervisor does not say that it has forgotten what we took over")
        for descriptor in left:
            handover.mark_taken(descriptor)
            os.close(descriptor)
        now = self._now()
        in_time = [each for each in waiting if each.deadline > now]
        if in_time:
            log.info("Took over {count} pushes", count=len(in_time))
            routes.take_over(in_time)
        _lose(routes, len(waiting) - len(in_time), "their time was up")

    def _read(self, descriptor: int, routes: Routes) -> Iterable[Waiting]:
        try:
            data = handover.unseal(descriptor)
            return () if data is None else _as_of_now(handover.decode(data), self._now())
        except Unreadable as unreadable:
            _lose(routes, unreadable.count, unreadable.why, known=unreadable.count > 0)
            return ()


def _told_apart(descriptors: Iterable[int]) -> list[int]:
    """Leave out, and close, what is the same memory once more: it must not be sent twice."""
    found: dict[tuple[int, int], int] = {}
    for each in descriptors:
        status = os.fstat(each)
        if found.setdefault((status.st_dev, status.st_ino), each) != each:
            os.close(each)
    return list(found.values())


def _as_of_now(left: HandOver, now: float) -> Iterable[Waiting]:
    """Return what waits by our clock; it was set back if what was written is of the future."""
    behind = left.written - now
    if behind <= 0:
        return left.waiting
    return [
        replace(each, deadline=each.deadline - behind, due=each.due - behind)
        for each in left.waiting
    ]


def _lose(routes: Routes, count: int, why: str, *, known: bool = True) -> None:
    """Count what another process left as lost, in one line."""
    routes.nowhere.taken_over += count
    routes.nowhere.ends[End.LOST] += count
    if not known:
        log.error("Lost what another process left, of unknown count: {why}", why=why, alert=_ALERT)
    elif count:
        log.error(
            "Lost {count} pushes that another process left: {why}",
            count=count,
            why=why,
            alert=_ALERT,
        )
