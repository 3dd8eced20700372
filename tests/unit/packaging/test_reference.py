"""Man pages, completions and the package say what the program does: nothing is missing, nothing is left over."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import k3swatch
from k3swatch import cli

REPO = Path(__file__).resolve().parents[3]
MAN = REPO / "packaging" / "man"
COMPLETION = REPO / "packaging" / "completion"


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command with its long options (short ones where there is no long one)."""
    options: set[str] = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                yield from commands(sub, f"{name} {word}".strip())
        elif action.option_strings:
            options.add(max(action.option_strings, key=len))
    yield name, options


COMMANDS = dict(commands(cli.parser()))
OPTIONS = set().union(*COMMANDS.values())


def plain(page: Path) -> str:
    """A man page as its reader sees it, spaces folded."""
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    shown = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", page],
        capture_output=True,
        text=True,
        check=True,
        env={"MANWIDTH": "200", "MANROFFOPT": "", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    assert shown.stderr == ""
    return " ".join(re.sub(".\b", "", shown.stdout).replace("\N{HYPHEN}", "-").split())


def told_to_run() -> Iterator[tuple[str, str]]:
    """Where the documentation, the catalog or a hint says `k3swatch WORD ...` to a person, as (file, words)."""
    sources = [
        REPO / "README.md",
        *REPO.glob("docs/**/*.md"),
        *REPO.glob("packaging/**/*.yaml"),
        *REPO.glob("packaging/man/*"),
    ]
    for path in [*sources, *REPO.glob("systemd/*"), *(REPO / "k3swatch").rglob("*.py")]:
        for line in path.read_text().splitlines():
            code = (
                [line]
                if line.startswith("    ") and path.suffix not in (".py", ".yaml")
                else line.split("`")[1::2]
            )
            for words in code:
                match = re.match(r"\s*(?:sudo )?(?:\S*/bin/)?k3swatch ([a-z]+)", words)
                if match:
                    yield str(path.relative_to(REPO)), match[1]


def test_every_command_that_people_are_told_to_run_exists() -> None:
    told = list(told_to_run())
    assert len(told) > 20
    assert [
        (path, word) for path, word in told if word not in COMMANDS and f"{word} check" not in COMMANDS
    ] == []


def test_every_command_and_option_is_in_the_manual() -> None:
    page = plain(MAN / "k3swatch.1")
    assert [name for name in COMMANDS if name not in page] == []
    assert [option for option in OPTIONS if option not in page] == []
    assert set(re.findall(r"(?<![\w-])--[a-z]+", page)) - OPTIONS == set()


def test_the_manual_says_which_command_takes_which_option() -> None:
    page = plain(MAN / "k3swatch.1")
    for name in COMMANDS.keys() - {"", "config", "demo"}:
        synopsis = re.search(
            rf" (?<!config ){name} ((?:[^.]|\.{{3}})*?\]) [A-Z][a-z]", page.partition("COMMANDS")[2]
        )
        assert synopsis, name
        assert set(re.findall(r"--?[a-z]+", synopsis[1])) == COMMANDS[name] - {"--help"}


def test_every_exit_status_is_in_the_manual() -> None:
    page = plain(MAN / "k3swatch.1").partition("EXIT STATUS")[2].partition("ENVIRONMENT")[0]
    for status in (cli.OK, cli.BAD, cli.UNKNOWN, cli.USAGE, cli.NOPERM, cli.CONFIG):
        assert f" {status} " in page


def test_every_key_of_the_configuration_is_in_the_manual() -> None:
    page = plain(MAN / "k3swatch-config.5")
    schema = (REPO / "k3swatch/config/schema.py").read_text()
    keys = re.findall(r'"(\w+)"', " ".join(re.findall(r"\.keys\(\((.*?)\)\)", schema)))
    assert {"ports", "allow", "destination", "cert_file", "socket"} <= set(keys)
    assert [key for key in keys if not re.search(rf"\b{key}\b", page)] == []


def test_the_daemons_page_has_no_mistakes() -> None:
    assert "SIGHUP" in plain(MAN / "k3swatch.8")


def completed(words: str) -> set[str]:
    """What bash would offer after these words; the last one is being typed."""
    script = f'. {COMPLETION}/k3swatch; COMP_WORDS=({words} ""); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))'
    script += '; _k3swatch; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-eu", "-c", script], capture_output=True, text=True, check=True, cwd=REPO)
    return set(done.stdout.split())


def test_bash_completes_every_command() -> None:
    first = {name.split()[0] for name in COMMANDS if name}
    assert completed("k3swatch") == first | COMMANDS[""]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name and name != "demo"])
def test_bash_completes_every_option(name: str) -> None:
    offered = completed(f"k3swatch {name}")
    assert {word for word in offered if word.startswith("-")} == COMMANDS[name]


def test_bash_completes_values() -> None:
    assert completed("k3swatch check --format") == {"text", "json"}
    assert completed("k3swatch explain --vantage") == {"external", "local"}
    assert completed("k3swatch config") == {"check", "--help"}
    assert "README.md" in completed("k3swatch config check")


@pytest.mark.parametrize("file", ["_k3swatch", "k3swatch.fish"])
def test_zsh_and_fish_know_the_same_words(file: str) -> None:
    text = (COMPLETION / file).read_text()
    for name in filter(None, COMMANDS):
        assert re.search(rf"\b{name.split()[0]}\b", text), name
    for option in OPTIONS:
        assert option in text or f"-l {option[2:]} " in text or f"-s {option[1:]} " in text, option


def test_one_version() -> None:
    with (REPO / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == k3swatch.__version__
    first = (REPO / "packaging/deb/debian/changelog").read_text().splitlines()[0]
    assert first.startswith(f"k3swatch ({k3swatch.__version__}) ")


def test_every_folder_of_the_probe_is_packaged() -> None:
    """setuptools takes no folder by itself."""
    with (REPO / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["data-files"].values()
    packaged = {path for globs in patterns for glob in globs for path in REPO.glob(glob)}
    assert {*(REPO / "bpf").rglob("*.[ch]"), *(REPO / "systemd").iterdir()} - packaged == set()
    assert all(list(REPO.glob(glob)) for globs in patterns for glob in globs), "a pattern matches nothing"
