"""Routes and policy rules that could not be read, or not all of them: said where they could matter.

What could not be read at all may carry packets off before the table `local` is asked, so every way in is unknown. On a
host with more routes than are read (it speaks BGP), `local` and the routes that refuse are known: an address that
the first rule of all finds in `local` stays here whatever the others say, and only a route that refuses everybody could
keep all answers back.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from k3swatch.evaluate.routing import stays
from k3swatch.model.finding import Finding
from k3swatch.model.port import Host
from k3swatch.model.routing import REFUSING, TO_TABLE, Routing
from k3swatch.model.words import Family, Mechanism, State, Vantage


def unrouted(host: Host, judged: Sequence[tuple[Vantage, str]], family: Family) -> Iterator[Finding]:
    """What cannot be told of the (vantage, address) pairs of a family, one finding a vantage."""
    for vantage in Vantage:
        own = [text for who, text in judged if who is vantage and (":" in text) == (family is Family.IP6)]
        addresses, why = _doubted(host, own, family)
        if addresses:
            yield Finding(State.UNKNOWN, Mechanism.NONE, vantage, family, addresses, certain=False, why=why)


def _doubted(host: Host, addresses: Sequence[str], family: Family) -> tuple[tuple[str, ...], str]:
    routing = host.routing
    if host.unrouted:
        return tuple(addresses), f"routes or policy rules could not be read ({host.unrouted})"
    if routing is None or not routing.partial:
        return (), ""
    if _refuses_all(routing, family):
        return tuple(
            addresses
        ), "a route refuses answers, and too many routes to read could be preferred to it"
    led = [each for each in addresses if not stays(routing, family, ipaddress.ip_address(each).packed)]
    return tuple(led), "routed by a policy rule before table local, among too many routes to read"


def _refuses_all(routing: Routing, family: Family) -> bool:
    """Whether a route that is about everybody refuses, in a table that is in use."""
    used = {rule.table for rule in routing.ordered[family] if rule.action == TO_TABLE}
    return any(
        route.type in REFUSING and route.prefix.length == 0
        for table in used
        for route in routing.tables.get((family, table), ())
    )
