"""Sets, maps and verdict maps: the kernel is asked when the key is known, the elements are read when it is not.

A set that rules or timeouts change without a commit (`flags dynamic, timeout`) is not read for unknown keys: its
answer of now would not hold for the next connection. A key that is not in it may be by then: the packet itself may
add it.
"""

from __future__ import annotations

from k3swatch.errors import DecodeError, Interrupted, SourceError
from k3swatch.evaluate.cells import Cells, blank, describe, known, undecided, within
from k3swatch.evaluate.cube import Box, Cube, Kind
from k3swatch.evaluate.machine import Context, Path, decided, ended, maybe, meter, split
from k3swatch.evaluate.outcome import Fate
from k3swatch.model.expr import Lookup, Objref
from k3swatch.model.ruleset import SET_EVAL, SET_TIMEOUT, Element, Found, SetInfo

MOST_ELEMENTS = 256  # for unknown keys; a larger set is named instead of listed


def lookup(context: Context, expr: Lookup, path: Path) -> list[Path]:
    """nft_lookup_eval: breaks when a set has no such element (or has, inverted)."""
    inverted = bool(expr.flags & 1)
    try:
        info = context.ruleset.set_info(context.family, context.table, expr.set)
        cells = path.read(expr.sreg, info.key_length)
        key = known(cells)
        changing = bool(info.flags & (SET_EVAL | SET_TIMEOUT))
        found = context.ruleset.lookup(info, key) if key is not None else None
        if key is not None and (found is not None or not changing):
            return _hit(expr, path, found) if (found is not None) != inverted else [ended(path)]
        if not changing:
            elements = context.ruleset.elements(info, MOST_ELEMENTS)
            if elements is not None:
                return _listed(expr, path, info, cells, elements, inverted)
    except Interrupted:
        raise
    except (SourceError, DecodeError) as error:
        return _unreadable(context, expr, path, f"set {expr.set} cannot be read: {error}")
    if expr.dreg is not None:
        return _unreadable(context, expr, path, f"map {expr.set} has no fixed answer for {describe(cells)}")
    name = f"{context.family} {context.table} @{expr.set}"
    if changing:  # by a rule before this one, even
        name += f" {context.rule_id}"
    return split(path, undecided(cells, name, f"@{expr.set}"), not inverted)


def _unreadable(context: Context, expr: Lookup, path: Path, why: str) -> list[Path]:
    if expr.dreg == 0:  # any verdict may come out
        context.emit(Fate.UNKNOWN, path.packet, path.cube, why=why)
        return [ended(path)]
    if expr.dreg is not None:
        path.write(expr.dreg, blank(f"map @{expr.set}", Kind.OPAQUE, 16))
    return maybe(path, why, Kind.OPAQUE, identity=f"{why} {context.rule_id}")


def _hit(expr: Lookup, path: Path, found: Found | None) -> list[Path]:
    if expr.dreg is None or found is None:
        return [path]
    if expr.dreg == 0 and found.verdict is not None:
        return [decided(path, found.verdict)]
    if found.data is not None:
        path.write(expr.dreg, found.data)
    return [path]


def _listed(
    expr: Lookup, path: Path, info: SetInfo, cells: Cells, elements: object, inverted: bool
) -> list[Path]:
    """Element by element: where the key is in one, and at last where it is in none."""
    assert isinstance(elements, tuple | list)
    remaining, ways = [path.cube], []
    catchall: Element | None = None
    for element in elements:
        if element.catchall:
            catchall = element
            continue
        rest: list[Cube] = []
        for cube in remaining:
            box = element_box(info, cells, element, cube)
            if box is None:
                rest.append(cube)
                continue
            inside, outside = cube.split(box)
            rest.extend(outside)
            if inside is not None:
                way = path.fork(inside)
                ways.extend(
                    [ended(way)] if inverted else _hit(expr, way, Found(element.data, element.verdict))
                )
        remaining = rest
    for cube in remaining:
        way = path.fork(cube)
        if catchall is not None and not inverted:
            ways.extend(_hit(expr, way, Found(catchall.data, catchall.verdict)))
        else:
            ways.append(way if inverted else ended(way))
    return ways


def element_box(info: SetInfo, cells: Cells, element: Element, cube: Cube) -> Box | None:
    """What must hold for the key to be within one element; None when it cannot be."""
    box: Box = []
    start = 0
    for length in info.fields or (info.key_length,):
        low, high = element.low[start : start + length], element.high[start : start + length]
        part = within(cells[start : start + length], low, high, cube)
        if part is None:
            return None
        box.extend(part)
        start += -(-length // 4) * 4
    return box


def objref(context: Context, expr: Objref, path: Path) -> list[Path]:
    """nft_objref_eval: counters and helpers go on; quotas and limits may break."""
    quota, limit, connlimit = 2, 4, 5
    if expr.type in (quota, limit, connlimit):
        return meter(context, path, f"object {expr.name or expr.set or '?'} lets it pass")
    if expr.set is not None and expr.sreg is not None:
        return lookup(context, Lookup(expr.set, expr.sreg), path)
    return [path]
