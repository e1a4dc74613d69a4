"""Which lane a push takes: by its app for Apple, by its server for Google."""

from collections.abc import Mapping, Sequence

from bouncerd.calls import Call, Saturated
from bouncerd.lane import Lane
from bouncerd.ledger import End, Ledger
from bouncerd.model import Kind, Push

__all__ = ["Call", "Routes", "Saturated"]


class Routes:
    """All lanes. An `apns` key is a topic, an `fcm` key a server's uuid; None serves the others."""

    def __init__(self, apns: Mapping[str | None, Lane], fcm: Mapping[str | None, Lane]) -> None:
        self._apns = apns
        self._fcm = fcm
        #: The books of pushes that no configured provider serves.
        self.nowhere = Ledger()

    @property
    def lanes(self) -> list[Lane]:
        """Every lane once, in the order of the configuration."""
        return list(dict.fromkeys([*self._apns.values(), *self._fcm.values()]))

    def configured(self, kind: Kind) -> bool:
        """Whether any provider section serves that kind of device."""
        return bool(self._apns if kind is Kind.APNS else self._fcm)

    def lane(self, push: Push) -> Lane | None:
        """Return the lane that a push takes, None if no section serves it."""
        if push.message.kind is Kind.APNS:
            return self._apns.get(push.device.app_id) or self._apns.get(None)
        return self._fcm.get(push.server) or self._fcm.get(None)

    def admit(self, server_uuid: str, pushes: Sequence[Push]) -> Call:
        """Take a call's pushes, all or (Saturated) none."""
        by_lane: dict[Lane, list[Push]] = {}
        homeless = 0
        for push in pushes:
            lane = self.lane(push)
            if lane is None:
                homeless += 1
            else:
                by_lane.setdefault(lane, []).append(push)
        for lane, its_pushes in by_lane.items():
            if not lane.can_take(server_uuid, len(its_pushes)):
                raise Saturated
        call = Call(pushes)
        self.nowhere.accepted += homeless
        self.nowhere.ends[End.REFUSED] += homeless
        for _ in range(homeless):
            call.settle_one()
        for lane, its_pushes in by_lane.items():
            lane.put(call, its_pushes)
        return call
