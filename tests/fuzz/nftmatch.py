"""Random matches in nft's words, and the named sets they look in.

Most are chosen so that about half of the lab's connections meet them: a rule that nobody meets tests little.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from fuzz import switches
from fuzz.places import Places
from fuzz.ruleset import NamedSet

MARKS = ("0x10", "0x20", "0x30", "0x1")
SPANS = (
    "22, 6000-7000", "1-6442", "1-6442, 6444-65535", "6443-6444, 8443", "80-90, 6440-6450, 9000-65535", "0-65535",
)  # fmt: skip


@dataclass(frozen=True)
class Spot:
    """Where a rule is: the kind of chain, its hook (`any` in a chain that is jumped to), its family."""

    nat: bool
    hook: str
    places: Places
    tracked: bool = True
    refuses: bool = False


class Matches:
    """Matches for the rules of one table; what is `beyond` knowing gathers on the way."""

    def __init__(self, rng: random.Random, beyond: set[str], wild: str, theme: str) -> None:
        self.rng, self.beyond, self.wild, self.theme = rng, beyond, wild, theme
        self.sets: list[NamedSet] = []
        self.inet = True

    def port(self, p: Places) -> str:
        """About the protocol and its ports."""
        rng = self.rng
        if rng.random() < 0.5:
            return "tcp dport 6443"
        return rng.choice((
            "tcp dport { 22, 6443 }", "tcp dport != 22", "tcp dport 6400-6500", "tcp dport != 1-6442",
            "tcp dport != { 6443, 8443 }", "tcp dport >= 6443", "tcp dport < 6443", "tcp dport > 6442",
            "meta l4proto tcp th dport 6443", "meta l4proto { tcp, udp } th dport { 6443, 53 }",
            "tcp dport & 0xff00 == 0x1900", "tcp dport & 0x0003 != 0x0003", "meta l4proto tcp", "udp dport 6443",
            "tcp sport >= 1024 tcp dport 6443", "tcp sport 32768-60999", "tcp sport < 1024",
            "tcp flags & (fin | syn | rst | ack) == syn tcp dport 6443", "tcp flags syn", "tcp flags != syn",
            "tcp flags & (syn | ack) == ack", "tcp flags & (syn | ack) != ack", "tcp flags & psh == psh",
            "ip protocol tcp tcp dport 6443" if p.ip == "ip" else "ip6 nexthdr tcp tcp dport 6443",
            f"tcp dport @{self.ports()}", f"tcp dport != @{self.ports()}", "tcp dport 6443 tcp sport != 22",
            "tcp dport { 1-1000, 6443-6450 }", "meta l4proto tcp @th,16,16 6443", "tcp dport 6443-8443",
        ))  # fmt: skip

    def ports(self) -> str:
        """A named set of ports, plain or of intervals."""
        if self.rng.random() < 0.5:
            members = self.rng.sample(("22", "80", "443", "6443", "8443", "9"), self.rng.randint(1, 4))
            return self.named("type inet_service", members)
        return self.named("type inet_service; flags interval", self.rng.choice(SPANS).split(", "))

    def named(self, head: str, members: list[str]) -> str:
        name = f"s{len(self.sets)}"
        self.sets.append(NamedSet(name, head, tuple(members)))
        return name

    def address(self, p: Places, side: str) -> str:
        """About where it comes from or goes to."""
        rng = self.rng
        what = f"{p.ip} {side}"
        usual = (p.host, p.cni0, p.host) if side == "daddr" else (p.client, p.web, p.host)
        mask, left = p.half
        options = [
            f"{what} {rng.choice(usual)}", f"{what} != {rng.choice(usual)}", f"{what} {p.lan}", f"{what} != {p.lan}",
            f"{what} {p.pods}", f"{what} {p.near}", f"{what} != {p.near}", f"{what} {p.far}",
            f"{what} {{ {', '.join(rng.sample(p.everyone, 2))} }}", f"{what} != {{ {p.lan}, {p.loopback} }}",
            f"{what} {{ {p.lan}, {p.pods} }}", f"{what} {{ {p.near}, {p.loopback} }}",
            f"{what} & {mask} == {left}", f"{what} & {mask} != {left}", f"{what} >= {p.host}", f"{what} < {p.client_b}",
            f"{what} @{self.addresses(p)}", f"{what} != @{self.addresses(p)}",
            f"fib {side} type local", f"fib {side} type != local", f"fib {side} type {{ local, broadcast }}",
        ]  # fmt: skip
        if rng.random() < 0.4:
            return options[0]
        return rng.choice(options)

    def addresses(self, p: Places) -> str:
        """A named set of addresses, plain or of intervals."""
        if self.rng.random() < 0.5:
            return self.named(f"type {p.kind}", self.rng.sample(p.everyone, self.rng.randint(1, 3)))
        members = self.rng.choice(
            ([p.lan], [p.pods], [p.near], [p.lan, p.pods], [p.host, p.pods], [p.loopback, p.near])
        )
        return self.named(f"type {p.kind}; flags interval", members)

    def concat(self, p: Places) -> str:
        """Several fields at once, looked up in a set."""
        rng = self.rng
        anonymous = rng.random() < 0.3
        sort = rng.randrange(6)
        negated = "!= " if rng.random() < 0.2 else ""
        if sort == 0:
            keys, kind = f"{p.ip} daddr . tcp dport", f"{p.kind} . inet_service"
            members = [f"{rng.choice((p.host, p.cni0))} . 6443", f"{p.client} . 22"]
        elif sort == 1:
            keys, kind = f"{p.ip} saddr . tcp dport", f"{p.kind} . inet_service; flags interval"
            members = [
                f"{p.lan} . {rng.choice(('6400-6500', '22'))}",
                f"{p.pods} . {rng.choice(('80', '1-7000'))}",
            ]
        elif sort == 2:
            keys, kind = f"{p.ip} saddr . {p.ip} daddr . tcp dport", f"{p.kind} . {p.kind} . inet_service"
            members = [f"{a} . {b} . 6443" for a in (p.client, p.web, p.host) for b in (p.host, p.cni0)]
            members = rng.sample(members, 3)
        elif sort == 3:
            keys, kind = f"{p.ip} daddr . meta l4proto . th dport", f"{p.kind} . inet_proto . inet_service"
            members = [f"{p.host} . {rng.choice(('tcp', 'udp'))} . 6443", f"{p.cni0} . tcp . 6443"]
        elif sort == 4:
            keys, kind = f"{p.ip} saddr . meta mark", f"{p.kind} . mark"
            members = [f"{rng.choice((p.client, p.host))} . {rng.choice(('0x0', '0x10'))}", f"{p.web} . 0x0"]
        else:
            keys, kind = "iifname . tcp dport", "ifname . inet_service"
            members = [f'"{rng.choice(("eth0", "cni0"))}" . 6443', '"lo" . 6443']
        if anonymous:
            return f"{keys} {negated}{{ {', '.join(members)} }}"
        return f"{keys} {negated}@{self.named(f'type {kind}', members)}"

    def other(self, spot: Spot) -> str:
        """About interfaces, marks, users, connections."""
        rng = self.rng
        mark = rng.choice(MARKS[:2] if self.theme == "marks" else MARKS)
        options = [
            "iifname eth0", "iifname != cni0", 'iifname "e*"', 'iifname "cn*"', "iifname { eth0, lo }",
            "iifname != { lo, cni0 }", "iif lo", "iif != eth0", "iiftype ether", "iiftype != loopback",
            "meta pkttype host", "meta pkttype != unicast", "oifname lo", "oifname != lo",
            f"meta mark {mark}", f"meta mark & {mark} == {mark}", f"meta mark & {mark} != 0x0", "meta mark 0x0",
            f"meta mark != {mark}", "meta mark 0x10-0x30", "meta mark { 0x0, 0x20 }", "meta mark & 0x0f != 0x1",
            "meta protocol { ip, ip6 }", "meta mark & 0x30 == { 0x10, 0x20 }", "meta mark & 0x30 != { 0x10, 0x30 }",
            "meta l4proto != udp",
        ]  # fmt: skip
        if spot.hook == "output" or (spot.hook == "input" and switches.SOCKET_AT_INPUT):
            options += ["meta skuid 0", "meta skuid 1000", "meta skuid != 0", "meta skuid { 0, 65534 }"] * 2
        if spot.hook in ("prerouting", "input"):
            options += ["fib daddr . iif type local", "fib daddr . iif type != local"]
        if spot.hook == "output" or (spot.hook in ("input", "any") and switches.SOCKET_AT_INPUT):
            options += ["meta skuid 0-999", "meta skuid != root"]
        state = rng.choice(("new", "established", "new, established", "untracked", "invalid", "related"))
        options += [
            f"ct state {state}",
            f"ct state != {{ {state} }}" if "," in state else f"ct state != {state}",
        ]
        if spot.tracked:
            options += [
                "ct direction original", "ct direction reply", "ct status dnat", "ct status != snat",
                "ct mark 0x0", f"ct mark {mark}", "ct protocol tcp", "ct status assured", "ct original proto-dst != 22",
                f"ct original {spot.places.ip} daddr {spot.places.host}", f"ct mark & {mark} == 0x0",
                f"ct original {spot.places.ip} saddr != {spot.places.client}",
            ]  # fmt: skip
        wanted = {"marks": "mark", "states": "ct ", "interfaces": "if", "users": "skuid"}.get(self.theme, "")
        return rng.choice([option for option in options if wanted in option] or options)

    def unforeseen(self, spot: Spot) -> str:
        """What depends on more than the packet: on chance, on the moment, on what came before."""
        self.beyond.add(self.wild)
        p = spot.places
        if self.wild == "chance":
            return self.rng.choice((
                "numgen random mod 2 0", "numgen inc mod 3 != 1", f"jhash {p.ip} saddr mod 4 < 2", "meta random > 3",
                "numgen random mod 10 vmap { 0-4 : continue, 5-9 : return }", "symhash mod 2 1",
            ))  # fmt: skip
        if self.wild == "dynamic":
            name = self.named(f"type {p.kind}; flags dynamic, timeout; timeout 60s", [])
            fixed = self.named(f"type {p.kind}; flags timeout", [p.client, f"{p.web} timeout 30s"])
            return self.rng.choice((
                "limit rate 2/second", "limit rate over 1/second", f"add @{name} {{ {p.ip} saddr }}",
                f"{p.ip} saddr @{name}", f"{p.ip} saddr @{fixed}", f"{p.ip} saddr != @{fixed}",
                f"update @{name} {{ {p.ip} saddr limit rate 1/second }}", "quota over 1 mbytes", "ct count over 20",
                f"{p.ip} daddr @{name}", f"{p.ip} daddr != @{name}",
            ))  # fmt: skip
        hops = "ip ttl" if p.ip == "ip" else "ip6 hoplimit"
        return self.rng.choice((
            f"{hops} > 1", f"{hops} 64", "meta length < 2000", f"{p.ip} dscp cs0", "tcp option maxseg exists",
            "meta cpu 0-63", "rt classid 0x10", "meta hour < \"23:59\"", "tcp window > 0", "meta priority 0",
            "fib saddr . iif oif != 0" if spot.hook == "prerouting" else "meta cgroup 0", "tcp flags == syn",
            "ct expiration > 1s" if spot.tracked else "tcp sequence > 0",
        ))  # fmt: skip
