"""Whether the daemon is well: alive, ready, and how its providers are. Never on a public address.

Ready means: listening, the store reachable, and not stopping. A provider's outage is told, and
turns nothing red: it must not take every host out of the balancer. Nobody waits for an answer
here: what the store says was asked within the last seconds (watch.py).
"""

import json
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import Request

from bouncerd.lane import Lane
from bouncerd.watch import StoreWatch

JSON = b"application/json"


class Health:
    """What the daemon knows of itself; the service says when it listens and when it stops."""

    def __init__(
        self,
        store: StoreWatch,
        lanes: Sequence[Lane],
        token_state: Callable[[str], str],
        clock: IReactorTime,
    ) -> None:
        """`token_state` says of a lane by its name what its access token lacks; "" for nothing."""
        self.listening = False
        self.stopping = False
        self._store = store
        self._lanes = lanes
        self._token_state = token_state
        self._clock = clock

    def reasons(self) -> list[str]:
        """Say why it is not ready; nothing if it is."""
        reasons = [
            "stopping" if self.stopping else "",
            "" if self.listening or self.stopping else "not listening yet",
            self._store.problem,
        ]
        return [reason for reason in reasons if reason]

    def state(self, lane: Lane) -> str:
        """Say how a provider is: up, idle (no connection, and none is needed), or down."""
        if lane.ready:
            return "up"
        return "idle" if lane.pool.state().idle and not self._token_state(lane.name) else "down"

    def providers(self) -> dict[str, Mapping[str, object]]:
        """Say how each provider is, by its section."""
        return {lane.name: self._told(lane) for lane in self._lanes}

    def _told(self, lane: Lane) -> Mapping[str, object]:
        pool, state = lane.pool.state(), self.state(lane)
        return {
            "state": state,
            "why": self._token_state(lane.name) or pool.why,
            "connections_ready": pool.ready,
            "connections_wanted": pool.wanted,
            "connections_draining": pool.draining,
            "seconds_in_state": round(self._clock.seconds() - pool.since),
            "waiting": lane.waiting,
        }


class Admin(Resource):
    """/metrics, /health/live and /health/ready, by GET or HEAD."""

    isLeaf = True

    def __init__(self, health: Health, metrics: Callable[[], bytes]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._health = health
        self._metrics = metrics

    def render(self, request: Request) -> bytes:
        """Answer by the path. (Twisted drops the body of an answer to HEAD.)"""
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"allow", b"GET, HEAD")
            return _json(request, 405, {"error": "nothing can be changed here"})
        path = b"/" + b"/".join(request.postpath or ())
        if path == b"/metrics":
            request.setHeader(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
            return self._metrics()
        if path == b"/health/live":
            return _json(request, 200, {"live": True})
        if path == b"/health/ready":
            reasons = self._health.reasons()
            providers = self._health.providers()
            body = {"ready": not reasons, "reasons": reasons, "providers": providers}
            return _json(request, 503 if reasons else 200, body)
        return _json(request, 404, {"error": "no such page", "pages": _PAGES})


def _json(request: Request, status: int, body: dict[str, object]) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", JSON)
    request.setHeader(b"cache-control", b"no-store")
    return json.dumps(body).encode() + b"\n"


_PAGES = ["/metrics", "/health/live", "/health/ready"]
