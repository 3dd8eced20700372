"""Recording rules and runbooks: every alert has a page, every page says what can be typed and what must not be."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from k3swatch import cli
from k3swatch.sinks.alerts import NAMES, RUNBOOK, UNKNOWN

REPO = Path(__file__).resolve().parents[3]
PROMETHEUS = REPO / "packaging/prometheus"
PAGES = sorted(path for path in (REPO / "docs/runbooks").glob("*.md") if path.name != "README.md")
PARTS = ["What it means", "How sure", "Look", "Do", "Do not"]
# what must be advised nowhere but below "Do not"
FORBIDDEN = (
    "iptables-save",
    "iptables-restore",
    "https-listen-port",
    "flush ruleset",
    "k3s-killall",
    "iptables -F",
)


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("k3swatch.rules.yaml")}


def run(*command: str, folder: Path = PROMETHEUS) -> tuple[int, str]:
    assert shutil.which(command[0]), f"{command[0]}: apt-get install prometheus"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def parts(page: Path) -> dict[str, str]:
    """The sections of a page by their headings."""
    chunks = re.split(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(chunks[1::2], chunks[2::2], strict=True))


def scripts(text: str) -> list[str]:
    """What is in fences: to be typed."""
    return re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """Every `k3swatch ...` of a page that is to be typed, as words."""
    for script in scripts(page.read_text()):
        for line in script.splitlines():
            for command in re.split(r"&&|\|", line.partition("#")[0]):
                words = shlex.split(command)
                if words[:1] == ["k3swatch"]:
                    yield words[1:]


# recording rules


def test_the_recording_rules_do_what_their_tests_say() -> None:
    status, said = run("promtool", "check", "rules", "k3swatch.recording.yaml")
    assert (status, f"SUCCESS: {len(rules('k3swatch.recording.yaml'))} rules" in said) == (0, True), said
    status, said = run("promtool", "test", "rules", "recording.test.yaml")
    assert status == 0, said


def test_every_recording_rule_has_a_test() -> None:
    cases = yaml.safe_load((PROMETHEUS / "recording.test.yaml").read_text())["tests"]
    asked = " ".join(case["expr"] for test in cases for case in test["promql_expr_test"])
    assert [rule["record"] for rule in rules("k3swatch.recording.yaml") if rule["record"] not in asked] == []


def test_a_recording_rule_that_is_broken_fails_its_test(tmp_path: Path) -> None:
    text = (PROMETHEUS / "k3swatch.recording.yaml").read_text()
    broken = text.replace('outcome!="delivered"', 'outcome="dropped"')
    assert broken != text
    (tmp_path / "k3swatch.recording.yaml").write_text(broken)
    shutil.copy(PROMETHEUS / "recording.test.yaml", tmp_path)
    status, said = run("promtool", "test", "rules", "recording.test.yaml", folder=tmp_path)
    assert status != 0, said


# runbooks


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    named = {name: rule["annotations"]["runbook_url"] for name, rule in ALERTS.items()}
    assert named == {name: f"/usr/share/doc/k3swatch/runbooks/{name}.md" for name in ALERTS}
    assert {page.stem for page in PAGES} == set(ALERTS)


def test_what_the_daemon_pushes_points_to_the_same_pages() -> None:
    assert {*NAMES.values(), UNKNOWN} <= set(ALERTS)
    assert {ALERTS[name]["annotations"]["runbook_url"] for name in NAMES.values()} == {
        f"{RUNBOOK}{name}.md" for name in NAMES.values()
    }


def test_the_package_holds_the_pages_where_they_are_looked_for() -> None:
    assert "docs/runbooks" in (REPO / "packaging/deb/debian/docs").read_text().split()


def test_the_list_of_pages_is_complete_and_says_the_severity() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\]\((\w+)\.md\) \| ([^|]+) \|",
        (REPO / "docs/runbooks/README.md").read_text(),
        flags=re.MULTILINE,
    )
    assert all(name == target for name, target, _ in rows)
    said = {name: severity for name, _, severity in rows}
    assert said == {
        name: rule.get("labels", {}).get("severity", "the port's") for name, rule in ALERTS.items()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_all_its_parts_in_order(page: Path) -> None:
    found = parts(page)
    assert page.read_text().startswith(f"# {page.stem}\n")
    assert list(found) == PARTS
    assert all(text.strip() for text in found.values())
    assert scripts(found["Look"]), "nothing to type"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_advises_nothing_that_makes_it_worse(page: Path) -> None:
    for name, text in parts(page).items():
        if name != "Do not":
            assert [word for word in FORBIDDEN if word in text] == [], name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_to_type_can_be_typed(page: Path) -> None:
    for script in scripts(page.read_text()):
        done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), script
    for words in commands(page):
        cli.parser().parse_args(words)


def test_every_option_that_does_not_exist_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nexport X=1   # k3swatch gone\nk3swatch check --nowhere && true\n```\n")
    (words,) = commands(page)
    with pytest.raises(SystemExit):
        cli.parser().parse_args(words)


def test_the_main_page_keeps_the_order_that_was_found_to_work() -> None:
    """Talk to the API, then the cause, its DaemonSet, its pod, rules, connections, proof."""
    do = parts(REPO / "docs/runbooks/K3swatchPortDiverted.md")["Do"]
    order = (
        "admin.kubeconfig",
        "delete service",
        "delete daemonset",
        "crictl stopp",
        "iptables -t nat -D",
        "conntrack -D",
        "k3swatch check",
    )
    places = [do.index(word) for word in order]
    assert places == sorted(places)


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, REPO / "docs/runbooks/README.md"]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
