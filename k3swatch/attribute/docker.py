"""Docker's containers by address, from `/var/lib/docker/containers/<id>/config.v2.json` (moby, container/)."""

from __future__ import annotations

from k3swatch.attribute.clues import container_id
from k3swatch.attribute.cni import document, name
from k3swatch.attribute.root import Root
from k3swatch.model.port import Address

CONTAINERS = "/var/lib/docker/containers"
SCANNED = 256  # containers looked at


def of_address(root: Root, address: Address) -> str | None:
    """`docker:web (nginx:1.27)`: the running container that has an address."""
    for entry in root.names(CONTAINERS)[:SCANNED]:
        if container_id(entry) is None:
            continue
        found = document(root.read(f"{CONTAINERS}/{entry}/config.v2.json"))
        state, settings, config = (found.get(key) for key in ("State", "NetworkSettings", "Config"))
        if not isinstance(state, dict) or state.get("Running") is not True or not isinstance(settings, dict):
            continue
        networks = settings.get("Networks")
        for network in list(networks.values())[:32] if isinstance(networks, dict) else ():
            keys = ("IPAddress", "GlobalIPv6Address")
            if isinstance(network, dict) and str(address) in [network.get(key) for key in keys]:
                called = name(found.get("Name")) or f"/{entry[:12]}"
                image = name(config.get("Image")) if isinstance(config, dict) else None
                return f"docker:{called.removeprefix('/')}" + (f" ({image})" if image else "")
    return None
