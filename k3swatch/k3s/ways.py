"""Which addresses may still lead to the API while a port of it is taken. Pure.

k3s.md's three: kube-apiserver's own address on loopback, which only portmap's rules for that very port could take; the
ClusterIP of Service `kubernetes`, whose connections are translated before anybody looks at port 6443 (a connection is
translated once); and every address of the host that the rules leave alone, IPv6 most often. Nothing is dialled that
leads astray as far as is known: it would be counted as a connection that went there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from k3swatch.k3s.ports import SERVING
from k3swatch.k3s.settings import Settings
from k3swatch.model.finding import PortVerdict
from k3swatch.model.port import Address, ProtectedPort
from k3swatch.model.words import State, Vantage

MOST = 6  # addresses that are dialled
_USUAL = 6443


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address to dial, and the kubeconfig that has it, if one does."""

    address: Address
    port: int
    kubeconfig: str | None = None
    owner: str | None = None  # whose socket it is, as the kernel says: the configured listener's

    @property
    def url(self) -> str:
        """`https://[fd00::5]:6443`."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"https://{host}:{self.port}"


def serves_api(port: ProtectedPort) -> bool:
    """Whether kubectl would dial it."""
    return port.name in SERVING or port.port == _USUAL


def candidates(settings: Settings, verdicts: Sequence[PortVerdict], cluster: bool) -> tuple[Candidate, ...]:
    """What to dial, the best first. `cluster`: ClusterIPs are translated on this host; else they are not dialled."""
    found: list[Candidate] = []
    own = [("127.0.0.1", _own(settings)), ("::1", _own(settings))]
    only6 = all(network.version == 6 for network in settings.service_networks)
    if settings.program == "k3s":
        address, port = own[only6]
        usual = settings.server and settings.apiserver and port == 6444
        kubeconfig = f"{settings.data_directory}/server/cred/admin.kubeconfig" if usual else None
        found.append(Candidate(ipaddress.ip_address(address), port, kubeconfig))
    for network in settings.service_networks if cluster else ():
        found.append(Candidate(network[1], 443))
    for verdict in verdicts:
        if serves_api(verdict.port):
            found += [Candidate(each, verdict.port.port) for each in _left_alone(verdict)]
    taken = [verdict for verdict in verdicts if verdict.findings]
    free = [each for each in found if not any(_taken(verdict, each) for verdict in taken)]
    return tuple(replace(each, owner=_owner(verdicts, each)) for each in dict.fromkeys(free))[:MOST]


def _owner(verdicts: Iterable[PortVerdict], candidate: Candidate) -> str | None:
    """The listener that must have an address, where nothing says that it has not."""
    for verdict in verdicts:
        listener = verdict.port.listener
        if verdict.port.port == candidate.port and (Vantage.LOCAL, str(candidate.address)) in verdict.judged:
            return listener.unit or next(iter(listener.exe), None)
    return None


def _own(settings: Settings) -> int:
    return settings.apiserver_port if settings.server else settings.lb_port


def _taken(verdict: PortVerdict, candidate: Candidate) -> bool:
    """Whether a finding keeps a process of this host from reaching it."""
    if verdict.port.port != candidate.port:
        return False
    return any(
        str(candidate.address) in finding.addresses or not finding.addresses
        for finding in verdict.findings
        if finding.vantage is Vantage.LOCAL and not finding.shadowed and finding.state is not State.DELIVERED
    )


def _left_alone(verdict: PortVerdict) -> Iterator[Address]:
    """Addresses of the host that nothing is known of, one of loopback and one other for each family."""
    local = (ipaddress.ip_address(address) for who, address in verdict.judged if who is Vantage.LOCAL)
    free = [each for each in local if not _taken(verdict, Candidate(each, verdict.port.port))]
    for kind in (_is_node, _is_loopback):
        for version in (4, 6):
            yield from _first(each for each in free if each.version == version and kind(each))


def _is_node(address: Address) -> bool:
    return not address.is_loopback and not address.is_link_local


def _is_loopback(address: Address) -> bool:
    return address.is_loopback


def _first(addresses: Iterable[Address]) -> Iterator[Address]:
    for address in addresses:
        yield address
        return
