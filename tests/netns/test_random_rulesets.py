"""Random rulesets, judged by real connections: what no case file thought of.

Every connection is judged on its own, as `explain --from` does, so that a condition on the source is decided and not
only reported. Seeds are fixed; K3SWATCH_SEEDS=1000 tries more, K3SWATCH_SEED=17 only one.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from k3swatch.config.settings import defaults
from k3swatch.demo import lab as at
from k3swatch.demo.apiserver import who_answers
from k3swatch.demo.lab import Lab
from k3swatch.demo.said import NOBODY
from k3swatch.evaluate import judge
from k3swatch.live.host import read_host
from k3swatch.live.ruleset import LiveRuleset
from k3swatch.model.finding import Finding
from k3swatch.model.words import State, Vantage
from k3swatch.sources.nftables import NftablesSource


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    __import__("sys").modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


rulegen = _load("rulegen")

CONNECTIONS = {
    False: [
        ("client", at.CLIENT, at.HOST),
        ("client", at.CLIENT_B, at.HOST),
        ("web", at.WEB, at.HOST),
        ("web", at.WEB, at.CNI0),
        ("host", at.HOST, at.HOST),
        ("host", at.CNI0, at.CNI0),
        ("host", "127.0.0.1", "127.0.0.1"),
    ],
    True: [
        ("client", at.CLIENT6, at.HOST6),
        ("client", at.CLIENT6_B, at.HOST6),
        ("web", at.WEB6, at.HOST6),
        ("web", at.WEB6, at.CNI0_6),
        ("host", at.HOST6, at.HOST6),
        ("host", "::1", "::1"),
    ],
}
ENDS = {at.WEB_POD: ":6443", at.LOCAL_8443: ":8443"}
ONLY = os.environ.get("K3SWATCH_SEED")
SEEDS = [int(ONLY)] if ONLY else range(int(os.environ.get("K3SWATCH_SEEDS", "40")))


def wrong(findings: list[Finding], answer: str) -> str:
    """Why these findings cannot be true of this answer; empty when they can."""
    sure = {finding.state for finding in findings if finding.certain and not finding.conditions}
    if not findings and answer != at.API:
        return "FALSE ALL-CLEAR"
    if answer == at.API and sure & {State.DIVERTED, State.BLOCKED}:
        return "FALSE ALARM"
    if State.BLOCKED in sure and State.DIVERTED not in sure and answer not in NOBODY:
        return "FALSE ALARM"
    end = ENDS.get(answer)
    unknown = any(finding.state is State.UNKNOWN for finding in findings)
    if end and not unknown and not any((finding.destination or "").endswith(end) for finding in findings):
        return "WRONG DESTINATION"
    return ""


def judged(on: Lab, connections: list[tuple[str, str, str]]) -> list[list[Finding]]:
    """What is said of each connection: the findings in force for its source and destination."""
    with on.host.inside(), closing(NftablesSource()) as source:
        ruleset, host = LiveRuleset(source), read_host()
        said = []
        for name, origin, address in connections:
            verdict = judge(ruleset, host, defaults().ports, source=ipaddress.ip_address(origin))[0]
            vantage = Vantage.LOCAL if name == "host" else Vantage.EXTERNAL
            mine = [f for f in verdict.findings if f.vantage is vantage and address in f.addresses]
            said.append([finding for finding in mine if not finding.shadowed])
        return said


def compare(on: Lab, script: str, v6: bool) -> None:
    """Load the rules, dial, judge; fail with a table."""
    on.reset()
    on.host.shell(script)

    def dial(connection: tuple[str, str, str]) -> str:
        name, source, address = connection
        return who_answers(getattr(on, name), address, 6443, timeout=0.4, source=source)

    connections = CONNECTIONS[v6]
    with ThreadPoolExecutor(len(connections)) as pool:
        answers = list(pool.map(dial, connections))
    lines, bad = [], False
    said = judged(on, connections)
    for (name, source, address), answer, findings in zip(connections, answers, said, strict=True):
        complaint = wrong(findings, answer)
        words = "; ".join(
            f"{f.state} {f.destination or ''} {' and '.join(f.conditions)}{'' if f.certain else ' ?'} {f.why or ''}"
            for f in findings
        )
        lines.append(f"{name} {source} -> {address}: {answer}; said: {words or 'delivered'}  {complaint}")
        bad = bad or bool(complaint)
    if bad:
        pytest.fail("\n".join([script, "", *lines]), pytrace=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_iptables(module_lab: Lab, seed: int) -> None:
    compare(module_lab, rulegen.iptables(random.Random(seed), rulegen.V4), v6=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_ip6tables(module_lab: Lab, seed: int) -> None:
    compare(module_lab, rulegen.iptables(random.Random(seed), rulegen.V6), v6=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_nft(module_lab: Lab, seed: int) -> None:
    addresses = random.Random(-seed - 1).choice((rulegen.V4, rulegen.V6))
    compare(module_lab, rulegen.nft(random.Random(seed), addresses), v6=addresses is rulegen.V6)


def test_the_rulesets_are_worth_it() -> None:
    """The comparison can fail, and the generator makes something new for every seed."""
    assert wrong([], at.WEB_POD) == wrong([], "refused") == "FALSE ALL-CLEAR"
    scripts = {rulegen.iptables(random.Random(seed), rulegen.V4) for seed in range(40)}
    scripts |= {rulegen.nft(random.Random(seed), rulegen.V4) for seed in range(40)}
    assert len(scripts) == 80
