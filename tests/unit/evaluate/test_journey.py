"""What comes after the first packet has got in: the forward chain of a diverted one, answers, the client's next."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest
from support.build import TableRuleset, daddr, dnat, dport, ip, jump, node, saddr, verdict

from k3swatch.evaluate import explain_flow, judge
from k3swatch.evaluate.packet import Turn, scene
from k3swatch.evaluate.prefilter import phased, required_source
from k3swatch.model.expr import (
    Bitwise,
    Byteorder,
    Cmp,
    Code,
    Ct,
    CtSet,
    Expr,
    Immediate,
    Masq,
    Meta,
    Nat,
    Notrack,
    Payload,
    PayloadSet,
    Queue,
    Range,
    Redir,
    Synproxy,
    XtMatch,
    XtTarget,
)
from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.port import ProtectedPort
from k3swatch.model.ruleset import FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING
from k3swatch.model.words import Family, Mechanism, Protocol, State, Vantage
from k3swatch.model.xt import (
    Conntrack,
    IpHeader,
    Owner,
    Ports,
    SetMark,
    XtStandard,
    XtSynproxy,
    XtZone,
)

API = ProtectedPort("k3s-api", 6443)
POD = "10.42.0.244"
AWAY = [*dport(6443), *dnat(POD, 6443)]
DROP, ACCEPT = verdict(Code.DROP), verdict(Code.ACCEPT)
EVERYBODY = ("10.42.0.1", "192.168.1.233")

Base = tuple[str, int, int, list[list[Expr]]]


def sport(number: int) -> list[Expr]:
    return [Meta(1, 16), Cmp(1, 0, b"\6"), Payload(1, 2, 0, 2), Cmp(1, 0, number.to_bytes(2))]


def state(bits: int) -> list[Expr]:
    return [Ct(1, 0), Bitwise(1, 1, 4, bits.to_bytes(4, "little"), bytes(4)), Cmp(1, 1, bytes(4))]


ESTABLISHED, NEW, INVALID, UNTRACKED = state(2), state(8), state(1), state(64)
REPLY: list[Expr] = [Ct(1, 1), Cmp(1, 0, b"\1")]
XT_NOT_SYN = Ports(6, flags_mask=0x17, flags_compare=2, invert_flags=True)
XT_NOT_SYN_ALONE = Ports(6, flags_mask=2, flags_compare=0)
NOT_SYN: list[Expr] = [Payload(1, 2, 13, 1), Bitwise(1, 1, 1, b"\x17", b"\0"), Cmp(1, 1, b"\2")]


def ruleset(*bases: Base, policy: int = Code.ACCEPT) -> TableRuleset:
    """Base chains, each (type, hook, priority, rules), in tables of their own; the last one with the policy."""
    made = TableRuleset()
    for number, (kind, hook, priority, rules) in enumerate(bases):
        last = number == len(bases) - 1
        made.base(
            f"t{number}",
            "c",
            hook,
            *rules,
            kind=kind,
            priority=priority,
            policy=policy if last else Code.ACCEPT,
        )
    return made


def verdict_on(rules: TableRuleset) -> PortVerdict:
    return judge(rules, node(), [API])[0]


def found(rules: TableRuleset, vantage: Vantage = Vantage.EXTERNAL) -> list[Finding]:
    """The findings in force for one vantage."""
    return [f for f in verdict_on(rules).findings if f.vantage is vantage and not f.shadowed]


def test_a_scene_with_other_members_is_made_once() -> None:
    first = scene(node(), Vantage.EXTERNAL, Family.IP, Protocol.TCP)
    there, back = first.but(hook=FORWARD, priority=5), first.but(turn=Turn.ANSWER)
    assert there == dataclasses.replace(first, hook=FORWARD, priority=5)
    assert first.but(hook=FORWARD, priority=5) is there
    assert there.but(turn=Turn.ANSWER) != back == first.but(turn=Turn.ANSWER)


NAT: Base = ("nat", PREROUTING, -100, [AWAY])


def test_refused_by_the_forward_chain() -> None:
    (finding,) = found(ruleset(NAT, ("filter", FORWARD, 0, []), policy=Code.DROP))
    assert (finding.state, finding.mechanism) == (State.BLOCKED, Mechanism.DNAT)
    assert finding.destination == "10.42.0.244:6443"
    assert finding.addresses == EVERYBODY
    assert not finding.restriction
    assert [(step.table, step.rule) for step in finding.path][1:] == [("t1", "policy drop")]
    assert finding.refusing == 1
    assert finding.taking is finding.path[0]
    assert "sent to 10.42.0.244:6443, but refused" in (finding.why or "")
    (diverted,) = found(ruleset(NAT))
    assert diverted.state is State.DIVERTED
    assert diverted.cause == finding.cause  # one incident, whatever the forward chain does


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param([*daddr(POD), *dport(6443), *DROP], id="its new destination"),
        pytest.param([*NEW, *DROP], id="new"),
        pytest.param([Ct(1, 9, 0), Cmp(1, 0, ip("192.168.1.233")), *DROP], id="its original destination"),
        pytest.param([*ESTABLISHED, *REPLY, *sport(6443), *DROP], id="the answers"),
        pytest.param([*ESTABLISHED, *dport(6443), *DROP], id="later packets"),
    ],
)
@pytest.mark.parametrize("hook", [FORWARD, POSTROUTING])
def test_lost_after_a_diversion(rule: list[Expr], hook: int) -> None:
    rules = [[*daddr("192.168.1.233"), *AWAY]]
    everything = found(ruleset(("nat", PREROUTING, -100, rules), ("filter", hook, 0, [rule])))
    blocked = [finding for finding in everything if "192.168.1.233" in finding.addresses]
    assert {(f.state, f.destination, f.refusing) for f in blocked} == {(State.BLOCKED, "10.42.0.244:6443", 1)}


def test_what_is_let_through_stays_diverted() -> None:
    forward = [[*ESTABLISHED, *ACCEPT], [*saddr("192.168.1.0/24"), *daddr(POD), *ACCEPT]]
    both = found(ruleset(NAT, ("filter", FORWARD, 0, forward), policy=Code.DROP))
    assert {(f.state, f.conditions) for f in both} == {
        (State.DIVERTED, ("from 192.168.1.0/24",)),
        (State.BLOCKED, ("not from 192.168.1.0/24",)),
    }


def test_a_diversion_for_some_that_is_refused_is_no_restriction() -> None:
    some: Base = ("nat", PREROUTING, -100, [[*saddr("10.42.0.0/16"), *AWAY]])
    rules = ruleset(some, ("filter", FORWARD, 0, [DROP]))
    (finding,) = found(rules)
    assert (finding.state, finding.conditions) == (State.BLOCKED, ("from 10.42.0.0/16",))
    assert not finding.restriction
    assert verdict_on(rules).state is State.BLOCKED


def test_a_forward_chain_that_decides_by_what_nobody_understands() -> None:
    rules = [[XtMatch("zoo", 0, b"\1"), *DROP]]
    states = {f.state for f in found(ruleset(NAT, ("filter", FORWARD, 0, rules)))}
    assert State.UNKNOWN in states


def test_a_range_of_destinations_is_not_followed() -> None:
    rule: list[Expr] = [
        *dport(6443),
        Immediate(1, ip("10.9.9.1")),
        Immediate(2, ip("10.9.9.9")),
        Nat(1, 2, 1, 2),
    ]
    both = ruleset(("nat", PREROUTING, -100, [rule]), ("filter", FORWARD, 0, [DROP]))
    assert {f.state for f in found(both)} == {State.DIVERTED}


def test_a_redirect_meets_the_input_chain_at_its_new_port() -> None:
    shut: Base = ("filter", INPUT, 0, [[*dport(8443), *DROP]])
    redirect: list[Expr] = [*dport(6443), Immediate(1, (8443).to_bytes(2)), Redir(1, 1)]
    states = {f.state for f in found(ruleset(("nat", PREROUTING, -100, [redirect]), shut))}
    assert states == {State.BLOCKED}


def test_a_redirect_goes_on_to_the_address_of_its_interface() -> None:
    shut: Base = ("filter", INPUT, 0, [[*daddr("192.168.1.233"), *dport(8443), *DROP]])
    redirect: list[Expr] = [*dport(6443), Immediate(1, (8443).to_bytes(2)), Redir(1, 1)]
    findings = found(ruleset(("nat", PREROUTING, -100, [redirect]), shut))
    assert {(f.state, f.conditions) for f in findings} == {
        (State.BLOCKED, ("on interface eth0",)),
        (State.DIVERTED, ("on interface cni0",)),
    }


def test_what_this_host_dials_is_refused_on_its_way_out() -> None:
    nat: Base = ("nat", OUTPUT, -100, [AWAY])
    for hook in (OUTPUT, POSTROUTING):
        (finding,) = found(ruleset(nat, ("filter", hook, 0, [[*daddr(POD), *DROP]])), Vantage.LOCAL)
        assert (finding.state, finding.refusing) == (State.BLOCKED, 1)
    (finding,) = found(ruleset(nat, ("filter", INPUT, 0, [[*sport(6443), *DROP]])), Vantage.LOCAL)
    assert "answers" in (finding.why or "")


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param([*sport(6443), *DROP], id="their port"),
        pytest.param([*ESTABLISHED, *DROP], id="established"),
        pytest.param([*REPLY, *DROP], id="direction"),
        pytest.param([*saddr("192.168.1.233/32"), *sport(6443), *DROP], id="their source"),
        pytest.param(
            [Payload(1, 2, 13, 1), Bitwise(1, 1, 1, b"\x12", b"\0"), Cmp(1, 0, b"\x12"), *DROP], id="flags"
        ),
        pytest.param(
            [XtMatch("tcp", 0, b"", Ports(6, (6443, 6443), flags_mask=0x12, flags_compare=0x12)), *DROP],
            id="xt",
        ),
        pytest.param([XtMatch("conntrack", 3, b"", Conntrack(0x1000, 0x1000)), *DROP], id="xt ctdir reply"),
    ],
)
@pytest.mark.parametrize("hook", [OUTPUT, POSTROUTING])
def test_answers_that_do_not_get_out(rule: list[Expr], hook: int) -> None:
    findings = [f for f in found(ruleset(("filter", hook, 0, [rule]))) if "192.168.1.233" in f.addresses]
    assert [(f.state, f.conditions, f.why) for f in findings] == [(State.BLOCKED, (), "answers are refused")]


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param([*dport(25), *DROP], id="mail"),
        pytest.param([*dport(6443), *DROP], id="our port elsewhere"),
        pytest.param([*NEW, *DROP], id="new connections"),
        pytest.param([*INVALID, *DROP], id="invalid"),
        pytest.param([*sport(443), *DROP], id="another port's"),
        pytest.param([XtMatch("conntrack", 3, b"", Conntrack(0x1000, 0)), *DROP], id="what this host dials"),
    ],
)
def test_answers_that_get_out(rule: list[Expr]) -> None:
    assert not found(ruleset(("filter", OUTPUT, 0, [rule])))


def test_answers_for_some() -> None:
    some: list[Expr] = [*daddr("192.168.1.51"), *sport(6443), *DROP]
    (finding,) = found(ruleset(("filter", OUTPUT, 0, [some])))
    assert (finding.restriction, finding.conditions) == (True, ("from 192.168.1.51",))
    oif: list[Expr] = [Meta(1, 5), Cmp(1, 0, b"\2\0\0\0"), *sport(6443), *DROP]
    (finding,) = found(ruleset(("filter", OUTPUT, 0, [oif])))
    assert finding.conditions == ("on interface eth0",)


def test_answers_of_one_rule_with_what_it_does_to_first_packets() -> None:
    """From port 6443 it is the first packet that is dropped, from all others the answer: one finding, no condition."""
    (finding,) = found(ruleset(("filter", OUTPUT, 0, [[*sport(6443), *DROP]])), Vantage.LOCAL)
    assert finding.conditions == ()


def test_answers_carry_what_the_request_left_with_the_connection() -> None:
    marks: list[Expr] = [*saddr("10.9.0.0/16"), Immediate(1, b"\7\0\0\0"), CtSet(1, 3)]
    drops: list[Expr] = [Ct(1, 3), Cmp(1, 0, b"\7\0\0\0"), *DROP]
    (finding,) = found(ruleset(("filter", PREROUTING, -150, [marks]), ("filter", OUTPUT, 0, [drops])))
    assert finding.conditions == ("from 10.9.0.0/16",)
    restore = XtTarget("CONNMARK", 2, b"", SetMark(0xFFFFFFFF, 0, conntrack=True, op=2))
    routed: list[Expr] = [Meta(1, 3), Cmp(1, 0, b"\7\0\0\0"), *DROP]
    both = ruleset(
        ("filter", PREROUTING, -150, [marks]),
        ("filter", OUTPUT, -150, [[restore]]),
        ("filter", POSTROUTING, 0, [routed]),
    )
    (finding,) = found(both)
    assert finding.conditions == ("from 10.9.0.0/16",)


def test_answers_to_nobody_conntrack_knows() -> None:
    notrack: Base = ("filter", PREROUTING, -300, [[*dport(6443), Notrack()]])
    (finding,) = found(ruleset(notrack, ("filter", OUTPUT, 0, [[*INVALID, *DROP]])))
    assert finding.state is State.BLOCKED
    both: Base = ("filter", OUTPUT, -300, [[*sport(6443), Notrack()]])
    assert not found(ruleset(notrack, both, ("filter", OUTPUT, 0, [[*INVALID, *DROP]])))
    assert found(ruleset(notrack, both, ("filter", OUTPUT, 0, [[*UNTRACKED, *sport(6443), *DROP]])))


def test_answers_that_nobody_translates_back() -> None:
    to_us: Base = (
        "nat",
        PREROUTING,
        -100,
        [[*daddr("192.168.1.233"), *dport(6443), *dnat("10.42.0.1", 6443)]],
    )
    assert not found(ruleset(to_us))
    (finding,) = found(ruleset(to_us, ("filter", OUTPUT, -300, [[*sport(6443), Notrack()]])))
    assert finding.state is State.UNKNOWN
    assert "not tracked" in (finding.why or "")


def test_answers_have_their_address_back_after_postrouting() -> None:
    to_us: Base = (
        "nat",
        PREROUTING,
        -100,
        [[*daddr("192.168.1.233"), *dport(6443), *dnat("10.42.0.1", 6443)]],
    )

    def blocked(priority: int, source: str) -> bool:
        drop: Base = ("filter", POSTROUTING, priority, [[*saddr(f"{source}/32"), *sport(6443), *DROP]])
        return any("192.168.1.233" in f.addresses for f in found(ruleset(to_us, drop)))

    assert blocked(0, "10.42.0.1")
    assert not blocked(0, "192.168.1.233")
    assert blocked(200, "192.168.1.233")
    assert not blocked(200, "10.42.0.1")


ZONE: list[Expr] = [Immediate(1, b"\7\0"), CtSet(1, 17)]
XT_ZONE: list[Expr] = [XtTarget("CT", 2, b"", XtZone(7, "CT zone 7"))]


@pytest.mark.parametrize("zone", [ZONE, XT_ZONE])
def test_answers_are_looked_for_in_the_zone_that_output_gives_them(zone: list[Expr]) -> None:
    there: Base = ("filter", PREROUTING, -300, [zone])
    back: Base = ("filter", OUTPUT, -300, [zone])
    for hook in (INPUT, OUTPUT):
        invalid: Base = ("filter", hook, 0, [[*INVALID, *DROP]])
        assert {f.state for f in found(ruleset(there, invalid))} == {State.BLOCKED}
        assert not found(ruleset(there, back, invalid))
    original: Base = ("filter", PREROUTING, -300, [[Immediate(1, b"\7\0"), CtSet(1, 17, 0)]])
    assert not found(ruleset(original, ("filter", OUTPUT, 0, [[*INVALID, *DROP]])))


def test_an_ack_does_not_fit_a_connection_that_waits_for_its_answer() -> None:
    untracked: Base = ("filter", OUTPUT, -300, [[*sport(6443), Notrack()]])
    (finding,) = found(ruleset(untracked, ("filter", INPUT, 0, [[*INVALID, *DROP]])))
    assert (finding.state, finding.why) == (State.BLOCKED, "refused as soon as the connection is there")
    both: Base = ("filter", PREROUTING, -300, [[*dport(6443), Notrack()]])
    assert not found(ruleset(both, untracked, ("filter", INPUT, 0, [[*INVALID, *DROP]])))


def test_answers_go_to_what_source_nat_made_of_the_client() -> None:
    renamed: Base = ("nat", INPUT, 100, [[*dport(6443), Immediate(1, ip("10.42.0.77")), Nat(0, 2, 1, 1)]])
    drop: Base = ("filter", OUTPUT, -300, [[*daddr("10.42.0.77"), *DROP]])
    (finding,) = found(ruleset(renamed, drop))
    assert (finding.state, finding.conditions) == (State.BLOCKED, ())
    other: Base = ("filter", OUTPUT, -300, [[*daddr("192.168.1.50"), *DROP]])
    assert not found(ruleset(renamed, other))
    oif: list[Expr] = [Meta(1, 5), Cmp(1, 0, b"\3\0\0\0")]  # cni0, which leads to that address
    (finding,) = found(ruleset(renamed, ("filter", OUTPUT, 0, [[*oif, *sport(6443), *DROP]])))
    assert finding.conditions[0].startswith("not from 10.42.0.77")  # who has that address is not renamed


@pytest.mark.parametrize(("flags", "same"), [(0, True), (4, False), (16, False)])
def test_with_a_port_at_random_nobody_keeps_his_source(flags: int, same: bool) -> None:
    snat: list[Expr] = [Immediate(1, ip("192.168.1.233")), Nat(0, 2, 1, 1, flags=flags)]
    state = [XtMatch("conntrack", 3, b"", Conntrack(1, 0, state_mask=64))]
    rules = ruleset(
        ("nat", POSTROUTING, 100, [[*dport(6443), *snat]]), ("filter", INPUT, 0, [[*state, *DROP]])
    )
    findings = found(rules, Vantage.LOCAL)
    assert findings
    assert all("not from 192.168.1.233" in f.conditions for f in findings) is same


@pytest.mark.parametrize(
    ("hook", "priority", "source", "lost"),
    [
        (FORWARD, 200, POD, True),
        (FORWARD, 200, "192.168.1.233", False),
        (POSTROUTING, 90, POD, True),
        (POSTROUTING, 90, "192.168.1.233", False),
        (POSTROUTING, 150, POD, False),
        (POSTROUTING, 150, "192.168.1.233", True),
    ],
)
def test_a_pods_answers_have_its_address_until_source_nats_place(
    hook: int, priority: int, source: str, lost: bool
) -> None:
    to_pod: Base = ("nat", PREROUTING, -100, [[*daddr("192.168.1.233"), *AWAY]])
    drop: Base = ("filter", hook, priority, [[*saddr(f"{source}/32"), *sport(6443), *REPLY, *DROP]])
    (finding,) = [f for f in found(ruleset(to_pod, drop)) if f.mechanism is Mechanism.DNAT]
    assert (finding.state is State.BLOCKED) is lost


def test_answers_of_a_port_where_nobody_listens_are_no_users() -> None:
    owned: list[Expr] = [XtMatch("owner", 1, b"", Owner(1, 0, uid=(0, 999))), *DROP]
    (finding,) = found(ruleset(("filter", OUTPUT, 0, [owned])))
    assert finding.state is State.BLOCKED
    to_nine: Base = ("nat", PREROUTING, -100, [[*dport(6443), Immediate(1, b"\0\x09"), Redir(1, 1)]])
    assert {f.state for f in found(ruleset(to_nine, ("filter", OUTPUT, 0, [owned])))} == {State.DIVERTED}


@pytest.mark.parametrize("expr", [Synproxy(), XtTarget("SYNPROXY", 0, b"", XtSynproxy())])
def test_synproxy_answers_in_the_servers_place(expr: Expr) -> None:
    (finding,) = found(ruleset(("filter", INPUT, 0, [[*dport(6443), expr], [*dport(6443), *DROP]])))
    assert finding.state is State.UNKNOWN
    assert "SYNPROXY" in (finding.why or "")


def test_an_answer_handed_to_a_program_is_unknown() -> None:
    (finding,) = found(ruleset(("filter", OUTPUT, 0, [[*sport(6443), Queue(3)]])))
    assert finding.state is State.UNKNOWN


def test_an_answer_with_another_address_is_unknown() -> None:
    write: list[Expr] = [*sport(6443), Immediate(1, ip("10.9.9.9")), PayloadSet(1, 1, 12, 4)]
    assert {f.state for f in found(ruleset(("filter", OUTPUT, 0, [write])))} == {State.UNKNOWN}
    ttl: list[Expr] = [*sport(6443), Immediate(1, b"\7"), PayloadSet(1, 1, 8, 1)]
    assert not found(ruleset(("filter", OUTPUT, 0, [ttl])))


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param([*ESTABLISHED, *dport(6443), *DROP], id="established"),
        pytest.param([*dport(6443), *NOT_SYN, *DROP], id="not a SYN"),
        pytest.param(
            [
                XtMatch(
                    "tcp",
                    0,
                    b"",
                    Ports(6, destination=(6443, 6443), flags_mask=0x17, flags_compare=2, invert_flags=True),
                ),
                *DROP,
            ],
            id="xt ! --syn",
        ),
    ],
)
@pytest.mark.parametrize("hook", [PREROUTING, INPUT])
def test_later_packets(rule: list[Expr], hook: int) -> None:
    (finding,) = found(ruleset(("filter", hook, 0, [rule])))
    assert (finding.state, finding.conditions) == (State.BLOCKED, ())
    assert "as soon as the connection is there" in (finding.why or "")


@pytest.mark.parametrize(("low", "states"), [(0, {State.BLOCKED}), (1000, set())])
def test_later_packets_have_the_servers_socket(low: int, states: set[State]) -> None:
    """The first has none yet: `meta skuid` breaks. Root's it is here. What comes over loopback never has one."""
    bounds = [low.to_bytes(4), (low + 999).to_bytes(4)]
    skuid: list[Expr] = [Meta(1, 10), Byteorder(1, 1, 1, 4, 4), Range(1, 0, *bounds), *DROP]
    rules = ruleset(("filter", INPUT, 0, [skuid]))
    assert {f.state for f in found(rules, Vantage.EXTERNAL) if not f.conditions} == states
    assert not found(rules, Vantage.LOCAL)


def test_later_packets_are_not_looked_at_where_nothing_tells_them_apart() -> None:
    assert not phased([*dport(6443), *saddr("10.0.0.0/8"), *DROP])
    for test in (ESTABLISHED, NOT_SYN, [Ct(1, 3)], [Ct(1, 2)]):
        assert phased([*dport(6443), *test, *DROP])
    assert not found(
        ruleset(("filter", INPUT, 0, [[*ESTABLISHED, *ACCEPT], [*NOT_SYN, *dport(6443), *DROP]]))
    )


def flags(mask: int, value: int, op: int = 0) -> list[Expr]:
    return [Payload(1, 2, 13, 1), Bitwise(1, 1, 1, bytes([mask]), b"\0"), Cmp(1, op, bytes([value]))]


SYN, PSH, ACK, ASSURED = 2, 8, 16, b"\4\0\0\0"
STATUS: list[Expr] = [Ct(1, 2), Bitwise(1, 1, 4, ASSURED, bytes(4)), Cmp(1, 1, bytes(4))]
ALREADY: list[Expr] = [*sport(6443), Ct(1, 3), Cmp(1, 0, b"\7\0\0\0"), *DROP]
NOTE: list[Expr] = [*sport(6443), Immediate(1, b"\7\0\0\0"), CtSet(1, 3)]


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([[*flags(SYN, 0), *DROP]], id="no SYN"),
        pytest.param([[*flags(SYN, SYN), *ACCEPT], DROP], id="everything but a SYN"),
        pytest.param([[*STATUS, *DROP]], id="assured"),
        pytest.param(
            [[XtMatch("conntrack", 3, b"", Conntrack(0x40, 0, status_mask=4)), *DROP]], id="xt assured"
        ),
        pytest.param([[XtMatch("tcp", 0, b"", XT_NOT_SYN_ALONE), *DROP]], id="xt no SYN"),
        pytest.param([ALREADY, NOTE], id="the mark that the first has left"),
    ],
)
@pytest.mark.parametrize("hook", [OUTPUT, POSTROUTING])
def test_later_answers(rules: list[list[Expr]], hook: int) -> None:
    (finding,) = found(ruleset(("filter", hook, 0, rules)))
    assert (finding.state, finding.conditions) == (State.BLOCKED, ())
    assert finding.why == "answers are refused as soon as the connection is there"


def test_later_answers_are_not_looked_at_where_nothing_tells_them_apart() -> None:
    for same in (ESTABLISHED, REPLY, sport(6443), [Ct(1, 3), Cmp(1, 0, bytes(4))]):
        assert not phased([*same, *DROP], from_client=False)
    for test in (STATUS, NOT_SYN, [XtMatch("tcp", 0, b"", XT_NOT_SYN)]):
        assert phased([*test, *DROP], from_client=False)


def test_a_mark_that_only_some_connections_are_left_with() -> None:
    some: list[Expr] = [*daddr("192.168.1.51"), *NOTE]
    (finding,) = found(ruleset(("filter", OUTPUT, 0, [ALREADY, some])))
    assert (finding.state, finding.conditions) == (State.BLOCKED, ("from 192.168.1.51",))


def counted(most: int) -> list[list[Expr]]:
    """Rules that count a connection's answers in its mark, and drop the one after `most`."""
    rules: list[list[Expr]] = [
        [Ct(1, 3), Cmp(1, 0, n.to_bytes(4, "little")), Immediate(1, (n + 1).to_bytes(4, "little")),
         CtSet(1, 3), *ACCEPT]
        for n in range(most)
    ]  # fmt: skip
    return [*rules, [Ct(1, 3), Cmp(1, 0, most.to_bytes(4, "little")), *DROP]]


@pytest.mark.parametrize(("most", "state"), [(1, State.BLOCKED), (5, State.BLOCKED), (50, State.UNKNOWN)])
def test_marks_that_change_with_every_packet(most: int, state: State) -> None:
    (finding,) = found(ruleset(("filter", OUTPUT, 0, counted(most))))
    assert (finding.state, finding.conditions) == (state, ())


@pytest.mark.parametrize("hook", [INPUT, OUTPUT])
def test_what_ends_a_request_or_a_response_is_pushed(hook: int) -> None:
    (finding,) = found(ruleset(("filter", hook, 0, [[*flags(PSH, PSH), *DROP]])))
    assert (finding.state, finding.conditions) == (State.BLOCKED, ())


@pytest.mark.parametrize("hook", [INPUT, OUTPUT])
def test_what_only_acknowledges_may_be_missed(hook: int) -> None:
    (finding,) = found(ruleset(("filter", hook, 0, [[*flags(0xFF, ACK), *DROP]])))
    assert (finding.state, finding.conditions) == (State.UNKNOWN, ())
    assert "only acknowledges" in (finding.why or "")
    assert not found(ruleset(("filter", hook, 0, [[*flags(ACK | PSH, PSH), *DROP]])))  # a scan


def test_a_flow_that_was_dropped_on_its_way_is_explained_by_both_rules() -> None:
    rules = ruleset(NAT, ("filter", FORWARD, 0, [DROP]))
    a = ipaddress.ip_address
    flow = Flow(
        Protocol.TCP, a("192.168.1.50"), 40000, a("192.168.1.233"), 6443, a(POD), 6443, Outcome.DROPPED, 1.0
    )
    finding = explain_flow(rules, node(), API, flow)
    assert (finding.state, finding.refusing) == (State.BLOCKED, 1)
    assert finding.cause == found(rules)[0].cause
    gone = explain_flow(ruleset(NAT), node(), API, dataclasses.replace(flow, outcome=Outcome.DIVERTED))
    assert gone.state is State.DIVERTED


def test_a_stateful_firewall_is_nobodys_hijack() -> None:
    masquerade: Base = ("nat", POSTROUTING, 100, [[*saddr("10.42.0.0/16"), Masq()]])
    inside = [[*INVALID, *DROP], [*ESTABLISHED, *ACCEPT], [*dport(6443), *NEW, *ACCEPT]]
    out = [[*INVALID, *DROP], [*ESTABLISHED, *ACCEPT]]
    for vantage in (Vantage.EXTERNAL,):
        rules = ruleset(
            masquerade, ("filter", INPUT, 0, inside), ("filter", OUTPUT, 0, out), policy=Code.DROP
        )
        assert not found(rules, vantage)


def test_rules_about_other_sources_are_passed_over() -> None:
    assert required_source([*saddr("10.9.8.7/32"), *DROP], Family.IP) == ip("10.9.8.7")
    assert required_source([*saddr("10.9.0.0/16"), *DROP], Family.IP) == ip("10.9.0.0")[:2]
    assert required_source([*saddr("10.9.0.0/16", 1), *DROP], Family.IP) is None
    assert required_source([*dport(6443), *DROP], Family.IP) is None
    header = IpHeader(2, (ip("10.9.0.0"), b"\xff\xff\0\0"), (bytes(4), bytes(4)))
    legacy: list[Expr] = [XtMatch("ip", 0, b"", header), XtTarget("standard", 0, b"", XtStandard(Code.DROP))]
    assert required_source(legacy, Family.IP) == ip("10.9.0.0")[:2]
    assert required_source([XtMatch("ip", 0, b"", dataclasses.replace(header, invert=8))], Family.IP) is None
    rules = [[*saddr(f"10.1.{n}.0/24"), *DROP] for n in range(40)]
    ours: list[list[Expr]] = [[*saddr("192.168.1.233/32"), *sport(6443), *DROP]]
    (finding,) = found(ruleset(("filter", OUTPUT, 0, [*rules, *ours])))
    assert finding.addresses == ("192.168.1.233",)


def test_forward_through_user_chains() -> None:
    rules = ruleset(NAT, ("filter", FORWARD, 0, [jump("DOCKER")]))
    rules.chain("t1", "DOCKER", [*daddr(POD), *dport(6443), *ESTABLISHED, *ACCEPT], DROP)
    (finding,) = found(rules)
    assert [step.chain for step in finding.path] == ["c", "c", "DOCKER"]
    assert finding.refusing == 2
    assert finding.taking is finding.path[0]
