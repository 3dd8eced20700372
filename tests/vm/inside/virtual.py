"""IPVS, which not every kernel has: who answers, and what `check` says. Run in the guest by pytest.

The files of tests/vm/ipvs are written and judged like those of tests/netns/cases (see the README there).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cases import Case, read
from support.trial import attempt, judge, table

from k3swatch.demo.lab import Lab, lab

CASES = [read(path) for path in sorted((Path(__file__).parents[1] / "ipvs").glob("*.case"))]


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    with lab() as made:
        yield made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_who_answers(case: Case, host: Lab) -> None:
    host.reset()
    host.host.shell(
        "ipvsadm -C; sysctl -qw net.ipv4.vs.conntrack=0; ip link del kube-ipvs0 2>/dev/null || true"
    )
    lines = list(judge(attempt(host, case)))
    if any(line.wrong or line.misnamed for line in lines):
        pytest.fail(f"{case.path}\n{case.script}\n\n{table(lines)}", pytrace=False)
