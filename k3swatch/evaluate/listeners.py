"""Which listening socket the kernel picks for each way in, and whether it belongs to the owner of the port.

Follows __inet_lookup_listener of net/ipv4/inet_hashtables.c, net/ipv6/inet6_hashtables.c and their UDP twins: sockets
bound to the dialled address come before those bound to any. Several that are left can only be a SO_REUSEPORT group,
which shares connections by hash, or several such groups: then the first in a list that nobody can see is asked.

With `listener:` configured, a socket of anybody else's is a diversion, and certain. Without it nobody is taken for the
owner: see docs/adr/0008.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from k3swatch.evaluate.processes import NOT_TOLD, differ, rightful, said
from k3swatch.model.finding import Finding, PathStep
from k3swatch.model.port import Address, Host, ListeningSocket, ProtectedPort, family_of
from k3swatch.model.words import Evidence, Mechanism, State, Vantage

MOST = 64  # different sockets of one port that are looked at
Way = tuple[Vantage, str]


@dataclass(frozen=True, slots=True)
class _Pick:
    """What the kernel does with connections that arrive on one interface (0: any other)."""

    interface: int
    chosen: tuple[ListeningSocket, ...]  # one of these gets it
    passed: tuple[ListeningSocket, ...]  # these would, if those were not there


def taken(host: Host, port: ProtectedPort, ways: Sequence[Way]) -> tuple[list[Finding], bool]:
    """Findings with mechanism `socket` and addresses nobody listens on; and whether any way in is served.

    In: the (vantage, address) pairs that were judged. A host whose sockets could not be read has none here.
    """
    sockets = _sockets(host, port)
    picks = [(way, _picks(host, sockets, *way)) for way in ways]
    if not any(pick.chosen for _, some in picks for pick in some):
        return [], not ways and bool(sockets)
    several = not _configured(port) and _several(sockets)
    found: list[Finding] = []
    for (vantage, address), some in picks:
        findings = [_judge(port, vantage, address, pick, several) for pick in some]
        alike = len(set(findings)) == 1
        for pick, finding in zip(some, findings, strict=True):
            if finding is None:
                continue
            where = () if alike else (_arriving(host, pick, some),)
            found.append(replace(finding, conditions=(*where, *finding.conditions)))
            if alike:
                break
    return found, True


def behind(rules: Iterable[Finding], sockets: Iterable[Finding]) -> list[Finding]:
    """The sockets' findings as they stand after the rules': no socket is asked about what a rule sends elsewhere."""
    gone = {
        (finding.vantage, address)
        for finding in rules
        if finding.state in (State.DIVERTED, State.BLOCKED)
        and finding.certain
        and not finding.conditions
        and not finding.shadowed
        for address in finding.addresses
    }
    left = [
        (finding, (finding.vantage, finding.addresses[0]) in gone)
        for finding in sockets  # each of one address
    ]
    return [
        replace(finding, shadowed=moot)
        for finding, moot in left
        if not (moot and finding.state is State.UNSERVED)
    ]


def _sockets(host: Host, port: ProtectedPort) -> list[ListeningSocket]:
    """The sockets of the port, one of each kind: a server may have hundreds in one group."""
    mine = [s for s in host.sockets or () if s.port == port.port and s.protocol is port.protocol]
    return list({replace(socket, inode=0): socket for socket in mine}.values())[:MOST]


def _picks(host: Host, sockets: Iterable[ListeningSocket], vantage: Vantage, text: str) -> list[_Pick]:
    address = ipaddress.ip_address(text)
    covering = [(socket, bound) for socket in sockets if (bound := _covers(socket, address)) is not None]
    found = []
    for interface in _arrivals(host, covering, vantage, address):
        able = [(s, bound) for s, bound in covering if s.interface in (0, interface)]
        best = max((bound for _, bound in able), default=False)
        found.append(
            _Pick(
                interface,
                tuple(s for s, bound in able if bound == best),
                tuple(s for s, bound in able if bound != best),
            )
        )
    return found


def _covers(socket: ListeningSocket, address: Address) -> bool | None:
    """Whether the socket takes connections to `address`: True bound to it, False bound to any, None not at all."""
    bound = socket.address
    if bound.version == 6 and bound.ipv4_mapped is not None:
        bound = bound.ipv4_mapped
    if bound == address:
        return True
    dual = bound.version == 6 and not socket.v6only
    if bound.is_unspecified and (bound.version == address.version or dual):
        return False
    return None


def _arrivals(
    host: Host, covering: Iterable[tuple[ListeningSocket, bool]], vantage: Vantage, address: Address
) -> list[int]:
    """The interfaces between which SO_BINDTODEVICE makes a difference.

    What a process of this host sends to an address of this host arrives on the interface that has the address
    (inet_iif, inet6_iif), and so does what is sent to a link-local address.
    """
    own = host.owners.get(address.packed, 0)
    if vantage is Vantage.LOCAL or address.is_link_local:
        return [own]
    bound = {socket.interface for socket, _ in covering} - {0} - host.loopbacks
    others = {interface.index for interface in host.interfaces if interface.up} - bound - host.loopbacks
    return [*([0] if others or not bound else []), *sorted(bound)]


def _arriving(host: Host, pick: _Pick, some: Sequence[_Pick]) -> str:
    names = {interface.index: interface.name for interface in host.interfaces}
    indexes = [pick.interface] if pick.interface else [other.interface for other in some if other.interface]
    words = " or ".join(names.get(index, f"#{index}") for index in indexes)
    return f"on interface {words}" if pick.interface else f"not on interface {words}"


def _configured(port: ProtectedPort) -> bool:
    return bool(port.listener.exe or port.listener.unit)


def _several(sockets: Sequence[ListeningSocket]) -> bool | None:
    """Whether more than one program has sockets of the port; None when that cannot be told."""
    answers = {differ(sockets[0], other) for other in sockets[1:]}
    return True if True in answers else None if None in answers else False


def _judge(
    port: ProtectedPort, vantage: Vantage, address: str, pick: _Pick, several: bool | None
) -> Finding | None:
    family = family_of(ipaddress.ip_address(address))
    finding = Finding(
        State.UNKNOWN,
        Mechanism.SOCKET,
        vantage,
        family,
        (address,),
        certain=False,
        evidence=frozenset({Evidence.LISTENER}),
    )
    if not pick.chosen:
        why = "nobody listens on it"
        return replace(
            finding,
            state=State.UNSERVED,
            mechanism=Mechanism.NONE,
            certain=True,
            restriction=True,
            why=why,
        )
    if _configured(port):
        return _by_configuration(finding, port, pick.chosen)
    if several is False:
        return None
    return _by_comparison(finding, port, pick, several)


def _by_configuration(
    finding: Finding, port: ProtectedPort, chosen: Sequence[ListeningSocket]
) -> Finding | None:
    answers = {socket: rightful(socket, port.listener) for socket in chosen}
    wrong = [socket for socket, answer in answers.items() if answer is False]
    right = [socket for socket, answer in answers.items() if answer is True]
    if len(right) == len(answers):
        return None
    if not wrong:
        unclear = [socket for socket in chosen if answers[socket] is None]
        return replace(finding, path=_steps(unclear), why=NOT_TOLD)
    diverted = replace(finding, state=State.DIVERTED, certain=True, path=_steps(wrong))
    diverted = replace(diverted, why="not the listener that is configured")
    if len(wrong) == len(answers):
        return diverted
    if _one_group(chosen):
        return replace(diverted, conditions=("a share of the connections, SO_REUSEPORT",))
    return replace(diverted, certain=False, why="beside the listener that is configured; either may be asked")


def _by_comparison(finding: Finding, port: ProtectedPort, pick: _Pick, several: bool | None) -> Finding:
    everybody = (*pick.chosen, *pick.passed)
    finding = replace(
        finding,
        path=_steps((*pick.passed, *pick.chosen)),
        anchor=("socket", port.protocol, str(port.port)),
        why="several programs listen on the port; `listener:` does not say which one it belongs to",
    )
    if several is None:
        why = "several sockets listen on the port, and whether they are one program's cannot be told"
        return replace(finding, why=why)
    if not any(differ(pick.chosen[0], other) for other in everybody[1:]):
        return finding
    finding = replace(finding, state=State.DIVERTED, anchor=None)  # a cause of its own: it takes something
    if len(pick.chosen) > 1 and _one_group(pick.chosen):
        return replace(finding, why="shared by several programs with SO_REUSEPORT")
    if len(pick.chosen) > 1:
        return replace(finding, why="sockets of several programs; either may be asked")
    return replace(finding, why="a more specific bind takes it from another program's socket")


def _one_group(sockets: Sequence[ListeningSocket]) -> bool:
    """Whether they can be one SO_REUSEPORT group (inet_reuseport_add_sock)."""
    return len({(socket.address, socket.interface, socket.v6only, socket.uid) for socket in sockets}) == 1


def _steps(sockets: Iterable[ListeningSocket]) -> tuple[PathStep, ...]:
    """Sockets in the place of rules, in the order of the kernel's preference; the last one decides."""
    return tuple(
        PathStep("socket", socket.protocol, _place(socket), socket.inode, said(socket)) for socket in sockets
    )


def _place(socket: ListeningSocket) -> str:
    address = f"[{socket.address}]" if socket.address.version == 6 else str(socket.address)
    return f"{address}:{socket.port}" + (f" on interface #{socket.interface}" if socket.interface else "")
