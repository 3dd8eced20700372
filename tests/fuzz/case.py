"""A disagreement as a file of the scorecard: the commands, who connects, who answers, what has to be said."""

from __future__ import annotations

from fuzz.compare import Verdict
from fuzz.places import V4, V6
from fuzz.ruleset import Ruleset
from k3swatch.demo import lab as at
from k3swatch.demo.said import NOBODY

SERVERS = {
    ("host", "6443"): at.API,
    ("host", "8443"): at.LOCAL_8443,
    ("host", "6444"): at.API_6444,
    ("other", "6443"): at.OTHER_CLUSTER,
    ("web", "6443"): at.WEB_POD,
}
STARTS = {**dict.fromkeys((V4.client_b, V6.client_b), "client-b")}


def text(seed: str, ruleset: Ruleset, verdict: Verdict) -> str:
    """The file. Who answers and what must be said are what the kernel did, not what was said."""
    where = verdict.seen.answer.where
    space, _, place = where.partition(" ")
    answer = where if where in NOBODY else SERVERS[space, place.rpartition(":")[2]]
    if answer == at.API:
        state = "delivered"
    elif where in NOBODY:
        state = "blocked*|diverted*|unknown*"
    else:
        state = "diverted*"
    dial = verdict.dial
    head = [f"# Found by make fuzz-kernel, seed {seed}: {verdict.complaint}", f"# {verdict}"]
    return "\n".join([
        *head,
        ruleset.script(),
        "---",
        f"{STARTS.get(dial.source, dial.start):<9} {dial.address:<15} {answer:<15} {state}",
        "",
    ])  # fmt: skip
