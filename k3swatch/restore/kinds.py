"""What kind of cause is behind findings: it decides what has to go, and who must let go of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, auto

from k3swatch.model.finding import Culprit, Finding, Orphan
from k3swatch.model.words import Mechanism, State
from k3swatch.restore.owners import by


class Cause(Enum):
    """Each has one way to undo it."""

    SERVICE = auto()  # a LoadBalancer Service: its address, or the pod that ServiceLB made for it
    EXTERNAL_IP = auto()
    NODE_PORT = auto()
    PROXIED = auto()  # kube-proxy, for a Service: which of the three cannot be told
    HOST_PORT = auto()
    ORPHAN = auto()  # ServiceLB's DaemonSet, the Service is gone
    STALE = auto()  # portmap's chain, the pod is gone
    CONTAINER = auto()  # docker, podman
    RULE = auto()  # nobody is known to put it in again
    BLOCKED = auto()
    SOCKET = auto()
    BPF = auto()
    IPVS = auto()
    UNKNOWN = auto()


def kind(findings: Sequence[Finding]) -> Cause:
    """The kind of one cause, from all of its findings (at least one)."""
    first = findings[0]
    who = next((each.culprit for each in findings if each.culprit is not None), None) or Culprit()
    path = [step for each in findings for step in each.path]
    if first.mechanism is Mechanism.SOCKET:
        return Cause.SOCKET
    if first.mechanism is Mechanism.BPF:
        return Cause.BPF
    if first.mechanism is Mechanism.IPVS:
        return Cause.IPVS
    if not path or first.state is State.UNKNOWN:
        return Cause.UNKNOWN
    if first.state is State.BLOCKED:
        return Cause.BLOCKED
    if by(path, "portmap"):
        return _of_pod(who)
    if by(path, "kube-proxy"):
        return _of_proxy(first)
    if by(path, "docker") or by(path, "podman"):
        return Cause.CONTAINER
    return Cause.RULE


def taken(finding: Finding) -> Finding:
    """The finding without what refuses the connection where it was sent: the way there is what has to be undone."""
    if not finding.refusing:
        return finding
    return replace(finding, state=State.DIVERTED, path=finding.path[: -finding.refusing], refusing=0)


def serviced(who: Culprit) -> bool:
    """Whether ServiceLB made the pod."""
    return (who.owner or "").startswith("DaemonSet/svclb-")


def _of_pod(who: Culprit) -> Cause:
    if who.left_behind:
        return Cause.ORPHAN if who.orphan is Orphan.SERVICE and serviced(who) else Cause.STALE
    return Cause.SERVICE if serviced(who) and who.service else Cause.HOST_PORT


def _of_proxy(finding: Finding) -> Cause:
    """kube-proxy says in a comment (iptables mode), or by the map that was asked (nftables mode), for what."""
    said = " ".join(f"{step.comment or ''} {step.rule}" for step in finding.path)
    chains = {step.chain for step in finding.path}
    if "KUBE-NODEPORTS" in chains or "@service-nodeports" in said:
        return Cause.NODE_PORT
    if "external IP" in said:
        return Cause.EXTERNAL_IP
    if "loadbalancer IP" in said:
        return Cause.SERVICE
    return Cause.PROXIED
