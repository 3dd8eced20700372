"""The ports that are K3s's or RKE2's own on a host, each with the listener that must have it. Pure.

K3s is one process: API, kubelet and embedded etcd are its sockets. RKE2 runs API server and etcd as static pods, whose
control groups say only that they are pods: for those nobody is named, and k3swatch compares sockets as it does without.
A port that is not served is `unserved`, which is no alarm: a wrong guess here costs a line, not a night.
"""

from __future__ import annotations

import ipaddress

from k3swatch.k3s.settings import Settings
from k3swatch.model.port import LOCAL, Listener, Network, ProtectedPort

API, APISERVER, LB = "k3s-api", "k3s-apiserver", "k3s-lb"
SUPERVISOR, RKE2_API = "rke2-supervisor", "rke2-api"
KUBELET, ETCD_CLIENT, ETCD_PEER = "kubelet", "etcd-client", "etcd-peer"
NAMES = (API, APISERVER, LB, SUPERVISOR, RKE2_API, KUBELET, ETCD_CLIENT, ETCD_PEER)
SERVING = (API, APISERVER, LB, RKE2_API)  # where the Kubernetes API is dialled

_LOOPBACK: tuple[str | Network, ...] = (ipaddress.ip_network("127.0.0.1"),)
_LOOPBACK6: tuple[str | Network, ...] = (ipaddress.ip_network("::1"),)


def of(settings: Settings, listener: Listener) -> tuple[ProtectedPort, ...]:
    """The ports, the most important first. `listener`: who K3s's (or RKE2's own) process is."""
    anybody = Listener()
    only6 = all(network.version == 6 for network in settings.service_networks)
    loopback = _LOOPBACK6 if only6 else _LOOPBACK
    found: list[ProtectedPort] = []

    def add(
        name: str, port: int, who: Listener = listener, where: tuple[str | Network, ...] = (LOCAL,)
    ) -> None:
        if port not in [each.port for each in found]:
            found.append(ProtectedPort(name, port, addresses=where, listener=who))

    if settings.server and settings.program == "k3s":
        add(API, settings.https_port)
        add(APISERVER if settings.apiserver else LB, settings.apiserver_port, where=loopback)
    elif settings.server:
        add(RKE2_API, 6443, anybody)
        add(SUPERVISOR, 9345)
    else:
        add(LB, settings.lb_port, where=loopback)
        if (
            settings.program == "rke2"
        ):  # API server and supervisor are not one there, so it has a second balancer
            add(RKE2_API, settings.lb_port - 1, where=loopback)
    if settings.agent:
        add(KUBELET, settings.kubelet_port)
    if settings.etcd:
        who = listener if settings.program == "k3s" else anybody
        add(ETCD_CLIENT, 2379, who)
        add(ETCD_PEER, 2380, who)
    return tuple(found)
