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
from k3swatch.evaluate.cube import EVERYTHING, Kind, Var, exceeds
from k3swatch.evaluate.discovery import solicited_node
from k3swatch.evaluate.hooks import hook, run
from k3swatch.evaluate.ingress import arriving, leaving
from k3swatch.evaluate.outcome import Fate, Outcome
from k3swatch.evaluate.packet import NO_MARK, Discovery, Packet, Scene, Turn, scene
from k3swatch.evaluate.passage import received, sent_out
from k3swatch.evaluate.states import States
from k3swatch.evaluate.steps import step
from k3swatch.evaluate.walk import Deaf, Walk
from k3swatch.model.finding import Finding
from k3swatch.model.port import Host, Interface, LocalAddress, family_of
from k3swatch.model.ruleset import INPUT, OUTPUT
from k3swatch.model.words import Family, Mechanism, Protocol, State, Vantage

NFPROTO_ARP, ARP_IN, ARP_OUT = 3, 0, 1  # NF_ARP_*, uapi/linux/netfilter_arp.h
ETHERNET = 1  # ARPHRD_ETHER
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
    refused = {(address, _place(each), each.conditions) for each in found for address in each.addresses}
    for family in Family:
        if family not in walk.deaf:
            walk.deaf[family] = _deaf(walk, host, family)
        asked, deaf = walk.deaf[family]
        if not deaf:
            continue
        outside = {address for vantage, address in judged if vantage is Vantage.EXTERNAL}
        outside -= {address for each in found if _sure(each) for address in each.addresses}
        told = [entry for entry in _addresses(host, family) if str(entry.address) in outside]
        for finding in _findings(walk, family, asked, deaf, told):
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


def _findings(
    walk: Walk,
    family: Family,
    asked: dict[int, str],
    deaf: dict[int, Outcome],
    told: Sequence[LocalAddress],
) -> Iterator[Finding]:
    """One for each rule. Addresses of another interface (loopback's, a dummy's) are asked for by none: they are found
    by way of a gateway, which finds any of the others.
    """
    groups: dict[tuple[object, ...], tuple[Outcome, set[int]]] = {}
    for index, end in deaf.items():
        groups.setdefault((end.path, end.turn), (end, set()))[1].add(index)
    everywhere = deaf.keys() == asked.keys()
    for end, indexes in groups.values():
        own = [
            str(entry.address)
            for entry in told
            if entry.interface in indexes or (everywhere and entry.interface not in asked)
        ]
        if own:
            names = sorted(asked[index] for index in indexes)
            yield Finding(
                State.BLOCKED,
                Mechanism.NEIGHBOUR,
                Vantage.EXTERNAL,
                family,
                tuple(own),
                certain=False,
                conditions=() if everywhere else (f"on interface {' or '.join(names)}",),
                path=tuple(step(walk.ruleset, each) for each in end.path),
                why=WHY.format(_REFUSED[family, end.turn]),
                restriction=not everywhere,
            )


def _refused(walk: Walk, host: Host, family: Family, index: int) -> Outcome | None:
    """What refuses every question for every address of the interface, or every answer; None where anything passes."""
    found: Outcome | None = None
    for entry in host.addresses:
        if entry.interface != index or family_of(entry.address) is not family:
            continue
        try:
            orders = [_walked(walk, host, family, index, entry.address.packed, False)]
            if orders[0] is not None and walk.tied:
                orders.append(_walked(walk, host, family, index, entry.address.packed, True))
        except Interrupted:
            raise
        except (SourceError, DecodeError):
            return None  # said of the connections
        if None in orders:
            return None
        found = found or orders[0]
    return found


def _meets(walk: Walk, family: Family) -> bool:
    """Whether there is any chain on the way."""
    below = any(walk.base_chains(number, 5) or walk.base_chains(number, 7) for number in range(6))
    if family is Family.IP:
        return below or any(walk.base_chains(number, NFPROTO_ARP) for number in (ARP_IN, ARP_OUT))
    return below or any(
        chain.type != "nat" for number in range(6) for chain in walk.base_chains(number, family.nfproto)
    )


def _walked(
    walk: Walk, host: Host, family: Family, index: int, address: bytes, backwards: bool
) -> Outcome | None:
    walk.outcomes, walk.tied, walk.backwards = [], (), backwards
    iif = Var("iif", ((index, index),), Kind.FIELD, "iif")
    view = scene(host, Vantage.EXTERNAL, family, Protocol.TCP)
    view = replace(
        view, protocol=Discovery.ARP if family is Family.IP else Discovery.ND, iif=iif, oif=None, uid=None
    )
    for turn in (Turn.FIRST, Turn.ANSWER):
        walk.turn, begin = turn, len(walk.outcomes)
        passed = (_asked if turn is Turn.FIRST else _answered)(walk, view.but(turn=turn), address)
        lost = [end for end in walk.outcomes[begin:] if end.fate in (Fate.DROPPED, Fate.REJECTED)]
        if lost and not passed and not exceeds([EVERYTHING], [end.cube for end in lost]):
            return lost[0]
    return None


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
