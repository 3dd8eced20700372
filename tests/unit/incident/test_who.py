"""What is learned about who, while incidents come and go: told once, kept, and never taken back by a poorer look."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from k3swatch.incident.engine import Engine
from k3swatch.incident.who import REMEMBERED, Known, fuller, subject
from k3swatch.model.finding import Culprit, Finding, Observation, PathStep, PortVerdict
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.incident import Change
from k3swatch.model.port import Allow, ProtectedPort
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


def seen(*findings: Finding, port: ProtectedPort = PORT, **fields: object) -> Observation:
    return replace(Observation((PortVerdict(port, findings),), 1), **fields)  # type: ignore[arg-type]


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
    words = "iptables -A X, started by portmap"
    (opened,) = engine.observe(seen(FINDING, committer=(7, "iptables"), process=words), 1.0)
    assert opened.incident.findings[0].culprit == Culprit(process=words)
    engine.attributed([(subject(FINDING), POD)], 1.1)
    engine.observe(seen(FINDING, committer=(8, "nft"), process="somebody else"), 2.0)
    (incident,) = engine.incidents
    assert incident.findings[0].culprit == replace(POD, process=words)
    assert engine.observation.verdicts[0].findings[0].culprit == replace(POD, process=words)
    again = Engine([incident])
    assert again.observe(seen(FINDING), 3.0) == []
    assert again.incidents[0].findings[0].culprit == replace(POD, process=words)
    again.observe(seen(), 4.0)
    (back,) = again.observe(seen(FINDING, committer=(9, "nft"), process="nft -f"), 5.0)
    assert back.incident.findings[0].culprit == replace(POD, process="nft -f")


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
