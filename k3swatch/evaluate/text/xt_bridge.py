"""ebtables' matches and targets in nft's words."""

from __future__ import annotations

from k3swatch.evaluate.text import render, symbols
from k3swatch.evaluate.text.compare import prefix
from k3swatch.evaluate.text.verdict import verdict as verdict_text
from k3swatch.evaluate.text.xt_targets import set_mark
from k3swatch.evaluate.text.xt_words import span, unless
from k3swatch.model import xt
from k3swatch.model.expr import Code, Verdict


def ip(spec: xt.EtherIp) -> str:
    """`ip saddr 10.0.0.0/8 tcp dport 6443`."""
    family = "ip6" if len(spec.source[0]) == 16 else "ip"
    parts = []
    for bit, key, (address, mask) in ((1, "saddr", spec.source), (2, "daddr", spec.destination)):
        if spec.asked & bit:
            parts.append(f"{family} {key} {unless(spec.inverted & bit)}{prefix(address, mask)}")
    ports = [(16, "sport", spec.sport), (32, "dport", spec.dport)]
    protocol = symbols.PROTOCOLS.get(spec.protocol, str(spec.protocol)) if spec.asked & 8 else "th"
    if spec.asked & 8 and (spec.inverted & 8 or not spec.asked & 48):
        parts.append(f"meta l4proto {unless(spec.inverted & 8)}{protocol}")
        protocol = "th"
    parts += [
        f"{protocol} {key} {unless(spec.inverted & bit)}{span(ends)}"
        for bit, key, ends in ports
        if spec.asked & bit
    ]
    if spec.rest:
        parts.append(f"xt {family} {spec.rest}")
    return " ".join(parts) or f"ether type {family}"


def target(spec: xt.EtherNat | xt.EtherMark) -> str:
    """`ether daddr set 02:00:00:00:00:09 accept`."""
    after = "" if spec.code == Code.CONTINUE else f" {verdict_text(Verdict(spec.code))}"
    if isinstance(spec, xt.EtherMark):
        return set_mark(xt.SetMark(spec.clear, spec.flip)) + after
    if spec.target == "redirect":
        return f"meta pkttype set host{after}"
    key = "daddr" if spec.target == "dnat" else "saddr"
    return f"ether {key} set {render.ether(spec.mac)}{after}"
