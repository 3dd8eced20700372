"""Rules that do not look at the destination are walked once for all addresses, and nobody can tell from the verdict."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.build import TableRuleset, daddr, dnat, dport, ip, jump, node, saddr, verdict

from k3swatch.evaluate import judge
from k3swatch.evaluate.blind import LONG, blind
from k3swatch.evaluate.walk import Walk
from k3swatch.model.expr import (
    Cmp,
    Code,
    Counter,
    Ct,
    Expr,
    Fib,
    Immediate,
    Limit,
    Lookup,
    Meta,
    MetaSet,
    Notrack,
    Opaque,
    Payload,
    PayloadSet,
    Redir,
    Reject,
    XtMatch,
    XtTarget,
)
from k3swatch.model.finding import PortVerdict
from k3swatch.model.port import LocalAddress, ProtectedPort
from k3swatch.model.ruleset import INPUT, PREROUTING, Rule
from k3swatch.model.words import Family, State
from k3swatch.model.xt import Addrtype, Comment, Conntrack, IpHeader, IpRange, XtStandard

API = ProtectedPort("k3s-api", 6443)
MARK: list[Expr] = [Meta(1, 3), Cmp(1, 0, (7).to_bytes(4, "little"))]

# what a rule of a generated chain may be: tests of everything that can differ, and everything they can lead to
TESTS: list[list[Expr]] = [
    [],
    saddr("10.42.0.0/16"),
    saddr("203.0.113.7/32"),
    saddr("203.0.113.0/24", 1),
    daddr("192.168.1.233"),
    daddr("10.42.0.1"),
    dport(6443),
    dport(80),
    MARK,
    [Limit(1, 1, 1, 0, 0)],
]
ENDS: list[list[Expr]] = [
    verdict(Code.DROP),
    verdict(Code.ACCEPT),
    verdict(Code.RETURN),
    [Reject(0, 3)],
    [Immediate(1, (7).to_bytes(4, "little")), MetaSet(1, 3)],
    jump("other"),
    dnat("10.42.0.9"),
    [],
]
rules = st.builds(lambda test, end: [*test, *end], st.sampled_from(TESTS), st.sampled_from(ENDS))
LISTED = [[*saddr(f"203.0.{n >> 8}.{n & 255}/32"), *verdict(Code.DROP)] for n in range(LONG + 20)]


class Counting(TableRuleset):
    """Counts how often a rule is asked for."""

    reads = 0

    def expressions(self, rule: Rule) -> Sequence[Expr]:
        self.reads += 1
        return super().expressions(rule)


def filtering(*chain: list[Expr], ruleset: TableRuleset | None = None) -> TableRuleset:
    ruleset = ruleset or TableRuleset()
    ruleset.base("filter", "INPUT", INPUT, *chain, kind="filter", priority=0)
    ruleset.base("nat", "PREROUTING", PREROUTING, [*dport(6443), *jump("other")])
    ruleset.chain("filter", "other", saddr("10.42.0.0/16") + verdict(Code.ACCEPT))
    ruleset.chain("nat", "other", MARK + dnat("10.42.0.9"))
    return ruleset


def one_by_one(ruleset: TableRuleset) -> PortVerdict:
    """The verdict when nothing is remembered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Walk, "_is_blind", lambda *_: False)
        return judge(ruleset, node(), [API])[0]


@settings(max_examples=40)
@given(st.lists(rules, max_size=12), st.integers(0, 12))
def test_nobody_can_tell(some: list[list[Expr]], place: int) -> None:
    """A block list with any rules before, within and after it."""
    ruleset = filtering(*some[:place], *LISTED, *some[place:], *LISTED[:LONG], *some)
    assert judge(ruleset, node(), [API])[0] == one_by_one(ruleset)


def test_a_rule_about_one_address_in_a_block_list() -> None:
    ruleset = TableRuleset()
    about_one = [*daddr("10.42.0.1"), *verdict(Code.DROP)]
    ruleset.base("filter", "INPUT", INPUT, *LISTED, about_one, *LISTED[:LONG], kind="filter", priority=0)
    blocked = [one for one in judge(ruleset, node(), [API])[0].findings if not one.restriction]
    assert {(one.state, one.addresses) for one in blocked} == {(State.BLOCKED, ("10.42.0.1",))}


def test_it_is_walked_once() -> None:
    """A host with sixty addresses reads the rules as often as one with twenty."""
    reads = []
    for count in (20, 60):
        more = (LocalAddress(ipaddress.ip_address(f"10.43.0.{n}"), 3, 32) for n in range(count))
        host = replace(node(), addresses=(*node().addresses, *more))
        ruleset = Counting()
        accepted = [[*rule[:-1], *verdict(Code.ACCEPT)] for rule in LISTED]  # nothing to tell of
        ruleset.base("filter", "INPUT", INPUT, *accepted, kind="filter", priority=0)
        judge(ruleset, host, [API])
        reads.append(ruleset.reads)
    assert reads[0] == reads[1]


ZEROS, ONES = bytes(16), b"\xff" * 16


@pytest.mark.parametrize(
    "expr",
    [
        Payload(1, 1, 12, 4),
        Payload(1, 2, 2, 2),
        Meta(1, 3),
        Ct(1, 0),
        Counter(1, 2),
        Lookup("block", 1),
        Immediate(1, b"\1"),
        *verdict(Code.DROP),
        XtMatch("comment", 0, b"", Comment("why")),
        XtMatch("conntrack", 3, b"", Conntrack(1, 0)),
        XtMatch("ip", 0, b"", IpHeader(2, (ip("10.0.0.1"), ONES[:4]), (ZEROS[:4], ZEROS[:4]))),
        XtTarget("", 0, b"", XtStandard(Code.DROP)),
    ],
    ids=lambda expr: type(getattr(expr, "spec", expr)).__name__,
)
def test_blind(expr: Expr) -> None:
    assert blind([expr], Family.IP)


@pytest.mark.parametrize(
    "expr",
    [
        Payload(1, 1, 16, 4),
        Payload(1, 1, 12, 8),
        Payload(1, 0, 0, 6),
        PayloadSet(1, 1, 12, 4),
        Ct(1, 9),
        Ct(1, 20),
        Fib(1, 3, 2),
        Lookup("services", 1, 0),
        *jump("other"),
        *verdict(Code.GOTO, "other"),
        dnat("10.42.0.9")[-1],
        Redir(),
        Notrack(),
        Opaque("new", b""),
        XtMatch("addrtype", 1, b"", Addrtype(0, 4)),
        XtMatch("iprange", 1, b"", IpRange(None, (ZEROS, ONES))),
        XtMatch("conntrack", 3, b"", Conntrack(1 | 8, 0)),
        XtMatch("ip", 0, b"", IpHeader(2, (ZEROS[:4], ZEROS[:4]), (ip("10.0.0.1"), ONES[:4]))),
        XtMatch("unheard", 0, b"", None),
        XtTarget("", 0, b"", XtStandard(Code.JUMP, "other")),
        XtTarget("unheard", 0, b"", None),
    ],
    ids=lambda expr: type(getattr(expr, "spec", None) or expr).__name__,
)
def test_not_blind(expr: Expr) -> None:
    assert not blind([expr], Family.IP)


def test_the_other_family_has_its_address_elsewhere() -> None:
    source = Payload(1, 1, 8, 16)
    assert blind([source], Family.IP6)
    assert not blind([source], Family.IP)
