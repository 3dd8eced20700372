"""Rulesets made to fool the evaluator. Each of them did, once; the kernel's answer is in a case file or its source."""

from __future__ import annotations

from typing import Any

import pytest
from support.build import TableRuleset, dnat, dport, ip, jump, node, verdict

from k3swatch.evaluate import judge
from k3swatch.model.expr import (
    Cmp,
    Code,
    Counter,
    Expr,
    Fib,
    Limit,
    Lookup,
    Meta,
    Numgen,
    Opaque,
    Payload,
    Range,
    Verdict,
    XtMatch,
)
from k3swatch.model.finding import Finding
from k3swatch.model.port import ProtectedPort
from k3swatch.model.ruleset import INPUT, PREROUTING, SET_MAP, Element, SetInfo
from k3swatch.model.words import State, Vantage
from k3swatch.model.xt import Environment

API = ProtectedPort("k3s-api", 6443)
AWAY = dnat("10.42.0.244", 6443)


def found(ruleset: TableRuleset, vantage: Vantage = Vantage.EXTERNAL) -> list[Finding]:
    """The findings in force for one vantage."""
    verdict = judge(ruleset, node(), [API])[0]
    return [f for f in verdict.findings if f.vantage is vantage and not f.shadowed]


def prerouting(*rules: list[Expr], **options: Any) -> TableRuleset:
    ruleset = TableRuleset()
    ruleset.base("t", "p", PREROUTING, *rules, **options)
    return ruleset


def test_continue_goes_on_with_the_same_rule() -> None:
    ruleset = prerouting([Payload(1, 2, 2, 2), Lookup("ports", 1, dreg=0), *AWAY])
    ruleset.sets["ports"] = (
        SetInfo("ip", "t", "ports", SET_MAP, 2, fields=(2,)),
        [Element(b"\x19\x2b", b"\x19\x2b", verdict=Verdict(Code.CONTINUE))],
    )
    (finding,) = found(ruleset)
    assert finding.state is State.DIVERTED
    assert not finding.conditions
    assert found(prerouting([*dport(6443), *verdict(Code.CONTINUE), *AWAY]))


@pytest.mark.parametrize(
    "test",
    [
        pytest.param(Limit(1, 1, 1, 0, 0), id="limit"),
        pytest.param(XtMatch("limit", 0, b"", Environment("limit 1/sec burst 5")), id="xt limit"),
        pytest.param(XtMatch("zoo", 0, b"\1"), id="a match that is not understood"),
        pytest.param(Opaque("zoo", b""), id="an expression that is not understood"),
    ],
)
def test_two_rules_that_ask_alike_need_not_be_answered_alike(test: Expr) -> None:
    ruleset = prerouting([*dport(6443), test, *verdict(Code.ACCEPT)], [*dport(6443), test, *AWAY])
    assert found(ruleset), "what the first rule lets go, the second may take"


def test_the_same_test_of_the_packet_is_answered_alike() -> None:
    night = XtMatch("time", 0, b"\1", Environment("time 00:00-06:00"))
    ruleset = prerouting([*dport(6443), night, *verdict(Code.ACCEPT)], [*dport(6443), night, *AWAY])
    assert not found(ruleset)
    other = XtMatch("time", 0, b"\2", Environment("time 00:00-06:00"))  # on other days, say
    assert found(prerouting([*dport(6443), night, *verdict(Code.ACCEPT)], [*dport(6443), other, *AWAY]))


def test_sets_of_the_same_name_in_two_tables_are_two_sets() -> None:
    """Anonymous sets are called __set0 in every table; one too large to be listed is only a name."""
    ruleset = TableRuleset()
    load = Payload(1, 1, 12, 4)
    drop: list[Expr] = [*dport(6443), load, Lookup("__set0", 1), *verdict(Code.DROP)]
    ruleset.base("a", "p", PREROUTING, drop, kind="filter", priority=-150)
    ruleset.base("b", "p", PREROUTING, [*dport(6443), load, Lookup("__set0", 1, flags=1), *AWAY], priority=0)
    elements = [Element(ip(f"10.9.{n >> 8}.{n & 255}"), ip(f"10.9.{n >> 8}.{n & 255}")) for n in range(600)]
    ruleset.sets["__set0"] = (SetInfo("ip", "a", "__set0", 0, 4, fields=(4,)), elements)
    ruleset.base("c", "p", PREROUTING, [*dport(6443), load, Lookup("__set0", 1), *AWAY], priority=10)
    chains = {finding.path[0].table for finding in found(ruleset)}
    assert chains == {"a", "b", "c"}


def test_different_parts_of_one_field_are_different_tests() -> None:
    """Two masks that leave holes, compared with the same range: more than can be followed, but not the same thing."""
    low, high = bytes(3), b"\x0a\xff\xff"
    first: list[Expr] = [*dport(6443), Payload(1, 1, 12, 3), Range(1, 0, low, high), *verdict(Code.ACCEPT)]
    second: list[Expr] = [*dport(6443), Payload(1, 1, 13, 3), Range(1, 0, low, high), *AWAY]
    assert found(prerouting(first, second))


def test_a_chain_entered_twice_rolls_its_dice_twice() -> None:
    ruleset = prerouting(jump("dice"), jump("dice"))
    dice: list[Expr] = [Numgen(1, 2, 1), Cmp(1, 0, bytes(4)), *AWAY]
    ruleset.chain("t", "dice", dice)
    assert len(found(ruleset)) == 1  # one cause
    assert found(ruleset)[0].conditions


def test_an_unknown_statement_that_only_a_counter_follows_may_divert() -> None:
    (finding,) = found(prerouting([*dport(6443), Opaque("zoo", b""), Counter(0, 0)]))
    assert finding.state is State.UNKNOWN


def test_fib_names_an_interface_in_sixteen_bytes() -> None:
    name = b"vethabcdef".ljust(16, b"\0")
    (finding,) = found(prerouting([Fib(1, 2, 1), Cmp(1, 0, name), *dport(6443), *AWAY]))
    assert finding.conditions


def test_a_syn_may_ask_for_ecn() -> None:
    plain: list[Expr] = [*dport(6443), Payload(1, 2, 13, 1), Cmp(1, 0, b"\x02"), *verdict(Code.ACCEPT)]
    (finding,) = found(prerouting(plain, [*dport(6443), *AWAY]))
    assert finding.conditions


def test_a_first_packet_has_no_socket_after_the_loopback() -> None:
    ruleset = TableRuleset()
    ruleset.base("t", "i", INPUT, [Meta(1, 10), Cmp(1, 5, bytes(4)), *verdict(Code.DROP)], kind="filter")
    assert not found(ruleset, Vantage.LOCAL)
