"""What every tier shares: the skip policy, `--update-golden`, where the repository is."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parent.parent
TESTS = REPO / "tests"

# `make test` has three lanes, each one process. These files of tests/netns, and all other tiers, compute; the rest
# mostly waits: for a daemon that looks once a second,
COMPUTING = (
    "test_expression_bytes.py",
    "test_guard.py",
    "test_random_rulesets.py",
    "test_restore.py",
    "test_scorecard.py",
    "test_wheel.py",
    "test_who_answers.py",
    "test_xt_blobs.py",
)
# or for the timers of others: of a real Alertmanager, Prometheus, container runtime.
TIMERS = (
    "test_alertmanager_pair.py",
    "test_attribution.py",
    "test_containerd.py",
    "test_dashboard.py",
    "test_demo.py",
    "test_inhibition.py",
    "test_k3s_auto.py",
    "test_sinks_real.py",
    "test_ways.py",
)
# These measure how long something takes: they come last in the longest lane, when nobody computes any more. The very
# last attaches programs to control groups, which are the whole machine's: whoever judges beside it says `unknown`
MEASURING = ("test_daemon.py", "test_doer.py", "test_probe.py", "test_wakes.py", "test_taken.py")


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


def lane(file: str) -> str:
    """Which of the three lanes a test file belongs to."""
    name = Path(file).name
    if tier_of(REPO / file) != "netns" or name in COMPUTING:
        return "computes"
    return "timers" if name in TIMERS + MEASURING else "waits"


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which virtual machines do not have
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The lanes, where there are several processes."""
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # has no types
        def _split_scope(self, nodeid: str) -> str:
            return lane(nodeid.partition("::")[0])

    return Lanes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """See MEASURING."""
    items.sort(key=lambda item: ("", *MEASURING).index(item.path.name if item.path.name in MEASURING else ""))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have to say, whatever became of them: see `say` in tests/netns/conftest.py."""
    reports = [report for some in terminalreporter.stats.values() for report in some]
    for report in reports:
        if isinstance(report, pytest.TestReport) and report.when == "call":
            for name, text in report.user_properties:
                if name == "said":
                    terminalreporter.write_line(str(text))


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
