"""Addresses that nobody can find: rules that refuse ARP or neighbour discovery, without which no connection begins.

A firewall that lets the port pass and forgets ICMPv6 is the usual one. It goes on working for whoever remembers the
address, or has just heard from this host, so it is never certain; and a minute later nothing arrives. Asked about are
the interfaces that have protected addresses: by one that answers for none of its addresses, to nobody, no gateway can
reach this host. That one address is kept quiet (a virtual one of LVS, say) is what people want, and is not told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from k3swatch.evaluate.asking import meets, refused
from k3swatch.evaluate.packet import Turn
from k3swatch.evaluate.steps import step
from k3swatch.evaluate.walk import Deaf, Refusal, Walk
from k3swatch.model.finding import Finding
from k3swatch.model.port import Host, Interface, LocalAddress, family_of
from k3swatch.model.words import Family, Mechanism, State, Vantage

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
    known = {
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
            left = tuple(each for each in finding.addresses if not any((each, *way) in known for way in ways))
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
    if not meets(walk, family):
        return asked, {}
    return asked, {index: end for index in asked if (end := refused(walk, host, family, index))}


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
