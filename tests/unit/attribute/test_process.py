"""The process behind a commit, from a made-up /proc and from the real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k3swatch.attribute.process import describe, redacted
from k3swatch.attribute.root import Root


def process(
    root: Path, pid: int, comm: str, parent: int, cmdline: str = "", cgroup: str = "", exe: str = ""
) -> None:
    directory = root / "proc" / str(pid)
    directory.mkdir(parents=True)
    (directory / "stat").write_text(f"{pid} ({comm}) S {parent} 1 1 0 -1\n")
    (directory / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in cmdline.split()))
    (directory / "cgroup").write_text(cgroup)
    if exe:
        (directory / "exe").symlink_to(exe)


def said(root: Path, pid: int, comm: str) -> str | None:
    with Root(str(root)) as opened:
        return describe(opened, pid, comm)


def test_arguments_parents_and_unit(tmp_path: Path) -> None:
    process(tmp_path, 1, "systemd", 0)
    process(tmp_path, 20, "k3s-server", 1)
    process(tmp_path, 30, "a) b (c", 20)
    unit = "0::/system.slice/k3s.service\n"
    process(tmp_path, 40, "iptables", 30, "iptables -t nat -A X", unit, "/usr/sbin/xtables-nft-multi")
    assert said(tmp_path, 40, "iptables") == (
        "iptables -t nat -A X (/usr/sbin/xtables-nft-multi), started by a) b (c, k3s-server; k3s.service"
    )


def test_a_process_of_a_pod(tmp_path: Path) -> None:
    uid = "c8a1b7f4-2d0e-4d86-9f5b-6a1e3f0b7c11"
    slice_ = f"kubepods-besteffort-pod{uid.replace('-', '_')}.slice"
    cgroup = f"0::/kubepods.slice/kubepods-besteffort.slice/{slice_}/cri-containerd-{'a' * 64}.scope\n"
    process(tmp_path, 40, "nft", 0, "nft -f -", cgroup)
    assert said(tmp_path, 40, "nft") == f"nft -f -; in pod {uid}"
    (tmp_path / f"var/log/pods/evil_pod-1_{uid}").mkdir(parents=True)
    assert said(tmp_path, 40, "nft") == "nft -f -; in pod evil/pod-1"


def test_gone_or_another_one(tmp_path: Path) -> None:
    assert said(tmp_path, 7, "iptables") is None  # nobody else's processes are to be seen at all
    process(tmp_path, 1, "systemd", 0, cgroup="0::/init.scope\n")
    assert said(tmp_path, 7, "iptables") == "iptables (pid 7), gone before it could be looked at"
    process(tmp_path, 7, "sleep", 1, "sleep 1")
    assert said(tmp_path, 7, "iptables") == "iptables (pid 7), gone before it could be looked at"


def test_one_that_is_ending_still_has_parents(tmp_path: Path) -> None:
    process(tmp_path, 6, "portmap", 1)
    process(tmp_path, 7, "iptables", 6)
    assert said(tmp_path, 7, "iptables") == "iptables (ending), started by portmap"


def test_a_loop_of_parents_ends(tmp_path: Path) -> None:
    process(tmp_path, 6, "a", 7)
    process(tmp_path, 7, "b", 6)
    assert (said(tmp_path, 7, "b") or "").count(",") < 10


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
