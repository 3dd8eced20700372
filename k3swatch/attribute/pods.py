"""Pods by what is left of them on the node: names that ServiceLB gives, log directories, network namespaces.

`/var/log/pods/<namespace>_<pod>_<uid>` (kubelet) outlives its pod. `/proc/<pid>/net/fib_trie` lists the addresses of a
process's network namespace, and `/proc/<pid>/cgroup` its pod and container: both need nothing but a running process.
"""

from __future__ import annotations

from dataclasses import dataclass

from k3swatch.attribute.clues import container_id
from k3swatch.attribute.cni import Pod, name
from k3swatch.attribute.root import Root
from k3swatch.model.port import Address

LOGS = "/var/log/pods"
TRIE = 256 << 10  # bytes of a fib_trie
_HEX, _LOWER = frozenset("0123456789abcdef"), frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


@dataclass(frozen=True, slots=True)
class Process:
    """What a cgroup says of a process in a pod."""

    pid: int
    uid: str
    container: str | None


def log_directory(root: Root, pod: Pod) -> bool:
    """Whether the kubelet made a log directory for this very pod."""
    return pod.uid is not None and root.exists(f"{LOGS}/{pod.namespace}_{pod.name}_{pod.uid}") is True


def by_uid(root: Root, uid: str) -> Pod | None:
    """The pod with this uid, by the name of its log directory."""
    for entry in root.names(LOGS):
        parts = entry.split("_")
        if len(parts) == 3 and parts[2] == uid:
            namespace, pod = name(parts[0]), name(parts[1])
            return Pod(namespace, pod, uid) if namespace and pod else None
    return None


def with_address(root: Root, address: Address) -> Process | bool | None:
    """A process of the pod that has `address`, one pod looked at once.

    False: no pod on this node has it. None: not every pod could be looked at.
    """
    seen: set[str] = set()
    complete = all_visible(root)
    for pid in [entry for entry in root.names("/proc") if entry.isascii() and entry.isdecimal()]:
        found = in_pod(root.text(f"/proc/{pid}/cgroup", 16 << 10))
        if found is None or found[0] in seen:
            continue
        trie = root.text(f"/proc/{pid}/net/{'fib_trie' if address.version == 4 else 'if_inet6'}", TRIE)
        if trie is None:
            complete = complete and root.exists(f"/proc/{pid}") is False  # it has ended meanwhile
            continue
        seen.add(found[0])
        if _holds(trie, address):
            return Process(int(pid), *found)
    return False if complete and seen and not root.spent else None


def all_visible(root: Root) -> bool:
    """Whether /proc shows all of the host's processes: it may be a container's, or mounted with hidepid."""
    cgroup = root.text("/proc/1/cgroup", 16 << 10)
    return cgroup is not None and in_pod(cgroup) is None


def in_pod(cgroup: str | None) -> tuple[str, str | None] | None:
    """Pod uid and container of a process, from /proc/PID/cgroup; None for one that is in no pod.

    `/kubepods/besteffort/pod<uid>/<id>` (cgroupfs), or
    `/kubepods.slice/.../kubepods-besteffort-pod<uid with _>.slice/cri-containerd-<id>.scope` (systemd).
    """
    for line in (cgroup or "").splitlines()[:32]:
        path = line.split(":", 2)[-1]
        parts = path.split("/")
        for position, part in enumerate(parts):
            uid = part.removesuffix(".slice").rpartition("pod")[2].replace("_", "-")
            if (
                "kubepods" in path
                and "pod" in part
                and len(uid) in (32, 36)
                and _HEX.issuperset(uid.replace("-", ""))
            ):
                leaf = parts[position + 1] if position + 1 < len(parts) else ""
                return uid, container_id(leaf.removesuffix(".scope").rpartition("-")[2])
    return None


def svclb(pod: str) -> tuple[str, str | None, str] | None:
    """DaemonSet, first 8 digits of the Service's uid, and the Service's name (cut to 48) of a ServiceLB pod.

    `svclb-kubeapi-8e92d16f-htf6q`; before 2022 there was no uid in the name (k3s#5657).
    """
    daemon_set, _, suffix = pod.rpartition("-")
    if not daemon_set.startswith("svclb-") or len(suffix) != 5 or not _LOWER.issuperset(suffix):
        return None
    service, _, uid = daemon_set.removeprefix("svclb-").rpartition("-")
    if service and len(uid) == 8 and _HEX.issuperset(uid):
        return daemon_set, uid, service
    return daemon_set, None, daemon_set.removeprefix("svclb-")


def _holds(table: str, address: Address) -> bool:
    """Whether a namespace has an address: `/32 host LOCAL` below it in fib_trie, a line of if_inet6."""
    if address.version == 6:
        wanted = f"{int(address):032x}"
        return any(line.startswith(wanted) for line in table.splitlines())
    wanted, last = str(address), ""
    for line in table.splitlines():
        text = line.strip()
        if text.startswith("|-- "):
            last = text[4:]
        elif text.startswith("/32 host LOCAL") and last == wanted:
            return True
    return False
