"""What every tier shares: the skip policy, `--update-golden`, where the repository is."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
TESTS = REPO / "tests"


def promised_tiers() -> frozenset[str]:
    """The tiers (folders of tests/) this machine promises to run in full: K3SWATCH_TIERS=unit,golden,..."""
    return frozenset(filter(None, os.environ.get("K3SWATCH_TIERS", "").split(",")))


def tier_of(path: Path) -> str:
    """The folder of tests/ a test file lies in; empty for files elsewhere."""
    return path.relative_to(TESTS).parts[0] if path.is_relative_to(TESTS) else ""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden`: golden tests write what they got instead of comparing it."""
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the expected results of tests/golden"
    )


def _fail_when_promised(report: pytest.TestReport | pytest.CollectReport, path: Path) -> None:
    """A skip inside a promised tier is a failure: a test that never runs protects nothing."""
    if report.skipped and not hasattr(report, "wasxfail") and tier_of(path) in promised_tiers():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped in tier {tier_of(path)!r}, which K3SWATCH_TIERS promises: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """See _fail_when_promised."""
    report = yield
    _fail_when_promised(report, item.path)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """See _fail_when_promised: `pytest.skip(allow_module_level=True)` counts as well."""
    report = yield
    _fail_when_promised(report, getattr(collector, "path", REPO))
    return report


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the repository."""
    return REPO


@pytest.fixture
def update_golden(pytestconfig: pytest.Config) -> bool:
    """Whether `make golden` runs: then write the expectation instead of comparing with it."""
    return bool(pytestconfig.getoption("--update-golden"))
