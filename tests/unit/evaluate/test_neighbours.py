"""Addresses that nobody can find, because what asks for them (ARP, neighbour discovery) or what answers is refused."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from support.build import TableRuleset, dport, node, verdict

from k3swatch.evaluate import judge
from k3swatch.evaluate.discovery import solicited_node
from k3swatch.model.expr import (
    Bitwise,
    Cmp,
    Code,
    Ct,
    CtSet,
    Expr,
    Fib,
    Immediate,
    Limit,
    Meta,
    Payload,
    Range,
    XtMatch,
)
from k3swatch.model.finding import Finding
from k3swatch.model.port import Host, Interface, LocalAddress, ProtectedPort
from k3swatch.model.ruleset import INPUT, OUTPUT, POSTROUTING, PREROUTING
from k3swatch.model.words import Mechanism, State, Vantage
from k3swatch.model.xt import Icmp, Owner, PktType

API = ProtectedPort("k3s-api", 6443)
DROP, ACCEPT = verdict(Code.DROP), verdict(Code.ACCEPT)
PORT: list[Expr] = [*dport(6443), *ACCEPT]
ICMPV6: list[Expr] = [Meta(1, 16), Cmp(1, 0, b"\x3a")]
LO: list[Expr] = [Meta(1, 4), Cmp(1, 0, b"\1\0\0\0"), *ACCEPT]
INGRESS = 0


def state(bits: int) -> list[Expr]:
    return [Ct(1, 0), Bitwise(1, 1, 4, bits.to_bytes(4, "little"), bytes(4)), Cmp(1, 1, bytes(4))]


def icmp(kind: int) -> list[Expr]:
    return [*ICMPV6, Payload(1, 2, 0, 1), Cmp(1, 0, bytes([kind]))]


def base(
    hook: int, *rules: list[Expr], family: str = "inet", policy: int = Code.ACCEPT, device: str | None = None
) -> TableRuleset:
    ruleset = TableRuleset()
    kind = {"kind": "filter", "priority": 0, "policy": policy, "family": family, "device": device}
    ruleset.base("t", "c", hook, *rules, **kind)  # type: ignore[arg-type]
    return ruleset


def closed(*rules: list[Expr], hook: int = INPUT) -> TableRuleset:
    """A firewall that lets the port pass, loopback, and what the rules say."""
    return base(hook, *rules, LO, PORT, policy=Code.DROP)


def found(ruleset: TableRuleset, host: Host | None = None) -> list[Finding]:
    findings = judge(ruleset, host or node(), [API])[0].findings
    return [each for each in findings if each.mechanism is Mechanism.NEIGHBOUR]


def test_a_firewall_that_has_forgotten_icmpv6() -> None:
    (finding,) = found(closed(state(6) + ACCEPT))
    assert (finding.state, finding.vantage, finding.addresses) == (
        State.BLOCKED,
        Vantage.EXTERNAL,
        ("fd00:1::233",),
    )
    assert not finding.certain, "who remembers the address gets through"
    assert (finding.conditions, finding.restriction) == ((), False)
    assert finding.rule is not None
    assert finding.rule.rule == "policy drop"
    assert "neighbour solicitations are refused" in (finding.why or "")


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param([*icmp(135), *ACCEPT], id="by type"),
        pytest.param([*ICMPV6, *ACCEPT], id="all of ICMPv6"),
        pytest.param([*icmp(135), Payload(1, 1, 7, 1), Cmp(1, 0, b"\xff"), *ACCEPT], id="hop limit"),
        pytest.param([*state(64), *ACCEPT], id="untracked"),
        pytest.param(
            [Meta(1, 16), Range(1, 0, b"\x3a", b"\x3b"), Payload(1, 2, 0, 1), Range(1, 0, b"\x85", b"\x88"), *ACCEPT],
            id="a range of types",
        ),
        pytest.param([*ICMPV6, XtMatch("icmp6", 0, b"", Icmp(58, 135)), *ACCEPT], id="xt"),
        pytest.param([*ICMPV6, XtMatch("icmp6", 0, b"", Icmp(58, 134, invert=True)), *ACCEPT], id="xt, another"),
        pytest.param([*ICMPV6, XtMatch("icmp6", 0, b"", Icmp(58, 255)), *ACCEPT], id="xt, any"),
        pytest.param([*icmp(135), Limit(10, 1, 5, 0, False), *ACCEPT], id="by rate: some get through"),
        pytest.param([Meta(1, 19), Cmp(1, 0, b"\2"), *ACCEPT], id="multicast"),
        pytest.param([Payload(1, 1, 24, 2), Cmp(1, 0, b"\xff\x02"), *ACCEPT], id="by its group"),
        pytest.param([Fib(1, 3, 2), Cmp(1, 0, b"\5\0\0\0"), *ACCEPT], id="fib: multicast"),
    ],
)  # fmt: skip
def test_a_firewall_that_lets_the_question_pass(rule: list[Expr]) -> None:
    assert not found(closed(rule))


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param([*icmp(134), *ACCEPT], id="another type"),
        pytest.param([*icmp(135), Payload(1, 1, 7, 1), Cmp(1, 0, b"\x40"), *ACCEPT], id="another hop limit"),
        pytest.param([*state(1), *ACCEPT], id="invalid, which it is not"),
        pytest.param([*state(8), *ACCEPT], id="new, which it is not"),
        pytest.param(
            [*ICMPV6, XtMatch("icmp6", 0, b"", Icmp(58, 135, (1, 255))), *ACCEPT], id="another code"
        ),
        pytest.param([XtMatch("icmp", 0, b"", Icmp(1, 135)), *ACCEPT], id="IPv4's"),
    ],
)
def test_what_does_not_help(rule: list[Expr]) -> None:
    assert found(closed(rule))


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param([*icmp(135), *DROP], id="type"),
        pytest.param([XtMatch("pkttype", 0, b"", PktType(2)), *DROP], id="multicast"),
        pytest.param([Meta(1, 19), Cmp(1, 1, b"\0"), *DROP], id="not for this host"),
        pytest.param([*state(64), *DROP], id="untracked"),
    ],
)
@pytest.mark.parametrize("hook", [PREROUTING, INPUT])
def test_refused_on_the_way_in(rule: list[Expr], hook: int) -> None:
    (finding,) = found(base(hook, rule))
    assert finding.rule is not None
    assert finding.rule.handle == 1


@pytest.mark.parametrize("hook", [OUTPUT, POSTROUTING])
def test_refused_answers(hook: int) -> None:
    (finding,) = found(base(hook, [*icmp(136), *DROP]))
    assert "advertisements" in (finding.why or "")
    assert not found(base(hook, [*icmp(135), *DROP]))  # what this host asks


def test_before_conntrack_nothing_is_untracked() -> None:
    ruleset = TableRuleset()
    ruleset.base("t", "c", PREROUTING, [*state(64), *DROP], kind="filter", priority=-300, family="inet")
    assert not found(ruleset)


OPERATION: list[Expr] = [Payload(1, 1, 6, 2), Cmp(1, 0, b"\0\1")]


def target(address: str) -> list[Expr]:
    return [Payload(1, 1, 24, 4), Cmp(1, 0, ipaddress.ip_address(address).packed)]


@pytest.mark.parametrize(
    ("family", "hook", "rule", "device"),
    [
        ("arp", 0, DROP, None),
        ("arp", 0, [*OPERATION, *DROP], None),
        ("arp", 1, [Payload(1, 1, 6, 2), Cmp(1, 0, b"\0\2"), *DROP], None),
        ("netdev", INGRESS, [Meta(1, 1), Cmp(1, 0, b"\x08\x06"), *DROP], "eth0,cni0"),
        ("netdev", INGRESS, [Payload(1, 0, 12, 2), Cmp(1, 0, b"\x08\x06"), *DROP], "eth0,cni0"),
        ("netdev", INGRESS, [Payload(1, 0, 0, 6), Cmp(1, 0, b"\xff" * 6), *DROP], "eth0,cni0"),
    ],
)
def test_arp(family: str, hook: int, rule: list[Expr], device: str | None) -> None:
    (finding,) = found(base(hook, rule, family=family, device=device))
    assert finding.addresses == ("10.42.0.1", "192.168.1.233")
    assert (finding.certain, finding.restriction, finding.conditions) == (False, False, ())
    assert finding.why is not None
    assert finding.why.startswith("ARP")


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param([*target("192.168.1.240"), *DROP], id="another address"),
        pytest.param([Payload(1, 1, 6, 2), Cmp(1, 0, b"\0\2"), *DROP], id="replies to this host"),
        pytest.param([Meta(1, 16), Cmp(1, 0, b"\6"), *DROP], id="no packet of IP"),
    ],
)
def test_arp_that_passes(rule: list[Expr]) -> None:
    assert not found(base(0, rule, family="arp"))


def test_an_address_without_a_network_is_asked_for_by_a_gateway() -> None:
    host = node()
    alone = tuple(replace(each, prefix_length=32) if each.interface == 2 else each for each in host.addresses)
    (finding,) = found(base(0, DROP, family="arp"), replace(host, addresses=alone))
    assert not finding.conditions


def test_a_virtual_address_may_be_kept_quiet() -> None:
    quiet = base(0, [*target("192.168.1.240"), *DROP], family="arp")
    host = node()
    for interface in (1, 2):
        entry = LocalAddress(ipaddress.ip_address("192.168.1.240"), interface, 32)
        assert not found(quiet, replace(host, addresses=(*host.addresses, entry)))


def test_gateways_ask_from_link_local_and_others_do_not() -> None:
    (finding,) = found(closed([Payload(1, 1, 8, 2), Cmp(1, 0, b"\xfe\x80"), *ICMPV6, *ACCEPT]))
    assert (finding.conditions, finding.restriction) == (("of the network of eth0",), True)
    near = ipaddress.ip_address("fd00:1::").packed[:8]
    (finding,) = found(closed([Payload(1, 1, 8, 8), Cmp(1, 0, near), *ICMPV6, *ACCEPT]))
    assert (finding.conditions, finding.restriction) == (("by a gateway on eth0",), True)
    remote = ipaddress.ip_address("2001:db8::").packed[:4]
    (finding,) = found(closed([Payload(1, 1, 8, 4), Cmp(1, 0, remote), *ICMPV6, *ACCEPT]))
    assert (finding.conditions, finding.restriction) == ((), False)  # nobody asks from afar


def test_it_is_the_rule_about_everybody_that_is_named() -> None:
    blocklist: list[Expr] = [Payload(1, 1, 8, 2), Cmp(1, 0, b"\xfd\0"), Meta(1, 19), Cmp(1, 0, b"\2"), *DROP]
    (finding,) = found(closed(blocklist))
    assert finding.rule is not None
    assert finding.rule.rule == "policy drop"


def test_what_refuses_this_hosts_own_connections_is_another_matter() -> None:
    outside: list[Expr] = [Meta(1, 4), Cmp(1, 1, b"\1\0\0\0"), *PORT]
    assert found(base(INPUT, outside, policy=Code.DROP))


def test_however_many_sources_are_told_apart() -> None:
    host = node()
    more = tuple(LocalAddress(ipaddress.ip_address(0xFD000001 << 96 | n), 2, 64) for n in range(1, 40))
    six: list[Expr] = [Meta(1, 15), Cmp(1, 0, b"\x0a")]
    near = ipaddress.ip_address("fd00:1::").packed[:8]
    sources = [
        [*six, Payload(1, 1, 8, 16), Cmp(1, 0, near + bytes(4) + n.to_bytes(4)), *DROP]
        for n in range(1, 900, 2)
    ]
    (finding,) = found(closed(*sources), replace(host, addresses=(*host.addresses, *more)))
    assert len(finding.addresses) == 40


@pytest.mark.parametrize("invert", [0, 4])
def test_advertisements_are_of_a_socket_without_an_owner(invert: int) -> None:
    exists: list[Expr] = [XtMatch("owner", 1, b"", Owner(4, invert)), *ACCEPT]
    tcp: list[Expr] = [Meta(1, 16), Cmp(1, 0, b"\6"), *ACCEPT]
    assert bool(found(closed(tcp, exists, hook=OUTPUT))) is bool(invert)
    owned: list[Expr] = [XtMatch("owner", 1, b"", Owner(1, invert >> 2, uid=(0, 0))), *ACCEPT]
    assert bool(found(closed(tcp, owned, hook=OUTPUT))) is not bool(invert)


def test_a_zone_does_not_make_it_tracked() -> None:
    ruleset = closed([*state(64), *ACCEPT])
    zone: list[Expr] = [Immediate(1, b"\5\0"), CtSet(1, 17)]
    ruleset.base("z", "c", PREROUTING, zone, kind="filter", priority=-300, family="inet")
    assert not found(ruleset)


def test_the_uplink_alone_is_an_alarm_whatever_pods_can_do() -> None:
    (finding,) = found(closed([Meta(1, 4), Cmp(1, 0, b"\3\0\0\0"), *ACCEPT]), _dual_stack())
    assert (finding.conditions, finding.restriction) == (("on interface eth0",), False)
    (finding,) = found(closed([Meta(1, 4), Cmp(1, 0, b"\2\0\0\0"), *ACCEPT]), _dual_stack())
    assert (finding.conditions, finding.restriction) == (("on interface cni0",), True)


def _dual_stack() -> Host:
    host = node()
    entry = LocalAddress(ipaddress.ip_address("fd42::1"), 3, 64)
    return replace(host, addresses=(*host.addresses, entry))


def test_one_interface_of_several() -> None:
    (finding,) = found(
        base(INGRESS, [Meta(1, 1), Cmp(1, 0, b"\x08\x06"), *DROP], family="netdev", device="eth0")
    )
    assert finding.addresses == ("10.42.0.1", "192.168.1.233")  # neither is reached by eth0
    assert (finding.conditions, finding.restriction) == (("on interface eth0",), False)


def test_an_address_of_loopback_is_reached_by_any_interface() -> None:
    host = node()
    entry = LocalAddress(ipaddress.ip_address("fd00:2::1"), 1, 128)
    (finding,) = found(closed(), replace(host, addresses=(*host.addresses, entry)))
    assert finding.addresses == ("fd00:1::233", "fd00:2::1")


@pytest.mark.parametrize(
    "interface",
    [
        pytest.param(Interface(2, "eth0", arp=False), id="noarp"),
        pytest.param(Interface(2, "wg0", type=65534, kind="wireguard"), id="no ethernet"),
        pytest.param(Interface(2, "flannel.1", kind="vxlan"), id="vxlan"),
        pytest.param(Interface(2, "eth0", up=False), id="down"),
    ],
)
def test_where_nobody_asks_nobody_is_refused(interface: Interface) -> None:
    host = node()
    others = tuple(each for each in host.interfaces if each.index != 2)
    assert not found(closed(), replace(host, interfaces=(*others, interface)))


def test_link_local_addresses_are_not_told() -> None:
    host = node()
    own = tuple(each for each in host.addresses if str(each.address) != "fd00:1::233")
    entry = LocalAddress(ipaddress.ip_address("fe80::1"), 2, 64)
    assert not found(closed(), replace(host, addresses=(*own, entry)))


def test_what_refuses_the_connections_is_told_once() -> None:
    findings = judge(base(INPUT, LO, policy=Code.DROP), node(), [API])[0].findings
    assert {each.mechanism for each in findings} == {Mechanism.NONE}


def test_the_group_of_an_address() -> None:
    group = solicited_node(ipaddress.ip_address("fe80::12:3456:789a").packed)  # RFC 4291, 2.7.1
    assert str(ipaddress.ip_address(group)) == "ff02::1:ff56:789a"
