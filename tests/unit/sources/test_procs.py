"""Control groups and /proc, as directories of a test: nothing raises, whatever is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k3swatch.sources import procs


def test_mount_of_version_2(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    lines = [
        "31 24 0:27 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory",
        "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw",
    ]
    (tmp_path / "self" / "mountinfo").write_text("\n".join(lines) + "\n")
    assert procs.cgroup_mount(str(tmp_path)) == "/sys/fs/cgroup/unified"
    (tmp_path / "self" / "mountinfo").write_text(lines[0] + "\nnonsense - cgroup2\n")
    assert procs.cgroup_mount(str(tmp_path)) is None
    assert procs.cgroup_mount(str(tmp_path / "none")) is None


def test_groups_top_down_and_bounded(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = dict(procs.cgroups(str(tmp_path)))
    assert {path: os.stat(f"{tmp_path}{path}").st_ino for path in ("/", "/a", "/c", "/a/b")} == found
    assert next(iter(found)) == "/"
    assert list(found)[-1] == "/a/b"
    assert len(list(procs.cgroups(str(tmp_path), limit=2))) == 2
    assert list(procs.cgroups(str(tmp_path / "none"))) == []
    wanted = os.stat(tmp_path / "a" / "b").st_ino
    assert procs.cgroup_paths(str(tmp_path), {wanted, 1 << 60}) == {wanted: "/a/b"}


def test_members(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("12\n7\n")
    assert procs.members(str(tmp_path), "/") == [12, 7]
    assert procs.members(str(tmp_path), "/gone") == []


def process(proc: Path, pid: int, exe: str, *links: str) -> None:
    (proc / str(pid) / "fd").mkdir(parents=True)
    (proc / str(pid) / "exe").symlink_to(exe)
    for number, link in enumerate(links):
        (proc / str(pid) / "fd" / str(number)).symlink_to(link)


def test_holders(tmp_path: Path) -> None:
    process(tmp_path, 10, "/usr/local/bin/k3s", "/dev/null", "socket:[99]", "socket:[5]", "socket:[5]")
    process(tmp_path, 9, "/usr/bin/sleep", "socket:[5]", "pipe:[5]", "anon_inode:[5]")
    (tmp_path / "meminfo").write_text("")
    proc = str(tmp_path)
    assert procs.processes(proc) == [9, 10]
    assert procs.holders({5, 6}, [9, 10, 11], proc) == {5: [9, 10]}
    assert procs.executable(10, proc) == "/usr/local/bin/k3s"
    assert procs.executable(11, proc) is None
    assert procs.processes(str(tmp_path / "none")) == []


def test_descriptors_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process(tmp_path, 1, "/x", *["/dev/null"] * 3)
    process(tmp_path, 2, "/x", "socket:[5]")
    assert procs.holders({5}, [1, 2], str(tmp_path)) == {5: [2]}
    monkeypatch.setattr(procs, "DESCRIPTORS", 3)
    assert procs.holders({5}, [1, 2], str(tmp_path)) == {}
