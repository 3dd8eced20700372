"""What k3swatch said about one connection, beside who really answered it.

Works on the JSON of `check` and `status` alone, as any other tool would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from k3swatch.demo.apiserver import REFUSED, RESET, TIMEOUT, UNREACHABLE
from k3swatch.demo.lab import API

NOBODY = {REFUSED, TIMEOUT, RESET, UNREACHABLE}
_WORST_FIRST = [
    "diverted",
    "blocked",
    "unknown",
    "diverted?",
    "blocked?",
    "unknown?",
    "unserved",
    "unserved?",
]


@dataclass(frozen=True)
class Said:
    """The findings in force for one vantage and address."""

    findings: list[dict[str, Any]]

    @property
    def word(self) -> str:
        """`delivered` when no finding names it; else the worst that holds for everybody and is certain, else the
        worst one with a `?`.
        """
        words = {finding["state"] + ("" if _holds(finding) else "?") for finding in self.findings}
        return min(words, key=_WORST_FIRST.index, default="delivered")

    @property
    def destinations(self) -> str:
        """Where to, in words; empty when nowhere else."""
        return ", ".join(sorted({finding["destination"] or "nowhere" for finding in self.findings}))

    def contradicts(self, answer: str) -> str:
        """Why what was said cannot be true of this answer; empty when it can."""
        if self.word == "delivered" and answer != API:
            return "FALSE ALL-CLEAR"
        if (self.word == "diverted" and answer == API) or (
            self.word in ("blocked", "unserved") and answer not in NOBODY
        ):
            return "FALSE ALARM"
        return ""


def _holds(finding: dict[str, Any]) -> bool:
    return bool(finding["certain"]) and not finding["conditions"]


def said_about(port: dict[str, Any], local: bool, address: str) -> Said:
    """What one port of a report says about connections to `address`, from the host itself or from elsewhere."""
    vantage, family = ("local" if local else "external"), ("ip6" if ":" in address else "ip")

    def concerns(finding: dict[str, Any]) -> bool:
        named = finding["addresses"]  # none: all of the family
        return address in named if named else bool(finding["family"] == family)

    return Said(
        [f for f in port["findings"] if f["vantage"] == vantage and not f["shadowed"] and concerns(f)]
    )
