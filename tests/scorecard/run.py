"""The cases, each tried in a lab where a daemon runs; what came of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from support.cases import Case
from support.daemon import Daemon
from support.labs import Labs
from support.trial import Line, attempt, judge, table

from k3swatch.demo.lab import Lab
from scorecard import live, others

PATIENCE = 240.0  # seconds for one case, on a busy machine


@dataclass(frozen=True)
class Result:
    """What k3swatch, and what each of the others, made of one case. `report` is for who wants to know why."""

    case: Case
    detected: bool  # every connection's verdict is right; of a look-alike too
    named: bool  # and so are rule, conditions and certainty
    alarm: bool  # the port's state is not delivered: by check or by the daemon
    live: bool  # the daemon saw connections not arrive
    live_named: bool  # and laid a diverted one to the rule
    tools: dict[str, bool] = field(default_factory=dict)
    report: str = ""


def results(cases: Iterable[Case], labs: int) -> Iterator[Result]:
    """Every case's result, in the order of `cases`. A case that could not be tried counts as failed in everything."""
    cases = list(cases)
    with Labs(cases, _furnish, labs) as trials:
        for case in cases:
            try:
                yield trials.trials[case].result(PATIENCE)
            except Exception as error:  # noqa: BLE001  the others are still worth knowing
                yield Result(
                    case,
                    False,
                    False,
                    case.fine,
                    False,
                    False,
                    {},
                    f"could not be tried: {str(error)[-400:]}",
                )


def _furnish(lab: Lab, stack: ExitStack) -> Callable[[Case], Result]:
    return partial(_try, lab, live.running(lab, stack))


def _try(lab: Lab, daemon: Daemon, case: Case) -> Result:
    before = live.counts(daemon)
    with others.watching(lab) as conntrack:
        trial = attempt(lab, case)
    seen = live.watch(daemon, case, before, trial)
    tools = others.alarms(lab.host) | conntrack
    lines = list(judge(trial))
    if case.fine and seen.state != "delivered":
        lines.append(Line("daemon", "", "", "; ".join(seen.findings), "FALSE ALARM: it is nobody's hijack"))
    elif any(" unexplained " in finding for finding in seen.findings):  # all cases are made of rules
        lines.append(
            Line("daemon", "", "", "; ".join(seen.findings), misnamed="no rule explains what it saw")
        )
    detected = not any(line.wrong for line in lines)
    named = detected and not any(line.misnamed for line in lines)
    alarm = trial.port["state"] != "delivered" or seen.state != "delivered"
    report = "" if named else table(line for line in lines if line.wrong or line.misnamed)
    return Result(case, detected, named, alarm, seen.taken, seen.named, tools, report)
