"""The package as a file: nothing to object to, and the same every time."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from deb.conftest import build


def test_lintian_has_no_objection(package: Path) -> None:
    (changes,) = package.parent.glob("*.changes")
    tags = ["--display-info", "--pedantic", "--tag-display-limit=0", "--allow-root", "--no-cfg"]
    done = subprocess.run(["lintian", *tags, changes], capture_output=True, text=True, check=False)
    objections = [line for line in done.stdout.splitlines() if not line.startswith("N:")]
    # systemd is the only init system it is made for
    assert [line for line in objections if "no-init.d-script" not in line] == [], done.stdout
    assert done.returncode == 0, done.stderr


def test_the_same_tree_makes_the_same_package(package: Path, tree: Path, tmp_path: Path) -> None:
    """Whatever the time, its zone and the umask."""
    old = os.umask(0o077)
    try:
        os.environ["TZ"] = "Pacific/Kiritimati"
        again = build(tree, tmp_path)
    finally:
        os.umask(old)
        del os.environ["TZ"]
    assert again.read_bytes() == package.read_bytes()


def test_all_of_it_is_there(package: Path, tree: Path) -> None:
    listing = subprocess.check_output(["dpkg-deb", "-c", package], text=True)
    files = {line.split()[-1].removeprefix(".") for line in listing.splitlines()}
    for folder, where in (("k3swatch", "/usr/lib/python3/dist-packages"), ("bpf", "/usr/share/k3swatch")):
        sources = [path for path in (tree / folder).rglob("*") if path.suffix in (".py", ".c", ".h")]
        assert len(sources) > 3
        assert {f"{where}/{path.relative_to(tree)}" for path in sources} - files == set()
    assert {
        "/etc/k3swatch/config.yaml",
        "/usr/bin/k3swatch",
        "/usr/lib/systemd/catalog/k3swatch.catalog",
        "/usr/share/doc/k3swatch/journal.md",  # what journal entries and alerts link to
        "/usr/share/k3swatch/prometheus/k3swatch.rules.yaml",
    } - files == set()
