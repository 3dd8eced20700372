"""What is said to end an orphan: the command, quoted for the shell it will be pasted into."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from k3swatch.model.finding import Culprit, Finding, Orphan, PathStep
from k3swatch.model.words import Family, Mechanism, State, Vantage
from k3swatch.view import explain
from k3swatch.view.cure import cure

STEP = PathStep("ip", "nat", "CNI-DN-8e53e6ce9e633f6853fe9", 7, "a rule")
SANDBOX = Culprit(container="ede57a0f", left_behind=True, orphan=Orphan.SANDBOX)
FINDING = Finding(
    State.DIVERTED,
    Mechanism.DNAT,
    Vantage.LOCAL,
    Family.IP,
    (),
    "10.42.0.244:6443",
    path=(STEP,),
    culprit=SANDBOX,
)


def command(finding: Finding) -> list[str]:
    text = cure(finding)
    assert text is not None
    return shlex.split(text.partition(": ")[2])


@pytest.mark.parametrize(
    ("family", "table", "expected"),
    [
        ("ip", "nat", ["iptables", "-t", "nat", "-F", STEP.chain]),
        ("ip6", "nat", ["ip6tables", "-t", "nat", "-F", STEP.chain]),
        ("legacy ip", "nat", ["iptables-legacy", "-t", "nat", "-F", STEP.chain]),
        (
            "ip",
            "cni_hostport",
            ["nft", "delete", "rule", "ip", "cni_hostport", STEP.chain, "handle", "7"],
        ),
    ],
)
def test_the_rule_of_a_pod_that_is_gone(family: str, table: str, expected: list[str]) -> None:
    assert command(replace(FINDING, path=(replace(STEP, family=family, table=table),))) == expected


def test_the_set_of_a_service_that_is_gone() -> None:
    who = Culprit(
        pod="kube-system/svclb-x-8e92d16f-htf6q", owner="DaemonSet/svclb-x-8e92d16f", orphan=Orphan.SERVICE
    )
    expected = ["kubectl", "-n", "kube-system", "delete", "daemonset", "svclb-x-8e92d16f"]
    assert command(replace(FINDING, culprit=who)) == expected
    assert cure(replace(FINDING, culprit=replace(who, owner=None))) is None


def test_hostile_names_stay_one_word() -> None:
    evil = "CNI-DN-$(reboot);'x' \x1b[2J"
    assert command(replace(FINDING, path=(replace(STEP, chain=evil),)))[-1] == evil


def test_what_somebody_owns_has_no_cure() -> None:
    assert cure(replace(FINDING, culprit=replace(SANDBOX, orphan=None))) is None
    assert cure(replace(FINDING, culprit=None)) is None
    assert cure(replace(FINDING, path=())) is None


def test_explain_says_it() -> None:
    from k3swatch.model.finding import Observation, PortVerdict
    from k3swatch.model.port import ProtectedPort

    seen = Observation((PortVerdict(ProtectedPort("k3s-api", 6443), (FINDING,)),), 1)
    text = " ".join(explain.text(seen, False).split())
    assert f"iptables -t nat -F {STEP.chain}" in text
