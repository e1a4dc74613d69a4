"""Which lane a push takes: by its app for Apple, by its server for Google."""

from collections.abc import Iterable, Mapping, Sequence

from twisted.logger import Logger

from bouncerd.calls import Call, Saturated
from bouncerd.lane import Lane, Note
from bouncerd.ledger import End, Ledger
from bouncerd.model import Kind, Push
from bouncerd.passing import Waiting

__all__ = ["Call", "Routes", "Saturated"]

log = Logger()


class Routes:
    """All lanes. An `apns` key is a topic, an `fcm` key a server's uuid; None serves the others.

    `note` hears of the pushes that no lane takes, as a lane's hears of its own.
    """

    def __init__(
        self,
        apns: Mapping[str | None, Lane],
        fcm: Mapping[str | None, Lane],
        note: Note | None = None,
    ) -> None:
        self._apns = apns
        self._fcm = fcm
        self._note = note
        #: Whether nothing more is admitted: what waits is on its way to the next process.
        self.closed = False
        #: The books of pushes that no configured provider serves.
        self.nowhere = Ledger()

    @property
    def lanes(self) -> list[Lane]:
        """Every lane once, in the order of the configuration."""
        return list(dict.fromkeys([*self._apns.values(), *self._fcm.values()]))

    def configured(self, kind: Kind) -> bool:
        """Whether any provider section serves that kind of device."""
        return bool(self._apns if kind is Kind.APNS else self._fcm)

    def remap(self, apns: Mapping[str | None, Lane], fcm: Mapping[str | None, Lane]) -> list[Lane]:
        """Serve by these from now on; return the lanes that serve no more, for whoever ends them.

        What waits in those may take the new ways: pause, `to_pass_on`, `take_over`, `passed_on`.
        """
        before = self.lanes
        self._apns, self._fcm = apns, fcm
        kept = set(self.lanes)
        return [lane for lane in before if lane not in kept]

    def lane(self, push: Push) -> Lane | None:
        """Return the lane that a push takes, None if no section serves it."""
        if push.message.kind is Kind.APNS:
            return self._apns.get(push.device.app_id) or self._apns.get(None)
        return self._fcm.get(push.server) or self._fcm.get(None)

    def admit(self, server_uuid: str, pushes: Sequence[Push]) -> Call:
        """Take a call's pushes, all or (Saturated) none."""
        if self.closed:
            raise Saturated
        by_lane: dict[Lane, list[Push]] = {}
        homeless: list[Push] = []
        for push in pushes:
            lane = self.lane(push)
            if lane is None:
                homeless.append(push)
            else:
                by_lane.setdefault(lane, []).append(push)
        for lane, its_pushes in by_lane.items():
            if not lane.can_take(server_uuid, len(its_pushes)):
                raise Saturated
        call = Call(pushes)
        self.nowhere.accepted += len(homeless)
        self._nowhere(homeless, End.REFUSED)
        for _ in homeless:
            call.settle_one()
        for lane, its_pushes in by_lane.items():
            lane.put(call, its_pushes)
        return call

    def take_over(self, waiting: Iterable[Waiting]) -> None:
        """Go on with what another process, or a lane that ends, has left."""
        by_lane: dict[Lane, list[Waiting]] = {}
        homeless: list[Push] = []
        for each in waiting:
            lane = self.lane(each.push)
            if lane is None:
                homeless.append(each.push)
            else:
                by_lane.setdefault(lane, []).append(each)
        self.nowhere.taken_over += len(homeless)
        self._nowhere(homeless, End.LOST)
        if homeless:
            log.error(
                "Lost {count} pushes that waited: no section of the configuration serves them now",
                count=len(homeless),
                alert="pushes-lost",
            )
        for lane, its_own in by_lane.items():
            lane.take_over(its_own)

    def _nowhere(self, pushes: Sequence[Push], end: End) -> None:
        self.nowhere.ends[end] += len(pushes)
        if self._note is not None:
            for push in pushes:
                self._note(push, end.value, "no section")
