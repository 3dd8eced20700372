"""The evaluator on snapshots of real rulesets: no root, no kernel, the same words every time."""

from __future__ import annotations

import pytest
from support.corpus import CORPUS, NAMES, verdict_text

from k3swatch.live.snapshot import SnapshotRuleset


@pytest.mark.parametrize("name", NAMES)
def test_verdict(name: str, update_golden: bool) -> None:
    ruleset = SnapshotRuleset.load(CORPUS / f"{name}.snapshot.json")
    said = verdict_text(ruleset, ruleset.host())
    expected = CORPUS / f"{name}.verdict.txt"
    if update_golden:
        expected.write_text(said)
    assert said == expected.read_text()
