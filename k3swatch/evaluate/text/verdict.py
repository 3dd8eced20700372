"""Verdicts in nft's words."""

from __future__ import annotations

from k3swatch.model.expr import Verdict

VERDICTS = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", -1: "continue", -2: "break", -5: "return"}
JUMPS = {-3: "jump", -4: "goto"}


def verdict(found: Verdict) -> str:
    """`accept`, `jump KUBE-SERVICES`."""
    if found.code in JUMPS:
        return f"{JUMPS[found.code]} {found.chain}"
    return VERDICTS.get(found.code, f"opaque(verdict {found.code})")
