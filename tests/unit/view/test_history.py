"""The timeline: what it says of an incident, and that nothing from the store reaches a terminal raw."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest

from k3swatch.config.words import since
from k3swatch.model.finding import Culprit, Finding, PathStep
from k3swatch.model.history import History, Past, Told
from k3swatch.model.incident import Incident
from k3swatch.model.words import Family, Mechanism, State, Vantage
from k3swatch.view import history

NOON = 1795435200.0  # 2026-11-23 12:00:00 UTC
STEP = PathStep(
    "ip", "nat", "CNI-DN-00ae1f04b10f949419f13", 15, "tcp dport 6443 dnat to 10.42.0.244:6443", "cbr0", 12
)
FINDING = Finding(
    State.DIVERTED,
    Mechanism.DNAT,
    Vantage.EXTERNAL,
    Family.IP,
    ("192.168.1.233",),
    "10.42.0.244:6443",
    path=(STEP,),
)
INCIDENT = Incident(
    "cb0cd4bdb7a0",
    "k3s-api",
    "tcp/6443",
    "critical",
    State.DIVERTED,
    FINDING.cause,
    (replace(FINDING, culprit=Culprit(pod="kube-system/svclb-x")),),
    NOON,
    NOON,
    confirmed_at=NOON + 2,
    connections=17,
    committer=(4242, "portmap"),
    flaps=1,
)
ENDED = replace(INCIDENT, resolved_at=NOON + 200)


def told(at: float, change: str, state: str) -> Told:
    return Told(at, INCIDENT.id, INCIDENT.port, change, state, "in words")


LIFE = Past(
    ENDED,
    (
        told(NOON, "opened", "diverted"),
        told(NOON + 2, "confirmed", "diverted"),
        told(NOON + 200, "resolved", "delivered"),
    ),
)


def shown(*pasts: Past, zone: Any = UTC, **fields: Any) -> str:
    return history.text(History(pasts, **fields), NOON + 3600, zone=zone)


def test_one_incident_from_first_to_last_word() -> None:
    assert shown(LIFE) == (
        "2026-11-23 12:00:00  tcp/6443 (k3s-api) DIVERTED to 10.42.0.244:6443\n"
        "    lasted 3 min 20 s; 17 connections went there; came back 1 time; incident cb0cd4bdb7a0\n"
        "    by ip nat CNI-DN-00ae1f04b10f949419f13 handle 15: tcp dport 6443 dnat to 10.42.0.244:6443 "
        'comment "cbr0"\n'
        "    committed by portmap (pid 4242)\n"
        "    taken by pod kube-system/svclb-x [low]\n"
        "    12:00:00  opened     the port is diverted\n"
        "    12:00:02  confirmed  the port is diverted\n"
        "    12:03:20  resolved   the port is delivered\n"
        "\n"
        "1 incident"
    )


def test_an_open_one_says_so() -> None:
    text = shown(LIFE, Past(replace(INCIDENT, opened_at=NOON + 1800), ()))
    assert "    OPEN for 30 min; " in text
    assert text.endswith("\n2 incidents, 1 open")


def test_a_cause_that_went_while_another_holds_the_port() -> None:
    text = shown(Past(ENDED, (told(NOON + 200, "resolved", "diverted"),)))
    assert "  resolved   the port is diverted, by another cause\n" in text


def test_who_undid_it_is_said_and_nothing_else_of_the_message() -> None:
    words = "x is no longer DIVERTED (after 6 s), undone by k3swatch (pid 42): the port is delivered again"
    for message, shown in (
        (words, "the port is delivered, undone by k3swatch (pid 42)"),
        (
            words.replace("k3swatch (", "evil\x1b[2J ("),
            "the port is delivered, undone by evil\\x1b[2J (pid 42)",
        ),
        (words.replace("(pid 42)", "(pid 4\n2)"), "the port is delivered"),
    ):
        past = Past(ENDED, (replace(told(NOON + 200, "resolved", "delivered"), message=message),))
        line = history.text(History((past,)), NOON + 300, zone=UTC).splitlines()[-3]
        assert line.endswith(f"resolved   {shown}"), line


def test_the_day_is_said_when_it_changes() -> None:
    text = shown(Past(ENDED, (told(NOON, "opened", "diverted"), told(NOON + 86400, "resolved", "delivered"))))
    assert "    12:00:00  opened " in text
    assert "    2026-11-24 12:00:00  resolved " in text


def test_times_are_those_of_the_reader() -> None:
    assert shown(LIFE, zone=timezone(timedelta(hours=-5))).startswith("2026-11-23 07:00:00  tcp/6443")


def test_what_is_missing_is_counted() -> None:
    text = shown(LIFE, omitted=7, unreadable=2)
    assert text.startswith("7 older ones are not shown\n")
    assert text.endswith("1 incident; 2 could not be read")
    assert shown() == "no incidents"


def test_uncertain_and_unexplained_and_no_alarm() -> None:
    text = shown(Past(replace(ENDED, findings=(replace(FINDING, certain=False),)), ()))
    assert "(k3s-api) maybe DIVERTED to" in text
    unexplained = replace(FINDING, mechanism=Mechanism.UNEXPLAINED, path=(), why=None)
    assert "    by unexplained, no rule explains it\n" in shown(
        Past(replace(ENDED, findings=(unexplained,)), ())
    )
    assert "; no alarm: " in shown(Past(replace(ENDED, findings=(replace(FINDING, shadowed=True),)), ()))


def test_nothing_reaches_a_terminal_raw() -> None:
    evil = "\x1b[2J\n\r\x00\u202etxt\udcff" + "A" * 300
    step = PathStep(evil, evil, evil, 1, evil, evil)
    bad = replace(FINDING, path=(step,), destination=evil, why=evil, culprit=Culprit(pod=evil))
    one = replace(ENDED, id=evil, port=evil, spec=evil, findings=(bad,), committer=(1, evil))
    text = shown(Past(one, (Told(NOON, evil, evil, evil, evil, evil),)))
    assert [character for character in text if not character.isprintable() and character != "\n"] == []
    assert len(text.splitlines()) == 8
    dumped = history.json(History((Past(one, ()),)))
    assert all(character.isprintable() or character == "\n" for character in dumped)


def test_json_holds_all_of_it() -> None:
    found = json.loads(history.json(History((LIFE,), 1, 2), NOON))
    assert (found["schema"], found["since"], found["omitted"], found["unreadable"]) == (1, NOON, 1, 2)
    (one,) = found["incidents"]
    assert (one["id"], one["connections"], one["resolved_at"]) == ("cb0cd4bdb7a0", 17, NOON + 200)
    assert one["transitions"][2] == {
        "at": NOON + 200,
        "change": "resolved",
        "state": "delivered",
        "message": "in words",
    }


@pytest.mark.parametrize(
    ("words", "ago"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1w", 604800), ("999999999w", NOON)],
)
def test_since_so_long_ago(words: str, ago: float) -> None:
    assert since(words, NOON) == NOON - ago


def test_since_a_date_is_local_unless_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC-3")
    time.tzset()
    try:
        assert since("2026-11-23", NOON) == NOON - 15 * 3600
        assert since("2026-11-23T07:12", NOON) == NOON - 15 * 3600 + 7 * 3600 + 720
        assert since("2026-11-23T12:00:00+00:00", NOON) == NOON
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "words", ["", "h", "-1h", "1.5h", "٣h", "1y", "soon", "2026-13-01", "2099-01-01", "1" * 20 + "h"]
)
def test_since_something_else_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match=r"want 2h|has not been yet"):
        since(words, NOON)
