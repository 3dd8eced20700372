"""The example's routes, asked with amtool, and its inhibition rules as data. With a real Alertmanager: tests/netns."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).resolve().parents[3]
EXAMPLE = REPO / "packaging/alertmanager/alertmanager.example.yaml"
RULES = REPO / "packaging/prometheus/k3swatch.rules.yaml"
ALERTS = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


def amtool(*arguments: str) -> str:
    assert shutil.which("amtool"), "amtool: apt-get install prometheus-alertmanager"
    done = subprocess.run(["amtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_the_example_is_accepted() -> None:
    assert "SUCCESS" in amtool("check-config", str(EXAMPLE))


@pytest.mark.parametrize(
    ("receiver", "labels"),
    [
        ("pager", "alertname=K3swatchPortDiverted severity=critical"),
        ("pager", "alertname=K3swatchPortBlocked severity=critical"),
        ("pager", "alertname=K3swatchConnectionsDiverted severity=critical"),
        ("ticket", "alertname=K3swatchPortDiverted severity=warning"),  # uncertain, or so configured
        ("ticket", "alertname=K3swatchPortUnknown severity=warning"),
        ("ticket", "alertname=K3swatchPortUnserved severity=warning"),
        ("ticket", "alertname=K3swatchBlind severity=warning"),
        ("ticket", "alertname=K3swatchDown severity=warning"),
        ("nobody", "alertname=K3swatchPortDiverted severity=info"),
        ("nobody", "alertname=K3swatchPortBlocked severity=info"),
        ("default", "alertname=KubeAPIDown severity=critical"),
        ("default", "alertname=SomethingElse"),
    ],
)
def test_who_is_told(receiver: str, labels: str) -> None:
    assert amtool("config", "routes", "test", f"--config.file={EXAMPLE}", *labels.split()) == receiver


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_no_alert_of_ours_is_lost(alert: str) -> None:
    for severity in ("critical", "warning"):
        labels = (f"alertname={alert}", f"severity={severity}")
        told = amtool("config", "routes", "test", f"--config.file={EXAMPLE}", *labels)
        assert told in ("pager", "ticket"), (alert, severity)


def test_only_alerts_that_exist_silence_others() -> None:
    """A name that was misspelt would make an inhibition that never works, and nobody would notice."""
    config: Any = yaml.safe_load(EXAMPLE.read_text())
    for rule in config["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            names = re.findall(r"K3swatch\w+", matcher)
            assert set(names) <= ALERTS, matcher


def test_nothing_that_watches_is_silenced() -> None:
    """A diverted port must not hide another diverted port, or that nobody watches."""
    config: Any = yaml.safe_load(EXAMPLE.read_text())
    ours = {
        name
        for rule in config["inhibit_rules"]
        for matcher in rule["target_matchers"]
        for name in re.findall(r"K3swatch\w+", matcher)
    }
    assert ours == {"K3swatchConnectionsDiverted", "K3swatchPortUnserved"}


def test_a_pair_does_not_tell_twice() -> None:
    """group_interval is longer than the 15 s that the second of two waits for the first (--cluster.peer-timeout)."""

    def intervals(route: Any) -> list[str]:
        return [
            *([route["group_interval"]] if "group_interval" in route else []),
            *(each for sub in route.get("routes", []) for each in intervals(sub)),
        ]

    found = intervals(yaml.safe_load(EXAMPLE.read_text())["route"])
    assert found == ["1m"]
