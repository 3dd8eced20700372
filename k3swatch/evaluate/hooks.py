"""Takes a packet through the hooks in kernel order, and notes how each walk through them can end.

Order: lower priority first. All nat chains of a hook run inside one kernel hook at NF_IP_PRI_NAT_DST or _SRC, ordered
among themselves by their own priority (nf_nat_register_fn); the first that sets up a mapping wins, and what it sends
to the port itself goes on, with its new destination. Equal priorities: the last registered runs first, which the
kernel does not show; the reverse of the dump order is the best guess.

From outside: prerouting, input. From this host: output, postrouting, and then, through the loopback interface,
prerouting and input too; conntrack and NAT have been decided by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from k3swatch.evaluate.cube import EVERYTHING, Cube, Kind, Var
from k3swatch.evaluate.ingress import before_ip
from k3swatch.evaluate.outcome import Fate, Outcome, Target
from k3swatch.evaluate.packet import Packet, Scene, is_local
from k3swatch.evaluate.walk import States, Walk, add, merged
from k3swatch.model.expr import Code
from k3swatch.model.ruleset import INPUT, OUTPUT, POSTROUTING, PREROUTING, BaseChain, Rule
from k3swatch.model.words import Mechanism, Vantage

NAT_DST, NAT_SRC = -100, 100  # NF_IP_PRI_NAT_DST, _SRC
TPROXIED = (-1, 0)  # the shadow of tproxy, which is not NAT: later chains still run


def outcomes(walk: Walk, scene: Scene, daddr: bytes, dport: int, backwards: bool = False) -> list[Outcome]:
    """Every way a connection to this address and port can end; what no outcome covers is delivered.

    `backwards`: chains of equal priority the other way round. `walk.tied` says whether that could matter.
    Raises Interrupted when the ruleset changed meanwhile, SourceError when the base chains cannot be read.
    """
    walk.outcomes, walk.tied, walk.backwards = [], (), backwards
    states: States = {scene.first_packet(daddr, dport): (EVERYTHING,)}
    if scene.vantage is Vantage.EXTERNAL:
        states = before_ip(walk, scene, states, lambda *what: _run(walk, *what))
        states = _hook(walk, scene, PREROUTING, states, dport)
        states = _hook(walk, scene, INPUT, _staying(walk, scene, states), dport, late=True)
    else:
        states = _hook(walk, scene, OUTPUT, states, dport)
        states = _hook(walk, scene, POSTROUTING, _staying(walk, scene, states), dport, late=True)
        index = scene.loopback[0]
        scene = replace(scene, iif=Var("iif", ((index, index),), Kind.FIELD, "iif"))
        states = _hook(walk, scene, PREROUTING, states, dport, nat=False, late=True)
        states = _hook(walk, scene, INPUT, _staying(walk, scene, states), dport, nat=False, late=True)
    _overwritten(walk, states, daddr, dport)
    return walk.outcomes


def ordered(chains: Sequence[BaseChain], hook: int, backwards: bool = False) -> list[BaseChain]:
    """Base chains in the order the kernel runs them, as far as it can be told."""

    def key(chain: BaseChain) -> tuple[int, bool, int, int]:
        is_nat = chain.type == "nat"
        order = chain.order if backwards else -chain.order
        return (_place(chain, hook), is_nat != backwards, chain.priority, order)

    return sorted(chains, key=key)


def _place(chain: BaseChain, hook: int) -> int:
    """The priority its hook is registered with."""
    if chain.type != "nat":
        return chain.priority
    return NAT_DST if hook in (PREROUTING, OUTPUT) else NAT_SRC


def _hook(
    walk: Walk, scene: Scene, hook: int, states: States, dport: int, nat: bool = True, late: bool = False
) -> States:
    """One hook; `nat`: its nat chains are asked; `late`: conntrack has seen the packet in an earlier one."""
    begin = len(walk.outcomes)
    chains = ordered(walk.ruleset.base_chains(hook, scene.family.nfproto), hook, walk.backwards)
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
            states, begin = _after_nat(walk, scene, states, begin, dport)
        aside = {packet: cubes for packet, cubes in states.items() if is_nat and _no_nat(packet)}
        asked = {packet: cubes for packet, cubes in states.items() if packet not in aside}
        if asked:
            priority = max(chain.priority, 0) if late else chain.priority
            start = len(walk.outcomes)
            states = _run(walk, replace(scene, hook=hook, priority=priority), chain, asked)
            if is_nat:
                _if_tracked(walk, scene, start)
            _tie(walk, chains, chain, hook, _changes(asked, states, walk.outcomes[start:]))
            for packet, cubes in aside.items():
                add(states, packet, cubes)
    return _after_nat(walk, scene, states, begin, dport)[0]


def _no_nat(packet: Packet) -> bool:
    """Whether no nat chain is asked: there is no connection, or its source is set up already."""
    return not packet.tracked or packet.snatted


def _after_nat(walk: Walk, scene: Scene, states: States, begin: int, dport: int) -> tuple[States, int]:
    """The packets that go on when the nat chains of a hook are done: those nobody mapped, and those mapped to the
    port itself (by outcomes from `begin` on), with their new destination.
    """
    states = {packet: cubes for packet, cubes in states.items() if packet.shadow in (None, TPROXIED)}
    for outcome in walk.outcomes[begin:]:
        target, packet = outcome.target, outcome.packet
        if outcome.fate is not Fate.MAPPED or outcome.shadow is not None or target is None or packet is None:
            continue
        if outcome.mechanism is not Mechanism.TPROXY and _own(scene, target, dport):
            add(states, packet.mapped(target.low, dport), (outcome.cube,))
    return merged(states), len(walk.outcomes)


def _own(scene: Scene, target: Target, dport: int) -> bool:
    return (
        target.low == target.high
        and target.port_low == target.port_high == dport
        and is_local(scene.host, target.low)
    )


def _staying(walk: Walk, scene: Scene, states: States) -> States:
    """Without the packets whose destination was overwritten with somebody else's address: they leave here."""
    here: States = {}
    for packet, cubes in states.items():
        if packet.sent and not is_local(scene.host, packet.daddr):
            _sent(walk, packet, cubes)
        else:
            here[packet] = cubes
    return here


def _overwritten(walk: Walk, states: States, daddr: bytes, dport: int) -> None:
    """Note where a destination overwritten without a connection ends, if not where it was dialled.

    At the port itself under another name it arrives, but nobody translates the answers.
    """
    for packet, cubes in states.items():
        if not packet.sent:
            continue
        if packet.dport != dport:
            _sent(walk, packet, cubes)
        elif (packet.dialled or (packet.daddr, packet.dport)) != (daddr, dport):
            why = "the destination is overwritten without a connection: answers come from another address"
            for cube in cubes:
                walk.outcomes.append(Outcome(Fate.UNKNOWN, cube, packet.sent, why=why, shadow=packet.shadow))


def _sent(walk: Walk, packet: Packet, cubes: Sequence[Cube]) -> None:
    target = Target(packet.daddr, packet.daddr, packet.dport, packet.dport)
    for cube in cubes:
        walk.outcomes.append(
            Outcome(Fate.MAPPED, cube, packet.sent, Mechanism.DNAT, target, packet.shadow, packet=packet)
        )


def _tie(walk: Walk, chains: Sequence[BaseChain], chain: BaseChain, hook: int, changes: bool) -> None:
    """Note when a chain that others are tied with has done what they could have seen, or undone."""
    if not changes:
        return
    is_nat = chain.type == "nat"
    for other in chains:
        mixed = is_nat != (other.type == "nat")
        own = mixed or not is_nat or other.priority == chain.priority
        if other is not chain and own and _place(other, hook) == _place(chain, hook):
            names = [f"{each.ref.family} {each.ref.table} {each.ref.chain}" for each in (chain, other)]
            walk.tied = walk.tied or tuple(sorted(names))


def _changes(before: States, after: States, ends: Sequence[Outcome]) -> bool:
    """Whether a chain did anything but set up mappings: it refused packets, marked or overwrote them."""
    if any(end.fate is not Fate.MAPPED or end.mechanism is Mechanism.TPROXY for end in ends):
        return True
    return not {replace(packet, shadow=None) for packet in after} <= {
        replace(packet, shadow=None) for packet in before
    }


def _if_tracked(walk: Walk, scene: Scene, start: int) -> None:
    """A nat chain that refuses packets only runs where connections are tracked."""
    for index, end in enumerate(walk.outcomes[start:], start):
        if end.fate in (Fate.DROPPED, Fate.REJECTED) and not walk.tracking(scene.family):
            why = "refused by a nat chain, which is asked only where connections are tracked: no rule here needs that"
            walk.outcomes[index] = replace(end, fate=Fate.UNKNOWN, why=why)


def _run(walk: Walk, scene: Scene, chain: BaseChain, states: States) -> States:
    """The packets that leave a base chain: accepted ones, and the rest when its policy accepts."""
    result = walk.chain(scene, chain.ref, states)
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
