"""Whose a rule is, by the names that its owner gives chains and tables, and when he puts it in again. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from k3swatch.model.finding import PathStep
from k3swatch.model.ruleset import LEGACY

# prefix of a chain's name, or a table's: who writes it, when it comes back
_CHAINS = (
    ("KUBE-", "kube-proxy", "within 30 seconds, as long as the Service is there"),
    ("CNI-", "portmap", "when the pod is made anew, as long as its owner is there"),
    ("DOCKER", "docker", "when the container or dockerd starts again"),
    ("NETAVARK", "podman", "when the container starts again"),
    ("cali-", "calico-node", "within 90 seconds, as long as the policy is there"),
    ("CILIUM_", "cilium-agent", "when it starts again"),
    ("FLANNEL-", "flannel", "within 5 seconds"),
    ("ufw-", "ufw", "when ufw is reloaded"),
    ("f2b-", "fail2ban", "when the ban is made anew"),
)
_TABLES = (
    ("kube-proxy", "kube-proxy", "within 30 seconds, as long as the Service is there"),
    ("cni_hostport", "portmap", "when the pod is made anew, as long as its owner is there"),
    ("firewalld", "firewalld", "when firewalld is reloaded"),
    ("docker-bridges", "docker", "when the container or dockerd starts again"),
    ("netavark", "podman", "when the container starts again"),
)


_FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")  # and those of iptables-legacy


def ruled(step: PathStep) -> bool:
    """Whether a step is a rule of netfilter; not a route, a socket, a BPF program, a virtual server."""
    return step.family.removeprefix(f"{LEGACY} ") in _FAMILIES


def owner(step: PathStep) -> tuple[str, str] | None:
    """Who writes this rule and when it comes back; None when nobody is known to."""
    for name, prefixes in ((step.chain, _CHAINS), (step.table, _TABLES)):
        for prefix, who, when in prefixes:
            if name.startswith(prefix):
                return who, when
    return None


def back(step: PathStep) -> str | None:
    """`kube-proxy, within 30 seconds, as long as the Service is there`."""
    found = owner(step)
    return ", ".join(found) if found else None


def by(path: Sequence[PathStep], who: str) -> bool:
    """Whether any rule of a path is of `who`."""
    return any(found is not None and found[0] == who for found in map(owner, path))


def words(step: PathStep) -> str:
    """A rule with its place, to name it in what is left alone."""
    return f"{step.family} {step.table} {step.chain} handle {step.handle}: {step.rule}"
