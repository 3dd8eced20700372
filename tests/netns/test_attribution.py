"""Who takes the port: the real portmap, the real daemon, and a node's files that appear after the rule as on a node."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon, as_service

from k3swatch.demo import kubernetes as k8s
from k3swatch.demo import node as names
from k3swatch.demo.lab import Lab, lab
from k3swatch.demo.node import Node

POD = f"kube-system/{names.POD_NAME}"
TAKEN = f"is still DIVERTED to 10.42.0.244:6443: taken by pod {POD} (DaemonSet {names.DAEMON_SET}, Service default/"
K3swatch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def k3s() -> Iterator[Lab]:
    """A lab with kube-proxy's rules."""
    with lab(k8s.CLUSTER_IP) as made:
        k8s.kube_proxy(made.host)
        yield made


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "node")


@pytest.fixture
def daemon(k3s: Lab, node: Node, tmp_path: Path) -> Iterator[Daemon]:
    """It reads the node's files, and runs."""
    made = Daemon(k3s.host, tmp_path / "k")
    made.arguments = ["--root", str(node.directory)]
    with made:
        yield made


def pod_made(k3s: Lab, node: Node, late: float = 0.05) -> None:
    node.service_created()
    node.leased()
    k8s.portmap_add(k3s.host, k3s.pod)
    time.sleep(late)
    node.cached()
    node.started()


def told(daemon: Daemon) -> list[str]:
    """What was said of diversions, but for the ways that are left to the API."""
    lines = [line for line in daemon.said().splitlines() if "DIVERTED" in line]
    return [line for line in lines if "the API answers at" not in line]


def culprits(document: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    return {each["destination"]: each["culprit"] for each in document["ports"][0]["findings"]}


def test_the_alarm_comes_first_then_the_pod_once(
    daemon: Daemon, k3s: Lab, node: Node, k3swatch: K3swatch
) -> None:
    pod_made(k3s, node, late=0.3)
    daemon.until_said(TAKEN)
    lines = told(daemon)
    assert len(lines) == 2, lines
    assert "is DIVERTED to 10.42.0.244:6443" in lines[0]
    assert POD not in lines[0]
    assert "[high: rule-comment, chain-hash, lease, cni-cache" in lines[1]
    time.sleep(2.5)  # longer than it looks for what is new: the pod's containers start after its sandbox
    status = daemon.status()
    who = culprits(status)["10.42.0.244:6443"]
    assert who is not None
    assert (who["pod"], who["service"], who["confidence"]) == (POD, "default/kubeapi-loadbalancer", "high")
    assert who["forwards"] == f"{k8s.CLUSTER_IP}:6443"
    assert "iptables" in who["process"]  # portmap calls it several times: which call it was is not pretended
    assert status["incidents"][0]["findings"][0]["culprit"]["pod"] == POD
    asked = k3swatch(k3s.host, "status", "--config", str(daemon.config))
    assert f"taken by: pod {POD}" in asked.stdout
    rss = Path(f"/proc/{daemon.process.pid}/status").read_text() if daemon.process else ""
    assert int(rss.partition("VmRSS:")[2].split()[0]) < 40 * 1024
    assert len(told(daemon)) == 2


def test_a_restart_tells_nothing_twice_and_forgets_nothing(daemon: Daemon, k3s: Lab, node: Node) -> None:
    pod_made(k3s, node)
    daemon.until_said(TAKEN)
    daemon.stop()
    before = told(daemon)
    daemon.start()
    time.sleep(0.5)
    assert [line for line in told(daemon)[len(before) :] if "DIVERTED to" in line] == []
    who = daemon.status()["incidents"][0]["findings"][0]["culprit"]
    assert (who["pod"], who["confidence"]) == (POD, "high")
    node.service_deleted()
    k8s.portmap_del(k3s.host, k3s.pod)
    node.ended()
    daemon.until_said("the port is delivered again")


def test_check_and_explain_name_it_too(k3s: Lab, node: Node, k3swatch: K3swatch) -> None:
    pod_made(k3s, node)
    k8s.kube_ext_on(k3s.host)
    checked = k3swatch(k3s.host, "check", "--root", str(node.directory), "--format", "json")
    found = culprits(json.loads(checked.stdout))
    assert {to: who and (who["pod"], who["service"]) for to, who in found.items()} == {
        "10.42.0.244:6443": (POD, "default/kubeapi-loadbalancer"),
        "192.168.1.200:6443": (None, "default/kubeapi-loadbalancer"),
    }
    lines = k3swatch(k3s.host, "explain", "tcp/6443", "--root", str(node.directory)).stdout.splitlines()
    assert f"  taken by: pod {POD}" in lines
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert f"taken by pod {POD}" in k3swatch(k3s.host, "check", "--root", str(node.directory)).stdout


def test_an_orphan_needs_kine_and_kube_proxy(k3s: Lab, node: Node, k3swatch: K3swatch) -> None:
    """The Service is deleted, ServiceLB's controller is cut off and its pod stays: k3s#5823."""

    def left_behind() -> bool:
        done = k3swatch(k3s.host, "check", "--root", str(node.directory), "--format", "json")
        who = culprits(json.loads(done.stdout))["10.42.0.244:6443"]
        assert who is not None
        return bool(who["left_behind"])

    pod_made(k3s, node)
    assert not left_behind()
    node.service_deleted()
    assert not left_behind()  # kube-proxy still serves its ClusterIP
    k3s.host.shell(
        f"iptables -t nat -S KUBE-SERVICES | grep -- '-d {k8s.CLUSTER_IP}/32' | sed 's/^-A/-D/' > /tmp/k3w-$$\n"
        "while read -r line; do eval iptables -t nat $line; done < /tmp/k3w-$$; rm /tmp/k3w-$$"
    )
    assert left_behind()


def test_a_pod_that_is_allowed_raises_no_alarm(k3s: Lab, node: Node, tmp_path: Path) -> None:
    daemon = Daemon(k3s.host, tmp_path / "k")
    daemon.arguments = ["--root", str(node.directory)]
    daemon.configure(
        ports=[{"name": "k3s-api", "port": 6443, "allow": [{"pod": "kube-system/svclb-kubeapi-*"}]}]
    )
    with daemon:
        pod_made(k3s, node, late=0.05)
        generation = k3s.host.run("nft", "list", "ruleset").count("CNI-DN")
        assert generation
        time.sleep(1.5)
        assert "DIVERTED" not in daemon.said()
        assert daemon.state() == "delivered"


def test_who_committed_is_looked_at_while_it_is_there(k3s: Lab, tmp_path: Path) -> None:
    """`nft -i` stays after its commit: its arguments and parents are told."""
    with Daemon(k3s.host, tmp_path / "k") as daemon, k3s.host.inside():
        nft = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        with nft:
            assert nft.stdin is not None
            rule = "tcp dport 6443 dnat to 10.9.9.9:443"
            nft.stdin.write(b"add table ip e; add chain ip e p { type nat hook output priority -101; }\n")
            nft.stdin.write(f"add rule ip e p {rule}\n".encode())
            nft.stdin.flush()
            daemon.until_said("is DIVERTED to 10.9.9.9:443")
            who = daemon.status()["incidents"][0]["findings"][0]["culprit"]
            nft.stdin.close()
    assert f"nft (pid {nft.pid}: /usr/sbin/nft -i) <- py" in who["process"]
    assert who["committed"]["sources"] == ["exec", "proc"]
    assert who["pod"] is None


def test_the_unit_is_granted_enough_to_read_what_is_for_root_only(
    k3s: Lab, node: Node, tmp_path: Path
) -> None:
    """As on a node: 0700 directories, 0600 files, a K3s that has the datastore open, its newest rows in the WAL."""
    directory = Path("/tmp", f"k3w-{os.getpid()}-who")  # every directory above tmp_path is root's alone
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    datastore = node.directory / names.DATASTORE
    node.store("first", b"")
    try:
        with closing(sqlite3.connect(datastore, isolation_level=None)) as k3s_server:
            k3s_server.execute("PRAGMA journal_mode=WAL")
            k3s_server.execute("PRAGMA wal_autocheckpoint=0")
            k3s_server.execute("SELECT count(*) FROM kine").fetchall()
            daemon = Daemon(k3s.host, directory, prefix=as_service())
            daemon.arguments = ["--root", str(node.directory)]
            with daemon:
                pod_made(k3s, node, late=0.0)
                for path in [node.directory, *node.directory.rglob("*")]:
                    path.chmod(0o700 if path.is_dir() else 0o600)
                assert (datastore.parent / "state.db-wal").stat().st_size > 0
                daemon.until_said(TAKEN)
                who = culprits(daemon.status())["10.42.0.244:6443"]
    finally:
        shutil.rmtree(directory)
    assert who is not None
    assert {"lease", "cni-cache", "containerd", "kine"} <= set(who["sources"])
