"""Chains of equal priority whose order matters: the kernel does not show which one runs first.

The hooks are walked in the order that is the best guess. Where chains that are tied do more than set up mappings (which
`findings` sorts out by itself), they are walked the other way round as well; what holds only one way is not certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from k3swatch.evaluate.cube import Cube, exceeds
from k3swatch.evaluate.findings import findings
from k3swatch.evaluate.journey import outcomes
from k3swatch.evaluate.outcome import Fate, Outcome
from k3swatch.evaluate.packet import Scene
from k3swatch.evaluate.walk import Walk
from k3swatch.model.finding import Finding
from k3swatch.model.port import Address, ProtectedPort
from k3swatch.model.words import State


def told(walk: Walk, scene: Scene, port: ProtectedPort, address: Address) -> list[Finding]:
    """The findings of one address, whatever the order of chains that are tied.

    Raises Interrupted when the ruleset changed meanwhile, SourceError when the base chains cannot be read.
    """
    ends = outcomes(walk, scene, address.packed, port.port)
    tied = walk.tied
    guess = findings(walk.ruleset, scene, port, str(address), ends)
    if not tied:
        return guess
    others = outcomes(walk, scene, address.packed, port.port, backwards=True)
    if _alike(ends, others):
        return guess
    other = findings(walk.ruleset, scene, port, str(address), others)
    return _doubted(guess, other, f"{' and '.join(tied)} have the same priority")


def _alike(one: Sequence[Outcome], other: Sequence[Outcome]) -> bool:
    """Whether the same packets end in the same way."""
    ways, others = _ways(one), _ways(other)
    return ways.keys() == others.keys() and not any(
        exceeds(cubes, others[way]) or exceeds(others[way], cubes) for way, cubes in ways.items()
    )


def _ways(ends: Sequence[Outcome]) -> dict[object, list[Cube]]:
    ways: dict[object, list[Cube]] = {}
    for end in ends:
        if end.shadow is None:
            refused = end.fate in (Fate.DROPPED, Fate.REJECTED)
            way = "refused" if refused else (end.fate, end.mechanism, end.target, end.why)
            ways.setdefault(way, []).append(end.cube)
    return ways


def _doubted(guess: Sequence[Finding], other: Sequence[Finding], tie: str) -> list[Finding]:
    """All findings of both orders; what is not in both is uncertain, and unknown when it may not be at all."""
    ends = [any(_ends(finding) for finding in order) for order in (guess, other)]
    why = f"{tie}: the kernel does not show which one runs first"
    result: list[Finding] = []
    for finding in (*guess, *(each for each in other if each not in guess)):
        if finding.shadowed or (finding in guess and finding in other):
            result.append(finding)
        else:
            state = finding.state if all(ends) or finding.restriction else State.UNKNOWN
            result.append(replace(finding, state=state, certain=False, why=why))
    return result


def _ends(finding: Finding) -> bool:
    elsewhere = finding.state in (State.DIVERTED, State.BLOCKED)
    return elsewhere and finding.certain and not finding.shadowed and not finding.restriction
