"""One case tried out: its rules loaded into a lab, everybody's connections made, `check` asked; then judged.

What `check` says must fit every connection, the two worst defects first: it must never call delivered what somebody
else answers, nor certainly diverted what the API server answers. The rows of the case say more: which server
answers, what exactly `check` has to say about it, and which rule it has to name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.cases import Case, Row
from support.handles import Handles

from k3swatch.demo import lab as at
from k3swatch.demo.apiserver import TIMEOUT, who_answers
from k3swatch.demo.lab import Lab
from k3swatch.demo.said import NOBODY, Said, said_about

REPO = Path(__file__).resolve().parents[2]
LABCTL = REPO / "tests" / "netns" / "labctl.py"
PATIENCE = float(os.environ.get("K3SWATCH_PATIENCE", "1"))  # tests/vm runs this on an emulated CPU
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


@dataclass
class Trial:
    """What happened: who answered whom, what `check` said, where the rules really are."""

    case: Case
    answers: dict[tuple[str, str], str]
    status: int
    report: dict[str, Any]
    handles: Handles
    repeated: int = 0  # how many were dialled twice, as the first time nobody answered

    @property
    def port(self) -> dict[str, Any]:
        found: dict[str, Any] = self.report["ports"][0]
        return found

    def said(self, start: str, address: str) -> Said:
        """What `check` says about one connection."""
        return said_about(self.port, start == "host", address)


def load(lab: Lab, case: Case) -> None:
    """Run a case's script in the host, with the command `lab` at its disposal."""
    command = f"LAB_HOST={lab.host.name} LAB_POD={lab.pod.name} {sys.executable} {LABCTL}"
    lab.host.shell(f'CASES={case.path.parent}\nlab() {{ {command} "$@"; }}\n{case.script}')


def forget(lab: Lab) -> None:
    """Nobody remembers anybody's hardware address: it has to be asked for, now that the rules are there."""
    for space in (lab.client, lab.web, lab.host):
        space.shell("ip -4 neigh flush all; ip -6 neigh flush all")


def dial(lab: Lab, start: str, address: str) -> tuple[str, bool]:
    """Who answers a real connection; whether it had to be made twice."""
    space = lab.client if start == "client-b" else getattr(lab, start)
    source = {("client-b", False): at.CLIENT_B, ("client-b", True): at.CLIENT6_B}.get(
        (start, ":" in address), ""
    )
    if start == "client":
        source = at.CLIENT6 if ":" in address else at.CLIENT
    answer = who_answers(space, address, 6443, timeout=0.5 * PATIENCE, source=source)
    if answer == TIMEOUT:  # nobody, or a busy machine: ask once more before that is the truth
        busy = os.getloadavg()[0] > 3 * (os.cpu_count() or 1)
        patience = (4 if busy else 1.5) * PATIENCE
        return who_answers(space, address, 6443, timeout=patience, source=source), True
    return answer, False


def dial_all(lab: Lab, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, bool]]:
    """Every connection at once: those that nobody answers all wait at the same time."""
    pairs = list(dict.fromkeys(pairs))
    with ThreadPoolExecutor(len(pairs)) as pool:
        return dict(zip(pairs, pool.map(lambda pair: dial(lab, *pair), pairs), strict=True))


def check(lab: Lab) -> tuple[int, dict[str, Any]]:
    """The exit status of `k3swatch check` in the host, and its JSON."""
    with lab.host.inside():
        done = subprocess.run(
            [sys.executable, "-m", "k3swatch.cli", "check", "--format", "json"],
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=60 * PATIENCE,
            check=False,
        )
    assert done.stdout, f"check: exit {done.returncode}, no output; stderr:\n{done.stderr}"
    return done.returncode, json.loads(done.stdout)


def pairs(case: Case) -> list[tuple[str, str]]:
    """Every connection to make: the case's own, and everybody's."""
    return list(dict.fromkeys([*((row.start, row.address) for row in case.rows), *EVERYBODY]))


def attempt(lab: Lab, case: Case) -> Trial:
    """Try a case in a lab without rules."""
    load(lab, case)
    forget(lab)
    causes = [cause for row in case.rows for cause in row.causes]
    dialled = dial_all(lab, pairs(case))
    answers = {pair: answer for pair, (answer, _) in dialled.items()}
    repeated = sum(again for _, again in dialled.values())
    return Trial(case, answers, *check(lab), Handles(lab.host, causes), repeated)


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


def misnamed(row: Row, said: Said, handles: Handles) -> str:
    """What of the rules that a row names is not as written; empty when one finding is exactly each of them."""
    for cause in row.causes:
        try:
            handle = handles.of(cause)
        except LookupError as error:
            return str(error)
        close = []
        for finding in said.findings:
            last = finding["path"][-1] if finding["path"] else None
            if last is None or (last["family"], last["table"], last["chain"]) != cause.place:
                continue
            if handle is None and cause.text in last["rule"]:
                handle = last["handle"]
            if last["handle"] == handle:
                close.append(finding)
        if not close:
            return f"should have named {' '.join(cause.place)} handle {handle}"
        if not any(
            sorted(one["conditions"]) == sorted(cause.conditions) and one["certain"] != cause.unsure
            for one in close
        ):
            said_too = [(one["conditions"], "" if one["certain"] else "unsure") for one in close]
            return f"should have said {list(cause.conditions)}{' unsure' * cause.unsure}, said {said_too}"
    return ""


@dataclass(frozen=True)
class Line:
    """One connection judged. `wrong`: a contradiction or a broken word; `misnamed`: only the rule is not the one."""

    start: str
    address: str
    answer: str
    said: str
    wrong: str = ""
    misnamed: str = ""


def judge(trial: Trial) -> Iterator[Line]:
    """Every connection, then the port as a whole where that is wrong."""
    for pair, answer in trial.answers.items():
        said = trial.said(*pair)
        mine = [row for row in trial.case.rows if (row.start, row.address) == pair]
        # a firewall that refuses some: a row may say that this is no finding
        refused = answer in NOBODY and any(row.state == "delivered" for row in mine)
        complaint = "" if refused else said.contradicts(answer)
        unnamed = ""
        for row in mine:
            complaint = complaint or mismatch(row, answer, said)
            unnamed = unnamed or misnamed(row, said, trial.handles)
        yield Line(*pair, answer, f"{said.word} {said.destinations}", complaint, "" if complaint else unnamed)
    state = trial.port["state"]
    if trial.case.fine and state != "delivered":
        yield Line("anybody", "any address", "", state, "FALSE ALARM: it is nobody's hijack")
    if trial.status != EXIT[state]:
        yield Line("exit", str(trial.status), "", state, f"should have been {EXIT[state]}")


def table(lines: Iterable[Line]) -> str:
    """Columns, aligned."""
    cells = [("from", "to", "who answered", "check said", "")]
    for line in lines:
        complaint = line.wrong or line.misnamed
        cells.append((line.start, line.address, line.answer, line.said, complaint and f"<-- {complaint}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
