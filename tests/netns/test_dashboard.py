"""Every query of the Grafana dashboard, answered by a real Prometheus that scrapes a real page during an incident."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from k3swatch.clock import SystemClock
from k3swatch.demo.services import Prometheus, get_json, wait_until
from k3swatch.incident.engine import Engine
from k3swatch.model.finding import Finding, Observation, PathStep, PortVerdict
from k3swatch.model.flow import FlowCount, Outcome
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Attach, Family, Mechanism, Protocol, State, Vantage
from k3swatch.sinks.prometheus import Prometheus as PrometheusSink

REPO = Path(__file__).resolve().parents[2]
DASHBOARD: dict[str, Any] = json.loads((REPO / "packaging/grafana/k3swatch.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [REPO / f"packaging/prometheus/k3swatch.{kind}.yaml" for kind in ("rules", "recording")]
VARIABLES = {"$__rate_interval": "3s", "$__range": "1m", "[1h]": "[1m]", "$instance": "node1", "$port": ".*"}
JUDGED = ((Vantage.EXTERNAL, "192.168.1.233"),)
STEP = PathStep("ip", "nat", "CNI-DN-00ae1f04b10f949419f13", 15, "tcp dport 6443 dnat to 10.42.0.244:6443")


def finding(state: State, mechanism: Mechanism, destination: str | None) -> Finding:
    vantage, address = JUDGED[0]
    return Finding(state, mechanism, vantage, Family.IP, (address,), destination, path=(STEP,))


FINDINGS = {
    "k3s-api": finding(State.DIVERTED, Mechanism.DNAT, "10.42.0.244:6443"),
    "etcd": finding(State.BLOCKED, Mechanism.NONE, None),
    "ssh": finding(State.UNKNOWN, Mechanism.NONE, None),
}


def observation(bad: bool) -> Observation:
    verdicts = [
        PortVerdict(ProtectedPort(name, port), (FINDINGS[name],) if bad else (), JUDGED)
        for port, name in enumerate(FINDINGS, 6443)
    ]
    return Observation(tuple(verdicts), 42 + bad, "node1", time.time() - 0.02)


@dataclass
class Daemon:
    """What the daemon tells its metrics, in an incident that grows with every call of `go_on`."""

    sink: PrometheusSink
    turns: int = 0

    def begin(self) -> None:
        self.sink.watch([self.sink])
        self.sink.probe(Attach.TRACEPOINT)
        self.sink.observe(observation(bad=False))
        self.go_on()

    def divert(self) -> None:
        engine = Engine()
        engine.observe(observation(bad=False), time.time())
        for transition in engine.observe(observation(bad=True), time.time()):
            self.sink.publish(transition)
        self.sink.observe(observation(bad=True))

    def go_on(self) -> None:
        self.turns += 1
        for outcome, where in (
            (Outcome.DELIVERED, None),
            (Outcome.DIVERTED, "10.42.0.244:6443"),
            (Outcome.DROPPED, None),
        ):
            self.sink.count([FlowCount(Protocol.TCP, 6443, outcome, where, 3 * self.turns)])
        self.sink.lost({"commits": self.turns})
        self.sink.blind("connections", 0.2)
        self.sink.evaluated(0.002)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has seen an incident begin and go on."""
    sink = PrometheusSink([("127.0.0.1", 0)], SystemClock())
    daemon = Daemon(sink)
    daemon.begin()
    host, port = sink.addresses[0]
    folder = tmp_path_factory.mktemp("prometheus")
    try:
        with Prometheus(folder, [f"{host}:{port}"], RULES, interval="500ms", instance="node1") as service:
            wait_until(
                lambda: service.query('k3swatch_port_state{state="delivered"} == 1'), "the first scrape"
            )
            daemon.divert()
            for _ in range(6):
                daemon.go_on()
                time.sleep(0.5)
            wait_until(lambda: service.query("k3swatch_diversion_info"), "the incident")
            yield service
    finally:
        sink.close(2)


def ask(service: Prometheus, expression: str) -> list[dict[str, str]]:
    """The labels of every series of the answer."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return [row["metric"] for row in service.query(expression)]


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{\{(\w+)\}\}", text))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_shows_something_and_names_it(panel: dict[str, Any], prometheus: Prometheus) -> None:
    for target in panel["targets"]:
        rows = ask(prometheus, target["expr"])
        assert rows, target["expr"]
        for labels in rows:
            assert placeholders(target.get("legendFormat", "")) <= set(labels), target["expr"]


@pytest.mark.parametrize("annotation", DASHBOARD["annotations"]["list"], ids=lambda each: each["name"])
def test_an_incident_is_annotated_in_words(annotation: dict[str, Any], prometheus: Prometheus) -> None:
    rows = ask(prometheus, annotation["expr"])
    assert len(rows) == 1
    assert placeholders(annotation["titleFormat"] + annotation["textFormat"]) <= set(rows[0])


def test_the_states_are_told_apart(prometheus: Prometheus) -> None:
    (panel,) = [panel for panel in PANELS if panel["type"] == "state-timeline"]
    expression = panel["targets"][0]["expr"]
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    shown = {row["metric"]["port"]: int(row["value"][1]) for row in prometheus.query(expression)}
    assert shown == {"k3s-api": State.DIVERTED.rank, "etcd": State.BLOCKED.rank, "ssh": State.UNKNOWN.rank}


def test_the_choices_are_filled(prometheus: Prometheus) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert found
            values = {labels[found[2]] for labels in ask(prometheus, found[1])}
            assert values == ({"node1"} if variable["name"] == "instance" else set(FINDINGS))


def test_columns_that_are_renamed_or_mapped_are_there(prometheus: Prometheus) -> None:
    (panel,) = [panel for panel in PANELS if panel["title"] == "Who is diverted, and where"]
    (labels,) = ask(prometheus, panel["targets"][0]["expr"])
    order = panel["transformations"][0]["options"]["indexByName"]
    assert set(order) == set(labels) - {"__name__", "job"}
    assert {each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]} <= set(labels)


def test_the_recording_rules_record(prometheus: Prometheus) -> None:
    text = RULES[1].read_text()
    for name in re.findall(r"- record: (\S+)", text):
        wait_until(partial(prometheus.query, f'{{__name__="{name}"}}'), name)


def test_prometheus_finds_nothing_wrong_with_the_rules(prometheus: Prometheus) -> None:
    groups = get_json(f"{prometheus.url}/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 15
    assert [rule["name"] for rule in rules if rule.get("lastError")] == []
