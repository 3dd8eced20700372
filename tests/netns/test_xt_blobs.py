"""What iptables, ip6tables and nft really put into the kernel, read back over netlink: blobs, their meaning, the text.

The samples of the unit tests are written from here: to add one, write its first line into the file and run this with
`--update-golden`; without it the test compares.
So the structures of decode/xt are those this kernel and this iptables speak, and the words are nft's own.
"""

from __future__ import annotations

import shlex
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.rules import IPTABLES_FILE, NFT_FILE, Sample, plain, typed, write

from k3swatch.decode.rule import decode_rule
from k3swatch.demo.netns import Namespace, namespaces
from k3swatch.sources.netlink import NETLINK_NETFILTER, attribute
from k3swatch.sources.nftables import NftablesSource

TABLES = """
table ip t {
  set nets { type ipv4_addr; flags interval; }
  set dyn { type ipv4_addr; flags dynamic,timeout; timeout 1h; }
  map targets { type inet_service : ipv4_addr . inet_service; }
  map verdicts { type ipv4_addr . inet_service : verdict; }
  map marks { type ipv4_addr : mark; }
  counter c { }
  quota q { over 25 mbytes }
  limit l { rate 5/second }
  ct helper h { type "ftp" protocol tcp; }
  chain other { }
  chain nat { type nat hook prerouting priority -100; }
  chain post { type nat hook postrouting priority 100; }
  chain pre { type filter hook prerouting priority -150; }
  chain raw { type filter hook prerouting priority -300; }
  chain in { type filter hook input priority 0; }
  chain ofil { type filter hook output priority 0; }
}
table ip6 t {
  chain nat { type nat hook prerouting priority -100; }
  chain pre { type filter hook prerouting priority -150; }
  chain in { type filter hook input priority 0; }
}
table inet t {
  map hosts { type inet_service : ipv4_addr; }
  map both { type ipv4_addr . inet_service : ipv4_addr . inet_service; }
  chain other { }
  chain nat { type nat hook prerouting priority -100; }
  chain post { type nat hook postrouting priority 100; }
  chain pre { type filter hook prerouting priority -150; }
  chain in { type filter hook input priority 0; }
}
"""

# NFNL_SUBSYS_IPSET, NFNL_SUBSYS_ACCT; IPSET_CMD_CREATE; NFNL_MSG_ACCT_NEW
IPSET_CREATE, ACCT_NEW = 6 << 8 | 2, 7 << 8 | 0
NLM_F_REQUEST_ACK_CREATE = 0x1 | 0x4 | 0x400
CADT_FLAGS, WITH_COUNTERS, WITH_SKBINFO = 8, 1 << 3, 1 << 6  # IPSET_ATTR_CADT_FLAGS, IPSET_FLAG_WITH_*
NESTED = 0x8000


def tell(kind: int, family: int, payload: bytes) -> None:
    """One netfilter netlink request, its acknowledgement checked."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        header = struct.pack("=IHHII", 20 + len(payload), kind, NLM_F_REQUEST_ACK_CREATE, 1, 0)
        netlink.send(header + struct.pack(">BBH", family, 0, 0) + payload)
        (error,) = struct.unpack_from("=i", netlink.recv(8192), 16)
        assert error == 0, f"request {kind:#x}: errno {-error}"


def make_ipset(name: str, kind: str, revision: int, flags: int = 0) -> None:
    """`ipset create NAME TYPE`, without the tool."""
    tell(
        IPSET_CREATE,
        socket.AF_INET,
        attribute(1, bytes([7]))
        + attribute(2, name.encode() + b"\0")
        + attribute(3, kind.encode() + b"\0")
        + attribute(4, bytes([revision]))
        + attribute(5, bytes([socket.AF_INET]))
        + attribute(7 | NESTED, attribute(CADT_FLAGS | 0x4000, struct.pack(">I", flags)) if flags else b""),
    )


def samples_of(
    space: Namespace, source: NftablesSource, asked: list[tuple[str, str, str, str]]
) -> list[Sample]:
    """What the kernel has for rules that were appended in this order: (family, table, chain, as typed)."""
    kept: dict[tuple[str, str, str], list[tuple[bytes, str]]] = {}
    for key in {(family, table, chain) for family, table, chain, _ in asked}:
        listed = space.run("nft", "-a", "list", "chain", *key).splitlines()
        listed = [line for line in listed if line.startswith("\t\t") and " # handle " in line]
        lines = {int(line.rsplit(" ", 1)[1]): plain(line) for line in listed}
        rules = [decode_rule(raw) for raw in source.rules(*key)]
        kept[key] = [(rule.raw, lines.get(rule.handle, "?")) for rule in rules]
    found = [
        Sample(family, typed, *kept[family, table, chain].pop(0)) for family, table, chain, typed in asked
    ]
    assert not any(kept.values()), "a rule was not asked for"
    return found


def compare(file: Path, samples: list[Sample], update: bool) -> None:
    """The whole file at once, so that pytest shows what differs."""
    written = write(samples)
    if update:
        file.write_text(written)
    assert file.read_text() == written


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespaces("xt") as spaces:
        spaces["xt"].ip("link set lo up")
        yield spaces["xt"]


def test_iptables(space: Namespace, update_golden: bool) -> None:
    with space.inside():
        make_ipset("hosts", "hash:ip", 5)
        make_ipset("ports", "hash:ip,port", 6, WITH_COUNTERS)
        make_ipset("marks", "hash:ip", 5, WITH_SKBINFO)
        tell(ACCT_NEW, 0, attribute(1, b"hits\0"))
        source = NftablesSource()
    asked = []
    for family, command in typed(IPTABLES_FILE):
        words = shlex.split(command)
        space.run(*words)
        asked.append((family, words[2], words[4], command))
    with source:
        compare(IPTABLES_FILE, samples_of(space, source, asked), update_golden)


def test_nft(space: Namespace, update_golden: bool) -> None:
    asked = [(family, "t", rule.split()[0], rule) for family, rule in typed(NFT_FILE)]
    script = "\n".join(f"add rule {family} t {rule}" for family, _, _, rule in asked)
    space.run("nft", "-f", "-", stdin=TABLES + script)
    with space.inside():
        source = NftablesSource()
    with source:
        compare(NFT_FILE, samples_of(space, source, asked), update_golden)
