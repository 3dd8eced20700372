"""A disagreement as a file of the scorecard: the commands, who connects, who answers, what has to be said."""

from __future__ import annotations

from fuzz.compare import Place, Verdict, mapping, refusal
from fuzz.places import V4, V6
from fuzz.rig import Rig
from fuzz.ruleset import Ruleset
from k3swatch.demo import lab as at
from k3swatch.demo.said import NOBODY
from k3swatch.model.ruleset import ChainRef

SERVERS = {
    ("host", "6443"): at.API,
    ("host", "8443"): at.LOCAL_8443,
    ("host", "6444"): at.API_6444,
    ("other", "6443"): at.OTHER_CLUSTER,
    ("web", "6443"): at.WEB_POD,
}
STARTS = {**dict.fromkeys((V4.client_b, V6.client_b), "client-b")}


def text(rig: Rig, seed: str, ruleset: Ruleset, verdict: Verdict) -> str:
    """The file. Who answers, what must be said and by which rule are what the kernel did, not what was said.

    The ruleset is the one that is loaded. What `check` has to say of the conditions (`if`), it will say itself.
    """
    where = verdict.seen.answer.where
    space, _, place = where.partition(" ")
    answer = where if where in NOBODY else SERVERS[space, place.rpartition(":")[2]]
    state, path = "delivered", tuple[Place, ...]()
    if answer != at.API:
        path = refusal(verdict.seen.steps) or mapping(rig, verdict.seen.steps)
        state = "diverted*" if where not in NOBODY or not refusal(verdict.seen.steps) else "blocked*"
    dial = verdict.dial
    return "\n".join([
        f"# Found by make fuzz-kernel, seed {seed}",
        f"# {verdict}",
        ruleset.script(),
        "---",
        f"{STARTS.get(dial.source, dial.start):<9} {dial.address:<15} {answer:<15} {state}",
        *(f"    by {by(rig, *step)}" for step in path[-1:]),
        "",
    ])  # fmt: skip


def by(rig: Rig, ref: ChainRef, handle: int) -> str:
    """The deciding rule as a case names it."""
    place = f"{ref.family} {ref.table} {ref.chain}"
    for number, rule in enumerate(rig.ruleset.rules(ref), 1):
        if rule.handle == handle:
            return f"{place}: #{number}"
    return f"{place}: policy drop"
