"""The text of a rule: against nft's own words for real rules, by hand for what no tool makes here, junk."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rules import IPTABLES_FILE, NFT_FILE, Sample, read

from k3swatch.evaluate.text import ELLIPSIS, LIMIT, comment_of, packets_of, rule_text
from k3swatch.model import xt
from k3swatch.model.expr import (
    Cmp,
    Code,
    Counter,
    Expr,
    Immediate,
    Lookup,
    Meta,
    Nat,
    Opaque,
    Payload,
    Verdict,
    XtMatch,
    XtTarget,
)
from k3swatch.model.ruleset import Element

NFT, IPTABLES = read(NFT_FILE), read(IPTABLES_FILE)
JUMP = Immediate(0, verdict=Verdict(Code.JUMP, "KUBE-SVC"))
DPORT = Payload(1, 2, 2, 2)
TCP = (Meta(1, 16), Cmp(1, 0, b"\6"))

# Where we do not say what nft says, and why.
DIFFERENT = {
    "nat meta mark set meta mark & 0xffff0000 | 0x12": "nft shows another mask than was asked for",
    "pre add @dyn { ip saddr timeout 5s } accept": "timeouts of elements are not decoded",
    "pre add @dyn { ip saddr limit rate 1/second }": "an expression within dynset is not decoded",
    "pre ip dscp set cs1": "shown as the load, mask and store that it is",
    "pre ip ttl set 64": "shown as the load, mask and store that it is",
    "pre @nh,0,8 0x45 accept": "the name of a whole byte of two fields",
    "in synproxy mss 1460 wscale 7": "options that do not matter to where a packet goes",
}


def match(spec: xt.XtSpec, name: str = "x") -> XtMatch:
    return XtMatch(name, 0, b"", spec)


def target(spec: xt.XtSpec, name: str = "X") -> XtTarget:
    return XtTarget(name, 0, b"", spec)


@pytest.mark.parametrize(("sample", "block"), NFT, ids=[f"{s.family} {s.rule}" for s, _ in NFT])
def test_nft_rule_reads_as_nft_prints_it(sample: Sample, block: str) -> None:
    text = rule_text(sample.exprs, sample.family)
    ours = [line.removeprefix("  ours  ") for line in block.splitlines() if line.startswith("  ours  ")]
    if text != sample.nft:
        assert ours == [text]
        assert "@__" in text or sample.rule in DIFFERENT  # an anonymous set goes by its name
    else:
        assert ours == []


@pytest.mark.parametrize(("sample", "block"), IPTABLES, ids=[s.rule for s, _ in IPTABLES])
def test_iptables_rule(sample: Sample, block: str) -> None:
    ours = [line.removeprefix("  ours  ") for line in block.splitlines() if line.startswith("  ours  ")]
    assert rule_text(sample.exprs, sample.family) == (ours[0] if ours else sample.nft)
    assert "opaque" not in rule_text(sample.exprs, sample.family)


def test_comment_and_counter_are_apart() -> None:
    exprs = (match(xt.Comment('dnat name: "cbr0"')), Counter(12, 720), JUMP)
    assert rule_text(exprs, "ip") == "jump KUBE-SVC"
    assert comment_of(exprs) == 'dnat name: "cbr0"'
    assert packets_of(exprs) == 12
    assert comment_of((JUMP,)) is None
    assert packets_of((JUMP,)) is None


def elements(name: str) -> list[Element] | None:
    """Three sets: two anonymous, one that is too long to show."""
    return {
        "__set0": [Element(b"\0\x16\0\0", b"\0\x16\0\0"), Element(b"\x19\x28\0\0", b"\x19\x32\0\0")],
        "__set1": [Element(b"\n\0\0\0\x19\x2b\0\0", b"\n\xff\xff\xff\x19\x2b\0\0")],
        "__map0": [
            Element(b"\0\0\0\0", b"\0\0\0\0", verdict=Verdict(Code.GOTO, "a")),
            Element(b"", b"", verdict=Verdict(Code.DROP), catchall=True),
        ],
    }.get(name)


@pytest.mark.parametrize(
    ("exprs", "text"),
    [
        ((*TCP, DPORT, Lookup("__set0", 1)), "tcp dport { 22, 6440-6450 }"),
        ((*TCP, DPORT, Lookup("__set0", 1, flags=1)), "tcp dport != { 22, 6440-6450 }"),
        (
            (*TCP, Payload(1, 1, 16, 4), Payload(9, 2, 2, 2), Lookup("__set1", 1)),
            "ip daddr . tcp dport { 10.0.0.0/8 . 6443 }",
        ),
        ((Meta(1, 20), Lookup("__map0", 1, dreg=0)), "meta cpu vmap { 0 : goto a, * : drop }"),
        ((*TCP, DPORT, Lookup("long", 1)), "tcp dport @long"),
    ],
)
def test_sets_by_their_members(exprs: tuple[Expr, ...], text: str) -> None:
    assert rule_text(exprs, "ip", elements) == text


ANY = (bytes(4), bytes(4))
NET = (b"\n\x2a\0\0", b"\xff\xff\0\0")
HOST = (b"\xc0\xa8\1\1", b"\xff" * 4)


@pytest.mark.parametrize(
    ("exprs", "family", "text"),
    [
        # iptables-legacy -t nat -A PREROUTING ! -i eth+ -s 10.42.0.0/16 ! -d 192.168.1.1 -p tcp --dport 6443 -j X
        (
            (
                match(xt.IpHeader(2, NET, HOST, "eth+", "", 6, 0, invert=1 | 16)),
                match(xt.Ports(6, destination=(6443, 6443))),
                target(xt.XtStandard(Code.JUMP, "X")),
            ),
            "legacy ip",
            'iifname != "eth*" ip saddr 10.42.0.0/16 ip daddr != 192.168.1.1 tcp dport 6443 jump X',
        ),
        (
            (
                match(xt.IpHeader(2, ANY, ANY, "", "lo", 17, 0, invert=64)),
                target(xt.XtStandard(Code.ACCEPT)),
            ),
            "legacy ip",
            'oifname "lo" meta l4proto != udp accept',
        ),
        # a mask with holes
        (
            (match(xt.IpHeader(2, (b"\0\0\0\1", b"\0\0\0\xff"), ANY)),),
            "legacy ip",
            "ip saddr 0.0.0.1/0.0.0.255",
        ),
        ((match(xt.Ports(17, source=(1, 9), invert_source=True)),), "ip", "udp sport != 1-9"),
        # multiport without a protocol in sight
        ((match(xt.Multiport(1, ((1, 2), (5, 5)))),), "ip", "th dport { 1-2, 5 }"),
        ((match(xt.Addrtype(0, 2 | 4)),), "ip", "fib daddr type { unicast, local }"),
        ((match(xt.State(2, invert=True)),), "ip", "ct state != established"),
        ((match(xt.State(128)),), "ip", "ct status dnat"),
        ((target(xt.NatRange("DNAT", 2, port=(7443, 7443))),), "ip", "dnat to :7443"),
        ((target(xt.NatRange("DNAT", 1, (b"\n\0\0\1",) * 2)),), "ip", "dnat to 10.0.0.1"),
        ((target(xt.SetMark(0, 0x2000)),), "ip", "meta mark set meta mark ^ 0x00002000"),
        (
            (target(xt.SetMark(0, 0, conntrack=True, op=1)),),
            "ip",
            "xt CONNMARK save nfmask 0xffffffff ctmask 0x00000000",
        ),
        ((target(xt.XtReject(0)),), "ip6", "reject with icmpv6 no-route"),
        ((XtMatch("geoip", 1, b""),), "ip", "opaque(geoip)"),
        ((Opaque("inner", b""), JUMP), "ip", "opaque(inner) jump KUBE-SVC"),
        # a comparison of what we never saw loaded
        ((Cmp(1, 0, b"\1"), JUMP), "ip", "? 0x01 jump KUBE-SVC"),
        ((Immediate(0, verdict=Verdict(77)),), "ip", "opaque(verdict 77)"),
        # th: no protocol is known; a stale key is no part of a concatenation
        ((DPORT, Cmp(1, 0, b"\x19\x2b")), "ip", "th dport 6443"),
        (
            (Payload(9, 2, 2, 2), Cmp(9, 0, b"\0\1"), Meta(1, 3), Lookup("s", 1)),
            "ip",
            "th dport 1 meta mark @s",
        ),
        # the map gives address and port; the register that held the key's second part does not show through
        (
            (*TCP, Payload(1, 1, 16, 4), Payload(9, 2, 2, 2), Lookup("m", 1, 1), Nat(1, 2, 1, 1, 9, 9)),
            "ip",
            "dnat ip to ip daddr . tcp dport map @m",
        ),
    ],
)
def test_by_hand(exprs: tuple[Expr, ...], family: str, text: str) -> None:
    assert rule_text(exprs, family) == text


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (xt.Icmp(xt.ICMP, 3, (4, 4)), "xt icmp type 3 code 4"),
        (xt.Icmp(xt.ICMPV6, 1, (0, 3), invert=True), "xt icmpv6 != type 1 code 0-3"),
        (xt.Icmp(xt.ICMPV6, xt.ANY_TYPE), "xt icmpv6 any"),
    ],
)
def test_icmp(spec: xt.Icmp, text: str) -> None:
    assert rule_text([match(spec)], "ip6") == text


def test_bounded() -> None:
    text = rule_text([JUMP] * 100, "ip")
    assert len(text) == LIMIT
    assert text.startswith("jump KUBE-SVC jump KUBE-SVC")
    assert text.endswith(ELLIPSIS)


@given(
    st.lists(st.one_of(*(st.from_type(kind) for kind in get_args(Expr)))),
    st.sampled_from(["ip", "ip6", "inet", "netdev", "bridge", "legacy ip", "legacy ip6"]),
)
def test_junk_never_raises(exprs: list[Expr], family: str) -> None:
    assert len(rule_text(exprs, family)) <= LIMIT
    comment_of(exprs)
    packets_of(exprs)
