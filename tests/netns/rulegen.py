"""Random rulesets around port 6443, in the words of the real tools. The same seed gives the same ruleset."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from k3swatch.demo import lab as at


@dataclass(frozen=True)
class Addresses:
    """The lab's addresses of one family, as iptables and nft write them."""

    tool: str
    host: str
    cni0: str
    client: str
    client_b: str
    web: str
    lan: str
    pods: str
    loopback: str
    near: str  # a range that holds the host's address

    def to(self, address: str, port: int | None = None) -> str:
        """`192.168.1.233:8443`, `[fd00:1::233]:8443`."""
        if port is None:
            return address
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


V4 = Addresses(
    "iptables", at.HOST, at.CNI0, at.CLIENT, at.CLIENT_B, at.WEB, "192.168.1.0/24", "10.42.0.0/16", "127.0.0.0/8",
    "192.168.1.201-192.168.1.240",
)  # fmt: skip
V6 = Addresses(
    "ip6tables", at.HOST6, at.CNI0_6, at.CLIENT6, at.CLIENT6_B, at.WEB6, "fd00:1::/64", "fd42::/64", "::1/128",
    "fd00:1::201-fd00:1::240",
)  # fmt: skip


def pick(rng: random.Random, often: str, *seldom: str) -> str:
    """`often` two times in three."""
    return often if rng.random() < 2 / 3 else rng.choice(seldom)


def iptables(rng: random.Random, a: Addresses) -> str:
    """A ruleset for iptables-restore: raw, mangle, nat with two chains of its own, filter."""
    lines = ["*nat", ":A - [0:0]", ":B - [0:0]"]
    ends = [f"DNAT --to-destination {a.to(a.web, 6443)}", f"DNAT --to-destination {a.to(a.host, 8443)}"]
    ends += [
        f"DNAT --to-destination {a.to(a.host, 6443)}",
        "REDIRECT --to-ports 8443",
        "REDIRECT --to-ports 6443",
    ]
    ends += [f"DNAT --to-destination {a.web}", "ACCEPT", "RETURN", "MARK --set-xmark 0x10/0x30"]
    for chain, jumps in (
        ("B", ()),
        ("A", ("-j B", "-g B")),
        *[(base, ("-j A", "-g A", "-j B")) for base in BASES],
    ):
        for _ in range(rng.randint(1, 4)):
            target = rng.choice(jumps) if jumps and rng.random() < 0.5 else f"-j {rng.choice(ends)}"
            lines.append(f"-A {chain} {_match(rng, a, chain)} {target}")
    lines += ["COMMIT", "*mangle"]
    for base in BASES:
        for _ in range(rng.randint(0, 2)):
            mark = rng.choice(("0x10/0x30", "0x20/0x30", "0x0/0x10"))
            lines.append(f"-A {base} {_match(rng, a, base)} -j MARK --set-xmark {mark}")
    lines += ["COMMIT", "*raw"]
    if rng.random() < 0.2:
        lines.append(f"-A {rng.choice(BASES)} {_match(rng, a, 'OUTPUT')} -j CT --notrack")
    lines += ["COMMIT", "*filter"]
    if rng.random() < 0.3:
        drop = rng.choice(("DROP", "REJECT --reject-with tcp-reset"))
        # it judges first packets: nothing about later ones, nor about replies (to a port that is not 6443)
        port = pick(rng, "--dport 6443", *(port for port in PORTS if "!" not in port and "syn" not in port))
        lines.append(f"-A INPUT -p tcp {port} -j {drop}")
    lines.append("COMMIT")
    return f"{a.tool}-restore <<RULES\n" + "\n".join(lines) + "\nRULES"


BASES = ("PREROUTING", "OUTPUT")
PORTS = (
    "--dport 22",
    "--dport 6000:7000",
    "--dport 1:6442",
    "! --dport 6443",
    "! --dport 22",
    "-m multiport --dports 22,6443",
    "-m multiport ! --dports 80,443",
    "-m multiport --dports 9,6440:6450",
    "-m multiport ! --dports 6443,6444",
    "--syn",
    "! --syn",
)


def _match(rng: random.Random, a: Addresses, chain: str) -> str:
    local = "-m addrtype --dst-type LOCAL"
    to = (
        f"-d {a.lan}",
        f"! -d {a.host}",
        f"-d {a.cni0}",
        local,
        f"-d {a.loopback}",
        "-m addrtype ! --dst-type LOCAL",
    )
    origin = (
        f"-s {a.client}",
        f"-s {a.lan}",
        f"! -s {a.client_b}",
        f"-s {a.pods}",
        f"! -s {a.lan}",
        f"-s {a.host}",
    )
    parts = [pick(rng, "-p tcp --dport 6443", *(f"-p tcp {port}" for port in PORTS), "-p udp --dport 6443")]
    parts.append(pick(rng, f"-d {a.host}", "", *to, f"-m iprange --dst-range {a.near}"))
    parts.append(pick(rng, "", *origin) if rng.random() < 0.6 else "")
    if chain == "PREROUTING":
        parts.append(pick(rng, "", "", "-i eth0", "! -i cni0", "-i lo", "-i cn+"))
    parts.append(pick(rng, "", "-m mark --mark 0x10/0x10", "-m mark ! --mark 0x20/0x20"))
    parts.append(
        pick(
            rng,
            "",
            "",
            "-m conntrack --ctstate NEW",
            "-m conntrack ! --ctstate NEW",
            "-m comment --comment x",
        )
    )
    return " ".join(filter(None, parts))


def nft(rng: random.Random, a: Addresses) -> str:
    """A ruleset for nft: one or two tables, base chains at various priorities, sets, maps, verdict maps."""
    tables = [_table(rng, a, name) for name in ("one", "two")[: rng.randint(1, 2)]]
    return "nft -f - <<RULES\n" + "\n".join(tables) + "\nRULES"


def _table(rng: random.Random, a: Addresses, name: str) -> str:
    family = rng.choice(("inet", "ip6" if ":" in a.host else "ip"))
    ip = "ip6" if ":" in a.host else "ip"
    kind = "ipv6_addr" if ":" in a.host else "ipv4_addr"
    to = f"dnat {ip} to" if family == "inet" else "dnat to"
    own = f"meta nfproto {'ipv6' if ip == 'ip6' else 'ipv4'} " if family == "inet" else ""
    span = rng.choice(("22, 6000-7000", "1-6442", "1-6442, 6444-65535"))
    # a priority of its own for every chain: ties are a story of their own
    priorities = rng.sample(range(-150, -60, 10) if name == "one" else range(-155, -60, 10), 3)
    body = [
        f"table {family} {name} {{",
        f"\tset stolen {{ type {kind} . inet_service; elements = {{ {a.host} . 6443, {a.cni0} . 22 }}; }}",
        f"\tset span {{ type inet_service; flags interval; elements = {{ {span} }}; }}",
        f"\tset near {{ type {kind}; flags interval; elements = {{ {rng.choice((a.lan, a.pods, a.near))} }}; }}",
        f"\tset pairs {{ type {kind} . inet_service; flags interval;",
        f"\t\telements = {{ {a.lan} . 6400-6500, {a.pods} . 22 }}; }}",
        f"\tmap where {{ type inet_service : {kind}; elements = {{ 6443 : {a.web}, 22 : {a.client} }}; }}",
    ]
    tests = [
        "tcp dport 6443",
        "tcp dport 6443",
        "tcp dport 6443",
        "tcp dport { 22, 6443 }",
        "tcp dport @span",
        f"{ip} daddr . tcp dport @stolen",
        f"{ip} saddr . tcp dport @pairs",
        f"{ip} daddr @near tcp dport 6443",
        f"{ip} daddr {a.host} tcp dport != 22",
        "fib daddr type local tcp dport 6443",
        "tcp dport 6400-6500",
        f"{ip} saddr != {a.client} tcp dport 6443",
        "meta l4proto tcp th dport 6443",
        "meta mark and 0x10 == 0x10 tcp dport 6443",
        "iifname eth0 tcp dport 6443",
        "iifname != { lo, cni0 } tcp dport 6443",
        "ct state new tcp dport 6443",
        "tcp flags & (syn | ack) == syn tcp dport 6443",
        "meta l4proto udp th dport 6443",
        "tcp dport vmap { 22 : accept } tcp dport 6443",
    ]
    ends = [
        f"{to} {a.to(a.web, 6443)}",
        f"{to} {a.web}",
        f"{to} {a.to(a.host, 8443)}",
        f"{to} {ip} daddr",
        "redirect to :8443",
        "redirect",
        f"{to} tcp dport map @where",
        "accept",
        "return",
        "jump sub",
        "goto sub",
        "tcp dport vmap { 6443 : jump sub, 22 : drop }",
        f"{ip} daddr . tcp dport vmap {{ {a.host} . 6443 : goto sub }}",
        "counter",
        "meta mark set 0x10",
        "dnat to :8443",
        f"{to} tcp dport map {{ 6443 : {a.web}, 1-6442 : {a.client} }}",
    ]

    def rules(targets: Sequence[str], most: int) -> list[str]:
        pairs = [(rng.choice(tests), rng.choice(targets)) for _ in range(rng.randint(1, most))]
        return [f"\t\t{own}{test} {end}" for test, end in pairs if not ("udp" in test and "tcp" in end)]

    flat = [end for end in ends if "sub" not in end]
    body += ["\tchain sub {", *rules(flat, 3), "\t}"]
    for hook, priority in zip(("prerouting", "output"), priorities, strict=False):
        body += [
            f"\tchain {hook} {{",
            f"\t\ttype nat hook {hook} priority {priority}",
            *rules(ends, 4),
            "\t}",
        ]
    if rng.random() < 0.5:
        marks = [
            f"meta mark set {mark}" for mark in ("0x10", "meta mark or 0x10", "meta mark and 0xffffffef")
        ]
        body += [
            "\tchain early {",
            "\t\ttype filter hook prerouting priority mangle",
            *rules(marks, 2),
            "\t}",
        ]
    if rng.random() < 0.2:
        body += [
            "\tchain late {",
            "\t\ttype filter hook input priority 0",
            "\t\ttcp dport 6443 drop",
            "\t}",
        ]
    return "\n".join([*body, "}"])
