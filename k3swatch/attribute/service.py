"""The owner of a pod and the Service behind it: by kine where there is one, else by the names that ServiceLB gives.

ServiceLB's pods carry their Service in two labels, `svccontroller.k3s.cattle.io/svcname` and `.../svcnamespace` (RKE2:
`.rke2.`); the DaemonSet has no owner reference to it, and so outlives it when the cloud controller is cut off.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from k3swatch.attribute import cri, pods
from k3swatch.attribute.cni import Pod
from k3swatch.attribute.kine import Kine
from k3swatch.attribute.wire import Meta

_PROGRAMS = ("k3s", "rke2")
CUT = 48  # characters of a Service's name in that of its DaemonSet


@dataclass(frozen=True, slots=True)
class Served:
    """`confirmed`: the datastore has this Service. `gone`: it had to, and does not."""

    owner: str | None = None
    service: str | None = None
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    confirmed: bool = False
    gone: bool = False


def serve(
    pod: Pod | None,
    ruled: str | None,
    services: Collection[str],
    kine: Kine,
    labels: Mapping[str, str] | None = None,
) -> Served:
    """Owner and Service of a pod. `ruled`: the Service that the rules on the way name; it is the one that was dialled.

    `services`: those that other rules of this host name, for a pod whose name tells only half. `labels`: the pod's, as
    the container runtime has them.
    """
    meta = _of_pod(pod, kine)
    lb = pods.svclb(pod.name) if pod else None
    sources: list[str] = ["kine"] if meta is not None else []
    by_labels = cri.owner(pod, labels) if pod and labels else None
    owner = "/".join(meta.owner) if meta and meta.owner else by_labels
    owner = owner or (f"DaemonSet/{lb[0]}" if lb else None)
    service, uid = ruled, None
    against: tuple[str, ...] = ()
    if service is None and pod is not None and lb is not None:
        uid = lb[1]
        stored = _labelled(meta.labels if meta else None) or _labelled(_of_set(pod, lb[0], kine))
        listed = _labelled(labels)
        if stored and listed and stored != listed:
            against = (f"the datastore's labels say Service {stored}, the CRI's say {listed}",)
        service = stored or listed
        if service is None:
            service = next((each for each in sorted(services) if each.partition("/")[2][:CUT] == lb[2]), None)
            sources.append("kube-proxy" if service else "name")
            service = service or lb[2]
    elif lb is not None and "kine" not in sources:
        sources.append("name")
    if service is None or "/" not in service:
        notes = (
            () if service is None else ("the Service is known by the pod's name only, its namespace is not",)
        )
        return Served(owner, service, tuple(sources), notes)
    return replace(_verified(owner, service, uid, sources, kine), against=against)


def _verified(owner: str | None, service: str, uid: str | None, sources: list[str], kine: Kine) -> Served:
    """Whether the datastore still has the Service, and whether it is the same one."""
    found = kine.service(*service.split("/", 1))
    if found is None:
        return Served(owner, service, tuple(sources))
    if "kine" not in sources:
        sources.append("kine")
    if not found.exists:
        return Served(owner, service, tuple(sources), (f"kine has no Service {service}",), gone=True)
    if uid and found.meta.uid and not found.meta.uid.startswith(uid):
        note = (
            f"Service {service} was made anew since: kine has uid {found.meta.uid[:8]}, the pod is of {uid}"
        )
        return Served(owner, service, tuple(sources), (note,), gone=True)
    return Served(owner, service, tuple(sources), confirmed=True)


def _of_pod(pod: Pod | None, kine: Kine) -> Meta | None:
    found = kine.pod(pod.namespace, pod.name) if pod else None
    if pod is None or found is None or not found.exists:
        return None
    return (
        found.meta if pod.uid is None or found.meta.uid == pod.uid else None
    )  # else another one of that name


def _of_set(pod: Pod, name: str, kine: Kine) -> Mapping[str, str] | None:
    found = kine.daemon_set(pod.namespace, name)
    return found.meta.labels if found is not None and found.exists else None


def _labelled(labels: Mapping[str, str] | None) -> str | None:
    """The Service in ServiceLB's labels."""
    for program in _PROGRAMS if labels else ():
        prefix = f"svccontroller.{program}.cattle.io/"
        name, namespace = (
            (labels.get(prefix + key) for key in ("svcname", "svcnamespace")) if labels else ("", "")
        )
        if name and namespace:
            return f"{namespace}/{name}"
    return None
