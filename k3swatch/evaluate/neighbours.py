"""Addresses that nobody can find: rules that refuse ARP or neighbour discovery, without which no connection begins.

A firewall that lets the port pass and forgets ICMPv6 is the usual one. It goes on working for whoever remembers the
address, or has just heard from this host, so it is never certain; and a minute later nothing arrives. Asked about are
the interfaces that have protected addresses: by one that answers for none of its addresses, to nobody, no gateway can
reach this host. That one address is kept quiet (a virtual one of LVS, say) is what people want, and is not told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from k3swatch.errors import DecodeError, Interrupted, SourceError
from k3swatch.evaluate.cube import EVERYTHING, Kind, Var
from k3swatch.evaluate.discovery import solicited_node
from k3swatch.evaluate.hooks import hook, run
from k3swatch.evaluate.ingress import arriving, leaving
from k3swatch.evaluate.outcome import Fate, Outcome
from k3swatch.evaluate.packet import NO_MARK, Discovery, Packet, Scene, Turn, scene
from k3swatch.evaluate.passage import received, sent_out
from k3swatch.evaluate.ranges import Ranges, normal, subtract
from k3swatch.evaluate.states import States
from k3swatch.evaluate.steps import step
from k3swatch.evaluate.walk import Deaf, Refusal, Walk
from k3swatch.model.finding import Finding
from k3swatch.model.port import Address, Host, Interface, LocalAddress, family_of
from k3swatch.model.ruleset import INPUT, OUTPUT
from k3swatch.model.words import Family, Mechanism, Protocol, State, Vantage

NFPROTO_ARP, ARP_IN, ARP_OUT = 3, 0, 1  # NF_ARP_*, uapi/linux/netfilter_arp.h
ETHERNET = 1  # ARPHRD_ETHER
MOST_ASKED = 16  # addresses of one interface
LINK_LOCAL: Ranges = ((0xFE80 << 112, (0xFEC0 << 112) - 1),)
_TOLD = ("vxlan", "geneve", "vrf")  # whose neighbours are written down, or that have none
_REFUSED = {
    (Family.IP, Turn.FIRST): "ARP requests",
    (Family.IP, Turn.ANSWER): "ARP replies",
    (Family.IP6, Turn.FIRST): "neighbour solicitations",
    (Family.IP6, Turn.ANSWER): "neighbour advertisements",
}
WHY = "{} are refused: who does not know the address from before cannot find it"


def hidden(
    walk: Walk, host: Host, judged: Sequence[tuple[Vantage, str]], found: Sequence[Finding]
) -> Iterator[Finding]:
    """The addresses judged from outside that are not found, by family and by what refuses. Left out is whom no
    connection gets to anyway, as `found`, and what refuses connections as well.

    Raises Interrupted when the ruleset changed meanwhile.
    """
    refused = {
        (address, _place(each), each.conditions)
        for each in found
        if each.vantage is Vantage.EXTERNAL and each.state is State.BLOCKED and not each.shadowed
        for address in each.addresses
    }
    for family in Family:
        if family not in walk.deaf:
            walk.deaf[family] = _deaf(walk, host, family)
        if not walk.deaf[family][1]:
            continue
        outside = {address for vantage, address in judged if vantage is Vantage.EXTERNAL}
        outside -= {address for each in found if _sure(each) for address in each.addresses}
        told = [entry for entry in _addresses(host, family) if str(entry.address) in outside]
        for finding in _findings(walk, host, family, told):
            ways = [(_place(finding), conditions) for conditions in ((), finding.conditions)]
            left = tuple(
                each for each in finding.addresses if not any((each, *way) in refused for way in ways)
            )
            if left:
                yield replace(finding, addresses=left)


def _place(finding: Finding) -> tuple[str, str, str, int]:
    rule = finding.rule
    return (rule.family, rule.table, rule.chain, rule.handle) if rule else ("", "", "", 0)


def _sure(finding: Finding) -> bool:
    """Whether it says of everybody outside that he does not get there."""
    everybody = finding.vantage is Vantage.EXTERNAL and not finding.conditions and not finding.restriction
    away = finding.state in (State.DIVERTED, State.BLOCKED)
    return everybody and away and finding.certain and not finding.shadowed


def _addresses(host: Host, family: Family) -> list[LocalAddress]:
    """Those that somebody may dial without knowing by which interface."""
    return [
        entry
        for entry in host.addresses
        if family_of(entry.address) is family and not entry.tentative and not entry.address.is_link_local
    ]


def _deaf(walk: Walk, host: Host, family: Family) -> Deaf:
    with_addresses = {entry.interface for entry in _addresses(host, family)}
    asked = {
        each.index: each.name
        for each in host.interfaces
        if each.index in with_addresses and _asks(host, each)
    }
    if not _meets(walk, family):
        return asked, {}
    return asked, {index: end for index in asked if (end := _refused(walk, host, family, index))}


def _asks(host: Host, interface: Interface) -> bool:
    """Whether who sends by it needs to know a hardware address, and finds it by asking."""
    ethernet = interface.type == ETHERNET and interface.arp and not interface.loopback
    return ethernet and interface.up and interface.kind not in _TOLD and interface.index not in host.enslaved


def _findings(walk: Walk, host: Host, family: Family, told: Sequence[LocalAddress]) -> Iterator[Finding]:
    """One for each rule. By an interface where nobody is answered nobody gets to any address of this host; it is an
    alarm where that is so on all that lead out of this host, whatever its own pods can do.
    """
    asked, deaf = walk.deaf[family]
    groups: dict[tuple[object, ...], tuple[Refusal, set[int]]] = {}
    for index, refusal in deaf.items():
        groups.setdefault((refusal.end.path, refusal.end.turn, refusal.whom), (refusal, set()))[1].add(index)
    out = [index for index in asked if not _of_pods(host, index)] or list(asked)
    whole = all(index in deaf and not deaf[index].whom for index in out)
    addresses = tuple(str(entry.address) for entry in told)
    for refusal, indexes in groups.values() if addresses else ():
        names = " or ".join(sorted(asked[index] for index in indexes))
        conditions = [refusal.whom] if refusal.whom else []
        if indexes != asked.keys() and not refusal.whom:
            conditions = [f"on interface {names}"]
        yield Finding(
            State.BLOCKED,
            Mechanism.NEIGHBOUR,
            Vantage.EXTERNAL,
            family,
            addresses,
            certain=False,
            conditions=tuple(conditions),
            path=tuple(step(walk.ruleset, each) for each in refusal.end.path),
            why=WHY.format(_REFUSED[family, refusal.end.turn]),
            restriction=not whole or bool(refusal.whom),
        )


def _of_pods(host: Host, index: int) -> bool:
    """Whether it is a bridge that only this host's own pods or containers are on."""
    kinds = {each.kind for each in host.interfaces if each.master == index}
    return kinds <= {"veth"} and any(
        each.index == index and each.kind == "bridge" for each in host.interfaces
    )


def _refused(walk: Walk, host: Host, family: Family, index: int) -> Refusal | None:
    """What refuses the questions for all addresses of the interface, or the answers, and whose; None where anything
    passes. Hosts on the link ask from the address they dial from (ndisc_solicit), IPv6's gateways from link-local.
    """
    near = normal([_network(entry) for entry in _own(host, family, index) if not entry.address.is_link_local])
    ours = normal([(int(each), int(each)) for each in host.local() if family_of(each) is family])
    near = subtract(near, ours)
    ways: list[tuple[Ranges, str]] = [(near, f"of the network of {_name(host, index)}")]
    if family is Family.IP6:
        ways.append((LINK_LOCAL, f"by a gateway on {_name(host, index)}"))
    elif not near:  # an address without a network: a gateway asks all the same, from wherever
        ways = [(subtract(((0, 2**32 - 1),), ours), "")]
    ends = [(_by(walk, host, family, index, asking), whom) for asking, whom in ways if asking]
    lost = [(end, whom) for end, whom in ends if end is not None]
    if not lost:
        return None
    return Refusal(lost[-1][0], "" if len(lost) == len(ends) else lost[0][1])


def _by(walk: Walk, host: Host, family: Family, index: int, asking: Ranges) -> Outcome | None:
    """What refuses those who ask from one of these addresses."""
    found: Outcome | None = None
    for entry in _own(host, family, index)[:MOST_ASKED]:
        try:
            end = _walked(walk, host, index, entry.address, asking)
            if end is not None and walk.tied:
                end = _walked(walk, host, index, entry.address, asking, backwards=True)
        except Interrupted:
            raise
        except (SourceError, DecodeError):
            return None  # said of the connections
        if end is None:
            return None
        found = found or end
    return found


def _own(host: Host, family: Family, index: int) -> list[LocalAddress]:
    return [each for each in host.addresses if each.interface == index and family_of(each.address) is family]


def _network(entry: LocalAddress) -> tuple[int, int]:
    shift = entry.address.max_prefixlen - entry.prefix_length
    low = int(entry.address) >> shift << shift
    return low, low | (1 << shift) - 1


def _name(host: Host, index: int) -> str:
    return next((each.name for each in host.interfaces if each.index == index), f"#{index}")


def _meets(walk: Walk, family: Family) -> bool:
    """Whether there is any chain on the way."""
    below = any(walk.base_chains(number, 5) or walk.base_chains(number, 7) for number in range(6))
    if family is Family.IP:
        return below or any(walk.base_chains(number, NFPROTO_ARP) for number in (ARP_IN, ARP_OUT))
    return below or any(
        chain.type != "nat" for number in range(6) for chain in walk.base_chains(number, family.nfproto)
    )


def _walked(
    walk: Walk, host: Host, index: int, address: Address, asking: Ranges, backwards: bool = False
) -> Outcome | None:
    """What refuses the question for one address, or the answer, to all who ask; None where any passes."""
    walk.outcomes, walk.tied, walk.backwards = [], (), backwards
    family = family_of(address)
    view = scene(host, Vantage.EXTERNAL, family, Protocol.TCP)
    view = replace(
        view,
        protocol=Discovery.ARP if family is Family.IP else Discovery.ND,
        saddr=Var("saddr", asking, view.saddr.kind, view.saddr.words),
        iif=Var("iif", ((index, index),), Kind.FIELD, "iif"),
        uid=None,
    )
    for turn in (Turn.FIRST, Turn.ANSWER):
        walk.turn, begin = turn, len(walk.outcomes)
        passed = (_asked if turn is Turn.FIRST else _answered)(walk, view.but(turn=turn), address.packed)
        ends = walk.outcomes[begin:]
        if ends and not passed and all(end.fate in (Fate.DROPPED, Fate.REJECTED) for end in ends):
            return min(reversed(ends), key=_narrowness)
    return None


def _narrowness(end: Outcome) -> tuple[bool, int]:
    """How far it is from being about everybody."""
    return any(var.kind is not Kind.FIELD for var, _ in end.cube.items), len(end.cube.items)


def _asked(walk: Walk, view: Scene, address: bytes) -> States:
    """What gets in of questions for the address."""
    if view.family is Family.IP6:
        packet = Packet(solicited_node(address), 0, NO_MARK, tracked=False, balanced=True)
        states = received(walk, view, {packet: (EVERYTHING,)}, 0)
        return hook(walk, view, INPUT, states, 0, late=True)
    states = {Packet(address, 0, NO_MARK, tracked=False, balanced=True): (EVERYTHING,)}
    for late in (False, True):
        states = arriving(walk, view, states, partial(run, walk), late)
    return _arp(walk, view, ARP_IN, states)


def _answered(walk: Walk, view: Scene, address: bytes) -> States:
    """What gets out of the answers."""
    view = view.but(iif=None, oif=view.iif)
    states: States = {
        Packet(address, 0, NO_MARK, tracked=False, connected=False, balanced=True): (EVERYTHING,)
    }
    if view.family is Family.IP6:
        return sent_out(walk, view, hook(walk, view, OUTPUT, states, 0), 0)
    return leaving(walk, view, _arp(walk, view, ARP_OUT, states), partial(run, walk))


def _arp(walk: Walk, view: Scene, number: int, states: States) -> States:
    for chain in sorted(walk.base_chains(number, NFPROTO_ARP), key=lambda chain: chain.priority):
        if states:
            states = run(walk, view.but(hook=number, priority=chain.priority), chain, states)
    return states
