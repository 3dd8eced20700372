"""The process behind a commit, from a made-up /proc, from the real one, and from the kernel's record of executions."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from k3swatch.attribute.process import Lookup, look, nothing, redacted
from k3swatch.attribute.root import Root
from k3swatch.model.process import Ancestor, Executed, Parent, Process

TICK = 10_000_000
POD = "c8a1b7f4-2d0e-4d86-9f5b-6a1e3f0b7c11"
RECORD = Executed(
    40, "iptables", "/usr/sbin/iptables", ("iptables", "-t", "nat"), cut=False, uid=0, at=7.0, started=500 * TICK,
    ancestors=(Ancestor(30, "portmap", 300 * TICK), Ancestor(20, "containerd", 200 * TICK), Ancestor(1, "systemd", 0)),
    groups=("k3s.service", "system.slice"),
)  # fmt: skip


def process(
    root: Path, pid: int, comm: str, parent: int, cmdline: str = "", cgroup: str = "", exe: str = ""
) -> None:
    """It started at `pid` * 10 ticks."""
    directory = root / "proc" / str(pid)
    directory.mkdir(parents=True)
    (directory / "stat").write_text(f"{pid} ({comm}) S {parent} {'1 ' * 17}{pid * 10} 0 -1\n")
    (directory / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in cmdline.split()))
    (directory / "cgroup").write_text(cgroup)
    if exe:
        (directory / "exe").symlink_to(exe)


def found(root: Path, pid: int, comm: str, executed: Lookup = nothing, until: float = 9.0) -> Process | None:
    with Root(str(root)) as opened:
        return look(opened, pid, comm, executed, until)


def said(root: Path, pid: int, comm: str, executed: Lookup = nothing) -> str | None:
    who = found(root, pid, comm, executed)
    return who.words if who else None


def test_arguments_parents_and_unit(tmp_path: Path) -> None:
    process(tmp_path, 1, "systemd", 0)
    process(tmp_path, 20, "k3s-server", 1)
    process(tmp_path, 30, "a) b (c", 20)
    unit = "0::/system.slice/k3s.service\n"
    process(tmp_path, 40, "iptables", 30, "iptables -t nat -A X", unit, "/usr/sbin/xtables-nft-multi")
    assert said(tmp_path, 40, "iptables") == (
        "iptables (pid 40: iptables -t nat -A X; /usr/sbin/xtables-nft-multi) <- a) b (c <- k3s-server (k3s.service)"
    )
    who = found(tmp_path, 40, "iptables")
    assert who is not None
    assert (who.sources, who.confidence, who.parents[1].pid) == (("proc",), "medium", 20)


def test_a_process_of_a_pod(tmp_path: Path) -> None:
    slice_ = f"kubepods-besteffort-pod{POD.replace('-', '_')}.slice"
    scope = f"cri-containerd-{'a' * 64}.scope"
    cgroup = f"0::/kubepods.slice/kubepods-besteffort.slice/{slice_}/{scope}\n"
    process(tmp_path, 40, "nft", 0, "nft -f -", cgroup)
    assert said(tmp_path, 40, "nft") == f"nft (pid 40: nft -f -) (in pod {POD})"
    (tmp_path / f"var/log/pods/evil_pod-1_{POD}").mkdir(parents=True)
    assert said(tmp_path, 40, "nft") == "nft (pid 40: nft -f -) (in pod evil/pod-1)"
    gone = replace(RECORD, pid=41, ancestors=(), groups=(scope, slice_))
    who = found(tmp_path, 41, "iptables", {41: gone}.get)
    assert who is not None
    assert (who.pod, who.container, who.unit) == ("evil/pod-1", "a" * 64, None)
    gone = replace(
        gone, groups=("b" * 64, f"pod{POD}", "besteffort", "kubepods")
    )  # cgroupfs instead of systemd
    who = found(tmp_path, 41, "iptables", {41: gone}.get)
    assert who is not None
    assert (who.pod, who.container) == ("evil/pod-1", "b" * 64)


def test_gone_or_another_one(tmp_path: Path) -> None:
    assert said(tmp_path, 7, "iptables") is None  # nobody else's processes are to be seen at all
    process(tmp_path, 1, "systemd", 0, cgroup="0::/init.scope\n")
    gone = "iptables (pid 7; gone before it could be looked at)"
    assert said(tmp_path, 7, "iptables") == gone
    process(tmp_path, 7, "sleep", 1, "sleep 1")
    assert said(tmp_path, 7, "iptables") == gone
    who = found(tmp_path, 7, "iptables")
    assert who is not None
    assert who.confidence == "low"


def test_gone_but_recorded(tmp_path: Path) -> None:
    """Whatever /proc shows: nothing at all, somebody else with its pid, or a parent's successor."""
    want = Process(
        40, "iptables", "/usr/sbin/iptables", ("iptables", "-t", "nat"), uid=0, unit="k3s.service", sources=("exec",),
        parents=(Parent(30, "portmap"), Parent(20, "containerd")),
    )  # fmt: skip
    assert found(tmp_path, 40, "iptables", {40: RECORD}.get) == want
    assert want.words == "iptables (pid 40: /usr/sbin/iptables -t nat) <- portmap <- containerd (k3s.service)"
    assert want.confidence == "high"
    process(tmp_path, 1, "systemd", 0)
    process(tmp_path, 40, "sleep", 1, "sleep 1")
    process(tmp_path, 30, "portmap", 20, "portmap", exe="/opt/cni/bin/portmap")
    process(tmp_path, 20, "bash", 1, "bash", exe="/bin/bash")  # started when containerd did
    (tmp_path / "proc/20/stat").write_text(f"20 (bash) S 1 {'1 ' * 17}999 0\n")  # later
    assert found(tmp_path, 40, "iptables", {40: RECORD}.get) == replace(
        want, parents=(Parent(30, "portmap", "/opt/cni/bin/portmap"), Parent(20, "containerd"))
    )
    portmap = replace(RECORD, pid=30, comm="portmap", filename="/usr/lib/cni/portmap", started=300 * TICK)
    who = found(tmp_path, 40, "iptables", {40: RECORD, 30: portmap}.get)
    assert who is not None
    assert who.parents[0] == Parent(30, "portmap", "/usr/lib/cni/portmap")


def test_alive_and_recorded(tmp_path: Path) -> None:
    process(tmp_path, 1, "systemd", 0)
    process(tmp_path, 40, "iptables", 1, "other words", exe="/usr/sbin/xtables-nft-multi")
    record = replace(RECORD, started=400 * TICK)
    who = found(tmp_path, 40, "iptables", {40: record}.get)
    assert who is not None
    assert (who.sources, who.exe, who.arguments) == (("exec", "proc"), "/usr/sbin/iptables", record.arguments)
    # more than the record holds is in /proc; and a memfd has no path
    record = replace(record, cut=True, filename="/proc/self/fd/7")
    who = found(tmp_path, 40, "iptables", {40: record}.get)
    assert who is not None
    assert (who.exe, who.arguments, who.cut) == ("/usr/sbin/xtables-nft-multi", ("other", "words"), False)


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, comm="sh"),  # of a former process
        replace(RECORD, at=9.5),  # of a later one
        RECORD,  # of a former one with the same comm: the process that lives started at another time
    ],
)
def test_records_that_are_not_of_this_process(tmp_path: Path, record: Executed) -> None:
    process(tmp_path, 40, "iptables", 0, "iptables -L")
    who = found(tmp_path, 40, "iptables", {40: record}.get)
    assert who is not None
    assert (who.sources, who.arguments) == (("proc",), ("iptables", "-L"))


def test_without_proc() -> None:
    assert look(None, 40, "iptables") is None
    who = look(None, 40, "iptables", {40: RECORD}.get)
    assert who is not None
    assert who.sources == ("exec",)


def test_one_that_is_ending_still_has_parents(tmp_path: Path) -> None:
    process(tmp_path, 6, "portmap", 1)
    process(tmp_path, 7, "iptables", 6)
    assert said(tmp_path, 7, "iptables") == "iptables (pid 7) <- portmap"


def test_a_loop_of_parents_ends(tmp_path: Path) -> None:
    process(tmp_path, 6, "a", 7)
    process(tmp_path, 7, "b", 6)
    assert (said(tmp_path, 7, "b") or "").count("<-") == 8


def test_long_command_lines_are_cut(tmp_path: Path) -> None:
    process(tmp_path, 7, "nft", 0, "nft " + "x " * 2000)
    who = found(tmp_path, 7, "nft")
    assert who is not None
    assert who.cut
    assert sum(map(len, who.arguments)) <= 512
    assert len(who.words) < 260


def test_this_process() -> None:
    comm = Path("/proc/self/comm").read_text().rstrip()
    assert os.path.realpath("/proc/self/exe") in (said(Path("/"), os.getpid(), comm) or "")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("k3s server --token abc --x", "k3s server --token *** --x"),
        ("k3s server --token=abc", "k3s server --token=***"),
        ("mysql --PASSWORD=x -p y", "mysql --PASSWORD=*** -p y"),
        ("iptables -t nat", "iptables -t nat"),
    ],
)
def test_secrets_are_not_told(given: str, told: str) -> None:
    assert redacted(given.split()) == told.split()


def test_secrets_inside_one_argument_are_not_told() -> None:
    assert redacted(["sh", "-c", "k3s server --token abc --x"]) == ["sh", "-c", "k3s server --token *** --x"]
