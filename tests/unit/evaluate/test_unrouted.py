"""Routes for some sources only, routes that are too many, and routes that cannot be read."""

from __future__ import annotations

import dataclasses
import ipaddress

from support.build import TableRuleset, dport, ip, node

from k3swatch.evaluate import judge
from k3swatch.model.expr import Expr, Immediate, Nat
from k3swatch.model.finding import Finding
from k3swatch.model.port import ProtectedPort
from k3swatch.model.routing import (
    RTN_LOCAL,
    RTN_PROHIBIT,
    RTN_UNICAST,
    TO_TABLE,
    PolicyRule,
    Prefix,
    Route,
    Routing,
)
from k3swatch.model.ruleset import PREROUTING
from k3swatch.model.words import Family, State, Vantage

API = ProtectedPort("k3s-api", 6443)
USUAL = tuple(
    PolicyRule(Family.IP6, priority, TO_TABLE, table) for priority, table in ((0, 255), (32766, 254))
)


SENT: list[Expr] = [Immediate(1, ip("fd99::9")), Nat(1, 10, addr_min=1, addr_max=1)]


def prefix(text: str) -> Prefix:
    network = ipaddress.ip_network(text)
    return Prefix(int(network.network_address), int(network.broadcast_address), network.prefixlen)


def route(
    text: str, kind: int = RTN_UNICAST, table: int = 254, source: str = "", interface: int = 2
) -> Route:
    return Route(Family.IP6, table, prefix(text), kind, interface, source=prefix(source) if source else None)


HOST = "fd00:1::233"
OURS = (route(f"{HOST}/128", RTN_LOCAL, 255), route("fd00:1::/64"), route("::/0"))


def found(routing: Routing | None, ruleset: TableRuleset | None = None, unrouted: str = "") -> list[Finding]:
    host = dataclasses.replace(node(), routing=routing, unrouted=unrouted)
    addresses = tuple(each for each in host.addresses if str(each.address) == HOST)
    assert addresses
    host = dataclasses.replace(host, addresses=addresses)
    findings = judge(ruleset or TableRuleset(), host, [API])[0].findings
    return [f for f in findings if f.vantage is Vantage.EXTERNAL and not f.shadowed]


def test_answers_of_an_address_with_a_route_of_its_own_that_refuses() -> None:
    """The LAN has a longer prefix, which is preferred; then the route for this source."""
    refusing = route("::/0", RTN_PROHIBIT, source=f"{HOST}/128")
    (finding,) = found(Routing(USUAL, (*OURS, refusing)))
    assert (finding.state, finding.conditions) == (State.BLOCKED, ("not from fd00:1::/64",))
    assert finding.rule is not None
    assert finding.rule.rule == f"prohibit default from {HOST} dev eth0"
    assert not found(Routing(USUAL, (*OURS, route("::/0", RTN_PROHIBIT, source="fd77::/64"))))


def test_a_route_of_its_own_saves_an_address_from_one_that_refuses() -> None:
    refusing, own = route("::/0", RTN_PROHIBIT), route("::/0", source="fd00:1::/64")
    routes = (*OURS[:2], refusing)
    assert {f.state for f in found(Routing(USUAL, routes))} == {State.BLOCKED}
    assert not found(Routing(USUAL, (*routes, own)))


def test_what_is_diverted_is_routed_by_who_sends_it() -> None:
    ruleset = TableRuleset()
    ruleset.base("t", "pre", PREROUTING, [*dport(6443), *SENT], family="ip6")
    refusing = route("fd99::/64", RTN_PROHIBIT, source="fd00:1::/64")
    findings = {f.state: f.conditions for f in found(Routing(USUAL, (*OURS, refusing)), ruleset)}
    assert findings == {
        State.BLOCKED: ("from fd00:1::/64",),
        State.DIVERTED: ("not from fd00:1::/64",),
    }


def test_what_cannot_be_read_is_unknown() -> None:
    (finding,) = found(None, unrouted="policy rules: not today")
    assert finding.state is State.UNKNOWN
    assert "policy rules: not today" in (finding.why or "")


def test_of_too_many_routes_those_matter_that_could() -> None:
    local = OURS[:1]
    assert not found(Routing(USUAL, local, partial=True))
    aggregate = route("fd80::/16", RTN_PROHIBIT)
    assert not found(Routing(USUAL, (*local, aggregate), partial=True))
    assert {f.state for f in found(Routing(USUAL, (*local, route("::/0", RTN_PROHIBIT)), partial=True))} == {
        State.UNKNOWN
    }
    before = PolicyRule(Family.IP6, 0, TO_TABLE, 7)
    rules = (before, *(dataclasses.replace(rule, priority=rule.priority + 1) for rule in USUAL))
    (finding,) = found(Routing(rules, local, partial=True))
    assert (finding.state, finding.addresses) == (State.UNKNOWN, (HOST,))
