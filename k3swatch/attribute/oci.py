"""What containerd says of its running containers, without asking it: the OCI config.json of each task.

`<state>/io.containerd.runtime.v2.task/k8s.io/<id>/config.json` (a tmpfs: it is gone with the task). The sandbox's has
the pod's name in its annotations (containerd pkg/cri/annotations); a klipper-lb container's environment says where it
sends connections on (k3s pkg/cloudprovider/servicelb.go: SRC_PORT, DEST_IPS, DEST_PORT).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from k3swatch.attribute.cni import Pod, document, name
from k3swatch.attribute.root import Root

# K3s and RKE2 bring their own containerd; a distribution's; MicroK8s'; k0s'
STATES = (
    "/run/k3s/containerd",
    "/run/containerd",
    "/var/snap/microk8s/common/run/containerd",
    "/run/k0s/containerd",
)
_TASKS = "io.containerd.runtime.v2.task/k8s.io"
_CRI = "io.kubernetes.cri."
SCANNED = 512  # tasks looked at to find a sandbox's containers


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod's sandbox, as containerd runs it."""

    pod: Pod | None
    netns: str | None
    tasks: str  # the directory it was found in


@dataclass(frozen=True, slots=True)
class Forwarder:
    """A klipper-lb container: connections to `port` go on to `port` of `addresses`, ClusterIPs most often."""

    port: int
    addresses: tuple[str, ...]
    to: int


def sandbox(root: Root, container: str) -> Sandbox | None:
    """The sandbox with this id, when its task is there."""
    for tasks in _directories():
        found = document(root.read(f"{tasks}/{container}/config.json"))
        if found:
            return Sandbox(_pod(_annotations(found), container), _netns(found), tasks)
    return None


def running(root: Root, container: str) -> bool | None:
    """Whether containerd has a task with this id; None when no containerd can be looked at."""
    looked = False
    for tasks in _directories():
        there = root.exists(f"{tasks}/{container}")
        if there:
            return True
        looked = looked or (there is False and root.exists(tasks) is True)
    return False if looked else None


def forwarders(root: Root, container: str, tasks: str) -> list[Forwarder]:
    """What the klipper-lb containers of a sandbox do with connections."""
    found = []
    for task in root.names(tasks)[:SCANNED]:
        config = document(root.read(f"{tasks}/{task}/config.json")) if task != container else {}
        if _annotations(config).get(f"{_CRI}sandbox-id") == container:
            forwarder = _forwarder(config)
            found += [forwarder] if forwarder else []
    return found


def _directories() -> tuple[str, ...]:
    return tuple(f"{state}/{_TASKS}" for state in STATES)


def _annotations(config: dict[str, Any]) -> dict[str, Any]:
    found = config.get("annotations")
    return found if isinstance(found, dict) else {}


def _pod(annotations: dict[str, Any], container: str) -> Pod | None:
    if annotations.get(f"{_CRI}sandbox-id") != container:
        return None
    namespace, pod = (
        name(annotations.get(f"{_CRI}sandbox-namespace")),
        name(annotations.get(f"{_CRI}sandbox-name")),
    )
    return Pod(namespace, pod, name(annotations.get(f"{_CRI}sandbox-uid"), 64)) if namespace and pod else None


def _netns(config: dict[str, Any]) -> str | None:
    linux = config.get("linux")
    spaces = linux.get("namespaces") if isinstance(linux, dict) else None
    for space in spaces if isinstance(spaces, list) else ():
        if isinstance(space, dict) and space.get("type") == "network":
            return name(space.get("path"), 512)
    return None


def _forwarder(config: dict[str, Any]) -> Forwarder | None:
    process = config.get("process")
    lines = process.get("env") if isinstance(process, dict) else None
    environment: dict[str, str] = {}
    for line in lines[:256] if isinstance(lines, list) else ():
        if isinstance(line, str):
            key, _, value = line[:512].partition("=")
            environment[key] = value
    source, target = _port(environment.get("SRC_PORT")), _port(environment.get("DEST_PORT"))
    addresses = [_address(each) for each in environment.get("DEST_IPS", "").replace(",", " ").split()[:4]]
    known = tuple(each for each in addresses if each)
    return Forwarder(source, known, target) if source and target and known else None


def _port(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536 else None


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
