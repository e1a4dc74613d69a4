"""The daemon in numbers, for Prometheus: read from everybody's books when somebody asks.

docs/metrics.md lists them. No label is ever a tenant, or a text from outside: providers are
sections of the configuration, apps its topics, reasons and endpoints our own words.
"""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import bouncerd
from bouncerd.alerts import Alerts
from bouncerd.health import Health
from bouncerd.lane import Lane
from bouncerd.ledger import End, Ledger
from bouncerd.logs import Observer
from bouncerd.meters import Histogram, Requests, Timings
from bouncerd.outcomes import Outcomes
from bouncerd.watch import Lag

#: The names of HTTP/2's error codes (RFC 9113, 7).
_CODES = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
    "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip
_STATES = ("up", "idle", "down")
#: Endpoints that strangers call: limited by address, all others by server.
_OPEN = ("server/register", "server/register/transfer", "server/register/verify_challenge")
_NOWHERE = "none"


@dataclass(frozen=True, slots=True)
class Sources:
    """Whose books are read. Lanes may come and go; `tokens` and `certificates` ask anew."""

    lanes: Sequence[Lane]
    nowhere: Ledger
    outcomes: Outcomes
    requests: Requests
    connections: Callable[[], int]  # of callers, now
    timings: Timings
    lag: Lag
    health: Health
    log: Observer
    alerts: Alerts
    bearers: Callable[[], Mapping[str, float]]  # by section: the age in seconds
    tokens: Callable[[], Mapping[str, float]]  # by section: seconds left
    certificates: Callable[[], Mapping[str, float]]  # by section: likewise


class Metrics(Collector):
    """What the page of metrics says."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """Return all of it, in Prometheus' text format."""
        return bytes(generate_latest(self._registry))

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of ours."""
        sources = self._sources
        yield from _pushes(sources)
        yield from _outcomes(sources)
        yield from _links(sources)
        yield from _credentials(sources)
        yield from _requests(sources)
        yield from _store(sources)
        yield from _process(sources)


def _pushes(sources: Sources) -> Iterator[Metric]:
    accepted = _counter("pushes_accepted", "Device pushes accepted.", "provider")
    taken_over = _counter("pushes_taken_over", "Pushes of the process before this.", "provider")
    ended = _counter("pushes_ended", "Device pushes by their end.", "provider", "end")
    waiting = _gauge("pushes_waiting", "Pushes that have not ended.", "provider")
    in_flight = _gauge("pushes_in_flight", "Of those, with a connection now.", "provider")
    oldest = _gauge("oldest_push_age_seconds", "How long the oldest push waits.", "provider")
    books = [(lane.name, lane.ledger) for lane in sources.lanes]
    for name, ledger in [*books, (_NOWHERE, sources.nowhere)]:
        accepted.add_metric([name], ledger.accepted)
        taken_over.add_metric([name], ledger.taken_over)
        waiting.add_metric([name], ledger.waiting())
        for end in End:
            ended.add_metric([name, end.value], ledger.ends[end])
    for lane in sources.lanes:
        in_flight.add_metric([lane.name], lane.in_flight)
        oldest.add_metric([lane.name], lane.oldest_age())
    yield from (accepted, taken_over, ended, waiting, in_flight, oldest)


def _outcomes(sources: Sources) -> Iterator[Metric]:
    outcomes = _counter(
        "push_outcomes",
        "Ends and retries of pushes, by configured app and class of the reason.",
        *("provider", "app", "outcome", "reason_class"),
    )
    for labels, count in sources.outcomes.counted():
        outcomes.add_metric(labels, count)
    reasons = _counter(
        "push_reasons",
        "Ends and retries of pushes other than plain delivery, by reason.",
        *("provider", "kind", "reason"),
    )
    for lane in sources.lanes:
        for (kind, reason), count in lane.reasons.items():
            reasons.add_metric([lane.name, kind, reason], count)
    yield from (outcomes, reasons)


def _links(sources: Sources) -> Iterator[Metric]:
    states = _gauge("provider_state", "1 for the state a provider is in.", "provider", "state")
    ready = _gauge("links_ready", "Connections that take pushes.", "provider")
    draining = _gauge("links_draining", "Connections that finish what they have.", "provider")
    wanted = _gauge("links_wanted", "Connections that the configuration asks for.", "provider")
    streams = _gauge("streams_in_flight", "Requests that wait for their answer.", "provider")
    dials = _counter("dials", "Connections tried.", "provider")
    failures = _counter("dial_failures", "Connections that came to nothing.", "provider")
    goaways = _counter("goaways", "Connections that a GOAWAY ended.", "provider", "code")
    for lane in sources.lanes:
        pool, counts = lane.pool.state(), lane.pool.counts
        name = [lane.name]
        ready.add_metric(name, pool.ready)
        draining.add_metric(name, pool.draining)
        wanted.add_metric(name, pool.wanted)
        streams.add_metric(name, pool.streams)
        dials.add_metric(name, counts.dials)
        failures.add_metric(name, counts.failures)
        state = sources.health.state(lane)
        for each in _STATES:
            states.add_metric([*name, each], each == state)
        for code, count in _by_name(counts.goaways).items():
            goaways.add_metric([*name, code], count)
    yield from (states, ready, draining, wanted, streams, dials, failures, goaways)


def _by_name(goaways: Mapping[int, int]) -> dict[str, int]:
    """Name the codes; what the peer invents is one."""
    named = {"NO_ERROR": 0}
    for code, count in goaways.items():
        name = _CODES[code] if code < len(_CODES) else "other"
        named[name] = named.get(name, 0) + count
    return named


def _credentials(sources: Sources) -> Iterator[Metric]:
    bearers = _gauge("bearer_age_seconds", "Age of Apple's token in use.", "provider")
    tokens = _gauge("access_token_left_seconds", "How long Google's is good.", "provider")
    certificates = _gauge("certificate_left_seconds", "How long ours is good.", "provider")
    for family, values in (
        (bearers, sources.bearers()),
        (tokens, sources.tokens()),
        (certificates, sources.certificates()),
    ):
        for name, value in values.items():
            family.add_metric([name], value)
        yield family


def _requests(sources: Sources) -> Iterator[Metric]:
    requests = _counter("requests", "Requests by their answer.", "endpoint", "status")
    seconds = _histogram("request_seconds", "How long answers took.", "endpoint")
    limited = _counter("rate_limited_requests", "Requests answered 429.", "limit")
    too_many = {"server": 0, "address": 0}
    for (endpoint, status), count in sources.requests.counts.items():
        requests.add_metric([endpoint, str(status)], count)
        if status == 429:
            too_many["address" if endpoint in _OPEN else "server"] += count
    for limit, count in too_many.items():
        limited.add_metric([limit], count)
    for endpoint, histogram in sources.requests.seconds.items():
        _fill(seconds, [endpoint], histogram)
    connections = _gauge("connections_open", "Connections of callers.")
    connections.add_metric([], sources.connections())
    yield from (requests, seconds, limited, connections)


def _store(sources: Sources) -> Iterator[Metric]:
    seconds = _histogram("store_seconds", "How long the store took.", "operation")
    _fill(seconds, ["read"], sources.timings.reads)
    _fill(seconds, ["write"], sources.timings.writes)
    _fill(seconds, ["flush"], sources.timings.flushes)
    yield seconds


def _process(sources: Sources) -> Iterator[Metric]:
    lag = _histogram("event_loop_lag_seconds", "How late the event loop was.")
    _fill(lag, [], sources.lag.histogram)
    worst = _gauge("event_loop_lag_worst_seconds", "The worst of that in the last minute.")
    worst.add_metric([], sources.lag.worst())
    ready = _gauge("ready", "1 if /health/ready says so.")
    ready.add_metric([], not sources.health.reasons())
    lines = _counter("log_lines", "Lines written to the log.", "level")
    for level in ("debug", "info", "warn", "error", "critical"):
        lines.add_metric([level], sources.log.lines[level])
    alerts = _counter("alerts", "Alerts to the operator.", "alert")
    for kind, count in sources.alerts.counts.items():
        alerts.add_metric([kind], count)
    commands = _counter("alert_commands", "What became of alert_command.", "result")
    for result, count in sources.alerts.results.items():
        commands.add_metric([result], count)
    build = InfoMetricFamily("bouncerd_build", "What is running.")
    build.add_metric([], {"version": bouncerd.__version__, **_VERSIONS})
    yield from (lag, worst, ready, lines, alerts, commands, build)


_VERSIONS = {"python": platform.python_version(), "twisted": version("Twisted")}


def _counter(name: str, told: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"bouncerd_{name}", told, labels=labels)


def _gauge(name: str, told: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"bouncerd_{name}", told, labels=labels)


def _histogram(name: str, told: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"bouncerd_{name}", told, labels=labels)


def _fill(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    family.add_metric(labels, histogram.buckets(), histogram.sum)
