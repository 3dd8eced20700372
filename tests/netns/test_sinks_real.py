"""Every sink against the real thing: systemd-journald, Alertmanager, Prometheus, a file system that is full."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.store import rows

from k3swatch.clock import SystemClock
from k3swatch.demo.services import Alertmanager, Journald, Prometheus, Webhook, wait_until
from k3swatch.incident.engine import Engine
from k3swatch.model.finding import Culprit, Finding, Observation, PathStep, PortVerdict
from k3swatch.model.flow import FlowCount, Outcome
from k3swatch.model.incident import Change, Event, Incident, Notice, Transition
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Attach, Family, Mechanism, Protocol, State, Vantage
from k3swatch.sinks.alertmanager import Alertmanager as AlertmanagerSink
from k3swatch.sinks.journald import Journald as JournaldSink
from k3swatch.sinks.prometheus import Prometheus as PrometheusSink
from k3swatch.sinks.store import Store
from k3swatch.view.catalog import ENTRIES, Kind

REPO = Path(__file__).resolve().parents[2]
PORT = ProtectedPort("k3s-api", 6443)
CHAIN = "CNI-DN-00ae1f04b10f949419f13"
JUDGED = ((Vantage.EXTERNAL, "192.168.1.233"), (Vantage.LOCAL, "127.0.0.1"))


def finding(vantage: Vantage, address: str, **fields: Any) -> Finding:
    step = PathStep(
        "ip", "nat", CHAIN, 15, "tcp dport 6443 dnat to 10.42.0.244:6443", 'dnat name: "cbr0"', 12
    )
    made = Finding(
        State.DIVERTED,
        Mechanism.DNAT,
        vantage,
        Family.IP,
        (address,),
        "10.42.0.244:6443",
        path=(step,),
        culprit=Culprit(pod="kube-system/svclb-kubeapi-x"),
        anchor=("ip", "nat", CHAIN),
    )
    return replace(made, **fields)


FINDINGS = tuple(finding(vantage, address) for vantage, address in JUDGED)


def seen(*findings: Finding, generation: int = 42) -> Observation:
    return Observation(
        (PortVerdict(PORT, findings, JUDGED),), generation, "node1", time.time() - 0.02, (4242, "iptables")
    )


def started(message: str = "hello", **fields: Any) -> Event:
    return replace(Event(Notice.STARTED, "k3swatch", message, 1.0), **fields)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: a socket's path has 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="k3w-"))
    yield made
    shutil.rmtree(made)


# journald


@pytest.fixture
def journald(folder: Path) -> Iterator[Journald]:
    with Journald(folder / "j") as service:
        yield service


@pytest.fixture
def journal(journald: Journald) -> Iterator[JournaldSink]:
    sink = JournaldSink(journald.socket)
    yield sink
    sink.close(1)


def entries(service: Journald, count: int, *matches: str) -> list[dict[str, Any]]:
    def enough() -> list[dict[str, Any]]:
        found = service.entries("SYSLOG_IDENTIFIER=k3swatch", *matches)
        return found if len(found) >= count else []

    return wait_until(enough, f"{count} entries in the journal")


def test_a_life_in_the_journal(journald: Journald, journal: JournaldSink) -> None:
    engine = Engine()
    for observation in (seen(), seen(*FINDINGS), seen(generation=43)):
        for transition in engine.observe(observation, time.time()):
            journal.publish(transition)
    opened, restored = entries(journald, 2)
    assert opened["MESSAGE"] == (
        "tcp/6443 (k3s-api) is DIVERTED to 10.42.0.244:6443 for 192.168.1.233 from outside and 127.0.0.1 from this "
        f'host: rule "tcp dport 6443 dnat to 10.42.0.244:6443" in ip nat {CHAIN} handle 15, taken by pod '
        "kube-system/svclb-kubeapi-x, committed by iptables (pid 4242)"
    )
    expected = {
        "MESSAGE_ID": ENTRIES[Kind.DIVERTED].id,
        "PRIORITY": "2",
        "SYSLOG_IDENTIFIER": "k3swatch",
        "K3SWATCH_PORT": "tcp/6443",
        "K3SWATCH_STATE": "diverted",
        "K3SWATCH_MECHANISM": "dnat",
        "K3SWATCH_DESTINATION": "10.42.0.244:6443",
        "K3SWATCH_RULE": "tcp dport 6443 dnat to 10.42.0.244:6443",
        "K3SWATCH_CHAIN": CHAIN,
        "K3SWATCH_POD": "kube-system/svclb-kubeapi-x",
        "K3SWATCH_VANTAGE": ["external", "local"],
        "K3SWATCH_ADDRESSES": ["192.168.1.233", "127.0.0.1"],
        "K3SWATCH_GENERATION": "42",
        "K3SWATCH_CHANGE": "opened",
        "K3SWATCH_PID": "4242",
        "K3SWATCH_COMM": "iptables",
        "K3SWATCH_COMMENT": 'dnat name: "cbr0"',
        "_TRANSPORT": "journal",
    }
    assert {name: opened[name] for name in expected} == expected
    assert restored["MESSAGE_ID"] == ENTRIES[Kind.RESTORED].id
    assert restored["K3SWATCH_STATE"] == "delivered"
    assert restored["K3SWATCH_INCIDENT"] == opened["K3SWATCH_INCIDENT"]
    assert len(journald.entries(f"K3SWATCH_INCIDENT={opened['K3SWATCH_INCIDENT']}")) == 2
    assert journal.failures == 0


def test_journalctl_x_shows_cause_and_cure(journald: Journald, journal: JournaldSink) -> None:
    (transition,) = Engine().observe(seen(*FINDINGS), time.time())
    journal.publish(transition)
    entries(journald, 1)
    text = journald.journalctl("-x", "-t", "k3swatch", catalog=REPO / "systemd/k3swatch.catalog")
    assert "░░ Subject: tcp/6443 is diverted to 10.42.0.244:6443" in text
    assert "░░ Defined-By: k3swatch" in text
    assert f"░░     nft -a list chain ip nat {CHAIN}" in text
    assert "/var/lib/rancher/k3s/server/cred/admin.kubeconfig" in text
    assert "@" not in text


def test_every_kind_has_its_catalog_entry(journald: Journald, journal: JournaldSink) -> None:
    for notice in Notice:
        journal.notify(Event(notice, "x", "m", 1.0))
    entries(journald, len(Notice))
    text = journald.journalctl("-x", "-t", "k3swatch", catalog=REPO / "systemd/k3swatch.catalog")
    assert text.count("░░ Defined-By: k3swatch") == len(Notice)


def test_hostile_text_forges_no_entry_and_no_field(journald: Journald, journal: JournaldSink) -> None:
    evil = "x\nMESSAGE=tcp/6443 is fine\nPRIORITY=7\n\nMESSAGE=forged\n\x1b[2J\udcff"
    step = replace(FINDINGS[0].path[0], rule=evil, chain=evil, comment=evil)
    bad = replace(FINDINGS[0], path=(step,), anchor=None, why=evil, conditions=(evil,))
    (transition,) = Engine().observe(replace(seen(bad), committer=(1, evil)), time.time())
    journal.publish(transition)
    journal.notify(started("last"))
    first, last = entries(journald, 2)
    assert last["MESSAGE"] == "last"
    assert first["PRIORITY"] == "2"
    assert first["MESSAGE"].isprintable()
    assert len(journald.entries("_TRANSPORT=journal")) == 2


def test_an_entry_too_large_for_a_datagram(journald: Journald, journal: JournaldSink) -> None:
    many = tuple((f"K3SWATCH_F{n}", "y" * 9000) for n in range(60))
    import socket

    assert journal._socket is not None
    journal._socket._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    journal.notify(started("large", fields=many))
    (entry,) = entries(journald, 1)
    assert len(entry["K3SWATCH_F59"]) == 8192
    assert journal.failures == 0


def test_journald_restarts(journald: Journald, journal: JournaldSink) -> None:
    journal.notify(started("one"))
    entries(journald, 1)
    journald.stop(signal.SIGKILL)
    journal.notify(started("lost"))
    assert journal.failures == 1
    journald.start()
    journal.notify(started("two"))
    assert [entry["MESSAGE"] for entry in entries(journald, 2)] == ["one", "two"]


def test_a_journald_that_stands_still_blocks_nobody(journald: Journald, journal: JournaldSink) -> None:
    journal.notify(started("before"))
    entries(journald, 1)
    assert journald.process is not None
    journald.process.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    for number in range(400):
        journal.notify(started(f"number {number}"))
    took = time.monotonic() - start
    journald.process.send_signal(signal.SIGCONT)
    assert took < 2

    def last() -> bool:
        journal.observe(seen())
        return bool(journald.entries("SYSLOG_IDENTIFIER=k3swatch")[-1]["MESSAGE"] == "number 399")

    wait_until(last, "the last entry")


# Alertmanager


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as made:
        yield made


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def pager(told: list[Event]) -> Iterator[Callable[..., AlertmanagerSink]]:
    sinks: list[AlertmanagerSink] = []

    def build(url: str, **fields: Any) -> AlertmanagerSink:
        fields = {"interval": 0.5, **fields}
        sinks.append(AlertmanagerSink([url], "node1", SystemClock(), told.append, **fields))
        return sinks[-1]

    yield build
    for sink in sinks:
        sink.close(2)


def life() -> tuple[Transition, Transition, Incident]:
    engine = Engine()
    (opened,) = engine.observe(seen(*FINDINGS), time.time())
    (resolved,) = engine.observe(seen(generation=43), time.time() + 0.001)
    return opened, resolved, opened.incident


def test_one_notification_one_resolve_and_a_restart_of_alertmanager_between(
    folder: Path, webhook: Webhook, pager: Callable[..., AlertmanagerSink], told: list[Event]
) -> None:
    opened, resolved, incident = life()
    service = Alertmanager(folder / "am", webhook.url)
    with service:
        sink = pager(service.url)
        sink.publish(opened)
        wait_until(lambda: webhook.alerts("firing"), "the notification")
        service.stop()
        wait_until(lambda: sink.failures > 0, "a failure")
        service.start()  # with the data it had: it knows whom it notified
        wait_until(service.alerts, "the alert, sent again")
        wait_until(lambda: any(event.notice is Notice.SINK_RECOVERED for event in told), "recovery")
        time.sleep(2)
        sink.publish(replace(resolved, at=time.time()))
        wait_until(lambda: webhook.alerts("resolved"), "the resolve")
        time.sleep(2)  # it is sent again and again, and told once
        assert [event.notice for event in told] == [Notice.SINK_FAILED, Notice.SINK_RECOVERED]
    assert len(webhook.alerts("resolved")) == 1
    assert {alert["fingerprint"] for alert in webhook.alerts("firing")} == {
        webhook.alerts("resolved")[0]["fingerprint"]
    }
    assert len(webhook.alerts("firing")) == 1
    alert = webhook.alerts("firing")[0]
    assert alert["labels"] == {
        "alertname": "K3swatchPortDiverted",
        "instance": "node1",
        "port": "k3s-api",
        "mechanism": "dnat",
        "destination": "10.42.0.244:6443",
        "severity": "critical",
    }
    assert alert["annotations"]["incident"] == incident.id
    assert "https://127.0.0.1:6444" in alert["annotations"]["description"]


def test_an_alertmanager_that_forgot_everything_is_told_again(
    folder: Path, webhook: Webhook, pager: Callable[..., AlertmanagerSink]
) -> None:
    opened, _, _ = life()
    with Alertmanager(folder / "am", webhook.url) as service:
        pager(service.url).publish(opened)
        wait_until(service.alerts, "the alert")
        service.stop(signal.SIGKILL)
        shutil.rmtree(service.directory / "data")
        service.start()
        wait_until(service.alerts, "the alert, sent again")


def test_a_restart_of_the_daemon_keeps_the_alert_firing(
    folder: Path, webhook: Webhook, pager: Callable[..., AlertmanagerSink]
) -> None:
    opened, resolved, incident = life()
    with Alertmanager(folder / "am", webhook.url) as service:
        first = pager(service.url)
        first.publish(opened)
        wait_until(lambda: webhook.alerts("firing"), "the notification")
        first.close(2)
        second = pager(service.url, incidents=[incident])
        time.sleep(3)  # longer than the four intervals after which an alert that is not repeated ends
        assert service.alerts()
        assert webhook.alerts("resolved") == []
        second.publish(replace(resolved, at=time.time()))
        wait_until(lambda: webhook.alerts("resolved"), "the resolve")
    assert len(webhook.alerts("firing")) == 1


def test_a_daemon_that_dies_does_not_leave_an_alert_for_ever(
    folder: Path, webhook: Webhook, pager: Callable[..., AlertmanagerSink]
) -> None:
    opened, _, _ = life()
    with Alertmanager(folder / "am", webhook.url) as service:
        sink = pager(service.url)
        sink.publish(opened)
        wait_until(lambda: webhook.alerts("firing"), "the notification")
        sink.close(2)
        assert webhook.alerts("resolved") == []
        wait_until(lambda: webhook.alerts("resolved"), "the end that each message carries")


# Prometheus


@pytest.fixture
def metrics() -> Iterator[PrometheusSink]:
    sink = PrometheusSink([("127.0.0.1", 0)], SystemClock())
    sink.watch([sink])
    sink.probe(Attach.TRACEPOINT)
    yield sink
    sink.close(2)


def target(sink: PrometheusSink) -> str:
    host, port = sink.addresses[0]
    return f"{host}:{port}"


RULES = REPO / "packaging/prometheus/k3swatch.rules.yaml"


def test_prometheus_scrapes_and_its_rules_fire(folder: Path, metrics: PrometheusSink) -> None:
    engine = Engine()
    metrics.observe(seen())
    metrics.count([FlowCount(Protocol.TCP, 6443, Outcome.DIVERTED, "10.42.0.244:6443", 0)])
    with Prometheus(folder / "p", [target(metrics)], [RULES], interval="500ms", instance="node1") as service:

        def state(expected: State) -> bool:
            return bool(service.query(f'k3swatch_port_state{{state="{expected}",instance="node1"}} == 1'))

        wait_until(lambda: state(State.DELIVERED), "delivered")
        assert [alert for alert in service.alerts() if alert["state"] == "firing"] == []
        for transition in engine.observe(seen(*FINDINGS), time.time()):
            metrics.publish(transition)
        metrics.observe(engine.observation)
        metrics.count([FlowCount(Protocol.TCP, 6443, Outcome.DIVERTED, "10.42.0.244:6443", 7)])
        wait_until(lambda: state(State.DIVERTED), "diverted")

        def firing() -> set[str]:
            names = {alert["labels"]["alertname"] for alert in service.alerts() if alert["state"] == "firing"}
            return names if len(names) >= 2 else set()

        assert wait_until(firing, "alerts") == {"K3swatchPortDiverted", "K3swatchConnectionsDiverted"}
        (row,) = service.query('k3swatch_diversion_info{instance="node1"}')
        assert row["metric"]["chain"] == CHAIN
        (scraped,) = service.query('scrape_samples_scraped{job="k3swatch"}')
        assert int(scraped["value"][1]) <= 120
        engine.observe(seen(generation=43), time.time())
        metrics.observe(engine.observation)
        wait_until(lambda: state(State.DELIVERED), "delivered again")
        diverted = [
            each for each in service.alerts() if each["labels"]["alertname"] == "K3swatchPortDiverted"
        ]
        wait_until(lambda: not diverted or service.alerts() != diverted, "the alert's end")


def test_both_ways_end_in_one_notification(
    folder: Path, webhook: Webhook, metrics: PrometheusSink, pager: Callable[..., AlertmanagerSink]
) -> None:
    opened, _, _ = life()
    with (
        Alertmanager(folder / "am", webhook.url) as alertmanager,
        Prometheus(
            folder / "p",
            [target(metrics)],
            [RULES],
            [f"{alertmanager.address}:{alertmanager.port}"],
            interval="500ms",
            instance="node1",
        ) as prometheus,
    ):
        metrics.observe(seen(*FINDINGS))
        pager(alertmanager.url).publish(opened)
        wait_until(lambda: webhook.alerts("firing"), "the push")
        wait_until(
            lambda: [each for each in prometheus.alerts() if each["state"] == "firing"],
            "the rule",
            timeout=30,
        )
        time.sleep(3)
        assert len(alertmanager.alerts()) == 1, [alert["labels"] for alert in alertmanager.alerts()]
        assert len(webhook.alerts("firing")) == 1


def test_the_page_is_what_promtool_likes(metrics: PrometheusSink) -> None:
    import urllib.request

    metrics.observe(seen(*FINDINGS))
    with urllib.request.urlopen(f"http://{target(metrics)}/metrics", timeout=5) as answer:
        page = answer.read()
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


# the store on a disk that is full


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    place = folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "k3swatch-test", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_survived_and_what_waited_is_written(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k3swatch.sinks.store.RETRY", 0.1)
    events: list[Event] = []
    sink = Store(str(small_disk), SystemClock(), events.append)
    try:
        opened, resolved, incident = life()
        sink.publish(opened)
        wait_until(lambda: rows(small_disk), "the first row")
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        start = time.monotonic()
        for number in range(200):
            sink.publish(replace(opened, incident=replace(incident, id=f"{number:012x}")))
        sink.publish(resolved)
        assert time.monotonic() - start < 1
        wait_until(lambda: sink.failures > 0, "a failure")
        assert [event.notice for event in events] == [Notice.SINK_FAILED]
        assert "full" in events[0].message
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
        wait_until(lambda: len(rows(small_disk)) == 202, "all rows")
        wait_until(lambda: len(events) == 2, "recovery")
        assert events[1].notice is Notice.SINK_RECOVERED
        assert rows(small_disk)[-1].change == Change.RESOLVED
    finally:
        sink.close(5)
