"""What a running daemon sees of a case's connections: its counts, and the incidents that rest on real connections."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from support.cases import Case, Row
from support.daemon import Daemon
from support.handles import Handles
from support.trial import Trial

from k3swatch.demo.lab import Lab

PATIENCE = 4.0  # a connection's event takes milliseconds, a legacy table up to a second
COMPILING = 90.0
_one_compiles = threading.Lock()  # a probe is 2 s of one processor: all at once, none is ready in time


def running(lab: Lab, stack: ExitStack) -> Daemon:
    """A daemon in the lab's host that sees connections, until the stack is unwound."""
    directory = Path(stack.enter_context(TemporaryDirectory(prefix="k3w-")))
    daemon = Daemon(lab.host, directory, metrics="")
    with _one_compiles:
        stack.enter_context(daemon.start(ready=False))
        daemon.until(lambda: daemon.running() and daemon.tried_probe(), "connections are seen", COMPILING)
    assert daemon.status()["probe"] != "none", daemon.said()
    return daemon


@dataclass(frozen=True)
class Seen:
    """`outcomes`: connections since the rules were loaded. `state`: of the port, as the daemon says."""

    outcomes: dict[str, int]
    state: str
    named: bool
    findings: tuple[str, ...] = ()

    @property
    def taken(self) -> bool:
        """Whether some connection was seen not to arrive."""
        return bool(self.outcomes.get("diverted") or self.outcomes.get("dropped"))


def counts(daemon: Daemon) -> Counter[str]:
    """Connections so far, by outcome."""
    found: Counter[str] = Counter()
    for row in daemon.status().get("connections", ()):
        found[row["outcome"]] += row["connections"]
    return found


def watch(daemon: Daemon, case: Case, before: Counter[str], trial: Trial) -> Seen:
    """What the daemon knows once it has caught up with the rules and, for a taken port, with the connections."""
    generation, end = trial.report["generation"], time.monotonic() + PATIENCE
    while True:
        status = daemon.status()
        seen = Seen(
            dict(counts(daemon) - before),
            status["ports"][0]["state"],
            _named(case, trial.handles, status),
            tuple(_words(finding) for finding in status["ports"][0]["findings"]),
        )
        caught_up = status["generation"] == generation and seen.state == trial.port["state"]
        enough = case.fine or (seen.taken and (seen.named or not case.diverts))
        if (caught_up and enough) or time.monotonic() > end:
            return seen
        time.sleep(0.05)


def _words(finding: dict[str, Any]) -> str:
    """A finding on one line: what, where to, resting on what."""
    return f"{finding['state']} {finding['mechanism']} {finding['destination']} {finding['evidence']}"


def _named(case: Case, handles: Handles, status: dict[str, Any]) -> bool:
    """Whether a connection that was seen is laid to a rule of the case."""
    causes = {cause for row in case.rows if _diverted(row) for cause in row.causes}
    places = set()
    for cause in causes:
        try:
            places.add((*cause.place, handles.of(cause)))
        except LookupError:
            continue
    for incident in status["incidents"]:
        for finding in incident["findings"]:
            if "flow" in finding["evidence"] and finding["path"]:
                last = finding["path"][-1]
                if (last["family"], last["table"], last["chain"], last["handle"]) in places:
                    return True
    return False


def _diverted(row: Row) -> bool:
    return "diverted" in row.states
