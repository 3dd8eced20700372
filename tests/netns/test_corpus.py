"""The corpus loaded by the real tools: the live ruleset must say what the snapshot says, word for word.

`--update-golden` takes the snapshots anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from support.corpus import CORPUS, NAMES, load, node, verdict_text

from k3swatch.demo.netns import Namespace
from k3swatch.live.capture import capture
from k3swatch.live.host import read_host
from k3swatch.live.ruleset import LiveRuleset
from k3swatch.live.snapshot import SnapshotRuleset
from k3swatch.sources.nftables import NftablesSource


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    with node() as made:
        yield made


@pytest.mark.parametrize("name", NAMES)
def test_live_and_snapshot_agree(name: str, space: Namespace, update_golden: bool) -> None:
    load(space, name)
    with space.inside(), closing(NftablesSource()) as source:
        ruleset = LiveRuleset(source)
        ruleset.refresh()
        live = verdict_text(ruleset, read_host())
        document = json.loads(json.dumps(capture(source, 0.0)))
    replayed = SnapshotRuleset(document)
    assert verdict_text(replayed, replayed.host()) == live
    kept = CORPUS / f"{name}.snapshot.json"
    if update_golden:
        kept.write_text(json.dumps(document, indent=1) + "\n")
    stored = SnapshotRuleset.load(kept)
    assert verdict_text(stored, stored.host()) == live
