"""The sentences. Each is what a person reads first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from k3swatch.model.finding import Culprit
from k3swatch.model.incident import Change
from k3swatch.model.process import Process
from k3swatch.model.words import Evidence, Mechanism, State, Vantage
from k3swatch.view.message import description, duration, message, severity_of

RULE = 'rule "tcp dport 6443 dnat to 10.42.0.244:6443" in ip nat CNI-DN-00ae1f04b10f949419f13 handle 15'


def test_opened(make: Any) -> None:
    assert message(make.transition(Change.OPENED)) == (
        "tcp/6443 (k3s-api) is DIVERTED to 10.42.0.244:6443 for 192.168.1.233 from outside "
        f"and 127.0.0.1 from this host: {RULE}, committed by iptables (pid 4242)"
    )


def test_opened_again_under_conditions_uncertain_and_received(make: Any) -> None:
    finding = make.finding(
        conditions=("from 10.42.0.0/24",),
        certain=False,
        why="rule 3: match xyz is not understood",
        culprit=Culprit(pod="kube-system/svclb-x"),
    )
    assert message(make.transition(Change.OPENED, make.incident(finding, flaps=1))) == (
        "tcp/6443 (k3s-api) may be DIVERTED again to 10.42.0.244:6443 for 192.168.1.233 from outside "
        f"(only from 10.42.0.0/24): {RULE} (rule 3: match xyz is not understood), taken by pod kube-system/svclb-x, "
        "committed by iptables (pid 4242)"
    )


def test_same_address_from_both_sides_is_said_once(make: Any) -> None:
    both = make.incident(make.finding(), make.finding(Vantage.LOCAL))
    assert " for 192.168.1.233 from outside and from this host: " in message(
        make.transition(Change.OPENED, both)
    )


def test_many_addresses_are_counted(make: Any) -> None:
    many = make.finding(addresses=tuple(f"10.0.0.{n}" for n in range(7)))
    text = message(make.transition(Change.OPENED, make.incident(many)))
    assert " for 10.0.0.0, 10.0.0.1, 10.0.0.2 and 4 more from outside: " in text


def test_blocked_and_unknown(make: Any) -> None:
    blocked = make.finding(state=State.BLOCKED, mechanism=Mechanism.NONE, destination=None)
    assert message(make.transition(Change.OPENED, make.incident(blocked))).startswith(
        'tcp/6443 (k3s-api) is BLOCKED for 192.168.1.233 from outside: rule "'
    )
    unknown = make.finding(
        state=State.UNKNOWN, mechanism=Mechanism.NONE, destination=None, path=(), certain=False, why="EPERM"
    )
    assert message(make.transition(Change.OPENED, make.incident(unknown, committer=None))) == (
        "tcp/6443 (k3s-api) is UNKNOWN for 192.168.1.233 from outside: EPERM"
    )


def test_unexplained(make: Any) -> None:
    finding = make.finding(mechanism=Mechanism.UNEXPLAINED, path=(), evidence=frozenset({Evidence.FLOW}))
    assert message(make.transition(Change.OPENED, make.incident(finding, committer=None))) == (
        "tcp/6443 (k3s-api) is DIVERTED to 10.42.0.244:6443 for 192.168.1.233 from outside: no rule explains it"
    )


def test_confirmed_changed_flapping_shadowed(make: Any) -> None:
    incident = make.incident(connections=1, flaps=3)
    assert message(make.transition(Change.CONFIRMED, incident)) == (
        "tcp/6443 (k3s-api) is DIVERTED to 10.42.0.244:6443, and this is real: 1 connection went there: "
        f"{RULE}, committed by iptables (pid 4242)"
    )
    assert message(make.transition(Change.CHANGED)).startswith(
        "tcp/6443 (k3s-api) is still DIVERTED to 10.42.0.244:6443, now for 192.168.1.233 from outside and "
    )
    assert message(make.transition(Change.FLAPPING, incident)) == (
        f"tcp/6443 (k3s-api) is DIVERTED to 10.42.0.244:6443 again and again (3 times): {RULE}, "
        "committed by iptables (pid 4242); no more is told until it has been stable for a minute"
    )
    second = make.incident(make.finding(shadowed=True))
    assert message(make.transition(Change.OPENED, second)).startswith(
        "tcp/6443 (k3s-api): a second cause waits behind the first and would take over to 10.42.0.244:6443 for "
    )


def test_a_connection_makes_unknown_certain(make: Any) -> None:
    before = make.incident(make.finding(state=State.UNKNOWN, mechanism=Mechanism.BPF, destination=None))
    after = make.incident(make.finding(mechanism=Mechanism.BPF, destination="192.168.1.233:8888"))
    assert message(make.transition(Change.CHANGED, after, previous=before)).startswith(
        "tcp/6443 (k3s-api) was UNKNOWN and is DIVERTED to 192.168.1.233:8888 now for 192.168.1.233 from outside: "
    )


def test_resolved_says_what_remains(make: Any) -> None:
    def ending(**fields: object) -> str:
        transition = make.transition(Change.RESOLVED, make.incident(connections=41), **fields)
        return message(transition).split(": ", 1)[1]

    assert message(make.transition(Change.RESOLVED, committer=(7, "nft"))) == (
        "tcp/6443 (k3s-api) is no longer DIVERTED to 10.42.0.244:6443 (after 3 min 20 s), undone by nft (pid 7): "
        "the port is delivered again"
    )
    assert ending(verdict=make.verdict(unserved=True)).startswith(
        "the rules let connections through again, but nobody"
    )
    other = make.finding(destination="10.42.0.9:443")
    assert ending(verdict=make.verdict(other)) == "but the port is DIVERTED to 10.42.0.9:443 by another cause"
    unknown = replace(other, state=State.UNKNOWN, destination=None, why="EPERM")
    assert ending(verdict=make.verdict(unknown)) == "but the port is UNKNOWN by another cause: EPERM"
    assert ending(verdict=replace(make.verdict(), judged=())) == "the port is not watched any more"
    waiting = replace(other, shadowed=True)
    assert ending(verdict=make.verdict(waiting)) == "the port is delivered again"


def test_severity(make: Any) -> None:
    assert severity_of(make.incident()) == "critical"
    assert severity_of(make.incident(make.finding(shadowed=True))) == "info"
    assert severity_of(make.incident(make.finding(certain=False))) == "warning"
    assert severity_of(make.incident(make.finding(state=State.UNKNOWN))) == "warning"
    assert severity_of(make.incident(make.finding(certain=False), make.finding())) == "critical"
    assert severity_of(make.incident(make.finding(state=State.UNKNOWN), severity="info")) == "info"


def test_description_says_what_still_works_only_where_it_is_true(make: Any) -> None:
    text = description(make.incident())
    assert "1. ip nat CNI-DN-00ae1f04b10f949419f13 handle 15: tcp dport 6443" in text
    assert "https://127.0.0.1:6444" in text
    assert "6444" not in description(make.incident(spec="tcp/10250"))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (273600, "3 d 4 h"),
        (-5, "0 s"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_hostile_text_stays_on_its_line(make: Any) -> None:
    evil = 'x"\n<0>kernel: all is well\x1b[2J\u202e\udcff'
    finding = make.finding()
    step = replace(finding.path[0], rule=evil * 100, chain=evil, table=evil)
    incident = make.incident(
        replace(finding, path=(step,), why=evil, conditions=(evil,)), committer=(1, evil)
    )
    for change in Change:
        text = message(make.transition(change, incident))
        assert text.isprintable()
        assert len(text) < 1500
        text.encode()
    assert all(line.isprintable() for line in description(incident).split("\n"))


def test_a_service_with_several_endpoints_is_one_sentence(make: Any) -> None:
    incident = make.incident(*(make.finding(destination=f"10.42.0.{n}:443") for n in range(5)))
    text = message(make.transition(Change.OPENED, incident))
    assert (
        " is DIVERTED to 10.42.0.0:443, 10.42.0.1:443, 10.42.0.2:443 and 2 more for 192.168.1.233 from "
        in text
    )


def test_a_restriction_is_no_part_of_what_remains(make: Any) -> None:
    finding = make.finding(state=State.BLOCKED, mechanism=Mechanism.NONE, destination=None, restriction=True)
    assert severity_of(make.incident(finding)) == "info"
    assert message(make.transition(Change.RESOLVED, verdict=make.verdict(finding))).endswith(
        "delivered again"
    )


def test_the_receiver_becomes_known(make: Any) -> None:
    """When nothing else changed, the line says what is new and nothing twice."""
    who = Culprit(
        pod="kube-system/svclb-x-abcde",
        owner="DaemonSet/svclb-x",
        service="default/x",
        confidence="high",
        sources=("lease", "kine"),
        forwards="10.43.0.7:6443",
    )
    before, after = make.finding(), make.finding(culprit=who)
    changed = make.transition(Change.CHANGED, make.incident(after))
    told = replace(changed, previous=make.incident(before))
    assert message(told) == (
        "tcp/6443 (k3s-api) is still DIVERTED to 10.42.0.244:6443: taken by pod kube-system/svclb-x-abcde "
        "(DaemonSet svclb-x, Service default/x) [high: lease, kine]"
    )
    moved = replace(told, previous=make.incident(replace(before, addresses=("192.0.2.1",))))
    assert ", now for " in message(moved)
    text = description(make.incident(after))
    assert "It sends them on to 10.43.0.7:6443." in text


def test_several_commits_are_not_pinned_on_one(make: Any) -> None:
    who = Process(
        7, "iptables", arguments=("iptables", "-A", "X\n"), commits=3, only=False, sources=("exec",)
    )
    culprit = Culprit(process=who.words, committed=who)
    incident = replace(make.incident(make.finding(culprit=culprit)), committer=None)
    by = r"n one of 3 commits, among them by iptables (pid 7: iptables -A X\n)"
    assert message(make.transition(Change.OPENED, incident)).endswith(f", i{by}")
    assert f"I{by}." in description(incident)


def test_drops_on_the_way(make: Any) -> None:
    lost = make.incident(drops=("NEIGH_FAILED",), connections=3)
    confirmed = message(make.transition(Change.CONFIRMED, lost))
    words = "dropped on the way there: NEIGH_FAILED (nobody has that address: no answer to ARP)"
    assert f"3 connections went there, and {words}: rule " in confirmed
    more = replace(lost, drops=("NEIGH_FAILED", "X\n"))
    changed = message(replace(make.transition(Change.CHANGED, more), previous=lost))
    assert (
        changed == rf"tcp/6443 (k3s-api) is still DIVERTED to 10.42.0.244:6443: connections were {words}, X\n"
    )
    assert f"Connections were {words}, X\\n." in description(more)
