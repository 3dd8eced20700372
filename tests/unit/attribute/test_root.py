"""Reading below a root: nothing outside is reached, nothing is waited for, everything is bounded."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from k3swatch.attribute import root as module
from k3swatch.attribute.root import Root


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A root beside a secret."""
    (tmp_path / "secret").write_text("secret")
    inside = tmp_path / "root"
    (inside / "var/lib").mkdir(parents=True)
    (inside / "var/lib/file").write_text("content")
    return inside


@pytest.mark.parametrize("target", ["../secret", "../../../../../../../secret", "/../secret"])
def test_no_symlink_leads_out(directory: Path, target: str) -> None:
    (directory / "link").symlink_to(target)
    (directory / "up").symlink_to("..")
    with Root(str(directory)) as root:
        assert root.read("/link") is None
        assert root.read("/up/secret") is None
        assert root.read("/../secret") is None
        assert root.names("/up") == root.names("/")


def test_an_absolute_link_means_the_root(directory: Path, tmp_path: Path) -> None:
    (directory / "run").symlink_to("/var/lib")
    (directory / "out").symlink_to(tmp_path / "secret")
    with Root(str(directory)) as root:
        assert root.read("/run/file") == b"content"
        assert root.read("/out") is None


def test_magic_links_are_refused() -> None:
    """/proc/PID/root and /proc/PID/fd lead anywhere, whatever the root is."""
    with Root("/") as root:
        assert root.read(f"/proc/{os.getpid()}/comm") is not None
        assert root.read(f"/proc/{os.getpid()}/root/etc/hostname") is None
        assert any("root/etc/hostname" in trouble for trouble in root.troubles)


def test_what_is_no_file_is_not_waited_for(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    begin = time.monotonic()
    with Root(str(directory)) as root:
        assert root.read("/fifo") is None
        assert root.read("/var") is None
        assert root.names("/var/lib/file") == []
    assert time.monotonic() - begin < 30  # who waited would wait for ever


def test_a_large_file_is_no_answer(directory: Path) -> None:
    (directory / "large").write_bytes(b"x" * 1001)
    with Root(str(directory)) as root:
        assert root.read("/large", 1000) is None
        assert len(root.read("/large", 1001) or b"") == 1001
        assert root.troubles == ["/large: larger than 0 KB"]


def test_many_files_and_long_looks_end(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES", 3)
    with Root(str(directory)) as root:
        assert [root.read("/var/lib/file") for _ in range(5)] == [b"content"] * 3 + [None] * 2
        assert root.exists("/var/lib/file") is None
        assert "stopped looking" in root.troubles[0]
    clock = Clock()
    with Root(str(directory), clock, seconds=1.0) as root:
        assert root.read("/var/lib/file") == b"content"
        clock.at += 1.5
        assert root.read("/var/lib/file") is None
        assert root.spent


def test_a_directory_of_many_names_is_cut(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMES", 10)
    for number in range(20):
        (directory / f"var/{number}").touch()
    with Root(str(directory)) as root:
        assert len(root.names("/var")) == 10
        assert "only 10" in root.troubles[0]


def test_absence_is_told_from_not_knowing(directory: Path) -> None:
    (directory / "loop").symlink_to("loop")
    with Root(str(directory)) as root:
        assert root.exists("/var/lib/file") is True
        assert root.exists("/var/lib/other") is False
        assert root.exists("/var/lib/file/below") is False
        assert [root.exists("/loop/x") for _ in range(3)] == [None] * 3
    with Root(str(directory / "nowhere")) as root:
        assert root.exists("/var") is None
        assert root.names("/var") == []
        assert root.troubles == [f"{directory}/nowhere: No such file or directory"]


def test_names_that_cannot_be_paths(directory: Path) -> None:
    with Root(str(directory)) as root:
        assert root.read("/var/lib/file\0x") is None
        assert root.read("/" + "x" * 5000) is None
        assert root.read("/var/lib/\udcff") is None


def test_links_are_read_not_followed_and_files_located(directory: Path) -> None:
    (directory / "exe").symlink_to("/usr/sbin/thing")
    (directory / "data").symlink_to("/var/lib")
    with Root(str(directory)) as root:
        assert root.link("/exe") == "/usr/sbin/thing"
        assert root.link("/var/lib/file") is None
        assert root.locate("/data/file") == str(directory / "var/lib/file")
        assert root.locate("/var") is None
        assert (root.age("/var/lib/file") or 99.0) < 60
        assert root.age("/var/lib/none") is None
