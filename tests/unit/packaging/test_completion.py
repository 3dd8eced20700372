"""Completion as zsh and fish themselves do it: what they offer for a line that somebody is typing."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from unit.packaging.test_reference import COMMANDS, COMPLETION

FIRST = {name.split()[0] for name in COMMANDS if name}
LINES = {
    "k3swatch ": FIRST,
    **{
        f"k3swatch {name} --": {o for o in options if o[:2] == "--"}
        for name, options in COMMANDS.items()
        if name
    },
    "k3swatch check --format ": {"text", "json"},
    "k3swatch explain --vantage ": {"external", "local"},
    "k3swatch config ": {"check"},
}

ASKED = """
_arguments() {{ print -rl -- "$@" }}
_describe() {{ print -rl -- "${{(@P)2}}" }}
words=(k3swatch {words}); CURRENT=${{#words}}
f() {{ source {file} }}
f
"""


@pytest.mark.parametrize("line", LINES)
def test_fish(line: str) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = f"source {COMPLETION}/k3swatch.fish; complete -C '{line}'"
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert {offer.split("\t")[0] for offer in done.stdout.splitlines()} == LINES[line]


@pytest.mark.parametrize("name", COMMANDS)
def test_zsh(name: str) -> None:
    """zsh completes on a terminal only: here it runs our function, which asks zsh's own for these words."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    script = ASKED.format(words=f"{name} x".strip(), file=COMPLETION / "_k3swatch")
    done = subprocess.run(["zsh", "-f", "-e", "-u", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    asked = done.stdout.splitlines()
    options = {match[1] for line in asked if (match := re.match(r"(?:\(.*\)|\*)?(--?[a-z]+)(?:\[|$)", line))}
    assert {option for option in options if option != "-h"} == COMMANDS[name]
    if not name:
        assert {line.split(":")[0] for line in asked if re.match("[a-z]", line)} == FIRST
