"""Who committed, when it has ended long before anybody can look: real tools, the real portmap, the confined daemon.

The daemons' `--root` is a directory without /proc, as good as the unit's ProtectProc=invisible: what they know of
processes is the kernel's record of executions alone.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon

from k3swatch.attribute.process import look
from k3swatch.decode.generation import decode_newgen
from k3swatch.demo import kubernetes as k8s
from k3swatch.demo.lab import Lab, lab
from k3swatch.demo.netns import Namespace, namespaces
from k3swatch.live.flows import FlowWatch, open_flow_watch
from k3swatch.model.port import ProtectedPort
from k3swatch.model.process import Did
from k3swatch.sources import procs
from k3swatch.sources.nftables import GenerationEvents

COMMITS = int(os.environ.get("K3SWATCH_COMMITS", "100"))


@pytest.fixture(scope="module")
def space(root: None) -> Iterator[Namespace]:
    with namespaces("doer") as spaces:
        spaces["doer"].ip("link set lo up")
        yield spaces["doer"]


@pytest.fixture(scope="module")
def watch(space: Namespace) -> Iterator[FlowWatch]:
    with space.inside():
        watch = open_flow_watch()
    assert watch.doer.sees == "exec", watch.doer.refused
    yield watch
    assert not any(watch.doer.lost().values())
    watch.close()


@pytest.fixture
def k3s() -> Iterator[Lab]:
    """A lab with kube-proxy's rules."""
    with lab(k8s.CLUSTER_IP) as made:
        k8s.kube_proxy(made.host)
        yield made


@pytest.fixture
def daemon(k3s: Lab, tmp_path: Path) -> Iterator[Daemon]:
    """Confined, without /proc."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    node = tmp_path / "node"
    node.mkdir()
    made = Daemon(k3s.host, tmp_path / "k")
    made.arguments = ["--root", str(node)]
    made.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with manager, made:
        made.until(lambda: made.status()["daemon"]["confined"], "confined")
        yield made


def committed(daemon: Daemon, destination: str) -> dict[str, Any]:
    """Who committed what sends connections to `destination`."""
    daemon.until_said(f"is DIVERTED to {destination}")
    findings = daemon.status()["ports"][0]["findings"]
    found = next(each["culprit"] for each in findings if each["destination"] == destination)
    return dict(found["committed"])


def test_a_hundred_commits_in_a_row_all_named_after_all_of_them_have_ended(
    space: Namespace, watch: FlowWatch
) -> None:
    with space.inside():
        events = GenerationEvents()
    space.shell(f"for i in $(seq {COMMITS}); do iptables -w -t nat -N c$i; done")
    seen = [decode_newgen(message) for message in events.read()]
    events.close()
    assert events.lost == 0
    commits = [look(None, each.pid or 0, each.comm or "", watch.doer.executed) for each in seen][-COMMITS:]
    complete = [who for who in commits if who is not None and who.parents and who.arguments and who.exe]
    assert len(complete) == COMMITS
    for number, who in enumerate(complete, 1):
        assert who.arguments == ("iptables", "-w", "-t", "nat", "-N", f"c{number}")
        assert (who.exe, who.parents[0].comm, who.confidence) == ("/usr/sbin/iptables", "sh", "high")


def test_other_namespaces_do_not_fill_the_record(space: Namespace, watch: FlowWatch) -> None:
    with space.inside():
        ours = subprocess.Popen("true")
    others = subprocess.Popen("true")
    assert (ours.wait(), others.wait()) == (0, 0)
    assert watch.doer.executed(ours.pid) is not None
    assert watch.doer.executed(others.pid) is None


def test_long_odd_and_hostile_arguments(space: Namespace, watch: FlowWatch, tmp_path: Path) -> None:
    program = tmp_path / "a b\x1b[2J\n-long-name-of-a-program"
    shutil.copy("/bin/true", program)
    arguments = ("", "--token", "secret", "\udcff\u202e", "x" * 600)
    with space.inside():
        process = subprocess.Popen([str(program), *arguments])
        process.wait()
        unreadable = subprocess.Popen(["/bin/true"], env={})
        unreadable.wait()
    record = watch.doer.executed(process.pid)
    assert record is not None
    assert record.comm == "a b\x1b[2J\n-long-n"
    assert record.filename == str(program)[:127]
    assert record.arguments[:4] == (str(program), "", "--token", "secret")
    assert record.cut
    who = look(None, process.pid, record.comm, watch.doer.executed)
    assert who is not None
    assert "secret" not in who.words
    assert who.arguments[3] == "***"
    assert watch.doer.executed(unreadable.pid) is not None


def test_a_number_used_again_is_not_the_committer(space: Namespace, watch: FlowWatch) -> None:
    """Who executes something else after its commit is not what it was, and its later program did not commit."""
    with space.inside():
        process = subprocess.Popen(["sh", "-c", "exec sleep 0"])
        process.wait()
    record = watch.doer.executed(process.pid)
    assert record is not None
    assert record.comm == "sleep"
    assert look(None, process.pid, "sh", watch.doer.executed) is None
    assert look(None, process.pid, "sleep", watch.doer.executed, record.at - 0.001) is None
    assert look(None, process.pid, "sleep", watch.doer.executed, record.at) is not None


NAT = "type nat hook prerouting priority -105;"
IPTABLES = "-I PREROUTING -p tcp --dport 6443 -j DNAT --to 10.9.9.9:443"
NFT = f"table ip e {{ chain c {{ {NAT} tcp dport 6443 dnat to 10.9.9.9:443; }}; }}"
TOOLS = {
    "iptables": (("iptables", "-t", "nat", *IPTABLES.split()), ""),
    "nft": (("nft", NFT), ""),
    "nft -f": (("nft", "-f", "-"), NFT),
    "iptables-restore": (("iptables-restore", "--noflush"), f"*nat\n{IPTABLES}\nCOMMIT\n"),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_that_have_ended(daemon: Daemon, k3s: Lab, tool: str) -> None:
    argv, text = TOOLS[tool]
    k3s.host.run(*argv, stdin=text)
    who = committed(daemon, "10.9.9.9:443")
    assert who["arguments"] == list(argv)
    assert who["exe"] == f"/usr/sbin/{argv[0]}"
    assert who["comm"] == argv[0][:15]
    assert who["uid"] == 0
    assert who["parents"][0]["pid"] == os.getpid()
    assert (who["sources"], who["confidence"], who["only"]) == (["exec"], "high", True)


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Path]:
    """A control group like a service's."""
    mount = procs.cgroup_mount()
    assert mount is not None
    slice_ = Path(mount, f"k3w{os.getpid()}.slice")
    group = slice_ / "k3s.service"
    slice_.mkdir()
    group.mkdir()
    yield group
    group.rmdir()
    slice_.rmdir()


def daemon_chains(daemon: Daemon) -> list[str]:
    """The pod's chain."""
    steps = [step for each in daemon.status()["ports"][0]["findings"] for step in each["path"]]
    return [step["chain"] for step in steps if step["chain"].startswith("CNI-DN-")]


def test_portmap_run_by_containerd(daemon: Daemon, k3s: Lab, unit: Path, tmp_path: Path) -> None:
    """A dozen calls of iptables for one pod. Told is the one that made the difference: the jump into the pod's chain;
    or of several between two looks the one with the destination in its command line, which is inferred and said so.
    With it those who ran it, up to the unit."""
    containerd = tmp_path / "containerd"  # a shell under its name
    shutil.copy(shutil.which("dash") or "/bin/sh", containerd)
    config, environment = k8s.portmap_call("ADD", k3s.pod)
    (tmp_path / "config").write_text(config)
    script = f'echo $$ >"{unit}/cgroup.procs"; {k8s.PORTMAP} <"{tmp_path}/config"; exit $?'
    k3s.host.run(str(containerd), "-eu", "-c", script, env=environment)
    who = committed(daemon, "10.42.0.244:6443")
    last = "10.42.0.244:6443" if who["commits"] > 1 else next(name for name in daemon_chains(daemon))
    assert last in who["arguments"]
    assert [parent["comm"] for parent in who["parents"][:2]] == ["portmap", "containerd"]
    assert [parent["exe"] for parent in who["parents"][:2]] == [k8s.PORTMAP, str(containerd)]
    assert who["unit"] == "k3s.service"
    assert who["confidence"] == ("high" if who["commits"] == 1 else "medium")
    said = next(line for line in daemon.said().splitlines() if "is DIVERTED to 10.42.0.244" in line)
    assert f"committed by iptables (pid {who['pid']}: /usr/sbin/iptables -t nat -A " in said
    assert " <- portmap <- containerd" in said
    assert said.endswith("(k3s.service)")


def test_status_says_how_processes_are_seen(daemon: Daemon) -> None:
    assert daemon.status()["doer"]["sees"] == "exec"
    assert "listeners" in daemon.status()["doer"]["wakes"]


def test_listeners_are_told_of(space: Namespace, watch: FlowWatch) -> None:
    """On protected ports of this namespace, with whose they are; and not of the connections that they accept."""
    watch.doer.protect([ProtectedPort("api", 7443)])
    for port in (7444, 7443):
        with space.inside():
            server = socket.create_server(("127.0.0.1", port))
            for _ in range(5):
                socket.create_connection(("127.0.0.1", port)).close()
        inode = os.fstat(server.fileno()).st_ino
        server.close()
    socket.create_server(("127.0.0.1", 7443)).close()
    deeds = watch.doer.read()
    assert deeds[0].inode == inode
    assert [(deed.did, deed.port, deed.pid) for deed in deeds] == [
        (Did.LISTENED, 7443, os.getpid()),
        (Did.CLOSED, 7443, os.getpid()),
    ]
    watch.doer.protect([])
    with space.inside():
        socket.create_server(("127.0.0.1", 7443)).close()
    assert watch.doer.read() == []
