"""Known-good diversions."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from support.effort import effort

from k3swatch.incident.allow import allowed, without_allowed
from k3swatch.model.finding import Culprit, Finding, PathStep, PortVerdict
from k3swatch.model.glob import glob
from k3swatch.model.port import Allow, ProtectedPort
from k3swatch.model.words import Family, Mechanism, State, Vantage

STEP = PathStep("ip", "nat", "C", 1, "dnat", comment='dnat name: "cbr0" id: "abc"')
FINDING = Finding(
    State.DIVERTED,
    Mechanism.DNAT,
    Vantage.LOCAL,
    Family.IP,
    ("127.0.0.1",),
    "10.42.0.5:6443",
    path=(STEP,),
    culprit=Culprit(pod="kube-system/svclb-x", confidence="high"),
)
NET = ipaddress.ip_network


@pytest.mark.parametrize(
    ("allow", "expected"),
    [
        (Allow(), False),
        (Allow(destination=NET("10.42.0.0/16")), True),
        (Allow(destination=NET("10.43.0.0/16")), False),
        (Allow(destination=NET("fd00::/8")), False),
        (Allow(comment="dnat name: *"), True),
        (Allow(comment="*cbr1*"), False),
        (Allow(pod="kube-system/svclb-*"), True),
        (Allow(pod="default/*"), False),
        (Allow(destination=NET("10.42.0.0/16"), comment="nope"), False),
        (Allow(destination=NET("10.42.0.0/16"), comment="*abc*", pod="*"), True),
    ],
)
def test_every_field_that_is_set_must_match(allow: Allow, expected: bool) -> None:
    assert allowed(ProtectedPort("p", 1, allow=(allow,)), FINDING) is expected


def test_a_contradicted_pod_silences_nothing() -> None:
    port = ProtectedPort("p", 1, allow=(Allow(pod="*"),))
    assert allowed(port, FINDING)
    assert not allowed(port, replace(FINDING, culprit=Culprit(pod="kube-system/svclb-x", confidence="low")))


def test_ipv6_and_no_destination() -> None:
    port = ProtectedPort("p", 1, allow=(Allow(destination=NET("fd00::/8")),))
    assert allowed(port, replace(FINDING, destination="[fd00::5]:6443"))
    assert not allowed(port, replace(FINDING, destination=None))
    assert not allowed(port, replace(FINDING, destination="nonsense"))


def test_only_a_diversion_can_be_good() -> None:
    port = ProtectedPort("p", 1, allow=(Allow(comment="*"),))
    assert not allowed(port, replace(FINDING, state=State.BLOCKED))
    assert not allowed(port, replace(FINDING, state=State.UNKNOWN))


def test_the_verdict_without_them() -> None:
    port = ProtectedPort("p", 1, allow=(Allow(pod="kube-system/*"),))
    other = replace(FINDING, culprit=None)
    assert without_allowed(PortVerdict(port, (FINDING, other))).findings == (other,)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("", "", True),
        ("*", "", True),
        ("a*c", "abbc", True),
        ("a*c", "abbd", False),
        ("?b*", "abc", True),
        ("*.x*y", "a.xzy", True),
        ("[a]", "a", False),
        ("[a]", "[a]", True),
        ("a", "ab", False),
        ("**", "x", True),
        ("*a?", "aaab", True),
    ],
)
def test_glob(pattern: str, text: str, expected: bool) -> None:
    assert glob(pattern, text) is expected


def test_glob_is_not_a_trap_for_the_daemon() -> None:
    with effort(2.0):
        assert not glob("*a*a*a*a*a*a*a*b", "a" * 5000)
