"""iptables-legacy tables -> base chains, rules and expressions, like those of nf_tables.

A table is one array of entries (`uapi/linux/netfilter_ipv4/ip_tables.h`, `netfilter_ipv6/ip6_tables.h`):

    struct ipt_entry: the ip header part, then where the target and the next entry are, then counters
    struct xt_entry_match ...: size, name, revision, the extension's own struct
    struct xt_entry_target: the same; a standard target holds a verdict, an ERROR target begins a user's chain

Every built-in chain begins at hook_entry and ends with its policy (underflow); every chain of a user begins
after an ERROR target that has its name and ends with RETURN. A jump is the offset of the first rule of a
chain.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from k3swatch.decode.attributes import display, text
from k3swatch.decode.message import NFPROTO
from k3swatch.decode.xt import decode_match, decode_target
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Code, Counter, Expr, XtMatch, XtTarget
from k3swatch.model.ruleset import LEGACY, BaseChain, ChainRef, Rule
from k3swatch.model.xt import IpHeader, XtStandard

_INFO = struct.Struct("=32sI5I5III")  # struct ipt_getinfo
_EXTENSION = struct.Struct("=H29sB")  # struct xt_entry_match, struct xt_entry_target
_HOOKS: Final = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_INV_DSTIP = 0x10
_ERROR = "ERROR"  # XT_ERROR_TARGET; a standard target has no name

# enum nf_ip_hook_priorities, by table; nat is before routing or after it
_PRIORITIES: Final = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_NAT_PRIORITIES: Final = {"PREROUTING": -100, "OUTPUT": -100, "INPUT": 100, "POSTROUTING": 100}


# struct ipt_entry and ip6t_entry: source, destination, their masks, interfaces in and out, their masks,
# protocol, flags, inverted; nfcache, target_offset, next_offset, comefrom; packets, bytes
_LAYOUTS: Final = {
    "ip": struct.Struct("=4s4s4s4s16s16s16s16sHBBIHHIQQ"),
    "ip6": struct.Struct("=16s16s16s16s16s16s16s16sHxBB3xIHHI4xQQ"),
}
_GOTO: Final = {"ip": 2, "ip6": 4}  # IPT_F_GOTO, IP6T_F_GOTO
_COUNTERS = 16  # bytes, at the end of either


class _Entry(NamedTuple):
    """One entry, taken apart as far as the chain structure needs."""

    offset: int
    raw: bytes
    target_at: int
    target: str
    verdict: int  # of a standard target

    @property
    def end(self) -> int:
        """The offset of the next entry."""
        return self.offset + len(self.raw)


def _entries(blob: bytes, layout: struct.Struct, where: str) -> Iterator[_Entry]:
    offset = 0
    while offset < len(blob):
        if len(blob) - offset < layout.size:
            raise DecodeError(f"{where}: {len(blob) - offset} stray bytes after the last entry")
        target_at, length = layout.unpack_from(blob, offset)[-5:-3]
        raw = blob[offset : offset + length]
        if not layout.size <= target_at <= length - _EXTENSION.size or len(raw) != length:
            raise DecodeError(f"{where}: entry at {offset}: target at {target_at}, length {length}")
        _, name, _ = _EXTENSION.unpack_from(raw, target_at)
        target = text(name, f"{where}: entry at {offset}: target")
        verdict = 0
        if not target:
            if length < target_at + _EXTENSION.size + 4:
                raise DecodeError(f"{where}: entry at {offset}: no verdict")
            (verdict,) = struct.unpack_from("=i", raw, target_at + _EXTENSION.size)
        yield _Entry(offset, raw, target_at, target, verdict)
        offset += length


def without_counters(family: str, entries: bytes) -> bytes:
    """The entries without what every packet changes."""
    size = _LAYOUTS[family].size
    found = _entries(entries, _LAYOUTS[family], f"legacy {family}")
    return b"".join(entry.raw[: size - _COUNTERS] + entry.raw[size:] for entry in found)


def _code(verdict: int) -> int:
    """The code of a negative verdict: XT_RETURN is -NF_REPEAT - 1, all others are -NF_* - 1."""
    return Code.RETURN if verdict == -5 else -verdict - 1


def _interface(name: bytes, mask: bytes) -> str | None:
    """`eth0`, `veth+`, or nothing for any; None when the mask is not the beginning of the name."""
    length = len(mask) - len(mask.lstrip(b"\xff"))
    if any(mask[length:]):
        return None
    exact = b"\0" in name[:length]
    shown = text(name[:length], "interface")
    return shown if exact or not length else shown + "+"


class LegacyTable:
    """One table; `family` is `ip` or `ip6`. DecodeError when its structure does not fit."""

    def __init__(self, family: str, table: str, info: bytes, entries: bytes) -> None:
        self._where = f"legacy {family} {table}"
        self._family, self._table, self._layout = family, table, _LAYOUTS[family]
        if len(info) < _INFO.size:
            raise DecodeError(f"{self._where}: info of {len(info)} bytes")
        _, valid, *offsets, _, _ = _INFO.unpack_from(info)
        begins = {offsets[hook]: name for hook, name in enumerate(_HOOKS) if valid >> hook & 1}
        chains, self._chain_at = self._split(entries, begins)
        self.rules: dict[ChainRef, tuple[Rule, ...]] = {}
        self.base: list[BaseChain] = []
        self._entries: dict[tuple[str, int], _Entry] = {}
        for name, found in chains.items():
            ref = ChainRef(f"{LEGACY} {family}", table, name)
            *rules, last = found
            self.rules[ref] = tuple(self._rule(ref, place, entry) for place, entry in enumerate(rules, 1))
            if last.target:
                raise DecodeError(f"{self._where}: chain {name!r} does not end with a verdict")
            if name in begins.values():
                self.base.append(self._base(ref, _code(last.verdict)))

    def _split(self, blob: bytes, begins: dict[int, str]) -> tuple[dict[str, list[_Entry]], dict[int, str]]:
        """Chain by chain, and which chain a jump to an offset means."""
        chains: dict[str, list[_Entry]] = {}
        chain_at: dict[int, str] = {}
        for entry in _entries(blob, self._layout, self._where):
            if entry.target == _ERROR:
                name = text(entry.raw[entry.target_at + _EXTENSION.size :], f"{self._where}: chain")
                if entry.end == len(blob):
                    break  # the end of the table
                chain_at[entry.end] = name
                chains[name] = []
            else:
                if entry.offset in begins:
                    chains[begins[entry.offset]] = []
                if not chains:
                    raise DecodeError(f"{self._where}: entry at {entry.offset} is in no chain")
                chains[next(reversed(chains))].append(entry)
        empty = [name for name, found in chains.items() if not found]
        if empty or not chains.keys() >= set(begins.values()):
            raise DecodeError(f"{self._where}: chains without entries: {empty}")
        return chains, chain_at

    def _rule(self, ref: ChainRef, place: int, entry: _Entry) -> Rule:
        """A rule; its handle is its number in the chain, which is what `iptables -D` takes."""
        self._entries[ref.chain, place] = entry
        fields = self._layout.unpack_from(entry.raw)
        address, mask, inverted = fields[1], fields[3], fields[10]
        exact = not mask.strip(b"\xff") and not inverted & _INV_DSTIP
        return Rule(ref, place, entry.raw, daddr=address if exact else None)

    def _base(self, ref: ChainRef, policy: int) -> BaseChain:
        hook = _HOOKS.index(ref.chain)
        if self._table == "nat":
            return BaseChain(ref, "nat", hook, _NAT_PRIORITIES.get(ref.chain, 0), policy, 0)
        kind = "route" if (self._table, ref.chain) == ("mangle", "OUTPUT") else "filter"
        if self._table not in _PRIORITIES:
            raise DecodeError(f"{self._where}: no such table in the kernel we know")
        return BaseChain(ref, kind, hook, _PRIORITIES[self._table], policy, 0)

    def expressions(self, rule: Rule) -> tuple[Expr, ...]:
        """The header and the matches, the counters, the target. What is not understood has no `spec`."""
        entry = self._entries[rule.ref.chain, rule.handle]
        *_, packets, length = self._layout.unpack_from(entry.raw)
        target = () if self._falls_through(entry) else (self._target(entry),)
        return (*self._matches(entry), Counter(packets, length), *target)

    @staticmethod
    def _falls_through(entry: _Entry) -> bool:
        """A rule without a target: a standard target that jumps to the next rule (ipt_do_table)."""
        return not entry.target and entry.verdict == entry.end

    def _matches(self, entry: _Entry) -> Iterator[Expr]:
        nfproto = NFPROTO[self._family]
        yield XtMatch("header", 0, entry.raw[: self._layout.size], self._header(entry.raw))
        rest = entry.raw[self._layout.size : entry.target_at]
        while rest:
            if len(rest) < _EXTENSION.size:
                yield XtMatch("?", 0, rest)
                return
            size, padded, revision = _EXTENSION.unpack_from(rest)
            if not _EXTENSION.size <= size <= len(rest):
                yield XtMatch("?", 0, rest)
                return
            name, info = display(padded), rest[_EXTENSION.size : size]
            yield XtMatch(name, revision, info, decode_match(name, revision, info, nfproto))
            rest = rest[size:]

    def _header(self, raw: bytes) -> IpHeader | None:
        fields = self._layout.unpack_from(raw)
        source, destination, source_mask, destination_mask, in_, out, in_mask, out_mask, protocol = fields[:9]
        flags, inverted = fields[9:11]
        try:
            interfaces = _interface(in_, in_mask), _interface(out, out_mask)
        except DecodeError:
            return None
        if interfaces[0] is None or interfaces[1] is None:
            return None
        return IpHeader(
            NFPROTO[self._family],
            (source, source_mask),
            (destination, destination_mask),
            interfaces[0],
            interfaces[1],
            protocol,
            flags,
            inverted,
        )

    def _target(self, entry: _Entry) -> Expr:
        size, _, revision = _EXTENSION.unpack_from(entry.raw, entry.target_at)
        info = entry.raw[entry.target_at + _EXTENSION.size : entry.target_at + size]
        if entry.target:
            spec = decode_target(entry.target, revision, info, NFPROTO[self._family])
            return XtTarget(entry.target, revision, info, spec)
        if entry.verdict < 0:
            return XtTarget("standard", revision, info, XtStandard(_code(entry.verdict)))
        chain = self._chain_at.get(entry.verdict)
        goto = self._layout.unpack_from(entry.raw)[9] & _GOTO[self._family]
        jump = XtStandard(Code.GOTO if goto else Code.JUMP, chain) if chain is not None else None
        return XtTarget("standard", revision, info, jump)
