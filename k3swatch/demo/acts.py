"""The acts of the story: what happens to the host, in the order it happened to a real one, and who answers then."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from k3swatch.demo import kubernetes as k8s
from k3swatch.demo import node
from k3swatch.demo.apiserver import TIMEOUT
from k3swatch.demo.lab import API, HOST, HOST6, OTHER_CLUSTER
from k3swatch.demo.services import wait_until
from k3swatch.demo.stage import Stage
from k3swatch.errors import SourceError

PORTMAP_POD, OTHER_API = "10.42.0.244:6443", "192.168.1.200:6443"
CONNECTIONS = (
    ("a client on the LAN", "client", HOST),
    ("this host", "host", HOST),
    ("this host", "host", "127.0.0.1"),
    ("this host, IPv6", "host", HOST6),
)


@dataclass(frozen=True)
class Act:
    """One step of the incident: what is done, who then answers, and what has to be told."""

    title: str
    text: str
    commands: tuple[str, ...]
    do: Callable[[Stage], None]
    answers: tuple[str, str, str, str]  # in the order of CONNECTIONS
    opened: str = ""  # destination of the incident that must open
    resolved: str = ""  # destination of the one that must end
    open: tuple[str, ...] = ()  # destinations of those that are open afterwards
    anew: bool = (
        False  # the daemon was started anew: its counts begin at nothing, and what opens is another incident
    )
    restored: bool = False  # `restore` was run: show its plan, what it did, and the history of all


def _nothing(_: Stage) -> None:
    """Nothing has happened yet."""


def _pod_made(on: Stage) -> None:
    """In the order of a real node: the lease, portmap's rules, and only then the files that name the pod."""
    on.node.service_created()
    on.node.leased()
    k8s.portmap_add(on.lab.host, on.lab.pod)
    on.node.cached()
    on.node.started()


def _service_deleted(on: Stage) -> None:
    """kube-proxy hears of it. The cloud controller, cut off, did not: ServiceLB's DaemonSet stays."""
    on.node.service_deleted()
    k8s.service_off(on.lab.host)


def _rebooted(on: Stage) -> None:
    """Rules and sandboxes do not outlive it; what is in the datastore does: the DaemonSet's pod is made anew."""
    with on.lab.host.inside():
        on.daemon.stop()
        on.lab.host.run("nft", "flush", "ruleset")
        on.node.ended()
        k8s.restore(on.lab.host, k8s.WITHOUT_SERVICE)
        on.daemon.start()
        with suppress(SourceError):
            wait_until(on.daemon.probe, "probe")
    on.node.container = k8s.CONTAINER_AFTER
    on.node.leased()
    k8s.portmap(on.lab.host, "ADD", on.lab.pod, container=k8s.CONTAINER_AFTER)
    on.node.cached()
    on.node.started()


def _restored(on: Stage) -> None:
    """The plan, its local part by k3swatch itself, then what the plan has kubectl do and containerd after it."""
    with on.lab.host.inside():
        for word, options in (("planned", ()), ("done", ("--apply",))):
            root = str(on.node.directory)
            text = on.daemon.ask("restore", "tcp/6443", *options, "--format", "json", "--root", root)
            with suppress(ValueError):
                on.said[word] = json.loads(text)
    on.node.daemon_set_deleted()
    k8s.portmap(on.lab.host, "DEL", on.lab.pod, container=k8s.CONTAINER_AFTER)
    on.node.ended()


ACTS = (
    Act(
        "A healthy K3s host",
        "The API server of this host owns port 6443. kube-proxy's rules are loaded, none of them takes the port.",
        (),
        _nothing,
        (API, API, API, API),
    ),
    Act(
        "Somebody creates a LoadBalancer Service with port 6443",
        "It is meant for the API of another cluster. ServiceLB starts a pod with hostPort 6443 on this host, and "
        "containerd calls the CNI plugin portmap (the real one, here) to send the port there.",
        (f"{k8s.PORTMAP} ADD   (hostPort 6443 -> {PORTMAP_POD})",),
        _pod_made,
        (OTHER_CLUSTER, OTHER_CLUSTER, OTHER_CLUSTER, API),
        opened=PORTMAP_POD,
        open=(PORTMAP_POD,),
    ),
    Act(
        "The Service gets its status, and with it a second cause",
        "ServiceLB publishes the host's own address as the load balancer's. kube-proxy takes port 6443 of that "
        "address, ahead of portmap. The same machine answers; but from now on there are two causes to remove.",
        (f"iptables-restore   (KUBE-SERVICES -d {HOST} --dport 6443 -> KUBE-EXT-...)",),
        lambda on: k8s.kube_ext_on(on.lab.host),
        (OTHER_CLUSTER, OTHER_CLUSTER, OTHER_CLUSTER, API),
        opened=OTHER_API,
        open=(PORTMAP_POD, OTHER_API),
    ),
    Act(
        "The fix that everybody finds first",
        "The chain that portmap made for the pod is flushed. kubectl on this host, which uses 127.0.0.1, works "
        "again; everybody else still talks to the other cluster.",
        (f"iptables -t nat -F {k8s.CNI_DN}",),
        lambda on: k8s.flush_cni_dn(on.lab.host),
        (OTHER_CLUSTER, OTHER_CLUSTER, API, API),
        resolved=PORTMAP_POD,
        open=(OTHER_API,),
    ),
    Act(
        "The Service is deleted, what it made is not",
        "kube-proxy removes its rules, and everybody reaches the API again. But the cloud controller was cut off "
        "when it mattered: ServiceLB's DaemonSet stays, without a Service, and so does its pod. Nobody looks any more.",
        ("kubectl delete service kubeapi-loadbalancer   (what kube-proxy then does)",),
        _service_deleted,
        (API, API, API, API),
        resolved=OTHER_API,
    ),
    Act(
        "A reboot brings it back",
        "The flushed rules are gone for good, and so is the Service; the DaemonSet is not. Its pod is made anew, "
        "portmap takes the port for it, and now it leads to a ClusterIP that no Service has.",
        ("reboot   (K3s starts; the DaemonSet's pod gets a new sandbox, and portmap ADD)",),
        _rebooted,
        (TIMEOUT, TIMEOUT, TIMEOUT, API),
        opened=PORTMAP_POD,
        open=(PORTMAP_POD,),
        anew=True,
    ),
    Act(
        "What would have ended it at once",
        "k3swatch says what to undo, in which order: the DaemonSet is an orphan, and the rule alone would come back. "
        "With --apply it takes out the rule itself, in one transaction, and ends what is stuck.",
        ("k3swatch restore tcp/6443 --apply", f"kubectl -n kube-system delete daemonset {node.DAEMON_SET}"),
        _restored,
        (API, API, API, API),
        resolved=PORTMAP_POD,
        restored=True,
    ),
)
