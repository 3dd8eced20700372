"""From a finding and a node's files to who takes the connections: agreeing, missing, contradicting, stale sources."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k3swatch.attribute.clues import cni_chain
from k3swatch.attribute.receiver import Answer, receiver
from k3swatch.attribute.root import Root
from k3swatch.demo import node as names
from k3swatch.demo.kubernetes import CONTAINER
from k3swatch.demo.node import Node
from k3swatch.model.finding import Finding
from k3swatch.model.words import State

POD = f"kube-system/{names.POD_NAME}"
OTHER = "f" * 64
CGROUP = f"0::/kubepods/besteffort/pod{names.POD_UID}/{names.LB}\n"


def look(node: Node, finding: Finding, **options: Any) -> Answer:
    with Root(str(node.directory)) as root:
        answer = receiver(finding, root, **options)
    assert answer is not None
    return answer


def write(node: Node, path: str, text: str) -> None:
    file = node.directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture(autouse=True)
def init(node: Node) -> None:
    """The host's first process can be seen."""
    write(node, "proc/1/cgroup", "0::/init.scope\n")


def process(node: Node, pid: int, cgroup: str, address: str) -> None:
    write(node, f"proc/{pid}/cgroup", cgroup)
    write(
        node,
        f"proc/{pid}/net/fib_trie",
        f"Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- {address}\n        /32 host LOCAL\n",
    )


def old(node: Node) -> None:
    """The lease and the cache are from an hour ago."""
    for path in (names.RESULT, "var/lib/cni/networks/cbr0/10.42.0.244"):
        file = node.directory / path
        if file.exists():
            os.utime(file, (time.time() - 3600,) * 2)


def test_all_sources_agree(node: Node, portmap: Finding) -> None:
    answer = look(node, portmap)
    who = answer.culprit
    assert (who.pod, who.owner) == (POD, f"DaemonSet/{names.DAEMON_SET}")
    assert (who.service, who.container) == ("default/kubeapi-loadbalancer", CONTAINER)
    assert who.forwards == "10.43.49.200:6443"
    assert who.confidence == "high"
    assert set(who.sources) == {
        "rule-comment", "chain-hash", "lease", "cni-cache", "containerd", "pod-logs", "kine",
    }  # fmt: skip
    assert (who.notes, who.left_behind, answer.settled, answer.orphaned_from) == ((), False, True, ())


def test_only_the_lease_is_there_when_the_rule_is_made(tmp_path: Path, portmap: Finding) -> None:
    node = Node(tmp_path)
    node.leased()
    answer = look(node, portmap)
    assert answer.culprit.pod is None
    assert answer.culprit.container == CONTAINER
    assert not answer.settled
    assert not answer.culprit.left_behind
    node.cached()
    assert look(node, portmap).settled


@pytest.mark.parametrize(
    "gone", ["var/lib/cni/networks", "var/lib/cni/results", names.TASKS, "var/log/pods", "var/lib/rancher"]
)
def test_every_source_is_optional(node: Node, portmap: Finding, gone: str) -> None:
    (node.directory / gone).rename(node.directory / "away")
    who = look(node, portmap).culprit
    assert (who.pod, who.confidence) == (POD, "high")
    assert who.service == ("kubeapi-loadbalancer" if "rancher" in gone else "default/kubeapi-loadbalancer")


def test_without_kine_other_rules_complete_the_service(node: Node, portmap: Finding) -> None:
    (node.directory / names.DATASTORE).unlink()
    assert look(node, portmap).culprit.notes == (
        "the Service is known by the pod's name only, its namespace is not",
    )
    others = ("default/other", "default/kubeapi-loadbalancer")
    who = look(node, portmap, services=others).culprit
    assert (who.service, who.notes) == ("default/kubeapi-loadbalancer", ())


def test_without_any_comment_the_chain_or_the_address_is_enough(
    node: Node, portmap: Finding, make: Callable[..., Finding], rule: Callable[..., object]
) -> None:
    chain_only = replace(portmap, path=portmap.path[1:])
    assert {"chain-hash", "lease"} <= set(look(node, chain_only).culprit.sources)
    by_hand = make(rule("PREROUTING"))
    assert (look(node, by_hand).culprit.pod, look(node, by_hand).culprit.confidence) == (POD, "high")
    (node.directory / "var/lib/cni/networks").rename(
        node.directory / "away"
    )  # not host-local: calico, cilium
    assert look(node, by_hand).culprit.pod == POD


def test_the_netns_of_a_process_when_no_file_is_left(
    node: Node, make: Callable[..., Finding], rule: Callable[..., object]
) -> None:
    for gone in ("var/lib/cni", "run"):
        (node.directory / gone).rename(node.directory / gone.replace("/", "-"))
    process(node, 10, "0::/system.slice/k3s.service\n", "10.42.0.244")
    process(node, 11, "0::/kubepods/pod00000000-0000-0000-0000-000000000000/x\n", "10.42.0.9")
    process(node, 12, CGROUP, "10.42.0.244")
    who = look(node, make(rule("PREROUTING"))).culprit
    assert (who.pod, who.container, who.confidence) == (POD, names.LB, "medium")
    assert {"netns", "pod-logs"} <= set(who.sources)


def test_nothing_is_known_of_a_rule_by_hand_to_elsewhere(
    node: Node, make: Callable[..., Finding], rule: Callable[..., object]
) -> None:
    finding = make(rule("PREROUTING"), to="203.0.113.5:443")
    with Root(str(node.directory)) as root:
        assert receiver(finding, root) is None
        assert receiver(replace(finding, state=State.BLOCKED), root) is None


def test_a_forged_comment_is_a_contradiction(node: Node, portmap: Finding) -> None:
    forged = replace(portmap.path[0], comment=f'dnat name: "cbr0" id: "{OTHER}"')
    answer = look(node, replace(portmap, path=(forged, portmap.path[1])))
    assert answer.culprit.confidence == "low"
    assert "the rule's comment names container ffffffffffff" in answer.culprit.notes[0]
    assert not answer.settled


def test_cache_and_containerd_contradict(node: Node, portmap: Finding) -> None:
    path = node.directory / names.TASKS / CONTAINER / "config.json"
    document = json.loads(path.read_text())
    document["annotations"]["io.kubernetes.cri.sandbox-name"] = "somebody-else"
    path.write_text(json.dumps(document))
    who = look(node, portmap).culprit
    assert (who.pod, who.confidence) == ("kube-system/somebody-else", "low")
    assert f"the CNI cache says {POD}, containerd says kube-system/somebody-else" in who.notes


def test_a_cache_with_other_addresses_contradicts(node: Node, portmap: Finding) -> None:
    text = (node.directory / names.RESULT).read_text().replace("10.42.0.244/24", "10.42.0.245/24")
    write(node, names.RESULT, text)
    who = look(node, portmap).culprit
    assert who.confidence == "low"
    assert f"the CNI cache does not give 10.42.0.244 to container {CONTAINER[:12]}" in who.notes


def test_a_stale_rule_whose_address_another_pod_has(node: Node, portmap: Finding) -> None:
    """plugins#512: the old chain wins, and sends the port to whoever got the address."""
    stale = replace(portmap.path[0], comment=f'dnat name: "cbr0" id: "{OTHER}"')
    finding = replace(portmap, path=(stale, replace(portmap.path[1], chain=cni_chain("cbr0", OTHER))))
    who = look(node, finding).culprit
    assert who.left_behind
    assert (who.pod, who.confidence) == (POD, "high")
    assert who.notes[0].startswith("left behind: the rule was made for container ffffffffffff")
    (node.directory / names.TASKS / OTHER).mkdir()  # but it lives: then nobody knows
    who = look(node, finding).culprit
    assert not who.left_behind
    assert who.confidence == "low"


def test_a_rule_whose_pod_is_gone(node: Node, portmap: Finding) -> None:
    """Two sources: containerd has no such task, and no pod's namespace has the address."""
    process(node, 12, CGROUP.replace(names.POD_UID, "0" * 8 + names.POD_UID[8:]), "10.42.0.9")
    assert not look(node, portmap).culprit.left_behind
    for task in (CONTAINER, names.LB):
        (node.directory / names.TASKS / task / "config.json").unlink()
        (node.directory / names.TASKS / task).rmdir()
    assert not look(node, portmap).culprit.left_behind  # its lease is seconds old: it may be starting
    old(node)
    who = look(node, portmap).culprit
    assert who.left_behind
    assert "no pod has 10.42.0.244" in who.notes[-1]
    process(node, 13, CGROUP, "10.42.0.244")
    assert not look(node, portmap).culprit.left_behind  # one source says it lives


@pytest.mark.parametrize("blind", ["run", "proc", "proc/1", "proc/12"])
def test_one_source_alone_makes_nothing_stale(node: Node, portmap: Finding, blind: str) -> None:
    """Without containerd's directory, the host's /proc or any pod in it, absence proves nothing."""
    process(node, 12, CGROUP.replace(names.POD_UID, "0" * 8 + names.POD_UID[8:]), "10.42.0.9")
    for task in (CONTAINER, names.LB):
        (node.directory / names.TASKS / task / "config.json").unlink()
        (node.directory / names.TASKS / task).rmdir()
    old(node)
    assert look(node, portmap).culprit.left_behind
    (node.directory / blind).rename(node.directory / "away")
    assert not look(node, portmap).culprit.left_behind


def test_the_service_is_gone(node: Node, portmap: Finding) -> None:
    node.service_deleted()
    answer = look(node, portmap)
    assert answer.culprit.notes == ("kine has no Service default/kubeapi-loadbalancer",)
    assert answer.orphaned_from == ("10.43.49.200",)
    assert not answer.culprit.left_behind  # one source: kube-proxy is asked as well, by who has the rules


def test_the_service_was_made_anew(node: Node, portmap: Finding) -> None:
    again = names.stored("v1", "Service", names.SERVICE, "default", "11111111-0000")
    node.store(f"services/specs/default/{names.SERVICE}", again)
    answer = look(node, portmap)
    assert "made anew" in answer.culprit.notes[0]
    assert answer.orphaned_from == ("10.43.49.200",)


def test_a_service_that_kube_proxy_dials_is_confirmed_by_kine(
    node: Node, make: Callable[..., Finding], rule: Callable[..., object]
) -> None:
    entry = rule("KUBE-SERVICES", "default/kubeapi-loadbalancer:https loadbalancer IP")
    finding = make(entry, rule("KUBE-EXT-2OR7KBIDQLCGN5MJ"), to="192.168.1.200:6443")
    answer = look(node, finding)
    assert (answer.culprit.service, answer.culprit.confidence) == ("default/kubeapi-loadbalancer", "high")
    assert (answer.culprit.pod, answer.settled) == (None, True)


def test_docker(node: Node, make: Callable[..., Finding], rule: Callable[..., object]) -> None:
    document = {
        "State": {"Running": True},
        "Name": "/web",
        "Config": {"Image": "nginx:1.27"},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
    }
    path = f"var/lib/docker/containers/{OTHER}/config.v2.json"
    write(node, path, json.dumps(document))
    finding = make(rule("DOCKER"), to="172.17.0.2:6443")
    assert look(node, finding).culprit.container == "docker:web (nginx:1.27)"
    write(node, path, json.dumps(document | {"State": {"Running": False}}))
    with Root(str(node.directory)) as root:
        assert receiver(finding, root) is None
