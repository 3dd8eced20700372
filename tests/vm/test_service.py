"""The installed package on a K3s-like host: confined, awake at once, heard by everybody, back after a reboot."""

from __future__ import annotations

import json

import pytest
from vm.host import START_SECONDS, K3sHost

from k3swatch.demo.lab import HOST, POD, WEB
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


# what takes the port, what gives it back, and who gets it
IPTABLES = f"PREROUTING -p tcp --dport 6443 -j DNAT --to-destination {WEB}:6443"
NFT = """nft 'table ip evil { chain in { type nat hook prerouting priority -110;
    tcp dport 6443 counter redirect to :8443 comment "mine"; }; }'"""
HIJACKS = {
    "portmap": ("lab portmap ADD 6443", "lab portmap DEL 6443", "dnat", f"{POD}:6443", "OTHER-CLUSTER"),
    "iptables-nft": (
        f"iptables -t nat -I {IPTABLES}",
        f"iptables -t nat -D {IPTABLES}",
        "dnat",
        f"{WEB}:6443",
        "WEB-POD",
    ),
    "nft": (NFT, "nft delete table ip evil", "redirect", f"{HOST}:8443", "LOCAL-8443"),
}


@pytest.mark.parametrize("name", HIJACKS)
def test_a_hijack_is_told_with_its_cure(host: K3sHost, name: str) -> None:
    take, give_back, mechanism, destination, answers = HIJACKS[name]
    shell = 'lab() { (set -a; . /run/lab.env; python3 /opt/labctl.py "$@"); }; '
    assert host.dial("client", HOST) == ["K3S-APISERVER"]
    delivered = host.connections("delivered")

    host.sh(shell + take)
    entry = host.only(Kind.DIVERTED)
    assert entry["K3SWATCH_MECHANISM"] == mechanism
    assert destination in entry["K3SWATCH_DESTINATION"]
    assert "6443" in entry["K3SWATCH_RULE"]
    assert "kubectl get services" in host.sh(f"journalctl --no-pager -x MESSAGE_ID={entry['MESSAGE_ID']}")
    assert host.check() == 1

    assert host.dial("client", HOST, HOST, HOST) == [answers] * 3
    confirmed = host.only(Kind.CONFIRMED)
    assert confirmed["K3SWATCH_INCIDENT"] == entry["K3SWATCH_INCIDENT"]
    assert host.connections("diverted") == {destination: 3}
    assert host.connections("delivered") == delivered

    host.sh(shell + give_back)
    assert host.only(Kind.RESTORED)["K3SWATCH_INCIDENT"] == entry["K3SWATCH_INCIDENT"]
    assert host.dial("client", HOST) == ["K3S-APISERVER"]
    status = host.status()
    assert (status["state"], status["incidents"]) == ("delivered", [])
    assert len(host.entries(Kind.DIVERTED)) == 1


def test_prometheus_and_alertmanager_of_the_distribution(host: K3sHost) -> None:
    """Their own packages, their own units, the files that ours ships for them."""
    examples = "/usr/share/k3swatch"
    prometheus = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "rule_files": [f"{examples}/prometheus/k3swatch.rules.yaml"],
        "scrape_configs": [{"job_name": "k3swatch", "static_configs": [{"targets": ["127.0.0.1:10643"]}]}],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}]},
    }
    host.sh("cat >/etc/prometheus/prometheus.yml", stdin=json.dumps(prometheus).encode())
    host.sh(f"promtool check config /etc/prometheus/prometheus.yml; ls {examples} {examples}/*")
    host.sh(
        f"cp {examples}/alertmanager/alertmanager.example.yaml /etc/prometheus/alertmanager.yml\n"
        "printf 'alertmanager: {urls: [\"http://127.0.0.1:9093\"]}\\n' >>/etc/k3swatch/config.yaml\n"
        "systemd-run --quiet --unit=webhook python3 /opt/webhook.py /run/notifications\n"
        "systemctl start prometheus prometheus-alertmanager; systemctl reload k3swatch",
        timeout=120,
    )

    def notified(status: str) -> list[dict[str, str]]:
        text = host.sh("cat /run/notifications 2>/dev/null || true")
        alerts = [alert for line in text.splitlines() for alert in json.loads(line)["alerts"]]
        return [alert["labels"] for alert in alerts if alert["status"] == status]

    def diverted() -> str:
        query = 'query=k3swatch_port_state{state="diverted"}'
        url = "http://127.0.0.1:9090/api/v1/query"
        text = host.sh(f"curl -sSG {url} --data-urlencode '{query}'", check=False)
        rows = json.loads(text)["data"]["result"] if text.startswith("{") else []
        return rows[0]["value"][1] if rows else ""

    host.guest.wait("Prometheus has scraped it", lambda: diverted() == "0", 120)
    host.lab("portmap", "ADD", "6443")
    host.guest.wait("Alertmanager notifies", lambda: notified("firing"), 60)
    assert {labels["alertname"] for labels in notified("firing")} == {"K3swatchPortDiverted"}
    host.guest.wait("Prometheus has seen it", lambda: diverted() == "1", 60)
    host.lab("portmap", "DEL", "6443")
    host.guest.wait("Prometheus has seen the end", lambda: diverted() == "0", 60)
    host.guest.wait("Alertmanager notifies the end", lambda: notified("resolved"), 180)


def test_it_comes_back_after_a_reboot(host: K3sHost) -> None:
    """The rule comes back with nftables.service; it is the same incident, and told once."""
    host.sh(
        "cat >/etc/nftables.conf; nft -f /etc/nftables.conf; systemctl enable nftables",
        stdin=b"table ip evil { chain out { type nat hook output priority -100;"
        b" tcp dport 6443 dnat to 10.9.9.9:443; }; }\n",
    )
    incident = host.only(Kind.DIVERTED)["K3SWATCH_INCIDENT"]
    before = host.guest.boot_id
    host.guest.reboot()
    assert host.guest.boot_id != before
    status = host.until_up()
    assert status["state"] == "diverted"
    assert [each["id"] for each in status["incidents"]] == [incident]
    assert len(host.entries(Kind.DIVERTED)) == 1
    host.sh("nft flush ruleset")
    assert host.only(Kind.RESTORED)["K3SWATCH_INCIDENT"] == incident
    host.sh(
        "nft 'table ip more { chain out { type nat hook output priority -100; tcp dport 6443 redirect to :1; }; }'"
    )
    host.guest.wait("the next hijack is told", lambda: len(host.entries(Kind.DIVERTED)) == 2)


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
