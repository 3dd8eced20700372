"""`flow add @ft`: what a flowtable takes over is not seen by later rules, but the first packet is."""

from __future__ import annotations

import pytest
from support.build import TableRuleset, daddr, dnat, dport, node, verdict
from support.wire import nla

from k3swatch.decode.nft.expression import decode_expression
from k3swatch.evaluate import judge
from k3swatch.evaluate.text import rule_text
from k3swatch.model.expr import Bitwise, Cmp, Code, Ct, Expr, Flow, Opaque
from k3swatch.model.finding import Finding
from k3swatch.model.port import ProtectedPort
from k3swatch.model.ruleset import FORWARD, INPUT, PREROUTING
from k3swatch.model.words import State

DROP = verdict(Code.DROP)
FLOW: list[Expr] = [Flow("ft")]
ESTABLISHED: list[Expr] = [Ct(1, 0), Bitwise(1, 1, 4, b"\2\0\0\0", bytes(4)), Cmp(1, 1, bytes(4))]


def found(*forward: list[Expr], hook: int = FORWARD, diverted: bool = True) -> list[Finding]:
    ruleset = TableRuleset()
    if diverted:
        ruleset.base("n", "p", PREROUTING, [*dport(6443), *dnat("10.42.0.244", 6443)])
    for number, rule in enumerate(forward):
        ruleset.base("t", f"c{number}", hook, rule, kind="filter", priority=number)
    (judged,) = judge(ruleset, node(), [ProtectedPort("k3s-api", 6443)])
    return [
        each for each in judged.findings if "192.168.1.233" in each.addresses and each.vantage == "external"
    ]


def states(*forward: list[Expr]) -> list[tuple[State, tuple[str, ...]]]:
    return sorted((each.state, each.conditions) for each in found(*forward))


def test_a_flowtable_in_front_of_nothing_says_nothing() -> None:
    assert states(FLOW) == [(State.DIVERTED, ())]
    assert not found(FLOW, diverted=False)


def test_the_first_packet_is_not_offloaded() -> None:
    assert states(FLOW, [*daddr("10.42.0.244"), *DROP]) == [(State.BLOCKED, ())]
    assert states([Flow("ft"), *verdict(Code.ACCEPT)], [*dport(6443), *DROP]) == [(State.BLOCKED, ())]


def test_later_packets_bypass_what_comes_after_and_not_what_comes_before() -> None:
    taken = "offloaded to flowtable ft"
    assert states(FLOW, [*ESTABLISHED, *DROP]) == [
        (State.BLOCKED, (f"not {taken}",)),
        (State.DIVERTED, (taken,)),
    ]
    assert states([*ESTABLISHED, *DROP], FLOW) == [(State.BLOCKED, ())]


def test_what_reaches_the_port_is_not_forwarded() -> None:
    assert not found(FLOW, hook=INPUT, diverted=False)


@pytest.mark.parametrize(("raw", "known"), [(nla(1, b"ft\0"), True), (nla(2, b"ft\0"), False)])
def test_decoded(raw: bytes, known: bool) -> None:
    expr = decode_expression(nla(1, b"flow_offload\0") + nla(2, raw), 2)
    assert expr == Flow("ft") if known else isinstance(expr, Opaque)
    if known:
        assert rule_text([expr], "ip", lambda name: None) == "flow add @ft"
