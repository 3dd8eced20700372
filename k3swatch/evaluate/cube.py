"""What is still possible on one path: unknown things (`Var`) and what each may still be (`Cube`).

A match that could go either way splits a cube in the part where it holds and the part where it does not. Nothing is
guessed and nothing is lost: the cubes of all outcomes together are the whole again. That is what makes "from
10.42.0.0/24 it goes there, from everywhere else it is delivered" come out exactly, and three values fall out of it:
yes (nothing outside), no (nothing inside), maybe (both).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from k3swatch.evaluate.ranges import Ranges, intersect, normal, subtract, union


class Kind(Enum):
    """What an unknown is: a property of the connection, of the moment, of chance, or beyond our reading."""

    FIELD = "field"  # differs between connections: source, interface, mark, uid
    ENVIRONMENT = (
        "environment"  # understood, but depends on more than the packet: a rate limit, an address list
    )
    CHANCE = "chance"  # numgen, statistic, hash
    OPAQUE = "opaque"  # not understood


@dataclass(frozen=True, slots=True)
class Var:
    """One unknown. `name` is its identity; `base` all it may be; `words` what people call it."""

    name: str
    base: Ranges
    kind: Kind = field(compare=False)
    words: str = field(compare=False)

    def __hash__(self) -> int:
        """Of the name alone, whose hash is remembered."""
        return hash(self.name)


def flag(words: str, kind: Kind, identity: str | None = None) -> Var:
    """A yes/no unknown. The same test asked twice gets the same answer: the same is what has the same `identity`,
    which is the wording where that says everything.
    """
    return Var(f"?{identity or words}", ((0, 1),), kind, words)


YES: Ranges = ((1, 1),)
NO: Ranges = ((0, 0),)

MOST_RANGES = 512  # in one variable of one cube

Box = list[tuple[Var, Ranges]]  # a conjunction: every variable in its ranges


@dataclass(frozen=True, slots=True)
class Cube:
    """A conjunction of restrictions, sorted by name; variables not named may be anything of their base."""

    items: tuple[tuple[Var, Ranges], ...] = ()

    def get(self, var: Var) -> Ranges:
        """What `var` may still be."""
        for known, ranges in self.items:
            if known == var:
                return ranges
        return var.base

    def restrict(self, var: Var, ranges: Ranges) -> Cube | None:
        """This cube with `var` inside `ranges` too; None when nothing is left."""
        now = self.get(var)
        left = intersect(now, ranges)
        if not left:
            return None
        if left == now:
            return self
        return self.replace(var, left)

    def within(self, other: Cube) -> Cube | None:
        """What both have in common; None when nothing."""
        common: Cube | None = self
        for var, ranges in other.items:
            common = common.restrict(var, ranges) if common is not None else None
        return common

    def replace(self, var: Var, ranges: Ranges) -> Cube:
        """This cube with `var` in exactly `ranges` (dropped when that is all of its base)."""
        items = [(known, value) for known, value in self.items if known != var]
        if ranges != var.base:
            items.append((var, ranges))
            items.sort(key=lambda item: item[0].name)
        return Cube(tuple(items))

    def split(self, box: Box) -> tuple[Cube | None, list[Cube]]:
        """The part inside `box` (None when empty) and the disjoint parts outside."""
        inside: Cube | None = self
        outside: list[Cube] = []
        for var, ranges in box:
            assert inside is not None
            rest = subtract(inside.get(var), ranges)
            if len(rest) > MOST_RANGES:
                rest = inside.get(var)  # too scattered to follow: keep too much rather than too little
            if rest:
                outside.append(inside.replace(var, rest))
            inside = inside.restrict(var, ranges)
            if inside is None:
                break
        return inside, outside


EVERYTHING = Cube()
MANY, MOST_PAIRED = 24, 96  # cubes


def exceeds(cubes: Iterable[Cube], others: Iterable[Cube]) -> bool:
    """Whether anything in `cubes` is in none of `others`; too many pieces count as yes."""
    left = list(cubes)
    for other in others:
        left = [rest for cube in left for rest in cube.split(list(other.items))[1]]
        if len(left) > MOST_RANGES:
            return True
    return bool(left)


def simplify(cubes: Iterable[Cube]) -> tuple[Cube, ...]:
    """Fewer cubes for the same whole: two that differ in one variable become one. Of very many only those that are
    alike in all else are looked at: every pair would be too long.
    """
    todo = list(dict.fromkeys(cubes))
    if len(todo) > MANY:
        todo = _alike(todo)
    merged = len(todo) <= MOST_PAIRED
    while merged and len(todo) > 1:
        merged = False
        for left in range(len(todo)):
            for right in range(left + 1, len(todo)):
                joined = _join(todo[left], todo[right])
                if joined is not None:
                    todo[left] = joined
                    del todo[right]
                    merged = True
                    break
            if merged:
                break
    return tuple(todo)


def _alike(cubes: list[Cube]) -> list[Cube]:
    """Those that differ in one variable as one, variable by variable, as long as that helps."""
    before = len(cubes) + 1
    while len(cubes) < before:
        before = len(cubes)
        for var in sorted({var for cube in cubes for var, _ in cube.items}, key=lambda var: var.name):
            groups: dict[Cube, list[Cube]] = {}
            for cube in cubes:
                groups.setdefault(cube.replace(var, var.base), []).append(cube)
            cubes = [
                group[0] if len(group) == 1 else rest.replace(var, _united(cube.get(var) for cube in group))
                for rest, group in groups.items()
            ]
    return cubes


def _united(ranges: Iterable[Ranges]) -> Ranges:
    return normal([pair for each in ranges for pair in each])


def _join(one: Cube, other: Cube) -> Cube | None:
    """The union of two cubes when it is a cube, else None."""
    ours, others = dict(one.items), dict(other.items)
    differing = [var for var, ranges in one.items if others.get(var) != ranges]
    differing += [var for var, _ in other.items if var not in ours]
    if not differing:
        return one
    if len(differing) == 1:
        var = differing[0]
        return one.replace(var, union(ours.get(var, var.base), others.get(var, var.base)))
    pairs = [(ours.get(var, var.base), others.get(var, var.base)) for var in differing]
    if all(intersect(mine, its) == its for mine, its in pairs):
        return one  # the other lies within
    if all(intersect(mine, its) == mine for mine, its in pairs):
        return other
    return None
