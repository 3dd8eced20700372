"""Random tables in nft's words: base chains of every kind, chains they jump to, rules of matches and a statement."""

from __future__ import annotations

import re
from collections.abc import Callable

from fuzz import switches
from fuzz.nftdo import Statements
from fuzz.nftmatch import Spot
from fuzz.places import Places
from fuzz.ruleset import Chain, Rule, Table

FIRST_ONLY = (  # of a chain that refuses: what is judged is the first packet; neighbour discovery is none of ours
    Rule(("meta l4proto != tcp", "accept"), kept=True),
    Rule(("tcp flags & (syn | ack) != syn", "accept"), kept=True),
)
# when chains that refuse are asked, by hook: before connections are tracked, around NAT, after it
REFUSE_AT = {
    "prerouting": (-290, -250, -10, 0, 10),
    "input": (-150, -5, 0, 5),
    "output": (-290, -250, -10, 0, 10),
    "postrouting": (0, 90, 150),
    "forward": (0, 10),
}


class Native(Statements):
    """Makes the tables of one ruleset; what is `beyond` knowing gathers on the way."""

    def table(self, family: str, name: str, places: tuple[Places, ...], priorities: list[int]) -> Table:
        """A table with nat chains, perhaps chains that mark, that refuse, that rewrite the source."""
        rng = self.rng
        self.sets, self.inet = [], family == "inet"
        chains: list[Chain] = []

        def place() -> Places:
            return rng.choice(places)

        subs = {"nat": ("n0", "n1"), "filter": ("f0", "f1")}
        refusing = rng.random() < (0.9 if self.theme in ("sources", "states") else 0.45)
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
        for hook in (
            ("prerouting", "output") if self.theme == "marks" else (rng.choice(("prerouting", "output", "")),)
        ):
            if not hook:
                break
            kind = "route" if hook == "output" and rng.random() < 0.3 else "filter"
            chains.append(self._base(kind, hook, rng.choice((-150, -190, -140)), place, 3, f"marks{hook}"))
        if refusing:
            hook = rng.choice(("input", "input", "prerouting", "output", "input", "postrouting", "forward"))
            if self.theme == "sources":
                hook = rng.choice(("input", "prerouting"))
            policy = rng.choice(("accept", "accept", "accept", "drop"))
            priority = rng.choice(REFUSE_AT[hook])
            if self.theme == "states" and hook in ("prerouting", "output"):
                priority = -250
            chains.append(self._base("filter", hook, priority, place, 4, "refuse", policy, refuses=True))
        if rng.random() < (0.9 if self.theme == "sources" else 0.1):
            chains.append(self._source_nat(place(), rng.choice(("postrouting", "postrouting", "input"))))
        if rng.random() < 0.05:
            chains.append(self._tproxy(place()))
        if rng.random() < 0.08:
            chains += self._untracked(place())
        rng.shuffle(chains)
        chains.sort(key=lambda chain: bool(chain.hook))  # what is jumped to comes first
        text = "\n".join(str(rule) for chain in chains for rule in chain.rules) + "\n"
        used = [each for each in self.sets if re.search(rf"@{each.name}\b", text)]
        dormant = rng.random() < 0.02
        return Table("nft", family, name, tuple(chains), tuple(used), dormant)

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
        jumps: tuple[str, ...] = ("n1", "n0") if nat else ("f1", "f0")
        if hook == "postrouting":  # where nothing can be rejected
            jumps = ()
        rules = [
            self.rule(Spot(nat, hook, place(), priority > -200, refuses), jumps)
            for _ in range(self.rng.randint(1, most))
        ]
        if self.rng.random() < 0.04:
            at = self.rng.randint(0, len(rules))
            rules[at:at] = self._long_list(nat, place())
        first: tuple[Rule, ...] = FIRST_ONLY if not nat else ()
        if first and self.rng.random() < 0.5:  # answers, and what follows, are refused, too
            first = FIRST_ONLY[:1]
        return Chain(name or hook, (*first, *rules), kind, hook, priority, policy)

    def _source_nat(self, p: Places, hook: str) -> Chain:
        to = f"snat {p.ip} to" if self.inet else "snat to"
        statements = [f"{to} {p.host}", f"{to} {p.cni0}", "accept"]
        if hook == "postrouting":
            statements += ["masquerade", "masquerade"]
        clauses = (self.port(p), *self.maybe(self.address(p, "saddr")), self.rng.choice(statements))
        return Chain("source", (Rule(clauses),), "nat", hook, 100)

    def _tproxy(self, p: Places) -> Chain:
        """Only for what comes by eth0: over a bridge, br_netfilter loses the socket again."""
        to = f"tproxy {p.ip} to" if self.inet else "tproxy to"
        ends = (
            f"{to} :8443",
            f"{to} {p.to(p.host, 8443)}",
            f"{to} :9",
            f"{to} :6443",
            f"{to} {p.to(p.host, 6443)}",
        )
        clauses = [
            "tcp dport 6443",
            *self.maybe(self.address(p, "saddr")),
            *self.maybe(self.address(p, "daddr")),
        ]
        accept = self.rng.choice((" accept", " meta mark set 0x1 accept", ""))
        rule = Rule(("iifname eth0", *clauses, self.rng.choice(ends) + accept))
        return Chain("give", (rule,), "filter", "prerouting", self.rng.choice((-145, -160)))

    def _long_list(self, nat: bool, p: Places) -> tuple[Rule, ...]:
        """Many rules about somebody else, as block lists and Services are: there are short cuts for those."""
        rng = self.rng
        far = "203.0.113." if p.ip == "ip" else "2001:db8::"
        if rng.random() < 0.5:
            end = "accept" if nat else "drop"
            return tuple(Rule((f"{p.ip} saddr {far}{number}", end)) for number in range(1, 71))
        if nat:
            ends = [f"{p.ip} daddr {far}{number} tcp dport 80" for number in range(1, 71)]
            return tuple(Rule((match, f"dnat {p.ip} to {p.to(p.web, 8080)}")) for match in ends)
        return tuple(Rule((f"tcp dport {number}", "drop")) for number in range(1000, 1070))

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

    def rule(self, spot: Spot, jumps: tuple[str, ...]) -> Rule:
        """Some matches and a statement."""
        rng, p = self.rng, spot.places
        clauses = [self.port(p)]
        if rng.random() < 0.45:
            clauses.append(self.address(p, "daddr"))
        if rng.random() < (0.7 if self.theme == "sources" else 0.35):
            clauses.append(self.address(p, "saddr"))
        if rng.random() < (0.7 if self.theme in ("marks", "states", "interfaces", "users") else 0.35):
            clauses.append(self.other(spot))
        udp = "udp" in clauses[0]
        if rng.random() < 0.12 and not udp:
            clauses.append(self.concat(p))
        if self.wild and rng.random() < 0.15:
            clauses.append(self.unforeseen(spot))
        if rng.random() < 0.2 and not any("proto-dst" in clause for clause in clauses):
            rng.shuffle(clauses)
            clauses.sort(key=lambda clause: "l4proto" not in clause or "." in clause)
        if self.inet and not any(f"{p.ip} " in clause for clause in clauses):
            clauses.insert(0, f"meta nfproto {'ipv4' if p.ip == 'ip' else 'ipv6'}")
        if rng.random() < 0.1:
            clauses.append("counter")
        statement = self.statement(spot, jumps)
        if spot.hook == "postrouting" and not switches.IIF_AT_POSTROUTING:
            clauses = [clause for clause in clauses if "iif" not in clause]
            statement = "accept" if "iif" in statement else statement
        if udp and ("tcp" in statement or ":" in statement):
            statement = "accept"
        comment = f' comment "{rng.choice(("x", "made by nobody"))}"' if rng.random() < 0.1 else ""
        return Rule((*clauses, statement + comment))

    def maybe(self, clause: str) -> tuple[str, ...]:
        """It, or nothing."""
        return (clause,) if self.rng.random() < 0.5 else ()
