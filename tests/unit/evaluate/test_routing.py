"""Between the hooks: policy rules and routes that lead elsewhere, nowhere, or back."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest
from support.build import TableRuleset, dnat, dport, node

from k3swatch.evaluate import judge
from k3swatch.model.expr import Expr, Immediate, MetaSet
from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.port import Address, ProtectedPort
from k3swatch.model.routing import (
    GOTO,
    PROHIBIT,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTN_THROW,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    TO_TABLE,
    PolicyRule,
    Prefix,
    Route,
    Routing,
)
from k3swatch.model.ruleset import OUTPUT, PREROUTING
from k3swatch.model.words import Family, Mechanism, State, Vantage

API = ProtectedPort("k3s-api", 6443)
MAIN, LOCAL, DEFAULT = 254, 255, 253
Rows = list[PolicyRule | Route]


def prefix(text: str) -> Prefix:
    network = ipaddress.ip_network(text)
    return Prefix(int(network.network_address), int(network.broadcast_address), network.prefixlen)


def route(text: str, kind: int = RTN_UNICAST, table: int = MAIN, interface: int = 2, via: str = "") -> Route:
    family = Family.IP6 if ":" in text else Family.IP
    gateway = ipaddress.ip_address(via).packed if via else b""
    return Route(family, table, prefix(text), kind, interface, gateway)


def rule(priority: int, action: int = TO_TABLE, table: int = MAIN, **more: Any) -> PolicyRule:
    return dataclasses.replace(PolicyRule(Family.IP, priority, action, table), **more)


USUAL = [rule(0, table=LOCAL), rule(32766), rule(32767, table=DEFAULT)]
OURS = [
    route("127.0.0.0/8", RTN_LOCAL, LOCAL, 1),
    route("192.168.1.233/32", RTN_LOCAL, LOCAL),
    route("10.42.0.1/32", RTN_LOCAL, LOCAL, 3),
    route("10.42.0.0/24", interface=3),
    route("192.168.1.0/24"),
    route("0.0.0.0/0", via="192.168.1.1"),
]


def verdict_on(
    *more: PolicyRule | Route,
    ruleset: TableRuleset | None = None,
    source: Address | None = None,
    usual: bool = True,
) -> PortVerdict:
    rules = [each for each in more if isinstance(each, PolicyRule)]
    routes = [each for each in more if isinstance(each, Route)]
    routing = Routing((*(USUAL if usual else ()), *rules), (*OURS, *routes))
    host = dataclasses.replace(node(), routing=routing)
    host = dataclasses.replace(host, addresses=tuple(a for a in host.addresses if a.address.version == 4))
    return judge(ruleset or TableRuleset(), host, [API], source)[0]


def found(*more: PolicyRule | Route, vantage: Vantage = Vantage.EXTERNAL, **options: Any) -> list[Finding]:
    verdict = verdict_on(*more, **options)
    return [f for f in verdict.findings if f.vantage is vantage and not f.shadowed]


def marking(value: int, hook: int = PREROUTING) -> TableRuleset:
    ruleset = TableRuleset()
    setter: list[Expr] = [*dport(6443), Immediate(1, value.to_bytes(4, "little")), MetaSet(1, 3)]
    ruleset.base("t", "m", hook, setter, kind="filter", priority=-150)
    return ruleset


def sending(text: str) -> TableRuleset:
    ruleset = TableRuleset()
    ruleset.base("t", "pre", PREROUTING, [*dport(6443), *dnat(text, 6443)])
    ruleset.base("t", "out", OUTPUT, [*dport(6443), *dnat(text, 6443)])
    return ruleset


def test_a_host_as_it_is() -> None:
    assert not verdict_on().findings
    assert not found(rule(100, table=7, mark=1, mark_mask=1), route("0.0.0.0/0", RTN_UNREACHABLE, 7))


def test_a_rule_before_the_local_table_carries_it_away() -> None:
    rules = [rule(10, table=LOCAL), rule(5, table=100, mark=0x64, mark_mask=0xFFFFFFFF), *USUAL[1:]]
    away: Rows = [*rules, route("0.0.0.0/0", table=100, via="192.168.1.200")]
    (finding,) = found(*away, ruleset=marking(0x64), usual=False)
    assert (finding.state, finding.mechanism, finding.conditions) == (State.DIVERTED, Mechanism.ROUTE, ())
    assert [(step.family, step.table, step.rule) for step in finding.path] == [
        ("route", "rule", "from all fwmark 0x64 lookup 100"),
        ("route", "100", "default via 192.168.1.200 dev eth0"),
    ]
    assert "192.168.1.200" in (finding.why or "")
    assert not found(*away, ruleset=marking(0x65), usual=False)
    assert not found(*away, usual=False)  # nobody's packets come with a mark
    local: Rows = [*rules, route("0.0.0.0/0", RTN_LOCAL, 100, 1)]  # as TPROXY wants it
    assert not found(*local, ruleset=marking(0x64), usual=False)


@pytest.mark.parametrize(("kind", "interface"), [(RTN_BLACKHOLE, 0), (RTN_UNREACHABLE, 0)])
def test_sent_to_where_no_route_leads(kind: int, interface: int) -> None:
    gone = route("10.42.7.0/24", kind, interface=interface)
    for vantage in Vantage:
        (finding,) = found(gone, ruleset=sending("10.42.7.9"), vantage=vantage)
        assert (finding.state, finding.mechanism) == (State.BLOCKED, Mechanism.DNAT)
        assert (finding.refusing, finding.destination) == (1, "10.42.7.9:6443")
    everybody = [f.state for f in found(gone, ruleset=sending("10.42.0.9")) if "not" in str(f.conditions)]
    assert everybody == [State.DIVERTED]
    alive = route("10.42.7.9/32", interface=3)  # more specific
    assert State.DIVERTED in {f.state for f in found(gone, alive, ruleset=sending("10.42.7.9"))}


def test_sent_to_where_there_is_no_route_at_all() -> None:
    throw = route("10.99.0.0/16", RTN_THROW)
    (finding,) = found(throw, ruleset=sending("10.99.0.9"))
    assert finding.state is State.BLOCKED
    assert "no route" in finding.path[-1].rule


def test_answers_that_routing_refuses() -> None:
    hole = route("192.168.1.51/32", RTN_BLACKHOLE, interface=0)
    (finding,) = found(hole)
    assert (finding.restriction, finding.conditions) == (True, ("from 192.168.1.51",))
    assert verdict_on(hole).state is State.DELIVERED
    assert verdict_on(hole, source=ipaddress.ip_address("192.168.1.51")).state is State.BLOCKED
    assert not verdict_on(hole, source=ipaddress.ip_address("192.168.1.50")).findings
    block = [route("10.77.0.0/16", RTN_BLACKHOLE, interface=0), route("10.77.1.0/24", interface=3)]
    (finding,) = found(*block)
    assert finding.conditions == ("from 10.77.0.0/24 or 10.77.2.0-10.77.255.255",)


def test_answers_of_one_address_are_refused_to_everybody() -> None:
    (finding,) = found(rule(100, PROHIBIT, source=prefix("192.168.1.233/32")))
    assert (finding.state, finding.addresses, finding.conditions) == (State.BLOCKED, ("192.168.1.233",), ())
    assert not finding.restriction
    assert finding.why == "routing refuses the answers"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([rule(100, PROHIBIT, uids=(4000, 5000))], id="a user's, not the server's"),
        pytest.param([rule(100, PROHIBIT, protocol=17)], id="udp"),
        pytest.param([rule(100, PROHIBIT, source_ports=(1, 1000))], id="other ports"),
        pytest.param([rule(100, PROHIBIT, in_interface="cni0")], id="what comes in"),
        pytest.param([rule(100, PROHIBIT, out_interface="eth0")], id="bound to a device"),
        pytest.param(
            [rule(100, GOTO, goto=200), rule(150, PROHIBIT), rule(200, table=MAIN)], id="goto passes it over"
        ),
        pytest.param([rule(100, table=MAIN, suppress=0)], id="wireguard's"),
        pytest.param(
            [rule(100, PROHIBIT, source=prefix("10.0.0.0/8"), invert=True), rule(99)], id="after an answer"
        ),
    ],
)
def test_answers_that_other_rules_are_not_about(more: list[PolicyRule]) -> None:
    findings = [f for f in found(*more) if "192.168.1.233" in f.addresses]
    assert not [f for f in findings if not f.conditions]


def test_a_rule_that_asks_what_is_not_known_may_hold() -> None:
    findings = found(rule(100, PROHIBIT, other=True))
    assert {f.state for f in findings} == {State.UNKNOWN}


def test_no_way_back_is_told_of_one_sender_alone() -> None:
    routing = Routing(tuple(USUAL), tuple(each for each in OURS if each.prefix.length))
    host = dataclasses.replace(node(), routing=routing)
    assert not [f for f in judge(TableRuleset(), host, [API])[0].findings if f.family is Family.IP]
    (finding,) = judge(TableRuleset(), host, [API], ipaddress.ip_address("203.0.113.9"))[0].findings
    assert (finding.state, finding.why) == (State.BLOCKED, "answers have no route")


def test_without_tables_nothing_is_said() -> None:
    assert node().routing is None
    assert not judge(TableRuleset(), node(), [API])[0].findings
