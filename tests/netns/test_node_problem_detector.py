"""The plugin for node-problem-detector, run as that runs it, on a host that is hijacked and on one that is not.

`Detector` does what its pkg/custompluginmonitor does with a permanent rule: 4 KiB of stdout, trimmed and cut at
max_output_length; exit status 0 is False, 1 is True, anything else and a time-out are Unknown.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.daemon import python

from k3swatch.demo.lab import HOST, OTHER, Lab
from k3swatch.demo.netns import Namespace, namespaces

REPO = Path(__file__).resolve().parents[2]
FOLDER = REPO / "packaging/node-problem-detector"
CONFIG: dict[str, Any] = json.loads((FOLDER / "k3swatch-monitor.json").read_text())
INSTALLED = "/usr/share/k3swatch/node-problem-detector/"
# types.CustomRule, CustomPluginConfig, pluginGlobalConfig of node-problem-detector: what it reads; the rest it ignores
KEYS = {
    "": {"plugin", "pluginConfig", "source", "conditions", "rules", "metricsReporting"},
    "pluginConfig": {
        "invoke_interval",
        "timeout",
        "max_output_length",
        "concurrency",
        "enable_message_change_based_condition_update",
        "skip_initial_status",
    },
    "conditions": {"type", "reason", "message"},
    "rules": {"type", "condition", "reason", "path", "args", "timeout", "invoke_interval"},
}


class Detector:
    """One invocation of the only rule, with `path` before everything else on PATH."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def condition(self, space: Namespace, *args: str) -> tuple[str, str]:
        """(status, message) of the condition."""
        (rule,) = CONFIG["rules"]
        plugin = FOLDER / rule["path"].removeprefix(INSTALLED)
        limits = CONFIG["pluginConfig"]
        environment = {"PATH": f"{self.path}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
        with space.inside():
            try:
                done = subprocess.run(
                    [plugin, *rule.get("args", []), *args],
                    capture_output=True,
                    timeout=int(limits["timeout"].removesuffix("s")),
                    env=environment,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return "Unknown", "timeout"
        message = done.stdout[:4096].strip()[: limits["max_output_length"]].decode(errors="replace")
        return {0: "False", 1: "True"}.get(done.returncode, "Unknown"), message


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def detector(tmp_path: Path) -> Detector:
    """k3swatch is installed."""
    executable(tmp_path / "k3swatch", f'#!/bin/sh\ncd {REPO} && exec {sys.executable} -m k3swatch.cli "$@"\n')
    return Detector(tmp_path)


def test_a_hijack_makes_the_condition_true_and_its_end_false(module_lab: Lab, detector: Detector) -> None:
    module_lab.reset()
    assert detector.condition(module_lab.host)[0] == "False"
    rule = f"PREROUTING -d {HOST} -p tcp --dport 6443 -j DNAT --to-destination {OTHER}:6443"
    module_lab.host.run("iptables", "-t", "nat", "-A", *rule.split())
    status, message = detector.condition(module_lab.host)
    assert status == "True"
    assert message.startswith("tcp/6443 (k3s-api): diverted")
    assert f"{HOST} to {OTHER}:6443" in message
    assert "ip nat PREROUTING" in message
    assert "\n" not in message
    module_lab.host.run("iptables", "-t", "nat", "-D", *rule.split())
    assert detector.condition(module_lab.host)[0] == "False"


def test_the_message_stands_still_while_other_rules_come_and_go(module_lab: Lab, detector: Detector) -> None:
    """Else every sync of kube-proxy would be a change of the node's condition."""
    module_lab.reset()
    rule = f"PREROUTING -d {HOST} -p tcp --dport 6443 -j DNAT --to-destination {OTHER}:6443"
    module_lab.host.run("iptables", "-t", "nat", "-A", *rule.split())
    first = detector.condition(module_lab.host)
    module_lab.host.run("nft", "add table ip other")
    assert detector.condition(module_lab.host) == first
    assert "generation" not in first[1]


def test_what_nobody_can_tell_is_unknown(detector: Detector) -> None:
    chain = "chain o { type nat hook output priority -100; tcp dport 6443 dnat to"
    with namespaces("odd") as spaces:
        odd = spaces["odd"]
        odd.ip("link set lo up")
        odd.run("nft", f"table ip a {{ {chain} 10.0.0.1; }}; }}; table ip b {{ {chain} ip daddr; }}; }}")
        status, message = detector.condition(odd)
    assert (status, "the same priority" in message) == ("Unknown", True), message


def broken(text: str) -> str:
    return f"#!{sys.executable}\n{text}\n"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (broken("import nowhere"), "No module named 'nowhere'"),  # exit status 1, as if diverted
        (broken("raise SystemExit(0)"), "exit status 0"),  # a good status without a word
        (broken("print('diverted'); raise SystemExit(77)"), "exit status 77"),
        (broken("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), "exit status 137"),
        ("#!/nowhere/python3\n", "exit status 12"),  # 126 or 127
        (broken("print('tcp/6443: unknown'); raise SystemExit(2)"), "tcp/6443: unknown"),
    ],
    ids=["a crash", "silence", "not permitted", "killed", "no interpreter", "unknown"],
)
def test_what_could_not_look_is_unknown_never_a_verdict(
    program: str, why: str, detector: Detector, module_lab: Lab
) -> None:
    executable(detector.path / "k3swatch", program)
    status, message = detector.condition(module_lab.host)
    assert (status, why in message) == ("Unknown", True), message


def test_no_privilege_is_unknown(module_lab: Lab, detector: Detector, code: Path) -> None:
    module_lab.reset()
    nobody = ("setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
    command = (python(code), "-m", "k3swatch.cli", "check")
    script = f"cd {code} && exec {' '.join((*nobody, *command))}"
    status, message = detector.condition(module_lab.host, "sh", "-c", script)
    assert status == "Unknown", message
    assert "exit status" in message


def test_the_container_way_with_nsenter(module_lab: Lab, detector: Detector) -> None:
    """As the README has it: the plugin runs elsewhere and enters the host's namespaces for the look."""
    module_lab.reset()
    module_lab.host.run(
        "nft",
        "table ip x { chain o { type nat hook output priority -100; tcp dport 6443 dnat to 10.0.0.1; }; }",
    )
    readme = (FOLDER / "README.md").read_text()
    words = json.loads(re.findall(r"```json\n(.*?)```", readme, flags=re.DOTALL)[0])["args"]
    assert words[:3] == ["nsenter", "--target", "1"]
    with module_lab.host.inside():
        sleeper = subprocess.Popen(["sleep", "60"])
    try:
        words[2] = str(sleeper.pid)
        status, message = detector.condition(module_lab.web, *words)
    finally:
        sleeper.kill()
        sleeper.wait()
    assert (status, "10.0.0.1:6443" in message) == ("True", True), message


# the configuration, as node-problem-detector validates it


def test_the_configuration_has_only_what_is_read() -> None:
    assert set(CONFIG) <= KEYS[""]
    assert set(CONFIG["pluginConfig"]) <= KEYS["pluginConfig"]
    for name in ("conditions", "rules"):
        assert all(set(entry) <= KEYS[name] for entry in CONFIG[name])


def test_the_configuration_is_valid() -> None:
    assert CONFIG["plugin"] == "custom"
    for key in ("invoke_interval", "timeout"):
        assert re.fullmatch(r"[1-9][0-9]*s", CONFIG["pluginConfig"][key])
    (rule,), (condition,) = CONFIG["rules"], CONFIG["conditions"]
    assert (rule["type"], rule["condition"]) == ("permanent", condition["type"])
    plugin = FOLDER / rule["path"].removeprefix(INSTALLED)
    assert rule["path"].startswith(INSTALLED)
    assert os.access(plugin, os.X_OK)
