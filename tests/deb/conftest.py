"""Builds the package the tests are about."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SOURCES = (
    "pyproject.toml",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "k3swatch",
    "bpf",
    "systemd",
    "packaging",
    "docs",
)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from, which stays as it is while somebody works on the other."""
    copy = tmp_path_factory.mktemp("tree")
    subprocess.run(["cp", "-a", *SOURCES, copy], cwd=REPO, check=True)
    return copy


@pytest.fixture(scope="session")
def package(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built package."""
    if shutil.which("dh") is None:
        pytest.skip("debhelper is not installed: make deb")
    return build(tree, tmp_path_factory.mktemp("package"))


def build(tree: Path, into: Path) -> Path:
    """Build `tree`; the .deb, with .changes and .buildinfo beside it."""
    subprocess.run([tree / "packaging/deb/build", into], check=True, stdout=subprocess.DEVNULL)
    (made,) = into.glob("*.deb")
    return made
