"""Everything between the wire and the socket that is neither the first mapping nor the last: what comes before IP,
what goes on after NAT, what postrouting does, what conntrack knows, and chains whose order nobody can see.
"""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest
from support.build import TableRuleset, daddr, dnat, dport, ip, node, saddr, verdict

from k3swatch.evaluate import judge
from k3swatch.model.expr import (
    Bitwise,
    Cmp,
    Code,
    Ct,
    CtSet,
    Dynset,
    Expr,
    Fwd,
    Immediate,
    Lookup,
    Masq,
    Meta,
    MetaSet,
    Nat,
    Notrack,
    Payload,
    PayloadSet,
    Queue,
    Redir,
    Socket,
    XtMatch,
    XtTarget,
)
from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.port import Host, ListeningSocket, ProtectedPort
from k3swatch.model.ruleset import INPUT, OUTPUT, POSTROUTING, PREROUTING, SET_EVAL, SetInfo
from k3swatch.model.words import Family, Mechanism, Protocol, State, Vantage
from k3swatch.model.xt import Conntrack, SetMark, XtSocket, XtTproxy

API = ProtectedPort("k3s-api", 6443)
DROP = verdict(Code.DROP)
OURS = dnat("10.42.0.1", 6443)
DNATTED: list[Expr] = [Ct(1, 2), Bitwise(1, 1, 4, b"\x20\0\0\0", bytes(4)), Cmp(1, 1, bytes(4))]


def verdict_on(ruleset: TableRuleset, host: Host | None = None) -> PortVerdict:
    return judge(ruleset, host or node(), [API])[0]


def found(ruleset: TableRuleset, vantage: Vantage = Vantage.EXTERNAL, address: str = "") -> list[Finding]:
    """The findings in force for one vantage (and address)."""
    return [
        f
        for f in verdict_on(ruleset).findings
        if f.vantage is vantage and not f.shadowed and (not address or address in f.addresses)
    ]


Base = tuple[str, int, int, list[list[Expr]]]


def chains(*bases: Base, family: str = "ip") -> TableRuleset:
    """Base chains, each (type, hook, priority, rules), in tables of their own."""
    ruleset = TableRuleset()
    for number, (kind, hook, priority, rules) in enumerate(bases):
        ruleset.base(f"t{number}", "c", hook, *rules, kind=kind, priority=priority, family=family)
    return ruleset


def mark(value: int) -> list[Expr]:
    return [Meta(1, 3), Cmp(1, 0, value.to_bytes(4, "little"))]


def set_mark(value: int) -> list[Expr]:
    return [Immediate(1, value.to_bytes(4, "little")), MetaSet(1, 3)]


@pytest.mark.parametrize("hook", [PREROUTING, INPUT])
@pytest.mark.parametrize(
    "test",
    [
        pytest.param(daddr("10.42.0.1"), id="its new destination"),
        pytest.param(DNATTED, id="ct status dnat"),
        pytest.param([Ct(1, 20, 0), Cmp(1, 0, ip("192.168.1.233"))], id="its original destination"),
        pytest.param(mark(0x10), id="the mark it was given before"),
    ],
)
def test_what_nat_sends_to_the_port_goes_on(hook: int, test: list[Expr]) -> None:
    ruleset = chains(
        ("filter", PREROUTING, -150, [set_mark(0x10)]),
        ("nat", PREROUTING, -100, [[*daddr("192.168.1.233"), *dport(6443), *OURS]]),
        ("filter", hook, 0, [[*daddr("10.42.0.1"), *test, *dport(6443), *DROP]]),
    )
    (finding,) = found(ruleset, address="192.168.1.233")
    assert finding.state is State.BLOCKED


@pytest.mark.parametrize(("key", "address"), [(20, "10.9.9.9"), (22, "fd00::9")], ids=["ip", "ip6"])
def test_the_original_address_of_the_other_family_is_not_there(key: int, address: str) -> None:
    """nft_ct_get_eval breaks: `ct original ip6 daddr != ...` does not hold for IPv4 either."""
    drop = [Ct(1, key, 0), Cmp(1, 1, ip(address)), *dport(6443), *DROP]
    ruleset = chains(("filter", INPUT, 0, [drop]), family="inet")
    assert {f.family for f in found(ruleset)} == {Family.IP if key == 20 else Family.IP6}


def test_a_zone_makes_a_connection_of_what_was_not_to_be_tracked() -> None:
    """nft_ct_set_zone_eval: the template takes the place of `untracked`."""
    zone: list[Expr] = [Immediate(1, b"\1\0"), CtSet(1, 17)]
    nat = ("nat", PREROUTING, -100, [[*dport(6443), *dnat("10.42.0.244", 6443)]])
    raw: Base = ("filter", PREROUTING, -300, [[Notrack()]])
    assert not found(chains(raw, nat))
    assert found(chains(raw, ("filter", PREROUTING, -290, [zone]), nat))


def test_an_identity_mapping_is_no_dnat() -> None:
    ruleset = chains(
        ("nat", PREROUTING, -100, [[*dport(6443), *dnat("192.168.1.233", 6443)]]),
        ("filter", INPUT, 0, [[*DNATTED, *DROP]]),
    )
    assert not found(ruleset, address="192.168.1.233")
    assert found(ruleset, address="10.42.0.1")


def port_range(low: int, high: int, flags: int = 2) -> list[Expr]:
    ports: list[Expr] = [Immediate(2, low.to_bytes(2)), Immediate(3, high.to_bytes(2))]
    return [*dport(6443), Immediate(1, ip("192.168.1.233")), *ports, Nat(1, 2, 1, 1, 2, 3, flags)]


def test_a_range_that_holds_the_port_keeps_it() -> None:
    assert not found(chains(("nat", PREROUTING, -100, [port_range(6000, 7000)])))
    assert found(chains(("nat", PREROUTING, -100, [port_range(7000, 8000)])))


def test_a_range_at_random_may_keep_it() -> None:
    (finding,) = found(chains(("nat", PREROUTING, -100, [port_range(6443, 6444, flags=6)])))
    assert finding.conditions == ("1 of 2 connections, at random",)


def test_a_range_of_addresses_may_hold_ours() -> None:
    rule: list[Expr] = [*dport(6443), Immediate(1, ip("192.168.1.230")), Immediate(2, ip("192.168.1.233"))]
    (finding,) = found(chains(("nat", PREROUTING, -100, [[*rule, Nat(1, 2, 1, 2)]])))
    assert finding.conditions == ("3 of 4 connections, by source",)


def test_redirect_to_the_port_ends_at_the_interface_it_came_by() -> None:
    ruleset = chains(
        ("nat", PREROUTING, -100, [[*dport(6443), Redir()]]),
        ("filter", INPUT, 0, [[*daddr("10.42.0.1"), *DROP]]),
    )
    (finding,) = found(ruleset, address="192.168.1.233")
    assert finding.conditions == ("on interface cni0",)


def test_a_packet_of_ours_passes_postrouting() -> None:
    ruleset = chains(("filter", POSTROUTING, 0, [[*dport(6443), *DROP]]))
    (finding,) = found(ruleset, Vantage.LOCAL)
    assert finding.state is State.BLOCKED
    assert not found(ruleset)


def test_source_nat_on_the_way_out_is_seen_on_the_way_in() -> None:
    def ruleset(to: list[Expr], source: str) -> TableRuleset:
        return chains(
            ("nat", POSTROUTING, 100, [[*dport(6443), *to]]),
            ("filter", INPUT, 0, [[*saddr(f"{source}/32"), *DROP]]),
        )

    (finding,) = found(ruleset([Immediate(1, ip("10.42.0.9")), Nat(0, 2, 1, 1)], "10.42.0.9"), Vantage.LOCAL)
    assert finding.conditions == ()
    for source, may in (("10.42.0.9", False), ("192.168.1.233", True)):  # one of nobody here, one of ours
        findings = found(ruleset([Masq()], source), Vantage.LOCAL)
        assert any("ip saddr after masquerading" in f.conditions[0] for f in findings) is may


def test_masquerading_may_leave_a_process_the_address_it_has() -> None:
    snat = [XtMatch("conntrack", 3, b"", Conntrack(1, 0, state_mask=64))]
    ruleset = chains(
        ("nat", POSTROUTING, 100, [[*dport(6443), Masq()]]),
        ("filter", INPUT, 0, [[*snat, *DROP]]),
        family="inet",
    )
    (own,) = found(ruleset, Vantage.LOCAL, "192.168.1.233")
    assert "masquerading leaves its source as it is" in own.conditions[0]
    (own,) = found(ruleset, Vantage.LOCAL, "fd00:1::233")
    assert own.conditions == ("from ::1",)


@pytest.mark.parametrize(
    ("test", "sure"),
    [
        (XtMatch("socket", 1, b"", XtSocket(0)), True),
        (XtMatch("socket", 1, b"", XtSocket(1)), False),  # a transparent one: the listener may be
        (Socket(1, 2, 0), True),
    ],
)
def test_later_packets_have_a_socket(test: Expr, sure: bool) -> None:
    (finding,) = found(chains(("filter", PREROUTING, -150, [[test, *DROP]])))
    assert (finding.conditions == ()) is sure


@pytest.mark.parametrize(
    ("transparent", "states"),
    [
        ((True, True), {State.BLOCKED}),
        ((False,), set()),
        ((None, True), {State.BLOCKED}),  # perhaps: it is told with the condition
    ],
)
def test_a_transparent_socket(transparent: tuple[bool | None, ...], states: set[State]) -> None:
    listener = ListeningSocket(Protocol.TCP, ipaddress.ip_address("::"), 6443)
    sockets = tuple(dataclasses.replace(listener, transparent=each) for each in transparent)
    host = dataclasses.replace(node(), sockets=sockets)
    test: list[Expr] = [Socket(1, 0, 0), Cmp(1, 0, b"\1"), *dport(6443), *DROP]
    rules = chains(("filter", PREROUTING, -150, [test]))
    later = [
        f
        for f in verdict_on(rules, host).findings
        if f.vantage is Vantage.EXTERNAL and "as soon as" in (f.why or "")
    ]
    assert {f.state for f in later} == states


def test_conntrack_has_seen_a_packet_of_ours_before_prerouting() -> None:
    new: list[Expr] = [Ct(1, 0), Cmp(1, 0, b"\x08\0\0\0"), *dport(6443), *DROP]
    ruleset = chains(("filter", PREROUTING, -300, [new]))
    assert found(ruleset, Vantage.LOCAL)
    assert not found(ruleset)
    late = chains(("filter", PREROUTING, -300, [[Notrack()]]), ("filter", INPUT, 0, [new]))
    assert found(late, Vantage.LOCAL)
    assert not found(late)


@pytest.mark.parametrize(
    "setter",
    [
        pytest.param([Immediate(1, b"\1\0\0\0"), CtSet(1, 3)], id="ct mark set"),
        pytest.param(
            [XtTarget("CONNMARK", 2, b"", SetMark(0xFFFFFFFF, 1, conntrack=True))], id="CONNMARK --set-mark"
        ),
    ],
)
def test_a_connection_cannot_be_marked_before_there_is_one(setter: list[Expr]) -> None:
    marked: list[Expr] = [Ct(1, 3), Cmp(1, 0, b"\1\0\0\0"), *dport(6443), *dnat("10.42.0.244", 6443)]
    assert not found(chains(("filter", PREROUTING, -300, [setter]), ("nat", PREROUTING, -100, [marked])))
    assert found(chains(("filter", PREROUTING, -150, [setter]), ("nat", PREROUTING, -100, [marked])))


@pytest.mark.parametrize(
    ("nfmask", "ctmask", "left"),
    [(0xFF, 0xFF, 0x1100), (0xFFFFFFFF, 0xFFFFFFFF, 0), (0x0F00, 0, 0x1000)],
)
def test_part_of_a_mark_is_restored(nfmask: int, ctmask: int, left: int) -> None:
    restore = XtTarget("CONNMARK", 2, b"", SetMark(ctmask, 0, conntrack=True, op=2, nfmask=nfmask))
    ruleset = chains(
        ("filter", PREROUTING, -150, [[*set_mark(0x1122), restore]]),
        (
            "nat",
            PREROUTING,
            -100,
            [[*mark(left & ~0xFF | (0x22 & ~nfmask)), *dport(6443), *dnat("10.9.9.9")]],
        ),
    )
    (finding,) = found(ruleset)
    assert not finding.conditions


def test_an_overwritten_source_is_what_later_rules_see() -> None:
    write: list[Expr] = [Immediate(1, ip("10.42.0.9")), PayloadSet(1, 1, 12, 4)]
    ruleset = chains(
        ("filter", PREROUTING, -150, [write]), ("filter", INPUT, 0, [[*saddr("10.42.0.9/32"), *DROP]])
    )
    (finding,) = found(ruleset)
    assert not finding.conditions


def overwritten(number: int) -> list[Expr]:
    return [Immediate(1, number.to_bytes(2)), PayloadSet(1, 2, 2, 2)]


def test_an_overwritten_port_is_judged_by_where_it_ends() -> None:
    away = [*dport(6443), *overwritten(8443)]
    (finding,) = found(chains(("filter", PREROUTING, -300, [away])), address="192.168.1.233")
    assert (finding.state, finding.destination) == (State.DIVERTED, "192.168.1.233:8443")
    assert not found(chains(("filter", PREROUTING, -300, [away, [*dport(8443), *overwritten(6443)]])))
    back = chains(("filter", PREROUTING, -300, [away]), ("nat", PREROUTING, -100, [[*dport(8443), *OURS]]))
    assert {f.state for f in found(back)} == {State.UNKNOWN}  # it arrives, but the answers do not


def test_what_is_no_first_packet_any_more_is_unknown() -> None:
    write: list[Expr] = [Immediate(1, b"\x11"), PayloadSet(1, 1, 9, 1)]
    assert {f.state for f in found(chains(("filter", PREROUTING, -300, [write])))} == {State.UNKNOWN}


def test_a_queued_packet_does_not_go_on_with_the_next_rule() -> None:
    ruleset = chains(("filter", INPUT, 0, [[*dport(6443), Queue(5)], [*dport(6443), *DROP]]))
    assert {f.state for f in found(ruleset)} == {State.UNKNOWN}


def test_a_packet_may_add_its_own_key() -> None:
    port: list[Expr] = [Payload(1, 2, 2, 2)]
    ruleset = chains(
        ("nat", PREROUTING, -100, [[*port, Dynset("s", 0, 1)], [*port, Lookup("s", 1), *dnat("10.9.9.9")]])
    )
    ruleset.sets["s"] = (SetInfo("ip", "t0", "s", SET_EVAL, 2, fields=(2,)), [])
    (finding,) = found(ruleset)
    assert finding.conditions


@pytest.mark.parametrize(
    ("transparent", "state"),
    [(True, State.DIVERTED), (False, State.BLOCKED), (None, State.UNKNOWN)],
)
def test_xt_tproxy_drops_without_a_transparent_socket(transparent: bool | None, state: State) -> None:
    host = node()
    sockets = (
        *(host.sockets or ()),
        ListeningSocket(Protocol.TCP, ipaddress.ip_address("::"), 9000, transparent=transparent),
    )
    rule: list[Expr] = [*dport(6443), XtTarget("TPROXY", 1, b"", XtTproxy(bytes(16), 9000, 0, 0))]
    ruleset = chains(("filter", PREROUTING, -150, [rule]))
    findings = verdict_on(ruleset, dataclasses.replace(host, sockets=sockets)).findings
    assert state in {f.state for f in findings}
    assert State.BLOCKED in {f.state for f in verdict_on(ruleset).findings}


def test_a_nat_chain_refuses_only_where_connections_are_tracked() -> None:
    drop: tuple[str, int, int, list[list[Expr]]] = ("nat", PREROUTING, -100, [[*dport(6443), *DROP]])
    assert {f.state for f in found(chains(drop))} == {State.UNKNOWN}
    tracked = chains(
        drop, ("filter", INPUT, 0, [[Ct(1, 0), Cmp(1, 0, b"\x02\0\0\0"), *verdict(Code.ACCEPT)]])
    )
    assert {f.state for f in found(tracked)} == {State.BLOCKED}


def test_input_has_nat_chains_too() -> None:
    ruleset = chains(
        ("nat", INPUT, 100, [[*dport(6443), *DROP]]),
        ("filter", INPUT, 0, [[Ct(1, 0), Cmp(1, 0, b"\x02\0\0\0"), *verdict(Code.ACCEPT)]]),
    )
    assert {f.state for f in found(ruleset)} == {State.BLOCKED}
    assert not found(ruleset, Vantage.LOCAL)  # its source was set up in postrouting


def test_tied_filters_of_which_one_marks_for_the_other() -> None:
    marks, drops = [[*dport(6443), *set_mark(1)]], [[*mark(1), *dport(6443), *DROP]]
    for first, second in ((marks, drops), (drops, marks)):
        ruleset = chains(("filter", INPUT, 0, first), ("filter", INPUT, 0, second))
        assert not any(f.certain for f in found(ruleset))
        assert any("same priority" in (f.why or "") for f in found(ruleset))
        assert verdict_on(ruleset).state is State.UNKNOWN


def test_tied_filters_that_only_refuse_are_certain_in_any_order() -> None:
    some: list[list[Expr]] = [[*saddr("10.9.0.0/16"), *DROP]]
    ruleset = chains(("filter", INPUT, 0, some), ("filter", INPUT, 0, [[*dport(6443), *DROP]]))
    assert verdict_on(ruleset).state is State.BLOCKED
    assert all(f.certain for f in found(ruleset))


def test_a_filter_chain_at_the_priority_of_nat_is_tied_with_it() -> None:
    away: list[list[Expr]] = [[*mark(1), *dport(6443), *dnat("10.42.0.244", 6443)]]
    ruleset = chains(("nat", PREROUTING, -100, away), ("filter", PREROUTING, -100, [set_mark(1)]))
    assert not any(f.certain for f in found(ruleset))


def test_chains_before_ip() -> None:
    ruleset = TableRuleset()
    drop: list[Expr] = [*dport(6443), *DROP]
    ruleset.base("t", "i", 0, drop, kind="filter", priority=0, family="netdev", device="eth0")
    (finding,) = found(ruleset, address="192.168.1.233")
    assert (finding.state, finding.conditions) == (State.BLOCKED, ("on interface eth0",))
    assert not found(ruleset, Vantage.LOCAL)


def test_a_bridge_chain_sees_what_comes_by_bridges() -> None:
    ruleset = TableRuleset()
    ruleset.base("t", "i", PREROUTING, [*dport(6443), *DROP], kind="filter", priority=0, family="bridge")
    (finding,) = found(ruleset, address="192.168.1.233")
    assert finding.conditions == ("on interface cni0",)


def test_fwd_takes_the_packet_away() -> None:
    ruleset = TableRuleset()
    rule: list[Expr] = [*dport(6443), Immediate(1, b"\3\0\0\0"), Fwd(1)]
    ruleset.base("t", "i", 0, rule, kind="filter", priority=0, family="netdev", device="eth0")
    assert {f.state for f in found(ruleset)} == {State.UNKNOWN}


def test_a_drop_of_all_that_has_no_mark_meets_everybody() -> None:
    """Nobody's packets are marked unless somebody marks them."""
    rule: list[Expr] = [*dport(6443), Meta(1, 3), Cmp(1, 1, b"\1\0\0\0"), *DROP]
    assert verdict_on(chains(("filter", INPUT, 0, [rule]))).state is State.BLOCKED
    other: list[Expr] = [*dport(6443), *mark(1), *DROP]
    assert verdict_on(chains(("filter", INPUT, 0, [other]))).state is State.DELIVERED


def test_output_rewrites_are_seen_on_the_way_in() -> None:
    ruleset = chains(("filter", OUTPUT, 0, [[*dport(6443), *overwritten(8443)]]))
    assert {f.state for f in found(ruleset, Vantage.LOCAL)} == {State.DIVERTED}
    assert {f.mechanism for f in found(ruleset, Vantage.LOCAL)} == {Mechanism.DNAT}
