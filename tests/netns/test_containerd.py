"""Who takes the port, with a real containerd: its CRI answers, its files, its cgroups, and the rules of its portmap.

No datastore: what an agent node knows, or a server with etcd. The Service is in the labels of the sandbox alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.containerd import RUN, Containerd
from support.daemon import REPO, Daemon, as_service

from k3swatch.demo.lab import Lab, lab
from k3swatch.demo.netns import Namespace

SET = "svclb-kubeapi-8e92d16f"
UID = "c8a1b7f4-2d0e-4d86-9f5b-6a1e3f0b7c11"
OTHER_UID = "11111111-2d0e-4d86-9f5b-6a1e3f0b7c11"
LABELS = {
    "app": SET,
    "svccontroller.k3s.cattle.io/svcname": "kubeapi",
    "svccontroller.k3s.cattle.io/svcnamespace": "infra",
    "controller-revision-hash": "6c7d8f9b5",
    "pod-template-generation": "1",
}


@pytest.fixture
def k3s() -> Iterator[Lab]:
    with lab() as made:
        yield made


@pytest.fixture
def containerd(k3s: Lab) -> Iterator[Containerd]:
    with Containerd(k3s.host) as made:
        yield made


def culprits(space: Namespace, node: Path) -> list[dict[str, Any]]:
    """The findings of `check` there, with the machine's own /proc below `node`."""
    check = [sys.executable, "-m", "k3swatch.cli", "check", "--root", str(node), "--format", "json"]
    script = f'mount --bind /proc {node}/proc; exec "$@"'
    with space.inside():
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-euc", script, "sh", *check],
            cwd=REPO,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["ports"][0]["findings"]
    return found


def test_alarm_then_the_pod_and_its_service_by_the_labels_of_the_cri(
    k3s: Lab, containerd: Containerd, tmp_path: Path
) -> None:
    daemon = Daemon(k3s.host, tmp_path / "k")
    daemon.arguments = ["--root", str(containerd.node)]
    with daemon:
        containerd.run_pod(f"{SET}-htf6q", UID, LABELS)
        taken = f"taken by pod kube-system/{SET}-htf6q (DaemonSet {SET}, Service infra/kubeapi) [high: "
        daemon.until_said(taken)
        lines = [line for line in daemon.said().splitlines() if "DIVERTED" in line and "the API" not in line]
        assert "is DIVERTED to 10.42.0.20:6443" in lines[0]
        assert "infra/kubeapi" not in lines[0]  # the alarm did not wait for it
        sources = lines[1].partition("[high: ")[2].partition("]")[0].split(", ")
        assert {"rule-comment", "chain-hash", "lease", "cni-cache", "cri"} <= set(sources)
        who = daemon.status()["incidents"][0]["findings"][0]["culprit"]
        assert (who["contradictions"], who["orphan"]) == ([], None)
        time.sleep(2.5)
        assert daemon.process is not None
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        assert int(status.partition("VmRSS:")[2].split()[0]) < 40 * 1024


@pytest.mark.parametrize("group", [None, 0])
def test_the_service_asks_the_runtime_only_as_a_member_of_its_group(
    k3s: Lab, containerd: Containerd, group: int | None
) -> None:
    """Who may open that socket is as good as root: the packaged unit may not, a drop-in makes it."""
    containerd.directory.chmod(0o755)
    directory = Path("/tmp", f"k3w-{os.getpid()}-cri")  # every directory above tmp_path is root's alone
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    try:
        daemon = Daemon(k3s.host, directory, prefix=as_service(*[] if group is None else [group]))
        daemon.arguments = ["--root", str(containerd.node)]
        with daemon:
            containerd.run_pod(f"{SET}-htf6q", UID, LABELS)
            service = "infra/kubeapi" if group == 0 else "kubeapi"
            daemon.until_said(
                f"taken by pod kube-system/{SET}-htf6q (DaemonSet {SET}, Service {service}) [high: "
            )
            who = daemon.status()["incidents"][0]["findings"][0]["culprit"]
    finally:
        shutil.rmtree(directory)
    assert ("cri" in who["sources"]) is (group == 0)
    assert not any("sock" in note for note in who["notes"])  # as it is set up: no news


def test_owners_by_the_labels_that_controllers_set(k3s: Lab, containerd: Containerd) -> None:
    labels = {"pod-template-hash": "7d4b9c6f5d", "app": "web"}
    containerd.run_pod("web-7d4b9c6f5d-x2x4z", UID, labels, namespace="default")
    (finding, *_) = culprits(k3s.host, containerd.node)
    assert finding["culprit"]["owner"] == "Deployment/web"
    assert finding["culprit"]["confidence"] == "high"


def test_what_the_cri_contradicts_is_said(k3s: Lab, containerd: Containerd) -> None:
    sandbox = containerd.run_pod(f"{SET}-htf6q", UID, LABELS)
    cached = containerd.node / f"var/lib/cni/results/cbr0-{sandbox}-eth0"
    cached.write_text(cached.read_text().replace(f"{SET}-htf6q", "somebody-else"))
    who = culprits(k3s.host, containerd.node)[0]["culprit"]
    assert (who["pod"], who["confidence"]) == (f"kube-system/{SET}-htf6q", "low")
    assert any("somebody-else" in said for said in who["contradictions"]), who
    assert set(who["contradictions"]) <= set(who["notes"])


def test_a_runtime_that_is_dead_makes_nothing_an_orphan(k3s: Lab, containerd: Containerd) -> None:
    """K3s's KillMode=process: containerd is gone, its shims, pods and rules stay."""
    containerd.run_pod(f"{SET}-htf6q", UID, LABELS)
    containerd.kill()
    who = culprits(k3s.host, containerd.node)[0]["culprit"]
    assert (who["pod"], who["service"], who["left_behind"]) == (f"kube-system/{SET}-htf6q", "kubeapi", False)
    assert "cri" not in who["sources"]
    assert any("containerd.sock" in note for note in who["notes"])


def test_the_namespace_of_a_pod_when_no_file_is_left(k3s: Lab, containerd: Containerd) -> None:
    containerd.run_pod(f"{SET}-htf6q", UID, LABELS)
    containerd.kill()
    for gone in ("var/lib/cni/results", "var/lib/cni/networks", RUN):
        (containerd.node / gone).rename(containerd.directory / gone.replace("/", "-"))
    try:
        who = culprits(k3s.host, containerd.node)[0]["culprit"]
    finally:
        (containerd.directory / RUN.replace("/", "-")).rename(containerd.node / RUN)
    assert who["pod"] == f"kube-system/{SET}-htf6q"
    assert {"netns", "pod-logs"} <= set(who["sources"])


def test_a_stale_chain_ahead_of_a_live_one(k3s: Lab, containerd: Containerd) -> None:
    """plugins#512: DEL was skipped, the chain stays and is first; the new pod with the same host port gets nothing."""
    sandbox = containerd.run_pod(f"{SET}-htf6q", UID, LABELS)
    rules = k3s.host.run("iptables-save", "-t", "nat")
    chain = rules.partition(":CNI-DN-")[2].split()[0]
    stale = [line for line in rules.splitlines() if f"CNI-DN-{chain}" in line and line.startswith("-A")]
    other = containerd.run_pod(f"{SET}-zzzzz", OTHER_UID, LABELS)
    assert not any(each["culprit"]["left_behind"] for each in culprits(k3s.host, containerd.node))
    containerd.remove_pod(sandbox)
    again = "\n".join(stale).replace("-A CNI-HOSTPORT-DNAT ", "-I CNI-HOSTPORT-DNAT 1 ")
    k3s.host.run("iptables-restore", "--noflush", stdin=f"*nat\n:CNI-DN-{chain} - [0:0]\n{again}\nCOMMIT\n")
    for _ in range(5):  # where the runtime is busy for longer than `check` waits, nothing is called an orphan
        found = culprits(k3s.host, containerd.node)
        by_container = {each["culprit"]["container"]: each for each in found}
        gone, live = by_container[sandbox], by_container[other]
        assert (gone["shadowed"], live["shadowed"]) == (False, True)
        if gone["culprit"]["orphan"]:
            break
    assert (gone["culprit"]["orphan"], live["culprit"]["orphan"]) == ("sandbox", None), json.dumps(gone)
    assert gone["culprit"]["notes"][0].startswith("left behind: the runtime has no container")
    assert f"kube-system/{SET}-zzzzz" in gone["culprit"]["notes"][1]
    assert gone["cure"].endswith(f": iptables -t nat -F CNI-DN-{chain}")
    k3s.host.shell(gone["cure"].partition(": ")[2])  # the cure cures
    left = culprits(k3s.host, containerd.node)
    assert {each["culprit"]["container"] for each in left} == {other}
