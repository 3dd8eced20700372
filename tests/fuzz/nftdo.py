"""Random statements in nft's words: verdicts, maps of them, marks, NAT."""

from __future__ import annotations

from fuzz.nftmatch import MARKS, Matches, Spot


class Statements(Matches):
    """Statements for the rules of one table."""

    def statement(self, spot: Spot, jumps: tuple[str, ...]) -> str:
        """What a rule does."""
        rng = self.rng
        if jumps and rng.random() < (0.45 if self.theme == "jumps" else 0.25):
            return rng.choice([f"{verb} {chain}" for verb in ("jump", "goto") for chain in jumps])
        if rng.random() < 0.12:
            return self.verdict_map(spot, jumps)
        if rng.random() < (0.5 if self.theme == "marks" and not spot.nat else 0.15):
            return self.marking(spot)
        if self.theme == "jumps" and rng.random() < 0.25:
            return rng.choice(("return", "return", "continue", "accept"))
        if spot.nat:
            return (
                self.mapping(spot)
                if rng.random() < 0.72
                else rng.choice(("accept", "return", "counter", "drop"))
            )
        if spot.hook == "postrouting" and rng.random() < 0.5:
            return "drop"
        if spot.refuses and rng.random() < 0.55 and spot.hook != "postrouting":
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
            ("ct state", "ct_state", [f"established : {three}", f"new : {one}", f"invalid : {two}"]),
            (f"{p.ip} saddr . tcp dport", f"{p.kind} . inet_service; flags interval",
             [f"{p.lan} . 6400-6500 : {one}", f"{p.pods} . 1-7000 : {two}"]),
            (f"{p.ip} daddr . meta l4proto . th dport", f"{p.kind} . inet_proto . inet_service",
             [f"{p.host} . tcp . 6443 : {one}"]),
        ))  # fmt: skip
        if rng.random() < 0.15 and "." not in keys and "interval" not in kind:
            members = [*members, f"* : {three}"]
        if rng.random() < 0.4 and not any("*" in member for member in members):
            return f"{keys} vmap {{ {', '.join(members)} }}"
        head, _, flags = kind.partition(";")
        name = self.named(f"type {head} : verdict{';' + flags if flags else ''}", members)
        return f"{keys} vmap @{name}"

    def marking(self, spot: Spot) -> str:
        """Marks of the packet and of its connection."""
        rng, mark = self.rng, self.rng.choice(MARKS)
        options = [
            f"meta mark set {mark}", f"meta mark set meta mark or {mark}", f"meta mark set meta mark and {mark}",
            f"meta mark set meta mark xor {mark}", f"meta mark set tcp dport map {{ 6443 : {mark}, 22 : 0x2 }}",
            f"meta mark set meta mark and 0xffffffef or {mark}",
            f"meta mark set {spot.places.ip} saddr map {{ {spot.places.client} : {mark}, {spot.places.web} : 0x20 }}",
        ]  # fmt: skip
        if spot.tracked:
            options += [f"ct mark set {mark}", "ct mark set meta mark", "meta mark set ct mark"]
        return rng.choice(options)

    def mapping(self, spot: Spot) -> str:
        """NAT of the destination."""
        rng, p = self.rng, spot.places
        to = f"dnat {p.ip} to" if self.inet else "dnat to"
        elsewhere = rng.choice((p.web, p.web, p.other, p.nowhere))
        options = [
            f"{to} {p.to(elsewhere, 6443)}", f"{to} {elsewhere}", f"{to} {p.to(p.host, 8443)}",
            f"{to} {p.to(p.host, 6443)}", f"{to} {p.to(p.cni0, 6443)}", f"{to} {p.ip} daddr", "redirect to :8443",
            "redirect", "redirect to :6443", "redirect to :9", "dnat to :8443", f"{to} {p.to(p.web, 22)}",
            f"{to} tcp dport map {{ 6443 : {p.web}, 1-6442 : {p.client} }}",
            f"{to} {p.ip} saddr map {{ {p.client} : {p.web}, {p.web} : {p.other}, {p.host} : {p.web} }}",
            f"{to} {p.ip} saddr map {{ {p.lan} : {p.web}, {p.pods} : {p.other} }}",
            f"{to} {p.ip} daddr map @{self.named(f'type {p.kind} : {p.kind}', [f'{p.host} : {p.web}'])}",
            f"dnat {p.ip} addr . port to {p.ip} daddr . tcp dport map "
            f"{{ {p.host} . 6443 : {p.web} . 6443, {p.cni0} . 6443 : {p.other} . 6443 }}",
            f"{to} {p.ip} saddr . tcp dport map @"
            + self.named(
                f"type {p.kind} . inet_service : {p.kind}; flags interval", [f"{p.lan} . 6400-6500 : {p.web}"]
            ),
            "redirect to :tcp dport map { 6443 : 8443, 22 : 6443 }",
            f"{to} {p.to(p.web, 6443)} persistent", f"{to} {p.to(p.web, '6440-6450')}",
        ]  # fmt: skip
        if self.wild == "chance" and rng.random() < 0.2:
            self.beyond.add("chance")
            return rng.choice((
                f"{to} {p.to(p.web, '7000-7010')}", "redirect to :8000-9000", f"{to} {p.web} random",
                f"{to} numgen inc mod 2 map {{ 0 : {p.web}, 1 : {p.other} }}",
            ))  # fmt: skip
        if rng.random() < 0.35:
            return options[0]
        return rng.choice(options)


def unreachable(spot: Spot) -> str:
    """The ICMP answer of a family."""
    return "icmp type host-unreachable" if spot.places.ip == "ip" else "icmpv6 type no-route"
