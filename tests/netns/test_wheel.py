"""The wheel, for hosts without the Debian package: installed in a virtualenv it finds its data and loads its probe."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from k3swatch.demo.netns import namespaces

REPO = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "LICENSE", "README.md", "k3swatch", "bpf", "systemd", "packaging")
LOAD = """
from k3swatch.live.flows import open_flow_watch
from k3swatch.sources.probe import source_directory
watch = open_flow_watch()
print(source_directory(), watch.attach, *watch.refused, sep="\\n")
watch.close()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building leaves files behind."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    subprocess.run(["cp", "-a", *SOURCES, tree], cwd=REPO, check=True)
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-build-isolation",
        "--no-deps",
        "-w",
        out,
        tree,
    ]
    subprocess.run(pip, check=True)
    (made,) = out.glob("k3swatch-*.whl")
    return made


def installed(wheel: Path, where: Path, system: bool) -> Path:
    """A virtualenv of the system's Python with nothing but the wheel; `system`: sees Debian's Python packages."""
    builder = venv.EnvBuilder(system_site_packages=system, with_pip=False, symlinks=True)
    builder.create(where)
    python = str(where / "bin/python")
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel], check=True)
    return where


def answer(where: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run one of its programs in a namespace of its own, from elsewhere than the checkout."""
    with namespaces("one") as spaces:
        spaces["one"].ip("link set lo up")
        with spaces["one"].inside():
            return subprocess.run(
                [where / "bin" / command[0], *command[1:]],
                cwd="/",
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )


def test_a_virtualenv_has_all_it_needs(wheel: Path, tmp_path: Path) -> None:
    where = installed(wheel, tmp_path / "venv", system=True)
    checked = answer(where, "k3swatch", "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith("tcp/6443 (k3s-api): unserved")
    loaded = answer(where, "python", "-c", LOAD)
    assert loaded.returncode == 0, loaded.stderr
    directory, attach, *_ = loaded.stdout.splitlines()
    assert directory == str(where / "share/k3swatch/bpf")
    assert attach in ("fentry", "kprobe", "tracepoint"), loaded.stdout
    shipped = {path.relative_to(REPO / "bpf") for path in (REPO / "bpf").rglob("*.[ch]")}
    assert {path.relative_to(directory) for path in Path(directory).rglob("*.[ch]")} == shipped
    for name in ("k3swatch.service", "k3swatch.catalog", "k3swatch.sysusers"):
        assert (where / "share/k3swatch/systemd" / name).read_bytes() == (
            REPO / "systemd" / name
        ).read_bytes()


def test_without_bcc_one_line_says_what_to_install(wheel: Path, tmp_path: Path) -> None:
    """pip cannot bring it: rules are watched all the same, and connections by conntrack."""
    loaded = answer(installed(wheel, tmp_path / "venv", system=False), "python", "-c", LOAD)
    assert loaded.returncode == 0, loaded.stderr
    _, attach, reason = loaded.stdout.splitlines()
    assert attach == "conntrack"
    assert reason == (
        "probe: BCC: No module named 'bcc' (install the package python3-bpfcc, and see that this virtualenv is the "
        "system's Python with --system-site-packages)"
    )
    assert loaded.stderr == ""
