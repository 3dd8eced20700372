"""systemd/k3swatch.service, judged by systemd itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "k3swatch.service"


def analyze(*arguments: str) -> str:
    """What systemd-analyze says."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_systemd_understands_every_line() -> None:
    complaints = [
        line
        for line in analyze("verify", "--man=no", str(UNIT)).splitlines()
        if "k3swatch.service" in line and "/usr/bin/k3swatch is not executable" not in line
    ]
    assert complaints == []


def test_its_exposure_stays_low() -> None:
    """From 10 (nothing is restricted) to 0; of the daemons of this kind most are above 8. docs/adr/0009-exposure.md."""
    verdict = analyze("security", "--offline=yes", str(UNIT)).strip().splitlines()[-1]
    exposure = float(verdict.split("k3swatch.service: ")[1].split()[0])
    assert exposure <= 2.0, verdict
