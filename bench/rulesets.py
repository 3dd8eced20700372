"""Rulesets as the programs of a Kubernetes host write them, of any size; none of them takes port 6443."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from k3swatch.demo.netns import Namespace, run

FEW, MANY = 50, 500  # more local addresses


def kube_proxy_iptables(rules: int) -> str:
    """kube-proxy in iptables mode: five rules a Service with one endpoint (pkg/proxy/iptables/proxier.go)."""
    services = rules // 5
    chains = ["*nat", ":KUBE-SERVICES -", ":KUBE-MARK-MASQ -", ":KUBE-NODEPORTS -"]
    lines = [
        '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
    ]
    for i in range(services):
        svc, sep, address, endpoint = f"KUBE-SVC-{i:016d}", f"KUBE-SEP-{i:016d}", _service(i), _endpoint(i)
        name = f"ns{i % 50}/svc{i}:http"
        here = f'-d {address}/32 -p tcp -m comment --comment "{name} cluster IP" -m tcp --dport 80'
        chains += [f":{svc} -", f":{sep} -"]
        lines += [
            f"-A KUBE-SERVICES {here} -j {svc}",
            f"-A {svc} ! -s 10.42.0.0/16 {here} -j KUBE-MARK-MASQ",
            f'-A {svc} -m comment --comment "{name} -> {endpoint}:8080" -j {sep}',
            f'-A {sep} -s {endpoint}/32 -m comment --comment "{name}" -j KUBE-MARK-MASQ',
            f'-A {sep} -p tcp -m comment --comment "{name}" -m tcp -j DNAT --to-destination {endpoint}:8080',
        ]
    lines.append(
        '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports" '
        "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    )
    return "\n".join([*chains, *lines, "COMMIT", ""])


def kube_proxy_nftables(rules: int) -> str:
    """kube-proxy in nftables mode: four rules, a verdict map and a map element a Service (pkg/proxy/nftables)."""
    services = rules // 4
    out = ["table ip kube-proxy {", "chain mark-for-masquerade { mark set mark or 0x4000; }"]
    elements = []
    for i in range(services):
        address, endpoint = _service(i), _endpoint(i)
        name = f"ns{i % 50}/svc{i}/tcp/http"
        svc, sep = f"service-{i:08d}-{name}", f"endpoint-{i:08d}-{name}__{endpoint}/8080"
        here = f"ip daddr {address} tcp dport 80 ip saddr != 10.42.0.0/16"
        out.append(
            f"chain {sep} {{ ip saddr {endpoint} jump mark-for-masquerade; "
            f"meta l4proto tcp dnat to {endpoint}:8080; }}\n"
            f"chain {svc} {{ {here} jump mark-for-masquerade; numgen random mod 1 vmap {{ 0 : goto {sep} }}; }}"
        )
        elements.append(f'{address} . tcp . 80 comment "{name}" : goto {svc}')
    out.append(
        "map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; "
        f"elements = {{ {', '.join(elements)} }} }}\n"
        "map service-nodeports { type inet_proto . inet_service : verdict; }\n"
        "chain services { ip daddr . meta l4proto . th dport vmap @service-ips; "
        "meta l4proto . th dport vmap @service-nodeports; }\n"
        "chain nat-prerouting { type nat hook prerouting priority -100; jump services; }\n"
        "chain nat-output { type nat hook output priority -100; jump services; }\n}\n"
    )
    return "\n".join(out)


def plain_dnat(rules: int) -> str:
    """Port forwarding written by hand: one rule a port, none of them for the protected one."""
    lines = (f"tcp dport {10000 + i} dnat to {_endpoint(i)}:80" for i in range(rules))
    return (
        "table ip forwards { chain pre { type nat hook prerouting priority -100;\n"
        + "\n".join(lines)
        + "\n}; }"
    )


def block_list(rules: int) -> str:
    """A block list in INPUT, as fail2ban or a script makes it: each rule meets some senders, also to our port."""
    lines = (f"-A INPUT -s {203 + i % 5}.{i >> 8}.{i & 255}.{i % 251}/32 -j DROP" for i in range(rules))
    return "\n".join(["*filter", *lines, "COMMIT", ""])


def _service(i: int) -> str:
    return f"10.{43 + (i >> 16)}.{i >> 8 & 255}.{i & 255}"


def _endpoint(i: int) -> str:
    return f"10.42.{i >> 8 & 255}.{i & 255}"


@dataclass(frozen=True)
class Ruleset:
    """One to measure with. `text` is for nft(8) or iptables-restore(8); `addresses` the host has beside its own."""

    name: str
    make: Callable[[int], str]
    rules: int
    cold: bool = True  # also for `check` and the tools that print it, not only for the daemon
    addresses: int = 0

    def load(self, space: Namespace) -> None:
        """In place of what was there."""
        text = self.make(self.rules)
        space.shell("nft flush ruleset; ip link delete ipvs0 2>/dev/null || true")
        with space.inside():
            run(("nft", "-f", "-") if text.startswith("table") else ("iptables-restore",), stdin=text)
        if self.addresses:
            lines = (f"addr add {_service(i)}/32 dev ipvs0" for i in range(self.addresses))
            space.ip("link add ipvs0 type bridge", *lines)


def rulesets(quick: bool) -> list[Ruleset]:
    """All that are measured, small ones first."""
    large = [] if quick else [Ruleset("kube-proxy, iptables mode", kube_proxy_iptables, 50_000)]
    worst = Ruleset(f"the same, {FEW} more local addresses", block_list, 3_000, False, FEW)
    return [
        Ruleset("kube-proxy, iptables mode", kube_proxy_iptables, 1_000),
        Ruleset("kube-proxy, iptables mode", kube_proxy_iptables, 10_000),
        *large,
        Ruleset("kube-proxy, nftables mode", kube_proxy_nftables, 10_000),
        Ruleset("hand-made `tcp dport N dnat`", plain_dnat, 3_000, cold=False),
        Ruleset("`-s ADDRESS -j DROP` in INPUT", block_list, 3_000, cold=False),
        *([] if quick else [worst]),
        Ruleset(f"kube-proxy, {MANY} more local addresses", kube_proxy_iptables, 1_000, False, MANY),
    ]
