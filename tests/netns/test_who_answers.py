"""Does `k3swatch check` say where a real TCP connection ends, and by which rule? One case file per ruleset.

See cases/README for the files, support/trial.py for how they are tried. Several labs work at once (support/labs.py);
a test waits for its own case.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.cases import CASES, Case, Cause, Row, read
from support.handles import Chain, Handles
from support.labs import Labs
from support.trial import Trial, attempt, judge, mismatch, misnamed, table

from k3swatch.demo import lab as at
from k3swatch.demo.said import Said


@pytest.fixture(scope="module")
def labs(request: pytest.FixtureRequest, root: None) -> Iterator[Labs[Trial]]:
    """The labs, at work on the cases that were asked for."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    wanted = [case for item in items if item.module is request.module for case in _case(item)]
    with Labs(wanted, lambda lab, _: partial(attempt, lab)) as labs:
        yield labs


def _case(item: pytest.Function) -> list[Case]:
    """The one that a test takes; of a test that takes none, none."""
    taken = item.callspec.params if hasattr(item, "callspec") else {}
    return [case for name, case in taken.items() if name == "case" and isinstance(case, Case)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}/{case.name}")
def test_check_says_where_connections_end(case: Case, labs: Labs[Trial]) -> None:
    trial = labs.trials[case].result(timeout=240)
    lines = list(judge(trial))
    if any(line.wrong or line.misnamed for line in lines):
        pytest.fail(f"{case.path}\n{case.script}\n\n{table(lines)}", pytrace=False)


def test_the_cases_cover_what_they_must() -> None:
    """Both vantages and both families with both outcomes, and every case that is not fine says which rule decides."""
    rows = [row for case in CASES for row in case.rows]
    seen = {(row.start == "host", ":" in row.address, row.state.rstrip("*?")) for row in rows}
    for local in (True, False):
        for v6 in (True, False):
            assert {"delivered", "diverted"} <= {state for *place, state in seen if place == [local, v6]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}/{case.name}")
def test_a_case_is_written_whole(case: Case) -> None:
    """It says in words what it is; and of what is taken, which rule takes it and for whom."""
    assert case.script.startswith("# ")
    assert case.rows
    for row in case.rows:
        if not row.fine:
            assert row.causes, f"{row}: by which rule?"
        if row.state.endswith("?") and "|" not in row.state:
            assert any(cause.conditions or cause.unsure for cause in row.causes), f"{row}: for whom?"


def test_a_case_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.case"
    for line in (
        "client 192.168.1.233 x",
        "client a b diverted\n    because",
        "client a b diverted\n    by nat: x",
    ):
        path.write_text(f"# x\n---\n{line}\n")
        with pytest.raises(ValueError, match=r"x\.case"):
            read(path)


FINDING = {
    "state": "diverted",
    "certain": True,
    "conditions": [],
    "mechanism": "dnat",
    "destination": "10.0.0.1:1",
    "path": [{"family": "ip", "table": "nat", "chain": "p", "handle": 9, "rule": "dnat to 10.0.0.1:1"}],
}


def test_the_comparison_bites() -> None:
    """The judgement that all of the above rests on can fail."""
    finding = FINDING
    perhaps = {**finding, "conditions": ["from 10.0.0.0/8"]}
    assert Said([]).contradicts(at.OTHER_CLUSTER) == Said([]).contradicts("refused") == "FALSE ALL-CLEAR"
    assert Said([finding]).contradicts(at.API) == "FALSE ALARM"
    assert Said([{**finding, "state": "blocked"}]).contradicts(at.API) == "FALSE ALARM"
    assert not Said([perhaps]).contradicts(at.API)
    assert not Said([finding]).contradicts(at.OTHER_CLUSTER)
    row = Row("client", at.HOST, at.OTHER_CLUSTER, "diverted", "dnat", "10.0.0.1:1")
    assert not mismatch(row, at.OTHER_CLUSTER, Said([finding]))
    assert mismatch(row, at.API, Said([finding]))
    assert mismatch(row, at.OTHER_CLUSTER, Said([]))
    assert mismatch(row, at.OTHER_CLUSTER, Said([{**finding, "certain": False}]))
    assert mismatch(row, at.OTHER_CLUSTER, Said([{**finding, "destination": "10.0.0.2:1"}]))


def test_the_naming_bites() -> None:
    """Another rule of the same chain, another condition, another certainty: none of them will do."""
    handles = Handles.__new__(Handles)
    handles.chains = {("ip", "nat", "p"): Chain([(4, "counter accept"), (9, "dnat to 10.0.0.1:1")])}

    def complaint(cause: Cause, **change: object) -> str:
        row = Row("client", at.HOST, at.OTHER_CLUSTER, "diverted", causes=(cause,))
        return misnamed(row, Said([FINDING | change]), handles)

    assert not complaint(Cause("ip", "nat", "p", "dnat to 10.0.0.1"))
    assert not complaint(Cause("ip", "nat", "p", "#2"))
    assert "handle 4" in complaint(Cause("ip", "nat", "p", "accept"))
    assert "only 2 rules" in complaint(Cause("ip", "nat", "p", "#3"))
    assert "0 rules" in complaint(Cause("ip", "nat", "p", "dnat to 10.0.0.9"))
    assert "no chain" in complaint(Cause("ip", "nat", "q", "#1"))
    assert "should have said" in complaint(Cause("ip", "nat", "p", "#2", ("from 10.0.0.0/8",)))
    assert "should have said" in complaint(Cause("ip", "nat", "p", "#2"), certain=False)
