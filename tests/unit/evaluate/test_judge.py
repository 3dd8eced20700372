"""The evaluator on rulesets of a few lines: what is diverted, for whom, by which rule, and what stays delivered."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest
from support.build import TableRuleset, daddr, dnat, dport, ip, jump, node, saddr, verdict

from k3swatch.errors import Interrupted
from k3swatch.evaluate import explain_flow, judge
from k3swatch.model.expr import (
    Bitwise,
    Cmp,
    Code,
    Ct,
    Expr,
    Immediate,
    Limit,
    Lookup,
    Meta,
    MetaSet,
    Nat,
    Notrack,
    Numgen,
    Opaque,
    Payload,
    PayloadSet,
    Redir,
    Reject,
    Tproxy,
    Verdict,
    XtMatch,
    XtTarget,
)
from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.port import Host, ListeningSocket, ProtectedPort
from k3swatch.model.ruleset import (
    INPUT,
    OUTPUT,
    PREROUTING,
    SET_MAP,
    SET_TIMEOUT,
    ChainRef,
    Element,
    Rule,
    SetInfo,
)
from k3swatch.model.words import Evidence, Mechanism, Protocol, State, Vantage
from k3swatch.model.xt import Addrtype, IpHeader, Multiport, NatRange, SetMark, Statistic

API = ProtectedPort("k3s-api", 6443)


def verdict_on(ruleset: TableRuleset, port: ProtectedPort = API) -> PortVerdict:
    return judge(ruleset, node(), [port])[0]


def only(ruleset: TableRuleset) -> Finding:
    """The single finding."""
    found = verdict_on(ruleset).findings
    assert len(found) == 1, found
    return found[0]


def prerouting(*rules: list[Expr], **options: Any) -> TableRuleset:
    ruleset = TableRuleset()
    ruleset.base("nat", "PREROUTING", PREROUTING, *rules, **options)
    return ruleset


def test_no_rules_is_delivered() -> None:
    found = verdict_on(TableRuleset())
    assert found.state is State.DELIVERED
    assert (Vantage.EXTERNAL, "192.168.1.233") in found.judged
    assert (Vantage.EXTERNAL, "127.0.0.1") not in found.judged  # a martian from outside


def test_dnat_diverts_every_address_from_outside_only() -> None:
    finding = only(prerouting([*dport(6443), *dnat("10.42.0.244", 6443)]))
    assert finding.state is State.DIVERTED
    assert finding.mechanism is Mechanism.DNAT
    assert finding.vantage is Vantage.EXTERNAL
    assert finding.addresses == ("10.42.0.1", "192.168.1.233")
    assert finding.destination == "10.42.0.244:6443"
    assert finding.conditions == ()
    assert finding.certain
    assert [step.handle for step in finding.path] == [1]


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param([*dport(443), *dnat("10.42.0.244", 6443)], id="another port"),
        pytest.param([*daddr("192.168.1.5"), *dport(6443), *dnat("10.42.0.244", 6443)], id="another address"),
        pytest.param([*dport(6443), *dnat("192.168.1.233", 6443)], id="to itself"),
        pytest.param([*dport(6443), *dnat("192.168.1.233")], id="to itself, port kept"),
        pytest.param([*dport(6443), Redir()], id="redirect to the same port"),
        pytest.param([*saddr("127.0.0.0/8"), *dnat("10.42.0.244", 6443)], id="from loopback: a martian"),
        pytest.param([Meta(1, 16), Cmp(1, 0, b"\x11"), *dnat("10.42.0.244", 6443)], id="udp"),
        pytest.param([*dport(6443), *verdict(Code.ACCEPT)], id="accepted"),
        pytest.param(
            [Opaque("zoo", b""), *dport(443), *dnat("10.42.0.244", 6443)], id="unknown, but not ours"
        ),
    ],
)
def test_delivered(rule: list[Expr]) -> None:
    assert verdict_on(prerouting(rule)).findings == ()


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param([*saddr("10.9.0.0/16"), *dport(6443), *verdict(Code.DROP)], id="a firewall for some"),
        pytest.param([*dport(6443), Limit(10, 1, 5, 0, 1), *verdict(Code.DROP)], id="a rate limit"),
    ],
)
def test_a_restriction_is_told_but_no_alarm(rule: list[Expr]) -> None:
    found = verdict_on(prerouting(rule, kind="filter", priority=-150))
    assert found.state is State.DELIVERED
    assert found.findings
    assert all(f.restriction and f.conditions and f.state is State.BLOCKED for f in found.findings)


def test_a_block_list_of_thousands_is_bounded() -> None:
    """Thousands of sources refused one by one: few findings, still delivered, and not quadratic for ever."""
    rules = [[*saddr(f"100.{n >> 8}.{n & 255}.0/24"), *verdict(Code.DROP)] for n in range(3000)]
    found = verdict_on(prerouting(*rules, kind="filter", priority=-150))
    assert found.state is State.DELIVERED
    assert len(found.findings) <= 64


def test_source_condition_is_kept_and_its_rest_goes_elsewhere() -> None:
    found = verdict_on(
        prerouting(
            [*saddr("10.42.0.0/16"), *dport(6443), *dnat("10.1.1.1", 6443)],
            [*dport(6443), *dnat("10.2.2.2", 6443)],
        )
    ).findings
    open_ones = {finding.destination: finding for finding in found if not finding.shadowed}
    assert open_ones["10.1.1.1:6443"].conditions == ("from 10.42.0.0/16",)
    assert open_ones["10.2.2.2:6443"].conditions == ("not from 10.42.0.0/16",)
    assert all(finding.certain for finding in found)


def test_two_halves_that_lead_to_one_rule_are_no_condition() -> None:
    ruleset = prerouting([*saddr("10.42.0.0/16"), *jump("mark")], [*dport(6443), *dnat("10.2.2.2", 6443)])
    ruleset.chain("nat", "mark", [Immediate(1, b"\0\x40\0\0"), MetaSet(1, 3)])
    assert only(ruleset).conditions == ()


def test_second_cause_is_reported_as_shadowed() -> None:
    ruleset = prerouting([*daddr("192.168.1.233"), *jump("ext")], [*jump("hostport")])
    ruleset.chain("nat", "ext", [*dport(6443), *dnat("192.168.1.200", 6443)])
    ruleset.chain("nat", "hostport", [*dport(6443), *dnat("10.42.0.244", 6443)])
    found = verdict_on(ruleset).findings
    assert {(f.destination, f.shadowed, f.addresses) for f in found} == {
        ("192.168.1.200:6443", False, ("192.168.1.233",)),
        ("10.42.0.244:6443", False, ("10.42.0.1",)),
        ("10.42.0.244:6443", True, ("192.168.1.233",)),
    }
    assert found[-1].shadowed


def test_guard_neutralises_but_does_not_hide() -> None:
    ruleset = TableRuleset()
    ruleset.base("nat", "PREROUTING", PREROUTING, [*dport(6443), *dnat("10.42.0.244", 6443)])
    keep: list[Expr] = [Payload(1, 1, 16, 4), Nat(1, 2, 1, 1)]
    ruleset.base("guard", "pre", PREROUTING, [*dport(6443), *keep], priority=-110)
    found = verdict_on(ruleset)
    assert found.state is State.DELIVERED
    assert [finding.shadowed for finding in found.findings] == [True]


def test_accept_does_not_stop_the_next_nat_chain() -> None:
    ruleset = prerouting([*dport(6443), *dnat("10.42.0.244", 6443)])
    ruleset.base("guard", "pre", PREROUTING, [*dport(6443), *verdict(Code.ACCEPT)], priority=-110)
    assert only(ruleset).state is State.DIVERTED


def test_nat_chains_run_at_dstnat_whatever_their_own_priority() -> None:
    """A mark set by a filter chain at -105 is seen by a nat chain at -110: that one runs inside the hook at -100."""
    ruleset = TableRuleset()
    on_mark: list[Expr] = [Meta(1, 3), Cmp(1, 0, b"\7\0\0\0")]
    ruleset.base("nat", "pre", PREROUTING, [*on_mark, *dport(6443), *dnat("10.1.1.1", 6443)], priority=-110)
    ruleset.base(
        "m", "pre", PREROUTING, [Immediate(1, b"\7\0\0\0"), MetaSet(1, 3)], kind="filter", priority=-105
    )
    assert only(ruleset).conditions == ()


def test_mark_nobody_sets_is_a_condition() -> None:
    on_mark: list[Expr] = [Meta(1, 3), Bitwise(1, 1, 4, b"\0\x40\0\0", bytes(4)), Cmp(1, 0, b"\0\x40\0\0")]
    finding = only(prerouting([*on_mark, *dport(6443), *dnat("10.1.1.1", 6443)]))
    assert finding.conditions == ("mark & 0x4000 == 0x4000",)


def test_tied_chains_that_disagree_are_both_told_and_not_certain() -> None:
    ruleset = prerouting([*dport(6443), *dnat("10.1.1.1", 6443)])
    ruleset.base("other", "pre", PREROUTING, [*dport(6443), *dnat("10.2.2.2", 6443)])
    found = verdict_on(ruleset).findings
    assert {(f.destination, f.certain, f.shadowed, f.state) for f in found} == {
        ("10.1.1.1:6443", False, False, State.DIVERTED),
        ("10.2.2.2:6443", False, False, State.DIVERTED),
    }
    assert all("same priority" in (f.why or "") for f in found)


def test_tie_with_a_delivering_chain_is_unknown() -> None:
    ruleset = prerouting([*dport(6443), *dnat("10.1.1.1", 6443)])
    ruleset.base("other", "pre", PREROUTING, [*dport(6443), *dnat("192.168.1.233", 6443)])
    found = verdict_on(ruleset)
    assert found.state is State.UNKNOWN
    assert "same priority" in (found.findings[0].why or "")


def test_tied_chains_of_which_one_maps_do_not_disagree() -> None:
    ruleset = prerouting([*dport(6443), *dnat("10.1.1.1", 6443)])
    ruleset.base("other", "pre", PREROUTING, [*dport(443), *dnat("10.2.2.2", 6443)])
    assert only(ruleset).certain


def test_unknown_match_before_a_diversion_is_unknown_and_says_why() -> None:
    finding = only(prerouting([*dport(6443), Opaque("zoo", b"?"), *dnat("10.1.1.1", 6443)]))
    assert finding.state is State.UNKNOWN
    assert not finding.certain
    assert "zoo" in (finding.why or "")
    assert finding.destination == "10.1.1.1:6443"


def test_unknown_target_is_unknown() -> None:
    finding = only(prerouting([*dport(6443), XtTarget("WEIRD", 0, b"")]))
    assert (finding.state, finding.mechanism) == (State.UNKNOWN, Mechanism.NONE)
    assert "WEIRD" in (finding.why or "")


def test_unreadable_chain_is_unknown_and_the_rest_is_still_found() -> None:
    ruleset = prerouting([*dport(6443), *jump("missing")], [*dport(6443), *dnat("10.1.1.1", 6443)])
    found = verdict_on(ruleset).findings
    assert [f.state for f in found] == [State.DIVERTED, State.UNKNOWN]


def test_interrupted_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    ruleset = prerouting([*dport(6443), *dnat("10.1.1.1", 6443)])

    def moved(ref: ChainRef) -> Sequence[Rule]:
        raise Interrupted("generation moved")

    monkeypatch.setattr(ruleset, "rules", moved)
    with pytest.raises(Interrupted):
        verdict_on(ruleset)


def test_drop_for_everybody_is_blocked_from_both_sides() -> None:
    """A packet of this host comes by prerouting too, through lo."""
    found = verdict_on(prerouting([*dport(6443), *verdict(Code.DROP)], kind="filter", priority=-300)).findings
    assert {(f.state, f.vantage) for f in found} == {(State.BLOCKED, vantage) for vantage in Vantage}
    found = verdict_on(prerouting([*dport(6443), Reject(1)], kind="filter", priority=-150)).findings
    assert {f.state for f in found} == {State.BLOCKED}


def test_drop_by_policy_is_blocked() -> None:
    rules = prerouting([*dport(22), *verdict(Code.ACCEPT)], kind="filter", policy=Code.DROP, priority=-300)
    for finding in verdict_on(rules).findings:
        assert finding.rule is not None
        assert (finding.state, finding.rule.rule) == (State.BLOCKED, "policy drop")


def test_two_drops_that_together_meet_everybody() -> None:
    ruleset = prerouting(
        [*saddr("10.0.0.0/8"), *dport(6443), *verdict(Code.DROP)],
        [*saddr("10.0.0.0/8", op=1), *dport(6443), *verdict(Code.DROP)],
        kind="filter",
        priority=-300,
    )
    assert {finding.state for finding in verdict_on(ruleset).findings} == {State.BLOCKED}


def test_notrack_before_conntrack_escapes_nat() -> None:
    ruleset = prerouting([*dport(6443), *dnat("10.1.1.1", 6443)])
    ruleset.base("raw", "pre", PREROUTING, [*dport(6443), Notrack()], kind="filter", priority=-300)
    assert verdict_on(ruleset).state is State.DELIVERED
    ruleset.bases[-1] = dataclasses.replace(ruleset.bases[-1], priority=-150)
    assert verdict_on(ruleset).state is State.DIVERTED


def test_redirect_names_the_port_on_this_host_and_is_one_cause() -> None:
    found = verdict_on(prerouting([*dport(6443), Immediate(1, (7443).to_bytes(2)), Redir(1, 1)])).findings
    assert {f.destination for f in found} == {"192.168.1.233:7443", "10.42.0.1:7443"}
    assert {f.mechanism for f in found} == {Mechanism.REDIRECT}
    assert len({f.cause for f in found}) == 1


def test_redirect_of_local_connections_goes_to_loopback() -> None:
    ruleset = TableRuleset()
    ruleset.base("nat", "OUTPUT", OUTPUT, [*dport(6443), Immediate(1, (7443).to_bytes(2)), Redir(1, 1)])
    finding = only(ruleset)
    assert finding.destination == "127.0.0.1:7443"
    assert finding.addresses == ("127.0.0.1", "10.42.0.1", "192.168.1.233")


def test_nat_in_prerouting_does_not_touch_local_connections() -> None:
    ruleset = TableRuleset()
    ruleset.base("nat", "PREROUTING", PREROUTING, [*dport(6443), *dnat("10.1.1.1", 6443)])
    assert {f.vantage for f in verdict_on(ruleset).findings} == {Vantage.EXTERNAL}


def test_drop_on_loopback_meets_local_connections() -> None:
    rule: list[Expr] = [Meta(1, 6), Cmp(1, 0, b"lo".ljust(16, b"\0")), *dport(6443), *verdict(Code.DROP)]
    finding = only(prerouting(rule, kind="filter", priority=-150))
    assert (finding.vantage, finding.state) == (Vantage.LOCAL, State.BLOCKED)


def test_interface_condition() -> None:
    name: list[Expr] = [Meta(1, 6), Cmp(1, 0, b"eth0".ljust(16, b"\0"))]
    assert only(prerouting([*name, *dport(6443), *dnat("10.1.1.1", 6443)])).conditions == (
        "on interface eth0",
    )
    wildcard: list[Expr] = [Meta(1, 6), Cmp(1, 0, b"veth")]
    assert verdict_on(prerouting([*wildcard, *dport(6443), *dnat("10.1.1.1", 6443)])).findings == ()
    negated: list[Expr] = [Meta(1, 6), Cmp(1, 1, b"docker0".ljust(16, b"\0"))]
    assert only(prerouting([*negated, *dport(6443), *dnat("10.1.1.1", 6443)])).conditions == ()


def vmap(verdicts: dict[bytes, Verdict], flags: int = SET_MAP) -> tuple[SetInfo, list[Element]]:
    elements = [Element(key, key, verdict=value) for key, value in verdicts.items()]
    return SetInfo("ip", "nat", "m", flags, 2), elements


def test_verdict_map_is_asked_with_the_packets_key() -> None:
    ruleset = prerouting([Payload(1, 2, 2, 2), Lookup("m", 1, 0)])
    ruleset.sets["m"] = vmap({(6443).to_bytes(2): Verdict(Code.GOTO, "x")})
    ruleset.chain("nat", "x", dnat("10.1.1.1", 6443))
    finding = only(ruleset)
    assert finding.destination == "10.1.1.1:6443"
    assert finding.anchor == ("ip", "nat", "x")
    assert set(ruleset.asked) == {(6443).to_bytes(2)}


def test_numgen_map_spreads_over_its_chains_as_one_cause() -> None:
    ruleset = prerouting([*dport(6443), *jump("svc")])
    ruleset.chain("nat", "svc", [Numgen(1, 2, 1), Lookup("m", 1, 0)])
    info, elements = vmap({bytes([n, 0, 0, 0]): Verdict(Code.GOTO, f"ep{n}") for n in range(2)})
    ruleset.sets["m"] = (dataclasses.replace(info, key_length=4), elements)
    for n in range(2):
        ruleset.chain("nat", f"ep{n}", dnat(f"10.1.1.{n}", 6443))
    found = verdict_on(ruleset).findings
    assert [f.destination for f in found] == ["10.1.1.0:6443", "10.1.1.1:6443"]
    assert {f.conditions for f in found} == {("1 of 2 connections, random",)}
    assert len({f.cause for f in found}) == 1


def test_set_of_sources_is_listed() -> None:
    ruleset = prerouting([*dport(6443), Payload(1, 1, 12, 4), Lookup("s", 1), *dnat("10.1.1.1", 6443)])
    nets = [Element(ip("10.0.0.0"), ip("10.255.255.255")), Element(ip("192.168.1.10"), ip("192.168.1.10"))]
    ruleset.sets["s"] = (SetInfo("ip", "nat", "s", 4, 4), nets)
    assert only(ruleset).conditions == ("from 10.0.0.0/8 or 192.168.1.10",)


def test_set_that_changes_by_itself_is_named_not_read() -> None:
    ruleset = prerouting([*dport(6443), Payload(1, 1, 12, 4), Lookup("s", 1), *dnat("10.1.1.1", 6443)])
    ruleset.sets["s"] = (SetInfo("ip", "nat", "s", SET_TIMEOUT, 4), [])
    finding = only(ruleset)
    assert finding.conditions == ("ip saddr @s",)
    assert finding.state is State.DIVERTED


def test_missing_set_is_unknown() -> None:
    finding = only(prerouting([*dport(6443), Payload(1, 1, 12, 4), Lookup("s", 1), *dnat("10.1.1.1", 6443)]))
    assert finding.state is State.UNKNOWN


def test_xtables_rules() -> None:
    multiport = XtMatch("multiport", 1, b"", Multiport(1, ((6443, 6443), (9000, 9010))))
    local = XtMatch("addrtype", 1, b"", Addrtype(0, 1 << 2))
    target = XtTarget("DNAT", 2, b"", NatRange("DNAT", 3, (ip("10.1.1.1"), ip("10.1.1.1")), (6443, 6443)))
    assert only(prerouting([local, multiport, target])).destination == "10.1.1.1:6443"
    unicast = XtMatch("addrtype", 1, b"", Addrtype(0, 1 << 1))
    assert verdict_on(prerouting([unicast, multiport, target])).findings == ()


@pytest.mark.parametrize(
    ("types", "ours"),
    [(1 << 1, True), (1 << 2, True), (1 << 1 | 1 << 2, True), (1 << 1 | 1 << 4, False), (1 << 5, False)],
    ids=["unicast", "local", "both", "unicast and anycast", "multicast"],
)
def test_for_ipv6_an_address_of_ours_is_unicast(types: int, ours: bool) -> None:
    """match_type6: unicast is what is not multicast; for IPv4 (above) local and unicast exclude each other."""
    match = XtMatch("addrtype", 1, b"", Addrtype(0, types))
    ruleset = TableRuleset()
    drop = [match, *dport(6443), *verdict(Code.DROP)]
    ruleset.base("filter", "INPUT", INPUT, drop, kind="filter", priority=0, family="ip6")
    assert bool(verdict_on(ruleset).findings) == ours


def test_statistic_splits() -> None:
    half = XtMatch("statistic", 0, b"", Statistic(0, False, 0.5))
    finding = only(prerouting([*dport(6443), half, *dnat("10.1.1.1", 6443)]))
    assert finding.conditions == ("at random (50%)",)


def test_xt_mark_set_and_matched() -> None:
    ruleset = prerouting([Meta(1, 3), Cmp(1, 0, b"\1\0\0\0"), *dport(6443), *dnat("10.1.1.1", 6443)])
    mark = XtTarget("MARK", 2, b"", SetMark(0xFFFFFFFF, 1))
    ruleset.base("mangle", "PREROUTING", PREROUTING, [*dport(6443), mark], kind="filter", priority=-150)
    assert only(ruleset).conditions == ()


def test_goto_does_not_come_back() -> None:
    ruleset = prerouting([*dport(6443), *jump("a")])
    ruleset.chain("nat", "a", verdict(Code.GOTO, "b"), dnat("10.1.1.1", 6443))
    ruleset.chain("nat", "b", [*dport(22), *verdict(Code.RETURN)])
    assert verdict_on(ruleset).findings == ()


def test_endless_jumps_end() -> None:
    ruleset = prerouting([*dport(6443), *jump("a")])
    ruleset.chain("nat", "a", jump("a"))
    assert only(ruleset).state is State.UNKNOWN


def test_stateless_rewrite_is_found() -> None:
    rule: list[Expr] = [*dport(6443), Immediate(1, (7443).to_bytes(2)), PayloadSet(1, 2, 2, 2)]
    found = verdict_on(prerouting(rule, kind="filter", priority=-300)).findings
    assert {f.destination for f in found} == {"192.168.1.233:7443", "10.42.0.1:7443", "127.0.0.1:7443"}


def test_tproxy_needs_a_listener() -> None:
    rule: list[Expr] = [*dport(6443), Immediate(1, (9000).to_bytes(2)), Tproxy(2, None, 1)]
    ruleset = prerouting(rule, kind="filter", priority=-150)
    assert verdict_on(ruleset).findings == ()
    host = node()
    assert host.sockets is not None
    more = (*host.sockets, ListeningSocket(Protocol.TCP, ipaddress.ip_address("0.0.0.0"), 9000))
    found = judge(ruleset, dataclasses.replace(host, sockets=more), [API])[0].findings
    assert {f.mechanism for f in found} == {Mechanism.TPROXY}


def test_unserved_and_unreadable_listeners() -> None:
    assert judge(TableRuleset(), dataclasses.replace(node(), sockets=()), [API])[0].state is State.UNSERVED
    assert judge(TableRuleset(), dataclasses.replace(node(), sockets=None), [API])[0].state is State.UNKNOWN


def test_no_address_is_unknown() -> None:
    assert judge(TableRuleset(), dataclasses.replace(node(), addresses=()), [API])[0].state is State.UNKNOWN


def flow(source: str, dialled: str, reached: str, port: int = 6443) -> Flow:
    address = ipaddress.ip_address
    return Flow(
        Protocol.TCP,
        address(source),
        40000,
        address(dialled),
        6443,
        address(reached),
        port,
        Outcome.DIVERTED,
        0.0,
    )


def test_a_flow_is_explained_by_the_rule_that_sent_it() -> None:
    ruleset = prerouting(
        [*saddr("10.42.0.0/16"), *dport(6443), *dnat("10.1.1.1", 6443)],
        [*dport(6443), *dnat("10.2.2.2", 6443)],
    )
    static = {f.destination: f for f in verdict_on(ruleset).findings if not f.shadowed}
    seen = explain_flow(ruleset, node(), API, flow("192.168.1.50", "192.168.1.233", "10.2.2.2"))
    assert seen.evidence == {Evidence.RULE, Evidence.FLOW}
    assert seen.cause == static["10.2.2.2:6443"].cause
    assert seen.rule is not None
    assert seen.rule.handle == 2


def test_a_flow_no_rule_explains_is_unexplained() -> None:
    seen = explain_flow(prerouting(), node(), API, flow("192.168.1.50", "192.168.1.233", "10.9.9.9"))
    assert (seen.mechanism, seen.state) == (Mechanism.UNEXPLAINED, State.DIVERTED)
    assert seen.destination == "10.9.9.9:6443"


GIVE: list[Expr] = [
    *dport(6443),
    Immediate(1, ipaddress.ip_address("127.0.0.1").packed),
    Immediate(2, (9000).to_bytes(2)),
    Tproxy(2, 1, 2),
]


def transparent_proxy() -> Host:
    """A host where a transparent socket listens on 9000, bound to any address."""
    (first, *more) = node().sockets or ()
    anywhere = ipaddress.ip_address("0.0.0.0")
    proxy = dataclasses.replace(first, address=anywhere, port=9000, transparent=True)
    return dataclasses.replace(node(), sockets=(first, *more, proxy))


def test_a_socket_that_tproxy_gave_a_connection_to() -> None:
    """It tells its own address, or if it is bound to any the one that was dialled; the rule may have named another."""
    ruleset, host = prerouting(GIVE), transparent_proxy()
    given = dataclasses.replace(flow("192.168.1.50", "192.168.1.233", "192.168.1.233", 9000), listener=7)
    seen = explain_flow(ruleset, host, API, given)
    assert seen.mechanism is Mechanism.TPROXY
    assert seen.evidence == {Evidence.RULE, Evidence.FLOW}
    (static, *_) = judge(ruleset, host, [API])[0].findings
    assert seen.cause == static.cause
    elsewhere = explain_flow(ruleset, host, API, dataclasses.replace(given, reached_port=9001))
    assert elsewhere.mechanism is Mechanism.UNEXPLAINED


def test_a_flow_that_tproxy_gave_to_a_socket_and_nat_then_sent_on() -> None:
    """The kernel does not forward it. What is seen is where NAT sent it: the same cause, not one more."""
    ruleset, host = (
        prerouting([*GIVE, *verdict(Code.ACCEPT)], kind="filter", priority=-160),
        transparent_proxy(),
    )
    ruleset.base("nat", "c", PREROUTING, [*dport(6443), *dnat("10.2.2.2", 6443)])
    lost = dataclasses.replace(flow("192.168.1.50", "192.168.1.233", "10.2.2.2"), outcome=Outcome.DROPPED)
    seen = explain_flow(ruleset, host, API, lost)
    assert (seen.state, seen.mechanism) == (State.BLOCKED, Mechanism.DNAT)
    assert seen.destination == "10.2.2.2:6443"
    static = [f for f in judge(ruleset, host, [API])[0].findings if f.vantage is Vantage.EXTERNAL]
    assert {f.cause for f in static} == {seen.cause}


def test_input_policy_that_forgot_the_port_is_blocked_for_others_only() -> None:
    ruleset = TableRuleset()
    loopback: list[Expr] = [Meta(1, 4), Cmp(1, 0, b"\1\0\0\0"), *verdict(Code.ACCEPT)]
    allowed: list[Expr] = [*dport(22), *verdict(Code.ACCEPT)]
    ruleset.base("fw", "input", INPUT, loopback, allowed, kind="filter", priority=0, policy=Code.DROP)
    assert {(f.state, f.vantage) for f in verdict_on(ruleset).findings} == {(State.BLOCKED, Vantage.EXTERNAL)}


def test_input_policy_with_a_door_for_some_is_a_firewall() -> None:
    ruleset = TableRuleset()
    allowed: list[Expr] = [*saddr("10.0.0.0/8"), *dport(6443), *verdict(Code.ACCEPT)]
    answers: list[Expr] = [Ct(1, 0), Cmp(1, 0, b"\2\0\0\0"), *verdict(Code.ACCEPT)]
    ruleset.base("fw", "input", INPUT, answers, allowed, kind="filter", priority=0, policy=Code.DROP)
    found = [f for f in verdict_on(ruleset).findings if not f.restriction]
    # from outside it is a firewall; a process of this host that dials 127.0.0.1 does so from 127.0.0.1
    assert {(f.vantage, f.addresses) for f in found} == {(Vantage.LOCAL, ("127.0.0.1", "192.168.1.233"))}


def test_drop_that_may_meet_everybody_is_unknown() -> None:
    ruleset = TableRuleset()
    ruleset.base("fw", "input", INPUT, [*dport(6443), Opaque("zoo", b""), *verdict(Code.DROP)], kind="filter")
    assert verdict_on(ruleset).state is State.UNKNOWN
    some: list[Expr] = [*saddr("10.9.0.0/16"), Opaque("zoo", b""), *verdict(Code.DROP)]
    ruleset.chains[ruleset.bases[0].ref] = [some]
    assert verdict_on(ruleset).state is State.DELIVERED


def test_sent_to_loopback_from_outside_is_not_known_to_arrive() -> None:
    finding = only(prerouting([*dport(6443), *dnat("127.0.0.1", 6443)]))
    assert finding.state is State.UNKNOWN
    assert "route_localnet" in (finding.why or "")


@pytest.mark.parametrize(("flags", "invert", "diverted"), [(0, 0, True), (1, 0, False), (1, 0x20, True)])
def test_a_legacy_rule_for_later_fragments_never_meets_a_first_packet(
    flags: int, invert: int, diverted: bool
) -> None:
    anywhere = (bytes(4), bytes(4))
    header = XtMatch("ip", 0, b"", IpHeader(2, anywhere, anywhere, protocol=6, flags=flags, invert=invert))
    found = verdict_on(prerouting([header, *dport(6443), *dnat("10.1.1.1", 6443)])).findings
    assert bool(found) is diverted


def test_a_floating_address_that_is_elsewhere_is_unserved_here() -> None:
    elsewhere = ProtectedPort("vip", 6443, addresses=(ipaddress.ip_network("192.168.1.99/32"),))
    found = judge(prerouting([*dport(6443), *dnat("10.1.1.1", 6443)]), node(), [elsewhere])[0]
    assert (found.state, found.findings, found.judged) == (State.UNSERVED, (), ())
