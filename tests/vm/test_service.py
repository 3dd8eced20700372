"""The installed package on a K3s-like host: confined, awake at once, heard by everybody, back after a reboot."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vm.host import START_SECONDS, K3sHost

from k3swatch.demo.lab import HOST, POD
from k3swatch.view.catalog import Kind

DAC_READ_SEARCH, NET_ADMIN, PERFMON, BPF, SYS_ADMIN = 1 << 2, 1 << 12, 1 << 38, 1 << 39, 1 << 21


def process(host: K3sHost) -> dict[str, str]:
    """/proc/PID/status of the daemon."""
    text = host.sh(f"cat /proc/{host.show('MainPID')}/status")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def drop_in(host: K3sHost, *lines: str) -> None:
    """Change the unit as an administrator does, and start it again."""
    text = "\n".join(("[Service]", *lines, ""))
    directory = "/etc/systemd/system/k3swatch.service.d"
    host.sh(f"mkdir -p {directory}; cat >{directory}/test.conf; systemctl daemon-reload", stdin=text.encode())
    host.sh("systemctl restart k3swatch", timeout=START_SECONDS)
    host.until_up()


def test_it_runs_confined(host: K3sHost) -> None:
    """What fentry and kprobe take on a stock Debian, CAP_SYS_ADMIN, is not worth having: the tracepoints see all."""
    status = host.status()
    assert (status["state"], status["probe"], status["daemon"]["healthy"]) == (
        "delivered",
        "tracepoint",
        True,
    )
    assert status["refused"] == [
        "fentry: the BTF of a module is for CAP_SYS_ADMIN only",
        "kprobe: kprobe on nf_nat_setup_info: Permission denied: "
        "it takes perf_event_open, which the unit leaves out, "
        "and while kernel.perf_event_paranoid is above 2 CAP_SYS_ADMIN",
    ]
    daemon = process(host)
    assert daemon["Uid"].split()[0] != "0"
    assert int(daemon["CapPrm"], 16) == NET_ADMIN | DAC_READ_SEARCH
    assert int(daemon["CapBnd"], 16) == NET_ADMIN | PERFMON | BPF | DAC_READ_SEARCH
    assert int(daemon["VmRSS"].split()[0]) < 40_000
    assert host.sh("systemctl --failed --no-legend") == ""
    assert host.check() == 0
    assert json.loads(host.sh("k3swatch status --format json"))["state"] == "delivered"


def test_prometheus_and_alertmanager_of_the_distribution(host: K3sHost) -> None:
    """Their own packages, their own units, the files that ours ships for them. Told by both, notified once."""
    examples, notifications = "/usr/share/k3swatch", "/run/notifications"
    host.sh(
        f"sed -e 's/node1:/k3s-node:/; s/scrape_interval: .*/scrape_interval: 2s/' "
        f"{examples}/prometheus/scrape.example.yaml >/etc/prometheus/prometheus.yml\n"
        "cat >>/etc/prometheus/prometheus.yml\n"
        "promtool check config /etc/prometheus/prometheus.yml\n"
        f"cp {examples}/alertmanager/alertmanager.example.yaml /etc/prometheus/alertmanager.yml\n"
        f"systemd-run --quiet --unit=webhook python3 /opt/webhook.py {notifications}\n"
        "systemctl start prometheus prometheus-alertmanager",
        stdin=b"global: {evaluation_interval: 2s}\n"
        b'alerting: {alertmanagers: [{static_configs: [{targets: ["127.0.0.1:9093"]}]}]}\n',
        timeout=START_SECONDS,
    )
    host.alertmanager("http://127.0.0.1:9093")

    def notified(status: str) -> list[dict[str, Any]]:
        """Every alert of every notification that said so."""
        alerts = [alert for each in host.posted(notifications) for alert in each["body"]["alerts"]]
        return [alert for alert in alerts if alert["status"] == status]

    def asked(query: str) -> str:
        """Prometheus' answer, empty when it has none."""
        url = "http://127.0.0.1:9090/api/v1/query"
        text = host.sh(f"curl -sSG {url} --data-urlencode 'query={query}'", check=False)
        rows = json.loads(text)["data"]["result"] if text.startswith("{") else []
        return str(rows[0]["value"][1]) if rows else ""

    state, alert = 'k3swatch_port_state{state="diverted"}', 'ALERTS{alertname="K3swatchPortDiverted"}'
    host.guest.wait("Prometheus has scraped it", lambda: asked(state) == "0")
    host.lab("portmap", "ADD", "6443")
    host.guest.wait("Alertmanager notifies", lambda: notified("firing"))
    incident = host.only(Kind.DIVERTED)["K3SWATCH_INCIDENT"]
    host.guest.wait("Prometheus says the same", lambda: asked(state) == asked(alert) == "1")
    host.lab("portmap", "DEL", "6443")
    host.guest.wait("Prometheus has seen the end", lambda: asked(state) == "0")
    host.guest.wait("Alertmanager notifies the end", lambda: notified("resolved"))
    for status in ("firing", "resolved"):
        (told,) = notified(status)
        assert told["labels"]["alertname"] == "K3swatchPortDiverted"
        assert told["labels"]["instance"] == "k3s-node"
    assert notified("firing")[0]["annotations"]["incident"] == incident  # the daemon was the first


@pytest.mark.only("bookworm")
def test_after_a_reboot_it_tells_before_anybody_can_notice(host: K3sHost) -> None:
    """The rule was not there before: it comes with nftables.service, as after an edit of its file. Told before the
    service even counts as started: that waits for the probe, the rules do not.

    Then the same once more: it is the same incident, told once.
    """
    host.sh(
        "cat >/etc/nftables.conf; systemctl enable nftables",
        stdin=b"table ip evil { chain in { type nat hook prerouting priority -100;"
        b" tcp dport 6443 dnat to 10.42.0.9:6443; }; }\n",
    )
    assert host.status()["state"] == "delivered"
    before = host.reboot()
    entry = host.only(Kind.DIVERTED)
    started = int(host.sh("systemctl show --value -p ActiveEnterTimestampMonotonic k3swatch"))
    assert 0 < int(entry["__MONOTONIC_TIMESTAMP"]) < started
    host.guest.wait("Alertmanager was told", host.posted)
    assert host.dial("client", HOST) == ["WEB-POD"]
    assert host.only(Kind.CONFIRMED)["K3SWATCH_INCIDENT"] == entry["K3SWATCH_INCIDENT"]

    assert host.reboot() != before
    status = host.status()
    assert (status["state"], [each["id"] for each in status["incidents"]]) == (
        "diverted",
        [entry["K3SWATCH_INCIDENT"]],
    )
    assert len(host.entries(Kind.DIVERTED)) == 1
    host.sh("nft delete table ip evil")
    assert host.only(Kind.RESTORED)["K3SWATCH_INCIDENT"] == entry["K3SWATCH_INCIDENT"]
    host.lab("portmap", "ADD", "6443")
    host.guest.wait("the next hijack is told", lambda: len(host.entries(Kind.DIVERTED)) == 2)


@pytest.mark.only("trixie")
def test_with_more_capabilities_it_uses_fentry(host: K3sHost) -> None:
    """For whoever grants CAP_SYS_ADMIN; the daemon keeps it no longer than loading takes."""
    drop_in(host, "AmbientCapabilities=CAP_SYS_ADMIN", "CapabilityBoundingSet=CAP_SYS_ADMIN")
    status = host.status()
    assert (status["probe"], status["refused"], status["daemon"]["healthy"]) == ("fentry", [], True)
    assert int(process(host)["CapPrm"], 16) == NET_ADMIN | DAC_READ_SEARCH
    host.lab("portmap", "ADD", "6443")
    host.only(Kind.DIVERTED)
    assert host.dial("client", HOST, HOST) == ["OTHER-CLUSTER"] * 2
    host.only(Kind.CONFIRMED)
    assert host.connections("diverted") == {f"{POD}:6443": 2}


@pytest.mark.only("bookworm")
def test_where_perf_events_are_allowed_it_uses_kprobes(host: K3sHost) -> None:
    """kernel.perf_event_paranoid as upstream has it. When nf_nat is another, so is the daemon, within a minute."""
    host.sh("sysctl -q -w kernel.perf_event_paranoid=2")
    drop_in(host, "SystemCallFilter=perf_event_open")  # docs/install.md
    assert host.status()["probe"] == "kprobe"
    host.lab("portmap", "ADD", "6443")
    incident = host.only(Kind.DIVERTED)["K3SWATCH_INCIDENT"]
    assert host.dial("client", HOST, HOST) == ["OTHER-CLUSTER"] * 2
    host.only(Kind.CONFIRMED)
    assert host.connections("diverted") == {f"{POD}:6443": 2}
    assert host.status()["incidents"][0]["id"] == incident
