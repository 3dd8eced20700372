"""The metrics page: what it says, how large it gets, what promtool and a parser think of it, who can hang it."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from k3swatch.clock import SystemClock
from k3swatch.errors import SourceError
from k3swatch.model.finding import Observation, PathStep, PortVerdict
from k3swatch.model.flow import FlowCount, Outcome
from k3swatch.model.incident import Change, Event, Notice
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Attach, Mechanism, Protocol, State
from k3swatch.sinks import web
from k3swatch.sinks.prometheus import Prometheus

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class FakeClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def sink() -> Iterator[Prometheus]:
    sink = Prometheus([("127.0.0.1", 0)], SystemClock())
    yield sink
    sink.close(5)


def base(sink: Prometheus) -> str:
    host, port = sink.addresses[0]
    return f"http://{host}:{port}"


def get(url: str, accept: str = "") -> str:
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Accept": accept}), timeout=60
    ) as answer:
        text: str = answer.read().decode()
        return text


def samples(sink: Prometheus) -> Samples:
    page = get(f"{base(sink)}/metrics")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(page)
        for sample in family.samples
    }


def value(sink: Prometheus, name: str, /, **labels: str) -> float | None:
    return samples(sink).get((name, tuple(sorted(labels.items()))))


def test_the_state_is_one_hot(make: Any, sink: Prometheus) -> None:
    sink.observe(Observation((make.verdict(make.finding()),), 42))
    states = {s: value(sink, "k3swatch_port_state", port="k3s-api", state=s) for s in State}
    assert states == {s: float(s is State.DIVERTED) for s in State}
    assert value(sink, "k3swatch_ruleset_generation") == 42
    sink.observe(Observation((make.verdict(),), 43))
    assert value(sink, "k3swatch_port_state", port="k3s-api", state="delivered") == 1


def test_a_ruleset_that_was_not_read_is_unknown_and_has_no_generation(make: Any, sink: Prometheus) -> None:
    sink.observe(Observation((make.verdict(),), None))
    assert value(sink, "k3swatch_port_state", port="k3s-api", state="unknown") == 1
    assert value(sink, "k3swatch_port_state", port="k3s-api", state="delivered") == 0
    assert value(sink, "k3swatch_ruleset_generation") is None
    sink.observe(Observation((make.verdict(make.finding()),), None))
    assert value(sink, "k3swatch_port_state", port="k3s-api", state="diverted") == 1


def test_diversions(make: Any, sink: Prometheus) -> None:
    shadowed = make.finding(destination="10.0.0.1:1", shadowed=True, anchor=("ip", "nat", "KUBE-EXT-1"))
    sink.observe(Observation((make.verdict(make.finding(), make.finding(*make.local), shadowed),), 1))
    common = {"port": "k3s-api", "mechanism": "dnat", "family": "ip", "table": "nat"}
    chain = "CNI-DN-00ae1f04b10f949419f13"
    one = value(
        sink,
        "k3swatch_diversion_info",
        **common,
        chain=chain,
        destination="10.42.0.244:6443",
        severity="critical",
    )
    other = value(
        sink,
        "k3swatch_diversion_info",
        **common,
        chain="KUBE-EXT-1",
        destination="10.0.0.1:1",
        severity="info",
    )
    assert (one, other) == (1, 1)
    assert len([name for name, _ in samples(sink) if name == "k3swatch_diversion_info"]) == 2


def row(connections: int, outcome: Outcome = Outcome.DIVERTED, destination: str | None = "d:1") -> FlowCount:
    return FlowCount(Protocol.TCP, 6443, outcome, destination, connections)


def test_connections_never_shrink(make: Any, sink: Prometheus) -> None:
    sink.observe(Observation((make.verdict(),), 1))

    def diverted() -> float | None:
        return value(sink, "k3swatch_connections_total", port="k3s-api", outcome="diverted")

    assert diverted() == 0
    sink.count([row(5), row(2, destination="d:2"), row(100, Outcome.DELIVERED, None)])
    assert diverted() == 7
    sink.count([row(6), row(2, destination="d:2")])
    assert diverted() == 8
    sink.count([row(1)])  # another probe
    assert diverted() == 9
    assert value(sink, "k3swatch_connections_total", port="k3s-api", outcome="delivered") == 100


def test_what_the_daemon_tells(make: Any, sink: Prometheus) -> None:
    sink.observe(Observation((make.verdict(),), 1))
    sink.lost({"flows": 3})
    sink.lost({"flows": 1})
    sink.blind("ruleset", 1.5)
    sink.blind("ruleset", 1.0)
    sink.evaluated(0.003)
    sink.probe(Attach.TRACEPOINT)
    sink.watch([sink])
    sink.notify(Event(Notice.CONFIG_REJECTED, "f", "m", 1.0))
    assert value(sink, "k3swatch_events_lost_total", source="flows") == 3
    assert value(sink, "k3swatch_blind_seconds_total", source="ruleset") == 2.5
    assert value(sink, "k3swatch_evaluation_seconds_bucket", le="0.005") == 1
    assert value(sink, "k3swatch_probe_info", attach="tracepoint") == 1
    assert value(sink, "k3swatch_sink_failures_total", sink="prometheus") == 0
    assert value(sink, "k3swatch_config_last_reload_successful") == 0
    sink.notify(Event(Notice.CONFIG_LOADED, "f", "m", 1.0))
    assert value(sink, "k3swatch_config_last_reload_successful") == 1


def test_detection_carries_the_incident_as_exemplar(make: Any, sink: Prometheus) -> None:
    sink.observe(Observation((make.verdict(),), 1))
    incident = make.incident()
    sink.publish(make.transition(Change.OPENED, incident, committed_at=time.time() - 0.07))
    sink.publish(make.transition(Change.RESOLVED, incident, committed_at=time.time()))
    sink.publish(make.transition(Change.OPENED, make.incident(flaps=1)))
    assert value(sink, "k3swatch_incidents_total", port="k3s-api", mechanism="dnat") == 1
    assert value(sink, "k3swatch_detection_seconds_count") == 1
    page = get(f"{base(sink)}/metrics", "application/openmetrics-text; version=1.0.0")
    assert page.endswith("# EOF\n")
    exemplars = [
        sample.exemplar for family in parse_openmetrics(page) for sample in family.samples if sample.exemplar
    ]
    assert [each.labels for each in exemplars] == [{"incident": incident.id}]
    assert exemplars[0].value == pytest.approx(0.07, abs=0.03)


def test_hostile_text_neither_breaks_the_page_nor_forges_a_series(make: Any, sink: Prometheus) -> None:
    evil = 'x"} 1\nk3swatch_port_state{port="k3s-api",state="delivered"} 1\n\udcff' * 20
    step = PathStep(evil, evil, evil, 1, evil, evil)
    sink.observe(Observation((make.verdict(make.finding(path=(step,), destination=evil)),), 1))
    for accept in ("", "application/openmetrics-text"):
        page = get(f"{base(sink)}/metrics", accept)
        assert page.count('state="delivered"} 1') == 0
    assert value(sink, "k3swatch_port_state", port="k3s-api", state="delivered") == 0


def fill(sink: Prometheus, make: Any, ports: int, destinations: int) -> None:
    findings = [make.finding(destination=f"10.0.{n // 256}.{n % 256}:1") for n in range(destinations)]
    verdicts = tuple(PortVerdict(ProtectedPort(f"p{n}", n + 1), tuple(findings)) for n in range(ports))
    sink.observe(Observation(verdicts, 1))
    for n in range(ports):
        for mechanism in Mechanism:
            finding = make.finding(mechanism=mechanism)
            sink.publish(make.transition(Change.OPENED, make.incident(finding, port=f"p{n}")))
    sink.lost({f"source{n}": n for n in range(50)})
    for n in range(50):
        sink.blind(f"source{n}", 1.0)


@pytest.mark.parametrize(("ports", "destinations", "most"), [(1, 3, 120), (1, 1000, 120), (1000, 1000, 500)])
def test_the_number_of_series_is_bounded(
    make: Any,
    sink: Prometheus,
    ports: int,
    destinations: int,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web, "LIFETIME", 120.0)  # a busy machine may take its time to write them
    fill(sink, make, ports, destinations)
    found = samples(sink)
    assert len(found) <= most
    omitted = found["k3swatch_series_omitted", ()]
    assert (omitted > 0) == (ports > 20 or destinations > 16)


def test_the_worst_ports_are_never_left_out(make: Any, sink: Prometheus) -> None:
    verdicts = [PortVerdict(ProtectedPort(f"p{n}", n + 1)) for n in range(100)]
    verdicts.append(PortVerdict(ProtectedPort("bad", 6443), (make.finding(),)))
    sink.observe(Observation(tuple(verdicts), 1))
    assert value(sink, "k3swatch_port_state", port="bad", state="diverted") == 1


def test_promtool_has_nothing_to_say(make: Any, sink: Prometheus) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "apt-get install prometheus"
    fill(sink, make, 1, 3)
    sink.count([row(5)])
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=get(f"{base(sink)}/metrics").encode(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_every_metric_is_documented(make: Any, sink: Prometheus) -> None:
    text = (Path(__file__).parents[3] / "docs/metrics.md").read_text()
    fill(sink, make, 1, 1)
    for family in parse(get(f"{base(sink)}/metrics")):
        if family.name.startswith("k3swatch_"):
            suffix = "_total" if family.type == "counter" else ""
            assert f"`{family.name}{suffix}" in text, family.name


# the server


def status(sink: Prometheus, path: str, method: str = "GET") -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection(*sink.addresses[0], timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("Allow")
    finally:
        connection.close()


def test_pages(make: Any, sink: Prometheus) -> None:
    assert status(sink, "/readyz")[0] == 503
    sink.observe(Observation((make.verdict(make.finding()),), None))
    assert status(sink, "/readyz")[0] == 503
    sink.observe(Observation((make.verdict(make.finding()),), 1))
    assert status(sink, "/readyz")[0] == 200
    assert status(sink, "/healthz")[:2] == (200, b"ok\n")
    assert b"tcp/6443 (k3s-api): diverted" in status(sink, "/")[1]
    assert status(sink, "/nothing")[0] == 404
    assert status(sink, "/metrics?x=y")[0] == 200
    assert status(sink, "/metrics", "HEAD")[:2] == (200, b"")
    assert status(sink, "/metrics", "POST")[::2] == (405, "GET, HEAD")
    assert status(sink, "/metrics", "BREW")[0] == 501


def test_health_fails_when_the_loop_stands_still() -> None:
    clock = FakeClock()
    sink = Prometheus([("127.0.0.1", 0)], clock)
    try:
        assert status(sink, "/healthz")[0] == 200
        sink.beat()
        clock.time += 61
        assert status(sink, "/healthz")[0] == 503
        sink.beat()
        assert status(sink, "/healthz")[0] == 200
    finally:
        sink.close(5)


def test_a_taken_port_is_an_error_with_a_hint() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SourceError, match=f"cannot listen on 127.0.0.1:{port}: taken") as caught:
            Prometheus([("127.0.0.1", 0), ("127.0.0.1", port)], SystemClock())
        assert f"sport = :{port}" in caught.value.hint
    with pytest.raises(SourceError, match=r"192\.0\.2\.1"):
        Prometheus([("192.0.2.1", 1)], SystemClock())


def test_several_addresses() -> None:
    sink = Prometheus([("127.0.0.1", 0), ("::1", 0), ("127.0.0.2", 0)], SystemClock())
    try:
        for host, port in sink.addresses:
            shown = f"[{host}]" if ":" in host else host
            assert get(f"http://{shown}:{port}/healthz") == "ok\n"
    finally:
        sink.close(5)


@pytest.fixture
def clients() -> Iterator[Callable[[Prometheus], socket.socket]]:
    opened: list[socket.socket] = []

    def connect(sink: Prometheus) -> socket.socket:
        opened.append(socket.create_connection(sink.addresses[0], timeout=10))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def web_threads() -> int:
    return sum(thread.name == "web-client" for thread in threading.enumerate())


def test_slow_clients_cannot_crowd_out_a_scrape(
    sink: Prometheus, clients: Callable[[Prometheus], socket.socket]
) -> None:
    for _ in range(200):
        clients(sink).sendall(b"GET /metrics HT")
        if _ % 20 == 19:
            start = time.monotonic()
            assert "k3swatch_build_info" in get(f"{base(sink)}/metrics")
            assert time.monotonic() - start < web.PATIENCE  # what one that does not speak is given
    assert web_threads() <= web.CONNECTIONS


def test_a_client_that_drips_is_cut(
    sink: Prometheus, clients: Callable[[Prometheus], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "LIFETIME", 1.0)
    drip = clients(sink)
    start = time.monotonic()
    dripped = 0
    with contextlib.suppress(ConnectionError):
        while dripped < 300:
            drip.sendall(b"G")
            dripped += 1
            time.sleep(0.1)
    assert dripped < 300
    assert time.monotonic() - start > 0.9  # not before its time


def test_a_client_that_does_not_read_hangs_nobody(
    sink: Prometheus, clients: Callable[[Prometheus], socket.socket]
) -> None:
    for _ in range(30):
        clients(sink).sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert get(f"{base(sink)}/healthz") == "ok\n"


def test_a_large_request_is_cut_short(
    sink: Prometheus, clients: Callable[[Prometheus], socket.socket]
) -> None:
    client = clients(sink)
    client.sendall(b"GET / HTTP/1.0\r\n")
    try:
        for number in range(90):
            client.sendall(b"X%d: %s\r\n" % (number, b"y" * 1000))
        client.sendall(b"\r\n")
        answer = client.recv(100)
    except OSError:
        answer = b""
    assert answer == b"" or b" 431 " in answer
    assert get(f"{base(sink)}/healthz") == "ok\n"


def test_nonsense_is_survived(sink: Prometheus, clients: Callable[[Prometheus], socket.socket]) -> None:
    for nonsense in (
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n" * 50,
    ):
        client = clients(sink)
        client.sendall(nonsense)
        client.shutdown(socket.SHUT_WR)
        client.recv(1000)
    assert get(f"{base(sink)}/healthz") == "ok\n"


def certificate(folder: Path, name: str) -> tuple[str, str]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return str(cert), str(key)


def subject(sink: Prometheus) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(sink.addresses[0], timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = b""
        while data := client.recv(1000):
            answer += data
        assert answer.endswith(b"ok\n")
        return client.getpeercert(binary_form=True) or b""


def test_tls_with_a_certificate_that_is_renewed(
    tmp_path: Path, clients: Callable[[Prometheus], socket.socket]
) -> None:
    files = certificate(tmp_path, "first")
    sink = Prometheus([("127.0.0.1", 0)], SystemClock(), files)
    try:
        first = subject(sink)
        assert b"first" in first
        for _ in range(20):
            clients(sink)  # never says hello
        certificate(tmp_path, "second")
        assert b"second" in subject(sink)
        Path(files[0]).write_text("half written")
        assert b"second" in subject(sink)
        with pytest.raises((urllib.error.URLError, OSError)):
            get(f"{base(sink)}/healthz")
    finally:
        sink.close(5)


def test_a_bad_certificate_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="certificate"):
        Prometheus([("127.0.0.1", 0)], SystemClock(), (str(tmp_path / "a"), str(tmp_path / "b")))
