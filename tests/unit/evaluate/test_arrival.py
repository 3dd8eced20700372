"""Sysctls on the way in: strict rp_filter, packets that are not forwarded, loopback from outside."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest
from support.build import TableRuleset, dnat, dport, node

from k3swatch.evaluate import judge
from k3swatch.model.finding import Finding
from k3swatch.model.port import Interface, LocalAddress, ProtectedPort
from k3swatch.model.routing import RTN_LOCAL, RTN_UNICAST, TO_TABLE, PolicyRule, Prefix, Route, Routing
from k3swatch.model.ruleset import OUTPUT, PREROUTING
from k3swatch.model.sysctl import Sysctls
from k3swatch.model.words import Family, Mechanism, State, Vantage

API = ProtectedPort("k3s-api", 6443)
ETH0, CNI0, ETH1 = 2, 3, 5
USUAL = [PolicyRule(Family.IP, priority, TO_TABLE, table) for priority, table in ((0, 255), (32766, 254))]
QUIET = ["rp_filter=0", "src_valid_mark=0", "route_localnet=0", "forwarding=1"]


def route(text: str, interface: int, table: int = 254, kind: int = RTN_UNICAST, metric: int = 0) -> Route:
    network = ipaddress.ip_network(text)
    low, high = int(network.network_address), int(network.broadcast_address)
    return Route(Family.IP, table, Prefix(low, high, network.prefixlen), kind, interface, b"", metric)


OURS = [
    *(route(f"{each}/32", at, 255, RTN_LOCAL) for each, at in (("192.168.1.233", ETH0), ("10.42.0.1", CNI0))),
    route("192.168.9.1/32", ETH1, 255, RTN_LOCAL),
    route("192.168.1.0/24", ETH0),
    route("10.42.0.0/24", CNI0),
    route("192.168.9.0/24", ETH1),
    route("0.0.0.0/0", ETH0, metric=100),
]


def found(
    *more: Route | PolicyRule,
    settings: str = "",
    ruleset: TableRuleset | None = None,
    address: str = "",
    vantage: Vantage = Vantage.EXTERNAL,
) -> list[Finding]:
    """Of a host with two uplinks, eth0 and eth1; `settings`: `eth1/rp_filter=1`, in the place of what is usual."""
    host = node()
    second = LocalAddress(ipaddress.ip_address("192.168.9.1"), ETH1, 24)
    addresses = [each for each in host.addresses if each.address.version == 4]
    values: dict[str, int] = {}
    for name in ("all", "eth0", "cni0", "eth1"):
        for each in QUIET:
            key, _, value = each.partition("=")
            values[f"ipv4/conf/{name}/{key}"] = int(value)
    for each in settings.split():
        key, _, value = each.partition("=")
        values[f"ipv4/conf/{key}"] = int(value)
    routes = [each for each in more if isinstance(each, Route)]
    rules = [each for each in more if isinstance(each, PolicyRule)]
    host = dataclasses.replace(
        host,
        addresses=(*addresses, second),
        interfaces=(*host.interfaces, Interface(ETH1, "eth1")),
        routing=Routing((*USUAL, *rules), (*OURS, *routes)),
        sysctls=Sysctls(tuple(values.items())),
    )
    findings = judge(ruleset or TableRuleset(), host, [API])[0].findings
    return [
        f
        for f in findings
        if f.vantage is vantage and not f.shadowed and (not address or address in f.addresses)
    ]


def sent_to(address: str) -> TableRuleset:
    ruleset = TableRuleset()
    ruleset.base("t", "pre", PREROUTING, [*dport(6443), *dnat(address, 6443)])
    return ruleset


SECOND_GATEWAY = route("0.0.0.0/0", ETH1, metric=200)


def test_ordinary_hosts_with_several_interfaces_lose_nothing() -> None:
    assert not found(settings="all/rp_filter=1")
    table = PolicyRule(Family.IP, 100, TO_TABLE, 7, source=route("192.168.9.1/32", 0).prefix)
    for_itself = route("0.0.0.0/0", ETH1, 7)
    assert not found(table, for_itself, settings="all/rp_filter=1")
    assert not found(SECOND_GATEWAY)  # not asked
    assert not found(
        SECOND_GATEWAY, settings="all/rp_filter=1 eth1/rp_filter=2"
    )  # loose: there is a way back


def test_two_gateways_and_a_strict_filter() -> None:
    """The classic: whoever dials the second interface from beyond its network is dropped."""
    (finding,) = found(SECOND_GATEWAY, settings="eth1/rp_filter=1")
    assert (finding.state, finding.restriction, finding.certain) == (State.BLOCKED, True, True)
    assert finding.addresses == ("192.168.9.1",)
    assert finding.mechanism is Mechanism.ROUTE
    assert "on interface eth1" in finding.conditions
    assert finding.rule is not None
    assert (finding.rule.family, finding.rule.rule) == ("sysctl", "net.ipv4.conf.eth1.rp_filter = 1")
    assert next(step.rule for step in finding.path).startswith("default dev eth0")


def test_neighbours_whose_route_leads_elsewhere() -> None:
    (finding,) = found(route("192.168.1.128/25", ETH1), settings="eth0/rp_filter=1")
    assert set(finding.conditions) == {"on interface eth0", "from 192.168.1.128/25"}


def test_a_mark_counts_where_src_valid_mark_is_set() -> None:
    marked = PolicyRule(Family.IP, 100, TO_TABLE, 7, mark=5, mark_mask=0xFF)
    elsewhere = route("0.0.0.0/0", CNI0, 7)
    assert not found(marked, elsewhere, settings="eth0/rp_filter=1")
    (finding,) = found(marked, elsewhere, settings="eth0/rp_filter=1 all/src_valid_mark=1")
    assert any("mark" in condition for condition in finding.conditions)


def test_what_is_diverted_and_not_forwarded_is_blocked() -> None:
    states = {f.state for f in found(ruleset=sent_to("10.42.0.9"), address="192.168.1.233")}
    assert states == {State.DIVERTED}
    findings = found(
        ruleset=sent_to("10.42.0.9"), settings="eth0/forwarding=0 eth1/forwarding=0 cni0/forwarding=0"
    )
    assert {f.state for f in findings} == {State.BLOCKED}
    assert {(f.mechanism, f.destination) for f in findings} == {(Mechanism.DNAT, "10.42.0.9:6443")}
    assert {f.rule.table for f in findings if f.rule} == {"net.ipv4.conf"}
    assert not found(settings="eth0/forwarding=0")  # what stays here need not be forwarded


@pytest.mark.parametrize("port", [6443, 6444])
def test_loopback_from_outside_wants_route_localnet(port: int) -> None:
    ruleset = TableRuleset()
    ruleset.base("t", "pre", PREROUTING, [*dport(6443), *dnat("127.0.0.1", port)])
    refused = found(ruleset=ruleset)
    assert {f.state for f in refused} == {State.BLOCKED}
    assert {f.destination for f in refused} == {f"127.0.0.1:{port}"}
    states = {f.state for f in found(ruleset=ruleset, settings="all/route_localnet=1")}
    assert states == (set() if port == 6443 else {State.DIVERTED})


def test_what_comes_from_loopback_does_not_leave_without_route_localnet() -> None:
    ruleset = TableRuleset()
    ruleset.base("t", "out", OUTPUT, [*dport(6443), *dnat("10.42.0.9", 6443)])

    def states(settings: str) -> set[State]:
        return {
            f.state
            for f in found(settings=settings, ruleset=ruleset, vantage=Vantage.LOCAL, address="127.0.0.1")
            if not f.conditions or "from 127.0.0.0/8" in f.conditions
        }

    assert states("") == {State.BLOCKED}
    assert states("cni0/route_localnet=1") == {State.DIVERTED}
