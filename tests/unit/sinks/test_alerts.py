"""The board: what Alertmanager is told, and for how long."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from k3swatch.model.incident import Change
from k3swatch.model.words import Mechanism, State
from k3swatch.sinks.alerts import LIMIT, PLACES, Board

HOLD = 240.0


def test_a_firing_alert(make: Any) -> None:
    board = Board("node1")
    assert board.take(make.transition(Change.OPENED))
    (alert,) = board.payload(1000.0, HOLD)
    assert alert["labels"] == {
        "alertname": "K3swatchPortDiverted",
        "instance": "node1",
        "port": "k3s-api",
        "mechanism": "dnat",
        "destination": "10.42.0.244:6443",
        "severity": "critical",
    }
    assert alert["startsAt"] == "1970-01-01T00:16:40.000Z"
    assert alert["endsAt"] == "1970-01-01T00:20:40.000Z"
    notes = alert["annotations"]
    assert notes["summary"] == "tcp/6443 (k3s-api) is DIVERTED to 10.42.0.244:6443 on node1"
    assert notes["incident"] == make.incident().id
    assert notes["rule"] == "tcp dport 6443 dnat to 10.42.0.244:6443"
    assert notes["chain"] == "ip nat CNI-DN-00ae1f04b10f949419f13"
    assert "https://127.0.0.1:6444" in notes["description"]
    assert notes["runbook_url"].endswith("/runbooks/K3swatchPortDiverted.md")
    assert board.payload(5000.0, HOLD)[0]["endsAt"] == "1970-01-01T01:27:20.000Z"


def test_a_resolved_one_is_repeated_for_five_minutes(make: Any) -> None:
    board = Board("node1")
    board.take(make.transition(Change.OPENED))
    board.take(make.transition(Change.RESOLVED, at=1200.0))
    for now in (1200.0, 1350.0, 1500.0):
        (alert,) = board.payload(now, HOLD)
        assert alert["endsAt"] == "1970-01-01T00:20:00.000Z"
    assert board.payload(1501.0, HOLD) == []
    assert board.payload(1200.0, HOLD) == []


def test_each_place_is_an_alert_and_ends_on_its_own(make: Any) -> None:
    board = Board("node1")
    two = make.incident(make.finding(destination="a:1"), make.finding(destination="b:1"))
    board.take(make.transition(Change.OPENED, two))
    board.take(make.transition(Change.CHANGED, replace(two, findings=two.findings[1:]), at=1100.0))
    ends = {each["labels"]["destination"]: each["endsAt"] for each in board.payload(1100.0, HOLD)}
    assert ends == {"a:1": "1970-01-01T00:18:20.000Z", "b:1": "1970-01-01T00:22:20.000Z"}


def test_severity_moves_with_the_shadow(make: Any) -> None:
    board = Board("node1")
    waiting = make.incident(make.finding(shadowed=True))
    board.take(make.transition(Change.OPENED, waiting))
    board.take(make.transition(Change.CHANGED, make.incident(make.finding()), at=1100.0))
    alerts = board.payload(1100.0, HOLD)
    firing = {each["labels"]["severity"]: each["endsAt"] > "1970-01-01T00:18:20.000Z" for each in alerts}
    assert firing == {"info": False, "critical": True}


@pytest.mark.parametrize("turned", [False, True])
def test_two_incidents_with_one_identity_fire_until_both_are_over(make: Any, turned: bool) -> None:
    board = Board("node1")
    first, second = make.incident(), replace(make.incident(), id="ffffffffffff")
    if turned:
        board.take(make.transition(Change.OPENED, second))
    board.take(make.transition(Change.OPENED, first))
    board.take(make.transition(Change.OPENED, second))
    board.take(make.transition(Change.RESOLVED, first, at=1100.0))
    (alert,) = board.payload(1100.0, HOLD)
    assert alert["endsAt"] == "1970-01-01T00:22:20.000Z"
    board.take(make.transition(Change.RESOLVED, second, at=1200.0))
    (alert,) = board.payload(1200.0, HOLD)
    assert alert["endsAt"] <= "1970-01-01T00:20:00.000Z"


def test_incidents_from_before_a_restart_fire_on(make: Any) -> None:
    board = Board("node1", [make.incident()])
    assert board.payload(2000.0, HOLD)[0]["endsAt"] == "1970-01-01T00:37:20.000Z"
    board.take(make.transition(Change.RESOLVED, at=2100.0))
    assert board.payload(2100.0, HOLD)[0]["endsAt"] == "1970-01-01T00:35:00.000Z"


def test_unknown_and_blocked(make: Any) -> None:
    board = Board("node1")
    for state in (State.UNKNOWN, State.BLOCKED):
        finding = make.finding(state=state, mechanism=Mechanism.NONE, destination=None)
        board.take(make.transition(Change.OPENED, make.incident(finding)))
    names = {each["labels"]["alertname"]: each["labels"]["severity"] for each in board.payload(1000.0, HOLD)}
    assert names == {"K3swatchPortUnknown": "warning", "K3swatchPortBlocked": "critical"}


def test_the_end_is_never_before_the_start(make: Any) -> None:
    board = Board("node1")
    board.take(make.transition(Change.OPENED, make.incident(opened_at=9000.0)))
    (alert,) = board.payload(100.0, HOLD)  # the clock was set back
    assert alert["startsAt"] <= alert["endsAt"]
    board.take(make.transition(Change.RESOLVED, make.incident(opened_at=9000.0), at=150.0))
    (alert,) = board.payload(150.0, HOLD)
    assert alert["startsAt"] <= alert["endsAt"] == "1970-01-01T00:02:30.000Z"
    board = Board("node1")
    board.take(make.transition(Change.RESOLVED, at=9000.0))
    assert board.payload(100.0, HOLD) == []


def test_bounds(make: Any) -> None:
    board = Board("node1")
    many = make.incident(*(make.finding(destination=f"d:{n}") for n in range(100)))
    assert board.take(make.transition(Change.OPENED, many))
    assert len(board.payload(1000.0, HOLD)) == PLACES
    taken = 0
    for n in range(LIMIT):
        one = replace(make.incident(make.finding(destination=f"e:{n}")), id=f"{n:012x}")
        taken += board.take(make.transition(Change.OPENED, one))
    assert taken == LIMIT - PLACES
    assert len(board.payload(1000.0, HOLD)) == LIMIT


def test_hostile_text_is_bounded_and_json(make: Any) -> None:
    evil = 'x"\n\0\udcff' * 1000
    finding = make.finding()
    step = replace(finding.path[0], rule=evil, chain=evil, table=evil, comment=evil)
    board = Board(evil)
    incident = make.incident(replace(finding, path=(step,), destination=evil, why=evil), committer=(1, evil))
    board.take(make.transition(Change.OPENED, incident))
    text = json.dumps(board.payload(1000.0, HOLD)).encode()
    assert len(text) < 10_000
