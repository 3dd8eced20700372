"""Without a probe: conntrack's NEW events, of which the kernel passes on only diverted connections."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterator

import pytest

from k3swatch.demo.lab import CLIENT, CNI0, HOST, HOST6, POD, POD6, Lab
from k3swatch.demo.netns import Namespace
from k3swatch.errors import Unsupported
from k3swatch.live.flow_conntrack import ConntrackWatch
from k3swatch.live.flows import open_flow_watch
from k3swatch.model.flow import FlowCount, Outcome
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Attach, Protocol
from k3swatch.sources.conntrack import MOST_PORTS, diverted_only

PORT = 6443
ADDRESSES = frozenset(map(ipaddress.ip_address, ("127.0.0.1", "::1", HOST, HOST6, CNI0)))


@pytest.fixture
def host(module_lab: Lab) -> Namespace:
    """The host, without any rule."""
    module_lab.reset()
    return module_lab.host


@pytest.fixture
def watch(host: Namespace) -> Iterator[ConntrackWatch]:
    """Conntrack's view of 6443."""
    with host.inside():
        watch = open_flow_watch(Attach.CONNTRACK)
    assert isinstance(watch, ConntrackWatch), watch.refused
    try:
        watch.protect(
            [ProtectedPort("api", PORT), ProtectedPort("api-udp", PORT, Protocol.UDP)],
            ADDRESSES,
        )
        yield watch
        assert not any(watch.lost().values())
    finally:
        watch.close()


def dial(space: Namespace, address: str, count: int, port: int = PORT) -> None:
    """Connections that were accepted."""
    with space.inside():
        for _ in range(count):
            socket.create_connection((address, port), timeout=5).close()


def nat(host: Namespace, rule: str, family: str = "ip", hook: str = "prerouting") -> None:
    """One rule in a nat chain of its own."""
    host.shell(
        f"nft add table {family} {hook}; nft flush table {family} {hook}\n"
        f"nft 'add chain {family} {hook} nat {{type nat hook {hook} priority -100;}}'\n"
        f"nft add rule {family} {hook} nat {rule}"
    )


def test_the_kernel_passes_on_diverted_connections_only(
    module_lab: Lab, host: Namespace, watch: ConntrackWatch
) -> None:
    """Not the delivered, not those to other ports, v4 and v6: nothing reaches the socket."""
    for family in ("ip", "ip6"):
        nat(host, "accept", family)
    nat(host, "accept", "inet", "output")
    for address in (HOST, HOST6):
        dial(module_lab.client, address, 20)
    dial(host, "127.0.0.1", 20)
    nat(host, f"tcp dport 8080 dnat to {HOST}:8443")
    dial(module_lab.client, HOST, 20, 8080)
    assert watch._events.read() == []


def test_diverted_v4(module_lab: Lab, host: Namespace, watch: ConntrackWatch) -> None:
    nat(host, f"ip daddr {HOST} tcp dport {PORT} dnat to {POD}")
    before = time.time()
    dial(module_lab.client, HOST, 50)
    flows = watch.read()
    assert len(flows) == 50
    assert watch.counts() == [FlowCount(Protocol.TCP, PORT, Outcome.DIVERTED, f"{POD}:{PORT}", 50)]
    flow = flows[0]
    assert (str(flow.source), str(flow.dialled), str(flow.reached)) == (CLIENT, HOST, POD)
    assert (flow.dialled_port, flow.reached_port, flow.outcome) == (PORT, PORT, Outcome.DIVERTED)
    assert before <= flow.at <= time.time()


def test_diverted_v6(module_lab: Lab, host: Namespace, watch: ConntrackWatch) -> None:
    nat(host, f"ip6 daddr {HOST6} tcp dport {PORT} dnat to {POD6}", "ip6")
    dial(module_lab.client, HOST6, 50)
    assert [(str(flow.dialled), str(flow.reached)) for flow in watch.read()] == [(HOST6, POD6)] * 50


def test_redirected_to_another_port(module_lab: Lab, host: Namespace, watch: ConntrackWatch) -> None:
    """The address stays, only the port tells; from outside and from the host itself, v4 and v6."""
    for hook in ("prerouting", "output"):
        nat(host, f"tcp dport {PORT} redirect to :8443", "inet", hook)
    for address in (HOST, HOST6):
        dial(module_lab.client, address, 5)
        dial(host, address, 5)
    assert [row.connections for row in watch.counts()] == []
    assert {(flow.reached_port, flow.outcome) for flow in watch.read()} == {(8443, Outcome.DIVERTED)}
    assert sum(row.connections for row in watch.counts()) == 20


def test_identity_on_another_address_of_ours_is_delivered(
    module_lab: Lab, host: Namespace, watch: ConntrackWatch
) -> None:
    nat(host, f"tcp dport {PORT} dnat to {CNI0}")
    dial(module_lab.client, HOST, 5)
    assert watch.read() == []
    assert watch.counts() == []


def test_protection_can_change(module_lab: Lab, host: Namespace, watch: ConntrackWatch) -> None:
    nat(host, f"ip daddr {HOST} tcp dport {{ {PORT}, 8080 }} dnat to {POD}:{PORT}")
    watch.protect([ProtectedPort("other", 8080)], ADDRESSES)
    dial(module_lab.client, HOST, 5)
    dial(module_lab.client, HOST, 5, 8080)
    assert {flow.dialled_port for flow in watch.read()} == {8080}
    watch.protect([], ADDRESSES)
    dial(module_lab.client, HOST, 5, 8080)
    assert watch.read() == []


def test_events_switched_off(host: Namespace, watch: ConntrackWatch) -> None:
    """The sysctl silences conntrack: then the watch is dead, and none can be opened."""
    sysctl = host.run("sysctl", "-n", "net.netfilter.nf_conntrack_events").strip()
    assert watch.alive()
    try:
        host.sysctl(netfilter__nf_conntrack_events=0)
        assert not watch.alive()
        with host.inside():
            refused = open_flow_watch(Attach.CONNTRACK)
            refused.close()
    finally:
        host.sysctl(netfilter__nf_conntrack_events=int(sysctl))
    assert refused.attach is Attach.NONE
    assert "nf_conntrack_events=2" in refused.refused[0]
    assert not refused.alive()


def test_as_many_ports_as_a_filter_can_hold(module_lab: Lab, host: Namespace, watch: ConntrackWatch) -> None:
    """The kernel takes the longest filter, and its first and last port still match; one more is refused."""
    ports = [
        ProtectedPort(f"p{number}", number) for number in (1, *range(20001, 20000 + MOST_PORTS - 1), PORT)
    ]
    assert len(ports) == MOST_PORTS
    watch.protect(ports, ADDRESSES)
    nat(host, f"ip daddr {HOST} tcp dport {{ 1, {PORT} }} dnat to {POD}:{PORT}")
    dial(module_lab.client, HOST, 5)
    dial(module_lab.client, HOST, 5, 1)
    assert sorted(flow.dialled_port for flow in watch.read()) == [1] * 5 + [PORT] * 5
    with pytest.raises(Unsupported, match=f"at most {MOST_PORTS}"):
        diverted_only((6, number) for number in range(MOST_PORTS + 1))
