"""A K3s-like host, its LAN, another cluster and two pods, in private network namespaces.

    client 192.168.1.50 ─┐                                   ┌─ pod    10.42.0.244  a klipper-lb: sends 6443 on
    other  192.168.1.200 ┼─ lan ── eth0 host 192.168.1.233 cni0 ┤      to the other cluster
    (another cluster's API)                                  └─ web    10.42.0.9    any other pod

The host's API server listens on 6443 of every address, v4 and v6, and on 127.0.0.1:6444 as K3s does. Every server
says its name, so `who_answers` tells where a connection really ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from k3swatch.demo.apiserver import ApiServer
from k3swatch.demo.netns import Namespace, namespaces

HOST, HOST6 = "192.168.1.233", "fd00:1::233"
CLIENT, CLIENT6 = "192.168.1.50", "fd00:1::50"
CLIENT_B, CLIENT6_B = "192.168.1.51", "fd00:1::51"  # the same machine, another address
OTHER, OTHER6 = "192.168.1.200", "fd00:1::200"
POD, POD6 = "10.42.0.244", "fd42::244"
WEB, WEB6 = "10.42.0.9", "fd42::9"
CNI0, CNI0_6 = "10.42.0.1", "fd42::1"

API, API_6444, OTHER_CLUSTER = "K3S-APISERVER", "K3S-6444", "OTHER-CLUSTER"
LOCAL_8443, WEB_POD = "LOCAL-8443", "WEB-POD"


# policy rules and refusing routes as they were: none; the new local rule is there before the old one goes
_ROUTING = """
for family in -4 -6; do
  [ "$(ip $family rule | grep -Ecv '^(0|32766|32767):')" = 0 ] && ip $family rule | grep -q ^0: || {
    ip $family rule flush; ip $family rule | grep -q ^0: || ip $family rule add pref 0 lookup local
    ip $family rule add pref 32766 lookup main; ip $family rule add pref 32767 lookup default
  }
  for type in blackhole unreachable prohibit throw; do ip $family route flush type $type 2>/dev/null || true; done
done
"""


@dataclass(frozen=True)
class Lab:
    """The namespaces, each under the name the drawing gives it."""

    host: Namespace
    client: Namespace
    other: Namespace
    pod: Namespace
    web: Namespace

    def reset(self) -> None:
        """The host without any rule, as it was when the lab was made (but legacy tables, once made, stay)."""
        self.host.shell(
            "nft flush ruleset\n"
            "conntrack -F 2>/dev/null || true\n"
            "for name in all eth0 cni0; do sysctl -qw net.ipv4.conf.$name.route_localnet=0"
            " net.ipv4.conf.$name.rp_filter=0 net.ipv4.conf.$name.forwarding=1; done\n"
            "sysctl -qw net.ipv4.conf.all.src_valid_mark=0 net.ipv6.conf.all.forwarding=1\n"
            "sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 2>/dev/null || true"
            f"\n{_ROUTING}"
        )


@contextmanager
def lab(proxy_to: str = OTHER, host: Namespace | None = None) -> Iterator[Lab]:
    """The lab, up and answering; everything is gone when the block ends.

    `proxy_to` is where the klipper-lb pod sends v4 connections: the other cluster itself, or the ClusterIP of a
    Service for it (then the host needs kube-proxy's rules, see `kubernetes`). `host` is a namespace to build it around,
    instead of a fresh one: a virtual machine's own; what is added to that one stays.
    """
    with ExitStack() as stack:
        spaces = stack.enter_context(wired(host))
        host, other, pod = spaces["host"], spaces["other"], spaces["pod"]
        for server in (
            ApiServer(host, API, 6443),
            ApiServer(host, API_6444, 6444, "127.0.0.1"),
            ApiServer(host, LOCAL_8443, 8443, transparent=True),
            ApiServer(other, OTHER_CLUSTER, 6443),
            ApiServer(spaces["web"], WEB_POD, 6443),
        ):
            stack.enter_context(server)
        klipper(pod, proxy_to)
        klipper(pod, OTHER6)
        yield Lab(host, spaces["client"], other, pod, spaces["web"])


@contextmanager
def wired(host: Namespace | None = None) -> Iterator[dict[str, Namespace]]:
    """The lab's namespaces by name, wired up, with nobody in them who answers."""
    around = ("lan", "client", "other", "pod", "web")
    with namespaces(*around, *(() if host else ("host",))) as spaces:
        if host is not None:
            spaces["host"] = host
        _wire(spaces)
        yield spaces


def klipper(pod: Namespace, destination: str) -> None:
    """What klipper-lb's `entry` does inside its pod, and only there: DNAT to the Service, MASQUERADE."""
    tool, bracketed = ("ip6tables", f"[{destination}]") if ":" in destination else ("iptables", destination)
    pod.shell(
        f"{tool} -t nat -I PREROUTING -p tcp --dport 6443 -j DNAT --to {bracketed}:6443\n"
        f"{tool} -t nat -I POSTROUTING -d {destination} -p tcp -j MASQUERADE"
    )


def _wire(spaces: dict[str, Namespace]) -> None:
    """Links, addresses, routes, forwarding."""
    for space in spaces.values():  # no duplicate address detection: addresses work at once
        space.sysctl(ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_dad=0)
        space.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0)
    for name in ("host", "pod"):
        spaces[name].sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    machines, pods = ("host", "client", "other"), ("pod", "web")
    spaces["lan"].ip(
        "link add br0 type bridge",
        "link set br0 up",
        *(f"link add {to} type veth peer name eth0 netns {spaces[to].name}" for to in machines),
        *(f"link set {to} master br0 up" for to in machines),
    )
    spaces["host"].ip(
        *_addresses("eth0", f"{HOST}/24", f"{HOST6}/64"),
        "link add cni0 type bridge",
        *_addresses("cni0", f"{CNI0}/24", f"{CNI0_6}/64"),
        *(f"link add veth{to} type veth peer name eth0 netns {spaces[to].name}" for to in pods),
        *(f"link set veth{to} master cni0 up" for to in pods),
        "route add default via 192.168.1.1",
        "route add default via fd00:1::1",
    )
    spaces["client"].ip(
        *_addresses("eth0", f"{CLIENT}/24", f"{CLIENT_B}/24", f"{CLIENT6}/64", f"{CLIENT6_B}/64")
    )
    spaces["other"].ip(
        *_addresses("eth0", f"{OTHER}/24", f"{OTHER6}/64"),
        f"route add 10.42.0.0/16 via {HOST}",
        f"route add fd42::/64 via {HOST6}",
    )
    for name, address, address6 in (("pod", POD, POD6), ("web", WEB, WEB6)):
        spaces[name].ip(
            *_addresses("eth0", f"{address}/24", f"{address6}/64"),
            f"route add default via {CNI0}",
            f"route add default via {CNI0_6}",
        )


def _addresses(interface: str, *addresses: str) -> list[str]:
    """The ip(8) lines that give an interface its addresses and bring it and loopback up."""
    return [
        "link set lo up",
        *(f"address add {address} dev {interface}" for address in addresses),
        f"link set {interface} up",
    ]
