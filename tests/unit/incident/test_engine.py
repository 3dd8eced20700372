"""What the stories do not show: ids, bounds, what is carried along, illegal moves that change nothing."""

from __future__ import annotations

import ipaddress
import random
from dataclasses import replace
from typing import Any

import pytest

from k3swatch.incident.engine import REMEMBERED, Engine
from k3swatch.incident.identity import incident_id, material
from k3swatch.incident.picture import LIMIT
from k3swatch.incident.table import IllegalMove, Signal
from k3swatch.model.finding import Finding, Observation, PathStep, PortVerdict
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.incident import Change
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Evidence, Family, Mechanism, Protocol, State, Vantage

PORT = ProtectedPort("k3s-api", 6443)


def finding(destination: str = "10.42.0.5:6443", chain: str = "CNI-DN-1", handle: int = 15) -> Finding:
    step = PathStep("ip", "nat", chain, handle, f"tcp dport 6443 dnat to {destination}")
    return Finding(
        State.DIVERTED,
        Mechanism.DNAT,
        Vantage.EXTERNAL,
        Family.IP,
        ("192.168.1.233",),
        destination,
        path=(step,),
    )


def drops(engine: Engine) -> tuple[str, ...]:
    (incident,) = engine.incidents
    return incident.drops


def seen(*findings: Finding, generation: int | None = 1, **fields: Any) -> Observation:
    return replace(Observation((PortVerdict(PORT, findings),), generation), **fields)


def flow(at: float = 1.0) -> Flow:
    here, there = ipaddress.ip_address("192.168.1.233"), ipaddress.ip_address("10.42.0.5")
    return Flow(Protocol.TCP, here, 40000, here, 6443, there, 6443, Outcome.DIVERTED, at)


def test_ids_are_derived() -> None:
    (opened,) = Engine().observe(seen(finding()), 7.0)
    assert opened.incident.id == incident_id("k3s-api", finding().cause, 7.0)
    assert len(opened.incident.id) == 12
    assert int(opened.incident.id, 16) >= 0
    assert opened.incident.id != incident_id("other", finding().cause, 7.0)
    assert opened.incident.id != incident_id("k3s-api", finding().cause, 7.5)


def test_who_committed_is_kept_and_who_removed_is_told() -> None:
    engine = Engine()
    (opened,) = engine.observe(seen(finding(), committer=(42, "iptables"), committed_at=6.9), 7.0)
    assert (opened.incident.committer, opened.committed_at) == ((42, "iptables"), 6.9)
    assert engine.observe(seen(finding(handle=16), generation=2, committer=(1, "kube-proxy")), 8.0) == []
    assert engine.incidents[0].committer == (42, "iptables")
    assert engine.incidents[0].generation == 2
    assert engine.incidents[0].findings[0].path[0].handle == 16
    (resolved,) = engine.observe(seen(generation=3, committer=(77, "nft")), 9.0)
    assert resolved.committer == (77, "nft")
    assert resolved.incident.committer == (42, "iptables")
    assert resolved.incident.resolved_at == 9.0


def test_confirmed_findings_show_the_flow_from_then_on() -> None:
    engine = Engine()
    engine.observe(seen(finding()), 1.0)
    (confirmed,) = engine.flow("k3s-api", finding(), flow(), 2.0)
    assert confirmed.change is Change.CONFIRMED
    assert Evidence.FLOW in confirmed.incident.findings[0].evidence
    engine.observe(seen(finding()), 3.0)
    assert engine.observation.verdicts[0].findings[0].evidence == {Evidence.RULE, Evidence.FLOW}


def test_many_causes_are_folded() -> None:
    engine = Engine()
    many = [finding(f"10.42.{n // 200}.{n % 200}:1", f"C{n}") for n in range(1000)]
    told = engine.observe(seen(*many), 1.0)
    assert len(told) == LIMIT + 1
    folded = [each.incident for each in told if each.incident.findings[0].destination is None]
    assert len(folded) == 1
    assert len(folded[0].findings) == 1000 - LIMIT
    assert engine.observe(seen(*many), 2.0) == []


def test_memory_is_bounded_whatever_comes() -> None:
    engine = Engine()
    for n in range(3000):
        engine.observe(seen(finding(f"10.42.{n // 200}.{n % 200}:1", f"C{n}")), 1.0 + n / 100)
    assert len(engine._records) <= REMEMBERED + 1


def test_an_illegal_move_changes_nothing() -> None:
    engine = Engine()
    engine.observe(seen(finding()), 1.0)
    (record,) = engine._records.values()
    before = (record.phase, record.incident, record.since)
    with pytest.raises(IllegalMove):
        engine._signal(record, Signal.SETTLED, 2.0, replace(record.incident, connections=9))
    assert (record.phase, record.incident, record.since) == before


def test_a_handle_or_a_counter_is_not_material_but_a_rule_is() -> None:
    one = finding()
    step = one.path[0]
    assert material([one]) == material([replace(one, path=(replace(step, handle=99, packets=8),))])
    assert material([one]) != material([replace(one, path=(replace(step, rule="dnat to 1.2.3.4"),))])
    counted = [
        replace(one, path=(replace(step, rule=f"counter packets {n} bytes {n} drop"),)) for n in (1, 2)
    ]
    assert material(counted[:1]) == material(counted[1:])


def test_random_walks_keep_the_promises() -> None:
    """Whatever comes in whatever order: no illegal move, opened and resolved alternate, the open set is right."""
    for seed in range(60):
        rng = random.Random(seed)
        engine, now, told_open = Engine(), 1000.0, set[str]()
        causes = [finding(f"10.42.0.{n}:6443", f"C{n}") for n in range(4)]
        for step in range(150):
            now += rng.choice((-3600, 0, 0.5, 5, 5, 70, 400))
            roll = rng.random()
            current = rng.sample(causes, rng.randrange(4))
            if roll < 0.55:
                transitions = engine.observe(seen(*current, generation=step or 1), now)
            elif roll < 0.65:
                transitions = engine.observe(seen(generation=None), now)
                resolved = [each.incident for each in transitions if each.change is Change.RESOLVED]
                assert all(incident.flow_only for incident in resolved)
            elif roll < 0.85:
                one = rng.choice(causes)
                if rng.random() < 0.5:
                    one = replace(one, mechanism=Mechanism.UNEXPLAINED, path=())
                transitions = engine.flow("k3s-api", one, flow(now), now)
            elif roll < 0.95:
                transitions = engine.tick(now)
            else:
                engine, transitions = Engine(engine.incidents), []
            if roll < 0.95 and (engine.deadline() or now + 1) <= now:
                transitions += engine.tick(now)  # what a daemon does
            for each in transitions:
                if each.change is Change.RESOLVED:
                    assert not each.incident.open
                    told_open.remove(each.incident.id)
                else:
                    assert each.incident.open
                    if each.change in (Change.OPENED, Change.FLAPPING):
                        assert each.incident.id not in told_open
                        told_open.add(each.incident.id)
                    assert each.incident.id in told_open
            assert {incident.id for incident in engine.incidents} == told_open
            deadline = engine.deadline()
            assert deadline is None or deadline > now or roll >= 0.95


def test_silence_of_a_blind_probe_proves_nothing() -> None:
    engine = Engine()
    engine.observe(seen(), 0.0)
    engine.flow("k3s-api", replace(finding(), mechanism=Mechanism.UNEXPLAINED, path=()), flow(), 1.0)
    engine.flows_visible(False, 10.0)
    assert engine.tick(5000.0) == []
    assert engine.deadline() is None
    engine.flows_visible(True, 5001.0)
    assert engine.deadline() == 5301.0
    assert [each.change for each in engine.tick(5301.0)] == [Change.RESOLVED]


def test_why_connections_are_dropped_on_the_way_is_told_once_each() -> None:
    """The first with the confirmation, others as a change, four at most; later looks at the rules take none back."""
    engine = Engine()
    engine.observe(seen(finding()), 1.0)
    (confirmed,) = engine.flow("k3s-api", finding(), replace(flow(), drop_reason="NETFILTER_DROP"), 2.0)
    assert (confirmed.change, confirmed.incident.drops) == (Change.CONFIRMED, ("NETFILTER_DROP",))
    assert engine.flow("k3s-api", finding(), replace(flow(), drop_reason="NETFILTER_DROP"), 3.0) == []
    late = replace(flow(), drop_reason="NEIGH_FAILED", count=0)
    (changed,) = engine.flow("k3s-api", finding(), late, 4.0)
    assert (changed.change, changed.incident.drops) == (Change.CHANGED, ("NETFILTER_DROP", "NEIGH_FAILED"))
    assert changed.incident.connections == 2  # the drop is of one that was counted
    assert engine.observe(seen(finding(handle=16)), 5.0) == []
    assert drops(engine) == ("NETFILTER_DROP", "NEIGH_FAILED")
    for number in range(5):
        engine.flow("k3s-api", finding(), replace(late, drop_reason=f"R{number}"), 6.0)
    assert drops(engine) == ("NETFILTER_DROP", "NEIGH_FAILED", "R0", "R1")
    engine.observe(seen(), 7.0)
    assert engine.flow("k3s-api", finding(), replace(late, at=6.5, drop_reason="R9"), 8.0) == []


def test_a_drop_of_what_only_connections_show_is_told_with_it() -> None:
    engine = Engine()
    engine.observe(seen(), 1.0)
    unexplained = replace(finding(), mechanism=Mechanism.UNEXPLAINED, path=())
    told = engine.flow("k3s-api", unexplained, replace(flow(), drop_reason="NEIGH_FAILED"), 2.0)
    assert [(each.change, each.incident.drops) for each in told] == [(Change.OPENED, ("NEIGH_FAILED",))]


def test_what_is_given_up_after_the_rule_is_gone_was_sent_off_before() -> None:
    """A SYN waits three seconds for a neighbour that is not there; by then nothing explains where it went."""
    engine = Engine()
    engine.observe(seen(finding()), 1.0)
    engine.flow("k3s-api", finding(), flow(), 2.0)
    engine.observe(seen(), 10.0)
    unexplained = replace(finding(), mechanism=Mechanism.UNEXPLAINED, path=())
    given_up = replace(flow(), drop_reason="NEIGH_FAILED")
    assert engine.flow("k3s-api", unexplained, replace(given_up, at=12.9), 13.0) == []
    assert engine.incidents == ()
    (opened,) = engine.flow("k3s-api", unexplained, replace(given_up, at=15.1), 15.2)
    assert opened.change is Change.OPENED


def test_a_connection_that_begins_after_the_rule_is_gone_is_news() -> None:
    engine = Engine()
    engine.observe(seen(finding()), 1.0)
    engine.observe(seen(), 10.0)
    unexplained = replace(finding(), mechanism=Mechanism.UNEXPLAINED, path=())
    (opened,) = engine.flow("k3s-api", unexplained, flow(10.5), 11.0)
    assert opened.change is Change.OPENED
