"""The page of metrics: true, documented, well-formed, and with nobody's name in it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bouncerd import apns, fcm, metrics
from bouncerd.api import _OPEN, PREFIX
from bouncerd.ledger import End
from bouncerd.meters import LAG, Histogram
from bouncerd.reasons import CLASSES, reason_class
from bouncerd.redaction import ALERTS
from tests.in_memory import ORG_ID, basic, spell
from tests.memory import APP, a_push
from tests.observed import Observed
from tests.test_api import NOTIFY

DOCS = Path(__file__).parent.parent / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \| ([a-z_, ]*)\| (.+) \|$")


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Return the type and labels of each metric that docs/metrics.md lists."""
    rows = filter(None, map(_ROW.match, DOCS.read_text(encoding="utf-8").splitlines()))
    return {row[1]: (row[2], frozenset(re.findall("[a-z_]+", row[3]))) for row in rows}


def full_name(family: Metric) -> str:
    """Name a family as it is queried: the parser takes a counter's `_total` off."""
    return f"{family.name}_total" if family.type == "counter" else family.name


class MetricsCase(SynchronousTestCase):
    """A daemon of which everything has something to say."""

    def setUp(self) -> None:
        self.kit = Observed()
        self.kit.start()
        self.addCleanup(self.kit.observing.stop)

    def busy(self) -> list[Metric]:
        """Let everything happen once, and return the page."""
        kit = self.kit
        kit.admit("c0ffee")
        kit.admit("beef", app="org.example.unknown")
        kit.apple.answer_all(200)
        kit.admit("c0ffee")
        kit.apple.answer_all(503, b'{"reason": "ServiceUnavailable"}')
        kit.daemon.post_json("push/notify", NOTIFY)
        return self.page()

    def page(self) -> list[Metric]:
        text = self.kit.ask("/metrics").body.decode()
        return list(text_string_to_metric_families(text))


class PageTests(MetricsCase):
    """What it says as a whole."""

    def test_documented(self) -> None:
        """docs/metrics.md lists every metric with its type and labels, and none besides."""
        live = {
            full_name(family): (
                family.type,
                frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
            )
            for family in self.busy()
        }
        self.assertEqual(live, documented())

    def test_lint(self) -> None:
        """Names, units and help are as Prometheus' own linter wants them."""
        for family in self.busy():
            self.assertEqual(list(lint(family)), [])

    def test_linter(self) -> None:
        """That linter does find what is wrong."""
        for name, kind in (
            ("bouncerd_push_total", "gauge"), ("bouncerd_push_ms", "gauge"),
            ("bouncerd_pushGauge", "gauge"), ("bouncerd_push_minutes", "gauge"),
        ):  # fmt: skip
            self.assertNotEqual(list(lint(Metric(name, "Help.", kind))), [], name)
        self.assertNotEqual(list(lint(Metric("bouncerd_x", "", "gauge"))), [])

    def test_nobodys_name(self) -> None:
        """No label names a tenant, an app that it made up, or a path that it asked for."""
        self.kit.daemon.send("POST", f"{PREFIX}canary")
        self.kit.daemon.send("GET", "/canary")
        self.busy()
        text = self.kit.ask("/metrics").body.decode()
        for secret in ("canary", ORG_ID, "org.example.unknown", "c0ffee", "s1"):
            self.assertNotIn(f'"{secret}', text)

    def test_queue(self) -> None:
        """What waits is counted, what a connection has is told apart, and the oldest has an age."""
        self.kit.admit("c0ffee")
        self.kit.apns.pause()
        self.assertEqual(self.kit.value("bouncerd_oldest_push_age_seconds", provider="apns"), 0)
        self.kit.admit("c0ffee", "beef")
        self.kit.clock.advance(2)
        self.kit.admit("c0ffee", "beef")
        self.kit.clock.advance(1)
        self.assertEqual(self.kit.value("bouncerd_pushes_waiting", provider="apns"), 5)
        self.assertEqual(self.kit.value("bouncerd_pushes_in_flight", provider="apns"), 1)
        self.assertEqual(self.kit.value("bouncerd_oldest_push_age_seconds", provider="apns"), 3)


class LedgerTests(MetricsCase):
    """Pushes in numbers."""

    def books(self) -> dict[str, float]:
        """Return the sums over all providers."""
        samples = self.kit.samples()
        return {
            name: sum(each.value for each in samples[f"bouncerd_pushes_{name}"])
            for name in ("accepted_total", "taken_over_total", "ended_total", "waiting")
        }

    def test_balance(self) -> None:
        """What was accepted or taken over has ended or waits, at every look."""
        self.kit.admit("c0ffee", "beef")
        for status in (200, 410, 200):
            books = self.books()
            taken = books["accepted_total"] + books["taken_over_total"]
            self.assertEqual(taken, books["ended_total"] + books["waiting"])
            self.kit.clock.advance(0)
            self.kit.apple.answer_all(status)
        self.assertEqual(self.books()["waiting"], 0)

    def test_every_end(self) -> None:
        """Each end has its series from the start, so that the first of a kind is an increase."""
        ends = {each.labels["end"] for each in self.kit.samples()["bouncerd_pushes_ended_total"]}
        self.assertEqual(ends, {end.value for end in End})

    def test_outcomes(self) -> None:
        """Ends and retries are told by configured app and by class of the reason."""
        self.busy()
        found = {
            (each.labels["app"], each.labels["outcome"], each.labels["reason_class"]): each.value
            for each in self.kit.samples()["bouncerd_push_outcomes_total"]
        }
        expected = {
            (APP, "delivered", "none"): 1.0,
            ("other", "delivered", "none"): 1.0,
            (APP, "retry", "provider"): 1.0,
        }
        self.assertEqual(found, expected)

    def test_counts_go_on(self) -> None:
        """Other topics after a reload change nothing of what was counted."""
        note = self.kit.outcomes.noting("apns", {APP})
        note(a_push(), "delivered", "")
        note = self.kit.outcomes.noting("apns", None)
        note(a_push(), "delivered", "")
        counted = dict(self.kit.outcomes.counted())
        self.assertEqual(counted["apns", APP, "delivered", "none"], 1)
        self.assertEqual(counted["apns", "other", "delivered", "none"], 1)


class ReasonTests(SynchronousTestCase):
    """The classes of reasons."""

    def test_known_reasons(self) -> None:
        """Every reason of Apple's and Google's has a class that says what to do."""
        for reason, (status, _) in apns._REASONS.items():
            kind = "gone" if status in (404, 410) and reason != "BadPath" else "retry"
            kind = "refused" if status in (400, 404, 405, 413) else kind
            self.assertNotEqual(reason_class(kind, reason), "other", reason)
        for reason in fcm._CODES | fcm._INFO_REASONS | fcm._STATUSES:
            self.assertIn(reason_class("refused", reason), CLASSES)
        self.assertEqual(reason_class("retry", "InvalidProviderToken"), "credential")
        self.assertEqual(reason_class("retry", "ExpiredProviderToken (host clock)"), "credential")
        self.assertEqual(reason_class("refused", "INVALID_ARGUMENT (size)"), "payload")
        self.assertEqual(reason_class("retry", "cut off"), "connection")

    def test_by_status(self) -> None:
        """What has no name has a status."""
        for status, found in ((429, "throttled"), (502, "provider"), (403, "credential")):
            self.assertEqual(reason_class("retry", f"no reason ({status})"), found)
        self.assertEqual(reason_class("refused", "unknown reason (400)"), "payload")

    def test_every_end(self) -> None:
        """Each end has a class, whatever its reason."""
        for end in End:
            self.assertIn(reason_class(end.value, "anything"), CLASSES[:-1])
        self.assertEqual(reason_class("expired", "shed"), "shed")
        self.assertEqual(reason_class("retry", "anything"), "other")

    def test_documented(self) -> None:
        """docs/metrics.md explains every class and every alert."""
        text = DOCS.read_text(encoding="utf-8")
        for name in (*CLASSES, *ALERTS):
            self.assertIn(f"\n| `{name}` |", text)


class LinkTests(MetricsCase):
    """Connections in numbers."""

    def test_goaway(self) -> None:
        """A GOAWAY is counted by its code's name; a code that nobody knows is `other`."""
        for code in (0, 7, 4242):
            (connection,) = self.kit.apple.open
            connection.say(connection.peer.goaway(0, code))
            self.kit.clock.pump([0, 1, 1, 1])
        found = {
            each.labels["code"]: each.value
            for each in self.kit.samples()["bouncerd_goaways_total"]
            if each.labels["provider"] == "apns"
        }
        self.assertEqual(found, {"NO_ERROR": 1, "REFUSED_STREAM": 1, "other": 1})

    def test_dials(self) -> None:
        """Dials and failures are counted; wanted stays what the operator asked for."""
        self.kit.apple.refusing = True
        self.kit.apple.open[0].lose()
        self.kit.clock.pump([1] * 10)
        self.assertGreater(self.kit.value("bouncerd_dial_failures_total", provider="apns"), 1)
        self.assertGreater(self.kit.value("bouncerd_dials_total", provider="apns"), 2)
        self.assertEqual(self.kit.value("bouncerd_links_wanted", provider="apns"), 1)
        self.assertEqual(self.kit.value("bouncerd_links_ready", provider="apns"), 0)
        self.assertEqual(
            self.kit.value("bouncerd_provider_state", provider="apns", state="down"), 1
        )

    def test_streams(self) -> None:
        """What is in flight is seen while it is."""
        self.kit.admit("c0ffee")
        self.assertEqual(self.kit.value("bouncerd_streams_in_flight", provider="apns"), 1)

    def test_draining(self) -> None:
        """A connection that finishes its work is told as that."""
        self.kit.admit("c0ffee")
        (connection,) = self.kit.apple.open
        connection.say(connection.peer.goaway(1, 0))
        self.assertEqual(self.kit.value("bouncerd_links_draining", provider="apns"), 1)


class CredentialTests(MetricsCase):
    """How old and how good credentials are."""

    def test_bearer(self) -> None:
        """Apple's token has an age once it is used."""
        self.assertNotIn("bouncerd_bearer_age_seconds", self.kit.samples())
        self.kit.admit("c0ffee")
        age = self.kit.value("bouncerd_bearer_age_seconds", provider="apns")
        self.assertEqual(age, self.kit.clock.seconds() % (35 * 60))

    def test_access_token(self) -> None:
        """Google's token has so many seconds left; none is none left."""
        name = "bouncerd_access_token_left_seconds"
        self.assertEqual(self.kit.value(name, provider="fcm"), 0)
        self.kit.access_token.good_until = self.kit.clock.seconds() + 90
        self.assertEqual(self.kit.value(name, provider="fcm"), 90)

    def test_certificates(self) -> None:
        """So does a certificate, and fewer than none once it has expired."""
        name = "bouncerd_certificate_left_seconds"
        self.assertEqual(self.kit.value(name, provider="apns:old"), 86_400)
        self.kit.certificates["apns:old"] = -1.0
        self.assertEqual(self.kit.value(name, provider="apns:old"), -1)


class RequestTests(MetricsCase):
    """Calls in numbers."""

    def test_endpoints(self) -> None:
        """Calls are counted by route and status; what is no route of ours, as `other`."""
        self.kit.daemon.post_json("push/notify", NOTIFY)
        self.kit.daemon.post_json("push/notify", {"canary": 1})
        self.kit.daemon.send("GET", "/canary")
        self.kit.daemon.send("GET", "/version")
        self.kit.daemon.raw(b"nonsense\r\n\r\n")
        found = {
            (each.labels["endpoint"], each.labels["status"]): each.value
            for each in self.kit.samples()["bouncerd_requests_total"]
        }
        expected = {
            ("push/notify", "200"): 1, ("push/notify", "400"): 1, ("other", "404"): 1,
            ("version", "200"): 1, ("other", "400"): 1,
        }  # fmt: skip
        self.assertEqual(found, expected)
        self.assertEqual(self.kit.value("bouncerd_request_seconds_count", endpoint="version"), 1)

    def test_hung_up(self) -> None:
        """A caller that hung up before its answer is counted as that, once."""
        self.kit.daemon.store.silent = True  # type: ignore[attr-defined]
        channel, _transport = self.kit.daemon.connect()
        body = json.dumps(NOTIFY).encode()
        headers = {"Authorization": basic(), "Content-Type": "application/json"}
        channel.dataReceived(spell("POST", PREFIX + "push/notify", body, headers))
        channel.connectionLost(Failure(ConnectionDone()))
        found = self.kit.value("bouncerd_requests_total", endpoint="push/notify")
        self.assertEqual(found, 1)
        self.kit.value("bouncerd_requests_total", endpoint="push/notify", status="499")

    def test_rate_limits(self) -> None:
        """Who is over a limit is counted by the limit."""
        for endpoint, limit in (("push/notify", "server"), ("server/register", "address")):
            self.kit.daemon.site.requests.note(endpoint, 429, 0.001)
            name = "bouncerd_rate_limited_requests_total"
            self.assertEqual(self.kit.value(name, limit=limit), 1)

    def test_open_endpoints(self) -> None:
        """The endpoints that are limited by address are those that need no credentials."""
        self.assertEqual({(PREFIX + each).encode() for each in metrics._OPEN}, _OPEN)

    def test_histogram(self) -> None:
        """A value counts below its bound and in all wider ones, and in the sum."""
        histogram = Histogram((1.0, 2.0))
        for value in (0.5, 1.0, 1.5, 9.0):
            histogram.observe(value)
        self.assertEqual(histogram.buckets(), [("1.0", 2), ("2.0", 3), ("+Inf", 4)])
        self.assertEqual((histogram.count, histogram.sum), (4, 12.0))
        self.assertEqual(len(Histogram(LAG).buckets()), len(LAG) + 1)


class ProcessTests(MetricsCase):
    """The process in numbers."""

    def test_store(self) -> None:
        """Reads, writes and commits of the store have their times."""
        before = self.kit.value("bouncerd_store_seconds_count", operation="read")
        self.kit.daemon.post_json("push/notify", NOTIFY)
        for operation in ("read", "write", "flush"):
            count = self.kit.value("bouncerd_store_seconds_count", operation=operation)
            self.assertGreater(count, before if operation == "read" else 0)

    def test_build(self) -> None:
        """What runs says its version."""
        (build,) = self.kit.samples()["bouncerd_build_info"]
        self.assertEqual(set(build.labels), {"version", "python", "twisted"})

    def test_log_lines(self) -> None:
        """Lines written are counted by level."""
        self.kit.log({"log_namespace": "bouncerd", "log_format": "x", "log_time": 0.0})
        self.assertEqual(self.kit.value("bouncerd_log_lines_total", level="info"), 1)
        self.assertEqual(json.loads(self.kit.output.getvalue())["message"], "x")

    def test_ready(self) -> None:
        """Readiness is a number, too."""
        self.assertEqual(self.kit.value("bouncerd_ready"), 1)
        self.kit.observing.health.stopping = True
        self.assertEqual(self.kit.value("bouncerd_ready"), 0)


# What Prometheus' own linter (promtool check metrics) asks of names.
_UNITS = {
    "milliseconds", "ms", "microseconds", "us", "nanoseconds", "minutes", "hours", "days", "weeks",
    "kilobytes", "kb", "megabytes", "mb", "gigabytes", "gb", "bits", "percent", "celsius",
}  # fmt: skip
_TYPES = {"counter", "gauge", "histogram", "summary", "untyped"}


def lint(family: Metric) -> Iterator[str]:
    """Yield what is wrong with a metric's name, help, type or samples."""
    name, words = full_name(family), family.name.split("_")
    if not family.documentation.strip():
        yield f"{name}: no help text"
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        yield f"{name}: not in snake case"
    if family.type != "counter" and name.endswith(("_total", "_count", "_sum", "_bucket")):
        yield f"{name}: a suffix that is of another type"
    if family.type not in _TYPES:
        yield f"{name}: no type"
    for word in (_UNITS | _TYPES) & set(words):
        yield f"{name}: {word} is no base unit, or a type"
    if not name.startswith(("bouncerd_", "process_")):
        yield f"{name}: whose is it?"
    seen = set()
    for sample in family.samples:
        key = sample.name, tuple(sorted(sample.labels.items()))
        if key in seen:
            yield f"{name}: {key} comes twice"
        seen.add(key)
        for label in sample.labels:
            if not re.fullmatch(r"[a-z][a-z_]*", label) or label in ("job", "instance"):
                yield f"{name}: label {label}"
