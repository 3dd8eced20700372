"""The real daemon in a namespace of its own: what it sees, what it says, how it starts, reloads and ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import REPO, Daemon, python

from k3swatch import cli
from k3swatch.demo.lab import HOST, OTHER, Lab
from k3swatch.demo.netns import Namespace

NFT = "table ip evil { chain pre { type nat hook prerouting priority -100; tcp dport 6443 dnat to 10.9.9.9:443; }; }"
REDIRECT = "-p tcp --dport 6443 -j REDIRECT --to-ports 7443"


@pytest.fixture
def daemon(space: Namespace, tmp_path: Path) -> Iterator[Daemon]:
    """A running one."""
    with Daemon(space, tmp_path) as running:
        yield running


def test_nft_rule_is_told_when_it_is_committed_and_when_it_goes(daemon: Daemon, space: Namespace) -> None:
    assert daemon.state() == "delivered"
    assert daemon.said().splitlines()[0].endswith("watches: tcp/6443 (k3s-api) is delivered")
    space.run("nft", NFT)
    daemon.until_said("is DIVERTED to 10.9.9.9:443")
    line = next(line for line in daemon.said().splitlines() if "is DIVERTED" in line)
    assert 'rule "tcp dport 6443 dnat to 10.9.9.9:443" in ip evil pre handle 2' in line
    assert "by nft (pid " in line
    assert daemon.state() == "diverted"
    space.run("nft", "delete table ip evil")
    daemon.until_said("the port is delivered again")
    assert daemon.state() == "delivered"
    assert daemon.status()["incidents"] == []


def test_iptables_rule_is_told(daemon: Daemon, space: Namespace) -> None:
    rule = "PREROUTING -p tcp --dport 6443 -m comment --comment why -j DNAT --to-destination 10.9.9.9:443"
    space.run("iptables", "-t", "nat", "-A", *rule.split())
    daemon.until_said("is DIVERTED to 10.9.9.9:443")
    assert "in ip nat PREROUTING handle" in daemon.said()
    step = daemon.status()["incidents"][0]["findings"][0]["path"][-1]
    assert (step["table"], step["chain"], step["comment"]) == ("nat", "PREROUTING", "why")


def test_ip6_and_local_processes(daemon: Daemon, space: Namespace) -> None:
    space.run("ip6tables", "-t", "nat", "-A", "OUTPUT", *REDIRECT.split())
    daemon.until_said("is DIVERTED to [::1]:7443")
    assert "::1" in daemon.said()


def test_a_new_address_is_protected_at_once(daemon: Daemon, space: Namespace) -> None:
    space.run("nft", NFT.replace("tcp dport", "ip daddr 192.0.2.77 tcp dport"))
    time.sleep(0.3)
    assert daemon.state() == "delivered"
    space.ip("addr add 192.0.2.77/24 dev eth0")
    daemon.until_said("is DIVERTED to 10.9.9.9:443")


def test_a_bug_ends_it_and_says_where(space: Namespace, tmp_path: Path) -> None:
    """In its last line, which the journal has, and with the whole traceback on stderr; not with a status of 0."""
    daemon = Daemon(space, tmp_path)
    broken = "from k3swatch.daemon.watch import Watch; Watch.poll = lambda self: {}['x']; "
    main = (
        f"from k3swatch import cli; raise SystemExit(cli.main(['run', '--config', {str(daemon.config)!r}]))"
    )
    with space.inside():
        command = [sys.executable, "-c", broken + main]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == cli.BAD
    stopped = next(line for line in done.stderr.splitlines() if "k3swatch stops" in line)
    assert "k3swatch stops: a bug, KeyError: 'x' (<string>:1); nobody watches the ports now" in stopped
    assert "Traceback" in done.stderr
    assert "in _poll" in done.stderr
    assert done.stderr.rstrip().endswith("with `k3swatch snapshot -o FILE`")


def test_listener_gone_is_a_notice_not_an_alarm(space: Namespace, tmp_path: Path) -> None:
    daemon = Daemon(space, tmp_path)
    daemon.configure(ports=[{"port": 6444}])
    with daemon:
        daemon.until_said("tcp/6444 (tcp-6444): nobody listens")
        assert daemon.state() == "unserved"
        assert daemon.status()["incidents"] == []
        with space.inside():
            listener = socket.create_server(("0.0.0.0", 6444))
        space.run("nft", "add table ip any")  # sockets are read with the rules; without a commit every 30 s
        daemon.until_said("somebody listens again")
        assert daemon.state() == "delivered"
        listener.close()  # which it notices at once


def test_a_real_connection_confirms(module_lab: Lab, tmp_path: Path) -> None:
    """The client dials the host; the rule sends it to the other cluster; the probe saw it go."""
    module_lab.reset()
    with Daemon(module_lab.host, tmp_path) as daemon:
        if daemon.status()["probe"] == "none":
            pytest.fail("no way to see connections on this machine:\n" + daemon.said())
        module_lab.host.run(
            "iptables",
            "-t",
            "nat",
            "-A",
            "PREROUTING",
            *f"-d {HOST} -p tcp --dport 6443 -j DNAT".split(),
            "--to-destination",
            f"{OTHER}:6443",
        )
        daemon.until_said(f"is DIVERTED to {OTHER}:6443")
        module_lab.host.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE")
        with module_lab.client.inside():
            socket.create_connection((HOST, 6443), timeout=5).close()
        daemon.until_said("and this is real")
        rows = daemon.status()["connections"]
        assert {(row["outcome"], row["destination"]) for row in rows if row["connections"]} >= {
            ("diverted", f"{OTHER}:6443")
        }
        daemon.until(
            lambda: 'k3swatch_connections_total{outcome="diverted",port="k3s-api"} 1.0' in daemon.scrape(),
            "the metric",
        )


def test_metrics_are_served(daemon: Daemon, space: Namespace) -> None:
    space.run("nft", NFT)
    daemon.until_said("is DIVERTED")
    daemon.until(
        lambda: 'k3swatch_port_state{port="k3s-api",state="diverted"} 1.0' in daemon.scrape(), "the metric"
    )
    assert 'k3swatch_incidents_total{mechanism="dnat",port="k3s-api"} 1.0' in daemon.scrape()


def test_metrics_address_taken_is_one_line_and_the_end(space: Namespace, tmp_path: Path) -> None:
    with space.inside():
        taken = socket.create_server(("127.0.0.1", 10643))
    with taken, Daemon(space, tmp_path).start(ready=False) as daemon:
        assert daemon.process is not None
        assert daemon.process.wait(10) == 1
    first, second = daemon.said().splitlines()
    assert first == "k3swatch: metrics: cannot listen on 127.0.0.1:10643: taken"
    assert second.startswith("hint: `ss -ltnp sport = :10643`")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly(daemon: Daemon, number: signal.Signals) -> None:
    assert stat.S_IMODE(os.stat(daemon.control).st_mode) == 0o660
    began = time.monotonic()
    assert daemon.stop(number) == 0
    assert time.monotonic() - began < 3
    assert f"k3swatch stops: {number.name}" in daemon.said()
    assert not os.path.exists(daemon.control)
    assert "Traceback" not in daemon.said()


def test_a_second_daemon_leaves_the_socket_of_the_first(daemon: Daemon, space: Namespace) -> None:
    other = Daemon(space, daemon.directory, metrics="")
    other.stderr = daemon.directory / "other"
    with other.start(ready=False):
        other.until_said("control socket")
    assert daemon.status()["daemon"]["pid"] == (daemon.process and daemon.process.pid)


def test_reload_takes_new_ports(daemon: Daemon, space: Namespace) -> None:
    space.run("nft", NFT.replace("6443", "22"))
    daemon.configure(ports=[{"port": 6443}, {"port": 22}])
    daemon.send(signal.SIGHUP)
    daemon.until_said("configuration loaded: watches tcp/6443, tcp/22")
    daemon.until_said("tcp/22 (tcp-22) is DIVERTED")
    daemon.configure(ports=[{"port": 6443}])
    daemon.send(signal.SIGHUP)
    daemon.until_said("the port is not watched any more")


def test_reload_says_what_waits_for_a_restart(daemon: Daemon) -> None:
    daemon.configure(metrics={"listen": []})
    daemon.send(signal.SIGHUP)
    daemon.until_said("changes of metrics wait for a restart")
    assert "k3swatch_port_state" in daemon.scrape()


def test_a_bad_file_keeps_the_old_configuration(daemon: Daemon, space: Namespace) -> None:
    daemon.config.write_text("ports: [{port: 0}]\nnonsense: 1\n")
    daemon.send(signal.SIGHUP)
    daemon.until_said("configuration rejected, the old one stays in force")
    assert "ports[0].port: 0 is not in 1..65535" in daemon.said()
    assert "nonsense: unknown key" in daemon.said()
    assert "k3swatch_config_last_reload_successful 0.0" in daemon.scrape()
    space.run("nft", NFT)
    daemon.until_said("is DIVERTED")
    daemon.configure()
    daemon.send(signal.SIGHUP)
    daemon.until_said("configuration loaded")
    assert "k3swatch_config_last_reload_successful 1.0" in daemon.scrape()


def test_it_tells_the_service_manager(space: Namespace, tmp_path: Path) -> None:
    """READY once it has looked and tried the probe, a STATUS, signs of life, RELOADING, STOPPING."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(15)
    daemon = Daemon(space, tmp_path)
    daemon.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    with manager, daemon.start(ready=False):  # read from the start: a queue holds 10 messages, 3 seconds
        ready = _until(manager, "READY=1", 1)[-1]
        assert "tcp/6443 delivered" in ready
        _until(manager, "WATCHDOG=1", 3)
        daemon.send(signal.SIGHUP)
        assert any(
            message.startswith("RELOADING=1\nMONOTONIC_USEC=") for message in _until(manager, "READY=1", 1)
        )
        daemon.send(signal.SIGTERM)
        _until(manager, "STOPPING=1", 1)


def _until(manager: socket.socket, word: str, times: int) -> list[str]:
    seen: list[str] = []
    while sum(word in message for message in seen) < times:
        seen.append(manager.recv(4096).decode())
    return seen


def test_a_daemon_that_hangs_gives_no_sign_of_life(space: Namespace, tmp_path: Path) -> None:
    """SIGSTOP stands for any hang."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(2)
    daemon = Daemon(space, tmp_path)
    daemon.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    with manager, daemon:
        _until(manager, "WATCHDOG=1", 2)
        daemon.send(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            _until(manager, "never", 1)
        daemon.send(signal.SIGCONT)
        _until(manager, "WATCHDOG=1", 1)


def test_commits_faster_than_it_can_look_are_no_loss(daemon: Daemon, space: Namespace) -> None:
    script = "\n".join(f"add table ip t{number}\ndelete table ip t{number}" for number in range(5))
    for _ in range(40):
        space.run("nft", "-f", "-", stdin=script)
    space.run("nft", NFT)
    daemon.until_said("is DIVERTED to 10.9.9.9:443")
    space.run("nft", "flush ruleset")
    daemon.until_said("the port is delivered again")
    assert daemon.status()["generation"] is not None


def test_it_stays_small(daemon: Daemon, space: Namespace) -> None:
    """40 MB with the probe attached, after some work: the goal of the design."""
    for number in range(20):
        space.run("nft", NFT.replace("9.9:", f"9.{number}:"))
        space.run("nft", "delete table ip evil")
    daemon.scrape()
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    kilobytes = int(status.split("VmRSS:")[1].split()[0])
    assert kilobytes < 40 * 1024, status


def test_it_runs_no_other_program(daemon: Daemon, space: Namespace) -> None:
    """After the loader has gone there is no child, and none comes."""
    space.run("nft", NFT)
    daemon.until_said("is DIVERTED")
    assert daemon.process is not None
    pid = daemon.process.pid
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_open_incident_survives_a_restart(
    space: Namespace, tmp_path: Path, number: signal.Signals
) -> None:
    """It is the same incident, and not told a second time; what went while nobody looked is told."""
    with Daemon(space, tmp_path) as first:
        space.run("nft", NFT)
        first.until_said("is DIVERTED")
        (incident,) = first.status()["incidents"]
        first.until(lambda: (tmp_path / "state" / "incidents.db").exists(), "the store")
        time.sleep(0.5)
        first.stop(number)
    with Daemon(space, tmp_path) as second:
        assert [one["id"] for one in second.status()["incidents"]] == [incident["id"]]
        assert second.status()["incidents"][0]["opened_at"] == incident["opened_at"]
        assert second.said().count("is DIVERTED to") == 1
        known = f"watches: tcp/6443 (k3s-api) is DIVERTED; known from before: incident {incident['id']}\n"
        assert known in second.said()  # silence would look like good news
        second.stop(number)
    space.run("nft", "delete table ip evil")
    with Daemon(space, tmp_path) as third:
        third.until_said("is no longer DIVERTED")
        assert third.status()["incidents"] == []


def test_a_missing_state_directory_or_control_socket_does_not_stop_it(
    space: Namespace, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    daemon = Daemon(space, tmp_path)
    daemon.configure(state={"path": str(blocked / "state")}, control={"socket": str(blocked / "sock")})
    with daemon.start(ready=False):
        daemon.until_said("control socket")
        space.run("nft", NFT)
        daemon.until_said("is DIVERTED")
        assert daemon.stop() == 0


def test_the_capabilities_of_the_unit_are_enough(space: Namespace, code: Path) -> None:
    """An ordinary user with what systemd/k3swatch.service grants sees all that root sees, without W+X memory."""
    unit = (REPO / "systemd" / "k3swatch.service").read_text().splitlines()
    granted = next(line for line in unit if line.startswith("AmbientCapabilities=")).partition("=")[2].split()
    caps = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in granted)
    user = ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    sets = [f"--{kind}=-all,{caps}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    refuse_exec_gain = "import ctypes, os, sys; assert not ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); "
    mdwe = [sys.executable, "-c", refuse_exec_gain + "os.execvp(sys.argv[1], sys.argv[1:])"]
    space.run("iptables-legacy", "-t", "nat", "-N", "SOME")
    directory = Path("/tmp", f"k3w-{os.getpid()}-caps")  # every directory above tmp_path is root's alone
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    try:
        with Daemon(space, directory, prefix=[*mdwe, "setpriv", *user, *sets], code=code) as daemon:
            status = daemon.status()
            assert status["state"] == "delivered", status
            assert not [source for source in status["sources"] if source["blind"]]
            assert os.stat(daemon.control).st_uid == 65534
            space.run("nft", NFT)
            daemon.until_said("is DIVERTED")
    finally:
        shutil.rmtree(directory)


def nobody(code: Path, *arguments: str) -> list[str]:
    """The command line without any privilege."""
    drop = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]
    return [*drop, python(code), "-m", "k3swatch.cli", *arguments]


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("check",), ("explain", "tcp/6443"), ("snapshot",)],
    ids=lambda arguments: arguments[0],
)
def test_without_privilege_it_says_so(space: Namespace, code: Path, arguments: tuple[str, ...]) -> None:
    with space.inside():
        done = subprocess.run(
            nobody(code, *arguments), cwd=code, capture_output=True, text=True, timeout=30, check=False
        )
    assert done.returncode == 77, done.stderr
    assert done.stdout == ""
    first, hint = done.stderr.splitlines()
    assert first.startswith("k3swatch: ")
    assert "not permitted" in first
    assert hint.startswith("hint: ")
    assert "CAP_NET_ADMIN" in hint


def test_status_asks_the_daemon(
    daemon: Daemon, space: Namespace, k3swatch: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    asked = k3swatch(space, "status", "--config", str(daemon.config))
    assert asked.returncode == 0, asked.stderr
    assert "tcp/6443 (k3s-api): delivered" in asked.stdout
    space.run("nft", NFT)
    daemon.until_said("is DIVERTED")
    asked = k3swatch(space, "status", "--config", str(daemon.config))
    assert asked.returncode == 1
    assert "by ip evil pre #2: tcp dport 6443 dnat to 10.9.9.9:443" in asked.stdout


def test_status_without_a_daemon(
    space: Namespace, tmp_path: Path, k3swatch: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    asked = k3swatch(space, "status", "--config", str(Daemon(space, tmp_path).config))
    assert asked.returncode == 2
    assert asked.stderr.splitlines()[1] == "hint: is the daemon running? `systemctl status k3swatch`"
