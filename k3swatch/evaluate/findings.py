"""Outcomes of walks -> findings: what is a diversion, what is a block, what cannot be told.

Three rules of judgement live here and nowhere else:

* A mapping to this host's protected port is delivered, wherever it came from; any other is diverted.
* A drop that meets only some is a restriction: told, but no alarm. Refusing some is what firewalls are for.
* A finding that rests on something not understood is unknown, with the reason; never delivered, never certain.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from k3swatch.evaluate.cube import EVERYTHING, Cube, Kind, Var, simplify
from k3swatch.evaluate.outcome import Fate, Outcome, Target
from k3swatch.evaluate.packet import EPHEMERAL, Scene, Turn, is_local
from k3swatch.evaluate.ranges import normal, subtract
from k3swatch.evaluate.steps import anchor, destination, step
from k3swatch.evaluate.words import conditions
from k3swatch.model.finding import Finding, PathStep
from k3swatch.model.port import ProtectedPort
from k3swatch.model.ruleset import GUARD_FAMILY, GUARD_TABLE, Rule, Ruleset
from k3swatch.model.words import Family, Mechanism, State, Vantage

MOST_COMBINED = 64
MOST_RESTRICTIONS = 16  # a block list of thousands of rules is not thousands of findings


@dataclass(frozen=True, slots=True)
class Judged:
    """An outcome with the state it stands for; `why` says what makes it uncertain."""

    outcome: Outcome
    state: State
    certain: bool
    why: str
    shadowed: bool


def findings(
    ruleset: Ruleset, scene: Scene, port: ProtectedPort, address: str, outcomes: Sequence[Outcome]
) -> list[Finding]:
    """The findings of one (port, vantage, address), one a deciding rule."""
    judged = [_judge(outcome, scene, port) for outcome in outcomes]
    judged = _untie(judged)
    result: list[Finding] = []
    restrictions = 0
    everybody = {shadowed: _everybody(judged, shadowed, scene, address) for shadowed in (False, True)}
    guards = {one.outcome.group for one in judged if _guards(one)}
    for group in _by_rule(judged):
        open_ones = [one for one in group if not one.shadowed] or group
        first = open_ones[0]
        if first.state is State.DELIVERED:
            continue
        drops = first.outcome.fate in (Fate.DROPPED, Fate.REJECTED)
        partial = drops and not everybody[first.shadowed] and not _taken(first.outcome)
        if partial and restrictions >= MOST_RESTRICTIONS:
            continue
        restrictions += partial
        cubes = simplify(one.outcome.cube for one in open_ones)
        state = State.BLOCKED if partial else first.state
        first = replace(first, state=state, why=open_ones[-1].why)
        finding = _finding(ruleset, scene, address, first, cubes)
        neutral = finding.shadowed and all(one.outcome.shadow in guards for one in group)
        result.append(replace(finding, restriction=partial, neutralised=neutral))
    return result


def _judge(outcome: Outcome, scene: Scene, port: ProtectedPort) -> Judged:
    opaque = sorted({var.words for var, _ in outcome.cube.items if var.kind is Kind.OPAQUE})
    shadowed = outcome.shadow is not None
    if outcome.fate is Fate.MAPPED and outcome.target is not None:
        state = State.DELIVERED if _delivers(outcome.target, scene, port) else State.DIVERTED
    elif outcome.fate is Fate.UNKNOWN:
        state = State.UNKNOWN
    elif outcome.fate is Fate.ROUTED:
        state = State.DIVERTED
    else:
        state = State.BLOCKED
    if state is State.DELIVERED and outcome.target and _martian(outcome.target, scene):
        why = "sent to loopback from outside: delivered only where net.ipv4.conf.*.route_localnet is set"
        return Judged(outcome, State.UNKNOWN, False, why, shadowed)
    if opaque and state is not State.DELIVERED:
        return Judged(outcome, State.UNKNOWN, False, f"depends on: {'; '.join(opaque[:3])}", shadowed)
    return Judged(outcome, state, state is not State.UNKNOWN, outcome.why or _lost(outcome, scene), shadowed)


_LOST = {
    Turn.FIRST: "refused on the way there",
    Turn.ANSWER: "answers are refused",
    Turn.NEXT: "refused as soon as the connection is there",
    Turn.LATER: "answers are refused as soon as the connection is there",
}


def _taken(outcome: Outcome) -> bool:
    """Whether it is about connections that a rule has sent elsewhere before."""
    return outcome.packet is not None and outcome.packet.turned is not None


def _lost(outcome: Outcome, scene: Scene) -> str:
    """What is lost, where it is not simply the first packet on its way to the port."""
    taken = _taken(outcome)
    if (outcome.turn is Turn.FIRST and not taken) or outcome.fate not in (Fate.DROPPED, Fate.REJECTED):
        return ""
    what = _LOST[outcome.turn]
    if taken and outcome.target is not None:
        return f"sent to {destination(outcome.target, scene.family)}, but {what}"
    return what


def _guards(judged: Judged) -> bool:
    """Whether `k3swatch guard` decides: its chain is the first that maps the packet, to where it was going."""
    outcome = judged.outcome
    if judged.shadowed or judged.state is not State.DELIVERED or not outcome.path:
        return False
    first = outcome.path[0]
    return isinstance(first, Rule) and (first.ref.family, first.ref.table) == (GUARD_FAMILY, GUARD_TABLE)


def _delivers(target: Target, scene: Scene, port: ProtectedPort) -> bool:
    """Whether a mapping ends at the protected port of this host."""
    return (
        target.low == target.high
        and target.port_low == target.port_high == port.port
        and is_local(scene.host, target.low)
    )


def _martian(target: Target, scene: Scene) -> bool:
    """Whether routing may drop the translated packet, for all that is known (see `arrival`)."""
    loopback = ipaddress.ip_address(target.low).is_loopback
    read = scene.host.sysctls.get("ipv4/conf/all/route_localnet") is not None and scene.family is Family.IP
    return loopback and scene.vantage is Vantage.EXTERNAL and not read


def _untie(judged: list[Judged]) -> list[Judged]:
    """Chains tied in priority that send the packet to different places: none of them is certain."""
    result = list(judged)
    for index, later in enumerate(judged):
        group, place = later.outcome.group
        shadow = later.outcome.shadow
        if (
            later.outcome.fate is not Fate.MAPPED
            or shadow is None
            or shadow[0] != group
            or shadow[1] == place
        ):
            continue
        for other_index, earlier in enumerate(judged):
            same = earlier.outcome.group == shadow and earlier.outcome.shadow is None
            firsts = [one.path[0] for one in (earlier.outcome, later.outcome) if one.path]
            rules = [first for first in firsts if isinstance(first, Rule)]
            # what is not told of a rule (a packet that is not tracked, say) is no tie
            if not same or len(rules) < 2 or earlier.outcome.target == later.outcome.target:
                continue
            if State.DIVERTED not in (earlier.state, later.state):
                continue
            why = _tie_words(rules)
            sure = earlier.state is State.DIVERTED and later.state is State.DIVERTED
            result[index] = _doubted(later, sure, why)
            result[other_index] = _doubted(earlier, sure, why)
    return result


def _doubted(judged: Judged, diverted_anyway: bool, why: str) -> Judged:
    if judged.state is State.DELIVERED:
        return judged
    state = judged.state if diverted_anyway else State.UNKNOWN
    return replace(judged, state=state, certain=False, why=why, shadowed=False)


def _tie_words(rules: Sequence[Rule]) -> str:
    names = [f"{rule.ref.family} {rule.ref.table} {rule.ref.chain}" for rule in rules]
    return f"{names[0]} and {names[1]} have the same priority: the kernel does not show which one runs first"


def _by_rule(judged: Iterable[Judged]) -> list[list[Judged]]:
    """Grouped by what decides and to what end."""
    groups: dict[object, list[Judged]] = {}
    for one in judged:
        outcome = one.outcome
        last = _identity(outcome.path[-1]) if outcome.path else None
        # one rule may drop the first packets of some and the answers of the rest: one finding
        why = "" if one.state is State.BLOCKED and not _taken(outcome) else one.why
        key = (last, outcome.fate, outcome.mechanism, outcome.target, one.state, one.certain, why)
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _identity(last: Rule | PathStep) -> object:
    return (last.ref, last.handle) if isinstance(last, Rule) else last


def _everybody(judged: Sequence[Judged], shadowed: bool, scene: Scene, address: str) -> bool:
    """Whether the drops together meet every packet that gets that far; what is not understood may hold.

    Everybody is who does nothing special: whose packets come with no mark, from an ephemeral port; and, of the
    processes of this host, those that do not choose a source address, which get the one they dial.
    """
    usual = {scene.mark: ((0, 0),), scene.sport: EPHEMERAL}
    if scene.vantage is Vantage.LOCAL:
        usual[scene.saddr] = ((int(ipaddress.ip_address(address)),) * 2,)
    by_one: dict[
        Var, list[tuple[int, int]]
    ] = {}  # block lists: thousands of rules about one thing, the source
    cubes: list[Cube] = []
    for one in judged:
        drops = one.outcome.fate in (Fate.DROPPED, Fate.REJECTED) and not _taken(one.outcome)
        if not drops or one.shadowed != shadowed:
            continue
        items = []
        for var, ranges in one.outcome.cube.items:
            if var in usual and subtract(usual[var], ranges):
                break
            if var not in usual and var.kind is not Kind.OPAQUE:
                items.append((var, ranges))
        else:
            if len(items) == 1:
                by_one.setdefault(items[0][0], []).extend(items[0][1])
            elif len(cubes) < MOST_COMBINED:
                cubes.append(Cube(tuple(items)))
    cubes.extend(EVERYTHING.replace(var, normal(pairs)) for var, pairs in by_one.items())
    return any(not cube.items for cube in simplify(cubes))


def _finding(ruleset: Ruleset, scene: Scene, address: str, first: Judged, cubes: Sequence[Cube]) -> Finding:
    outcome = first.outcome
    return Finding(
        state=first.state,
        mechanism=_mechanism(outcome),
        vantage=scene.vantage,
        family=scene.family,
        addresses=(address,),
        destination=destination(outcome.target, scene.family) if outcome.target else None,
        conditions=conditions(cubes, scene.host, scene.family),
        certain=first.certain,
        shadowed=first.shadowed,
        path=tuple(step(ruleset, rule) for rule in outcome.path),
        why=first.why or None,
        anchor=anchor(ruleset, outcome.taken or outcome.path),
        refusing=len(outcome.path) - len(outcome.taken) if outcome.taken else 0,
    )


def _mechanism(outcome: Outcome) -> Mechanism:
    """How connections are taken elsewhere, whatever becomes of them then; what routing refuses is routing's, too."""
    if outcome.fate in (Fate.MAPPED, Fate.ROUTED) or _taken(outcome) or outcome.mechanism is Mechanism.ROUTE:
        return outcome.mechanism
    return Mechanism.NONE
