"""Random rules in nft's words: sets of all shapes, maps, jumps, marks, every match we claim to understand.

Most matches are chosen so that about half of the lab's connections meet them: a rule that nobody meets tests little.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from fuzz import switches
from fuzz.places import Places
from fuzz.ruleset import Chain, NamedSet, Rule, Table

FIRST_ONLY = (  # of a chain that refuses: what is judged is the first packet; neighbour discovery is none of ours
    Rule(("meta l4proto != tcp", "accept"), kept=True),
    Rule(("tcp flags & (syn | ack) != syn", "accept"), kept=True),
)
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


class Native:
    """Makes the tables of one ruleset; what is `beyond` knowing gathers on the way."""

    def __init__(self, rng: random.Random, beyond: set[str], chance: bool) -> None:
        self.rng, self.beyond, self.chance = rng, beyond, chance
        self._sets: list[NamedSet] = []
        self._inet = True

    def table(self, family: str, name: str, places: tuple[Places, ...], priorities: list[int]) -> Table:
        """A table with nat chains, perhaps chains that mark, that refuse, that rewrite the source."""
        rng = self.rng
        self._sets, self._inet = [], family == "inet"
        chains: list[Chain] = []

        def place() -> Places:
            return rng.choice(places)

        subs = {"nat": ("n0", "n1"), "filter": ("f0", "f1")}
        refusing = rng.random() < 0.45
        for kind, names in subs.items():
            for index, sub in enumerate(names):
                nat = kind == "nat"
                rules = [
                    self.rule(Spot(nat, "any", place(), refuses=refusing and not nat), names[:index])
                    for _ in range(rng.randint(1, 3))
                ]
                chains.append(Chain(sub, tuple(rules)))
        for hook in ("prerouting", "output"):
            if rng.random() < 0.85:
                chains.append(self._base("nat", hook, priorities.pop(), place, 5))
            if rng.random() < 0.12:
                chains.append(self._base("nat", hook, priorities.pop(), place, 2, f"{hook}2"))
        if rng.random() < 0.5:
            hook = rng.choice(("prerouting", "output"))
            chains.append(self._base("filter", hook, rng.choice((-150, -190, -140)), place, 3, "marks"))
        if refusing:
            hook = rng.choice(("input", "prerouting", "output", "input"))
            priority = rng.choice((0, -10, 10, -290, -250) if hook != "input" else (0, -5, 5, -150))
            policy = rng.choice(("accept", "accept", "accept", "drop"))
            chains.append(self._base("filter", hook, priority, place, 4, "refuse", policy, refuses=True))
        if rng.random() < 0.12:
            chains.append(self._source_nat(place()))
        if rng.random() < 0.08:
            chains += self._untracked(place())
        rng.shuffle(chains)
        chains.sort(key=lambda chain: bool(chain.hook))  # what is jumped to comes first
        text = "\n".join(str(rule) for chain in chains for rule in chain.rules) + "\n"
        used = [each for each in self._sets if re.search(rf"@{each.name}\b", text)]
        return Table("nft", family, name, tuple(chains), tuple(used))

    def _base(
        self,
        kind: str,
        hook: str,
        priority: int,
        place: Callable[[], Places],
        most: int,
        name: str = "",
        policy: str = "accept",
        refuses: bool = False,
    ) -> Chain:
        nat = kind == "nat"
        jumps = ("n1", "n0") if nat else ("f1", "f0")
        rules = [
            self.rule(Spot(nat, hook, place(), priority > -200, refuses), jumps)
            for _ in range(self.rng.randint(1, most))
        ]
        first = FIRST_ONLY if not nat else ()
        return Chain(name or hook, (*first, *rules), kind, hook, priority, policy)

    def _source_nat(self, p: Places) -> Chain:
        to = f"snat {p.ip} to" if self._inet else "snat to"
        statement = self.rng.choice(("masquerade", f"{to} {p.host}", f"{to} {p.cni0}", "accept"))
        rules = (Rule((self.port(p), *self.maybe(self.address(p, "saddr")), statement)),)
        return Chain("source", rules, "nat", "postrouting", 100)

    def _untracked(self, p: Places) -> list[Chain]:
        """Keeps some connections from being tracked, all packets of both directions."""
        here = self.rng.choice((p.host, p.cni0, p.lan, f"!= {p.cni0}"))
        way, back = (
            (f"{p.ip} {side} {here}",) if switches.HALF_TRACKED else () for side in ("daddr", "saddr")
        )
        rules = (
            Rule((*way, "tcp dport 6443", "notrack"), kept=True),
            Rule((*back, "tcp sport 6443", "notrack"), kept=True),
        )
        return [Chain(f"raw{hook}", rules, "filter", hook, -300) for hook in ("prerouting", "output")]

    # matches

    def rule(self, spot: Spot, jumps: tuple[str, ...]) -> Rule:
        """Some matches and a statement."""
        rng, p = self.rng, spot.places
        clauses = [self.port(p)]
        if rng.random() < 0.45:
            clauses.append(self.address(p, "daddr"))
        if rng.random() < 0.35:
            clauses.append(self.address(p, "saddr"))
        if rng.random() < 0.35:
            clauses.append(self.other(spot))
        udp = "udp" in clauses[0]
        if rng.random() < 0.12 and not udp:
            clauses.append(self.concat(p))
        if self.chance and rng.random() < 0.15:
            clauses.append(self.unforeseen(spot))
        if rng.random() < 0.2 and not any("proto-dst" in clause for clause in clauses):
            rng.shuffle(clauses)
            clauses.sort(key=lambda clause: "l4proto" not in clause or "." in clause)
        if self._inet and not any(f"{p.ip} " in clause for clause in clauses):
            clauses.insert(0, f"meta nfproto {'ipv4' if p.ip == 'ip' else 'ipv6'}")
        if rng.random() < 0.1:
            clauses.append("counter")
        statement = self.statement(spot, jumps)
        if udp and ("tcp" in statement or ":" in statement):
            statement = "accept"
        comment = f' comment "{rng.choice(("x", "made by nobody"))}"' if rng.random() < 0.1 else ""
        return Rule((*clauses, statement + comment))

    def maybe(self, clause: str) -> tuple[str, ...]:
        """It, or nothing."""
        return (clause,) if self.rng.random() < 0.5 else ()

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
            "ip protocol tcp tcp dport 6443" if p.ip == "ip" else "ip6 nexthdr tcp tcp dport 6443",
            f"tcp dport @{self.ports()}", f"tcp dport != @{self.ports()}", "tcp dport 6443 tcp sport != 22",
            "tcp dport { 1-1000, 6443-6450 }", "meta l4proto tcp @th,16,16 6443", "tcp dport 6443-8443",
        ))  # fmt: skip

    def ports(self) -> str:
        """A named set of ports, plain or of intervals."""
        if self.rng.random() < 0.5:
            members = self.rng.sample(("22", "80", "443", "6443", "8443", "9"), self.rng.randint(1, 4))
            return self._named("type inet_service", members)
        return self._named("type inet_service; flags interval", self.rng.choice(SPANS).split(", "))

    def _named(self, head: str, members: list[str]) -> str:
        name = f"s{len(self._sets)}"
        self._sets.append(NamedSet(name, head, tuple(members)))
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
            return self._named(f"type {p.kind}", self.rng.sample(p.everyone, self.rng.randint(1, 3)))
        members = self.rng.choice(
            ([p.lan], [p.pods], [p.near], [p.lan, p.pods], [p.host, p.pods], [p.loopback, p.near])
        )
        return self._named(f"type {p.kind}; flags interval", members)

    def concat(self, p: Places) -> str:
        """Several fields at once, looked up in a set."""
        rng = self.rng
        anonymous = rng.random() < 0.3
        sort = rng.randrange(5)
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
        else:
            keys, kind = "iifname . tcp dport", "ifname . inet_service"
            members = [f'"{rng.choice(("eth0", "cni0"))}" . 6443', '"lo" . 6443']
        if anonymous:
            return f"{keys} {negated}{{ {', '.join(members)} }}"
        return f"{keys} {negated}@{self._named(f'type {kind}', members)}"

    def other(self, spot: Spot) -> str:
        """About interfaces, marks, users, connections."""
        rng = self.rng
        mark = rng.choice(MARKS)
        options = [
            "iifname eth0", "iifname != cni0", 'iifname "e*"', 'iifname "cn*"', "iifname { eth0, lo }",
            "iifname != { lo, cni0 }", "iif lo", "iif != eth0", "iiftype ether", "iiftype != loopback",
            "meta pkttype host", "meta pkttype != unicast", "oifname lo", "oifname != lo",
            f"meta mark {mark}", f"meta mark & {mark} == {mark}", f"meta mark & {mark} != 0x0", "meta mark 0x0",
            f"meta mark != {mark}", "meta mark 0x10-0x30", "meta mark { 0x0, 0x20 }", "meta mark & 0x0f != 0x1",
            "meta protocol { ip, ip6 }", "meta l4proto != udp",
        ]  # fmt: skip
        if spot.hook == "output":
            options += ["meta skuid 0", "meta skuid 1000", "meta skuid != 0", "meta skuid { 0, 65534 }"] * 2
        if spot.hook in ("prerouting", "input"):
            options += ["fib daddr . iif type local", "fib daddr . iif type != local"]
        if spot.hook in ("output", "any"):
            options += ["meta skuid 0-999", "meta skuid != root"]
        state = rng.choice(("new", "established", "new, established", "untracked", "invalid", "related"))
        options += [
            f"ct state {state}",
            f"ct state != {{ {state} }}" if "," in state else f"ct state != {state}",
        ]
        if spot.tracked:
            options += [
                "ct direction original", "ct direction reply", "ct status dnat", "ct status != snat",
                "ct mark 0x0", f"ct mark {mark}", "ct protocol tcp", "ct original proto-dst != 22",
                f"ct original {p_ip(spot)} daddr {spot.places.host}", f"ct mark & {mark} == 0x0",
                f"ct original {p_ip(spot)} saddr != {spot.places.client}",
            ]  # fmt: skip
        return rng.choice(options)

    def unforeseen(self, spot: Spot) -> str:
        """What depends on more than the packet."""
        self.beyond.add("chance")
        return self.rng.choice((
            "numgen random mod 2 0", "numgen inc mod 3 != 1", "limit rate 2/second", "limit rate over 1/second",
            "jhash ip saddr mod 4 < 2" if spot.places.ip == "ip" else "jhash ip6 saddr mod 4 < 2", "meta random > 3",
            "numgen random mod 10 vmap { 0-4 : continue, 5-9 : return }",
        ))  # fmt: skip

    # statements

    def statement(self, spot: Spot, jumps: tuple[str, ...]) -> str:
        """What a rule does."""
        rng = self.rng
        if jumps and rng.random() < 0.25:
            return rng.choice([f"{verb} {chain}" for verb in ("jump", "goto") for chain in jumps])
        if rng.random() < 0.12:
            return self.verdict_map(spot, jumps)
        if rng.random() < 0.15:
            return self.marking(spot)
        if spot.nat:
            return (
                self.mapping(spot)
                if rng.random() < 0.72
                else rng.choice(("accept", "return", "counter", "drop"))
            )
        if spot.refuses and rng.random() < 0.55:
            return rng.choice(
                ("drop", "drop", "reject", "reject with tcp reset", f"reject with {unreachable(spot)}")
            )
        return rng.choice(("accept", "return", "counter", "continue"))

    def verdict_map(self, spot: Spot, jumps: tuple[str, ...]) -> str:
        """`... vmap ...`."""
        rng, p = self.rng, spot.places
        ends = [
            "accept",
            "return",
            "continue",
            *(f"{verb} {chain}" for verb in ("jump", "goto") for chain in jumps),
        ]
        if spot.refuses:
            ends.append("drop")
        one, two, three = (rng.choice(ends) for _ in range(3))
        keys, kind, members = rng.choice((
            ("tcp dport", "inet_service", [f"6443 : {one}", f"22 : {two}"]),
            ("tcp dport", "inet_service; flags interval", [f"1-6442 : {two}", f"6443-7000 : {one}"]),
            (f"{p.ip} saddr", p.kind, [f"{p.client} : {one}", f"{p.web} : {two}", f"{p.host} : {three}"]),
            (f"{p.ip} saddr", f"{p.kind}; flags interval", [f"{p.lan} : {one}", f"{p.pods} : {two}"]),
            (f"{p.ip} daddr . tcp dport", f"{p.kind} . inet_service",
             [f"{p.host} . 6443 : {one}", f"{p.cni0} . 6443 : {two}"]),
            ("meta mark", "mark", [f"0x0 : {one}", f"0x10 : {two}"]),
            ("iifname", "ifname", [f'"eth0" : {one}', f'"cni0" : {two}']),
        ))  # fmt: skip
        if rng.random() < 0.15 and "." not in keys and "interval" not in kind:
            members = [*members, f"* : {three}"]
        if rng.random() < 0.4 and not any("*" in member for member in members):
            return f"{keys} vmap {{ {', '.join(members)} }}"
        head, _, flags = kind.partition(";")
        name = self._named(f"type {head} : verdict{';' + flags if flags else ''}", members)
        return f"{keys} vmap @{name}"

    def marking(self, spot: Spot) -> str:
        """Marks of the packet and of its connection."""
        rng, mark = self.rng, self.rng.choice(MARKS)
        options = [
            f"meta mark set {mark}", f"meta mark set meta mark or {mark}", f"meta mark set meta mark and {mark}",
            f"meta mark set meta mark xor {mark}", f"meta mark set tcp dport map {{ 6443 : {mark}, 22 : 0x2 }}",
            f"meta mark set meta mark and 0xffffffef or {mark}",
            f"meta mark set {p_ip(spot)} saddr map {{ {spot.places.client} : {mark}, {spot.places.web} : 0x20 }}",
        ]  # fmt: skip
        if spot.tracked:
            options += [f"ct mark set {mark}", "ct mark set meta mark", "meta mark set ct mark"]
        return rng.choice(options)

    def mapping(self, spot: Spot) -> str:
        """NAT of the destination."""
        rng, p = self.rng, spot.places
        to = f"dnat {p.ip} to" if self._inet else "dnat to"
        elsewhere = rng.choice((p.web, p.web, p.other, p.nowhere))
        options = [
            f"{to} {p.to(elsewhere, 6443)}", f"{to} {elsewhere}", f"{to} {p.to(p.host, 8443)}",
            f"{to} {p.to(p.host, 6443)}", f"{to} {p.to(p.cni0, 6443)}", f"{to} {p.ip} daddr", "redirect to :8443",
            "redirect", "redirect to :6443", "redirect to :9", "dnat to :8443", f"{to} {p.to(p.web, 22)}",
            f"{to} tcp dport map {{ 6443 : {p.web}, 1-6442 : {p.client} }}",
            f"{to} {p.ip} saddr map {{ {p.client} : {p.web}, {p.web} : {p.other}, {p.host} : {p.web} }}",
            f"{to} {p.ip} saddr map {{ {p.lan} : {p.web}, {p.pods} : {p.other} }}",
            f"{to} {p.ip} daddr map @{self._named(f'type {p.kind} : {p.kind}', [f'{p.host} : {p.web}'])}",
            f"dnat {p.ip} addr . port to {p.ip} daddr . tcp dport map "
            f"{{ {p.host} . 6443 : {p.web} . 6443, {p.cni0} . 6443 : {p.other} . 6443 }}",
            f"{to} {p.to(p.web, 6443)} persistent", f"{to} {p.to(p.web, '6440-6450')}",
        ]  # fmt: skip
        if self.chance and rng.random() < 0.2:
            self.beyond.add("chance")
            return rng.choice((
                f"{to} {p.to(p.web, '7000-7010')}", "redirect to :8000-9000", f"{to} {p.web} random",
                f"{to} numgen inc mod 2 map {{ 0 : {p.web}, 1 : {p.other} }}",
            ))  # fmt: skip
        if rng.random() < 0.35:
            return options[0]
        return rng.choice(options)


def p_ip(spot: Spot) -> str:
    """nft's word for the family of the rule."""
    return spot.places.ip


def unreachable(spot: Spot) -> str:
    """The ICMP answer of a family."""
    return "icmp type host-unreachable" if spot.places.ip == "ip" else "icmpv6 type no-route"
