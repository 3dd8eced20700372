"""The live ruleset on real nf_tables: every kind of set looked up, snapshot and live agree, churn survived."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from k3swatch.decode.generation import decode_newgen
from k3swatch.demo.netns import Namespace, namespaces
from k3swatch.errors import DecodeError, Interrupted, NotPermitted
from k3swatch.live.host import read_host
from k3swatch.live.ruleset import LiveRuleset
from k3swatch.live.snapshot import SnapshotRuleset, capture
from k3swatch.model.expr import Cmp, Code, Verdict
from k3swatch.model.ruleset import ChainRef, Found, SetInfo
from k3swatch.model.words import Protocol
from k3swatch.sources.nftables import GenerationEvents, NftablesSource
from k3swatch.sources.rtnetlink import AddressEvents

RULESET = Path(__file__).with_name("rich.nft")
IP, IP6, NETDEV = 2, 10, 5


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def port(number: int) -> bytes:
    return number.to_bytes(2, "big")


def padded(key: bytes, length: int = 4) -> bytes:
    return key + bytes(-len(key) % length)


@pytest.fixture(scope="module")
def space(root: None) -> Iterator[Namespace]:
    with namespaces("live") as spaces:
        spaces["live"].run("nft", "-f", str(RULESET))
        yield spaces["live"]


@pytest.fixture
def source(space: Namespace) -> Iterator[NftablesSource]:
    with space.inside(), NftablesSource() as source:
        yield source


@pytest.fixture
def live(source: NftablesSource) -> LiveRuleset:
    return LiveRuleset(source)


@pytest.fixture
def snapshot(source: NftablesSource) -> SnapshotRuleset:
    return SnapshotRuleset(capture(source, 0.0))


def test_base_chains_by_hook_and_family(live: LiveRuleset) -> None:
    def tables(hook: int, nfproto: int) -> list[tuple[str, int, int]]:
        return [(chain.ref.table, chain.priority, chain.policy) for chain in live.base_chains(hook, nfproto)]

    assert tables(0, IP) == [("t", -100, Code.ACCEPT)]
    assert tables(0, IP6) == [("t", -100, Code.ACCEPT), ("six", -90, Code.ACCEPT)]
    assert tables(1, IP) == [("t", 0, Code.DROP)]
    assert [chain.device for chain in live.base_chains(0, NETDEV)] == ["lo"]


def test_dormant_table_is_left_out_until_it_wakes(space: Namespace, source: NftablesSource) -> None:
    space.run("nft", "add table ip dorm")
    try:
        assert "dorm" in {chain.ref.table for chain in LiveRuleset(source).base_chains(0, IP)}
    finally:
        space.run("nft", "add table ip dorm { flags dormant; }")
    assert "dorm" not in {chain.ref.table for chain in LiveRuleset(source).base_chains(0, IP)}


def test_rules_are_in_order_with_comment_and_destination(live: LiveRuleset) -> None:
    (base, _) = live.base_chains(0, IP6)
    rules = live.rules(base.ref)
    assert [rule.handle for rule in rules] == sorted(rule.handle for rule in rules)
    assert [rule.daddr for rule in rules] == [None, ip("10.0.0.1"), None, ip("fd00::1"), None]
    assert rules[0].comment == "six ports"
    assert all(live.expressions(rule) for rule in rules)


def test_chain_that_is_empty_and_chain_that_is_not_there(live: LiveRuleset) -> None:
    assert live.rules(ChainRef("inet", "t", "other")) == ()
    with pytest.raises(DecodeError):
        live.rules(ChainRef("inet", "t", "nowhere"))
    with pytest.raises(DecodeError):
        live.set_info("inet", "t", "nowhere")


IN, OUT = Found(), None


def to(address: str) -> Found:
    return Found(ip(address))


def goto(code: int, chain: str | None = None) -> Found:
    return Found(verdict=Verdict(code, chain))


LOOKUPS = [
    ("hash4", {ip("10.0.0.1"): IN, ip("10.0.0.3"): OUT}),
    ("bytes1", {b"\6": IN, b"\6\0\0\0": IN, b"\x11": OUT}),
    (
        "interval4",
        {
            ip("9.255.255.255"): OUT,
            ip("10.0.0.0"): IN,
            ip("10.255.255.255"): IN,
            ip("11.0.0.0"): OUT,
            ip("192.168.1.9"): OUT,
            ip("192.168.1.20"): IN,
            ip("192.168.1.21"): OUT,
            ip("255.255.255.255"): IN,
        },
    ),
    ("interval6", {ip("fd00::1"): IN, ip("fe00::"): OUT, ip("2001:db8::1"): IN, ip("2001:db8::2"): OUT}),
    (
        "neighbours",
        {
            port(99): OUT,
            port(100): IN,
            port(199): IN,
            port(200): IN,
            port(300): OUT,
            port(65535): IN,
            port(64999): OUT,
        },
    ),
    (
        "interval_map",
        {
            port(99): OUT,
            port(100): to("1.1.1.1"),
            port(199): to("1.1.1.1"),
            port(200): to("2.2.2.2"),
            port(300): OUT,
            padded(port(6443)): to("3.3.3.3"),
            port(6444): OUT,
        },
    ),
    (
        "concat",
        {
            ip("10.1.1.1") + padded(port(6443)): Found(ip("10.2.2.2") + padded(port(443))),
            ip("10.1.1.1") + padded(port(6444)): OUT,
        },
    ),
    (
        "concat_interval",
        {
            ip("192.168.56.77") + padded(b"\6") + padded(port(6443)): to("10.8.8.8"),
            ip("192.168.56.77") + padded(b"\6") + padded(port(7000)): OUT,
            ip("192.168.57.1") + padded(b"\6") + padded(port(6443)): OUT,
            ip("192.168.56.77") + padded(b"\x11") + padded(port(6443)): OUT,
            ip("10.0.0.9") + padded(b"\x11") + padded(port(53)): to("9.9.9.9"),
        },
    ),
    (
        "verdicts",
        {
            port(6443): goto(Code.GOTO, "other"),
            port(80): goto(Code.JUMP, "other"),
            port(443): goto(Code.DROP),
            port(444): goto(Code.ACCEPT),
        },
    ),
    ("everything", {ip("1.2.3.4"): IN}),
    ("timed", {ip("10.5.5.5"): IN, ip("10.5.5.6"): OUT}),
    ("marks", {bytes([0, 0, 0, 0x15]): IN, bytes([0, 0, 0, 0x25]): OUT}),
    ("names", {b"eth0".ljust(16, b"\0"): IN, b"eth1".ljust(16, b"\0"): OUT}),
    ("wildcards", {b"veth12".ljust(16, b"\0"): IN, b"vet".ljust(16, b"\0"): OUT}),
    ("objects", {port(6443): Found(b"counted"), port(80): OUT}),
    ("__set0", {port(22): IN, port(7005): IN, port(7011): OUT}),
    ("__map0", {port(1): goto(Code.ACCEPT), port(3): goto(Code.GOTO, "other"), port(6): OUT}),
    (
        "__map1",
        {
            ip("10.4.4.4") + padded(port(6443)): goto(Code.JUMP, "other"),
            ip("192.168.0.1") + padded(port(50)): goto(Code.ACCEPT),
            ip("192.168.0.1") + padded(port(101)): OUT,
        },
    ),
]


@pytest.mark.parametrize(("name", "answers"), LOOKUPS, ids=[name for name, _ in LOOKUPS])
def test_lookup_live_and_in_a_snapshot(
    name: str, answers: dict[bytes, Found | None], live: LiveRuleset, snapshot: SnapshotRuleset
) -> None:
    info = live.set_info("inet", "t", name)
    assert snapshot.set_info("inet", "t", name) == info
    for key, expected in answers.items():
        assert live.lookup(info, key) == expected, key
        assert snapshot.lookup(info, key) == expected, key


def test_element_with_a_limit_is_not_taken_for_a_plain_member(
    live: LiveRuleset, snapshot: SnapshotRuleset
) -> None:
    for ruleset in (live, snapshot):
        with pytest.raises(DecodeError, match="carries limit"):
            ruleset.lookup(ruleset.set_info("inet", "t", "limited"), ip("10.9.9.9"))


def test_snapshot_agrees_with_live_in_everything(live: LiveRuleset, snapshot: SnapshotRuleset) -> None:
    assert snapshot.generation == live.generation
    for hook in range(6):
        for nfproto in (IP, IP6, NETDEV):
            assert list(snapshot.base_chains(hook, nfproto)) == list(live.base_chains(hook, nfproto))
    for table, chain in (("t", "pre"), ("t", "ing"), ("t", "other")):
        ref = ChainRef("inet", table, chain)
        assert list(snapshot.rules(ref)) == list(live.rules(ref))
    for name, _ in LOOKUPS:
        info: SetInfo = live.set_info("inet", "t", name)
        assert live.elements(info, 1000) == snapshot.elements(info, 1000)
        assert live.elements(info, 0) is None


def test_random_keys_are_answered_alike(live: LiveRuleset, snapshot: SnapshotRuleset) -> None:
    """Around every end of every interval: the key, the one below and the one above."""
    for name in (
        "interval4",
        "interval6",
        "neighbours",
        "interval_map",
        "marks",
        "__set0",
        "__map0",
        "wildcards",
    ):
        info = live.set_info("inet", "t", name)
        ends = {end for element in live.elements(info, 1000) or () for end in (element.low, element.high)}
        for end in ends:
            for step in (-1, 0, 1):
                key = (int.from_bytes(end, "big") + step) % (1 << 8 * len(end))
                raw = key.to_bytes(len(end), "big")
                assert live.lookup(info, raw) == snapshot.lookup(info, raw), (name, raw)


def test_commit_moves_the_generation(space: Namespace, live: LiveRuleset) -> None:
    live.check()
    before = live.generation
    space.run("nft", "add table ip scratch")
    try:
        with pytest.raises(Interrupted):
            live.check()
        with pytest.raises(Interrupted):
            live.base_chains(0, IP)
        live.refresh()
        assert live.generation == before + 1
        live.check()
        assert live.base_chains(0, IP)
    finally:
        space.run("nft", "delete table ip scratch")


def wait(events: GenerationEvents | AddressEvents, seconds: float = 5.0) -> list[bytes]:
    ready, _, _ = select.select([events], [], [], seconds)
    assert ready, "no event"
    return events.read()


def test_commit_wakes_us_and_names_the_process(space: Namespace, source: NftablesSource) -> None:
    with space.inside():
        events = GenerationEvents()
        assert events.read() == []
        done = subprocess.Popen(["nft", "add table ip scratch; delete table ip scratch"])
        assert done.wait() == 0
    (message,) = wait(events)
    generation = decode_newgen(message)
    assert (generation.pid, generation.comm) == (done.pid, "nft")
    assert generation.id == LiveRuleset(source).generation
    assert events.lost == 0
    events.close()


def test_large_commit_is_one_event_and_nothing_is_lost(space: Namespace) -> None:
    with space.inside():
        events = GenerationEvents()
    rules = "\n".join(f"add rule ip scratch c ip daddr 10.{n >> 8}.{n & 255}.1 accept" for n in range(5000))
    space.run("nft", "-f", "-", stdin=f"add table ip scratch\nadd chain ip scratch c\n{rules}")
    space.run("nft", "delete table ip scratch")
    assert [decode_newgen(message).comm for message in wait(events)] == ["nft", "nft"]
    assert events.lost == 0
    events.close()


def test_overrun_is_counted_and_what_comes_after_is_heard(space: Namespace) -> None:
    """With the smallest receive buffer the kernel gives, a hundred commits do not fit."""
    with space.inside():
        events = GenerationEvents()
        small = socket.socket(fileno=os.dup(events.fileno()))
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        small.close()
        with NftablesSource() as source:
            before = LiveRuleset(source).generation
            script = "\n".join(["add table ip scratch", "delete table ip scratch"] * 50)
            subprocess.run(
                ["sh", "-c", f"while read -r line; do nft $line; done <<X\n{script}\nX\n"], check=True
            )
            heard = wait(events)
            assert LiveRuleset(source).generation == before + 100
    assert len(heard) < 100
    assert events.lost > 0
    space.run("nft", "add table ip scratch; delete table ip scratch")
    assert len(wait(events)) == 1
    events.close()


@pytest.fixture
def churn() -> Iterator[Namespace]:
    """A namespace where every commit replaces two equal rules `tcp dport N accept` and puts 1 into a set when N is
    even: an answer with two different rules, or rules and set that do not fit, would mix two generations.
    """
    with namespaces("churn") as spaces:
        busy = spaces["churn"]
        busy.run("nft", "add table ip t; add chain ip t pre { type nat hook prerouting priority -100; }")
        busy.run("nft", "add set ip t s { type inet_service; }")
        stop = threading.Event()

        def commit(number: int) -> None:
            rule = f"add rule ip t pre tcp dport {number} accept"
            swap = "delete" if number % 2 else "add"
            element = f"{swap} element ip t s {{ 1 }}"
            busy.run("nft", "-f", "-", stdin=f"flush chain ip t pre\n{rule}\n{rule}\n{element}")

        def commits() -> None:
            number = 2
            while not stop.is_set():
                number = number % 60000 + 1
                commit(number)

        commit(2)
        thread = threading.Thread(target=commits)
        thread.start()
        try:
            yield busy
        finally:
            stop.set()
            thread.join()


def assert_one_generation(ruleset: LiveRuleset | SnapshotRuleset) -> None:
    (base,) = ruleset.base_chains(0, IP)
    rules = ruleset.rules(base.ref)
    held = ruleset.lookup(ruleset.set_info("ip", "t", "s"), port(1)) is not None
    first, second = (ruleset.expressions(rule) for rule in rules)
    assert first == second
    dport = first[3]
    assert isinstance(dport, Cmp)
    assert held == (int.from_bytes(dport.data, "big") % 2 == 0)


def test_churn_gives_whole_answers_or_interrupted(churn: Namespace) -> None:
    whole = interrupted = 0
    with churn.inside(), NftablesSource() as source:
        live = LiveRuleset(source)
        deadline = time.monotonic() + 30
        while whole < 100 or interrupted < 3:
            assert time.monotonic() < deadline, f"{whole} whole, {interrupted} interrupted"
            try:
                live.refresh()
                assert_one_generation(live)
                whole += 1
            except Interrupted:
                interrupted += 1


def test_snapshots_taken_under_churn_are_of_one_generation(churn: Namespace) -> None:
    with churn.inside(), NftablesSource() as source:
        for _ in range(20):
            assert_one_generation(SnapshotRuleset(capture(source, 0.0)))


def test_host_facts_of_a_namespace() -> None:
    with namespaces("host") as spaces:
        here = spaces["host"]
        here.ip(
            "link set lo up",
            "link add d0 type veth peer d1",
            "link set d0 up",
            "addr add 192.0.2.9/24 dev d0",
        )
        with here.inside():
            events = AddressEvents()
            listener = socket.create_server(("127.0.0.1", 6443))
            both = socket.create_server(("::", 7443), family=socket.AF_INET6, dualstack_ipv6=True)
            datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            datagrams.bind(("192.0.2.9", 53))
            host = read_host()
            here.ip("addr del 192.0.2.9/24 dev d0")
            assert len(wait(events)) == 1
        sockets = {(each.protocol, str(each.address), each.port, each.v6only) for each in host.sockets or ()}
        for each in (datagrams, both, listener):
            each.close()
        events.close()
    local = {str(address) for address in host.local()}
    assert {"127.0.0.1", "::1", "192.0.2.9"} <= local
    assert {each.name: (each.up, each.kind) for each in host.interfaces if each.name in ("lo", "d0")} == {
        "lo": (True, ""),
        "d0": (True, "veth"),
    }
    assert (Protocol.TCP, "127.0.0.1", 6443, False) in sockets
    assert (Protocol.TCP, "::", 7443, False) in sockets
    assert host.unreadable == ()


def test_without_privileges() -> None:
    """A child that is nobody: what it may not do is told as such."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        said = []
        for ask in (lambda: LiveRuleset(NftablesSource()), GenerationEvents):
            try:
                ask()
            except NotPermitted as error:
                said.append(error.hint)
            except OSError:
                pass
        os.write(write, "|".join(said).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    assert os.read(read, 4096).decode().count("CAP_NET_ADMIN") == 2
    os.close(read)
