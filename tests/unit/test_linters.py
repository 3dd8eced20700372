"""The linters are tests: one command checks everything. A missing tool skips, or fails where promised."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def tool(name: str) -> str:
    """The tool's path, from the virtualenv first; skips (a failure in a promised tier) when it is missing."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: make setup")
    return found


def tracked(*patterns: str) -> list[str]:
    """Files of the repository that match, new ones that are not yet added included, ignored ones left out."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=REPO,
        check=True,
        capture_output=True,
        text=True,
    )
    return [name for name in listing.stdout.splitlines() if (REPO / name).is_file()]


def lint(*command: str) -> None:
    """Run one linter at the root of the repository; its own words are the failure, without a traceback."""
    done = subprocess.run(
        command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{Path(command[0]).name}: exit {done.returncode}\n{done.stdout}", pytrace=False)


@pytest.mark.timeout(600)  # 10 s of work without its cache, more on a busy machine
def test_mypy() -> None:
    lint(tool("mypy"))


def test_ruff_check() -> None:
    lint(tool("ruff"), "check")


def test_ruff_format() -> None:
    lint(tool("ruff"), "format", "--check", "--diff")


def test_clang_format() -> None:
    sources = tracked("bpf/*.c", "bpf/*.h", "bpf/**/*.c", "bpf/**/*.h")
    assert sources, "no C under bpf/: this test would check nothing"
    lint(tool("clang-format"), "--dry-run", "--Werror", *sources)


def test_shellcheck() -> None:
    scripts = [
        name
        for name in tracked()
        if (REPO / name).read_bytes()[:64].startswith((b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash"))
    ]
    assert ".ci/run" in scripts
    lint(tool("shellcheck"), *scripts)
