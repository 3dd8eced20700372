"""`k3swatch guard`: who answers before, while it is on, and after; what it says of itself; what it leaves alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.hijacks import ALL_OURS, HIJACKS, LEGACY, Hijack, answers, service

from k3swatch.demo.apiserver import who_answers
from k3swatch.demo.lab import API, OTHER, Lab

Run = Callable[..., subprocess.CompletedProcess[str]]
NAT = [each for each in (*HIJACKS, LEGACY) if "refused" not in each.answers]


def guard(k3swatch: Run, on: Lab, *words: str, status: int = 0) -> dict[str, Any]:
    done = k3swatch(on.host, "guard", *words, "--format", "json", "--root", "/nonexistent")
    assert done.returncode == status, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("hijack", NAT, ids=lambda hijack: hijack.name)
def test_who_answers_without_with_and_without_it(hijack: Hijack, place: Lab, k3swatch: Run) -> None:
    """v4 and v6, from the LAN, from a pod and from the host: what it neutralises is found all the same."""
    hijack.make(place)
    assert answers(place) == hijack.answers
    before = place.host.run("nft", "-s", "list", "ruleset")
    status = guard(k3swatch, place, "on", "tcp/6443")
    assert (status["changed"], status["first"], status["state"]) == (True, True, "delivered")
    assert status["findings"]
    assert all(each["neutralised"] and each["shadowed"] for each in status["findings"])
    assert answers(place) == ALL_OURS
    assert who_answers(place.host, "10.43.0.1", 443) == API  # the cluster's own way goes on
    assert guard(k3swatch, place, "on", "tcp/6443")["changed"] is False
    assert guard(k3swatch, place, "off", "tcp/6443")["on"] is False
    assert place.host.run("nft", "-s", "list", "ruleset") == before
    assert answers(place) == hijack.answers


def test_a_hijack_that_comes_later_has_no_say(place: Lab, k3swatch: Run) -> None:
    guard(k3swatch, place, "on", "tcp/6443")
    service(place)
    assert answers(place) == ALL_OURS
    assert guard(k3swatch, place, "status", "tcp/6443")["state"] == "delivered"


def test_a_chain_that_comes_first_is_said_and_beaten(place: Lab, k3swatch: Run) -> None:
    guard(k3swatch, place, "on", "tcp/6443")
    place.host.shell(
        "nft -f - <<'END'\ntable ip early {\n chain pre { type nat hook prerouting priority -150;\n"
        f"  tcp dport 6443 dnat to {OTHER}\n }}\n}}\nEND"
    )
    status = guard(k3swatch, place, "status", "tcp/6443", status=1)
    assert (status["first"], status["state"]) == (False, "diverted")
    assert status["before"] == ["ip early pre (priority -150)"]
    again = guard(k3swatch, place, "on", "tcp/6443")
    assert (again["priority"], again["first"], again["state"]) == (-160, True, "delivered")
    assert answers(place) == ALL_OURS


def test_it_cannot_come_before_a_chain_at_the_lowest_priority(place: Lab, k3swatch: Run) -> None:
    """Which of the two runs first the kernel does not show: unknown, not delivered."""
    place.host.shell(
        "nft -f - <<'END'\ntable ip early {\n chain pre { type nat hook prerouting priority -199;\n"
        f"  tcp dport 6443 dnat to {OTHER}\n }}\n}}\nEND"
    )
    status = guard(k3swatch, place, "on", "tcp/6443", status=2)
    assert (status["on"], status["first"], status["state"]) == (True, False, "unknown")


def test_ports_come_and_go_by_themselves(place: Lab, k3swatch: Run) -> None:
    for port in ("tcp/6443", "tcp/22", "udp/8472"):
        guard(k3swatch, place, "on", port)
    guard(k3swatch, place, "off", "tcp/22")
    assert guard(k3swatch, place, "status", "tcp/6443")["on"]
    assert guard(k3swatch, place, "status", "udp/8472")["on"]
    assert not guard(k3swatch, place, "status", "tcp/22", status=1)["on"]
    guard(k3swatch, place, "off", "udp/8472")
    guard(k3swatch, place, "off", "tcp/6443")
    assert "k3swatch_guard" not in place.host.run("nft", "list", "tables")
    assert guard(k3swatch, place, "off", "tcp/6443")["changed"] is False


def test_what_others_put_into_its_table_is_left_alone(place: Lab, k3swatch: Run) -> None:
    guard(k3swatch, place, "on", "tcp/6443")
    place.host.run("nft", "add rule inet k3swatch_guard output tcp dport 99 counter comment theirs")
    done = k3swatch(place.host, "guard", "on", "tcp/22")
    assert done.returncode == 2
    assert "of chain output is not ours" in done.stderr
    assert guard(k3swatch, place, "off", "tcp/6443")["changed"] is True
    left = place.host.run("nft", "list", "table", "inet", "k3swatch_guard")
    assert "theirs" in left
    assert "6443" not in left


def test_a_rule_that_only_looks_like_ours_guards_nothing(place: Lab, k3swatch: Run) -> None:
    """Emptied of its effect under the same comment: it is made again."""
    guard(k3swatch, place, "on", "tcp/6443")
    place.host.shell(
        "nft flush chain inet k3swatch_guard output\n"
        "nft 'add rule inet k3swatch_guard output tcp dport 6443 accept comment \"k3swatch guard tcp/6443\"'"
    )
    assert guard(k3swatch, place, "status", "tcp/6443", status=1)["on"] is False
    assert guard(k3swatch, place, "on", "tcp/6443")["changed"] is True
    service(place)
    assert answers(place) == ALL_OURS


def test_the_daemon_tells_a_notice_and_no_alarm(place: Lab, k3swatch: Run, tmp_path: Path) -> None:
    """An incident ends when the guard comes; what it neutralises is told, counted, and acts when the guard goes."""
    service(place)
    with Daemon(place.host, tmp_path) as daemon:
        daemon.until(lambda: daemon.state() == "diverted", "diverted")
        guard(k3swatch, place, "on", "tcp/6443")
        daemon.until_said("the port is delivered again, while the guard neutralises 2 causes")
        daemon.until_said("the guard neutralises it: dnat to 10.42.0.244:6443")
        assert "undone by k3swatch" in daemon.said()
        assert (daemon.state(), daemon.status()["incidents"]) == ("delivered", [])
        metrics = daemon.scrape()
        assert 'k3swatch_neutralised_causes{port="k3s-api"} 2.0' in metrics
        assert "k3swatch_diversion_info{" not in metrics
        guard(k3swatch, place, "off", "tcp/6443")
        daemon.until_said("the guard does not stand before it any more", 2)
        daemon.until(lambda: daemon.state() == "diverted", "diverted again")
