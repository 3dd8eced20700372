"""Asks for the addresses of an interface as its neighbours do, and says what refuses every question, or every answer.

The packets are `discovery`'s; they pass the same chains as a connection's.
"""

from __future__ import annotations

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
from k3swatch.evaluate.walk import Refusal, Walk
from k3swatch.model.port import Address, Host, LocalAddress, family_of
from k3swatch.model.ruleset import INPUT, OUTPUT
from k3swatch.model.words import Family, Protocol, Vantage

NFPROTO_ARP, ARP_IN, ARP_OUT = 3, 0, 1  # NF_ARP_*, uapi/linux/netfilter_arp.h
MOST_ASKED = 16  # addresses of one interface
LINK_LOCAL: Ranges = ((0xFE80 << 112, (0xFEC0 << 112) - 1),)


def meets(walk: Walk, family: Family) -> bool:
    """Whether there is any chain on the way."""
    below = any(walk.base_chains(number, 5) or walk.base_chains(number, 7) for number in range(6))
    if family is Family.IP:
        return below or any(walk.base_chains(number, NFPROTO_ARP) for number in (ARP_IN, ARP_OUT))
    return below or any(
        chain.type != "nat" for number in range(6) for chain in walk.base_chains(number, family.nfproto)
    )


def refused(walk: Walk, host: Host, family: Family, index: int) -> Refusal | None:
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
