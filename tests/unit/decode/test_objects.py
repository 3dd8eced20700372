"""Tables, chains, rules, generations: one table of wire bytes and values, and damaged bytes for all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire import be32, be64, expression, name, nft, nla, nlmsg

from k3swatch.decode.chain import decode_chain
from k3swatch.decode.destination import first_destination
from k3swatch.decode.generation import Generation, decode_newgen
from k3swatch.decode.hooks import decode_hooks, seen_by
from k3swatch.decode.message import message, nft_message
from k3swatch.decode.rule import decode_rule, decode_rules
from k3swatch.decode.sets import decode_set
from k3swatch.decode.table import Table, decode_table
from k3swatch.errors import DecodeError
from k3swatch.model.ruleset import BaseChain, ChainRef, Rule, SetInfo

IP, INET, NETDEV, IP6 = 2, 1, 5, 10
TABLE, CHAIN, RULE, SET, NEWGEN = 0, 3, 6, 9, 15

NAT = ChainRef("ip", "nat", "PREROUTING")
CHAIN_NAME = name(1, "nat") + name(3, "PREROUTING") + be64(2, 9)
HOOK = nla(4, be32(1, 0) + be32(2, -100))
RULE_NAME = name(1, "nat") + name(2, "PREROUTING") + be64(3, 12)

CASES = [
    ("table", decode_table, nft(TABLE, INET, name(1, "fw"), be32(2, 0)), Table("inet", "fw", 0)),
    ("dormant table", decode_table, nft(TABLE, IP, name(1, "x"), be32(2, 1)), Table("ip", "x", 1)),
    ("family without a name", decode_table, nft(TABLE, 42, name(1, "x")), Table("42", "x", 0)),
    ("chain", decode_chain, nft(CHAIN, IP, CHAIN_NAME), (NAT, None)),
    (
        "base chain",
        decode_chain,
        nft(CHAIN, IP, CHAIN_NAME, HOOK, be32(5, 0), name(7, "nat")),
        (NAT, BaseChain(NAT, "nat", 0, -100, 0, 0, 9)),
    ),
    (
        "base chain on devices",
        decode_chain,
        nft(
            CHAIN,
            NETDEV,
            CHAIN_NAME,
            nla(4, be32(1, 0) + be32(2, 0) + nla(4, name(1, "eth0") + name(1, "eth1"))),
            name(7, "filter"),
        ),
        (
            ChainRef("netdev", "nat", "PREROUTING"),
            BaseChain(ChainRef("netdev", "nat", "PREROUTING"), "filter", 0, 0, 1, 0, 9, "eth0,eth1"),
        ),
    ),
    ("rule", decode_rule, nft(RULE, IP, RULE_NAME, nla(4, b"")), Rule(NAT, 12, b"")),
    (
        "rule with a comment after another TLV",
        decode_rule,
        nft(RULE, IP, RULE_NAME, nla(4, nla(1, expression("notrack"))), nla(7, b"\1\2ab\0\4hi!\0")),
        Rule(NAT, 12, nla(1, expression("notrack")), "hi!"),
    ),
    (
        "rule with a broken comment",
        decode_rule,
        nft(RULE, IP, RULE_NAME, nla(7, b"\0\xffhi")),
        Rule(NAT, 12, b""),
    ),
    (
        "set",
        decode_set,
        nft(SET, IP, name(1, "nat"), name(2, "mgmt"), be32(3, 4), be32(4, 7), be32(5, 4)),
        SetInfo("ip", "nat", "mgmt", 4, 4, 7, fields=(4,)),
    ),
    (
        "map of a concatenation that is described",
        decode_set,
        nft(
            SET,
            IP,
            name(1, "nat"),
            name(2, "m"),
            be32(3, 0x8C),
            be32(5, 8),
            be32(6, 7),
            be32(7, 4),
            nla(9, nla(2, nla(1, be32(1, 4)) + nla(1, be32(1, 2)))),
        ),
        SetInfo("ip", "nat", "m", 0x8C, 8, 0, 7, 4, (4, 2)),
    ),
    (
        "concatenation known from nft's type alone: ipv4_addr . inet_proto . inet_service",
        decode_set,
        nft(SET, IP, name(1, "nat"), name(2, "m"), be32(4, 7 << 12 | 12 << 6 | 13), be32(5, 12)),
        SetInfo("ip", "nat", "m", 0, 12, 7 << 12 | 12 << 6 | 13, fields=(4, 1, 2)),
    ),
    (
        "a type that does not add up",
        decode_set,
        nft(SET, IP, name(1, "nat"), name(2, "m"), be32(4, 7 << 6 | 13), be32(5, 12)),
        SetInfo("ip", "nat", "m", 0, 12, 7 << 6 | 13, fields=(12,)),
    ),
    (
        "commit",
        decode_newgen,
        nft(NEWGEN, 0, be32(1, 42), be32(2, 99), name(3, "iptables")),
        Generation(42, 99, "iptables"),
    ),
    ("commit before 4.15", decode_newgen, nft(NEWGEN, 0, be32(1, 42)), Generation(42, None, None)),
]


@pytest.mark.parametrize(
    ("decoder", "raw", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)
def test_message(decoder: Callable[[bytes], object], raw: bytes, expected: object) -> None:
    assert decoder(raw) == expected


@pytest.mark.parametrize(
    ("decoder", "raw", "why"),
    [
        (decode_table, nft(TABLE, IP), "table: attribute 1 is missing"),
        (decode_table, nft(RULE, IP, name(1, "x")), "table: message of type 0xa06, want 0xa00"),
        (decode_table, nft(TABLE, IP, name(1, "x"))[:-1], "table: message of length 28, have 27"),
        (decode_chain, nft(CHAIN, IP, name(1, "x")), "chain: attribute 3 is missing"),
        (decode_chain, nft(CHAIN, IP, CHAIN_NAME, nla(4, be32(1, 0))), "chain: hook: attribute 2 is missing"),
        (decode_rule, nft(RULE, IP, name(1, "x"), name(2, "y")), "rule: attribute 3 is missing"),
        (decode_rule, nft(RULE, IP, nla(1, b"\xff\0"), name(2, "y"), be64(3, 1)), "rule: table: name"),
        (decode_set, nft(SET, IP, name(1, "x"), name(2, "y")), "set: attribute 5 is missing"),
        (decode_newgen, nft(NEWGEN, 0), "generation: attribute 1 is missing"),
        (message, b"\0" * 15, "netlink: 15 bytes"),
        (message, nlmsg(16, b"")[:-1] + b"\0\0", "netlink: message of length 16, have 17"),
    ],
)
def test_error_reads_as_a_path(decoder: Callable[[bytes], object], raw: bytes, why: str) -> None:
    with pytest.raises(DecodeError) as error:
        decoder(raw)
    assert str(error.value).startswith(why)


def test_rules_of_several_chains_in_one_go() -> None:
    """What the rules of a chain have in common is read once, and again when it changes."""

    def rule(family: int, chain: str, handle: int, generation: int = 7) -> bytes:
        return nft(RULE, family, name(1, "nat"), name(2, chain), be64(3, handle), generation=generation)

    raw = [rule(IP, "a", 1), rule(IP, "a", 2), rule(IP, "ab", 3), rule(IP6, "ab", 4), rule(IP6, "ab", 5, 8)]
    raw.append(nft(RULE, IP, be64(3, 6), name(2, "a"), name(1, "nat")))  # in no order the kernel knows
    assert [(rule.ref.family, rule.ref.chain, rule.handle) for rule in decode_rules(raw)] == [
        ("ip", "a", 1),
        ("ip", "a", 2),
        ("ip", "ab", 3),
        ("ip6", "ab", 4),
        ("ip6", "ab", 5),
        ("ip", "a", 6),
    ]


def test_res_id_is_the_low_half_of_the_generation() -> None:
    assert nft_message(nft(TABLE, IP, generation=0x12345), TABLE, "x").res_id == 0x2345


def test_hooks_leave_out_dormant_tables_and_other_families() -> None:
    def base(family: int, table: str) -> bytes:
        return nft(CHAIN, family, name(1, table), name(3, "pre"), be64(2, 1), HOOK, name(7, "nat"))

    tables = [nft(TABLE, IP, name(1, "off"), be32(2, 1)), nft(TABLE, IP, name(1, "on"))]
    chains = [
        base(IP, "off"),
        base(INET, "both"),
        base(IP, "on"),
        base(IP6, "six"),
        nft(CHAIN, IP, CHAIN_NAME),
    ]
    hooks = decode_hooks(tables, chains)
    assert [chain.ref.table for chain in seen_by(hooks, 0, IP)] == ["both", "on"]
    assert [chain.ref.table for chain in seen_by(hooks, 0, IP6)] == ["both", "six"]
    assert [chain.order for chain in hooks] == [0, 1, 2]
    assert seen_by(hooks, 3, IP) == ()


def elements(*expressions: bytes) -> bytes:
    return b"".join(nla(1, each) for each in expressions)


def load_meta(key: int) -> bytes:
    return expression("meta", be32(2, key) + be32(1, 1))


def load(offset: int, length: int, base: int = 1) -> bytes:
    return expression("payload", be32(1, 1) + be32(2, base) + be32(3, offset) + be32(4, length))


def is_(constant: bytes, op: int = 0, sreg: int = 1) -> bytes:
    return expression("cmp", be32(1, sreg) + be32(2, op) + nla(3, nla(1, constant)))


V4, V6 = b"\n+\0\1", bytes(range(16))
NFPROTO4, NFPROTO6, TCP = (
    elements(load_meta(15), is_(b"\2")),
    elements(load_meta(15), is_(b"\n")),
    elements(load_meta(16), is_(b"\6")),
)
DADDR4, DADDR6 = elements(load(16, 4), is_(V4)), elements(load(24, 16), is_(V6))


@pytest.mark.parametrize(
    ("raw", "nfproto", "expected"),
    [
        pytest.param(DADDR4, IP, V4, id="ip daddr"),
        pytest.param(TCP + DADDR4, IP, V4, id="after meta l4proto, as iptables -p tcp -d"),
        pytest.param(NFPROTO4 + TCP + DADDR4, INET, V4, id="inet, after both"),
        pytest.param(TCP + NFPROTO6 + DADDR6, INET, V6, id="inet, IPv6"),
        pytest.param(DADDR6, IP6, V6, id="ip6 daddr"),
        pytest.param(DADDR4 + b"anything", IP, V4, id="more follows"),
        pytest.param(DADDR4, INET, None, id="inet without meta nfproto"),
        pytest.param(DADDR4, IP6, None, id="in an ip6 table"),
        pytest.param(NFPROTO6 + DADDR4, IP, None, id="of the other family"),
        pytest.param(elements(load(12, 4), is_(V4)), IP, None, id="ip saddr"),
        pytest.param(elements(load(16, 3), is_(V4[:3])), IP, None, id="ip daddr /24"),
        pytest.param(elements(load(16, 4, base=2), is_(V4)), IP, None, id="another header"),
        pytest.param(elements(load(16, 4), is_(V4, op=1)), IP, None, id="not equal"),
        pytest.param(elements(load(16, 4), is_(V4, sreg=2)), IP, None, id="another register"),
        pytest.param(
            elements(load_meta(16), is_(b"\6", op=1)) + DADDR4, IP, None, id="meta l4proto not equal"
        ),
        pytest.param(TCP * 3 + DADDR4, IP, None, id="further in than it looks"),
        pytest.param(DADDR4[:-1], IP, None, id="cut off in the address"),
        pytest.param(NFPROTO4[:-4], INET, None, id="cut off in the family"),
        pytest.param(b"", IP, None, id="empty"),
    ],
)
def test_first_destination(raw: bytes, nfproto: int, expected: bytes | None) -> None:
    assert first_destination(raw, nfproto) == expected


@given(st.sampled_from(CASES), st.data())
def test_damaged_messages_raise_nothing_but_decode_error(
    case: tuple[str, Callable[[bytes], object], bytes, object], draw: st.DataObject
) -> None:
    _, decoder, whole, _ = case
    raw = bytearray(whole)
    for _ in range(draw.draw(st.integers(1, 3))):
        raw[draw.draw(st.integers(16, len(raw) - 1))] = draw.draw(st.integers(0, 255))
    raw = raw[: draw.draw(st.integers(0, len(raw)))]
    raw[:4] = len(raw).to_bytes(4, "little")
    with suppress(DecodeError):
        decoder(bytes(raw))
