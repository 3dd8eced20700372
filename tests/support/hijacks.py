"""Ways a port is taken, each with who answers then: rules that real tools load, judged by real connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from k3swatch.demo import kubernetes as k8s
from k3swatch.demo.apiserver import who_answers
from k3swatch.demo.lab import API, HOST, HOST6, LOCAL_8443, OTHER, OTHER6, OTHER_CLUSTER, Lab

DIALS = (
    ("client", HOST),
    ("client", HOST6),
    ("web", HOST),
    ("host", HOST),
    ("host", "127.0.0.1"),
    ("host", HOST6),
)
ALL_OURS = (API,) * len(DIALS)


def answers(on: Lab) -> tuple[str, ...]:
    return tuple(who_answers(getattr(on, who), address, 6443) for who, address in DIALS)


@dataclass(frozen=True)
class Hijack:
    """Rules that take the port, and who answers then, in the order of DIALS."""

    name: str
    make: Callable[[Lab], object]
    answers: tuple[str, ...]
    removed: int
    kinds: tuple[str, ...] = field(default=("rules", "flows", "prove"))


def nft(*lines: str) -> Callable[[Lab], str]:
    return lambda on: on.host.shell("nft -f - <<'END'\n" + "\n".join(lines) + "\nEND")


def portmap(on: Lab) -> None:
    k8s.portmap_add(on.host, on.pod)


def service(on: Lab) -> None:
    portmap(on)
    k8s.kube_ext_on(on.host)


OTHERS = (OTHER_CLUSTER, API, OTHER_CLUSTER, OTHER_CLUSTER, OTHER_CLUSTER, API)
OUTSIDE = (OTHER_CLUSTER, OTHER_CLUSTER, OTHER_CLUSTER, API, API, API)
HIJACKS = (
    Hijack("hostPort", portmap, OTHERS, 1, ("talk", "cause", "rules", "flows", "prove")),
    Hijack(
        "LoadBalancer", service, OTHERS, 2, ("talk", "cause", "cause", "check", "rules", "flows", "prove")
    ),
    Hijack(
        "iptables by hand, v4 and v6",
        lambda on: on.host.shell(
            f"iptables-nft -t nat -I PREROUTING -p tcp --dport 6443 -j DNAT --to {OTHER}:6443\n"
            f"ip6tables-nft -t nat -I PREROUTING -p tcp --dport 6443 -j DNAT --to [{OTHER6}]:6443\n"
            "iptables-nft -t nat -A POSTROUTING -j MASQUERADE; ip6tables-nft -t nat -A POSTROUTING -j MASQUERADE"
        ),
        OUTSIDE,
        2,
    ),
    Hijack(
        "several ports in one xtables match",
        lambda on: on.host.shell(
            "iptables-nft -t nat -I PREROUTING -p tcp -m multiport --dports 6443,7000:7010 "
            f"-m comment --comment 'two words' -j DNAT --to {OTHER}:6443\n"
            "iptables-nft -t nat -A POSTROUTING -j MASQUERADE"
        ),
        (OTHER_CLUSTER, API, OTHER_CLUSTER, API, API, API),
        1,
    ),
    Hijack(
        "redirect in an inet table, userdata comment, between others",
        nft(
            "table inet mine {",
            " chain pre { type nat hook prerouting priority -105;",
            '  tcp dport 22 counter comment "first"',
            '  tcp dport 6443 counter redirect to :8443 comment "evil"',
            '  tcp dport 6443 counter redirect to :9999 comment "and what waits behind"',
            '  tcp dport 23 counter comment "last"',
            " }",
            "}",
        ),
        (LOCAL_8443, LOCAL_8443, LOCAL_8443, API, API, API),
        2,
    ),
    Hijack(
        "a named map of ports",
        nft(
            "table ip maps {",
            f" map ports {{ type inet_service : ipv4_addr; elements = {{ 6443 : {OTHER}, 7443 : 10.9.9.9 }}; }}",
            " chain pre { type nat hook prerouting priority -105; dnat to tcp dport map @ports; }",
            " chain post { type nat hook postrouting priority 100; masquerade; }",
            "}",
        ),
        (OTHER_CLUSTER, API, OTHER_CLUSTER, API, API, API),
        1,
    ),
    Hijack(
        "kube-proxy's nftables mode: an element of a verdict map",
        nft(
            "table ip kube-proxy {",
            " map service-ips { type ipv4_addr . inet_proto . inet_service : verdict;",
            f'  elements = {{ {HOST} . tcp . 6443 comment "ns/svc" : goto external-ABCDEFGH-ns/svc/tcp/https,',
            "               10.43.0.77 . tcp . 6443 : goto service-ABCDEFGH-ns/svc/tcp/https }",
            " }",
            " chain external-ABCDEFGH-ns/svc/tcp/https { goto service-ABCDEFGH-ns/svc/tcp/https; }",
            f" chain service-ABCDEFGH-ns/svc/tcp/https {{ meta l4proto tcp dnat to {OTHER}:6443; }}",
            " chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }",
            " chain nat-prerouting { type nat hook prerouting priority -105; jump services; }",
            " chain nat-output { type nat hook output priority -105; jump services; }",
            " chain post { type nat hook postrouting priority 100; masquerade; }",
            "}",
        ),
        (OTHER_CLUSTER, API, OTHER_CLUSTER, OTHER_CLUSTER, API, API),
        1,
        ("talk", "cause", "check", "rules", "flows", "prove"),
    ),
    Hijack(
        "a rule with anonymous sets of its own",
        nft(
            "table ip sets {",
            " chain pre { type nat hook prerouting priority -105;",
            f"  ip saddr {{ 192.168.1.0/24, 10.42.0.0-10.42.0.99 }} tcp dport 6443 dnat to {OTHER}:6443;",
            " }",
            " chain post { type nat hook postrouting priority 100; masquerade; }",
            "}",
        ),
        (OTHER_CLUSTER, API, OTHER_CLUSTER, API, API, API),
        1,
    ),
    Hijack(
        "refused by a filter rule",
        nft(
            "table inet fw {",
            " chain in { type filter hook input priority 0;",
            '  tcp dport 6443 counter reject with tcp reset comment "closed"',
            " }",
            "}",
        ),
        ("refused",) * 6,
        1,
        ("rules", "prove"),
    ),
)


def legacy(on: Lab) -> None:
    comment = "-m comment --comment 'a b'"
    on.host.shell(
        f"iptables-legacy -t nat -I PREROUTING -p tcp --dport 6443 {comment} -j DNAT --to {OTHER}:6443\n"
        f"iptables-legacy -t nat -A POSTROUTING -d {OTHER} -j MASQUERADE"
    )


LEGACY = Hijack(
    "iptables-legacy",
    legacy,
    (OTHER_CLUSTER, API, OTHER_CLUSTER, API, API, API),
    0,
    ("rules", "flows", "prove"),
)
