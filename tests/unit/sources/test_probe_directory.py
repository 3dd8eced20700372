"""Where the probe's C source is found: beside the package in a checkout, in share/k3swatch when installed."""

from __future__ import annotations

from pathlib import Path

import pytest

import k3swatch
from k3swatch.errors import Unsupported
from k3swatch.sources.probe import source_directory


def test_in_a_checkout(repo: Path) -> None:
    assert source_directory() == repo / "bpf"


def test_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k3swatch, "__file__", str(tmp_path / "lib" / "python3" / "k3swatch" / "__init__.py"))
    with pytest.raises(Unsupported) as caught:
        source_directory()
    assert "share/k3swatch/bpf" in caught.value.hint
    installed = tmp_path / "share" / "k3swatch" / "bpf"
    installed.mkdir(parents=True)
    (installed / "probe.c").touch()
    assert source_directory() == installed
