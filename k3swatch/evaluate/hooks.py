"""Takes packets through one hook, in kernel order, and notes how each walk through its chains can end.

Order: lower priority first. All nat chains of a hook run inside one kernel hook at NF_IP_PRI_NAT_DST or _SRC, ordered
among themselves by their own priority (nf_nat_register_fn); the first that sets up a mapping wins, and what it maps
goes on, with its new destination. Equal priorities: the last registered runs first, which the kernel does not show;
the reverse of the dump order is the best guess. Nat chains are asked about first packets alone; what they decided is
done to the later ones at the same place (nf_nat_packet).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from k3swatch.evaluate import ipvs
from k3swatch.evaluate.crossroads import rerouted
from k3swatch.evaluate.mapping import redirected
from k3swatch.evaluate.outcome import Fate, Outcome, Target, Turned
from k3swatch.evaluate.packet import NAT_DST, NAT_SRC, TPROXIED, Packet, Scene, Turn, is_local, of_connection
from k3swatch.evaluate.states import States, add, merged
from k3swatch.evaluate.walk import Walk
from k3swatch.model.expr import Code
from k3swatch.model.ipvs import IPVS
from k3swatch.model.ruleset import FORWARD, OUTPUT, PREROUTING, BaseChain, Rule
from k3swatch.model.words import Mechanism, Protocol, Vantage

GIVEN = "TPROXY has given it to a socket before: the kernel does not forward it (ip_forward)"
RESET = (
    "translated when TPROXY has given it to a listener, which is given later packets, too, and resets them"
)


def ordered(chains: Sequence[BaseChain], hook: int, backwards: bool = False) -> list[BaseChain]:
    """Base chains in the order the kernel runs them, as far as it can be told."""

    def key(chain: BaseChain) -> tuple[int, bool, int, int]:
        is_nat = chain.type == "nat"
        order = chain.order if backwards else -chain.order
        return (_place(chain, hook), is_nat != backwards, chain.priority, order)

    return sorted(chains, key=key)


def _chains(walk: Walk, scene: Scene, number: int) -> list[BaseChain]:
    """Those of one hook, asked for once: every address of every vantage passes it."""
    key = (number, scene.family, walk.backwards)
    if key not in walk.hooks:
        found = walk.base_chains(number, scene.family.nfproto)
        found = [*found, *ipvs.hooked(scene.host, number)]
        walk.hooks[key] = ordered(found, number, walk.backwards)
    return walk.hooks[key]


def _place(chain: BaseChain, hook: int) -> int:
    """The priority its hook is registered with."""
    if chain.type != "nat":
        return chain.priority
    return NAT_DST if hook in (PREROUTING, OUTPUT) else NAT_SRC


def hook(
    walk: Walk, scene: Scene, number: int, states: States, dport: int, nat: bool = True, late: bool = False
) -> States:
    """The packets that leave one hook. `nat`: its nat chains are asked; `late`: conntrack has seen the packets in an
    earlier one.
    """
    if scene.turn is not Turn.FIRST:
        return _later(walk, scene, number, states, late)
    begin = len(walk.outcomes)
    chains = _chains(walk, scene, number)
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
            states, begin = _after_nat(walk, scene, number, states, begin, dport)
        if chain.type == IPVS:
            before_it, states = states, ipvs.balance(walk, scene, states)
            _tie(walk, chains, chain, number, states != before_it)
            begin = len(walk.outcomes)
            continue
        aside = {packet: cubes for packet, cubes in states.items() if is_nat and _no_nat(packet, number)}
        asked = {packet: cubes for packet, cubes in states.items() if packet not in aside}
        states = {}
        if asked:
            start = len(walk.outcomes)
            states = run_at(walk, scene, chain, asked, late)
            if is_nat:
                _if_tracked(walk, scene, start)
            _tie(walk, chains, chain, number, _changes(asked, states, walk.outcomes[start:]))
            states = dict(states)
        for packet, cubes in _given(walk, scene, chain, aside, late).items():
            add(states, packet, cubes)
    return _after_nat(walk, scene, number, states, begin, dport)[0]


def _later(walk: Walk, scene: Scene, number: int, states: States, late: bool) -> States:
    """The same for packets of a connection that exists: translated where nat chains would have been asked."""
    place = NAT_DST if number in (PREROUTING, OUTPUT) else NAT_SRC
    chains = [chain for chain in _chains(walk, scene, number) if chain.type not in ("nat", IPVS)]
    translated = number == FORWARD  # which NAT has no part in
    for chain in chains:
        if not states:
            return states
        if chain.priority > place and not translated:
            states, translated = _translated(walk, scene, number, states), True
        gone = {packet: cubes for packet, cubes in states.items() if packet.offloaded}
        start, before = len(walk.outcomes), {each: states[each] for each in states if each not in gone}
        states = run_at(walk, scene, chain, before, late)
        _tie(walk, chains, chain, number, _changes(before, states, walk.outcomes[start:]))
        for packet, cubes in gone.items():
            add(states, packet, cubes)
    return states if translated else _translated(walk, scene, number, states)


def _translated(walk: Walk, scene: Scene, number: int, states: States) -> States:
    """As NAT sends later packets on, which it has set up with the first."""
    if not any(packet.dialled or packet.snatted for packet in states):
        return states
    result: States = {}
    for packet, cubes in states.items():
        before = number in (PREROUTING, OUTPUT)
        if (packet.reached is not None or packet.snatted) and not (packet.tracked and of_connection(packet)):
            why = f"a packet{scene.turn.value} is not tracked, so that NAT leaves it as it is"
            for cube in cubes if packet.connected or not packet.tracked else ():  # else it was said before
                walk.note(Fate.UNKNOWN, packet, cube, packet.untracked, why=why)
        elif packet.reached is not None and scene.from_client and before:
            packet = replace(packet, daddr=packet.reached[0], dport=packet.reached[1])
        elif packet.dialled is not None and not scene.from_client and not before:
            packet = replace(packet, daddr=packet.dialled[0], dport=packet.dialled[1])
        if packet.snatted and scene.from_client and not before:
            packet = packet.overwritten({(base, offset): byte for base, offset, byte in packet.renamed})
        add(result, packet, cubes)
    return merged(result)


def run_at(walk: Walk, scene: Scene, chain: BaseChain, states: States, late: bool) -> States:
    """The packets that leave a base chain in the hook it hangs in."""
    priority = max(chain.priority, 0) if late else chain.priority
    phased, start = walk.phased, len(walk.outcomes)
    after = run(walk, scene.but(hook=chain.hook, priority=priority), chain, states)
    if chain.type == "nat":  # it is not asked about later packets, so these come without what it writes
        came = [*after, *(end.packet for end in walk.outcomes[start:] if end.packet is not None)]
        walk.phased = phased or not {_written(each) for each in came} <= {_written(each) for each in states}
    return after


def _written(packet: Packet) -> object:
    """What a rule can write to a packet; a connection's mark stays for later ones."""
    return (packet.daddr, packet.dport, packet.mark, packet.patch)


def _no_nat(packet: Packet, number: int) -> bool:
    """Whether no nat chain is asked: there is no connection, or what is asked for is set up already."""
    gone = packet.turned is not None and number in (PREROUTING, OUTPUT)
    return not packet.tracked or packet.sourced or gone


def _after_nat(
    walk: Walk, scene: Scene, number: int, states: States, begin: int, dport: int
) -> tuple[States, int]:
    """The packets that go on when the nat chains of a hook are done: those nobody mapped, and those that outcomes
    from `begin` on mapped to one place, with their new destination.
    """
    states = {packet: cubes for packet, cubes in states.items() if packet.shadow in (None, TPROXIED)}
    for outcome in walk.outcomes[begin:]:
        target, packet = outcome.target, outcome.packet
        if outcome.fate is not Fate.MAPPED or outcome.shadow is not None or target is None or packet is None:
            continue
        if target.low != target.high or target.port_low != target.port_high or packet.turned is not None:
            continue  # to any of many: how the rest of the way is depends on which
        if outcome.mechanism is Mechanism.TPROXY:
            continue  # to a socket here, as it is: it is among the states
        packet = packet.mapped(target.low, target.port_low)
        if _own(scene, target, dport):
            add(states, packet, (outcome.cube,))
            continue
        packet = replace(packet, turned=Turned(outcome.path, outcome.mechanism, target))
        if packet.given and not is_local(scene.host, target.low):
            walk.note(Fate.DROPPED, packet, outcome.cube, (), why=GIVEN)
            continue
        if outcome.mechanism is Mechanism.REDIRECT:
            for address, cube in redirected(scene, packet.daddr, outcome.cube):
                add(states, replace(packet, daddr=address), (cube,))
        elif number == OUTPUT:
            add(states, packet, rerouted(walk, scene, packet, (outcome.cube,)))
        else:
            add(states, packet, (outcome.cube,))
    return merged({packet: cubes for packet, cubes in states.items() if cubes}), len(walk.outcomes)


def _given(walk: Walk, scene: Scene, chain: BaseChain, states: States, late: bool) -> States:
    """Packets that a nat chain does not change any more; but what TPROXY has given to a socket is mapped all the same,
    and ends: dropped when it would have to leave the host then, else, for TCP, reset.
    """
    left: States = {}
    for packet, cubes in states.items():
        turned = packet.turned
        given = turned is not None and turned.mechanism is Mechanism.TPROXY and packet.tracked
        if not given or packet.settled or chain.hook != PREROUTING:
            add(left, packet, cubes)
            continue
        start = len(walk.outcomes)
        after = run_at(walk, scene, chain, {replace(packet, turned=None): cubes}, late)
        _if_tracked(walk, scene, start)
        ends = walk.outcomes[start:]
        del walk.outcomes[start:]
        for end in ends:
            if end.fate is not Fate.MAPPED:
                walk.note(end.fate, packet, end.cube, end.path, why=end.why)
            elif end.target is not None and is_local(scene.host, end.target.low):
                there = (end.target.low, end.target.port_low) == (packet.daddr, packet.dport)
                if there or scene.protocol is not Protocol.TCP:
                    add(left, replace(packet, settled=True), (end.cube,))  # no other chain is asked
                else:
                    _lost(walk, Fate.REJECTED, packet, end, RESET)
            else:
                _lost(walk, Fate.DROPPED, packet, end, GIVEN)
        for other, some in after.items():
            if other.shadow is None:
                add(left, replace(other, turned=turned), some)
    return merged(left)


def _lost(walk: Walk, fate: Fate, packet: Packet, end: Outcome, why: str) -> None:
    """Note a packet that a socket has been given and NAT then sends on: lost where conntrack has it going."""
    walk.note(fate, packet, end.cube, end.path, why=why)
    walk.outcomes[-1] = replace(walk.outcomes[-1], mechanism=end.mechanism, target=end.target)


def _own(scene: Scene, target: Target, dport: int) -> bool:
    """Whether it is at the protected port again. From outside one at loopback may yet be refused (see `arrival`)."""
    if scene.vantage is Vantage.EXTERNAL and target.low[:1] == b"\x7f" and len(target.low) == 4:
        return False
    return (
        target.low == target.high
        and target.port_low == target.port_high == dport
        and is_local(scene.host, target.low)
    )


def _tie(walk: Walk, chains: Sequence[BaseChain], chain: BaseChain, number: int, changes: bool) -> None:
    """Note when a chain that others are tied with has done what they could have seen, or undone."""
    if not changes:
        return
    is_nat = chain.type == "nat"
    for other in chains:
        mixed = is_nat != (other.type == "nat")
        own = mixed or not is_nat or other.priority == chain.priority
        if other is not chain and own and _place(other, number) == _place(chain, number):
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


def run(walk: Walk, scene: Scene, chain: BaseChain, states: States) -> States:
    """The packets that leave a base chain: accepted ones, and the rest when its policy accepts."""
    result = walk.chain(scene, chain.ref, states)
    states = dict(result.accepted)
    for packet, cubes in result.through.items():
        if chain.policy == Code.DROP:
            rule = Rule(chain.ref, 0, b"")
            for cube in cubes:
                walk.note(Fate.DROPPED, packet, cube, (rule,))
        else:
            add(states, packet, cubes)
    return merged(states)
