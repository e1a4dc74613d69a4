"""The samples for Prometheus and Grafana: they load, and ask only for what there is."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own
from twisted.trial.unittest import SynchronousTestCase

from bouncerd import listening
from bouncerd.ledger import End
from bouncerd.redaction import ALERTS
from bouncerd.sections import _for_instance
from tests.test_metrics import documented

ETC = Path(__file__).parent.parent / "etc"
_DURATION = re.compile(r"[0-9]+(s|m|h|d)")
_SELECTOR = re.compile(r"\b((?:bouncerd|process)_[a-z_]+)(\{[^}]*\})?")
_MATCHER = re.compile(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"')


def wrong_with(expression: str) -> Iterator[str]:
    """Yield what a query asks for that docs/metrics.md does not have."""
    if any(expression.count(a) != expression.count(b) for a, b in ("()", "{}", "[]")):
        yield "brackets"
    if not _SELECTOR.search(expression) and "up{" not in expression:
        yield "no metric at all"
    for name, matchers in _SELECTOR.findall(expression):
        base = re.sub("_bucket$|_sum$|_count$", "", name)
        kind, labels = documented().get(name) or documented().get(base) or ("", frozenset())
        if not kind:
            yield f"no such metric: {name}"
        if (base == name) != (kind != "histogram"):
            yield f"{name} is a {kind}"
        for label, _, _value in _MATCHER.findall(matchers):
            if label not in labels | {"job", "instance"}:
                yield f"{name} has no label {label}"
    for label, _, value in _MATCHER.findall(expression):
        known = {"alert": set(ALERTS), "end": {end.value for end in End}}.get(label)
        if known is not None and value not in known:
            yield f"no such {label}: {value}"
    for found in re.findall(r"(?:rate|increase)\(\s*([a-z_]+)", expression):
        if not found.endswith(("_total", "_bucket", "_sum", "_count")):
            yield f"a rate of what is no counter: {found}"


class QueryTests(SynchronousTestCase):
    """The check itself."""

    def test_finds_mistakes(self) -> None:
        """A query for what is not there, or by the wrong label, is found."""
        for expression in (
            "bouncerd_nothing", "rate(bouncerd_ready[5m])", "sum(bouncerd_ready",
            'bouncerd_ready{provider="x"}', "bouncerd_request_seconds", "bouncerd_ready_bucket",
            'bouncerd_alerts_total{alert="x"}', "1",
        ):  # fmt: skip
            self.assertNotEqual(list(wrong_with(expression)), [], expression)
        self.assertEqual(
            list(wrong_with('rate(bouncerd_alerts_total{alert="store-down"}[5m])')), []
        )


class RulesTests(SynchronousTestCase):
    """etc/alerts.yml."""

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules."""
        whole = yaml.safe_load((ETC / "alerts.yml").read_text(encoding="utf-8"))
        self.assertEqual(set(whole), {"groups"})
        for group in whole["groups"]:
            self.assertEqual(set(group), {"name", "rules"})
        return [rule for group in whole["groups"] for rule in group["rules"]]

    def test_form(self) -> None:
        """Each rule has what Prometheus wants, a severity, a time, and words for a person."""
        for rule in self.rules():
            self.assertEqual(set(rule), {"alert", "expr", "for", "labels", "annotations"})
            self.assertRegex(rule["alert"], r"^Bouncerd[A-Z][A-Za-z]+$")
            self.assertRegex(str(rule["for"]), _DURATION)
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
            self.assertEqual(set(rule["annotations"]), {"summary", "description"})
            for text in rule["annotations"].values():
                self.assertEqual(text.count("{{"), text.count("}}"), text)
        names = [rule["alert"] for rule in self.rules()]
        self.assertEqual(len(names), len(set(names)))

    def test_queries(self) -> None:
        """Each asks for metrics, labels and values that there are."""
        for rule in self.rules():
            self.assertEqual(list(wrong_with(rule["expr"])), [], rule["alert"])

    def test_labels_in_texts(self) -> None:
        """A text names only labels that its query leaves."""
        for rule in self.rules():
            used = set(re.findall(r"\$labels\.([a-z_]+)", str(rule["annotations"]))) - {"instance"}
            kept = {
                label
                for inner in re.findall(r"by \(([a-z_, ]+)\)", rule["expr"])
                for label in inner.split(", ")
            }
            if not kept:
                for name, _ in _SELECTOR.findall(rule["expr"]):
                    kept |= documented()[name][1]
            self.assertLessEqual(used, kept, rule["alert"])


class PrometheusTests(SynchronousTestCase):
    """etc/prometheus.yml."""

    def test_form(self) -> None:
        """It has the job that the rules ask for, and the rules."""
        whole = yaml.safe_load((ETC / "prometheus.yml").read_text(encoding="utf-8"))
        self.assertEqual(set(whole), {"global", "rule_files", "scrape_configs"})
        self.assertTrue((ETC / whole["rule_files"][0]).exists())
        (job,) = whole["scrape_configs"]
        self.assertEqual(job["job_name"], "bouncerd")
        for group in job["static_configs"]:
            for target in group["targets"]:
                self.assertRegex(target, r"^[a-z0-9.]+:[0-9]+$")

    def test_instances(self) -> None:
        """The addresses that it suggests for several instances are what it scrapes."""
        text = (ETC / "prometheus.yml").read_text(encoding="utf-8")
        (suggested,) = re.findall(r"^#     admin_listen = (.+)$", text, re.MULTILINE)
        for instance in ("1", "2"):
            found = listening.arguments(_for_instance(suggested, instance))
            self.assertIn(f"- {found['interface']}:{found['port']}\n", text)
        for other, instance in (
            ("tcp:{instance}:interface=127.0.0.1", "9101"),
            ("unix:/run/bouncerd/{instance}.sock", "1"),
        ):
            self.assertIn(other, text)
            listening.arguments(_for_instance(other, instance))


class DashboardTests(SynchronousTestCase):
    """etc/grafana-dashboard.json."""

    def setUp(self) -> None:
        self.board = json.loads((ETC / "grafana-dashboard.json").read_text(encoding="utf-8"))
        self.panels = [each for each in self.board["panels"] if each["type"] != "row"]

    def test_form(self) -> None:
        """It has what Grafana needs to import it."""
        for name, kind in (
            ("title", str), ("uid", str), ("schemaVersion", int), ("panels", list), ("time", dict),
            ("templating", dict), ("annotations", dict), ("refresh", str), ("tags", list),
        ):  # fmt: skip
            self.assertIsInstance(self.board[name], kind, name)
        self.assertGreaterEqual(self.board["schemaVersion"], 36)
        self.assertNotIn("id", self.board)
        numbers = [each["id"] for each in self.board["panels"]]
        self.assertEqual(len(numbers), len(set(numbers)))
        for panel in self.panels:
            self.assertIn(panel["type"], ("timeseries", "stat"))
            self.assertTrue(panel["title"] and panel["targets"])
            self.assertEqual(panel["datasource"]["uid"], "${datasource}")
            self.assertIn("unit", panel["fieldConfig"]["defaults"])
            refs = [target["refId"] for target in panel["targets"]]
            self.assertEqual(len(refs), len(set(refs)))

    def test_places(self) -> None:
        """No panel lies over another, or beyond the edge."""
        taken: set[tuple[int, int]] = set()
        for panel in self.board["panels"]:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24)
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            self.assertEqual(cells & taken, set(), panel["title"])
            taken |= cells

    def test_queries(self) -> None:
        """Each panel asks for what there is, of the instances that were chosen."""
        for panel in self.panels:
            for target in panel["targets"]:
                self.assertEqual(list(wrong_with(target["expr"])), [], target["expr"])
                self.assertIn('instance=~"$instance"', target["expr"])
                kept = " ".join(re.findall(r"by \(([a-z_, ]+)\)", target["expr"]))
                for label in re.findall(r"\{\{([a-z_]+)\}\}", target["legendFormat"]):
                    self.assertIn(label, kept or "instance", panel["title"])

    def test_all_metrics(self) -> None:
        """Every metric of ours is on the dashboard."""
        text = json.dumps(self.board)
        missing = {name for name in documented() if name not in text and "process_" not in name}
        self.assertEqual(missing, set())

    def test_variables(self) -> None:
        """The variables that queries use are there."""
        names = {each["name"] for each in self.board["templating"]["list"]}
        used = set(re.findall(r"\$\{?([a-z]+)\}?", json.dumps(self.board)))
        self.assertEqual(names, used)
