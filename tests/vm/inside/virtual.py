"""IPVS, which not every kernel has: who answers, what `check` says, and what the probe makes of the connections. Run in
the guest by pytest, with K3SWATCH_ATTACH.

The files of tests/vm/ipvs are written and judged like those of tests/netns/cases (see the README there).
"""

from __future__ import annotations

import ipaddress
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cases import Case, read
from support.trial import Trial, attempt, judge, table

from k3swatch.demo import lab as at
from k3swatch.demo.apiserver import TIMEOUT
from k3swatch.demo.lab import API, WEB_POD, Lab, lab
from k3swatch.live.flow_probe import ProbeWatch
from k3swatch.live.flows import open_flow_watch
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Attach

CASES = [read(path) for path in sorted((Path(__file__).parents[1] / "ipvs").glob("*.case"))]
ATTACH = Attach(os.environ["K3SWATCH_ATTACH"])
# what the host dials comes back over loopback before IPVS takes it, and the answer leaves by no interface
OVER_LOOPBACK = ("fwmark",)
ADDRESSES = ("127.0.0.1", "::1", at.HOST, at.HOST6, at.CNI0, at.CNI0_6)


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    with lab() as made:
        yield made


@pytest.fixture(scope="module")
def watch(host: Lab) -> Iterator[ProbeWatch]:
    subprocess.run(["modprobe", "-a", "nf_nat", "ip_vs"], check=True)
    with host.host.inside():
        watch = open_flow_watch(ATTACH)
    assert isinstance(watch, ProbeWatch), watch.refused
    assert (watch.attach, watch.refused) == (ATTACH, ())
    assert watch.ipvs == ("" if ATTACH is Attach.TRACEPOINT else ATTACH)
    watch.protect([ProtectedPort("api", 6443)], map(ipaddress.ip_address, ADDRESSES))
    yield watch
    lost = watch.lost()
    del lost["ring"]
    assert not any(lost.values())
    watch.close()


def counts(watch: ProbeWatch) -> Counter[tuple[str, str | None]]:
    return Counter({(row.outcome.value, row.destination): row.connections for row in watch.counts()})


def wrongly_counted(trial: Trial, seen: Counter[tuple[str, str | None]]) -> str:
    """What of the counts contradicts the answers; empty when all of it fits."""
    answers = list(trial.answers.values())
    elsewhere = sum(answer not in (API, TIMEOUT, "refused", "unreachable") for answer in answers)
    sent = sum(trial.said(*pair).word == "diverted" for pair in trial.answers)
    diverted = sum(number for (outcome, _), number in seen.items() if outcome == "diverted")
    if not answers.count(API) <= seen["delivered", None] <= answers.count(API) + trial.repeated:
        return f"{seen['delivered', None]} counted as delivered, {answers.count(API)} were"
    # the tracepoint sees what IPVS translates, both ways; where it chooses, also what is never answered
    least = max(elsewhere, sent)
    if ATTACH is Attach.TRACEPOINT:
        unseen = trial.case.name in OVER_LOOPBACK
        least = elsewhere - sum(
            who == WEB_POD for (start, _), who in trial.answers.items() if unseen and start == "host"
        )
    if not least <= diverted <= elsewhere + answers.count(TIMEOUT) + trial.repeated:
        return f"{diverted} counted as diverted; {elsewhere} were answered elsewhere, {sent} were sent there"
    return ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_who_answers(case: Case, host: Lab, watch: ProbeWatch) -> None:
    host.reset()
    host.host.shell(
        "ipvsadm -C; sysctl -qw net.ipv4.vs.conntrack=0; ip link del kube-ipvs0 2>/dev/null || true"
    )
    before = counts(watch)
    trial = attempt(host, case)
    seen = counts(watch) - before
    lines = list(judge(trial))
    wrong = wrongly_counted(trial, seen)
    if wrong or any(line.wrong or line.misnamed for line in lines):
        pytest.fail(
            f"{case.path}\n{case.script}\n\n{table(lines)}\n{wrong}: {dict(seen)} {trial.answers}",
            pytrace=False,
        )
