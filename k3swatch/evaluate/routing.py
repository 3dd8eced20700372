"""Where the kernel's routing tables send a packet: here, out of an interface, or nowhere.

Follows fib_rules_lookup, fib4_rule_match, fib6_rule_match, fib_table_lookup and ip6_pol_route: the policy rules in the
order of their priority; in the table of one that matches the longest prefix; without a route, or with `throw`, the
next rule. What a rule asks that is not known may hold or not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from k3swatch.evaluate.cells import equal, known, masked, within
from k3swatch.evaluate.cube import YES, Box, Cube, Kind, flag
from k3swatch.evaluate.header import destination_address, destination_port, source_address, source_port
from k3swatch.evaluate.packet import Packet, Scene
from k3swatch.evaluate.ranges import Ranges, normal, subtract
from k3swatch.model.finding import PathStep
from k3swatch.model.routing import (
    BLACKHOLE,
    GOTO,
    PROHIBIT,
    RTN_ANYCAST,
    RTN_BLACKHOLE,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
    TABLES,
    TO_TABLE,
    UNREACHABLE,
    PolicyRule,
    Prefix,
    Route,
    Routing,
)
from k3swatch.model.words import Family

REFUSING = {RTN_BLACKHOLE: "blackhole", RTN_UNREACHABLE: "unreachable", RTN_PROHIBIT: "prohibit"}
_ACTIONS = {BLACKHOLE: "blackhole", UNREACHABLE: "unreachable", PROHIBIT: "prohibit"}
_HERE = (RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST)
NOBODY = (RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST)  # no client has such an address
_USUAL = (0, 32766, 32767)  # priorities of the rules that are always there


@dataclass(frozen=True, slots=True)
class Way:
    """What becomes of a packet. `steps`: the rule and the route, where they are not the usual ones of everybody."""

    here: bool = False
    refused: bool = False
    missing: bool = False  # refused because there is no route at all
    interface: int = 0  # that it leaves by; 0: here, or one of several
    gateway: bytes = b""
    steps: tuple[PathStep, ...] = ()


Tabled = tuple[Route | None, Ranges]  # None: addresses that a table has no answer for
Parts = dict[tuple[Family, int, int, bytes], list[Tabled]]
Parting = Callable[[Sequence[Route], Family, int], list[Tabled]]


def ways(
    routing: Routing,
    scene: Scene,
    packet: Packet,
    cubes: Sequence[Cube],
    parts: Parts,
    parting: Parting | None = None,
) -> list[tuple[Way, list[Cube]]]:
    """Every way for this packet, each with the cubes it holds for; together they are `cubes` again.

    It goes to an address that is known, or to the client. `parts` remembers what has been worked out about tables: of
    each one where it refuses, or what else `parting` tells apart.
    """
    rules = routing.ordered[scene.family]
    found: dict[Way, list[Cube]] = {}
    todo: list[tuple[int, Cube]] = [(0, cube) for cube in cubes]
    while todo:
        position, cube = todo.pop()
        if position >= len(rules):
            found.setdefault(_nowhere(packet), []).append(cube)
            continue
        rule = rules[position]
        inside, outside = _matching(scene, packet, rule, cube)
        todo += [(position + 1, each) for each in outside]
        for each in inside:
            if rule.action == TO_TABLE:
                source = known(source_address(scene, packet)) if routing.sourced else None
                known_parts = _parted(routing, rule, parts, parting or _parts, source)
                todo += _in_table(routing, scene, packet, rule, each, position, found, known_parts)
            elif rule.action == GOTO:
                targets = [
                    at for at, other in enumerate(rules) if other.priority >= rule.goto and at > position
                ]
                todo.append((targets[0] if targets else len(rules), each))
            elif rule.action in _ACTIONS:
                found.setdefault(Way(refused=True, steps=(_said(rule),)), []).append(each)
            else:  # nop, or what this kernel does not know either
                todo.append((position + 1, each))
    return list(found.items())


def refuses(routing: Routing, family: Family, parts: Parts) -> bool:
    """Whether there is anything that could refuse somebody his answers: on most hosts there is not."""
    for rule in routing.ordered[family]:
        if rule != PolicyRule(family, rule.priority, TO_TABLE, rule.table):
            return True
        if (family, rule.table) in routing.sourced:
            if any(route.type in REFUSING for route in routing.tables[family, rule.table]):
                return True
        elif any(route is not None for route, _ in _parted(routing, rule, parts, _parts, None)):
            return True
    return False


def _parted(
    routing: Routing, rule: PolicyRule, parts: Parts, parting: Parting, source: bytes | None
) -> list[Tabled]:
    """A table for all destinations. `source`: of the packets, where it is known; None: routes for any source count."""
    place = (rule.family, rule.table)
    if source is None or place not in routing.sourced:
        source = b""
    key = (*place, rule.suppress, source)
    if key not in parts:
        routes = routing.tables.get(place, ())
        if source:
            routes = [each for each in routes if each.source is None or _has(each.source, source)]
        parts[key] = parting(routes, rule.family, rule.suppress)
    return parts[key]


def _has(prefix: Prefix, address: bytes) -> bool:
    return prefix.low <= int.from_bytes(address) <= prefix.high


def stays(routing: Routing, family: Family, address: bytes) -> bool:
    """Whether the very first rule says, to everybody, that an address is here."""
    rules = routing.ordered[family]
    if not rules or rules[0] != PolicyRule(family, rules[0].priority, TO_TABLE, rules[0].table):
        return False
    route = routing.lookup(family, rules[0].table, int.from_bytes(address))
    return route is not None and route.type in _HERE


def _in_table(
    routing: Routing,
    scene: Scene,
    packet: Packet,
    rule: PolicyRule,
    cube: Cube,
    position: int,
    found: dict[Way, list[Cube]],
    parts: list[Tabled],
) -> list[tuple[int, Cube]]:
    """Look the destination up; returns what the next rule is asked about."""
    address = known(destination_address(scene, packet))
    onward: list[tuple[int, Cube]] = []
    if address is not None:
        left = [cube]
        for candidate in routing.candidates(scene.family, rule.table, int.from_bytes(address)):
            taking, left = _sent_from(scene, packet, candidate, left)
            if candidate.type == RTN_THROW or candidate.prefix.length <= rule.suppress:
                onward += [(position + 1, each) for each in taking]
            elif taking:
                found.setdefault(_way(scene, rule, candidate), []).extend(taking)
        return [*onward, *((position + 1, each) for each in left)]
    cubes = [cube]
    for route, ranges in parts:
        rest: list[Cube] = []
        for each in cubes:
            inside, outside = each.split([(scene.saddr, ranges)])
            rest += outside
            if inside is not None and route is None:
                onward.append((position + 1, inside))
            elif inside is not None and route is not None:
                found.setdefault(_way(scene, rule, route), []).append(inside)
        cubes = rest
    if cubes:
        found.setdefault(Way(), []).extend(cubes)
    return onward


def _sent_from(
    scene: Scene, packet: Packet, route: Route, cubes: list[Cube]
) -> tuple[list[Cube], list[Cube]]:
    """Those that a route is for, by where they come from, and the others."""
    if route.source is None:
        return cubes, []
    size, cells = scene.family.length, source_address(scene, packet)
    low, high = route.source.low.to_bytes(size), route.source.high.to_bytes(size)
    taking: list[Cube] = []
    others: list[Cube] = []
    for cube in cubes:
        box = within(cells, low, high, cube)
        inside, outside = (None, [cube]) if box is None else cube.split(box)
        taking += [inside] if inside is not None else []
        others += outside
    return taking, others


def _parts(routes: Sequence[Route], family: Family, suppress: int) -> list[Tabled]:
    """The destinations for which a table refuses, by route, and (None) those for which it has no answer. All others
    are led somewhere; where to does not matter.
    """
    whole: Ranges = ((0, (1 << family.length * 8) - 1),)
    routes = [route for route in routes if route.type not in NOBODY]
    found: list[Tabled] = []
    none: list[tuple[int, int]] = []
    for place, route in enumerate(routes):
        silent = route.type == RTN_THROW or route.prefix.length <= suppress
        if not silent and route.type not in REFUSING:
            continue
        own: Ranges = ((route.prefix.low, route.prefix.high),)
        before = [
            (each.prefix.low, each.prefix.high)
            for each in routes[:place]
            if _within(each.prefix, route.prefix)
        ]
        left = subtract(own, normal(before))
        if not left:
            continue
        if silent:
            none += left
        else:
            found.append((route, left))
    covered = normal([(each.prefix.low, each.prefix.high) for each in routes])
    none += subtract(whole, covered)
    return [*found, (None, normal(none))] if none else list(found)


def _within(one: Prefix, other: Prefix) -> bool:
    return other.low <= one.low and one.high <= other.high


def _matching(scene: Scene, packet: Packet, rule: PolicyRule, cube: Cube) -> tuple[list[Cube], list[Cube]]:
    """The parts of the cube for which the rule matches, and for which it does not."""
    box: Box | None = []
    for test in _tests(scene, packet, rule, cube):
        box = None if box is None or test is None else [*box, *test]
    part, outside = (None, [cube]) if box is None else cube.split(box)
    inside = [part] if part is not None else []
    return (outside, inside) if rule.invert else (inside, outside)


def _tests(scene: Scene, packet: Packet, rule: PolicyRule, cube: Cube) -> list[Box | None]:
    tests: list[Box | None] = []
    size = scene.family.length
    for prefix, load in ((rule.source, source_address), (rule.destination, destination_address)):
        if prefix is not None:
            cells = load(scene, packet)
            tests.append(within(cells, prefix.low.to_bytes(size), prefix.high.to_bytes(size), cube))
    if rule.mark_mask:
        mask, mark = rule.mark_mask.to_bytes(4, "little"), rule.mark.to_bytes(4, "little")
        seen = tuple(masked(cell, m, 0) for cell, m in zip(packet.mark, mask, strict=True))
        tests.append(equal(seen, mark, cube))
    if rule.in_interface:
        tests.append(_arrives(scene, rule.in_interface))
    if rule.out_interface:
        tests.append(None)  # only for sockets that are bound to a device
    if rule.protocol:
        tests.append([] if rule.protocol == scene.protocol.number else None)
    for ports, load in ((rule.source_ports, source_port), (rule.destination_ports, destination_port)):
        if ports is not None:
            cells = load(scene, packet)
            tests.append(within(cells, ports[0].to_bytes(2), ports[1].to_bytes(2), cube))
    if rule.uids is not None:
        root = rule.uids[0] == 0  # what is forwarded is nobody's, and counts as root's
        tests.append(([] if root else None) if scene.uid is None else [(scene.uid, (rule.uids,))])
    if rule.other:
        words = f"policy rule {rule.priority} matches"
        tests.append([(flag(words, Kind.OPAQUE, f"{words} {rule}{scene.side}"), YES)])
    return tests


def _arrives(scene: Scene, name: str) -> Box | None:
    """What is sent from here arrives on loopback, for routing."""
    if scene.iif is None:
        return [] if name == scene.loopback[1] else None
    indexes = [each.index for each in scene.host.interfaces if each.name == name]
    return [(scene.iif, ((indexes[0], indexes[0]),))] if indexes else None


def _way(scene: Scene, rule: PolicyRule, route: Route) -> Way:
    if route.type in _HERE:
        return Way(here=True)
    own = () if rule.priority in _USUAL else (_said(rule),)
    step = _route_said(scene, route)
    if route.type in REFUSING:
        return Way(refused=True, steps=(*own, step))
    return Way(interface=route.interface, gateway=route.gateway, steps=(*own, step))


def _nowhere(packet: Packet) -> Way:
    return Way(refused=True, missing=True, steps=(PathStep("route", "main", "none", 0, "no route"),))


def _route_said(scene: Scene, route: Route) -> PathStep:
    """`default via 192.168.1.200 dev eth0`, as ip(8) shows it."""
    names = {interface.index: interface.name for interface in scene.host.interfaces}
    words = [REFUSING[route.type]] if route.type in REFUSING else []
    words.append(_prefix_said(route.prefix, route.family))
    words += [f"from {_prefix_said(route.source, route.family)}"] if route.source else []
    words += [f"via {ipaddress.ip_address(route.gateway)}"] if len(route.gateway) in (4, 16) else []
    words += [f"dev {names.get(route.interface, f'#{route.interface}')}"] if route.interface else []
    table = TABLES.get(route.table, str(route.table))
    return PathStep("route", table, _prefix_said(route.prefix, route.family), 0, " ".join(words))


def _said(rule: PolicyRule) -> PathStep:
    """`5: from all fwmark 0x64 lookup 100`, as ip(8) shows it; `handle` is its priority."""
    words = ["not"] if rule.invert else []
    words.append(f"from {_prefix_said(rule.source, rule.family) if rule.source else 'all'}")
    words += [f"to {_prefix_said(rule.destination, rule.family)}"] if rule.destination else []
    if rule.mark_mask:
        words.append(
            f"fwmark {rule.mark:#x}" + ("" if rule.mark_mask == 0xFFFFFFFF else f"/{rule.mark_mask:#x}")
        )
    words += [f"iif {rule.in_interface}"] if rule.in_interface else []
    words += [f"ipproto {rule.protocol}"] if rule.protocol else []
    for word, pair in (
        ("sport", rule.source_ports),
        ("dport", rule.destination_ports),
        ("uidrange", rule.uids),
    ):
        if pair is not None:
            words.append(
                f"{word} {pair[0]}" + (f"-{pair[1]}" if pair[1] != pair[0] or word == "uidrange" else "")
            )
    table = TABLES.get(rule.table, str(rule.table))
    words.append(_ACTIONS.get(rule.action, f"lookup {table}"))
    return PathStep("route", "rule", str(rule.priority), rule.priority, " ".join(words))


def _prefix_said(prefix: Prefix, family: Family) -> str:
    if prefix.length == 0:
        return "default"
    address = ipaddress.ip_address(prefix.low.to_bytes(family.length))
    return str(address) if prefix.length == family.length * 8 else f"{address}/{prefix.length}"
