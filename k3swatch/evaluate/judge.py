"""The verdict on protected ports: every vantage, every protected address, put together."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace

from k3swatch.errors import DecodeError, Interrupted, SourceError
from k3swatch.evaluate.ipvs import unread
from k3swatch.evaluate.listeners import behind, taken
from k3swatch.evaluate.neighbours import hidden
from k3swatch.evaluate.packet import Scene, scene
from k3swatch.evaluate.programs import attached
from k3swatch.evaluate.ties import told
from k3swatch.evaluate.unrouted import unrouted
from k3swatch.evaluate.walk import Walk
from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.port import LOCAL, Address, Host, ProtectedPort, family_of
from k3swatch.model.ruleset import Ruleset
from k3swatch.model.words import Evidence, Family, Mechanism, State, Vantage


def judge(
    ruleset: Ruleset, host: Host, ports: Sequence[ProtectedPort], source: Address | None = None
) -> tuple[PortVerdict, ...]:
    """Evaluate every port, for everybody or for one `source` address alone (its vantage and family follow from it).

    What cannot be read becomes an unknown finding; only Interrupted is raised.
    """
    walk = Walk(ruleset)
    return tuple(_judge_port(walk, host, port, source) for port in ports)


def protected_addresses(host: Host, port: ProtectedPort) -> tuple[Address, ...]:
    """This host's addresses the port is protected on, loopback first, then in order."""
    chosen = [address for address in host.local() if _wanted(address, port)]
    return tuple(sorted(chosen, key=lambda a: (a.version, not a.is_loopback, int(a))))


def _wanted(address: Address, port: ProtectedPort) -> bool:
    return any(
        entry == LOCAL
        or (not isinstance(entry, str) and address.version == entry.version and address in entry)
        for entry in port.addresses
    )


def _judge_port(walk: Walk, host: Host, port: ProtectedPort, source: Address | None) -> PortVerdict:
    found: list[Finding] = []
    judged: list[tuple[Vantage, str]] = []
    addresses = protected_addresses(host, port)
    if not host.addresses:
        found.extend(unknown(vantage, Family.IP, (), "no local address could be read") for vantage in Vantage)
    scenes: dict[tuple[Vantage, Family], Scene] = {}
    for vantage in Vantage:
        for address in addresses:
            if vantage is Vantage.EXTERNAL and address.is_loopback:
                continue  # nobody outside can dial it: such packets are martians
            if source is not None and not _comes_from(host, source, vantage, address):
                continue
            judged.append((vantage, str(address)))
            key = (vantage, family_of(address))
            if key not in scenes:
                scenes[key] = scene(host, *key, port.protocol, source=source)
            found.extend(_judge_address(walk, scenes[key], port, address))
    found.extend(hidden(walk, host, judged, found))
    served = True
    if host.sockets is None:
        found.append(unlistened(host, port))
    else:
        sockets, served = taken(host, port, judged)
        found.extend(behind(found, sockets))
    found.extend(attached(host, port, judged))
    for family in Family:
        found.extend(unread(host, judged, family))
        found.extend(unrouted(host, judged, family))
    # a floating address that is elsewhere now: nothing here to divert, and nothing served either
    absent = bool(host.addresses) and not addresses
    return PortVerdict(port, _together(found), tuple(judged), absent or not served)


def _comes_from(host: Host, source: Address, vantage: Vantage, address: Address) -> bool:
    """Whether `source` can dial `address` from there."""
    own = source in host.local() or source.is_loopback
    return family_of(source) is family_of(address) and own == (vantage is Vantage.LOCAL)


def _judge_address(walk: Walk, view: Scene, port: ProtectedPort, address: Address) -> list[Finding]:
    try:
        return told(walk, view, port, address)
    except Interrupted:
        raise
    except (SourceError, DecodeError) as error:
        return [unknown(view.vantage, view.family, (str(address),), f"the rules could not be read: {error}")]


def unknown(vantage: Vantage, family: Family, addresses: tuple[str, ...], why: str) -> Finding:
    """A finding that says what could not be told."""
    return Finding(State.UNKNOWN, Mechanism.NONE, vantage, family, addresses, certain=False, why=why)


def unlistened(host: Host, port: ProtectedPort) -> Finding:
    """The rules may be fine, but nobody could tell whether a server is there."""
    finding = unknown(Vantage.LOCAL, Family.IP, (), "the listening sockets could not be read")
    return replace(finding, evidence=frozenset({Evidence.LISTENER}))


def _together(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings that differ only in the address are one; shadowed ones come last."""
    groups: dict[Finding, list[str]] = {}
    for finding in found:
        groups.setdefault(replace(finding, addresses=()), []).extend(finding.addresses)
    merged = [
        replace(finding, addresses=tuple(sorted(set(addresses), key=_address_order)))
        for finding, addresses in groups.items()
    ]
    return tuple(sorted(merged, key=lambda finding: (finding.shadowed, -finding.state.rank)))


def _address_order(text: str) -> tuple[int, bool, int]:
    address = ipaddress.ip_address(text)
    return (address.version, not address.is_loopback, int(address))
