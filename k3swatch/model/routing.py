"""Routes and policy rules as values: where this host's kernel sends a packet that no chain has dropped.

Named as `uapi/linux/rtnetlink.h` and `fib_rules.h` have them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from k3swatch.model.words import Family

RTN_UNICAST, RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST = range(1, 6)
RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW = range(6, 10)
REFUSING = frozenset({RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT})
TO_TABLE, GOTO, NOP, BLACKHOLE, UNREACHABLE, PROHIBIT = 1, 2, 3, 6, 7, 8  # FR_ACT_*

MAIN, LOCAL = 254, 255  # RT_TABLE_MAIN, RT_TABLE_LOCAL
TABLES = {253: "default", 254: "main", 255: "local"}


@dataclass(frozen=True, slots=True)
class Prefix:
    """An address prefix as the first and last address in it."""

    low: int
    high: int
    length: int


@dataclass(frozen=True, slots=True)
class Route:
    """One route (RTM_NEWROUTE). `interface` is 0 and `gateway` empty where it has several next hops, or none; `source`:
    for packets from there only (IPv6)."""

    family: Family
    table: int
    prefix: Prefix
    type: int
    interface: int = 0
    gateway: bytes = b""
    metric: int = 0
    source: Prefix | None = None


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One policy routing rule (RTM_NEWRULE). `other`: it asks for more than is told here."""

    family: Family
    priority: int
    action: int
    table: int = 0
    source: Prefix | None = None
    destination: Prefix | None = None
    mark: int = 0
    mark_mask: int = 0
    in_interface: str = ""
    out_interface: str = ""
    protocol: int = 0
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    uids: tuple[int, int] | None = None
    goto: int = 0
    suppress: int = -1  # routes with a prefix of at most this length do not count
    invert: bool = False
    other: bool = False


@dataclass(frozen=True)  # without slots: the tables are worked out once
class Routing:
    """All of one network namespace: rules in the order of their priority."""

    rules: tuple[PolicyRule, ...] = ()
    routes: tuple[Route, ...] = ()
    partial: bool = False  # too many routes: of tables other than `local`, only those that refuse are here

    @cached_property
    def tables(self) -> dict[tuple[Family, int], Sequence[Route]]:
        """The routes of each table, in the order in which they are preferred: longest prefix, then longest source (as
        fib6_node_lookup tries them), then lowest metric."""
        found: dict[tuple[Family, int], list[Route]] = {}
        for route in sorted(self.routes, key=_preference):
            found.setdefault((route.family, route.table), []).append(route)
        return dict(found)

    @cached_property
    def sourced(self) -> frozenset[tuple[Family, int]]:
        """The tables with routes that are for some sources only."""
        return frozenset((route.family, route.table) for route in self.routes if route.source is not None)

    @cached_property
    def _by_length(self) -> dict[tuple[Family, int], dict[int, dict[int, list[Route]]]]:
        found: dict[tuple[Family, int], dict[int, dict[int, list[Route]]]] = {}
        for key, routes in self.tables.items():
            lengths = found.setdefault(key, {})  # longest first, as in `tables`
            for route in routes:
                lengths.setdefault(route.prefix.length, {}).setdefault(route.prefix.low, []).append(route)
        return found

    def candidates(self, family: Family, table: int, address: int) -> Iterator[Route]:
        """The routes of a table that an address may take, best first: those for some sources, then the one for all."""
        bits = family.length * 8
        for length, routes in self._by_length.get((family, table), {}).items():
            for route in routes.get(address >> (bits - length) << (bits - length), ()):
                yield route
                if route.source is None:
                    return

    def lookup(self, family: Family, table: int, address: int) -> Route | None:
        """The route of a table for one address, whoever sends: the longest prefix that has it."""
        return next((each for each in self.candidates(family, table, address) if each.source is None), None)

    @cached_property
    def ordered(self) -> dict[Family, Sequence[PolicyRule]]:
        """The rules of each family, as they are asked."""
        return {
            family: sorted(
                (rule for rule in self.rules if rule.family is family), key=lambda each: each.priority
            )
            for family in Family
        }


def _preference(route: Route) -> tuple[int, int, int]:
    return (-route.prefix.length, -(route.source.length if route.source else -1), route.metric)
