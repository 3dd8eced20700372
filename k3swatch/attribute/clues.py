"""What the rules on the way say of themselves: container, Service, the address they send connections to. Pure.

Formats: portmap's `dnat name: "cbr0" id: "<id>"` and chain `CNI-DN-` + sha512(network + id) (containernetworking
plugins, plugins/meta/portmap, pkg/utils), netavark's without quotes; its nftables backend's bare id in table
`cni_hostport`; kube-proxy's `namespace/service:port` comments and hashed chains (kubernetes pkg/proxy/iptables,
pkg/proxy/nftables); docker's chain DOCKER. Everything here may be forged by who can write a rule: it is a clue, for
others to confirm.
"""

from __future__ import annotations

import hashlib
import ipaddress
from base64 import b32encode
from collections.abc import Iterable
from dataclasses import dataclass, replace

from k3swatch.model.finding import Culprit, Finding, PathStep
from k3swatch.model.port import Address
from k3swatch.model.words import State

CNI_CHAIN = "CNI-DN-"
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
_KUBE_CHAINS = ("KUBE-EXT-", "KUBE-SVC-", "KUBE-FW-", "KUBE-SVL-")
_PUBLISHERS = ("DOCKER", "NETAVARK-")  # published ports of docker, and of podman
_PROXY_CHAINS = ("external-", "service-", "endpoint-")  # kube-proxy's nftables mode


@dataclass(frozen=True, slots=True)
class Clues:
    """What one finding's path tells. `address` is where connections go, without the port."""

    address: Address | None = None
    container: str | None = None  # from a comment
    network: str | None = None  # from the same comment
    cni_chain: str | None = None
    service: str | None = None  # namespace/name
    service_hashed: bool = False  # a chain's name is the hash of that Service
    publisher: bool = False  # docker's or netavark's chain: a published port


def clues(finding: Finding) -> Clues:
    """All clues of one finding."""
    container = network = cni_chain = service = None
    hashed = publisher = False
    for step in finding.path:
        mapped = _portmap(step)
        if mapped is not None:
            network, container = mapped
        if step.chain.startswith(CNI_CHAIN):
            cni_chain = step.chain
        publisher = publisher or step.chain.startswith(_PUBLISHERS)
        found = _service(step)
        if found is not None:
            service = found[0] or service
            hashed = hashed or found[1]
    for step in finding.path:  # the comment stands on the rule before the chain it names
        port_name = _port_name(step.comment)
        if port_name and service == port_name.partition(":")[0]:
            hashed = hashed or any(_hashes(port_name, other.chain) for other in finding.path)
    return Clues(address_of(finding.destination), container, network, cni_chain, service, hashed, publisher)


def named(finding: Finding) -> Finding:
    """The finding with the Service its own rules name, when nothing better is known: no file is read."""
    if finding.state is not State.DIVERTED or finding.culprit is not None:
        return finding
    found = clues(finding)
    if found.service is None:
        return finding
    culprit = Culprit(service=found.service, confidence=certainty(found), sources=sources(found))
    return replace(finding, culprit=culprit)


def sources(found: Clues) -> tuple[str, ...]:
    """The words for what a Service's name rests on."""
    return ("kube-proxy", "chain-hash") if found.service_hashed else ("kube-proxy",)


def certainty(found: Clues) -> str:
    """How sure the rules alone make of a Service."""
    return "medium" if found.service_hashed else "low"


def address_of(destination: str | None) -> Address | None:
    """`10.42.0.244:6443`, `[fd00::5]:6443` -> the address; None for none."""
    try:
        return ipaddress.ip_address((destination or "").rpartition(":")[0].strip("[]"))
    except ValueError:
        return None


def container_id(text: str) -> str | None:
    """`text` when it can be a container's id (CNI: `^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`), which also makes it a file name."""
    good = 0 < len(text) <= 128 and _ID_CHARACTERS.issuperset(text) and text[0] not in "_.-"
    return text if good else None


def cni_chain(network: str, container: str) -> str:
    """The chain portmap makes for a container: 28 characters."""
    digest = hashlib.sha512((network + container).encode(errors="replace")).hexdigest()
    return CNI_CHAIN + digest[: 28 - len(CNI_CHAIN)]


def _portmap(step: PathStep) -> tuple[str | None, str] | None:
    """Network and container of a rule that portmap (or netavark, which copied its words) has made."""
    comment = step.comment or ""
    if step.table == "cni_hostport":
        container = container_id(comment)
        return (None, container) if container else None
    if not comment.startswith("dnat name: "):
        return None
    network, found, rest = comment.removeprefix("dnat name: ").rpartition(" id: ")
    container = container_id(rest.strip('"')) if found else None
    return (network.strip('"')[:64], container) if container else None


def _service(step: PathStep) -> tuple[str | None, bool] | None:
    """The Service that a kube-proxy rule names, and whether a hash in the chain's own name agrees."""
    if step.chain.startswith("KUBE-") and step.comment:
        return _namespaced((_port_name(step.comment) or "").partition(":")[0]), False
    if step.table == "kube-proxy" and step.chain.startswith(_PROXY_CHAINS):
        digest, _, rest = step.chain.partition("-")[2].partition("-")
        parts = rest.split("/")  # namespace/service/protocol/port[__address/port]
        service = _namespaced("/".join(parts[:2])) if len(parts) >= 4 else None
        return service, service is not None and _digest(rest)[:8] == digest
    return None


def _port_name(comment: str | None) -> str | None:
    """`default/kubeapi:https` of `default/kubeapi:https loadbalancer IP` or of `masquerade traffic for ...`."""
    for word in (comment or "")[:256].split():
        if _namespaced(word.partition(":")[0]):
            return word
    return None


def _namespaced(text: str) -> str | None:
    namespace, _, name = text.partition("/")
    parts = (namespace, name)
    return text if all(0 < len(p) <= 253 and _NAME_CHARACTERS.issuperset(p) for p in parts) else None


def _hashes(port_name: str, chain: str) -> bool:
    """Whether `chain` is one of kube-proxy's for this Service port (servicePortChainName: name + protocol)."""
    return chain.startswith(_KUBE_CHAINS) and any(
        chain.rpartition("-")[2] == _digest(port_name + protocol)[:16] for protocol in ("tcp", "udp")
    )


def _digest(text: str) -> str:
    return b32encode(hashlib.sha256(text.encode(errors="replace")).digest()).decode()


def services(findings: Iterable[Finding]) -> frozenset[str]:
    """Every Service that some rule on the way of these findings names."""
    return frozenset(found.service for finding in findings if (found := clues(finding)).service)
