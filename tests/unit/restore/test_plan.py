"""The undo plan: for each kind of cause the steps, their order and their commands; what is never in one."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import pytest

from k3swatch.model.finding import Culprit, Finding, Orphan, PathStep, PortVerdict
from k3swatch.model.plan import Answer as Dialled
from k3swatch.model.plan import Done, Kept, Plan, Removal, StepKind
from k3swatch.model.port import ProtectedPort
from k3swatch.model.way import Answer, Way
from k3swatch.model.words import Family, Mechanism, State, Vantage
from k3swatch.restore import plan
from k3swatch.restore.local import Place, Places
from k3swatch.restore.owners import words
from k3swatch.restore.plan import Host
from k3swatch.restore.quote import named, quote
from k3swatch.view import restore as view

PORT = ProtectedPort("k3s-api", 6443)
HOST = Host("/admin.kubeconfig", "k3s kubectl", "k3s crictl", ("192.168.1.233",))
FORBIDDEN = ("iptables-restore", "https-listen-port", "flush ruleset", "killall", "stop k3s", "restart k3s")
SVCLB = Culprit(
    pod="kube-system/svclb-lb-8e92d16f-htf6q",
    owner="DaemonSet/svclb-lb-8e92d16f",
    service="default/lb",
    container="ab" * 32,
    confidence="high",
)


def step(chain: str, handle: int = 5, rule: str = "", table: str = "nat", **more: Any) -> PathStep:
    return replace(PathStep("ip", table, chain, handle, rule or f"jump {chain}"), **more)


def finding(*path: PathStep, who: Culprit | None = None, **more: Any) -> Finding:
    made = Finding(
        State.DIVERTED,
        Mechanism.DNAT,
        Vantage.EXTERNAL,
        Family.IP,
        ("192.168.1.233",),
        "10.42.0.244:6443",
        path=path,
        culprit=who,
    )
    return replace(made, **more)


CNI = (
    step("PREROUTING", 1),
    step("CNI-HOSTPORT-DNAT", 2),
    step("CNI-DN-00ae", 3, "tcp dport 6443 dnat to 10.42.0.244"),
)
KUBE = (step("PREROUTING", 1), step("KUBE-SERVICES", 7), step("KUBE-EXT-X", 8), step("KUBE-SEP-X", 9))
LOADBALANCER = (KUBE[0], replace(KUBE[1], comment="default/lb:https loadbalancer IP"), *KUBE[2:])
EXTERNAL = (KUBE[0], replace(KUBE[1], comment="default/lb:https external IP"), *KUBE[2:])
NODE_PORT = (KUBE[0], step("KUBE-NODEPORTS", 7), *KUBE[2:])
SERVICE = Culprit(service="default/lb")


def planned(*findings: Finding, removals: tuple[Removal, ...] = (), places: Places | None = None) -> Plan:
    verdict = PortVerdict(PORT, findings)
    return plan(verdict, HOST, places or {}, removals)


def commands(made: Plan, kind: StepKind) -> list[str]:
    return [line for each in made.steps if each.kind is kind for line in each.commands]


CAUSES = {
    "svclb": (
        finding(*CNI, who=SVCLB),
        ["k3s kubectl -n default delete service lb"],
        ["talk", "cause", "check", "pod", "rules", "flows", "prove"],
    ),
    "loadbalancer": (
        finding(*LOADBALANCER, who=SERVICE),
        ["k3s kubectl -n default delete service lb"],
        ["talk", "cause", "check", "rules", "flows", "prove"],
    ),
    "external ip": (
        finding(*EXTERNAL, who=SERVICE),
        [
            'k3s kubectl -n default patch service lb --type=json -p \'[{"op":"remove","path":"/spec/externalIPs"}]\''
        ],
        ["talk", "cause", "rules", "flows", "prove"],
    ),
    "node port": (
        finding(*NODE_PORT, who=SERVICE),
        ["k3s kubectl -n default edit service lb"],
        ["talk", "cause", "rules", "flows", "prove"],
    ),
    "host port": (
        finding(*CNI, who=Culprit(pod="web/app-1", owner="Deployment/app", container="cd" * 32)),
        ["k3s kubectl -n web edit deployment app"],
        ["talk", "cause", "pod", "rules", "flows", "prove"],
    ),
    "orphan": (
        finding(*CNI, who=replace(SVCLB, left_behind=True, orphan=Orphan.SERVICE)),
        ["k3s kubectl -n kube-system delete daemonset svclb-lb-8e92d16f"],
        ["talk", "cause", "pod", "rules", "flows", "prove"],
    ),
    "stale chain": (
        finding(*CNI, who=replace(SVCLB, left_behind=True, orphan=Orphan.SANDBOX)),
        [],
        ["rules", "flows", "prove"],
    ),
    "docker": (
        finding(step("PREROUTING", 1), step("DOCKER", 2), who=Culprit(container="docker:web")),
        ["docker ps --filter publish=6443", "docker rm -f web"],
        ["cause", "rules", "flows", "prove"],
    ),
    "by hand": (finding(step("PREROUTING", 4)), [], ["rules", "flows", "prove"]),
    "socket": (
        finding(
            PathStep("socket", "tcp", "0.0.0.0:6443", 77, "/usr/bin/nc (pid 4242) in evil.service"),
            mechanism=Mechanism.SOCKET,
        ),
        ["ss -Hltnp 'sport = :6443'", "systemctl stop evil.service"],
        ["cause", "flows", "prove"],
    ),
    "bpf": (
        finding(PathStep("bpf", "xdp", "eth0", 12, "drop"), mechanism=Mechanism.BPF, state=State.UNKNOWN),
        ["bpftool prog show id 12", "bpftool net show; bpftool cgroup tree"],
        ["cause", "prove"],
    ),
    "ipvs": (
        finding(mechanism=Mechanism.IPVS),
        ["k3s kubectl get services -A -o wide | grep -w 6443"],
        ["talk", "cause", "rules", "prove"],
    ),
    "blocked": (
        finding(
            step("INPUT", 4, table="filter"), state=State.BLOCKED, mechanism=Mechanism.NONE, destination=None
        ),
        [],
        ["rules", "prove"],
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_each_cause_has_its_steps_in_their_order(name: str) -> None:
    one, cause, kinds = CAUSES[name]
    made = planned(one)
    assert commands(made, StepKind.CAUSE) == cause
    assert [each.kind.value for each in made.steps] == kinds
    order = list(StepKind)
    places = [order.index(each.kind) for each in made.steps]
    assert places == sorted(places)


@pytest.mark.parametrize("name", CAUSES)
def test_what_is_known_to_harm_is_in_no_plan(name: str) -> None:
    lines = [line for each in planned(CAUSES[name][0]).steps for line in each.commands]
    assert lines
    assert not [line for line in lines for word in FORBIDDEN if word in line]


def test_an_incident_of_two_causes_is_one_plan() -> None:
    """The pod's hostPort and the Service's address: one Service to delete, once; both chains' rules."""
    waiting = finding(*CNI, who=SVCLB, shadowed=True)
    made = planned(finding(*LOADBALANCER, who=SERVICE), waiting)
    assert commands(made, StepKind.CAUSE) == ["k3s kubectl -n default delete service lb"]
    assert commands(made, StepKind.POD) == [f"k3s crictl stopp {'ab' * 32} && k3s crictl rmp {'ab' * 32}"]
    assert len([each for each in made.steps if each.kind is StepKind.TALK]) == 1
    assert any("CNI-DN-00ae" in line for line in commands(made, StepKind.RULES))


def test_rules_are_conditional_where_somebody_would_put_them_back() -> None:
    (rules,) = (
        each for each in planned(finding(*LOADBALANCER, who=SERVICE)).steps if each.kind is StepKind.RULES
    )
    assert rules.when
    (rules,) = (each for each in planned(finding(step("PREROUTING", 4))).steps if each.kind is StepKind.RULES)
    assert rules.when is None


def test_it_is_the_rule_that_asks_for_the_port_that_goes() -> None:
    """Not the DNAT at the end, which is also that of the ClusterIP."""
    removal = Removal(
        "ip", "nat", "KUBE-SERVICES", 7, "ip daddr 192.168.1.233 tcp dport 6443 jump KUBE-EXT-X"
    )
    places: Places = {
        ("ip", "nat", "KUBE-SERVICES", 7): Place(3, ("-d", "192.168.1.233/32", "-j", "KUBE-EXT-X"))
    }
    made = planned(finding(*LOADBALANCER, who=SERVICE), removals=(removal,), places=places)
    assert commands(made, StepKind.RULES) == [
        "iptables-nft -t nat -D KUBE-SERVICES -d 192.168.1.233/32 -j KUBE-EXT-X"
    ]


def test_what_is_part_of_a_rule_about_more_is_looked_at_not_deleted() -> None:
    one = finding(step("PREROUTING", 4, "dnat to tcp dport map { 6443 : 10.0.0.1, 443 : 10.0.0.2 }"))
    assert one.rule is not None
    kept = (Kept(words(one.rule), "part of a rule about other ports, too"),)
    made = plan(PortVerdict(PORT, (one,)), HOST, {}, (), kept)
    assert commands(made, StepKind.RULES) == ["nft -a list table ip nat"]
    assert made.kept == kept


@pytest.mark.parametrize(
    ("last", "lines"),
    [
        (
            PathStep("route", "main", "192.168.1.233", 0, "blackhole"),
            ["ip -d rule show; ip -6 -d rule show", "ip -d route show table all"],
        ),
        (
            PathStep("route", "rule", "100", 100, "from all lookup 7"),
            ["ip -d rule show; ip -6 -d rule show", "ip -d route show table all"],
        ),
        (
            PathStep("tc", "tc ingress", "eth0; id", 0, "mirred"),
            ["tc filter show dev 'eth0; id' ingress", "tc filter show dev 'eth0; id' egress"],
        ),
    ],
)
def test_what_is_no_rule_is_not_changed_by_netfilters_tools(last: PathStep, lines: list[str]) -> None:
    for state in (State.BLOCKED, State.DIVERTED):
        made = planned(finding(last, state=state, mechanism=Mechanism.ROUTE))
        assert commands(made, StepKind.RULES) == lines
        assert not [
            line for each in made.steps for line in each.commands if line.startswith(("nft", "ip6tables"))
        ]


def test_a_legacy_rule_without_known_words_is_looked_at_first() -> None:
    one = finding(PathStep("legacy ip", "nat", "PREROUTING", 9, "evil\n$(id)"))
    made = planned(one, places={("legacy ip", "nat", "PREROUTING", 9): Place(2)})
    look, delete = commands(made, StepKind.RULES)
    assert look.startswith("iptables-legacy -t nat -S PREROUTING 2   # must show: evil\\n")
    assert delete == "iptables-legacy -t nat -D PREROUTING 2"


@pytest.mark.parametrize(
    "evil",
    [
        "x; reboot",
        "$(reboot)",
        "a'b",
        "--kubeconfig=/evil",
        "x\nreboot",
        "\x1b[2J",
        "\u202e",
        "\udc80",
        "UP",
        "a" * 300,
    ],
)
def test_a_name_that_can_be_no_objects_is_in_no_command(evil: str) -> None:
    for who in (
        replace(SVCLB, service=f"default/{evil}", owner=f"DaemonSet/svclb-{evil}", pod=f"ns/{evil}"),
        replace(SVCLB, service=f"{evil}/lb", pod=f"{evil}/svclb-x"),
        Culprit(pod=f"web/{evil}", owner=f"Deployment/{evil}", container="ab"),
        Culprit(pod="web/app", owner=f"{evil}/app", container="ab"),
    ):
        made = planned(finding(*CNI, who=who))
        lines = commands(made, StepKind.CAUSE) + commands(made, StepKind.CHECK)
        assert lines
        assert not [line for line in lines if evil in line]
        assert view.text(PortVerdict(PORT, ()), made).replace("\n", "").isprintable()
        json.dumps(view.document(PortVerdict(PORT, ()), made, 1))


def test_words_stay_words() -> None:
    for word in ("a b", "$(id)", "`id`", "a'b", '"', "a;b", "-x", "*"):
        assert shlex.split(quote(word)) == [word]
    assert quote("a\x1b'\n") == r"$'a\x1b\x27\x0a'"
    assert quote("\udc80") == r"$'\x80'"
    assert named("default/lb") == ("default", "lb")
    assert named("default") is None
    assert named(None) is None


def test_the_way_to_the_api_is_one_that_answered() -> None:
    ways = (
        Way("https://127.0.0.1:6444", Answer.SILENT, "/admin.kubeconfig", why="refused"),
        Way("https://10.43.0.1:443", Answer.ANSWERS),
        Way("https://[fd00:1::233]:6443", Answer.VERIFIED),
    )
    verdict = PortVerdict(PORT, (finding(*CNI, who=SVCLB),))
    made = plan(verdict, replace(HOST, ways=ways), {})
    assert commands(made, StepKind.TALK) == ["k3s kubectl --server 'https://[fd00:1::233]:6443' get nodes"]
    made = plan(verdict, replace(HOST, ways=(replace(ways[0], answer=Answer.VERIFIED),)), {})
    assert commands(made, StepKind.TALK) == ["export KUBECONFIG=/admin.kubeconfig", "k3s kubectl get nodes"]


def test_nothing_wrong_nothing_to_do() -> None:
    made = planned()
    assert made.steps == ()
    assert "nothing to undo" in view.text(PortVerdict(PORT, ()), made)
    restriction = finding(step("INPUT", 4, table="filter"), state=State.BLOCKED, restriction=True)
    assert planned(restriction).steps == ()


def test_what_is_refused_after_a_diversion_is_undone_as_the_diversion_it_is() -> None:
    """Never by opening the forward chain: then somebody else would answer."""
    refused = finding(
        *CNI, step("FORWARD", 0, "policy drop", table="filter"), state=State.BLOCKED, refusing=1
    )
    said, plain = (plan(PortVerdict(PORT, (each,)), HOST, {}) for each in (refused, finding(*CNI)))
    assert said.steps == plain.steps


@pytest.mark.parametrize(
    ("answer", "address", "good"),
    [
        (Dialled.HERE, "192.168.1.233", True),
        (Dialled.REFUSED, "::1", True),
        (Dialled.REFUSED, "192.168.1.233", False),
        (Dialled.ELSEWHERE, "::1", False),
    ],
)
def test_where_nobody_listens_a_connection_may_be_refused(answer: Dialled, address: str, good: bool) -> None:
    """A server that has IPv4 alone: its port was given back all the same."""
    unserved = finding(state=State.UNSERVED, vantage=Vantage.LOCAL, addresses=("::1",))
    verdict = PortVerdict(PORT, (unserved,))
    done = Done(None, (), (), None, verdict, planned(), (("127.0.0.1", Dialled.HERE), (address, answer)))
    assert done.answered is good
