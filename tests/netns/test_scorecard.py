"""The scorecard itself: some cases through the whole of it, what it counts, and that its page is about these cases."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from scorecard import grid
from scorecard.others import TOOLS
from scorecard.page import page
from scorecard.run import Result, results
from support.cases import CASES, Case

NAMES = ("iptables/iptables-dnat-prerouting", "filters/iptables-input-drop", "iptables/fine-comment-only")
BEHIND = 8
TO_ITSELF = "iptables/iptables-redirect-same-port"
GREP_NFT, JQ, GREP_IPTABLES, SS, CONNTRACK = (tool.name for tool in TOOLS)


def case(name: str) -> Case:
    return next(one for one in CASES if f"{one.group}/{one.name}" == name)


def good(name: str) -> Result:
    one = case(name)
    return Result(
        one, True, True, not one.fine, not one.fine, one.diverts, dict.fromkeys(map(str, NAMES), True)
    )


@pytest.mark.timeout(240)
def test_a_diversion_a_block_and_a_look_alike(root: None) -> None:
    diverted, blocked, fine, to_itself = results(map(case, (*NAMES, TO_ITSELF)), labs=1)
    for one in (diverted, blocked, fine, to_itself):
        assert one.detected and one.named, one.report  # noqa: PT018
    assert diverted.alarm
    assert diverted.live
    assert diverted.live_named
    assert blocked.alarm
    assert blocked.live
    assert not blocked.live_named  # nothing translates a packet that is dropped
    assert not fine.alarm
    assert not fine.live
    assert (
        not to_itself.alarm
    )  # its connections are translated, and reach the owner at another of its addresses
    # iptables' DNAT is a name without a port in nft's JSON; a comment that says 6443 is enough for both greps
    assert diverted.tools == {GREP_NFT: True, JQ: False, GREP_IPTABLES: True, SS: False, CONNTRACK: True}
    assert blocked.tools == {GREP_NFT: True, JQ: False, GREP_IPTABLES: True, SS: False, CONNTRACK: False}
    assert fine.tools == {GREP_NFT: True, JQ: False, GREP_IPTABLES: True, SS: False, CONNTRACK: False}


def test_what_is_wrong_is_counted_and_named() -> None:
    taken, blocked, fine = map(good, NAMES)
    assert grid.grid([taken, blocked, fine])[-1] == ["all", "2", "2", "2", "2", "1", "1", "0"]
    assert not list(grid.failures([taken, blocked, fine]))
    missed = replace(taken, detected=False, named=False, live=False, live_named=False)
    alarmed = replace(fine, alarm=True)
    assert grid.grid([missed, blocked, alarmed])[-1] == ["all", "2", *["1 of 2"] * 3, "0 of 1", "1", "1"]
    assert list(grid.failures([missed, blocked, alarmed])) == [missed, alarmed]
    text = page([missed, blocked, alarmed], "today", "here", 1.0)
    assert "Not as their files say" in text
    assert f"`{NAMES[0]}`" in text


def test_the_page_is_about_these_cases(repo: Path) -> None:
    """It claims no case that is not there, and is at most `BEHIND` cases old: then `make scorecard` writes it anew."""
    text = (repo / "docs" / "scorecard.md").read_text()
    rows = re.findall(r"^\| ([\w-]+) \| (\d+) \|(?:[^|]*\|){4} (\d+) \| \d+ \|$", text, re.MULTILINE)
    claimed = {group: (int(taken), int(fine)) for group, taken, fine in rows}
    total = claimed.pop("all")
    for group, numbers in claimed.items():
        mine = [one.fine for one in CASES if one.group == group]
        assert numbers[0] <= len(mine) - sum(mine), group
        assert numbers[1] <= sum(mine), group
    assert tuple(map(sum, zip(*claimed.values(), strict=True))) == total
    assert len(CASES) - BEHIND <= sum(total) <= len(CASES)


def test_the_corpus_is_as_large_as_promised() -> None:
    """60 ways to take the port, 120 that only look like it."""
    fine = sum(one.fine for one in CASES)
    assert len(CASES) - fine >= 60
    assert fine >= 120
