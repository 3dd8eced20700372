"""Attribution beside the loop: looks again until it is sure, tells it once, forgets, never holds up an alarm."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.build import TableRuleset

from k3swatch.clock import SystemClock
from k3swatch.daemon import attribution as module
from k3swatch.daemon.attribution import Attribution, Learned, attributed
from k3swatch.daemon.commits import Commits
from k3swatch.daemon.proxied import proxied
from k3swatch.demo import node as names
from k3swatch.demo.kubernetes import CNI_DN, CONTAINER
from k3swatch.demo.node import Node
from k3swatch.errors import DecodeError
from k3swatch.incident.who import subject
from k3swatch.model.finding import Finding, Observation, PathStep, PortVerdict
from k3swatch.model.port import Allow, ProtectedPort
from k3swatch.model.process import Executed, Process
from k3swatch.model.ruleset import ChainRef, Element, Rule, SetInfo
from k3swatch.model.words import Family, Mechanism, State, Vantage

ENTRY = PathStep("ip", "nat", "CNI-HOSTPORT-DNAT", 6, "x", f'dnat name: "cbr0" id: "{CONTAINER}"')
FINDING = Finding(
    State.DIVERTED,
    Mechanism.DNAT,
    Vantage.LOCAL,
    Family.IP,
    ("127.0.0.1",),
    "10.42.0.244:6443",
    path=(ENTRY, PathStep("ip", "nat", CNI_DN, 7, "tcp dport 6443 dnat to 10.42.0.244:6443")),
)
POD = f"kube-system/{names.POD_NAME}"


class Rules(TableRuleset):
    """A ruleset that has KUBE-SERVICES in `ip nat` only, with these destinations, or the map of the nftables mode.

    `services` None: a map with more elements than are asked for; empty: no such map.
    """

    def __init__(self, destinations: Sequence[bytes] = (), services: Sequence[bytes] | None = ()) -> None:
        super().__init__()
        self.destinations, self.services = destinations, services

    def set_info(self, family: str, table: str, name: str) -> SetInfo:
        if (family, table, name) != ("ip", "kube-proxy", "service-ips") or self.services == ():
            raise DecodeError("no such set")
        return SetInfo(family, table, name, 0, 12)

    def elements(self, info: SetInfo, limit: int) -> Sequence[Element] | None:
        return None if self.services is None else [Element(each, each) for each in self.services]

    def rules(self, ref: ChainRef) -> Sequence[Rule]:
        if ref != ChainRef("ip", "nat", "KUBE-SERVICES"):
            raise DecodeError("no such chain")
        return [Rule(ref, 1, b"", daddr=each) for each in self.destinations]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "node")


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def attribution(node: Node, woken: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attribution]:
    monkeypatch.setattr(module, "LOOKS", (0.0, 0.02, 0.05, 0.1, 0.2, 0.4))
    made = Attribution(str(node.directory), SystemClock(), woken.set)
    yield made
    made.close()


def wait(attribution: Attribution, woken: threading.Event, rules: Rules | None = None) -> list[Learned]:
    assert woken.wait(20)
    woken.clear()
    return attribution.learned(rules)


def test_files_that_come_after_the_rule(node: Node, attribution: Attribution, woken: threading.Event) -> None:
    node.leased()
    attribution.watch([FINDING])
    time.sleep(0.03)
    assert attribution.learned(None) == []
    node.cached()
    ((key, culprit),) = wait(attribution, woken)
    assert (key, culprit.pod, culprit.confidence) == (subject(FINDING), POD, "high")
    attribution.watch([FINDING, replace(FINDING, vantage=Vantage.EXTERNAL)])
    assert not woken.wait(0.5)  # the same: told once


def test_the_best_there_is_when_nothing_is_sure(
    node: Node, attribution: Attribution, woken: threading.Event
) -> None:
    begin = time.monotonic()
    attribution.watch([FINDING])
    ((_, culprit),) = wait(attribution, woken)
    assert time.monotonic() - begin > 0.35
    assert (culprit.pod, culprit.container, culprit.confidence) == (None, CONTAINER, "medium")


def test_a_later_look_finds_the_service_gone(
    node: Node, attribution: Attribution, woken: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kine and kube-proxy must agree, and for a while: a Service that is being deleted makes no orphan."""
    monkeypatch.setattr(module, "AGAIN", 0.05)
    monkeypatch.setattr(module, "CERTAIN", 0.3)
    node.service_created()
    node.leased()
    node.cached()
    node.started()
    attribution.watch([FINDING])
    ((_, culprit),) = wait(attribution, woken)
    assert (culprit.service, culprit.left_behind) == ("default/kubeapi-loadbalancer", False)
    node.service_deleted()
    without, there = Rules([b"\x0a\x2b\x00\x01"]), Rules([b"\x0a\x2b\x31\xc8"])
    ((_, culprit),) = wait(attribution, woken, without)
    assert culprit.notes
    assert not culprit.left_behind
    begin = time.monotonic()
    while not wait(attribution, woken, without)[0][1].left_behind:
        pass
    assert time.monotonic() - begin > 0.2
    ((_, culprit),) = wait(attribution, woken, there)
    assert not culprit.left_behind


def test_what_is_over_is_forgotten(node: Node, attribution: Attribution, woken: threading.Event) -> None:
    attribution.watch([FINDING])
    attribution.watch([])
    assert not woken.wait(0.6)


def test_an_alert_waits_only_where_a_pods_name_may_silence_it(
    node: Node, attribution: Attribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verdict(*allow: Allow) -> Observation:
        return Observation((PortVerdict(ProtectedPort("p", 6443, allow=allow), (FINDING,)),), 1)

    monkeypatch.setattr(module, "PATIENCE", 10.0)
    begin = time.monotonic()
    assert attribution.before_telling(verdict()) == []
    assert attribution.before_telling(verdict(Allow(comment="x"))) == []
    assert time.monotonic() - begin < module.PATIENCE / 2
    node.leased()
    threading.Timer(0.1, node.cached).start()
    ((_, culprit),) = attribution.before_telling(verdict(Allow(pod="x")))
    assert (culprit.pod, culprit.confidence) == (POD, "high")
    assert time.monotonic() - begin < module.PATIENCE / 2  # as soon as it is known
    (node.directory / names.RESULT).unlink()
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    begin = time.monotonic()
    ((_, culprit),) = attribution.before_telling(verdict(Allow(pod="x")))
    assert culprit.pod is None
    assert 0.25 < time.monotonic() - begin < 5.0


def test_one_look_for_a_command(node: Node) -> None:
    node.service_created()
    node.leased()
    node.cached()
    node.started()
    observation = Observation((PortVerdict(ProtectedPort("p", 6443), (FINDING, FINDING)),), 1)

    def culprits(directory: str | None, rules: Rules) -> list[object]:
        seen = attributed(observation, directory, rules)
        return [
            each.culprit and (each.culprit.pod, each.culprit.left_behind)
            for each in seen.verdicts[0].findings
        ]

    assert culprits(str(node.directory), Rules()) == [(POD, False)] * 2
    assert culprits(None, Rules()) == [None, None]  # a snapshot of another host
    node.service_deleted()
    assert culprits(str(node.directory), Rules()) == [(POD, False)] * 2  # kube-proxy's rules cannot be seen
    assert culprits(str(node.directory), Rules([b"\x0a\x2b\x00\x01"])) == [(POD, True)] * 2


def test_what_kube_proxy_has() -> None:
    assert proxied(None, ("10.43.49.200",)) is None
    assert proxied(Rules(), ("10.43.49.200",)) is None
    assert proxied(Rules([b"\x0a\x2b\x31\xc8"]), ("10.43.49.200",)) is True
    assert proxied(Rules([b"\x0a\x2b\x00\x01"]), ("10.43.49.200",)) is False


def test_what_kube_proxy_has_in_nftables_mode() -> None:
    other, ours = (
        bytes(address) + b"\6\0\0\0\x19\x2b\0\0" for address in ((10, 43, 0, 1), (10, 43, 49, 200))
    )
    assert proxied(Rules(services=[other, ours]), ("10.43.49.200",)) is True
    assert proxied(Rules(services=[other]), ("10.43.49.200",)) is False
    assert proxied(Rules(services=None), ("10.43.49.200",)) is None


def test_proc_is_left_alone_when_commits_come_too_fast_and_then_the_records_too(node: Node) -> None:
    (node.directory / "proc/1").mkdir()
    (node.directory / "proc/1/cgroup").write_text("0::/init.scope\n")
    said = [Attribution(str(node.directory), SystemClock(), lambda: None).committer(1, "x")]
    assert said == [Process(1, "x")]
    record = Executed(1, "x", "/x", ("x",), False, 0, 0.0, 0, (), ())
    attribution = Attribution(str(node.directory), SystemClock(), lambda: None, {1: record, 2: record}.get)
    seen = [attribution.committer(pid % 3, "x") for pid in range(module.RECORDS + 50)]
    attribution.close()
    assert sum(one == Process(0, "x") for one in seen) == 7  # /proc says that there is none
    assert sum(one is not None and one.sources == ("exec",) for one in seen) == 2 * module.RECORDS // 3
    assert seen[-50:] == [None] * 50


def test_several_commits_between_two_looks() -> None:
    commits = Commits()
    nft = Process(10, "nft", arguments=("nft", "-f", "-"), sources=("exec",))
    commits.add(5, 1.0, (10, "nft"), nft)
    assert commits.doers(4, 5) == (nft,)
    assert commits.doers(5, 5) == ()
    gone = Process(11, "iptables")
    commits.add(6, 1.0, (11, "iptables"), gone)
    last = Process(12, "iptables", arguments=("iptables", "-A", "X"), sources=("exec",))
    commits.add(7, 1.0, (12, "iptables"), last)
    assert commits.between(5, 7) == (1.0, None)
    assert commits.doers(5, 7) == (replace(gone, commits=2, only=False), replace(last, commits=2, only=False))
    assert commits.doers(5, 6) == (gone,)
    commits.add(8, 1.0, None)
    assert commits.doers(7, 8) == ()
    commits.add(10, 1.0, (12, "iptables"))
    assert commits.doers(8, 10) == ()  # the message about 9 was lost: it may have been anybody
    commits.add(11, 1.0, (20, "a"))
    commits.add(12, 1.0, (21, "b"))
    assert commits.doers(10, 12) == (Process(21, "b", commits=2, only=False),)  # there was no time to look


def test_a_hanging_thread_does_not_hold_up_the_end(
    node: Node, attribution: Attribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hang(*_args: object, **_options: object) -> None:
        release.wait(10)

    monkeypatch.setattr(module, "receiver", hang)
    attribution.watch([FINDING])
    begin = time.monotonic()
    attribution.close()
    assert time.monotonic() - begin < 8
    release.set()
