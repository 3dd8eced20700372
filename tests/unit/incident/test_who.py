"""What is learned about who, while incidents come and go: told once, kept, and never taken back by a poorer look."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest

from k3swatch.incident.engine import Engine
from k3swatch.incident.who import REMEMBERED, Known, doer_of, fuller, subject
from k3swatch.model.finding import Culprit, Finding, Observation, PathStep, PortVerdict
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.incident import Change
from k3swatch.model.port import Allow, ProtectedPort
from k3swatch.model.process import Process
from k3swatch.model.words import Family, Mechanism, Protocol, State, Vantage

PORT = ProtectedPort("k3s-api", 6443)
STEP = PathStep("ip", "nat", "CNI-DN-1", 15, "tcp dport 6443 dnat to 10.42.0.5:6443")
FINDING = Finding(
    State.DIVERTED,
    Mechanism.DNAT,
    Vantage.EXTERNAL,
    Family.IP,
    ("192.0.2.1",),
    "10.42.0.5:6443",
    path=(STEP,),
)
UNEXPLAINED = replace(FINDING, mechanism=Mechanism.UNEXPLAINED, path=())
POD = Culprit(pod="kube-system/svclb-x", service="default/x", confidence="high", sources=("lease",))


def seen(*findings: Finding, port: ProtectedPort = PORT, **fields: Any) -> Observation:
    return replace(Observation((PortVerdict(port, findings),), 1), **fields)


def flow() -> Flow:
    here, there = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("10.42.0.5")
    return Flow(Protocol.TCP, here, 40000, here, 6443, there, 6443, Outcome.DIVERTED, 1.0)


def test_it_is_told_once_and_stays() -> None:
    engine = Engine()
    (opened,) = engine.observe(seen(FINDING, committer=(7, "iptables"), committed_at=0.9), 1.0)
    assert opened.incident.findings[0].culprit is None
    (changed,) = engine.attributed([(subject(FINDING), POD)], 1.1)
    assert (changed.change, changed.incident.id) == (Change.CHANGED, opened.incident.id)
    assert changed.incident.findings[0].culprit == POD
    assert (changed.committed_at, changed.committer) == (None, None)  # no commit is behind it
    assert changed.incident.committer == (7, "iptables")
    assert engine.attributed([(subject(FINDING), POD)], 1.2) == []
    assert engine.observe(seen(replace(FINDING, path=(replace(STEP, handle=99),))), 2.0) == []
    assert engine.incidents[0].findings[0].culprit == POD
    assert engine.observation.verdicts[0].findings[0].culprit == POD


def test_surer_or_by_more_sources_is_no_news_but_another_pod_is() -> None:
    engine = Engine()
    engine.observe(seen(FINDING), 1.0)
    engine.attributed([(subject(FINDING), replace(POD, confidence="medium"))], 1.1)
    assert engine.attributed([(subject(FINDING), replace(POD, sources=("lease", "kine")))], 1.2) == []
    assert engine.incidents[0].findings[0].culprit == replace(POD, sources=("lease", "kine"))
    (changed,) = engine.attributed([(subject(FINDING), replace(POD, left_behind=True))], 1.3)
    assert changed.change is Change.CHANGED
    (changed,) = engine.attributed([(subject(FINDING), Culprit(pod="a/b"))], 1.4)
    assert changed.incident.findings[0].culprit == Culprit(pod="a/b")


def test_who_committed_is_kept_with_the_receiver_and_over_a_restart() -> None:
    engine = Engine()
    who = Process(7, "iptables", arguments=("iptables", "-A", "X"))
    words: dict[str, Any] = {"process": who.words, "committed": who}
    (opened,) = engine.observe(seen(FINDING, committer=(7, "iptables"), doers=(who,)), 1.0)
    assert opened.incident.findings[0].culprit == Culprit(process=who.words, committed=who)
    engine.attributed([(subject(FINDING), POD)], 1.1)
    engine.observe(seen(FINDING, committer=(8, "nft"), doers=(Process(8, "nft"),)), 2.0)
    (incident,) = engine.incidents
    assert incident.findings[0].culprit == replace(POD, **words)
    assert engine.observation.verdicts[0].findings[0].culprit == replace(POD, **words)
    again = Engine([incident])
    assert again.observe(seen(FINDING), 3.0) == []
    assert again.incidents[0].findings[0].culprit == replace(POD, **words)
    again.observe(seen(), 4.0)
    (back,) = again.observe(seen(FINDING, committer=(9, "nft"), doers=(Process(9, "nft"),)), 5.0)
    assert back.incident.findings[0].culprit == replace(
        POD, process=Process(9, "nft").words, committed=Process(9, "nft")
    )


def test_what_only_flows_know_is_attributed_too() -> None:
    engine = Engine()
    engine.observe(seen(), 1.0)
    (opened, *_) = engine.flow("k3s-api", UNEXPLAINED, flow(), 2.0)
    assert opened.incident.flow_only
    (changed,) = engine.attributed([(subject(opened.incident.findings[0]), POD)], 2.1)
    assert (changed.change, changed.incident.findings[0].culprit) == (Change.CHANGED, POD)
    assert engine.flow("k3s-api", UNEXPLAINED, flow(), 3.0) == []


def test_a_receiver_that_is_declared_good_ends_the_alarm() -> None:
    port = replace(PORT, allow=(Allow(pod="kube-system/svclb-*"),))
    engine = Engine()
    assert [each.change for each in engine.observe(seen(FINDING, port=port), 1.0)] == [Change.OPENED]
    (resolved,) = engine.attributed([(subject(FINDING), POD)], 1.1)
    assert resolved.change is Change.RESOLVED
    assert engine.observe(seen(FINDING, port=port), 2.0) == []
    early = Engine()
    assert early.attributed([(subject(FINDING), POD)], 0.5) == []
    assert early.observe(seen(FINDING, port=port), 1.0) == []
    by_flow = Engine()
    by_flow.observe(seen(port=port), 1.0)
    (opened, *_) = by_flow.flow("k3s-api", UNEXPLAINED, flow(), 2.0)
    (resolved,) = by_flow.attributed([(subject(opened.incident.findings[0]), POD)], 2.1)
    assert resolved.change is Change.RESOLVED


def test_a_poorer_look_takes_nothing_back() -> None:
    assert fuller(None, POD) == POD
    assert fuller(POD, Culprit()) == POD
    known = fuller(POD, Culprit(pod=POD.pod, service="x", confidence="medium"))
    assert (known.service, known.confidence) == ("default/x", "medium")
    assert fuller(Culprit(container="c"), replace(POD, container="c")).pod == POD.pod
    assert fuller(replace(POD, container="c"), Culprit(container="c")).pod == POD.pod
    assert fuller(POD, Culprit(pod="other/pod")).service is None


def test_memory_is_bounded() -> None:
    known = Known()
    for number in range(3 * REMEMBERED):
        known.learn((str(number),), POD)
    assert len(known._known) == REMEMBERED


ADD = Process(
    11, "iptables", arguments=("iptables", "-A", "CNI-DN-1", "--to", "10.42.0.5:6443"), sources=("exec",)
)
MARK = Process(12, "iptables", arguments=("iptables", "-A", "CNI-DN-1", "-j", "MARK"), sources=("exec",))
JUMP = Process(13, "iptables", arguments=("iptables", "-A", "PREROUTING"), sources=("exec",))


def several(*doers: Process) -> tuple[Process, ...]:
    return tuple(replace(each, commits=len(doers), only=False) for each in doers)


def test_the_command_line_tells_which_of_several_commits_it_was() -> None:
    (opened,) = Engine().observe(seen(FINDING, doers=several(JUMP, MARK, ADD)), 1.0)
    culprit = opened.incident.findings[0].culprit
    assert culprit is not None
    assert culprit.committed == replace(ADD, commits=3)
    assert culprit.process == "iptables (pid 11: iptables -A CNI-DN-1 --to 10.42.0.5:6443)"
    assert culprit.committed.confidence == "medium"  # it is inferred
    assert opened.incident.committer == (11, "iptables")


def test_the_chain_tells_when_the_destination_does_not() -> None:
    assert doer_of((FINDING,), several(JUMP, MARK)) == replace(MARK, commits=2)
    redirect = replace(FINDING, path=(), destination="192.0.2.1:7443")
    assert doer_of((redirect,), several(JUMP, MARK)) == several(JUMP, MARK)[0]


def test_nobody_can_tell_which_of_several_commits_it_was() -> None:
    gone = Process(9, "iptables")
    doers = several(gone, JUMP, ADD, replace(ADD, pid=15))
    (opened,) = Engine().observe(seen(FINDING, doers=doers), 1.0)
    culprit = opened.incident.findings[0].culprit
    assert culprit is not None
    assert culprit.process == "one of 4 commits, among them by iptables (pid 13: iptables -A PREROUTING)"
    assert culprit.committed is not None
    assert culprit.committed.confidence == "low"
    assert opened.incident.committer is None
    assert doer_of((FINDING,), ()) is None
    assert doer_of((FINDING,), (gone,)) == gone


def test_who_committed_stays_when_others_commit_later() -> None:
    engine = Engine()
    engine.observe(seen(FINDING, doers=(ADD,)), 1.0)
    engine.observe(seen(FINDING, doers=(JUMP,)), 2.0)
    culprit = engine.observation.verdicts[0].findings[0].culprit
    assert culprit is not None
    assert culprit.committed == ADD


def test_words_of_an_older_version_are_kept() -> None:
    engine = Engine()
    engine.observe(seen(FINDING), 1.0)
    (incident,) = engine.incidents
    old = replace(incident, findings=(replace(FINDING, culprit=Culprit(process="iptables -A X")),))
    again = Engine([old])
    assert again.observe(seen(FINDING), 3.0) == []
    assert again.incidents[0].findings[0].culprit == Culprit(process="iptables -A X")


LEGACY = replace(FINDING, path=(replace(STEP, family="legacy ip"),))
SOCKET = replace(
    FINDING,
    mechanism=Mechanism.SOCKET,
    destination=None,
    path=(PathStep("socket", "tcp", "0.0.0.0:6443", 77, "of x"),),
)
HAPPENED: dict[str, Any] = {
    "committed_at": 0.5,
    "committer": (11, "iptables"),
    "doers": (ADD,),
    "replaced": ((Family.IP, 0.7, MARK), (Family.IP6, 0.8, JUMP)),
    "listened": ((76, JUMP), (77, replace(JUMP, pid=99))),
}


@pytest.mark.parametrize(
    ("finding", "process", "at"),
    [
        (FINDING, ADD, 0.5),
        (LEGACY, MARK, 0.7),
        (replace(LEGACY, family=Family.IP6), JUMP, 0.8),
        (SOCKET, replace(JUMP, pid=99), None),
        (replace(SOCKET, path=(replace(SOCKET.path[0], handle=78),)), None, None),
        (replace(SOCKET, mechanism=Mechanism.BPF), None, None),
    ],
)
def test_each_finding_is_laid_to_what_can_have_brought_it_about(
    finding: Finding, process: Process | None, at: float | None
) -> None:
    """In one look there were a commit, two legacy tables of other families, and two listeners."""
    (opened,) = Engine().observe(seen(finding, **HAPPENED), 1.0)
    culprit = opened.incident.findings[0].culprit
    assert (culprit and culprit.committed) == process
    assert opened.committed_at == at
    ruled = process is not None and finding.mechanism is Mechanism.DNAT
    assert opened.committer == ((process.pid, process.comm) if process and ruled else None)


def test_a_legacy_table_nobody_told_of_is_not_laid_to_nf_tables_commit() -> None:
    (opened,) = Engine().observe(
        seen(LEGACY, committed_at=0.5, committer=(11, "iptables"), doers=(ADD,)), 1.0
    )
    assert opened.incident.findings[0].culprit is None
    assert (opened.committed_at, opened.committer, opened.incident.committer) == (None, None, None)
