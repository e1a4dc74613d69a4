"""What the admin listener tells: alive, ready, and numbers. Never on a public address.

Ready means: listening, and the store reachable. A provider's outage is told, and turns nothing
red: it must not take every host out of the balancer.
"""

import json
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bouncerd.lane import Lane
from bouncerd.ledger import End, Ledger
from bouncerd.store.base import Store


class Books(Collector):
    """The ledgers as metrics; read when they are asked for, so that a push pays nothing."""

    def __init__(self, lanes: Sequence[Lane], nowhere: Ledger) -> None:
        self._lanes = lanes
        self._nowhere = nowhere

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all lanes."""
        accepted = CounterMetricFamily(
            "bouncerd_pushes_accepted", "Device pushes accepted.", labels=["provider"]
        )
        ended = CounterMetricFamily(
            "bouncerd_pushes_ended", "Device pushes by their end.", labels=["provider", "end"]
        )
        waiting = GaugeMetricFamily(
            "bouncerd_pushes_waiting", "Device pushes waiting or in flight.", labels=["provider"]
        )
        links = GaugeMetricFamily(
            "bouncerd_links_ready", "Connections that take pushes.", labels=["provider"]
        )
        reasons = CounterMetricFamily(
            "bouncerd_push_reasons",
            "Ends and retries other than plain delivery, by reason.",
            labels=["provider", "kind", "reason"],
        )
        for name, ledger in [
            *((lane.name, lane.ledger) for lane in self._lanes),
            ("none", self._nowhere),
        ]:
            accepted.add_metric([name], ledger.accepted)
            waiting.add_metric([name], ledger.waiting())
            for end in End:
                ended.add_metric([name, end.value], ledger.ends[end])
        for lane in self._lanes:
            links.add_metric([lane.name], lane.pool.state().ready)
            for (kind, reason), count in lane.reasons.items():
                reasons.add_metric([lane.name, kind, reason], count)
        yield from (accepted, ended, waiting, links, reasons)


class Admin(Resource):
    """/metrics, /health/live and /health/ready."""

    def __init__(
        self,
        store: Store,
        lanes: Sequence[Lane],
        nowhere: Ledger,
        clock: IReactorTime,
        token_state: Callable[[str], str],
    ) -> None:
        """`token_state` says of a lane by its name what its access token lacks; "" for nothing."""
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._store = store
        self._lanes = lanes
        self._clock = clock
        self._token_state = token_state
        self._registry = CollectorRegistry()
        self._registry.register(Books(lanes, nowhere))

    isLeaf = True

    def render_GET(self, request: Request) -> bytes | int:  # noqa: N802 -- Twisted's name
        """Answer by the path."""
        path = b"/" + b"/".join(request.postpath or ())
        if path == b"/metrics":
            request.setHeader(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
            return bytes(generate_latest(self._registry))
        if path == b"/health/live":
            return self._json(request, 200, {"live": True})
        if path == b"/health/ready":
            return self._ready(request)
        return self._json(request, 404, {"error": "no such page", "pages": _PAGES})

    def _ready(self, request: Request) -> int:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def tell(problem: str) -> None:
            if not gone:
                status = 503 if problem else 200
                body = {"ready": not problem, "reasons": [problem] if problem else []}
                request.write(self._json(request, status, {**body, "providers": self._providers()}))
                request.finish()

        def failed(failure: Failure) -> str:
            return f"the store is not reachable ({type(failure.value).__name__})"

        self._store.ping().addCallbacks(lambda _: "", failed).addCallback(tell)
        return NOT_DONE_YET

    def _providers(self) -> dict[str, object]:
        now = self._clock.seconds()
        told: dict[str, object] = {}
        for lane in self._lanes:
            state = lane.pool.state()
            why = self._token_state(lane.name) or state.why
            told[lane.name] = {
                "state": "up" if lane.ready else "down",
                "why": why,
                "connections_ready": state.ready,
                "connections_wanted": state.wanted,
                "seconds_in_state": round(now - state.since),
                "waiting": lane.waiting,
            }
        return told

    def _json(self, request: Request, status: int, body: dict[str, object]) -> bytes:
        request.setResponseCode(status)
        request.setHeader(b"content-type", b"application/json")
        return json.dumps(body).encode() + b"\n"


_PAGES = ["/metrics", "/health/live", "/health/ready"]
