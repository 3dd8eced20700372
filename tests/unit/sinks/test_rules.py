"""The alert rules, their tests and the examples: checked with Prometheus' and Alertmanager's own tools."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "packaging/prometheus"
RULES = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "k3swatch.rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]


def run(*command: str, folder: Path = PROMETHEUS) -> str:
    assert shutil.which(command[0]), f"{command[0]}: apt-get install prometheus prometheus-alertmanager"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules() -> None:
    assert f"SUCCESS: {len(RULES)} rules found" in run("promtool", "check", "rules", "k3swatch.rules.yaml")


def test_the_rules_do_what_their_tests_say() -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", "k3swatch.test.yaml")


def test_a_rule_that_is_broken_fails_its_test(tmp_path: Path) -> None:
    text = (PROMETHEUS / "k3swatch.rules.yaml").read_text()
    broken = text.replace('severity!="info"', 'severity!="critical"')
    assert broken != text
    (tmp_path / "k3swatch.rules.yaml").write_text(broken)
    shutil.copy(PROMETHEUS / "k3swatch.test.yaml", tmp_path)
    with pytest.raises(AssertionError, match="FAILED"):
        run("promtool", "test", "rules", "k3swatch.test.yaml", folder=tmp_path)


def test_every_rule_has_a_test_that_sees_it_fire() -> None:
    tests = yaml.safe_load((PROMETHEUS / "k3swatch.test.yaml").read_text())["tests"]
    fired = {
        case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_rule_says_what_and_where_to_read_on(rule: Any) -> None:
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    page = notes["runbook_url"].removeprefix("/usr/share/doc/k3swatch/")
    assert (ROOT / "docs" / page).is_file()
    assert "severity" in rule.get("labels", {}) or "severity" in rule["expr"]


def test_rules_use_only_metrics_that_are_documented() -> None:
    documented = (ROOT / "docs/metrics.md").read_text()
    for rule in RULES:
        for word in rule["expr"].replace("(", " ").replace("{", " ").replace("[", " ").split():
            if word.startswith("k3swatch_"):
                assert f"`{word}`" in documented, word


def test_the_examples_are_accepted(tmp_path: Path) -> None:
    run("amtool", "check-config", str(ROOT / "packaging/alertmanager/alertmanager.example.yaml"))
    text = (PROMETHEUS / "scrape.example.yaml").read_text()
    here = text.replace("/usr/share/k3swatch/prometheus/", f"{PROMETHEUS}/")
    assert here != text
    (tmp_path / "prometheus.yml").write_text(here)
    run("promtool", "check", "config", str(tmp_path / "prometheus.yml"))
