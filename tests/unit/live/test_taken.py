"""Whose listening sockets are is looked up where it is asked, and kept; programs that may not be asked for are said."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import replace

import pytest

from k3swatch.errors import DecodeError, NotPermitted
from k3swatch.live import beside, holders
from k3swatch.live.holders import Holders
from k3swatch.live.programs import Programs
from k3swatch.model.port import (
    Holder,
    Host,
    Interface,
    Listener,
    ListeningSocket,
    LocalAddress,
    Program,
    ProtectedPort,
)
from k3swatch.model.words import Protocol
from k3swatch.sources import bpfobjects, procs

API = ProtectedPort("k3s-api", 6443)
SOCKET = ListeningSocket(Protocol.TCP, ipaddress.ip_address("::"), 6443, inode=5, cgroup=100)
SECOND = replace(SOCKET, address=ipaddress.ip_address("192.0.2.1"), inode=6)
ELSEWHERE = replace(SOCKET, port=22, inode=7)


class Proc:
    """A host where pid 10 has inode 5 and pid 20, in another control group than it says, has 6."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scans: list[object] = []
        monkeypatch.setattr(procs, "cgroup_mount", lambda: "/cgroup")
        monkeypatch.setattr(
            procs, "cgroup_paths", lambda mount, ids: dict.fromkeys(ids, "/system.slice/k3s.service")
        )
        monkeypatch.setattr(procs, "members", lambda mount, path: [10])
        monkeypatch.setattr(procs, "processes", lambda: [1, 10, 20])
        monkeypatch.setattr(procs, "executable", lambda pid: f"/bin/{pid}")
        monkeypatch.setattr(procs, "holders", self._holders)

    def _holders(self, inodes: set[int], pids: list[int]) -> dict[int, list[int]]:
        self.scans.append((sorted(inodes), pids))
        has = {10: 5, 20: 6}
        return {has[pid]: [pid] for pid in pids if has.get(pid) in inodes}


def test_nobody_asks_about_a_single_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    proc = Proc(monkeypatch)
    assert Holders().tell([SOCKET, ELSEWHERE], [API], 0.0) == (SOCKET, ELSEWHERE)
    assert proc.scans == []


def test_its_group_first_then_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    proc = Proc(monkeypatch)
    first, second, other = Holders().tell([SOCKET, SECOND, ELSEWHERE], [API], 0.0)
    assert proc.scans == [([5, 6], [10]), ([6], [1, 10, 20])]
    assert (first.holders, second.holders) == ((Holder(10, "/bin/10"),), (Holder(20, "/bin/20"),))
    assert first.cgroup_path == "/system.slice/k3s.service"
    assert other == ELSEWHERE


def test_a_configured_listener_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    proc = Proc(monkeypatch)
    (found,) = Holders().tell([SOCKET], [replace(API, listener=Listener(unit="k3s.service"))], 0.0)
    assert found.holders == (Holder(10, "/bin/10"),)
    assert len(proc.scans) == 1


def test_what_is_known_is_kept_until_the_sockets_change_or_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    proc, known = Proc(monkeypatch), Holders()
    port = [replace(API, listener=Listener(unit="k3s.service"))]
    for now, scans in ((1.0, 1), (2.0, 1), (1.0 + holders.KEPT + 1, 2)):
        known.tell([SOCKET], port, now)
        assert len(proc.scans) == scans
    known.tell([replace(SOCKET, inode=8)], port, 28.0)
    assert len(proc.scans) == 4  # not in its group: everybody was asked


def test_programs_that_may_not_be_asked_for_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[int]:
        raise NotPermitted("bpf(BPF_PROG_QUERY): Operation not permitted")

    monkeypatch.setattr(bpfobjects, "query", refuse)
    host = Host(
        addresses=(LocalAddress(ipaddress.ip_address("192.0.2.1"), 2, 24),),
        interfaces=(Interface(2, "nosuch0", xdp=(12,)),),
    )
    programs, unreadable = Programs().read(host, 0.0)
    assert "BPF programs of this host: bpf(BPF_PROG_QUERY): Operation not permitted" in unreadable
    assert [(program.hook, program.id) for program in programs] == [("xdp", 12)]  # rtnetlink told


def test_a_snapshot_keeps_both(monkeypatch: pytest.MonkeyPatch) -> None:
    Proc(monkeypatch)
    monkeypatch.setattr(
        bpfobjects, "query", lambda target, kind: [12] if kind == bpfobjects.SK_LOOKUP else []
    )
    monkeypatch.setattr(bpfobjects, "info", lambda program: None)
    host = Host(sockets=(SOCKET, SECOND))
    document = json.loads(json.dumps(beside.read(host)))
    again = beside.put(host, document)
    assert again.programs == (Program("sk_lookup", "netns", 12),)
    assert [each.holders for each in again.sockets or ()] == [
        (Holder(10, "/bin/10"),),
        (Holder(20, "/bin/20"),),
    ]
    assert beside.put(host, None) == host  # from before
    del document["programs"][0]["cgroup"]
    assert beside.put(host, document).programs == again.programs  # from before that was kept


@pytest.mark.parametrize(
    "document",
    [[], {}, {"programs": [{}], "owners": [], "unreadable": []}, {"programs": [], "owners": [1], "unreadable": []},
     {"programs": [{"hook": "xdp", "place": "eth0", "id": "x", "name": "", "tag": "", "uid": None, "interface": 0}],
      "owners": [], "unreadable": []},
     {"programs": [], "owners": [{"inode": 5, "path": None, "holders": [1]}], "unreadable": []}],
)  # fmt: skip
def test_a_snapshot_that_does_not_fit(document: object) -> None:
    with pytest.raises(DecodeError):
        beside.put(Host(sockets=(SOCKET,)), document)


def test_programs_of_other_listeners_crowd_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd attaches two to each unit whose bytes it counts (DefaultIPAccounting=); what is on eth0 matters more."""
    Proc(monkeypatch)
    groups = [("/", 1), *((f"/system.slice/{n}.service", n) for n in range(100, 200))]
    monkeypatch.setattr(procs, "cgroups", lambda mount, limit: iter(groups))
    seeing = {bpfobjects.CGROUP_INET_INGRESS: [7], bpfobjects.CGROUP_INET_EGRESS: [8]}
    monkeypatch.setattr(
        bpfobjects,
        "query_cgroup",
        lambda path, kinds: seeing if set(kinds) & set(seeing) and path != "/cgroup/" else {},
    )
    monkeypatch.setattr(bpfobjects, "query", lambda target, kind: [])
    monkeypatch.setattr(bpfobjects, "info", lambda program: None)
    host = Host(
        addresses=(LocalAddress(ipaddress.ip_address("192.0.2.1"), 2, 24),),
        interfaces=(Interface(2, "nosuch0", xdp=(12,)),),
        sockets=tuple(replace(SOCKET, port=n, cgroup=n) for n in range(100, 200)),
    )
    every, _ = Programs().read(host, 0.0)
    assert ("xdp", 12) in {(each.hook, each.id) for each in every}
    mine, _ = Programs().read(host, 0.0, [replace(API, port=150)])
    assert {each.cgroup for each in mine} == {0, 150}
