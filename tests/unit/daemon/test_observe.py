"""Observations of rulesets that move, fail or cannot be read: always an answer, never a wrong `delivered`."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from support.build import TableRuleset, dnat, dport, node

from k3swatch.daemon.observe import TRIES, explain, observe, seen_from, unknown
from k3swatch.errors import DecodeError, Interrupted, NotPermitted, SourceError
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.port import Host, ProtectedPort
from k3swatch.model.ruleset import OUTPUT, PREROUTING
from k3swatch.model.words import Evidence, Mechanism, Protocol, State, Vantage

PORT = ProtectedPort("k3s-api", 6443)
CLIENT, NODE, POD = ip_address("192.0.2.50"), ip_address("192.168.1.233"), ip_address("10.42.0.244")
FLOW = Flow(Protocol.TCP, CLIENT, 50000, NODE, 6443, POD, 6443, Outcome.DIVERTED, 1.0)


class Stepping:
    """A clock that moves on by one second whenever it is read."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.monotonic()

    def monotonic(self) -> float:
        self.time += 1.0
        return self.time


class Scripted(TableRuleset):
    """A ruleset that fails as `script` says, once for each entry, when asked `where`; then it holds still."""

    def __init__(self, *script: Exception, where: str = "check", legacy: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.script, self.where, self.legacy, self.refreshed = list(script), where, legacy, 0

    def step(self, where: str) -> None:
        if where == self.where and self.script:
            raise self.script.pop(0)

    def refresh(self) -> None:
        self.refreshed += 1
        self.step("refresh")

    def check(self) -> None:
        self.step("check")

    def forget(self) -> None:
        self.step("forget")

    def legacy_tables(self) -> tuple[str, ...]:
        self.step("legacy")
        return self.legacy


def diverting(*script: Exception, where: str = "check") -> Scripted:
    ruleset = Scripted(*script, where=where)
    ruleset.base("nat", "PREROUTING", PREROUTING, [*dport(6443), *dnat("10.42.0.244", 6443)])
    return ruleset


def test_a_ruleset_that_holds_still_is_read_once() -> None:
    ruleset = diverting()
    got = observe(ruleset, node, [PORT], Stepping())
    assert (got.state, got.generation, got.host) == (State.DIVERTED, 7, "node1")
    assert ruleset.refreshed == 1


@pytest.mark.parametrize("where", ["refresh", "check", "legacy"])
def test_one_that_moved_meanwhile_is_read_again(where: str) -> None:
    ruleset = diverting(Interrupted("moved"), Interrupted("moved"), where=where)
    got = observe(ruleset, node, [PORT], Stepping())
    assert (got.state, got.generation) == (State.DIVERTED, 7)
    assert ruleset.refreshed == 3


def test_one_that_never_holds_still_is_unknown() -> None:
    got = observe(diverting(*[Interrupted("moved")] * 1000), node, [PORT], Stepping())
    assert (got.state, got.generation) == (State.UNKNOWN, None)
    assert all("kept changing" in (finding.why or "") for finding in got.verdicts[0].findings)
    assert "kept changing" in got.warnings[0]


def test_it_is_tried_often_enough_and_not_for_ever() -> None:
    ruleset = diverting(*[Interrupted("moved")] * 1000)
    observe(ruleset, node, [PORT], Stepping())
    assert TRIES <= ruleset.refreshed < 3 * TRIES


@pytest.mark.parametrize("where", ["refresh", "check", "legacy"])
@pytest.mark.parametrize("error", [SourceError("gone"), DecodeError("what is this?")])
def test_one_that_cannot_be_read_is_unknown_and_says_why(where: str, error: Exception) -> None:
    got = observe(diverting(error, where=where), node, [PORT], Stepping())
    assert (got.state, got.generation) == (State.UNKNOWN, None)
    assert {finding.why for finding in got.verdicts[0].findings} == {
        f"the ruleset could not be read: {error}"
    }


@pytest.mark.parametrize("where", ["refresh", "check", "legacy"])
def test_no_permission_is_for_the_caller(where: str) -> None:
    with pytest.raises(NotPermitted):
        observe(diverting(NotPermitted("no"), where=where), node, [PORT], Stepping())


@pytest.mark.parametrize(
    "host", [None, Host(), node()], ids=["no host", "a host without addresses", "a host"]
)
def test_unknown_is_unknown_for_every_port_from_everywhere(host: Host | None) -> None:
    """Above all it must have findings: a verdict without any is `delivered`."""
    got = unknown([PORT, ProtectedPort("ssh", 22)], "because", host)
    for verdict in got.verdicts:
        assert verdict.state is State.UNKNOWN
        assert {finding.vantage for finding in verdict.findings} == set(Vantage)


def test_unreadable_legacy_tables_make_their_family_unknown() -> None:
    ruleset = Scripted(legacy=("ip nat", "ip filter"))
    got = observe(ruleset, node, [PORT], Stepping())
    assert got.state is State.UNKNOWN
    findings = got.verdicts[0].findings
    assert {finding.family for finding in findings} == {"ip"}
    assert {address for finding in findings for address in finding.addresses} == {
        "127.0.0.1",
        "192.168.1.233",
        "10.42.0.1",
    }
    assert all("ip nat, ip filter" in (finding.why or "") for finding in findings)


def test_what_was_found_stays_beside_unreadable_legacy_tables() -> None:
    ruleset = diverting()
    ruleset.legacy = ("ip6 nat",)
    got = observe(ruleset, node, [PORT], Stepping())
    assert got.state is State.DIVERTED
    assert {finding.state for finding in got.verdicts[0].findings} == {State.DIVERTED, State.UNKNOWN}


def test_a_host_that_is_not_read_whole_warns() -> None:
    host = Host(node().addresses, node().interfaces, None, unreadable=("TCP listeners: no",))
    got = observe(Scripted(), lambda: host, [PORT], Stepping())
    assert got.warnings == ("TCP listeners: no",)
    assert got.state is State.UNKNOWN


def test_one_source_address() -> None:
    got = observe(diverting(), node, [PORT], Stepping(), CLIENT)
    assert {vantage for vantage, _ in got.verdicts[0].judged} == {Vantage.EXTERNAL}
    assert got.state is State.DIVERTED
    assert observe(diverting(), node, [PORT], Stepping(), POD).verdicts[0].findings
    assert not observe(diverting(), node, [PORT], Stepping(), NODE).verdicts[0].findings


def test_one_vantage() -> None:
    ruleset = diverting()
    ruleset.base("nat", "OUTPUT", OUTPUT, [*dport(6443), *dnat("10.42.0.9", 443)])
    whole = observe(ruleset, node, [PORT], Stepping())
    local = seen_from(whole, Vantage.LOCAL)
    assert {finding.destination for finding in local.verdicts[0].findings} == {"10.42.0.9:443"}
    assert {vantage for vantage, _ in local.verdicts[0].judged} == {Vantage.LOCAL}


def test_a_connection_is_explained_by_its_rule() -> None:
    finding = explain(diverting(), node(), PORT, FLOW)
    assert (finding.mechanism, finding.destination) == (Mechanism.DNAT, "10.42.0.244:6443")
    assert finding.evidence == {Evidence.RULE, Evidence.FLOW}


def test_the_ruleset_is_not_read_again_for_a_connection_unless_it_moved() -> None:
    ruleset = diverting()
    explain(ruleset, node(), PORT, FLOW)
    assert ruleset.refreshed == 0
    moved = diverting(Interrupted("moved"))
    assert explain(moved, node(), PORT, FLOW).mechanism is Mechanism.DNAT
    assert moved.refreshed == 1


@pytest.mark.parametrize(
    ("ruleset", "why"),
    [
        (None, "cannot be read now"),
        (diverting(SourceError("gone")), "could not be read: gone"),
        (diverting(*[Interrupted("moved")] * 100), "kept changing"),
        (Scripted(), "no rule"),
    ],
    ids=["none", "fails", "never still", "no such rule"],
)
def test_a_connection_nothing_explains_is_diverted_all_the_same(ruleset: Scripted | None, why: str) -> None:
    finding = explain(ruleset, node(), PORT, FLOW)
    assert (finding.state, finding.mechanism) == (State.DIVERTED, Mechanism.UNEXPLAINED)
    assert finding.destination == "10.42.0.244:6443"
    assert why in (finding.why or "")
