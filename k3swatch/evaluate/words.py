"""Puts cubes in words: the conditions of a finding, as a tired person reads them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from k3swatch.evaluate.cube import NO, YES, Cube, Kind, Var
from k3swatch.evaluate.header import BY_ALIAS, TRANSLATED
from k3swatch.evaluate.ranges import Ranges, intersect, subtract
from k3swatch.model.port import Host
from k3swatch.model.words import Family

MOST_SHOWN = 4


def conditions(cubes: Sequence[Cube], host: Host, family: Family) -> tuple[str, ...]:
    """What must hold, one string a condition; several ways to get there are one string joined by "or"."""
    if any(not cube.items for cube in cubes):
        return ()
    ways = [[phrase(var, ranges, host, family) for var, ranges in cube.items] for cube in cubes]
    if len(ways) == 1:
        return tuple(ways[0])
    shown = [" and ".join(way) for way in ways[:MOST_SHOWN]]
    if len(ways) > MOST_SHOWN:
        shown.append(f"{len(ways) - MOST_SHOWN} more")
    return (" or ".join(shown),)


def phrase(var: Var, ranges: Ranges, host: Host, family: Family) -> str:
    """One restriction, put negatively where that is shorter."""
    if var.name == "iif":
        names = {interface.index: interface.name for interface in host.interfaces}
        return _either("on interface", ranges, var, lambda low, high: _interfaces(low, high, names))
    if var.words in ("through", BY_ALIAS):
        names = {interface.index: interface.name for interface in host.interfaces}
        return _either(var.words, ranges, var, lambda low, high: _interfaces(low, high, names))
    if var.name == "saddr":
        return _either("from", ranges, var, lambda low, high: _networks(low, high, family))
    if var.words == TRANSLATED:
        return _either(TRANSLATED, ranges, var, lambda low, high: _networks(low, high, family))
    if var.name == "sport":
        return _either("from port", ranges, var, _numbers)
    if var.name in ("uid", "gid"):
        return _either(var.name, ranges, var, _numbers)
    if var.kind is Kind.CHANCE:
        return _chance(var, ranges)
    if var.base == ((0, 1),) and ranges in (YES, NO):
        return var.words if ranges == YES else f"not {var.words}"
    return _either(
        var.words, ranges, var, lambda low, high: [hex(low) if low == high else f"{low:#x}-{high:#x}"]
    )


def _chance(var: Var, ranges: Ranges) -> str:
    total = sum(high - low + 1 for low, high in var.base)
    share = sum(high - low + 1 for low, high in ranges)
    if var.base == ((0, 1),) and var.name.startswith("statistic"):
        return var.words if ranges == YES else f"not {var.words}"
    return f"{share} of {total} connections, {var.words}"


def _either(word: str, ranges: Ranges, var: Var, name: object) -> str:
    assert callable(name)
    rest = _joined(subtract(var.base, ranges), var.base)
    ranges = _joined(ranges, var.base)
    negative = len(rest) < len(ranges) or (len(rest) == len(ranges) == 1 and _span(rest) < _span(ranges))
    chosen = rest if negative else ranges
    items = [text for low, high in chosen for text in name(low, high)]
    if len(items) > MOST_SHOWN:
        items = [*items[:MOST_SHOWN], f"{len(items) - MOST_SHOWN} more"]
    return f"{'not ' if negative else ''}{word} {' or '.join(items)}"


def _joined(ranges: Ranges, base: Ranges) -> Ranges:
    """Ranges without the gaps that mean nothing: what lies in between was never possible."""
    result: list[tuple[int, int]] = []
    for low, high in ranges:
        if result and not intersect(((result[-1][1] + 1, low - 1),), base):
            result[-1] = (result[-1][0], high)
        else:
            result.append((low, high))
    return tuple(result)


def _span(ranges: Ranges) -> int:
    return sum(high - low for low, high in ranges)


def _numbers(low: int, high: int) -> list[str]:
    return [str(low) if low == high else f"{low}-{high}"]


def _interfaces(low: int, high: int, names: dict[int, str]) -> list[str]:
    return [names.get(index, f"#{index}") for index in range(low, min(high, low + 64) + 1)]


def _networks(low: int, high: int, family: Family) -> list[str]:
    if family is Family.IP:
        return _named(
            list(ipaddress.summarize_address_range(ipaddress.IPv4Address(low), ipaddress.IPv4Address(high)))
        )
    return _named(
        list(ipaddress.summarize_address_range(ipaddress.IPv6Address(low), ipaddress.IPv6Address(high)))
    )


def _named(networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> list[str]:
    if len(networks) <= 2:
        return [str(net.network_address) if net.num_addresses == 1 else str(net) for net in networks]
    return [f"{networks[0].network_address}-{networks[-1].broadcast_address}"]
