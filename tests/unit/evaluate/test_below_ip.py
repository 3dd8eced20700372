"""Chains below IP: which devices a packet passes on its way, in which order, and what a frame's header decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.build import TableRuleset, daddr, dnat, dport, node, verdict

from k3swatch.evaluate import judge
from k3swatch.model.expr import Cmp, Code, Expr, Immediate, Meta, MetaSet, Payload, PayloadSet
from k3swatch.model.finding import Finding
from k3swatch.model.port import Host, Interface, ProtectedPort
from k3swatch.model.ruleset import FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING
from k3swatch.model.words import Family, Mechanism, State, Vantage

API = ProtectedPort("k3s-api", 6443)
DROP = verdict(Code.DROP)
ANSWER: list[Expr] = [Payload(1, 2, 0, 2), Cmp(1, 0, (6443).to_bytes(2))]
INGRESS, EGRESS = 0, 1
OTHER = b"\2\0\0\0\0\x99"


def host(calls: bool = False, ports: int = 2) -> Host:
    """eth0 is the port of br0, which has 192.168.1.233; cni0 has the pods' veths as its ports."""
    macs = [bytes([2, 0, 0, 0, 0, number]) for number in range(9)]
    return replace(
        node(),
        interfaces=(
            Interface(1, "lo", loopback=True, type=772, mac=bytes(6)),
            Interface(2, "br0", kind="bridge", mac=macs[4]),
            Interface(3, "cni0", kind="bridge", mac=macs[3]),
            Interface(4, "eth0", master=2, mac=macs[4]),
            *(Interface(5 + n, f"veth{n}", kind="veth", master=3, mac=macs[5 + n]) for n in range(ports)),
        ),
        bridge_calls=frozenset(Family) if calls else frozenset(),
    )


def base(hook: int, *rules: list[Expr], family: str = "bridge", device: str | None = None) -> TableRuleset:
    ruleset = TableRuleset()
    add(ruleset, hook, *rules, family=family, device=device)
    return ruleset


def add(
    ruleset: TableRuleset,
    hook: int,
    *rules: list[Expr],
    family: str = "bridge",
    kind: str = "filter",
    device: str | None = None,
) -> None:
    priority = -100 if kind == "nat" else 0
    ruleset.base(
        "t", f"c{hook}{family}", hook, *rules, kind=kind, priority=priority, family=family, device=device
    )


def found(
    ruleset: TableRuleset, on: Host, vantage: Vantage = Vantage.EXTERNAL, address: str = "192.168.1.233"
) -> list[Finding]:
    (judged,) = judge(ruleset, on, [API])
    return [each for each in judged.findings if each.vantage is vantage and address in each.addresses]


def set_bytes(data: bytes, base: int, offset: int) -> list[Expr]:
    return [Immediate(1, data), PayloadSet(1, base, offset, len(data))]


def iifname(name: str, key: int = 6) -> list[Expr]:
    return [Meta(1, key), Cmp(1, 0, name.encode().ljust(16, b"\0"))]


@pytest.mark.parametrize("hook", [PREROUTING, INPUT])
def test_everybody_comes_by_a_bridge(hook: int) -> None:
    """IP sees nothing arrive on eth0 itself, which is only a port."""
    (finding,) = found(base(hook, [*dport(6443), *DROP]), host())
    assert (finding.state, finding.conditions, finding.restriction) == (State.BLOCKED, (), False)


@pytest.mark.parametrize("hook", [OUTPUT, POSTROUTING])
def test_answers_leave_by_a_bridge(hook: int) -> None:
    (finding,) = found(base(hook, [*ANSWER, *DROP]), host())
    assert (finding.state, finding.conditions) == (State.BLOCKED, ())
    assert not found(base(hook, [*dport(6443), *DROP]), host())


def test_one_port_is_a_condition_the_only_one_is_not() -> None:
    rule: list[Expr] = [*iifname("veth1"), *dport(6443), *DROP]
    (finding,) = found(base(PREROUTING, rule), host(), address="10.42.0.1")
    assert finding.conditions == ("on interface cni0", "through veth1")
    rule = [*iifname("eth0"), *dport(6443), *DROP]
    (finding,) = found(base(PREROUTING, rule), host(), address="192.168.1.233")
    assert finding.conditions == ("on interface br0",)


def test_the_bridge_has_a_name_of_its_own() -> None:
    (finding,) = found(base(INPUT, [*iifname("br0", 17), *DROP]), host())
    assert finding.conditions == ("on interface br0",)
    assert not found(base(INPUT, [*iifname("br0"), *DROP]), host())


@pytest.mark.parametrize("device", ["eth0", "br0"])
def test_ingress_of_a_port_and_of_the_bridge(device: str) -> None:
    ruleset = base(INGRESS, [*dport(6443), *DROP], family="netdev", device=device)
    (finding,) = found(ruleset, host())
    assert finding.conditions == ("on interface br0",)


@pytest.mark.parametrize("device", ["eth0", "br0"])
def test_egress_of_a_port_and_of_the_bridge(device: str) -> None:
    ruleset = base(EGRESS, [*ANSWER, *DROP], family="netdev", device=device)
    (finding,) = found(ruleset, host())
    assert (finding.conditions, finding.why) == (("on interface br0",), "answers are refused")


@pytest.mark.parametrize("hook", [INGRESS, EGRESS])
def test_loopback_is_a_device_too(hook: int) -> None:
    ruleset = base(hook, [*dport(6443), *DROP], family="netdev", device="lo")
    for address in ("127.0.0.1", "192.168.1.233"):
        (finding,) = found(ruleset, host(), Vantage.LOCAL, address)
        assert (finding.state, finding.conditions) == (State.BLOCKED, ())
    assert not found(ruleset, host())


def test_a_frame_sent_to_somebody_else() -> None:
    (finding, _) = found(base(PREROUTING, [*dport(6443), *set_bytes(OTHER, 0, 0)]), host())
    assert (finding.state, finding.mechanism, finding.certain) == (State.DIVERTED, Mechanism.DNAT, True)
    assert "02:00:00:00:00:99" in (finding.why or "")
    ours = set_bytes(b"\2\0\0\0\0\4", 0, 0)
    (left,) = found(base(PREROUTING, [*dport(6443), *ours]), host(), address="192.168.1.233")
    assert left.conditions == ("on interface cni0",), (
        "a port's address is the bridge's, another bridge's is not"
    )


def test_a_frame_whose_receiver_is_not_known() -> None:
    for rule in ([*dport(6443), *set_bytes(b"\x33", 0, 0)], [*dport(6443), *set_bytes(b"\0\0", 0, 12)]):
        assert {each.state for each in found(base(PREROUTING, rule), host())} == {State.UNKNOWN}
    assert {each.state for each in found(base(OUTPUT, [*ANSWER, *set_bytes(OTHER, 0, 0)]), host())} == {
        State.UNKNOWN
    }


def test_what_a_frame_says_is_no_matter_where_nobody_decides_by_it() -> None:
    rule: list[Expr] = [*dport(6443), *set_bytes(OTHER, 0, 0)]
    assert not found(base(INPUT, rule), host()), "the bridge has taken it in"
    assert not found(base(INGRESS, rule, family="netdev", device="br0"), host()), "eth_type_trans has been"
    assert found(base(INGRESS, rule, family="netdev", device="eth0"), host()), "the bridge has not"
    assert not found(base(PREROUTING, [*dport(6443), *set_bytes(OTHER, 0, 6)]), host()), "where it comes from"


def test_no_frame_to_us_has_another_address() -> None:
    rule: list[Expr] = [Payload(1, 0, 0, 6), Cmp(1, 0, OTHER), *DROP]
    assert not found(base(PREROUTING, rule), host())
    (finding,) = found(base(PREROUTING, [Payload(1, 0, 0, 6), Cmp(1, 0, b"\2\0\0\0\0\4"), *DROP]), host())
    assert finding.conditions == ("on interface br0",)


@pytest.mark.parametrize(("kind", "state"), [(0, None), (3, State.BLOCKED)])
def test_whose_packet_it_is_is_overwritten(kind: int, state: State | None) -> None:
    rule: list[Expr] = [*dport(6443), Immediate(1, bytes([kind])), MetaSet(1, 19)]
    assert {each.state for each in found(base(PREROUTING, rule), host())} == ({state} if state else set())
    again = base(INGRESS, rule, family="netdev", device="eth0")
    assert not found(again, host()), "the bridge says whose it is once more"


def test_routed_instead_of_bridged() -> None:
    rule: list[Expr] = [*dport(6443), Immediate(1, b"\1"), MetaSet(1, 35)]
    assert {each.state for each in found(base(PREROUTING, rule), host())} == {State.UNKNOWN}


@pytest.mark.parametrize("calls", [False, True])
def test_with_br_netfilter_the_input_chain_sees_what_nat_made_of_it(calls: bool) -> None:
    """And without, what was dialled."""
    for seen, refuses in (("10.9.9.9", calls), ("192.168.1.233", not calls)):
        ruleset = base(INPUT, [*daddr(seen), *dport(6443), *DROP])
        add(
            ruleset,
            PREROUTING,
            [*dport(6443), *dnat("10.9.9.9", 6443)],
            family="ip",
            kind="nat",
        )
        states = {each.state for each in found(ruleset, host(calls))}
        assert states == ({State.BLOCKED} if refuses else {State.DIVERTED})


def test_what_nat_sends_back_to_its_bridge_is_bridged() -> None:
    """It passes the bridge's forward chain, neither input nor output; what others are sent there, output."""
    blocked = {}
    for hook in (INPUT, FORWARD, OUTPUT, POSTROUTING):
        ruleset = base(hook, [*daddr("10.42.0.244"), *dport(6443), *DROP])
        nat = [*dport(6443), *dnat("10.42.0.244", 6443)]
        add(ruleset, PREROUTING, nat, family="ip")
        states = found(ruleset, host(calls=True))
        blocked[hook] = [each.conditions for each in states if each.state is State.BLOCKED]
    assert blocked == {
        INPUT: [("on interface br0",)],
        FORWARD: [("on interface cni0",)],
        OUTPUT: [("on interface br0",)],
        POSTROUTING: [()],
    }


def test_a_vlan_of_a_bridge_and_what_it_rests_on() -> None:
    upper = Interface(9, "br0.7", kind="vlan", link=2)
    on = replace(host(), interfaces=(*host().interfaces, upper))
    assert set(on.above(4)) == {2, 9}
    assert on.above(5) == {3: ((5, 3),)}
    assert on.heights[4] < on.heights[2] < on.heights[9]
    (finding,) = found(base(PREROUTING, [*iifname("eth0"), *dport(6443), *DROP]), on)
    assert finding.conditions == ("not on interface cni0",)
