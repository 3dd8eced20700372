"""The layer contract of the architecture, read out of the source with `ast`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "k3swatch"
TESTS = REPO / "tests"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each room may import of ours, itself aside. `daemon`, `cli` and `demo` wire and may import everything.
MAY_IMPORT = {
    "model": set(),
    "errors": set(),
    "clock": set(),
    "config": {"model", "errors"},
    "sources": {"model", "errors", "clock"},
    "decode": {"model", "errors"},
    "live": {"sources", "decode", "model", "errors", "clock"},
    "evaluate": {"model", "errors"},
    "attribute": {"model", "errors", "clock"},
    "k3s": {"model", "errors", "clock", "config", "attribute"},
    "incident": {"model", "errors"},
    "view": {"model", "errors"},
    "restore": {"model", "errors", "evaluate", "view"},
    "sinks": {"model", "errors", "clock", "view"},
}
WIRING = {"daemon", "cli", "demo", "undo", "__main__", "__init__"}
PURE = {"model", "decode", "evaluate", "incident", "view", "restore", "errors"}
IMPURE = {
    "time",
    "os",
    "socket",
    "subprocess",
    "logging",
    "bcc",
    "systemd",
    "prometheus_client",
    "sys",
    "threading",
}
MAY_PRINT = {"cli", "demo"}
TABLES = {"k3swatch/model/expr.py"}  # a long list of small values is one idea, however long


def room(path: Path) -> str:
    """The first part of a module's name below k3swatch."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a module, wherever it stands, as (line, dotted name)."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import hides the room it crosses into"
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """Every call by name or attribute, as (line, `print` or `datetime.now`)."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield node.lineno, ast.unparse(node.func)


def complaints(path: Path) -> list[str]:
    """Where a module breaks the contract."""
    here, found = room(path), []
    if here not in WIRING | MAY_IMPORT.keys():
        found.append(f"{path}: room {here!r} is not in the contract: add it to MAY_IMPORT")
    for line, name in imports(path):
        top, _, rest = name.partition(".")
        ours = rest.partition(".")[0]
        if (
            top == "k3swatch"
            and ours
            and here not in WIRING
            and ours not in MAY_IMPORT[here] | {here, "__version__"}
        ):
            found.append(f"{path}:{line}: {here} must not import {name}")
        if here in PURE and top in IMPURE:
            found.append(f"{path}:{line}: {here} is pure and must not import {name}")
        if top == "bcc" and path != PACKAGE / "sources" / "bpf.py":
            found.append(f"{path}:{line}: only sources/bpf.py imports bcc, in the loader child")
    for line, name in calls(path):
        if here in PURE and name.endswith(("datetime.now", "datetime.utcnow", "date.today")):
            found.append(f"{path}:{line}: {here} reads no clock: `now` is an argument")
        if here not in MAY_PRINT and name in {"print", "exit", "quit", "sys.exit", "os._exit"}:
            found.append(f"{path}:{line}: only cli prints and exits")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_keeps_the_layer_contract(path: Path) -> None:
    assert not complaints(path), "\n".join(complaints(path))


@pytest.mark.parametrize(
    "path", [*MODULES, *sorted(TESTS.rglob("*.py"))], ids=lambda path: str(path.relative_to(REPO))
)
def test_module_fits_in_a_head(path: Path) -> None:
    ceiling = 600 if path.is_relative_to(TESTS) else 400
    if str(path.relative_to(REPO)) in TABLES:
        return
    lines = len(path.read_bytes().splitlines())
    assert lines <= ceiling, f"{path}: {lines} lines, at most {ceiling}: it holds more than one idea"


def test_the_contract_bites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that breaks every clause is complained about for each: the checks above can fail."""
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    bad = tmp_path / "decode" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("import os, bcc\nfrom k3swatch.sources import nftables\nprint(datetime.now())\n")
    text = "\n".join(complaints(bad))
    for clause in (
        "pure and must not import os",
        "only sources/bpf.py",
        "must not import k3swatch.sources",
        "clock",
        "prints",
    ):
        assert clause in text
