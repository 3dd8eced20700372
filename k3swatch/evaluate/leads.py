"""Which interface a routing table leads to, for all addresses at once; and by which interface clients come in.

Prefixes lie within each other or apart (fib_table_lookup takes the longest), so one sweep over them is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k3swatch.evaluate.ranges import Ranges, normal, subtract
from k3swatch.evaluate.routing import NOBODY, REFUSING, Tabled
from k3swatch.model.routing import LOCAL, RTN_THROW, RTN_UNICAST, TO_TABLE, Route, Routing
from k3swatch.model.words import Family

Span = tuple[int, int]


def by_interface(routes: Sequence[Route], family: Family, suppress: int) -> list[Tabled]:
    """A table as `routing.ways` wants it: refusing routes, one route for each interface (of those that lead there, the
    one that is about most), and None for addresses it has no answer for."""
    found: dict[object, list[Span]] = {}
    shown: dict[object, Route | None] = {None: None}
    covered: list[Span] = []
    for span, (route, *_) in _spans(routes):
        covered.append(span)
        key: object = route.interface
        if route.type == RTN_THROW or route.prefix.length <= suppress:
            key = None
        elif route.type in REFUSING:
            key = route
        best = shown.setdefault(key, route)
        if best is not None and route.prefix.length < best.prefix.length:
            shown[key] = route
        found.setdefault(key, []).append(span)
    whole: Ranges = ((0, (1 << family.length * 8) - 1),)
    found.setdefault(None, []).extend(subtract(whole, normal(covered)))
    return [(shown[key], normal(spans)) for key, spans in found.items() if spans]


def clients(routing: Routing, family: Family, interface: int) -> Ranges:
    """Who is reached by an interface according to any table in use, also by a route that another one of the same
    prefix is preferred to: whose packets may well come in there."""
    tables = {rule.table for rule in routing.ordered[family] if rule.action == TO_TABLE} - {LOCAL}
    spans: list[Span] = []
    for table in tables:
        for span, routes in _spans(routing.tables.get((family, table), ())):
            if any(route.interface == interface and route.type == RTN_UNICAST for route in routes):
                spans.append(span)
    return normal(spans)


def _spans(routes: Sequence[Route]) -> Iterator[tuple[Span, list[Route]]]:
    """All addresses that a table has routes for, in pieces: each with the routes of its longest prefix, best first."""
    groups: dict[Span, list[Route]] = {}
    for route in routes:
        if route.type not in NOBODY:
            groups.setdefault((route.prefix.low, route.prefix.high), []).append(route)
    inside: list[Span] = []  # the prefixes that are open, each within the one before it
    at = 0
    for span in sorted(groups, key=lambda each: (each[0], -each[1])):
        while inside and inside[-1][1] < span[0]:
            last = inside.pop()
            if at <= last[1]:
                yield (at, last[1]), groups[last]
                at = last[1] + 1
        if inside and at < span[0]:
            yield (at, span[0] - 1), groups[inside[-1]]
        at = max(at, span[0])
        inside.append(span)
    while inside:
        last = inside.pop()
        if at <= last[1]:
            yield (at, last[1]), groups[last]
            at = last[1] + 1
