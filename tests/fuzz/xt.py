"""Random rules in iptables' words, for iptables-restore and ip6tables-restore: raw, mangle, nat, filter.

As in `native`, most matches hold for about half of the lab's connections.
"""

from __future__ import annotations

import random
from dataclasses import replace

from fuzz import switches
from fuzz.places import Places
from fuzz.ruleset import PRIORITIES, Chain, Rule, Table

FIRST_ONLY = (
    Rule(("! -p tcp", "-j ACCEPT"), kept=True),
    Rule(("-p tcp ! --tcp-flags SYN,ACK SYN", "-j ACCEPT"), kept=True),
)
HOOKS = {name.upper(): name for name in ("prerouting", "output", "input", "forward", "postrouting")}
PORTS = (
    "-p tcp --dport 22", "-p tcp --dport 6000:7000", "-p tcp --dport 1:6442", "-p tcp ! --dport 6443",
    "-p tcp ! --dport 22", "-p tcp -m multiport --dports 22,6443", "-p tcp -m multiport ! --dports 80,443",
    "-p tcp -m multiport --dports 9,6440:6450", "-p tcp -m multiport ! --dports 6443,6444", "-p tcp --syn",
    "-p tcp ! --syn", "-p tcp --tcp-flags SYN,ACK ACK", "-p tcp --tcp-flags PSH PSH",
    "-p tcp --sport 1024: --dport 6443", "-p tcp -m multiport --ports 6443", "! -p udp", "-p tcp",
    "-p udp --dport 6443", "-p tcp --tcp-flags SYN,RST SYN --dport 6443", "-p tcp ! --sport 22 --dport 6443:",
    "-p tcp -m multiport --sports 32768:60999",
)  # fmt: skip
UNFORESEEN = {
    "chance": (
        "-m statistic --mode random --probability 0.5", "-m statistic --mode nth --every 2 --packet 0",
    ),
    "dynamic": (
        "-m limit --limit 2/sec", "-m recent --name r --set", "-m recent --name r --rcheck",
        "-m connlimit --connlimit-above 20",
        "-m hashlimit --hashlimit-upto 2/sec --hashlimit-name h --hashlimit-mode srcip", "-m quota --quota 100000",
    ),
    "environment": (
        "-m length --length 0:2000", "-m dscp --dscp 0", "-m dscp ! --dscp 0", "-m time --timestart 00:00",
        "-m cpu --cpu 0",
        "-m u32 --u32 0x0=0x0", "-m string --algo bm --string x", "-m tcp --tcp-option 2", "-m socket",
    ),
}  # fmt: skip
OWN = ("A", "B")  # chains of a table's own: A may go to B


class Xtables:
    """Makes the iptables tables of one ruleset; what is `beyond` knowing gathers on the way."""

    def __init__(self, rng: random.Random, beyond: set[str], wild: str, theme: str) -> None:
        self.rng, self.beyond, self.wild, self.theme = rng, beyond, wild, theme

    def tables(self, p: Places) -> list[Table]:
        """nat, and some of the others."""
        rng = self.rng
        made = [self._table(p, "nat", ("PREROUTING", "OUTPUT"), 4)]
        if rng.random() < (0.9 if self.theme == "sources" else 0.08):
            made[0] = replace(made[0], chains=(*made[0].chains, self._source_nat(p)))
        if rng.random() < (0.95 if self.theme == "marks" else 0.4):
            made.append(self._table(p, "mangle", ("PREROUTING", "OUTPUT"), 2))
        elif rng.random() < 0.12:
            hook = rng.choice(("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING", "FORWARD"))
            made.append(self._table(p, "mangle", (hook,), 3, refuses=True))
        if rng.random() < (0.8 if self.theme in ("sources", "states") else 0.3):
            made.append(
                self._table(p, "filter", (rng.choice(("INPUT", "INPUT", "OUTPUT")),), 4, refuses=True)
            )
        if rng.random() < 0.12:
            made.append(self._table(p, "raw", (rng.choice(("PREROUTING", "OUTPUT")),), 2, refuses=True))
        elif rng.random() < 0.1:
            made.append(self._untracked(p))
        rng.shuffle(made)
        return made

    def _table(self, p: Places, name: str, bases: tuple[str, ...], most: int, refuses: bool = False) -> Table:
        chains = [self._chain(p, name, "B", (), 3, refuses), self._chain(p, name, "A", ("B",), 3, refuses)]
        for base in bases:
            made = self._chain(p, name, base, OWN, most, refuses)
            first: tuple[Rule, ...] = () if name == "nat" else FIRST_ONLY
            if first and self.rng.random() < 0.5:  # answers, and what follows, are refused, too
                first = FIRST_ONLY[:1]
            policy = "drop" if refuses and name == "filter" and self.rng.random() < 0.25 else "accept"
            chains.append(
                Chain(
                    base, (*first, *made.rules), "nat" if name == "nat" else "filter", HOOKS[base],
                    PRIORITIES[name], policy,
                )
            )  # fmt: skip
        return Table(p.tool, p.ip, name, tuple(chains))

    def _source_nat(self, p: Places) -> Chain:
        hook = self.rng.choice(("POSTROUTING", "POSTROUTING", "INPUT"))
        ends = ["-j ACCEPT", f"-j SNAT --to-source {p.host}", f"-j SNAT --to-source {p.cni0}"]
        if hook == "POSTROUTING":
            ends += ["-j MASQUERADE"] * 2
        clauses = ("-p tcp", *[self._source(p)] * self.rng.randint(0, 1), self.rng.choice(ends))
        return Chain(hook, (Rule(clauses),), "nat", HOOKS[hook], 100)

    def _untracked(self, p: Places) -> Table:
        """A raw table that keeps some connections from being tracked, all packets of both directions."""
        rng = self.rng
        rules = []
        for _ in range(rng.randint(1, 2)):
            here, there = rng.choice(("", p.host, p.cni0, p.lan)), rng.choice(("", "", p.client, p.pods))
            if not switches.HALF_TRACKED:
                here = there = ""
            for port, one, other in (("--dport 6443", here, there), ("--sport 6443", there, here)):
                ends = [f"-d {one}"] * bool(one) + [f"-s {other}"] * bool(other)
                rules.append(Rule((f"-p tcp {port}", *ends, "-j CT --notrack"), kept=True))
        bases = [
            Chain(name, tuple(rules), "filter", HOOKS[name], PRIORITIES["raw"])
            for name in ("PREROUTING", "OUTPUT")
        ]
        return Table(p.tool, p.ip, "raw", tuple(bases))

    def _chain(
        self, p: Places, table: str, name: str, jumps: tuple[str, ...], most: int, refuses: bool
    ) -> Chain:
        rules = []
        for _ in range(self.rng.randint(1, most)):
            clauses = self.matches(p, name)
            rules.append(
                Rule((*clauses, self.target(p, table, jumps, refuses, clauses[0].startswith("-p tcp"))))
            )
        return Chain(name, tuple(rules))

    def matches(self, p: Places, chain: str) -> list[str]:
        """Some matches, the protocol first."""
        rng = self.rng
        clauses = ["-p tcp --dport 6443" if rng.random() < 0.6 else rng.choice(PORTS)]
        if rng.random() < 0.45:
            clauses.append(self._destination(p))
        if rng.random() < (0.7 if self.theme == "sources" else 0.35):
            clauses.append(self._source(p))
        if chain == "PREROUTING" and rng.random() < (0.7 if self.theme == "interfaces" else 0.3):
            clauses.append(rng.choice(("-i eth0", "! -i cni0", "-i lo", "-i cn+", "! -i e+")))
        if chain == "OUTPUT" and rng.random() < (0.7 if self.theme == "users" else 0.3):
            owner = "-m owner --uid-owner"
            clauses.append(rng.choice((
                "-o lo", "! -o lo", "-o eth0", f"{owner} 0", f"{owner} 1000", "-m owner ! --uid-owner 0",
                f"{owner} 0-999",
            )))  # fmt: skip
        if rng.random() < (0.7 if self.theme in ("marks", "states") else 0.3):
            clauses.append(self._other(p))
        if self.wild and rng.random() < 0.15:
            self.beyond.add(self.wild)
            clauses.append(rng.choice(UNFORESEEN[self.wild]))
        return clauses

    def _destination(self, p: Places) -> str:
        rng = self.rng
        if rng.random() < 0.45:
            return f"-d {p.host}"
        mask, _ = p.half
        return rng.choice((
            f"-d {p.lan}", f"! -d {p.host}", f"-d {p.cni0}", f"! -d {p.lan}", "-m addrtype --dst-type LOCAL",
            "-m addrtype ! --dst-type LOCAL", f"-m iprange --dst-range {p.near}", f"-m iprange ! --dst-range {p.near}",
            f"-d {p.host}/{mask}", f"! -d {p.host}/{mask}", f"-d {p.loopback}", f"! -d {p.pods}",
            "-m addrtype --dst-type UNICAST", "-m addrtype --dst-type LOCAL,UNICAST",
        ))  # fmt: skip

    def _source(self, p: Places) -> str:
        rng = self.rng
        return rng.choice((
            f"-s {p.client}", f"-s {p.lan}", f"! -s {p.client_b}", f"-s {p.pods}", f"! -s {p.lan}", f"-s {p.host}",
            f"-m iprange --src-range {p.near}", f"-m iprange ! --src-range {p.near}", f"-s {p.web}", f"! -s {p.host}",
            "-m addrtype --src-type LOCAL", "-m addrtype ! --src-type LOCAL", f"-s {p.client}/{p.half[0]}",
        ))  # fmt: skip

    def _other(self, p: Places) -> str:
        options = (
            "-m mark --mark 0x10/0x10", "-m mark ! --mark 0x20/0x20", "-m mark --mark 0x0", "-m mark ! --mark 0x10",
            "-m mark --mark 0x30/0x30", "-m connmark --mark 0x10/0x10", "-m connmark ! --mark 0x10",
            "-m conntrack --ctstate NEW", "-m conntrack ! --ctstate NEW", "-m conntrack --ctstate NEW,UNTRACKED",
            "-m conntrack --ctstate ESTABLISHED,RELATED", "-m conntrack --ctstate DNAT", "-m state --state NEW",
            "-m conntrack --ctstate UNTRACKED", "-m conntrack ! --ctstate INVALID,SNAT",
            "-m conntrack --ctdir ORIGINAL", "-m conntrack --ctorigdstport 6443", f"-m conntrack --ctorigdst {p.host}",
            f"-m conntrack ! --ctorigsrc {p.client}", "-m conntrack --ctproto tcp", "-m comment --comment x",
            "-m pkttype --pkt-type unicast", "-m conntrack --ctstatus NONE", "-m conntrack --ctstatus ASSURED",
            "-m pkttype ! --pkt-type broadcast",
        )  # fmt: skip
        wanted = {"marks": "mark", "states": "ct"}.get(self.theme, "")
        if self.theme == "marks" and self.rng.random() < 0.5:
            return self.rng.choice((  # a match of their own, with a mask: what iptables makes of `-m mark` is nft's
                "-m connmark --mark 0x10/0x10", "-m connmark ! --mark 0x10/0x10", "-m connmark --mark 0x0/0x20",
                "-m connmark ! --mark 0x20/0x20",
            ))  # fmt: skip
        return self.rng.choice([option for option in options if wanted in option])

    def target(self, p: Places, table: str, jumps: tuple[str, ...], refuses: bool, tcp: bool) -> str:
        """What a rule does."""
        rng = self.rng
        if jumps and rng.random() < (0.45 if self.theme == "jumps" else 0.3):
            return rng.choice([f"{verb} {chain}" for verb in ("-j", "-g") for chain in jumps])
        if rng.random() < 0.12:
            return self._marking()
        if table == "nat":
            if rng.random() < (0.5 if self.theme == "jumps" else 0.25):
                return f"-j {rng.choice(('ACCEPT', 'RETURN'))}"
            return f"-j {self._mapping(p)}"
        if table == "mangle" and not refuses:
            return self._marking() if rng.random() < 0.7 else f"-j {rng.choice(('ACCEPT', 'RETURN'))}"
        ends = ["DROP", "DROP", "RETURN", "ACCEPT", "ACCEPT"]
        if table == "filter":
            ends += ["REJECT"]
            if tcp:
                ends += ["REJECT --reject-with tcp-reset"]
        return f"-j {rng.choice(ends)}"

    def _marking(self) -> str:
        mark = self.rng.choice(("0x10", "0x30") if self.theme == "marks" else ("0x10", "0x20", "0x30"))
        if self.theme == "marks" and self.rng.random() < 0.4:
            return "-j CONNMARK --set-mark 0x30"
        return self.rng.choice((
            f"-j MARK --set-mark {mark}", f"-j MARK --set-xmark {mark}/0x30", f"-j MARK --or-mark {mark}",
            "-j MARK --and-mark 0x10", f"-j MARK --xor-mark {mark}", f"-j MARK --set-xmark 0x0/{mark}",
            f"-j CONNMARK --set-mark {mark}", "-j CONNMARK --save-mark", "-j CONNMARK --restore-mark",
            "-j CONNMARK --restore-mark --nfmask 0x10 --ctmask 0x10",
        ))  # fmt: skip

    def _mapping(self, p: Places) -> str:
        rng = self.rng
        elsewhere = rng.choice((p.web, p.web, p.other, p.nowhere))
        to = "DNAT --to-destination"
        prefix = 24 if p.ip == "ip" else 120
        options = [
            f"{to} {p.to(elsewhere, 6443)}", f"{to} {elsewhere}", f"{to} {p.to(p.host, 8443)}",
            f"{to} {p.to(p.host, 6443)}", f"{to} {p.to(p.cni0, 6443)}", "REDIRECT --to-ports 8443",
            "REDIRECT --to-ports 6443", "REDIRECT", f"{to} :8443", f"{to} {p.to(p.web, '6440-6450')}",
            f"NETMAP --to {p.web}/{prefix}", f"NETMAP --to {p.lan}",
        ]  # fmt: skip
        if self.wild == "chance" and rng.random() < 0.2:
            self.beyond.add("chance")
            return rng.choice((f"{to} {p.to(p.web, '7000-7010')}", f"{to} {p.web} --random"))
        return options[0] if rng.random() < 0.4 else rng.choice(options)
