"""Takes a packet through the hooks in kernel order, and notes how each walk through them can end.

Order: lower priority first. All nat chains of a hook run inside one kernel hook at NF_IP_PRI_NAT_DST (-100), ordered
among themselves by their own priority (nf_nat_register_fn); the first that sets up a mapping wins. Equal priorities:
the last registered runs first, which the kernel does not show; the reverse of the dump order is the best guess.
A packet of this host comes by prerouting too, through the loopback interface, but NAT has been decided by then.
What is still on its way to the port after all that passes the input hook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from k3swatch.evaluate.cube import EVERYTHING, Kind, Var
from k3swatch.evaluate.outcome import Fate, Outcome
from k3swatch.evaluate.packet import Scene, is_local
from k3swatch.evaluate.walk import Result, States, Walk, add, merged
from k3swatch.model.expr import Code
from k3swatch.model.ruleset import INPUT, OUTPUT, PREROUTING, BaseChain, Rule
from k3swatch.model.words import Vantage

NAT_DST = -100  # NF_IP_PRI_NAT_DST
STATELESS = (-1, 0)  # the shadow of what is not NAT (tproxy, overwritten headers): later chains still run


def outcomes(walk: Walk, scene: Scene, daddr: bytes, dport: int) -> list[Outcome]:
    """Every way a connection to this address and port can end; what no outcome covers is delivered.

    Raises Interrupted when the ruleset changed meanwhile, SourceError when the base chains cannot be read.
    """
    walk.outcomes = []
    states: States = {scene.first_packet(daddr, dport): (EVERYTHING,)}
    external = scene.vantage is Vantage.EXTERNAL
    if not external:
        states = _arriving(walk, scene, _hook(walk, scene, OUTPUT, states, nat=True), dport)
        index = scene.loopback[0]
        scene = replace(scene, iif=Var("iif", ((index, index),), Kind.FIELD, "iif"))
    states = _hook(walk, scene, PREROUTING, states, nat=external)
    if external:
        states = _arriving(walk, scene, states, dport)
    _hook(walk, scene, INPUT, states, nat=False)
    return walk.outcomes


def _arriving(walk: Walk, scene: Scene, states: States, dport: int) -> States:
    """With what NAT has sent to the port itself: it still has the rest of the way before it, with any mark by now."""
    states = dict(states)
    for outcome in walk.outcomes:
        target = outcome.target
        if outcome.fate is not Fate.MAPPED or outcome.shadow is not None or target is None:
            continue
        if (
            target.low == target.high
            and target.port_low == target.port_high == dport
            and is_local(scene.host, target.low)
        ):
            add(states, scene.first_packet(target.low, dport), (outcome.cube,))
    return merged(states)


def ordered(chains: Sequence[BaseChain]) -> list[BaseChain]:
    """Base chains in the order the kernel runs them, as far as it can be told."""

    def key(chain: BaseChain) -> tuple[int, int, int, int]:
        is_nat = chain.type == "nat"
        return (NAT_DST if is_nat else chain.priority, is_nat, chain.priority, -chain.order)

    return sorted(chains, key=key)


def _hook(walk: Walk, scene: Scene, hook: int, states: States, nat: bool) -> States:
    chains = ordered(walk.ruleset.base_chains(hook, scene.family.nfproto))
    group, place, before = 0, 0, None
    for chain in chains:
        is_nat = chain.type == "nat"
        if is_nat and not nat:
            continue
        tie = (is_nat, chain.priority)
        group, place = (group, place + 1) if tie == before else (group + 1, 0)
        before = tie
        walk.group = (group, place)
        if not is_nat:
            states = {packet: cubes for packet, cubes in states.items() if packet.shadow in (None, STATELESS)}
        aside = {packet: cubes for packet, cubes in states.items() if is_nat and not packet.tracked}
        asked = {packet: cubes for packet, cubes in states.items() if packet not in aside}
        if asked:
            priority = chain.priority if hook != INPUT else max(chain.priority, 0)  # conntrack was before it
            result = walk.chain(replace(scene, hook=hook, priority=priority), chain.ref, asked)
            states = _policy(walk, chain, result)
            for packet, cubes in aside.items():
                add(states, packet, cubes)
    return {packet: cubes for packet, cubes in states.items() if packet.shadow in (None, STATELESS)}


def _policy(walk: Walk, chain: BaseChain, result: Result) -> States:
    """The packets that leave a base chain: accepted ones, and the rest when its policy accepts."""
    states = dict(result.accepted)
    for packet, cubes in result.through.items():
        if chain.policy == Code.DROP:
            rule = Rule(chain.ref, 0, b"")
            for cube in cubes:
                walk.outcomes.append(
                    Outcome(Fate.DROPPED, cube, (rule,), shadow=packet.shadow, group=walk.group)
                )
        else:
            add(states, packet, cubes)
    return merged(states)
