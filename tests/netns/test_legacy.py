"""iptables-legacy tables as the kernel has them: read, never made, and watched without events.

`--update-golden` writes the blob that tests/unit/decode/test_legacy.py reads.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from k3swatch.demo.netns import Namespace, namespaces
from k3swatch.errors import Interrupted
from k3swatch.evaluate.text import rule_text
from k3swatch.live.ruleset import LiveRuleset
from k3swatch.live.snapshot import SnapshotRuleset, capture
from k3swatch.model.expr import Code
from k3swatch.model.ruleset import ChainRef
from k3swatch.sources.nftables import NftablesSource
from k3swatch.sources.xtables import legacy_table_names, read_legacy_table

BLOB = Path(__file__).parents[1] / "unit" / "decode" / "data" / "legacy-nat"
IP, IP6 = 2, 10

TABLES = """
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
:KUBE-SVC -
:EMPTY -
-A PREROUTING -i eth+ -s 10.0.0.0/8 ! -d 10.43.0.1/32 -p tcp -m tcp --dport 6443 -j KUBE-SVC
-A PREROUTING -d 10.43.0.1/32 -m comment --comment "a service" -g KUBE-SVC
-A PREROUTING -m addrtype --dst-type LOCAL
-A PREROUTING -j EMPTY
-A KUBE-SVC -m mark --mark 0x7/0xff -j RETURN
-A KUBE-SVC -p tcp -j DNAT --to-destination 10.42.0.9:6443
-A POSTROUTING -o eth0 -j MASQUERADE
COMMIT
*filter
:INPUT DROP
:FORWARD ACCEPT
:OUTPUT ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m tcp --dport 6443 -j REJECT
COMMIT
"""
IP6_RULE = "-d fd00::1 -p tcp --dport 6443 -j DNAT --to-destination [fd00::5]:6443"

EXPECTED = {
    ("nat", "PREROUTING"): [
        'iifname "eth*" ip saddr 10.0.0.0/8 ip daddr != 10.43.0.1 tcp dport 6443 jump KUBE-SVC',
        "ip daddr 10.43.0.1 goto KUBE-SVC",
        "fib daddr type local",
        "jump EMPTY",
    ],
    ("nat", "KUBE-SVC"): [
        "meta mark & 0x000000ff == 0x00000007 return",
        "meta l4proto tcp dnat to 10.42.0.9:6443",
    ],
    ("nat", "EMPTY"): [],
    ("nat", "INPUT"): [],
    ("nat", "POSTROUTING"): ['oifname "eth0" masquerade'],
    ("filter", "INPUT"): ['iifname "lo" accept', "tcp dport 6443 reject"],
}


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespaces("legacy") as spaces:
        yield spaces["legacy"]


@pytest.fixture
def source(space: Namespace) -> Iterator[NftablesSource]:
    """The namespace with the tables in it; the test runs inside."""
    space.run("iptables-legacy-restore", stdin=TABLES)
    space.run("ip6tables-legacy", "-t", "nat", "-A", "PREROUTING", *IP6_RULE.split())
    space.ip("link set lo up")
    with space.inside(), NftablesSource() as source:
        yield source


def texts(
    ruleset: LiveRuleset | SnapshotRuleset, table: str, chain: str, family: str = "legacy ip"
) -> list[str]:
    ref = ChainRef(family, table, chain)
    return [rule_text(ruleset.expressions(rule), family) for rule in ruleset.rules(ref)]


def test_tables_are_never_made_by_looking(space: Namespace) -> None:
    with space.inside(), NftablesSource() as source:
        live = LiveRuleset(source)
        assert live.base_chains(0, IP) == []
        assert live.legacy_tables() == ()
        live.check()
        capture(source, 0.0)
        assert legacy_table_names() == ()


def test_rules_are_those_that_were_put_in(source: NftablesSource) -> None:
    live, snapshot = LiveRuleset(source), SnapshotRuleset(capture(source, 0.0))
    for ruleset in (live, snapshot):
        assert {key: texts(ruleset, *key) for key in EXPECTED} == EXPECTED
        assert texts(ruleset, "nat", "PREROUTING", "legacy ip6") == [
            "ip6 daddr fd00::1 tcp dport 6443 dnat to [fd00::5]:6443"
        ]
        assert ruleset.legacy_tables() == ()


def test_hooks_priorities_and_policies(source: NftablesSource) -> None:
    live, snapshot = LiveRuleset(source), SnapshotRuleset(capture(source, 0.0))
    found = {
        (base.ref.family, base.ref.table, base.ref.chain): (
            base.type,
            base.hook,
            base.priority,
            Code(base.policy),
        )
        for hook in range(5)
        for nfproto in (IP, IP6)
        for base in live.base_chains(hook, nfproto)
    }
    assert found["legacy ip", "nat", "PREROUTING"] == ("nat", 0, -100, Code.ACCEPT)
    assert found["legacy ip", "nat", "POSTROUTING"] == ("nat", 4, 100, Code.ACCEPT)
    assert found["legacy ip", "filter", "INPUT"] == ("filter", 1, 0, Code.DROP)
    assert found["legacy ip6", "nat", "OUTPUT"] == ("nat", 3, -100, Code.ACCEPT)
    assert len(found) == 11
    for hook in range(5):
        assert live.base_chains(hook, IP) == snapshot.base_chains(hook, IP)


def test_only_the_exact_destination_is_told_beforehand(source: NftablesSource) -> None:
    rules = LiveRuleset(source).rules(ChainRef("legacy ip", "nat", "PREROUTING"))
    assert [rule.daddr for rule in rules] == [None, b"\n+\0\1", None, None]
    assert [rule.handle for rule in rules] == [1, 2, 3, 4]


def test_a_change_is_seen_and_traffic_is_none(space: Namespace, source: NftablesSource) -> None:
    live = LiveRuleset(source)
    live.base_chains(0, IP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"counted", ("127.0.0.1", 9))
    live.check()
    changes = [
        ["-A", "EMPTY", "-j", "RETURN"],
        [
            "-R",
            "KUBE-SVC",
            "2",
            "-p",
            "tcp",
            "-j",
            "DNAT",
            "--to-destination",
            "10.42.0.8:6443",
        ],  # of the same size
        ["-t", "mangle", "-S"],  # makes a table
    ]
    for change in changes:
        space.run("iptables-legacy", "-t", "nat", *change)
        with pytest.raises(Interrupted):
            live.check()
        live.refresh()
        live.base_chains(0, IP)
        live.check()
    assert texts(live, "nat", "KUBE-SVC")[1] == "meta l4proto tcp dnat to 10.42.0.8:6443"


def test_who_may_not_list_them_is_told_so(source: NftablesSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are readable for the group root only, and the daemon is another user."""

    def refuse(self: Path, **arguments: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    live = LiveRuleset(source)
    assert live.legacy_tables() == ("ip (cannot be listed)", "ip6 (cannot be listed)")
    assert live.base_chains(0, IP) == []
    live.check()


def test_the_blob_of_the_unit_tests_is_of_this_table(source: NftablesSource, update_golden: bool) -> None:
    blob = read_legacy_table("ip", "nat")
    if update_golden:
        BLOB.with_suffix(".info").write_bytes(blob.info)
        BLOB.with_suffix(".entries").write_bytes(blob.entries)
    assert BLOB.with_suffix(".info").read_bytes() == blob.info
    assert len(BLOB.with_suffix(".entries").read_bytes()) == len(blob.entries)
