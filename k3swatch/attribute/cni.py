"""What the CNI plugins left on disk: libcni's result cache and host-local's leases.

`/var/lib/cni/results/<network>-<container>-<interface>` (cniCacheV1, containernetworking/cni libcni/api.go) holds the
pod's name as CRI gave it, and its addresses; portmap's rule is there milliseconds before this file.
`/var/lib/cni/networks/<network>/<address>` (plugins/ipam/host-local) holds the container an address belongs to.
The cache outlives a reboot and a lease may leak: neither proves that the container is alive.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from k3swatch.attribute.clues import cni_chain, container_id
from k3swatch.attribute.root import Root
from k3swatch.model.port import Address

RESULTS, NETWORKS = "/var/lib/cni/results", "/var/lib/cni/networks"
SCANNED = 1024  # cache files opened to find an address


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as one source knows it."""

    namespace: str
    name: str
    uid: str | None = None

    @property
    def path(self) -> str:
        """`kube-system/svclb-x`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Cached:
    """One result of the CNI cache."""

    container: str
    network: str
    pod: Pod | None
    addresses: frozenset[Address]
    netns: str | None  # /var/run/netns/cni-...
    file: str
    host_ports: frozenset[int] = frozenset()  # that portmap was asked for


def name(value: object, limit: int = 253) -> str | None:
    """`value` when it may be a Kubernetes name (RFC 1123, at most 253 characters); hostile bytes become escapes."""
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        return None
    return value.encode(errors="backslashreplace").decode()


def document(content: bytes | None) -> dict[str, Any]:
    """The JSON object in a file; empty when there is none."""
    try:
        found = json.loads(content or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def leased(root: Root, address: Address) -> list[str]:
    """The containers that hold an address, one for each network that leased it."""
    found = []
    for network in root.names(NETWORKS)[:64]:
        content = root.text(f"{NETWORKS}/{network}/{address}", 512)
        if content:
            lines = content.split()
            holder = container_id(lines[0]) if lines else None
            if holder:
                found.append(holder)
    return found


def of_chain(root: Root, chain: str) -> list[str]:
    """The containers whose hash is in the name of portmap's chain; reads names only."""
    return [container for network, container, _ in _entries(root) if cni_chain(network, container) == chain]


def cached(root: Root, container: str) -> Cached | None:
    """The cached result of a container."""
    for network, known, file in _entries(root):
        if known == container:
            found = _parse(root, network, known, file)
            if found is not None:
                return found
    return None


def of_address(root: Root, address: Address) -> Cached | None:
    """The cached result that has an address, for networks without host-local's leases; opens SCANNED files at most."""
    for tried, (network, known, file) in enumerate(_entries(root)):
        if tried == SCANNED or root.spent:
            return None
        found = _parse(root, network, known, file)
        if found is not None and address in found.addresses:
            return found
    return None


def publishing(root: Root, port: int) -> Iterator[Cached]:
    """The cached results of containers with this hostPort; opens SCANNED files at most."""
    for network, known, file in islice(_entries(root), SCANNED):
        found = _parse(root, network, known, file)
        if found is not None and port in found.host_ports:
            yield found


def _entries(root: Root) -> Iterator[tuple[str, str, str]]:
    """(network, container, file) from the names of the cache; the loopback plugin's carry the same pods again."""
    for file in root.names(RESULTS):
        network, _, rest = file.rpartition("-")[0].rpartition("-")
        container = container_id(rest)
        if network and network != "cni-loopback" and container:
            yield network, container, file


def _parse(root: Root, network: str, container: str, file: str) -> Cached | None:
    found = document(root.read(f"{RESULTS}/{file}"))
    if found.get("kind") != "cniCacheV1" or found.get("containerId") != container:
        return None
    arguments = {
        pair[0]: pair[1]
        for pair in _items(found.get("cniArgs"))
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
    }
    namespace, pod = name(arguments.get("K8S_POD_NAMESPACE")), name(arguments.get("K8S_POD_NAME"))
    uid = name(arguments.get("K8S_POD_UID"), 64)
    result = found.get("result")
    result = result if isinstance(result, dict) else {}
    sandboxes = [
        name(each.get("sandbox"), 512) for each in _items(result.get("interfaces")) if isinstance(each, dict)
    ]
    return Cached(
        container,
        network,
        Pod(namespace, pod, uid) if namespace and pod else None,
        frozenset(_addresses(result)),
        next(filter(None, sandboxes), None),
        file,
        frozenset(_host_ports(found.get("capabilityArgs"))),
    )


def _host_ports(arguments: object) -> Iterator[int]:
    """`hostPort` of each port mapping; go-cni writes the keys with a capital."""
    for each in _items(arguments.get("portMappings") if isinstance(arguments, dict) else None):
        port = each.get("hostPort", each.get("HostPort")) if isinstance(each, dict) else None
        if isinstance(port, int):
            yield port


def _addresses(result: dict[str, Any]) -> Iterator[Address]:
    for each in _items(result.get("ips")):
        if isinstance(each, dict) and isinstance(each.get("address"), str):
            try:
                yield ipaddress.ip_interface(each["address"][:64]).ip
            except ValueError:
                continue


def _items(value: object, limit: int = 64) -> list[Any]:
    return value[:limit] if isinstance(value, list) else []
