"""BPF programs that could send a connection elsewhere: which ways in they make unknown, and how that is allowed."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from support.build import TableRuleset, node

from k3swatch.evaluate import explain_flow, judge
from k3swatch.incident.allow import without_allowed
from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.port import Allow, Interface, LocalAddress, Program, ProtectedPort
from k3swatch.model.words import Evidence, Mechanism, Protocol, State, Vantage

API = ProtectedPort("k3s-api", 6443)
LO, ETH0 = 1, 2


def on(*programs: Program, port: ProtectedPort = API) -> PortVerdict:
    (socket,) = node().sockets or ()
    host = replace(node(), programs=programs, sockets=(replace(socket, cgroup=7),))
    return judge(TableRuleset(), host, [port])[0]


def ways(verdict: PortVerdict) -> set[tuple[str, str]]:
    return {(f.vantage, address) for f in verdict.findings for address in f.addresses}


LOCAL4 = {(Vantage.LOCAL, address) for address in ("127.0.0.1", "192.168.1.233", "10.42.0.1")}
LOCAL6 = {(Vantage.LOCAL, address) for address in ("::1", "fd00:1::233")}
OUTSIDE = {(Vantage.EXTERNAL, address) for address in ("192.168.1.233", "fd00:1::233", "10.42.0.1")}
ON_ETH0 = {(Vantage.EXTERNAL, address) for address in ("192.168.1.233", "fd00:1::233")}


@pytest.mark.parametrize(
    ("program", "touched"),
    [
        (Program("sk_lookup", "netns", 1), LOCAL4 | LOCAL6 | OUTSIDE),
        (Program("connect4", "/", 1), LOCAL4),
        (Program("connect6", "/", 1), LOCAL6),
        (Program("sendmsg4", "/", 1), set()),  # not for TCP
        (Program("xdp", "eth0", 1, interface=ETH0), ON_ETH0),
        (Program("tc ingress", "eth0", 1, interface=ETH0), ON_ETH0),
        (Program("tcx ingress", "lo", 1, interface=LO), LOCAL4 | LOCAL6),
        (Program("xdp", "eth9", 1, interface=9), set()),  # no address of ours rests on it
        (Program("netfilter ip", "prerouting", 1), LOCAL4 | {way for way in OUTSIDE if ":" not in way[1]}),
        (Program("netfilter ip6", "input", 1), LOCAL6 | {way for way in OUTSIDE if ":" in way[1]}),
        (Program("cgroup_skb ingress", "/system.slice", 1, cgroup=7), LOCAL4 | LOCAL6 | OUTSIDE),
        (Program("cgroup_skb ingress", "/system.slice", 1, cgroup=8), set()),  # somebody else's
    ],
    ids=lambda value: value.hook if isinstance(value, Program) else "",
)
def test_what_each_hook_can_touch(program: Program, touched: set[tuple[str, str]]) -> None:
    verdict = on(program)
    assert ways(verdict) == touched
    assert verdict.state is (State.UNKNOWN if touched else State.DELIVERED)
    assert all(f.mechanism is Mechanism.BPF and not f.certain and f.path for f in verdict.findings)


def test_datagrams_without_connect() -> None:
    assert ways(on(Program("sendmsg4", "/", 1), port=ProtectedPort("dns", 6443, Protocol.UDP))) == LOCAL4


def test_it_is_named() -> None:
    (step,) = on(Program("xdp", "eth0", 12, "cil_xdp", "00ff", 0, ETH0)).findings[0].path
    assert (step.family, step.table, step.chain, step.handle) == ("bpf", "xdp", "eth0", 12)
    assert step.rule == "cil_xdp (tag 00ff, loaded by user 0)"
    assert on(Program("xdp", "eth0", 12, interface=ETH0)).findings[0].path[0].rule == "unnamed"


def test_a_control_group_below_the_root_is_a_condition() -> None:
    assert {f.conditions for f in on(Program("connect4", "/user.slice", 1)).findings} == {
        ("by processes in control group /user.slice",)
    }


def test_what_carries_an_address() -> None:
    """A bond's port, a VLAN's device; not the veths of a bridge, which are pods' own, nor a veth's peer."""
    host = replace(
        node(),
        addresses=(LocalAddress(ipaddress.ip_address("192.0.2.1"), 5, 24), *node().addresses),
        interfaces=(
            Interface(2, "eth0", kind="veth", link=8),
            Interface(3, "cni0", kind="bridge"),
            Interface(4, "bond0", kind="bond"),
            Interface(5, "bond0.7", kind="vlan", link=4),
            Interface(6, "eth1", master=4),
            Interface(7, "veth7", kind="veth", master=3),
            Interface(8, "eth8"),
        ),
    )
    assert set(host.carriers) - {1} == {2, 3, 4, 5, 6}
    assert host.carriers[6] == {ipaddress.ip_address("192.0.2.1")}


@pytest.mark.parametrize("pattern", ["xdp eth0", "xdp *", "cil_*"])
def test_a_known_program_can_be_allowed(pattern: str) -> None:
    port = replace(API, allow=(Allow(program=pattern),))
    known, other = Program("xdp", "eth0", 1, "cil_xdp", interface=ETH0), Program("sk_lookup", "netns", 2)
    assert without_allowed(on(known, port=port)).findings == ()
    assert {f.path[0].table for f in without_allowed(on(known, other, port=port)).findings} == {"sk_lookup"}


@pytest.mark.parametrize("allow", [Allow(), Allow(comment="*"), Allow(program="tc *")])
def test_nothing_else_allows_it(allow: Allow) -> None:
    port = replace(API, allow=(allow,))
    assert without_allowed(on(Program("xdp", "eth0", 1, interface=ETH0), port=port)).state is State.UNKNOWN


def test_an_action_that_is_no_bpf() -> None:
    verdict = on(Program("tc ingress", "eth0", 0, "mirred", interface=ETH0))
    assert {(f.state, f.mechanism) for f in verdict.findings} == {(State.UNKNOWN, Mechanism.NONE)}
    (step,) = verdict.findings[0].path
    assert (step.family, step.table, step.chain, step.rule) == ("tc", "tc ingress", "eth0", "mirred")
    allowed = ProtectedPort("api", 6443, allow=(Allow(program="tc ingress eth0"),))
    assert (
        without_allowed(on(Program("tc ingress", "eth0", 0, "mirred", interface=ETH0), port=allowed)).findings
        == ()
    )


@pytest.mark.parametrize(
    ("program", "family", "mechanism", "why"),
    [
        (Program("netfilter ip", "prerouting", 12, "guard"), "bpf", Mechanism.BPF, "that can drop"),
        (Program("netfilter ip", "prerouting", 0, "a BPF program"), "bpf", Mechanism.BPF, "that can drop"),
        (Program("netfilter ip", "input", 0, "falcon_lsm"), "module", Mechanism.NONE, "a kernel module"),
        (Program("netfilter bridge", "ebtables nat", 0, "ebtables-legacy"), "module", Mechanism.NONE, "has rules"),
        (Program("cgroup_skb egress", "/", 3, "sd_fw_egress", cgroup=7), "bpf", Mechanism.BPF, "IPAddressDeny="),
    ],
)  # fmt: skip
def test_what_lets_packets_through_or_not(
    program: Program, family: str, mechanism: Mechanism, why: str
) -> None:
    findings = on(program).findings
    assert {(f.state, f.mechanism, f.path[0].family) for f in findings} == {
        (State.UNKNOWN, mechanism, family)
    }
    assert all(why in (f.why or "") for f in findings)
    bridged = program.hook == "netfilter bridge"
    assert {f.conditions for f in findings} == {("through a bridge",) if bridged else ()}
    if bridged:
        assert {f.vantage for f in findings} == {Vantage.EXTERNAL}
    port = replace(API, allow=(Allow(program=f"{program.hook} {program.place}"),))
    assert without_allowed(on(program, port=port)).findings == ()
    assert seen(program).mechanism is not Mechanism.BPF  # it sends nothing elsewhere


LOOKUP = Program("sk_lookup", "netns", 7)
TC = Program("tc ingress", "eth0", 8, interface=ETH0)
XDP = Program("xdp", "eth0", 9, interface=ETH0)


def seen(*programs: Program, source: str = "192.168.1.50", listener: int = 0) -> Finding:
    """What a connection is that no rule explains; with a `listener` a socket here has it."""
    there = "192.168.1.233" if listener else "10.9.9.9"
    flow = Flow(
        Protocol.TCP,
        ipaddress.ip_address(source),
        40000,
        ipaddress.ip_address("192.168.1.233"),
        6443,
        ipaddress.ip_address(there),
        8888,
        Outcome.DIVERTED,
        0.0,
        listener=listener,
    )
    return explain_flow(TableRuleset(), replace(node(), programs=programs), API, flow)


@pytest.mark.parametrize(
    ("finding", "by", "certain"),
    [
        (seen(LOOKUP, listener=5), 7, True),
        (seen(TC, listener=5), 8, True),  # bpf_sk_assign
        (seen(TC, LOOKUP, listener=5), 7, False),
        (seen(TC), 8, True),
        (seen(LOOKUP, TC), 8, True),  # no lookup sends a packet away
        (seen(TC, XDP), 8, False),
    ],
)
def test_a_connection_proves_a_program(finding: Finding, by: int, certain: bool) -> None:
    assert (finding.state, finding.mechanism, finding.certain) == (State.DIVERTED, Mechanism.BPF, certain)
    assert finding.rule is not None
    assert finding.rule.handle == by
    assert finding.evidence == {Evidence.FLOW}
    assert finding.destination in ("192.168.1.233:8888", "10.9.9.9:8888")
    program = next(each for each in (LOOKUP, TC, XDP) if each.id == by)
    assert finding.cause in {each.cause for each in on(program).findings}


@pytest.mark.parametrize(
    "finding",
    [
        seen(listener=5),
        seen(LOOKUP),  # it went to another host
        seen(Program("connect4", "/", 1)),  # acts before anything is dialled
        seen(TC, source="192.168.1.233"),  # what the host itself dials does not come in by eth0
        seen(Program("tc ingress", "eth0", 0, "mirred", interface=ETH0)),
    ],
)
def test_or_no_program_explains_it(finding: Finding) -> None:
    assert finding.mechanism is Mechanism.UNEXPLAINED
