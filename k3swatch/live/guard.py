"""`k3swatch guard`: our own table, and the raw messages that make it.

    table inet k3swatch_guard {
        chain prerouting { type nat hook prerouting priority -110; policy accept;
            meta nfproto ipv4 tcp dport 6443 fib daddr type local counter dnat ip to ip daddr
            meta nfproto ipv6 tcp dport 6443 fib daddr type local counter dnat ip6 to ip6 daddr
        }
        chain output { type nat hook output priority -110; ... the same }
    }

The first nat chain that sets up a mapping wins (nf_nat_inet_fn), and a mapping to where the packet is going already
changes nothing: what comes later has no say. `accept` would not do: nat chains go on until one maps. `redirect` would
rewrite the destination to the interface's first address. Every rule carries a comment: what has none is not ours.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from k3swatch.decode.chain import decode_chain
from k3swatch.decode.message import NFPROTO
from k3swatch.decode.nft.expression import decode_expressions
from k3swatch.decode.rule import decode_rules
from k3swatch.decode.table import decode_table
from k3swatch.model.expr import Counter, Expr, Nat
from k3swatch.model.ruleset import GUARD_FAMILY, GUARD_TABLE, OUTPUT, PREROUTING, BaseChain, Rule
from k3swatch.model.words import Family, Protocol
from k3swatch.sources.netlink import attribute
from k3swatch.sources.nftables import NftablesSource, name
from k3swatch.sources.transaction import (
    DELTABLE,
    NESTED,
    NEWCHAIN,
    NEWRULE,
    NEWTABLE,
    Change,
    delete_rule,
)

COMMENT = "k3swatch guard "  # and the port: `tcp/6443`
CHAINS = {"prerouting": PREROUTING, "output": OUTPUT}
USUAL, LOWEST = -110, -199  # nft_chain_validate_hook: a nat chain must come after conntrack, at -200
_STEP = 10

# enum nft_meta_keys, nft_payload_bases, nft_fib_result, nft_fib_flags, nft_nat_types, rtm_type
_NFPROTO, _L4PROTO = 15, 16
_NETWORK, _TRANSPORT = 1, 2
_ADDRTYPE, _DADDR, _DNAT, _RTN_LOCAL = 3, 2, 1, 2
_REGISTER = 1
_DADDR_AT = {Family.IP: 16, Family.IP6: 24}

Guarded = tuple[Protocol, int]


@dataclass(frozen=True, slots=True)
class Table:
    """What is there. `foreign`: something in it that we did not make; `ports` are guarded in both chains, both
    families; `priority` is that of its chains, the higher when they differ.
    """

    exists: bool = False
    foreign: str | None = None
    ports: frozenset[Guarded] = frozenset()
    priority: int | None = None
    handles: tuple[tuple[str, int, str], ...] = ()  # chain, handle, comment of each rule of ours


def read(source: NftablesSource) -> Table:
    """The guard's table as it is. Raises what NftablesSource does."""
    tables = [decode_table(raw) for raw in source.tables()]
    ours = [each for each in tables if (each.family, each.name) == (GUARD_FAMILY, GUARD_TABLE)]
    if not ours:
        return Table()
    foreign = "it is dormant" if ours[0].dormant else None
    bases = [decode_chain(raw) for raw in source.chains()]
    chains = [(ref, base) for ref, base in bases if (ref.family, ref.table) == (GUARD_FAMILY, GUARD_TABLE)]
    handles: list[tuple[str, int, str]] = []
    counts: dict[Guarded, int] = {}
    priorities: list[int] = []
    for ref, base in chains:
        if base is None or CHAINS.get(ref.chain) != base.hook or base.type != "nat":
            foreign = foreign or f"chain {ref.chain} is not ours"
            continue
        priorities.append(base.priority)
        for rule in decode_rules(source.rules(ref.family, ref.table, ref.chain)):
            comment = rule.comment or ""
            if not comment.startswith(COMMENT):
                foreign = foreign or f"rule {rule.handle} of chain {ref.chain} is not ours"
                continue
            handles.append((ref.chain, rule.handle, comment))
            made = _made(rule)
            if made is not None:
                counts[made] = counts.get(made, 0) + 1
    whole = len(CHAINS) * len(Family)
    ports = frozenset(port for port, count in counts.items() if count == whole)
    return Table(True, foreign, ports, max(priorities, default=None), tuple(handles))


def others(source: NftablesSource) -> list[BaseChain]:
    """The nat chains of prerouting and output that are not the guard's."""
    found = []
    for raw in source.chains():
        ref, base = decode_chain(raw)
        ours = (ref.family, ref.table) == (GUARD_FAMILY, GUARD_TABLE)
        if base is not None and base.type == "nat" and base.hook in (PREROUTING, OUTPUT) and not ours:
            found.append(base)
    return found


def priority_before(chains: Iterable[BaseChain]) -> int:
    """A priority that comes before all of these, where there is one: -110, or lower."""
    first = min((each.priority for each in chains), default=0)
    return max(LOWEST, min(USUAL, first - _STEP))


def making(ports: Iterable[Guarded], priority: int, replacing: bool) -> list[Change]:
    """The changes that make the table anew for these ports."""
    changes = [Change(DELTABLE, GUARD_FAMILY, name(1, GUARD_TABLE))] if replacing else []
    changes.append(Change(NEWTABLE, GUARD_FAMILY, name(1, GUARD_TABLE)))
    for chain, hook in CHAINS.items():
        changes.append(Change(NEWCHAIN, GUARD_FAMILY, _chain(chain, hook, priority)))
    for chain in CHAINS:
        for port in sorted(ports):
            for family in Family:
                content = name(1, GUARD_TABLE) + name(2, chain) + _rule(*port, family)
                changes.append(Change(NEWRULE, GUARD_FAMILY, content, 0x800))  # NLM_F_APPEND
    return changes


def removing(table: Table, port: Guarded | None) -> list[Change]:
    """The changes that take away what we made for one port (None: for all); the table with it when nothing is left."""
    wanted = [each for each in table.handles if port is None or _port(each[2].removeprefix(COMMENT)) == port]
    if table.exists and table.foreign is None and len(wanted) == len(table.handles):
        return [Change(DELTABLE, GUARD_FAMILY, name(1, GUARD_TABLE))]
    return [delete_rule(GUARD_FAMILY, GUARD_TABLE, chain, handle) for chain, handle, _ in wanted]


def _made(rule: Rule) -> Guarded | None:
    """The port that a rule guards: one that is just what we make, whatever its comment says."""
    port = _port((rule.comment or "").removeprefix(COMMENT))
    if port is None:
        return None
    exprs = _essence(rule.raw)
    return port if any(exprs == _essence(_expressions(*port, family)) for family in Family) else None


def _essence(expressions: bytes) -> list[Expr]:
    """What a rule does, without what it counted; the kernel adds NF_NAT_RANGE_MAP_IPS by itself (nft_nat_init)."""
    found = decode_expressions(expressions, NFPROTO[GUARD_FAMILY])
    return [
        replace(each, flags=each.flags & ~1) if isinstance(each, Nat) else each
        for each in found
        if not isinstance(each, Counter)
    ]


def _port(spec: str) -> Guarded | None:
    protocol, _, number = spec.partition("/")
    if protocol in ("tcp", "udp") and number.isdecimal() and len(number) <= 5:
        return Protocol(protocol), int(number)
    return None


def _chain(chain: str, hook: int, priority: int) -> bytes:
    where = attribute(1, _u32(hook)) + attribute(2, struct.pack(">i", priority))
    accept = attribute(5, _u32(1))
    return name(1, GUARD_TABLE) + name(3, chain) + attribute(NESTED | 4, where) + accept + name(7, "nat")


def _rule(protocol: Protocol, port: int, family: Family) -> bytes:
    """NFTA_RULE_EXPRESSIONS and NFTA_RULE_USERDATA: the comment."""
    text = f"{COMMENT}{protocol}/{port}".encode() + b"\0"
    userdata = attribute(7, bytes([0, len(text)]) + text)
    return attribute(NESTED | 4, _expressions(protocol, port, family)) + userdata


def _expressions(protocol: Protocol, port: int, family: Family) -> bytes:
    at = _DADDR_AT[family]
    expressions = [
        *_compare(_expression("meta", {1: _u32(_REGISTER), 2: _u32(_NFPROTO)}), bytes([family.nfproto])),
        *_compare(_expression("meta", {1: _u32(_REGISTER), 2: _u32(_L4PROTO)}), bytes([protocol.number])),
        *_compare(_payload(_TRANSPORT, 2, 2), port.to_bytes(2)),
        *_compare(
            _expression("fib", {1: _u32(_REGISTER), 2: _u32(_ADDRTYPE), 3: _u32(_DADDR)}),
            struct.pack("=I", _RTN_LOCAL),
        ),
        _expression("counter", {1: bytes(8), 2: bytes(8)}),
        _payload(_NETWORK, at, family.length),
        _expression("nat", {1: _u32(_DNAT), 2: _u32(family.nfproto), 3: _u32(_REGISTER), 4: _u32(_REGISTER)}),
    ]
    return b"".join(attribute(NESTED | 1, each) for each in expressions)


def _compare(load: bytes, value: bytes) -> Sequence[bytes]:
    data = attribute(1, _u32(_REGISTER)) + attribute(2, _u32(0)) + attribute(NESTED | 3, attribute(1, value))
    return load, attribute(1, b"cmp\0") + attribute(NESTED | 2, data)


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", {1: _u32(_REGISTER), 2: _u32(base), 3: _u32(offset), 4: _u32(length)})


def _expression(kind: str, data: dict[int, bytes]) -> bytes:
    content = b"".join(attribute(number, value) for number, value in data.items())
    return name(1, kind) + attribute(NESTED | 2, content)


def _u32(value: int) -> bytes:
    return value.to_bytes(4)
