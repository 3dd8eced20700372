"""A rule as the words that `iptables -D CHAIN` wants: all of it, or None.

Nothing is guessed: a word left out would make it another rule. What rules about a port are made of is known here; any
other rule is deleted by its handle or its place.

Both back-ends: iptables-nft writes addresses, interfaces, protocol, ports and marks as native expressions
(nft_rule_to_iptables_command_state), all else as xtables extensions; iptables-legacy has extensions only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from k3swatch.model import xt
from k3swatch.model.expr import (
    Bitwise,
    Cmp,
    Code,
    Counter,
    Expr,
    Immediate,
    Meta,
    Payload,
    Range,
    Verdict,
    XtMatch,
    XtTarget,
)

_PROTOCOLS = {6: "tcp", 17: "udp"}
_IIFNAME, _OIFNAME, _L4PROTO = 6, 7, 16  # enum nft_meta_keys
_ADDRESSES = {4: {12: "-s", 16: "-d"}, 16: {8: "-s", 24: "-d"}}  # length of an address, offset in its header
_TYPES = {1 << 0: "UNSPEC", 1 << 1: "UNICAST", 1 << 2: "LOCAL", 1 << 3: "BROADCAST", 1 << 5: "MULTICAST"}
_STATES = ((1, "INVALID"), (8, "NEW"), (2, "ESTABLISHED"), (4, "RELATED"), (256, "UNTRACKED"))
_CODES = {Code.DROP: "DROP", Code.ACCEPT: "ACCEPT", Code.RETURN: "RETURN"}


def specification(exprs: Sequence[Expr], family: str) -> tuple[str, ...] | None:
    """The words behind `iptables -t TABLE -D CHAIN` (`ip6tables` for family ip6); None when they are not all known.

    The order is that of `iptables -S`; for deleting it does not matter.
    """
    words: list[str] = []
    reading = _Native(family)
    protocol = ""
    for expr in exprs:
        if isinstance(expr, Counter):
            continue
        if isinstance(expr, XtMatch | XtTarget):
            found = _extension(expr.spec, family, protocol)
        else:
            found = reading.take(expr)
            protocol = reading.protocol or protocol
        if isinstance(expr, XtMatch) and isinstance(expr.spec, xt.IpHeader):
            protocol = _PROTOCOLS.get(expr.spec.protocol, "")
        if found is None:
            return None
        words += found
    return tuple(words) if words and reading.done else None


class _Native:
    """Reads iptables-nft's native expressions: a load, perhaps a mask, a comparison."""

    def __init__(self, family: str) -> None:
        self._size = 4 if family == "ip" else 16
        self._load: Meta | Payload | None = None
        self._mask: bytes | None = None
        self.protocol = ""

    @property
    def done(self) -> bool:
        """Whether nothing was loaded that no comparison followed."""
        return self._load is None

    def take(self, expr: Expr) -> list[str] | None:
        """The words that an expression completes; None when it is not iptables'."""
        if isinstance(expr, Immediate) and expr.verdict is not None:
            return _verdict(expr.verdict)
        if isinstance(expr, Meta | Payload):
            first = self._load is None
            self._load, self._mask = expr, None
            return [] if first else None
        if isinstance(expr, Bitwise) and self._load is not None and not expr.op and not any(expr.xor):
            self._mask = expr.mask
            return []
        load, self._load = self._load, None
        if isinstance(expr, Cmp) and load is not None and expr.op in (0, 1):
            words = self._compared(load, expr.data)
            return words and [*(["!"] if expr.op else []), *words] if words else None
        if isinstance(expr, Range) and isinstance(load, Payload) and not expr.op and self._is_port(load):
            low, high = int.from_bytes(expr.low), int.from_bytes(expr.high)
            return ["-m", self.protocol, "--dport", f"{low}:{high}"] if self.protocol else None
        return None

    def _compared(self, load: Meta | Payload, data: bytes) -> list[str] | None:
        if isinstance(load, Meta):
            if load.key in (_IIFNAME, _OIFNAME) and self._mask is None:
                name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
                return ["-i" if load.key == _IIFNAME else "-o", name if data.endswith(b"\0") else f"{name}+"]
            if load.key == _L4PROTO and self._mask is None and len(data) == 1:
                self.protocol = _PROTOCOLS.get(data[0], "")
                return ["-p", self.protocol] if self.protocol else None
            return None
        if load.base == 1 and load.offset in _ADDRESSES[self._size]:
            network = _network(data, self._mask, self._size)
            return [_ADDRESSES[self._size][load.offset], network] if network else None
        if self._is_port(load) and self._mask is None and self.protocol:
            return ["-m", self.protocol, "--dport", str(int.from_bytes(data))]
        return None

    @staticmethod
    def _is_port(load: Payload) -> bool:
        return (load.base, load.offset, load.length) == (2, 2, 2)


def _network(data: bytes, mask: bytes | None, size: int) -> str | None:
    """An address with its prefix: iptables-nft compares whole bytes of it, or masks the last."""
    length = 8 * len(data) if mask is None else sum(byte.bit_count() for byte in mask)
    if mask is not None and int.from_bytes(mask) != ((1 << length) - 1) << (8 * len(mask) - length):
        return None
    return f"{ipaddress.ip_address(data.ljust(size, bytes(1)))}/{length}"


def _verdict(verdict: Verdict) -> list[str] | None:
    if verdict.code in (Code.JUMP, Code.GOTO) and verdict.chain:
        return ["-j" if verdict.code == Code.JUMP else "-g", verdict.chain]
    return ["-j", _CODES[Code(verdict.code)]] if verdict.code in _CODES else None


def _extension(spec: xt.XtSpec | None, family: str, protocol: str) -> list[str] | None:
    if isinstance(spec, xt.Comment):
        return ["-m", "comment", "--comment", spec.text]
    if isinstance(spec, xt.Ports):
        return _ports(spec)
    if isinstance(spec, xt.Multiport):
        option = {0: "--sports", 1: "--dports", 2: "--ports"}[spec.which]
        pairs = ",".join(str(low) if low == high else f"{low}:{high}" for low, high in spec.ranges)
        return ["-m", "multiport", *(["!"] if spec.invert else []), option, pairs]
    if isinstance(spec, xt.Addrtype):
        plain = spec.destination in _TYPES and not (spec.source or spec.limit_in or spec.limit_out)
        invert = ["!"] if spec.invert_destination else []
        return ["-m", "addrtype", *invert, "--dst-type", _TYPES[spec.destination]] if plain else None
    if isinstance(spec, xt.Mark) and not spec.conntrack:
        return ["-m", "mark", *(["!"] if spec.invert else []), "--mark", f"{spec.value:#x}/{spec.mask:#x}"]
    if isinstance(spec, xt.State):
        names = ",".join(name for bit, name in _STATES if spec.mask & bit)
        known = not spec.mask & ~sum(bit for bit, _ in _STATES)
        return ["-m", "conntrack", *(["!"] if spec.invert else []), "--ctstate", names] if known else None
    if isinstance(spec, xt.IpHeader):
        return _header(spec)
    if isinstance(spec, xt.XtStandard):
        return _verdict(Verdict(spec.code, spec.chain))
    if isinstance(spec, xt.NatRange):
        return _mapping(spec, family)
    if isinstance(spec, xt.XtReject) and family == "ip" and spec.how in (3, 7):
        with_what = {3: "icmp-port-unreachable", 7: "tcp-reset"}[spec.how]
        return ["-j", "REJECT", "--reject-with", with_what]
    return None


def _ports(spec: xt.Ports) -> list[str] | None:
    if spec.flags_mask or spec.option or spec.protocol not in _PROTOCOLS:
        return None
    words = ["-m", _PROTOCOLS[spec.protocol]]
    sides = (
        ("--sport", spec.source, spec.invert_source),
        ("--dport", spec.destination, spec.invert_destination),
    )
    for option, (low, high), invert in sides:
        if (low, high) != (0, 65535) or invert:
            words += [*(["!"] if invert else []), option, str(low) if low == high else f"{low}:{high}"]
    return words


def _header(spec: xt.IpHeader) -> list[str] | None:
    """The part of a legacy rule that every rule has."""
    words: list[str] = []
    if (
        spec.invert
        or spec.flags & ~(3 if spec.family == 10 else 2)
        or (spec.protocol and spec.protocol not in _PROTOCOLS)
    ):
        return None
    for option, (address, mask) in (("-s", spec.source), ("-d", spec.destination)):
        if any(mask):
            network = _network(address, mask, len(address))
            if network is None:
                return None
            words += [option, network]
    for option, name in (("-i", spec.in_interface), ("-o", spec.out_interface)):
        words += [option, name] if name else []
    return words + (["-p", _PROTOCOLS[spec.protocol]] if spec.protocol else [])


def _mapping(spec: xt.NatRange, family: str) -> list[str] | None:
    """DNAT and REDIRECT without options; xtables' flags: 1 addresses, 2 ports."""
    if spec.flags & ~3 or spec.target not in ("DNAT", "REDIRECT"):
        return None
    low, high = spec.port
    ports = str(low) if low == high else f"{low}-{high}"
    if spec.target == "REDIRECT":
        return ["-j", "REDIRECT", *(["--to-ports", ports] if spec.flags & 2 else [])]
    if not spec.flags & 1:
        return None
    addresses = [str(ipaddress.ip_address(each)) for each in dict.fromkeys(spec.addr)]
    place = "-".join(addresses)
    if spec.flags & 2:
        place = f"[{place}]:{ports}" if family == "ip6" else f"{place}:{ports}"
    return ["-j", "DNAT", "--to-destination", place]
