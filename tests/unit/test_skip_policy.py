"""The skip policy and the lanes of tests/conftest.py, tried on a small tree of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"


def run_tests(tmp_path: Path, source: str, tiers: str, *options: str) -> str:
    """Pytest's report on one test file in tests/unit of a tree that has our conftest."""
    folder = tmp_path / "tests" / "unit"
    folder.mkdir(parents=True)
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "tests" / "conftest.py").write_bytes(CONFTEST.read_bytes())
    (folder / "test_it.py").write_text(f"import pytest\n{source}\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        *options,
        "tests",
    ]
    environment = {**os.environ, "K3SWATCH_TIERS": tiers}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    return done.stdout


SKIPS = [
    pytest.param("def test_it():\n    pytest.skip('no such tool')", id="in the test"),
    pytest.param("@pytest.mark.skipif(True, reason='no such tool')\ndef test_it(): pass", id="by mark"),
    pytest.param("pytest.skip('no such tool', allow_module_level=True)", id="whole module"),
]


@pytest.mark.parametrize("source", SKIPS)
def test_skip_in_a_promised_tier_is_a_failure_that_names_the_reason(tmp_path: Path, source: str) -> None:
    report = run_tests(tmp_path, source, tiers="unit,netns")
    assert "skipped in tier 'unit', which K3SWATCH_TIERS promises" in report
    assert "no such tool" in report
    assert "1 failed" in report or "1 error" in report


@pytest.mark.parametrize("source", SKIPS)
def test_skip_elsewhere_is_a_skip(tmp_path: Path, source: str) -> None:
    assert "1 skipped" in run_tests(tmp_path, source, tiers="netns")


def test_expected_failure_is_not_a_skip(tmp_path: Path) -> None:
    source = "@pytest.mark.xfail(strict=True)\ndef test_it(): raise AssertionError"
    assert "1 xfailed" in run_tests(tmp_path, source, tiers="unit")


@pytest.mark.parametrize("source", SKIPS)
def test_lanes_do_not_let_a_skip_through(tmp_path: Path, source: str) -> None:
    report = run_tests(tmp_path, source, "unit", "--numprocesses=2")
    assert "skipped in tier 'unit', which K3SWATCH_TIERS promises" in report
    assert "1 failed" in report or "1 error" in report


def test_each_lane_is_one_process_and_what_measures_comes_last(tmp_path: Path) -> None:
    """And what tests have to say arrives from there."""
    netns = tmp_path / "tests" / "netns"
    netns.mkdir(parents=True)
    say = "request.node.user_properties.append(('said', f'{NAME} by {os.getpid()}'))"
    source = f"import os\ndef test_it(request): {say}"
    for name in ("test_taken", "test_wakes", "test_ways", "test_x", "test_who_answers"):
        (netns / f"{name}.py").write_text(f"NAME = {name!r}\n{source}\n")
    report = run_tests(tmp_path, f"NAME = 'unit'\n{source}", "unit", "--numprocesses=3")
    said = [line.split(" by ") for line in report.splitlines() if " by " in line]
    assert {name for name, _ in said} == {
        "unit",
        "test_taken",
        "test_wakes",
        "test_ways",
        "test_x",
        "test_who_answers",
    }
    process = dict(said)
    assert process["unit"] == process["test_who_answers"]
    assert len({process["unit"], process["test_x"], process["test_wakes"]}) == 3
    assert [name for name, pid in said if pid == process["test_wakes"]] == [
        "test_ways",
        "test_wakes",
        "test_taken",
    ]
