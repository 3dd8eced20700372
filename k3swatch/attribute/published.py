"""Containers with a published port that are no pods: docker's and podman's, by address.

docker: `/var/lib/docker/containers/<id>/config.v2.json` (moby, container/), which says whether it runs. podman:
`/run/containers/storage/overlay-containers/<id>/userdata/hosts` (a tmpfs; the last line has the container's address,
and its id's first 12 digits as host name), and the name from containers/storage's `containers.json`. netavark's own
state is a binary database, but its rules carry the id, in portmap's words.
"""

from __future__ import annotations

import json
from typing import Any

from k3swatch.attribute.clues import container_id
from k3swatch.attribute.cni import document, name
from k3swatch.attribute.root import Root
from k3swatch.model.port import Address

DOCKER = "/var/lib/docker/containers"
PODMAN, PODMAN_RUN = "/var/lib/containers/storage", "/run/containers/storage"
DRIVERS = ("overlay", "vfs", "btrfs")
SCANNED = 256  # containers looked at
SIZE = 1 << 20  # bytes of containers.json


def of_address(root: Root, address: Address, container: str | None = None) -> tuple[str, str] | None:
    """The source's word and `docker:web (nginx:1.27)` or `podman:web`: the running container that has an address.

    `container`: the id that a rule names, tried first.
    """
    found = _docker(root, address)
    if found is not None:
        return "docker", found
    found = _podman(root, address, container)
    return ("podman", found) if found is not None else None


def _docker(root: Root, address: Address) -> str | None:
    for entry in root.names(DOCKER)[:SCANNED]:
        if container_id(entry) is None:
            continue
        found = document(root.read(f"{DOCKER}/{entry}/config.v2.json"))
        state, settings, config = (found.get(key) for key in ("State", "NetworkSettings", "Config"))
        if not isinstance(state, dict) or state.get("Running") is not True or not isinstance(settings, dict):
            continue
        networks = settings.get("Networks")
        for network in list(networks.values())[:32] if isinstance(networks, dict) else ():
            keys = ("IPAddress", "GlobalIPv6Address")
            if isinstance(network, dict) and str(address) in [network.get(key) for key in keys]:
                called = name(found.get("Name")) or f"/{entry[:12]}"
                image = name(config.get("Image")) if isinstance(config, dict) else None
                return _said("docker", called.removeprefix("/"), image)
    return None


def _podman(root: Root, address: Address, container: str | None) -> str | None:
    for driver in DRIVERS:
        directory = f"{PODMAN_RUN}/{driver}-containers"
        known = [entry for entry in root.names(directory)[:SCANNED] if container_id(entry)]
        for entry in sorted(known, key=lambda each: each != container):
            lines = (root.text(f"{directory}/{entry}/userdata/hosts", 64 << 10) or "").splitlines()[:256]
            if any(
                words[0] == str(address) and entry[:12] in words for line in lines if (words := line.split())
            ):
                return _storage_name(root, driver, entry)
    return None


def _storage_name(root: Root, driver: str, container: str) -> str:
    """What containers/storage calls it; its id's first digits when that cannot be read."""
    try:
        listed = json.loads(root.read(f"{PODMAN}/{driver}-containers/containers.json", SIZE) or b"")
    except (ValueError, RecursionError):
        listed = []
    for each in listed[:4096] if isinstance(listed, list) else ():
        if isinstance(each, dict) and each.get("id") == container:
            names: Any = each.get("names")
            called = name(names[0]) if isinstance(names, list) and names else None
            metadata = each.get("metadata")
            image = (
                document(metadata.encode(errors="replace")).get("image-name")
                if isinstance(metadata, str)
                else None
            )
            return _said("podman", called or container[:12], name(image))
    return _said("podman", container[:12], None)


def _said(program: str, called: str, image: str | None) -> str:
    return f"{program}:{called}" + (f" ({image})" if image else "")
