"""The example for Alertmanager, loaded by a real one: a lost API port silences its own storm, and nothing else."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from k3swatch.demo.services import Alertmanager, Webhook, wait_until

REPO = Path(__file__).resolve().parents[2]
EXAMPLE = REPO / "packaging/alertmanager/alertmanager.example.yaml"
DIVERTED = "K3swatchPortDiverted instance=node1 port=k3s-api severity=critical destination=10.42.0.244:6443"

STORM = (
    "KubeAPIDown job=apiserver",
    "KubeletDown job=kubelet",
    "TargetDown job=apiserver",
    "TargetDown job=kubelet instance=node1",
    "KubeAPIErrorBudgetBurn severity=critical",
    "KubeNodeNotReady job=kube-state-metrics node=agent1 instance=10.42.0.9:8080",
    "K3swatchConnectionsDiverted instance=node1 port=k3s-api severity=critical",
)
NOT_SILENCED = (
    "TargetDown job=postgres",
    "DiskFull instance=node1",
    "K3swatchPortDiverted instance=node1 port=ssh severity=critical destination=10.42.0.9:22",
    "K3swatchPortDiverted instance=node2 port=k3s-api severity=critical destination=10.42.0.244:6443",
    "K3swatchConnectionsDiverted instance=node1 port=etcd severity=critical",
    "K3swatchPortUnknown instance=node1 port=etcd severity=warning",
    "K3swatchBlind instance=node1 source=connections severity=warning",
    "K3swatchDown instance=node2 job=k3swatch severity=warning",
    "KubeAPIDown job=apiserver cluster=other",
)


class Example(Alertmanager):
    """Runs the shipped file; only the addresses of its receivers are others, and it waits for nobody."""

    def command(self) -> Sequence[str]:
        command = list(super().command())
        config = yaml.safe_load(EXAMPLE.read_text())
        for route in (config["route"], *config["route"].get("routes", [])):
            route |= {"group_wait": "1s", "group_interval": "1s"}  # a second alert of a group is told as soon
        for receiver in config["receivers"]:
            if receiver["name"] != "nobody":
                receiver["webhook_configs"] = [{"url": self.webhook}]
        (self.directory / "alertmanager.yml").write_text(json.dumps(config))
        return command


def labels(alert: str) -> dict[str, str]:
    name, *pairs = alert.split()
    return {"alertname": name, **dict(pair.split("=", 1) for pair in pairs)}


def post(service: Alertmanager, *alerts: str, over: bool = False) -> None:
    now = datetime.now(UTC)
    body = [
        {
            "labels": labels(alert),
            "startsAt": (now - timedelta(seconds=60)).isoformat(),
            "endsAt": (now + timedelta(seconds=-1 if over else 600)).isoformat(),
        }
        for alert in alerts
    ]
    request = urllib.request.Request(
        f"{service.url}/api/v2/alerts", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 200


def silenced(service: Alertmanager, *alerts: str) -> list[str]:
    """Those of `alerts` that are inhibited; all of them must be known."""
    wanted = {json.dumps(labels(alert), sort_keys=True): alert for alert in alerts}
    found = {json.dumps(each["labels"], sort_keys=True): each for each in service.alerts()}
    assert set(wanted) <= set(found)
    return [alert for key, alert in wanted.items() if found[key]["status"]["inhibitedBy"]]


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as made:
        yield made


@pytest.fixture
def service(tmp_path: Path, webhook: Webhook) -> Iterator[Alertmanager]:
    with Example(tmp_path / "am", webhook.url) as running:
        yield running


def settled(service: Alertmanager, count: int) -> None:
    wait_until(lambda: len(service.alerts()) == count, f"{count} alerts")


def test_the_storm_is_silenced_and_nothing_else(service: Alertmanager, webhook: Webhook) -> None:
    post(service, DIVERTED)
    post(service, *STORM, *NOT_SILENCED)
    settled(service, 1 + len(STORM) + len(NOT_SILENCED))
    wait_until(lambda: set(silenced(service, *STORM)) == set(STORM), "the storm silenced")
    assert silenced(service, DIVERTED, *NOT_SILENCED) == []
    told = {alert.split()[0] for alert in NOT_SILENCED} - {"KubeAPIDown", "TargetDown"}
    wait_until(
        lambda: told <= {alert["labels"]["alertname"] for alert in webhook.alerts("firing")}, "the rest"
    )
    storm = [labels(alert) for alert in STORM]
    assert [alert["labels"] for alert in webhook.alerts("firing") if alert["labels"] in storm] == []


def test_afterwards_the_storm_is_heard_again(service: Alertmanager) -> None:
    """When the port is delivered and the API is still down, it is down for another reason."""
    post(service, DIVERTED, *STORM)
    wait_until(lambda: silenced(service, *STORM) == list(STORM), "the storm silenced")
    post(service, DIVERTED, over=True)
    wait_until(lambda: silenced(service, *STORM) == [], "the storm heard")


@pytest.mark.parametrize(
    "source",
    [
        DIVERTED.replace("severity=critical", "severity=warning"),
        DIVERTED.replace("severity=critical", "severity=info"),
        DIVERTED.replace("port=k3s-api", "port=ssh"),
        "K3swatchPortUnknown instance=node1 port=k3s-api severity=warning",
    ],
    ids=["uncertain", "waits", "another port", "unknown"],
)
def test_what_is_not_certain_silences_nothing(source: str, service: Alertmanager) -> None:
    storm = [alert for alert in STORM if not alert.startswith("K3swatch")]
    post(service, source)
    post(service, *storm)
    settled(service, 1 + len(storm))
    assert silenced(service, *storm) == []


def test_with_labels_for_clusters_only_the_same_one_is_silenced(service: Alertmanager) -> None:
    post(service, f"{DIVERTED} cluster=one")
    same, other = "KubeAPIDown job=apiserver cluster=one", "KubeAPIDown job=apiserver cluster=two"
    post(service, same, other)
    wait_until(lambda: silenced(service, same, other) == [same], "the storm of this cluster silenced")
