"""Walks the transition table."""

from __future__ import annotations

import itertools

import pytest

from k3swatch.incident.table import TABLE, IllegalMove, Phase, Signal, move
from k3swatch.model.incident import Change

LEGAL = [(phase, signal) for phase, row in TABLE.items() for signal in row]
ILLEGAL = [pair for pair in itertools.product(Phase, Signal) if pair not in LEGAL]


def test_every_phase_has_a_row_and_can_be_reached() -> None:
    assert set(TABLE) == set(Phase)
    assert {phase for row in TABLE.values() for phase, _ in row.values()} == set(Phase)


def test_every_change_can_be_told() -> None:
    assert {change for row in TABLE.values() for _, change in row.values() if change} == set(Change)


def test_hidden_never_changes_anything() -> None:
    for phase in set(Phase) - {Phase.ABSENT}:
        assert move(phase, Signal.HIDDEN) == (phase, None)


def test_only_gone_or_settled_resolve() -> None:
    ends = {(phase, signal) for phase, signal in LEGAL if TABLE[phase][signal][1] is Change.RESOLVED}
    assert ends == {(Phase.OPEN, Signal.GONE), (Phase.PAUSED, Signal.SETTLED)}


def test_flapping_is_told_once() -> None:
    told = [(phase, signal) for phase, signal in LEGAL if TABLE[phase][signal][1] is Change.FLAPPING]
    assert told == [(Phase.RESOLVED, Signal.RELAPSED)]


@pytest.mark.parametrize(("phase", "signal"), ILLEGAL)
def test_illegal_moves_raise(phase: Phase, signal: Signal) -> None:
    with pytest.raises(IllegalMove, match=f"{signal} while {phase}"):
        move(phase, signal)
