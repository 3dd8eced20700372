"""`k3swatch restore`: before, after --apply and after --rollback, a real connection tells who answers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hijacks import ALL_OURS, HIJACKS, LEGACY, Hijack, answers, legacy, service
from support.trial import forget

from k3swatch.demo.apiserver import TIMEOUT, who_answers
from k3swatch.demo.lab import API, HOST, HOST6, OTHER, Lab
from k3swatch.demo.netns import Namespace
from k3swatch.errors import Interrupted
from k3swatch.live import savedfile
from k3swatch.model.port import ProtectedPort
from k3swatch.sources.nftables import NftablesSource
from k3swatch.undo import apply as undo
from k3swatch.undo.case import look

Run = Callable[..., subprocess.CompletedProcess[str]]


def rules(space: Namespace) -> str:
    """The ruleset without what differs when a rule is made anew."""
    text = space.run("nft", "list", "ruleset")
    return re.sub(r"counter packets \d+ bytes \d+", "counter", text)


def apply(k3swatch: Run, on: Lab, tmp_path: Path, status: int = 0) -> dict[str, Any]:
    done = k3swatch(
        on.host,
        "restore",
        "tcp/6443",
        "--apply",
        "--format",
        "json",
        "-o",
        str(tmp_path),
        "--root",
        str(tmp_path),
    )
    assert done.returncode == status, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("hijack", HIJACKS, ids=lambda hijack: hijack.name)
def test_who_answers_before_after_and_after_the_rollback(
    hijack: Hijack, place: Lab, k3swatch: Run, tmp_path: Path
) -> None:
    hijack.make(place)
    assert answers(place) == hijack.answers
    before = rules(place.host)
    planned = k3swatch(place.host, "restore", "tcp/6443", "--format", "json", "--root", str(tmp_path))
    assert planned.returncode == 1, planned.stderr
    plan = json.loads(planned.stdout)
    assert tuple(step["kind"] for step in plan["steps"]) == hijack.kinds
    assert len(plan["removals"]) == hijack.removed
    assert rules(place.host) == before  # a plan changes nothing

    done = apply(k3swatch, place, tmp_path)
    assert done["state"] == "delivered"
    assert {each["answer"] for each in done["answers"]} == {"here"}
    assert answers(place) == ALL_OURS

    back = k3swatch(place.host, "restore", "--rollback", done["file"])
    assert back.returncode == 0, back.stderr
    assert rules(place.host) == before
    place.host.run("conntrack", "-F")
    assert answers(place) == hijack.answers


LOCAL_STEPS = ("rules", "flows")


@pytest.mark.parametrize("hijack", [*HIJACKS, LEGACY], ids=lambda hijack: hijack.name)
def test_the_commands_it_prints_do_what_they_say(
    hijack: Hijack, place: Lab, k3swatch: Run, tmp_path: Path
) -> None:
    """What a person pastes, pasted: the local steps alone, as nobody writes these rules again here."""
    hijack.make(place)
    done = k3swatch(place.host, "restore", "tcp/6443", "--format", "json", "--root", str(tmp_path))
    steps = json.loads(done.stdout)["steps"]
    for step in steps:
        for line in step["commands"] if step["kind"] in LOCAL_STEPS else ():
            if line.startswith("conntrack"):
                place.host.run("sh", "-c", line, check=False)  # exits 1 when there was nothing to end
            else:
                place.host.shell(line)
    assert answers(place) == ALL_OURS


QUIET = {  # what refuses whoever asks for an address, and who then does not get there
    "nft": (
        "inet",
        "tcp dport 6443 accept; iif lo accept; ct state established accept; meta nfproto ipv4 accept",
    ),
    "ip6tables": ("", ""),
    "arp": ("arp", ""),
}


@pytest.mark.parametrize("family", QUIET)
def test_the_commands_that_let_an_address_be_found(family: str, place: Lab, k3swatch: Run) -> None:
    table, rules_of = QUIET[family]
    if family == "ip6tables":
        for rule in ("-P INPUT DROP", "-A INPUT -i lo -j ACCEPT", "-A INPUT -p tcp -j ACCEPT"):
            place.host.shell(f"ip6tables {rule}")
    else:
        rule_lines = "\n".join(rules_of.split("; "))
        chain = f"chain input {{ type filter hook input priority 0; policy drop\n{rule_lines}\n}}"
        place.host.shell(f"nft -f - <<'END'\ntable {table} filter {{\n{chain}\n}}\nEND")
    forget(place)
    address = HOST if family == "arp" else HOST6
    assert who_answers(place.client, address, 6443, timeout=1) == TIMEOUT
    done = k3swatch(place.host, "restore", "tcp/6443", "--format", "json")
    document = json.loads(done.stdout)
    assert not document["removals"], "the policy is about more"
    for step in document["steps"]:
        for line in step["commands"] if step["kind"] == "rules" else ():
            place.host.shell(line)
    forget(place)
    assert who_answers(place.client, address, 6443, timeout=5) == API
    assert k3swatch(place.host, "check").returncode == 0


def test_legacy_rules_are_left_to_their_own_tool(private_lab: Lab, k3swatch: Run, tmp_path: Path) -> None:
    legacy(private_lab)
    done = apply(k3swatch, private_lab, tmp_path, status=1)
    assert done["file"] is None
    assert [each["why"][:15] for each in done["kept"]] == ["iptables-legacy"]


def talk(connection: socket.socket) -> None:
    """Say something until the other end does not want to hear it."""
    for _ in range(100):
        connection.sendall(b"x")
        connection.recv(1)


def test_a_rule_about_other_ports_too_is_left_alone(place: Lab, k3swatch: Run, tmp_path: Path) -> None:
    """Its map has no name, so no element of it can go: without the rule, port 7443 would be lost as well."""
    place.host.shell(
        "nft -f - <<'END'\ntable ip maps {\n chain pre { type nat hook prerouting priority -105;\n"
        f"  dnat to tcp dport map {{ 6443 : {OTHER}, 7443 : 10.9.9.9 }}\n }}\n"
        " chain post { type nat hook postrouting priority 100; masquerade; }\n}\nEND"
    )
    before = rules(place.host)
    done = apply(k3swatch, place, tmp_path, status=1)
    assert (done["file"], done["removed"], done["state"]) == (None, [], "diverted")
    assert [each["why"] for each in done["kept"]] == [
        "what sends the port there is part of a rule about other ports, too"
    ]
    assert rules(place.host) == before


def test_a_connection_that_is_stuck_is_ended(place: Lab, k3swatch: Run, tmp_path: Path) -> None:
    """Opened while the port was taken, it would go on for as long as it lives; it is one connection, no others."""
    service(place)
    with place.client.inside(), socket.create_connection((HOST, 6443), 5) as stuck:
        stuck.settimeout(5)
        with socket.create_connection((HOST, 8443), 5) as other:
            done = apply(k3swatch, place, tmp_path)
            assert [(each["source"], each["source_port"]) for each in done["ended"]] == [stuck.getsockname()]
            assert (
                place.host.run("conntrack", "-L", "-p", "tcp", "--orig-port-dst", "8443").count("dport=8443")
                == 1
            )
            assert other.fileno() > 0
            with pytest.raises(ConnectionError):
                talk(stuck)


def test_a_ruleset_that_changed_meanwhile_is_not_touched(
    place: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last moment before the transaction: the kernel itself refuses it, and nothing is lost or left behind."""
    service(place)
    write = savedfile.write

    def meanwhile(directory: str, name: str, content: Any) -> str:
        place.host.run("nft", "add", "table", "ip", "meanwhile")
        return write(directory, name, content)

    monkeypatch.setattr(savedfile, "write", meanwhile)
    comm = Path("/proc/self/comm").read_text().rstrip("\n")
    try:
        with place.host.inside(), NftablesSource() as source:
            case = look(source, ProtectedPort("k3s-api", 6443), str(tmp_path))
            before = rules(place.host)
            with pytest.raises(Interrupted, match="changed meanwhile"):
                undo.apply(source, case, str(tmp_path), str(tmp_path / "kept"))
    finally:
        Path("/proc/self/comm").write_text(comm)
    place.host.run("nft", "delete", "table", "ip", "meanwhile")
    assert rules(place.host) == before
    assert not list((tmp_path / "kept").iterdir())


def test_a_healthy_port_has_nothing_to_undo(place: Lab, k3swatch: Run, tmp_path: Path) -> None:
    before = rules(place.host)
    done = k3swatch(place.host, "restore", "tcp/6443", "--root", str(tmp_path))
    assert done.returncode == 0
    assert "nothing to undo" in done.stdout
    assert apply(k3swatch, place, tmp_path)["removed"] == []
    assert rules(place.host) == before


def test_names_of_others_stay_words(place: Lab, k3swatch: Run, tmp_path: Path) -> None:
    """Chain and comment are chosen by who can write a rule: they stay words of a command."""
    evil = "x'; touch PWNED; '"
    place.host.run("iptables-nft", "-t", "nat", "-N", "$(id>PWNED)")
    jump = ("-p", "tcp", "--dport", "6443", "-m", "comment", "--comment", evil, "-j", "$(id>PWNED)")
    place.host.run("iptables-nft", "-t", "nat", "-I", "PREROUTING", *jump)
    place.host.run(
        "iptables-nft",
        "-t",
        "nat",
        "-A",
        "$(id>PWNED)",
        "-p",
        "tcp",
        "-j",
        "DNAT",
        "--to",
        f"{OTHER}:6443",
    )
    place.host.run("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE")
    done = k3swatch(place.host, "restore", "tcp/6443", "--format", "json", "--root", str(tmp_path))
    (step,) = (step for step in json.loads(done.stdout)["steps"] if step["kind"] == "rules")
    place.host.shell(f"cd {tmp_path}\n" + "\n".join(step["commands"]))
    assert not list(tmp_path.rglob("PWNED"))
    assert answers(place) == ALL_OURS
