"""The probe on real connections: each counted once, by what became of it, whatever stood in its way.

The protected port is 7443, so that the lab's own servers stay out of it. `hammer` (bench/hammer.c) makes connections
by the thousand and says how many it made.
"""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from k3swatch.decode import event
from k3swatch.demo.lab import CLIENT, CNI0, HOST, HOST6, OTHER, POD, POD6, Lab
from k3swatch.demo.netns import Namespace
from k3swatch.live.flow_probe import ProbeWatch
from k3swatch.live.flows import open_flow_watch
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.port import Address, ProtectedPort
from k3swatch.model.words import Attach, Protocol
from k3swatch.sources import probe
from k3swatch.sources.libbpf import replace_keys

PORT = 7443
DEAD_POD = "10.42.0.77"
MANY = int(os.environ.get("K3SWATCH_MANY", "2000"))  # tests/vm runs all this on an emulated CPU
ADDRESSES = frozenset(map(ipaddress.ip_address, ("127.0.0.1", "::1", HOST, HOST6, CNI0, "fd42::1")))
API = (ProtectedPort("api", PORT), ProtectedPort("api-udp", PORT, Protocol.UDP))

_wanted = os.environ.get("K3SWATCH_ATTACH")
ATTACH = Attach(_wanted) if _wanted else None  # none: the best this kernel has
ONE_PROBE = bool(os.environ.get("K3SWATCH_ONE_PROBE"))

Counts = dict[tuple[str, str | None], int]
Server = Callable[[Namespace, str], None]


@dataclass(frozen=True)
class Hammer:
    """bench/hammer.c, compiled."""

    path: Path

    def __call__(self, space: Namespace, mode: str, address: str, *rest: object, port: int = PORT) -> int:
        """Run it to its end in a namespace; returns how many connections were made (or, for hold, begun)."""
        argv = (str(self.path), mode, address, str(port), *map(str, rest))
        connected, failed, _ = space.run(*argv).splitlines()[-1].split()
        return int(failed) if mode == "hold" else int(connected)

    @contextmanager
    def serving(self, space: Namespace, address: str, port: int = PORT) -> Iterator[None]:
        """A server, while the block lasts."""
        with space.inside():
            server = subprocess.Popen(
                [self.path, "serve", address, str(port)], stdout=subprocess.PIPE, text=True
            )
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()
            server.communicate()


@pytest.fixture(scope="session")
def hammer(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Hammer:
    path = tmp_path_factory.mktemp("hammer") / "hammer"
    subprocess.run(["gcc", "-O2", "-o", path, repo / "bench" / "hammer.c"], check=True)
    return Hammer(path)


@pytest.fixture
def host(module_lab: Lab) -> Namespace:
    """The host, without any rule."""
    module_lab.reset()
    return module_lab.host


@pytest.fixture(scope="module")
def load(module_lab: Lab) -> Iterator[Callable[[], ProbeWatch]]:
    """Loads the best probe this kernel allows, or the one asked for, into the host. With K3SWATCH_ONE_PROBE once, and
    then again that one, which has forgotten what it counted: compiling takes an emulated CPU ten seconds.
    """
    loaded: list[ProbeWatch] = []

    def load() -> ProbeWatch:
        if loaded and ONE_PROBE:
            replace_keys(loaded[0]._probe.map("counts"), (), event.COUNT_KEY.size)
            loaded[0].read()
            return loaded[0]
        with module_lab.host.inside():
            watch = open_flow_watch(ATTACH)
        assert isinstance(watch, ProbeWatch), watch.refused
        loaded.append(watch)
        assert ATTACH in (None, watch.attach)
        return watch

    yield load
    for watch in loaded:
        watch.close()


@pytest.fixture
def watch(host: Namespace, load: Callable[[], ProbeWatch]) -> Iterator[ProbeWatch]:
    """See `load`. It protects 7443 of the host, TCP and UDP."""
    watch = load()
    watch.protect(API, ADDRESSES)
    yield watch
    lost = watch.lost()
    del lost["ring"]  # events that a test did not read in time; the counts have them
    assert not any(lost.values())
    if not ONE_PROBE:
        watch.close()


def counts(watch: ProbeWatch) -> Counts:
    """Every count that is not zero, by outcome and destination."""
    return {
        (row.outcome.value, row.destination): row.connections for row in watch.counts() if row.connections
    }


def dnat(host: Namespace, to: str, hook: str = "prerouting", family: str = "ip") -> None:
    """Divert 7443, and translate the source as well so that answers come back from anywhere."""
    host.shell(
        f"nft add table {family} t\n"
        f"nft 'add chain {family} t nat {{type nat hook {hook} priority -100;}}'\n"
        f"nft 'add chain {family} t src {{type nat hook postrouting priority 100;}}'\n"
        f"nft add rule {family} t nat meta l4proto {{ tcp, udp }} th dport {PORT} {to}\n"
        f"nft add rule {family} t src ct status dnat masquerade"
    )


def only(flows: list[Flow]) -> Flow:
    assert len(flows) == 1, flows
    return flows[0]


def lost(*flows: Flow) -> list[str]:
    """Why packets of diverted connections were dropped, as the flows tell."""
    return [flow.drop_reason for flow in flows if flow.drop_reason]


def first_sight(watch: ProbeWatch, drop_reason: str) -> str | None:
    """Why the packet was dropped that gave a diversion away; fentry and kprobe saw it before it was."""
    return drop_reason if watch.attach is Attach.TRACEPOINT else None


def test_delivered_without_conntrack(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer
) -> None:
    """No NAT rule is in force, so no packet has a conntrack entry: the SYN-ACK alone tells."""
    with hammer.serving(host, "0.0.0.0"):
        before = time.time()
        assert hammer(module_lab.client, "dial", HOST, 1, 0) == 1
        flow = only(watch.read())
        made = hammer(module_lab.client, "dial", HOST, MANY, 0)
        made += hammer(host, "dial", "127.0.0.1", MANY, 0) + hammer(host, "dial", HOST, MANY, 0)
    assert made == 3 * MANY
    assert counts(watch) == {("delivered", None): 1 + made}
    assert (str(flow.source), str(flow.dialled), str(flow.reached)) == (CLIENT, HOST, HOST)
    assert (flow.dialled_port, flow.reached_port, flow.protocol) == (PORT, PORT, Protocol.TCP)
    assert flow.outcome is Outcome.DELIVERED
    assert flow.drop_reason is None
    assert before - 0.1 < flow.at < time.time() + 0.1


@pytest.mark.parametrize("rule", ["accept", f"dnat to {CNI0}", "notrack"])
def test_delivered_with_conntrack(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer, rule: str
) -> None:
    """Nothing translates; or the same port on another address of ours does; or conntrack is told to look away."""
    if rule == "notrack":
        dnat(host, "accept")
        host.shell(
            "nft 'add chain ip t raw {type filter hook prerouting priority -300;}'\n"
            "nft 'add chain ip t rawout {type filter hook output priority -300;}'\n"
            "nft add rule ip t raw notrack; nft add rule ip t rawout notrack"
        )
    else:
        dnat(host, rule)
    with hammer.serving(host, "0.0.0.0"):
        made = hammer(module_lab.client, "dial", HOST, MANY, 0)
        made += hammer(host, "dial", "127.0.0.1", MANY, 0) + hammer(host, "dial", HOST, MANY, 0)
    assert made == 3 * MANY
    assert counts(watch) == {("delivered", None): made}


def listening(host: Namespace, port: int) -> set[int]:
    """The inodes of the host's sockets in TCP_LISTEN on a port."""
    lines = [line.split() for line in host.shell("cat /proc/net/tcp /proc/net/tcp6").splitlines()]
    return {int(each[9]) for each in lines if each[1].endswith(f":{port:04X}") and each[3] == "0A"}


def test_who_has_a_delivered_connection(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer
) -> None:
    """Of two listeners on the port, the one that is bound to the address that was dialled."""
    with hammer.serving(host, CNI0):
        specific = listening(host, PORT)
        with hammer.serving(host, HOST):
            others = listening(host, PORT) - specific
            made = hammer(module_lab.client, "dial", HOST, 3, 0) + hammer(module_lab.web, "dial", CNI0, 3, 0)
    flows = {str(flow.dialled): flow for flow in watch.read()}
    assert ({flows[CNI0].listener}, {flows[HOST].listener}) == (specific, others)
    assert counts(watch) == {("delivered", None): made}


@pytest.mark.parametrize("address", [HOST, HOST6])
@pytest.mark.parametrize("tracked", [False, True])
def test_given_to_a_socket_on_another_port(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer, address: str, tracked: bool
) -> None:
    """By TPROXY: every packet keeps its addresses, and only the listener tells. It is bound to any address."""
    host.shell(
        "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null || true\n"
        "nft 'table inet t { chain p { type filter hook prerouting priority mangle; }; }'\n"
        f"nft add rule inet t p tcp dport {PORT} tproxy to :8443"
    )
    if tracked:
        host.shell(
            "nft 'table inet u { chain p { type filter hook prerouting priority 0; ct state new accept; }; }'"
        )
    made = 5
    with hammer.serving(host, "0.0.0.0"):
        for _ in range(made):
            with module_lab.client.inside():
                socket.create_connection((address, PORT), 5).close()
    flow, *_ = watch.read()
    there = event.format_endpoint(ipaddress.ip_address(address), 8443)
    assert counts(watch) == {("diverted", there): made}
    assert (str(flow.dialled), str(flow.reached), flow.reached_port) == (address, address, 8443)
    assert {flow.listener} == listening(host, 8443)


def test_from_outside_to_a_pod(module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer) -> None:
    dnat(host, f"dnat to {POD}:6444")
    with hammer.serving(module_lab.pod, POD, 6444), hammer.serving(host, "0.0.0.0"):
        assert hammer(module_lab.client, "dial", HOST, 1, 0) == 1
        flow = only(watch.read())
        made = hammer(module_lab.client, "dial", HOST, MANY, 0)
    assert made == MANY
    assert counts(watch) == {("diverted", f"{POD}:6444"): 1 + made}
    assert (str(flow.source), str(flow.dialled), str(flow.reached)) == (CLIENT, HOST, POD)
    assert (flow.dialled_port, flow.reached_port) == (PORT, 6444)
    assert flow.outcome is Outcome.DIVERTED
    assert flow.drop_reason is None


def test_from_the_host_itself_to_a_pod(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer
) -> None:
    host.sysctl(ipv4__conf__all__route_localnet=1)
    try:
        dnat(host, f"dnat to {POD}", hook="output")
        with hammer.serving(module_lab.pod, POD):
            made = hammer(host, "dial", "127.0.0.1", MANY, 0) + hammer(host, "dial", HOST, MANY, 0)
    finally:
        host.sysctl(ipv4__conf__all__route_localnet=0)
    assert made == 2 * MANY
    assert counts(watch) == {("diverted", f"{POD}:{PORT}"): made}


def test_redirect(module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer) -> None:
    """To a local port: one that listens, then one that does not."""
    dnat(host, "redirect to :7444")
    with hammer.serving(host, "0.0.0.0", 7444):
        made = hammer(module_lab.client, "dial", HOST, MANY, 0)
    assert made == MANY
    assert counts(watch) == {("diverted", f"{HOST}:7444"): made}
    assert hammer(module_lab.client, "dial", HOST, 10, 0) == 0
    assert counts(watch) == {("diverted", f"{HOST}:7444"): made + 10}


def test_to_another_host(module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer) -> None:
    """In and out through the same interface."""
    dnat(host, f"dnat to {OTHER}")
    with hammer.serving(module_lab.other, OTHER):
        made = hammer(module_lab.client, "dial", HOST, MANY, 0)
    assert made == MANY
    assert counts(watch) == {("diverted", f"{OTHER}:{PORT}"): made}


@pytest.mark.parametrize("many", [1, MANY])
def test_to_a_dead_pod(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer, many: int
) -> None:
    """The SYNs wait for an ARP answer that never comes, are sent again, and are all dropped."""
    dnat(host, f"dnat to {DEAD_POD}")
    made = hammer(module_lab.client, "hold", HOST, many, 7)
    host.run("ip", "neigh", "delete", DEAD_POD, "dev", "cni0")  # drops what still waits
    assert counts(watch) == {("diverted", f"{DEAD_POD}:{PORT}"): made}
    flow, *more = watch.read()
    assert (str(flow.dialled), str(flow.reached), flow.outcome) == (HOST, DEAD_POD, Outcome.DIVERTED)
    if many == 1:
        assert (flow.count, flow.drop_reason) == (1, first_sight(watch, "NEIGH_FAILED"))
        assert lost(flow, *more) == ["NEIGH_FAILED"]
        assert sum(each.count for each in more) == 0


@pytest.mark.parametrize("many", [1, MANY])
def test_diverted_and_then_dropped_by_a_filter(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer, many: int
) -> None:
    """Each SYN takes its conntrack entry with it, so every retransmission is translated afresh."""
    dnat(host, f"dnat to {POD}")
    host.shell(
        "nft 'add chain ip t forward {type filter hook forward priority 0;}'\n"
        f"nft add rule ip t forward ip daddr {POD} drop"
    )
    made = hammer(module_lab.client, "hold", HOST, many, 4)
    assert counts(watch) == {("diverted", f"{POD}:{PORT}"): made}
    flows = watch.read()
    flow = flows[0]
    assert (str(flow.dialled), str(flow.reached)) == (HOST, POD)
    assert (flow.outcome, flow.drop_reason) == (Outcome.DIVERTED, first_sight(watch, "NETFILTER_DROP"))
    assert set(lost(*flows)) == {"NETFILTER_DROP"}
    if many == 1:
        assert (len(lost(*flows)), sum(flow.count for flow in flows)) == (1, 1)


@pytest.mark.parametrize("many", [1, MANY])
@pytest.mark.parametrize("tracked", [True, False])
def test_dropped_at_the_door(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer, tracked: bool, many: int
) -> None:
    """INPUT drops what nobody diverted, with a conntrack entry and without."""
    if tracked:
        dnat(host, "accept")
    host.shell(
        "nft add table ip f; nft 'add chain ip f input {type filter hook input priority 0;}'\n"
        f"nft add rule ip f input tcp dport {PORT} drop"
    )
    with hammer.serving(host, "0.0.0.0"):
        made = hammer(module_lab.client, "hold", HOST, many, 4)
    assert counts(watch) == {("dropped", None): made}
    flow = watch.read()[0]
    assert (str(flow.dialled), str(flow.reached)) == (HOST, HOST)
    assert (flow.outcome, flow.drop_reason) == (Outcome.DROPPED, "NETFILTER_DROP")


def test_nobody_listens(module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer) -> None:
    """Refused with a reset: not delivered to anybody."""
    assert hammer(module_lab.client, "dial", HOST, MANY, 0) == 0
    assert counts(watch) == {("dropped", None): MANY}
    assert watch.read()[0].drop_reason == "NO_SOCKET"


def test_ipv6(module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer) -> None:
    with hammer.serving(host, "::"):
        made = hammer(module_lab.client, "dial", HOST6, MANY, 0) + hammer(host, "dial", "::1", MANY, 0)
    assert made == 2 * MANY
    assert counts(watch) == {("delivered", None): made}
    watch.read()
    dnat(host, f"dnat to [{POD6}]:6444", family="ip6")
    with hammer.serving(module_lab.pod, POD6, 6444):
        assert hammer(module_lab.client, "dial", HOST6, MANY, 0) == MANY
    assert counts(watch) == {("delivered", None): made, ("diverted", f"[{POD6}]:6444"): MANY}
    flow = watch.read()[0]
    assert (str(flow.dialled), str(flow.reached)) == (HOST6, POD6)


def test_udp(module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer) -> None:
    """One count per conntrack entry, though each is six packets."""
    with hammer.serving(host, HOST):
        assert hammer(module_lab.client, "udp", HOST, 100, 2000) == 100
        dnat(host, "accept")
        assert hammer(module_lab.client, "udp", HOST, MANY, 3000) == MANY
        assert counts(watch) == {("delivered", None): 100 + MANY}
        host.shell("nft delete table ip t")
    dnat(host, f"dnat to {POD}")
    with hammer.serving(module_lab.pod, POD):
        assert hammer(module_lab.client, "udp", HOST, MANY, 6000) == MANY
    assert counts(watch) == {("delivered", None): 100 + MANY, ("diverted", f"{POD}:{PORT}"): MANY}
    assert {row.protocol for row in watch.counts() if row.connections} == {Protocol.UDP}


def test_the_same_source_port_again_and_again(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer
) -> None:
    """Four-tuples come back; the initial sequence number tells the connections apart.

    On a slow machine a reset may come after the next SYN, which is lost then: one more that was tried and not made.
    """

    def again() -> int:
        return hammer(module_lab.client, "again", HOST, 500, 4000)

    with hammer.serving(host, "0.0.0.0"):
        made = again()
        dnat(host, "accept")
        made += again()
        host.shell("nft delete table ip t")
    dnat(host, f"dnat to {POD}")
    with hammer.serving(module_lab.pod, POD):
        diverted = again()
    assert made > 980
    assert diverted > 490
    seen = counts(watch)
    assert set(seen) == {("delivered", None), ("diverted", f"{POD}:{PORT}")}
    assert made <= seen["delivered", None] <= 1000
    assert diverted <= seen["diverted", f"{POD}:{PORT}"] <= 500


def test_ten_thousand_a_second(module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer) -> None:
    """Counted to the last one, while who reads along does nearly nothing (bench/probe_rate.py has the table)."""
    dnat(host, f"dnat to {POD}")
    with hammer.serving(module_lab.pod, POD), module_lab.client.inside():
        argv: list[str | Path] = [hammer.path, "dial", HOST, str(PORT), "10000", "10000"]
        client = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        spent, events = time.process_time(), 0
        poll = select.poll()
        poll.register(watch.fileno(), select.POLLIN)
        while client.poll() is None:
            poll.poll(100)
            events += len(watch.read())
        spent = time.process_time() - spent
    assert client.communicate()[0].split()[:2] == ["10000", "0"]
    assert counts(watch) == {("diverted", f"{POD}:{PORT}"): 10000}
    assert 0 < events < 100
    assert spent < 0.1


def test_what_nat_tells_and_what_packets_tell_is_one_connection(
    module_lab: Lab, host: Namespace, hammer: Hammer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fentry and kprobe logic, here called from the tracepoint: it knows the connection by conntrack's copy of
    the sequence number, the packets by their own. Were these not the same, everything would be counted twice."""
    real = probe.source_directory()
    source = (real / "probe.c").read_text()
    called = source.replace(
        "bump(SEEN_QUEUED);",
        "bump(SEEN_QUEUED);\n"
        "unsigned long ct = LOAD(unsigned long, ctx->args[0], SKB_NFCT) & ~NFCT_INFOMASK;\n"
        "if (ct && LOAD(u8, ct + CT_ORIGINAL, TUPLE_PROTONUM) == IPPROTO_TCP)\n"
        "translated((const char *)ct, NF_NAT_MANIP_DST);",
    )
    assert called != source
    for name in ("kernel.h", "packet.h", "events.h", "doer.h", "doer.c", "shim"):
        (tmp_path / name).symlink_to(real / name)
    (tmp_path / "probe.c").write_text(called)
    monkeypatch.setattr(probe, "source_directory", lambda: tmp_path)
    with host.inside():
        watch = open_flow_watch(Attach.TRACEPOINT)
    assert watch.attach is Attach.TRACEPOINT, watch.refused
    watch.protect(API, ADDRESSES)
    dnat(host, f"dnat to {POD}:6444")
    with hammer.serving(module_lab.pod, POD, 6444):
        made = hammer(module_lab.client, "dial", HOST, MANY, 0)
    found = {(row.outcome, row.destination): row.connections for row in watch.counts() if row.connections}
    watch.close()
    assert found == {(Outcome.DIVERTED, f"{POD}:6444"): made}
    assert made == MANY


def test_what_is_not_ours_is_not_counted(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer
) -> None:
    """Another port that leads to ours, the same port of others, forwarded and in other namespaces."""
    dnat(host, "accept")
    host.shell(f"nft add rule ip t nat tcp dport 7000 redirect to :{PORT}")
    with hammer.serving(host, "0.0.0.0"), hammer.serving(module_lab.pod, POD):
        assert hammer(module_lab.client, "dial", HOST, 10, 0, port=7000) == 10
        assert hammer(module_lab.other, "dial", POD, 10, 0) == 10  # through this host
        assert hammer(module_lab.pod, "dial", "127.0.0.1", 10, 0) == 0  # bound to POD only
        assert hammer(host, "dial", POD, 10, 0) == 10
        assert hammer(module_lab.pod, "dial", POD, 10, 0) == 10
    assert counts(watch) == {}


def test_protection_follows_the_addresses(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer
) -> None:
    def protect(spec: ProtectedPort, addresses: frozenset[Address]) -> None:
        watch.protect([spec], addresses)

    only_host = ProtectedPort("api", PORT, addresses=(ipaddress.ip_network("192.168.1.0/24"),))
    with hammer.serving(host, "0.0.0.0"):
        protect(only_host, ADDRESSES)
        assert hammer(host, "dial", "127.0.0.1", 10, 0) == 10
        assert hammer(host, "dial", HOST, 10, 0) == 10
        assert counts(watch) == {("delivered", None): 10}
        protect(API[0], ADDRESSES - {ipaddress.ip_address(HOST)})
        assert hammer(host, "dial", "127.0.0.1", 10, 0) == 10
        assert hammer(host, "dial", HOST, 10, 0) == 10
        assert counts(watch) == {("delivered", None): 20}


def test_events_are_few_and_stand_for_all(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer
) -> None:
    with hammer.serving(host, "0.0.0.0"):
        start = time.monotonic()
        hammer(module_lab.client, "dial", HOST, 3 * MANY, 0)
        seconds = time.monotonic() - start
    flows = watch.read()
    assert 10 <= len(flows) <= 10 * (int(seconds) + 2)
    assert flows[0].count == 1
    assert sum(flow.count for flow in flows) <= 3 * MANY


def test_more_destinations_than_rows(
    module_lab: Lab, host: Namespace, watch: ProbeWatch, hammer: Hammer
) -> None:
    """What does not fit is counted without its destination, not lost; nor is an event lost without a count."""
    dnat(host, f"dnat to {POD}:numgen inc mod 1500 offset 20000")
    assert hammer(module_lab.client, "dial", HOST, 2000, 0) == 0  # refused: nobody listens there
    found = counts(watch)
    assert sum(found.values()) == 2000
    assert len(found) > 1000
    assert found["diverted", None] == 1500 - (len(found) - 1)  # the first destinations have the rows
    flows = watch.read()
    assert len(flows) > 700
    assert len(flows) + watch.lost()["ring"] >= len(found)


def test_alive(host: Namespace, watch: ProbeWatch) -> None:
    """Also on a host where nothing happens; no longer when a program is detached behind our back."""
    assert [watch.alive() for _ in range(3)] == [True] * 3
    fds = watch._probe._fds
    os.close(fds.pop("link:freed"))
    assert watch.alive()
    os.close(fds.pop("link:freed_too"))
    assert not watch.alive()


def test_nothing_is_left_behind(host: Namespace) -> None:
    """The loader has exited and was reaped; closing gives back every descriptor; bcc never came in."""
    before = set(os.listdir("/proc/self/fd"))
    with host.inside():
        watch = open_flow_watch()
    assert watch.attach is not Attach.NONE
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    watch.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_memory_of_a_daemon_that_holds_the_probe(repo: Path) -> None:
    """In a fresh process: all of Python, the probe and its maps' mapping."""
    script = (
        "import sys\n"
        "from k3swatch.live.flows import open_flow_watch\n"
        "watch = open_flow_watch()\n"
        "watch.read(); watch.counts()\n"
        "assert 'bcc' not in sys.modules\n"
        "kb = [line for line in open('/proc/self/status') if line.startswith('VmRSS')][0].split()[1]\n"
        "print(watch.attach, kb)"
    )
    python = repo / ".venv" / "bin" / "python"
    out = subprocess.run([python, "-c", script], cwd=repo, capture_output=True, text=True, check=True).stdout
    attach, kilobytes = out.split()
    assert attach in ("fentry", "kprobe", "tracepoint")
    assert int(kilobytes) < 24_000
