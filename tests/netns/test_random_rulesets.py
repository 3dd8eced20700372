"""Random rulesets, judged by real connections and by the kernel's own trace: what no case file thought of.

Half of the seeds are always the same, half are new in every run: those are printed, and K3SWATCH_SEED=... runs one
again. `make fuzz-kernel` runs on and on, and writes the smallest form of what it finds as a case file.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import closing

import pytest
from fuzz import campaign
from fuzz.compare import BLOCKED, DELIVERED, DIVERTED
from fuzz.mutants import PLAIN, noticed
from fuzz.rig import Rig

from k3swatch.demo.lab import wired

ONLY = os.environ.get("K3SWATCH_SEED")
RULESETS = int(os.environ.get("K3SWATCH_RULESETS", "200"))  # of each half


@pytest.mark.timeout(600)
@pytest.mark.parametrize("half", ["fixed", "fresh"])
def test_random_rulesets(half: str, say: Callable[[str], None]) -> None:
    """Where it goes and which rule decides, as the kernel does it."""
    begin = "fixed-" if half == "fixed" else f"{secrets.token_hex(4)}-"
    seeds = [ONLY] if ONLY else [f"{begin}{number}" for number in range(RULESETS)]
    tally = campaign.Tally()
    with closing(campaign.campaign(seeds, shrinking=True)) as running:
        for some in running:
            tally.add(some)
    text = f"random rulesets, seeds {seeds[0]} to {seeds[-1]}:\n{tally.text()}"
    say(text)
    if tally.disagreements:
        told = "\n\n".join(f"{what}\n{file}" for what, file in tally.disagreements[: campaign.MOST_TOLD])
        pytest.fail(f"{text}\n\n{told}", pytrace=False)
    if ONLY:
        return
    assert tally.rate < campaign.RATE, f"{text}\nmaybe is how to be never wrong"
    assert tally.unloadable < RULESETS / 20, f"{text}\nthe generator writes what the tools do not load"
    for end in (DELIVERED, DIVERTED, "unanswered"):
        assert tally.ends[end] > tally.connections / 10, f"{text}\ntoo few are {end}"
    assert min(tally.words[word] for word in (DELIVERED, DIVERTED, BLOCKED)) > tally.connections / 10, text


@pytest.mark.timeout(300)
def test_a_broken_evaluator_is_noticed() -> None:
    """Mistakes that somebody could make; `make fuzz-kernel ARGS=--mutants` tries many more."""
    with wired() as spaces, closing(Rig(spaces)) as rig:
        seeds = (f"fixed-{number}" for number in range(80))
        found = {name for name, *_ in noticed(rig, PLAIN, seeds)}
    assert found == set(PLAIN)
