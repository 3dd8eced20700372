"""Does `k3swatch check` say where a real TCP connection ends? One case file per ruleset, see cases/README.

Each case loads its rules with the real tools into the lab's host. Then everybody connects to every address of the
host (`EVERYBODY`), and `check` runs there. What it says must fit every one of these connections, the two worst
defects first: it must never call delivered what somebody else answers, nor certainly diverted what the API server
answers. The rows of the case say more: which server answers, and what exactly `check` has to say about it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from k3swatch.demo import lab as at
from k3swatch.demo.apiserver import TIMEOUT, who_answers
from k3swatch.demo.lab import Lab
from k3swatch.demo.said import NOBODY, Said, said_about

HERE = Path(__file__).resolve().parent
CASES = sorted((HERE / "cases").glob("*.case"))
EXIT = {"delivered": 0, "unserved": 0, "diverted": 1, "blocked": 1, "unknown": 2}

EVERYBODY = [
    ("client", at.HOST),
    ("client", at.HOST6),
    ("client-b", at.HOST),
    ("client-b", at.HOST6),
    ("web", at.HOST),
    ("web", at.CNI0),
    ("web", at.CNI0_6),
    ("host", at.HOST),
    ("host", at.HOST6),
    ("host", at.CNI0),
    ("host", "127.0.0.1"),
    ("host", "::1"),
]


@dataclass(frozen=True)
class Row:
    """One connection: who dials what, who answers, what `check` says (alternatives separated by `|`).

    `diverted` is unconditional and certain, `diverted?` is conditional or uncertain, `diverted*` is either.
    """

    start: str
    address: str
    answers: str
    state: str
    mechanism: str = ""
    destination: str = ""


def read_case(path: Path) -> tuple[str, list[Row]]:
    """The shell script and the rows of a case file."""
    script, _, table = path.read_text().partition("\n---\n")
    return script, [Row(*line.split()) for line in table.splitlines() if line.strip()]


def load(lab: Lab, script: str) -> None:
    """Run a case's script in the host, with the command `lab` at its disposal."""
    command = f"LAB_HOST={lab.host.name} LAB_POD={lab.pod.name} {sys.executable} {HERE / 'labctl.py'}"
    lab.host.shell(f'lab() {{ {command} "$@"; }}\n{script}')


def dial(lab: Lab, start: str, address: str) -> str:
    """Who answers a real connection."""
    space = lab.client if start == "client-b" else getattr(lab, start)
    source = {("client-b", False): at.CLIENT_B, ("client-b", True): at.CLIENT6_B}.get(
        (start, ":" in address), ""
    )
    if start == "client":
        source = at.CLIENT6 if ":" in address else at.CLIENT
    answer = who_answers(space, address, 6443, timeout=0.5, source=source)
    if answer == TIMEOUT:  # nobody, or a busy machine: ask once more before that is the truth
        answer = who_answers(space, address, 6443, timeout=1.5, source=source)
    return answer


def dial_all(lab: Lab, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Every connection at once: those that nobody answers all wait at the same time."""
    pairs = list(dict.fromkeys(pairs))
    with ThreadPoolExecutor(len(pairs)) as pool:
        return dict(zip(pairs, pool.map(lambda pair: dial(lab, *pair), pairs), strict=True))


def mismatch(row: Row, answer: str, said: Said) -> str:
    """What of a row is not as written; empty when all is."""
    if answer not in row.answers.split("|"):
        return f"{row.answers} should have answered"
    wanted = row.state.split("|")
    if not any(said.word in ((w[:-1], w[:-1] + "?") if w.endswith("*") else (w,)) for w in wanted):
        return f"should have said {row.state}"
    for key, value in (("mechanism", row.mechanism), ("destination", row.destination)):
        if value and value not in [finding[key] for finding in said.findings]:
            return f"should have named {key} {value}"
    return ""


def table(lines: list[tuple[str, ...]]) -> str:
    """Columns, aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_check_says_where_connections_end(
    path: Path, request: pytest.FixtureRequest, check: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    script, rows = read_case(path)
    # a legacy table cannot be removed again, so it gets a lab of its own
    on: Lab = request.getfixturevalue("private_lab" if "legacy" in path.stem else "module_lab")
    on.reset()
    load(on, script)
    pairs = [(row.start, row.address) for row in rows]
    answers = dial_all(on, [*pairs, *EVERYBODY])
    status, report = check(on.host)

    lines, wrong = [("from", "to", "who answered", "check said", "")], False
    for pair, answer in answers.items():
        said = said_about(report["ports"][0], pair[0] == "host", pair[1])
        mine = [row for row in rows if (row.start, row.address) == pair]
        # a firewall that refuses some: a row may say that this is no finding
        refused = answer in NOBODY and any(row.state == "delivered" for row in mine)
        complaint = "" if refused else said.contradicts(answer)
        for row in mine:
            complaint = complaint or mismatch(row, answer, said)
        lines.append((*pair, answer, f"{said.word} {said.destinations}", complaint and f"<-- {complaint}"))
        wrong = wrong or bool(complaint)
    state = report["ports"][0]["state"]
    if all(row.state.startswith("delivered") for row in rows) and state != "delivered":
        lines.append(("anybody", "any address", "", state, "<-- FALSE ALARM: it is nobody's hijack"))
        wrong = True
    if status != EXIT[state]:
        lines.append(("exit", str(status), "", state, f"<-- should have been {EXIT[state]}"))
        wrong = True
    if wrong:
        pytest.fail(f"{path.stem}\n{script}\n\n{table(lines)}", pytrace=False)


def test_the_cases_cover_what_they_must() -> None:
    """At least 24 rulesets, 8 of them nobody's hijack; both vantages and both families with both outcomes."""
    rows = [row for path in CASES for row in read_case(path)[1]]
    fine = [path for path in CASES if all(row.state == "delivered" for row in read_case(path)[1])]
    assert len(CASES) >= 24
    assert len(fine) >= 8
    seen = {(row.start == "host", ":" in row.address, row.state.rstrip("*?")) for row in rows}
    for local in (True, False):
        for v6 in (True, False):
            assert {"delivered", "diverted"} <= {state for *place, state in seen if place == [local, v6]}


def test_the_comparison_bites() -> None:
    """The judgement that all of the above rests on can fail."""
    finding = {
        "state": "diverted",
        "certain": True,
        "conditions": [],
        "mechanism": "dnat",
        "destination": "10.0.0.1:1",
    }
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
