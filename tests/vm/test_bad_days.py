"""What goes wrong on real machines, while port 6443 is diverted: nobody is told that all is well, or told twice.

During each of these `Witness` reads the metrics three times a second, as a very nervous Prometheus would.
"""

from __future__ import annotations

import json
import time
from datetime import datetime

import pytest
from vm.host import START_SECONDS, K3sHost

from k3swatch.demo.lab import HOST
from k3swatch.view.catalog import Kind

NAMESPACE = "226"  # what systemd cannot do before it executes the program
WATCH = """
while :; do
    curl -s --max-time 5 http://127.0.0.1:10643/metrics | grep '^k3swatch_port_state.* 1.0$' >>/run/states
    sleep 0.3
done
"""


class Hijacked:
    """A host whose port is diverted, which has been told so, and some connections to it counted."""

    def __init__(self, host: K3sHost) -> None:
        self.host = host
        host.lab("portmap", "ADD", "6443")
        self.incident = host.only(Kind.DIVERTED)["K3SWATCH_INCIDENT"]
        self.pid = host.show("MainPID")
        host.guest.run("systemd-run", "--quiet", "--unit=witness", "sh", "-c", WATCH)
        self.dialled = 0
        self.dial(3)
        host.only(Kind.CONFIRMED)
        host.guest.wait("the count is kept", lambda: self.stored() == self.dialled)
        self.seen_again()

    def dial(self, times: int) -> None:
        """Connections that go astray while it runs, and are counted."""
        assert self.host.dial("client", *[HOST] * times) == ["OTHER-CLUSTER"] * times
        self.dialled += times
        self.host.guest.wait("they are counted", lambda: self.counted() == self.dialled)

    def counted(self) -> int:
        """Connections of the incident, as the daemon says."""
        return sum(
            each["connections"] for each in self.host.status()["incidents"] if each["id"] == self.incident
        )

    def stored(self) -> int:
        """The same as it will be known when the daemon is killed now."""
        history = json.loads(self.host.sh("k3swatch history --format json"))
        return sum(each["connections"] for each in history["incidents"] if each["id"] == self.incident)

    def seen_again(self) -> None:
        """Wait until the metrics say diverted once more."""
        before = self.states().count("diverted")
        self.host.guest.wait(
            "metrics say diverted", lambda: self.states().count("diverted") > before, START_SECONDS
        )

    def states(self) -> list[str]:
        """Every state that the metrics had."""
        lines = self.host.sh("cat /run/states 2>/dev/null || true").splitlines()
        return [line.partition('state="')[2].partition('"')[0] for line in lines]

    def never_well(self) -> None:
        """Nobody was told that it is over, and whoever was told was told of one incident."""
        assert set(self.states()) <= {"diverted", "unknown"}
        assert self.host.entries(Kind.RESTORED) == []
        alerts = [(each["at"], alert) for each in self.host.posted() for alert in each["body"]]
        mine = [(at, alert) for at, alert in alerts if alert["annotations"]["incident"] == self.incident]
        assert len({json.dumps(alert["labels"]) for _, alert in mine}) == 1
        assert [
            alert for at, alert in mine if datetime.fromisoformat(alert["endsAt"]).timestamp() <= at
        ] == []

    def back(self) -> None:
        """It runs again, another process, and says the same."""
        host = self.host
        host.guest.wait(
            "another process", lambda: host.show("MainPID") not in (self.pid, "0", ""), START_SECONDS
        )
        host.until_up()
        self.same()

    def same(self) -> None:
        """The same incident, told once, with every connection that was counted; and the next ones are counted, too."""
        status = self.host.status()
        assert status["state"] == "diverted"
        assert [each["id"] for each in status["incidents"]] == [self.incident]
        assert self.counted() == self.dialled
        self.dial(2)
        self.seen_again()
        self.never_well()
        assert len(self.host.entries(Kind.DIVERTED)) == len(self.host.entries(Kind.CONFIRMED)) == 1

    def end(self) -> None:
        """Given back: told once as well."""
        self.host.sh("systemctl stop witness")
        self.host.lab("portmap", "DEL", "6443")
        assert self.host.only(Kind.RESTORED)["K3SWATCH_INCIDENT"] == self.incident
        assert self.host.status()["state"] == "delivered"
        assert self.host.dial("client", HOST) == ["K3S-APISERVER"]


@pytest.fixture
def hijacked(host: K3sHost) -> Hijacked:
    """See Hijacked; `end` ends it."""
    return Hijacked(host)


@pytest.mark.only("trixie")
def test_killed(hijacked: Hijacked) -> None:
    hijacked.host.sh("systemctl kill --signal=KILL k3swatch")
    hijacked.back()
    assert hijacked.host.show("NRestarts") == "1"
    hijacked.end()


@pytest.mark.only("bookworm")
def test_out_of_memory(hijacked: Hijacked) -> None:
    """Its control group has no more: the kernel kills it."""
    hijacked.host.sh("echo 1M >/sys/fs/cgroup/system.slice/k3swatch.service/memory.max")
    hijacked.back()
    assert "Failed with result 'oom-kill'" in hijacked.host.journal()
    hijacked.end()


@pytest.mark.only("trixie")
def test_hung(hijacked: Hijacked) -> None:
    """SIGSTOP stands for any hang: the watchdog ends it after half a minute."""
    hijacked.host.sh("systemctl kill --signal=STOP k3swatch")
    hijacked.back()
    assert "Watchdog timeout" in hijacked.host.journal()
    hijacked.end()


@pytest.mark.only("bookworm")
def test_journald_restarts(hijacked: Hijacked) -> None:
    """What was said before, between and after it is there; the daemon does not even notice."""
    host = hijacked.host
    host.sh("systemctl restart systemd-journald")
    host.sh("systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald")
    hijacked.dial(1)
    host.sh("systemctl start systemd-journald")
    hijacked.same()
    assert host.show("MainPID") == hijacked.pid
    hijacked.end()


@pytest.mark.only("bookworm")
def test_the_disk_is_full(hijacked: Hijacked) -> None:
    """Nothing can be stored, and everything is told; killed on top of it, it knows what had been counted."""
    host = hijacked.host
    host.sh("fallocate -l $(df --output=avail -B1 / | tail -n 1) /full")
    host.sh("dd if=/dev/zero of=/fuller bs=512 2>/dev/null || true")
    assert host.sh("df --output=avail / | tail -n 1").strip() == "0"
    host.sh(
        "nft 'table ip more { chain out { type nat hook output priority -101; tcp dport 6443 redirect to :1; }; }'"
    )
    host.guest.wait("the second cause", lambda: len(host.status()["incidents"]) == 2)
    host.sh("systemctl kill --signal=KILL k3swatch")
    if host.guest.image.suite == "bookworm":
        # its systemd starts no such service without room in /tmp: docs/install.md
        host.guest.wait("it cannot be started", lambda: host.show("ExecMainStatus") == NAMESPACE)
        host.sh("mount -t tmpfs tmpfs /tmp")
    host.guest.wait("another process", lambda: host.show("MainPID") not in (hijacked.pid, "0"), START_SECONDS)
    assert host.until_up()["state"] == "diverted"
    assert hijacked.counted() == hijacked.dialled
    host.sh("rm /full /fuller; nft delete table ip more")
    host.guest.wait("one cause", lambda: len(host.status()["incidents"]) == 1)
    assert host.status()["incidents"][0]["id"] == hijacked.incident
    hijacked.dial(2)
    hijacked.seen_again()
    assert set(hijacked.states()) <= {"diverted", "unknown"}


@pytest.mark.only("trixie")
def test_the_clock_jumps(hijacked: Hijacked) -> None:
    """A day ahead, then two days back."""
    host = hijacked.host
    for jump in ("+1 day", "-2 days", "+1 day"):
        host.sh(f"date --set='{jump}'")
        hijacked.dial(1)
        time.sleep(3)
        hijacked.same()
    assert host.show("MainPID") == hijacked.pid
    assert host.status()["daemon"]["healthy"] is True
    hijacked.end()


def by_conntrack(host: K3sHost, why: str) -> None:
    """It runs on conntrack's events instead of a probe, says why, and tells a hijack and who meets it all the same."""
    status = host.until_up()
    assert status["probe"] == "conntrack"
    assert any(why in line for line in status["refused"]), status["refused"]
    assert status["state"] == "delivered"
    assert why in host.journal()
    host.lab("portmap", "ADD", "6443")
    host.only(Kind.DIVERTED)
    assert host.dial("client", HOST) == ["OTHER-CLUSTER"]
    host.only(Kind.CONFIRMED)
    host.lab("portmap", "DEL", "6443")
    host.only(Kind.RESTORED)


def test_a_kernel_without_btf(host: K3sHost) -> None:
    host.sh("systemctl stop k3swatch; mount -t tmpfs none /sys/kernel/btf")
    host.sh("systemctl start k3swatch", timeout=START_SECONDS)
    by_conntrack(host, "this kernel has no BTF")


def test_a_locked_down_kernel(host: K3sHost) -> None:
    """lockdown=confidentiality lets no BPF program read the kernel's memory, not even root's."""
    host.sh("systemctl stop k3swatch; echo confidentiality >/sys/kernel/security/lockdown")
    assert "[confidentiality]" in host.sh("cat /sys/kernel/security/lockdown")
    host.sh("systemctl start k3swatch", timeout=START_SECONDS)
    by_conntrack(host, "")
