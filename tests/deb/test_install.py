"""The package on a booted Debian: installed, run by its real systemd, upgraded, removed, purged. In this order: each
test goes on where the one before ended. `make install-check` runs this.
"""

from __future__ import annotations

import errno
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deb.machine import Machine, machine
from support import inject

OPENED = "25c58678aae1474eb3e50823e47061e8"  # MESSAGE_ID of "port diverted", k3swatch/view/catalog.py
NFT = "table ip evil { chain out { type nat hook output priority -100; tcp dport 6443 dnat to 10.9.9.9:443; }; }"
DAC_READ_SEARCH, NET_ADMIN, PERFMON, BPF = 1 << 2, 1 << 12, 1 << 38, 1 << 39


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def debian(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Debian 12 and 13, booted."""
    with machine(request.param, tmp_path_factory.mktemp(request.param)) as booted:
        yield booted


def process(debian: Machine) -> dict[str, str]:
    """/proc/PID/status of the daemon."""
    text = debian.run("cat", f"/proc/{debian.show('MainPID')}/status")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def newer(package: Path, directory: Path) -> Path:
    """The same package as the next version."""
    tree = directory / "newer"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("Version: ", "Version: 99."))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, directory / "newer.deb"], check=True)
    return directory / "newer.deb"


def test_installed_it_runs_confined(debian: Machine, package: Path) -> None:
    debian.run("dpkg", "-i", debian.put(package))
    debian.until(lambda: debian.show("ActiveState") == "active", "the service runs", 60)
    debian.until(lambda: debian.status().get("daemon", {}).get("confined"), "it is confined")
    assert debian.status()["daemon"]["healthy"] is True
    assert debian.status()["probe"] != "none", debian.journal()
    daemon = process(debian)
    assert daemon["Uid"].split()[0] != "0"
    assert int(daemon["CapPrm"], 16) == NET_ADMIN | DAC_READ_SEARCH
    assert int(daemon["CapBnd"], 16) == NET_ADMIN | PERFMON | BPF | DAC_READ_SEARCH
    assert (daemon["NoNewPrivs"], daemon["Seccomp"]) == ("1", "2")
    assert int(daemon["VmRSS"].split()[0]) < 40 * 1024
    assert debian.show("StatusText").startswith("tcp/6443 unserved; connections seen by ")
    assert not [entry for entry in debian.entries() if int(entry["PRIORITY"]) <= 4], debian.journal()


def test_it_can_execute_nothing(debian: Machine) -> None:
    """The daemon itself asks, in each of its threads: refused, where EFAULT would mean that only the path is bad."""
    threads = inject.threads(debian.outside(debian.show("MainPID")))
    answers = {inject.call(thread, number) for thread in threads for number in inject.FORBIDDEN}
    assert answers == {-errno.EPERM}
    assert debian.status()["daemon"]["healthy"] is True


def test_its_exposure(debian: Machine) -> None:
    """As printed there, by that release's own list."""
    verdict = debian.run("systemd-analyze", "security", "k3swatch").strip().splitlines()[-1]
    assert float(verdict.split("k3swatch.service: ")[1].split()[0]) <= 2.0, verdict


def test_its_files(debian: Machine) -> None:
    assert debian.run("stat", "-c", "%U:%G %a", "/var/lib/k3swatch").strip() == "k3swatch:k3swatch 750"
    assert (
        debian.run("stat", "-c", "%U:%G %a", "/run/k3swatch/control.sock").strip() == "k3swatch:k3swatch 660"
    )
    assert debian.run("dpkg", "--verify", "k3swatch") == ""
    assert "KUBECONFIG" in debian.run("journalctl", "--dump-catalog", OPENED)
    for page in ("1 k3swatch", "8 k3swatch", "5 k3swatch-config"):
        assert debian.run("man", "-w", *page.split()).startswith("/usr/share/man/")
    debian.run("k3swatch", "config", "check", "/etc/k3swatch/config.yaml")
    assert debian.run("bash", "-c", ". /usr/share/bash-completion/completions/k3swatch; complete -p k3swatch")


def test_a_hijack_is_told(debian: Machine) -> None:
    debian.run("nft", NFT)
    debian.until(lambda: debian.entries(f"MESSAGE_ID={OPENED}"), "the journal says it")
    (entry,) = debian.entries(f"MESSAGE_ID={OPENED}")
    assert entry["K3SWATCH_DESTINATION"] == "10.9.9.9:443"
    assert "kubectl get services" in debian.run("journalctl", "--no-pager", "-x", f"MESSAGE_ID={OPENED}")
    assert 'k3swatch_port_state{port="k3s-api",state="diverted"} 1.0' in debian.run(
        "curl", "-sS", "http://127.0.0.1:10643/metrics"
    )
    assert "10.9.9.9:443" in debian.run("bash", "-c", "k3swatch check; test $? = 1")


def test_reload(debian: Machine) -> None:
    pid = debian.show("MainPID")
    config = debian.root / "etc/k3swatch/config.yaml"
    good = config.read_text()
    config.write_text("ports: [{port: 0}]\n")
    debian.run("systemctl", "reload", "k3swatch")
    debian.until(lambda: "configuration rejected" in debian.journal(), "the bad file is rejected")
    config.write_text(good + "# by the operator\n")
    debian.run("systemctl", "reload", "k3swatch")
    debian.until(lambda: "configuration loaded" in debian.journal(), "the good one is loaded")
    debian.until(lambda: debian.show("ActiveState") == "active", "ready again")
    assert debian.show("MainPID") == pid


def test_reload_waits_where_systemd_can(debian: Machine) -> None:
    """Type=notify-reload came with systemd 253; 252 would complain of it at every start."""
    new = int(debian.run("systemctl", "--version").split()[1]) >= 253
    assert debian.show("Type") == ("notify-reload" if new else "notify")
    assert "Failed to parse" not in debian.run("journalctl", "--no-pager", "-b")
    if new:
        before = debian.journal().count("configuration loaded")
        debian.run("systemctl", "reload", "k3swatch")
        assert debian.journal().count("configuration loaded") == before + 1


def test_an_upgrade_of_systemd_is_noticed(debian: Machine) -> None:
    """From Debian 12 to 13 without a new k3swatch: dpkg's trigger, here pulled by hand."""
    drop_in = debian.root / "usr/lib/systemd/system/k3swatch.service.d/notify-reload.conf"
    there = drop_in.exists()
    drop_in.unlink(missing_ok=True)
    debian.run("systemctl", "daemon-reload")
    assert debian.show("Type") == "notify"
    debian.run("dpkg-trigger", "--by-package=systemd", "--no-await", "/usr/lib/systemd/systemd")
    debian.run("dpkg", "--configure", "--pending")
    assert drop_in.exists() is there
    assert debian.show("Type") == ("notify-reload" if there else "notify")


def by_rule(debian: Machine) -> list[str]:
    """The open incidents that a rule explains."""
    return [each["id"] for each in debian.status()["incidents"] if each["cause"][0] != "unexplained"]


# waits until the daemon is gone; then one hijack comes, takes a connection, and goes; another comes and stays
IN_THE_GAP = r"""
while kill -0 "$1" 2>/dev/null; do :; done
nft 'table ip brief { chain out { type nat hook output priority -102; tcp dport 6443 redirect to :7443; }; }'
(exec 3<>/dev/tcp/127.0.0.1/6443) 2>/dev/null
nft delete table ip brief
nft 'table ip gap { chain out { type nat hook output priority -101; tcp dport 6443 dnat to 10.9.9.8:443; }; }'
cut -d " " -f 1 /proc/uptime
"""


def test_an_upgrade_restarts_it_and_tells_nothing_twice(
    debian: Machine, package: Path, tmp_path: Path
) -> None:
    """One incident is open, another begins while nobody runs, and a third is over again by then."""
    pid, incidents = debian.show("MainPID"), [each["id"] for each in debian.status()["incidents"]]
    assert len(incidents) == 1
    with ThreadPoolExecutor() as pool:
        committed = pool.submit(debian.run, "bash", "-c", IN_THE_GAP, "bash", pid)
        debian.run("dpkg", "-i", debian.put(newer(package, tmp_path)))
        committed_at = float(committed.result(20))
    debian.until(lambda: debian.status().get("daemon", {}).get("confined"), "it runs again")
    assert debian.show("MainPID") != pid
    assert committed_at * 1e6 < int(debian.show("ExecMainStartTimestampMonotonic")) + 200_000, (
        "not in the gap"
    )
    debian.until(lambda: len(debian.entries(f"MESSAGE_ID={OPENED}")) > 2, "all three are told")
    opened = debian.entries(f"MESSAGE_ID={OPENED}")
    assert opened[0]["K3SWATCH_DESTINATION"] == "10.9.9.9:443"
    assert {entry["K3SWATCH_DESTINATION"] for entry in opened[1:]} == {"10.9.9.8:443", "127.0.0.1:7443"}
    (brief,) = [entry for entry in opened if entry["K3SWATCH_DESTINATION"] == "127.0.0.1:7443"]
    assert brief["K3SWATCH_MECHANISM"] == "unexplained"
    assert "seen while no k3swatch ran" in brief["MESSAGE"]
    assert {each["id"] for each in debian.status()["incidents"]} > set(incidents)
    assert [entry["K3SWATCH_INCIDENT"] for entry in opened[:1]] == incidents
    debian.run("nft", "delete", "table", "ip", "gap")
    debian.until(lambda: by_rule(debian) == incidents, "the second one is over")
    time.sleep(1)
    assert len(debian.entries(f"MESSAGE_ID={OPENED}")) == 3
    stored = debian.show("NFileDescriptorStore")
    assert 4 <= int(stored) <= 10, f"{stored} descriptors are kept: those of one probe"
    assert "# by the operator" in (debian.root / "etc/k3swatch/config.yaml").read_text()


def test_it_comes_back_when_killed_or_hung(debian: Machine) -> None:
    """SIGKILL, then SIGSTOP, which stands for any hang: the watchdog ends that after half a minute."""
    for number, patience in (("KILL", 20), ("STOP", 60)):
        pid = debian.show("MainPID")
        debian.run("kill", f"-{number}", pid)

        def back(pid: str = pid) -> object:
            return debian.show("MainPID") not in (pid, "0") and debian.status()

        debian.until(back, f"back after SIG{number}", patience)
    assert len(debian.entries(f"MESSAGE_ID={OPENED}")) == 3
    debian.run("nft", "delete", "table", "ip", "evil")
    debian.until(lambda: by_rule(debian) == [], "the incident is resolved")


def test_removed_its_state_stays_and_purged_it_goes(debian: Machine) -> None:
    debian.run("dpkg", "--remove", "k3swatch")
    assert debian.run("pgrep", "-f", "k3swatch run", check=False) == ""
    assert "incidents.db" in debian.run("ls", "/var/lib/k3swatch")
    assert "config.yaml" in debian.run("ls", "/etc/k3swatch")
    debian.run("dpkg", "--purge", "k3swatch")
    left = debian.run("find", "/etc", "/usr", "/lib/systemd", "/var/lib", "-name", "*k3swatch*").split()
    assert left == []
    assert debian.run("k3swatch", "check", check=False).startswith("env: ")
