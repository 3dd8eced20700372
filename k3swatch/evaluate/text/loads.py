"""Expressions that fill a register: they say nothing by themselves, they are named where the register is used."""

from __future__ import annotations

from dataclasses import replace

from k3swatch.evaluate.text import fields, render, symbols
from k3swatch.evaluate.text.fields import LINK, NETWORK, TRANSPORT
from k3swatch.evaluate.text.writer import LAYER2, LAYER3, LAYER4, Value, Writer
from k3swatch.model.expr import (
    Bitwise,
    Byteorder,
    Ct,
    Expr,
    Exthdr,
    Fib,
    Hash,
    Immediate,
    Lookup,
    Meta,
    Numgen,
    Payload,
    Rt,
    Socket,
)

FIB_FLAGS = ((1, "saddr"), (2, "daddr"), (4, "mark"), (8, "iif"), (16, "oif"))
FIB_PRESENT = 32
FIB_RESULTS = {1: ("oif", render.host), 2: ("oifname", render.interface), 3: ("type", render.addrtype)}
SOCKET_KEYS = ("transparent", "mark", "wildcard", "cgroupv2")
RT_KEYS = ("classid", "ip nexthop", "ip6 nexthop", "mtu", "ipsec")
EXTHDR_IPV6 = {0: "hbh", 43: "rt", 44: "frag", 51: "ah", 60: "dst", 135: "mh"}
EXTHDR_OPS = ("exthdr", "tcp option", "ip option", "sctp chunk", "dccp option")
TCP_OPTIONS = {2: "maxseg", 3: "window", 4: "sack-perm", 5: "sack", 8: "timestamp"}
BASES = ("ll", "nh", "th", "ih")


def payload(expr: Payload, writer: Writer) -> Value:
    """`ip saddr`, `tcp dport`, or raw: `@th,16,16`."""
    header: tuple[fields.Field, ...] = ()
    name = ""
    layers: tuple[int, ...] = ()
    if expr.base == LINK:
        name, header, layers = "ether", fields.ETHER, (LAYER2,)
    elif expr.base == NETWORK and writer.layer3 in (2, 10):
        name, header = ("ip", fields.IP) if writer.layer3 == 2 else ("ip6", fields.IP6)
        layers = (LAYER3,)
    elif expr.base == TRANSPORT:
        header = fields.TH if writer.layer4 is None else fields.BY_PROTOCOL.get(writer.layer4, ())
        name = header[0].name.split()[0] if header else ""
        if name != "th":
            layers = (LAYER4, LAYER3) if name.startswith("icmp") else (LAYER4,)
    found = fields.covered(header, expr.offset, expr.length)
    raw = f"@{symbols.word(BASES, expr.base)},{expr.offset * 8},{expr.length * 8}"
    value = Value(
        found[0].name if len(found) == 1 else raw,
        found[0].render if len(found) == 1 else render.hexadecimal,
        expr.length,
        fields=found,
        bit_field=(name, expr.offset, expr.length),
        rests_on=layers,
    )
    announces = value.text in ("ip protocol", "ip6 nexthdr")
    return replace(value, establishes=LAYER4) if announces else value


def meta(expr: Meta) -> Value:
    """`meta mark`, `iifname`."""
    name, shown = fields.META.get(expr.key, (f"meta {expr.key}", render.hexadecimal))
    length = 16 if shown is render.interface else 1 if expr.key in (15, 16, 19) else 4
    layers = {
        fields.META_IIFTYPE: LAYER2,
        fields.META_PROTOCOL: LAYER3,
        fields.META_NFPROTO: LAYER3,
        fields.META_L4PROTO: LAYER4,
    }
    return Value(name, shown, length, establishes=layers.get(expr.key, 0))


def ct(expr: Ct) -> Value:
    """`ct state`, `ct original ip daddr`."""
    name, shown = fields.CT.get(expr.key, (str(expr.key), render.hexadecimal))
    way = {None: "", 0: "original ", 1: "reply "}.get(expr.direction, "? ")
    length = 16 if shown in (render.quoted, render.hexadecimal, render.ipv6) else 4
    return Value(f"ct {way}{name}", shown, length, bitset=expr.key in (0, 2, 13))


def fib(expr: Fib) -> Value:
    """`fib daddr . iif type`."""
    keys = " . ".join(name for bit, name in FIB_FLAGS if expr.flags & bit)
    name, shown = FIB_RESULTS.get(expr.result, (str(expr.result), render.hexadecimal))
    length = 16 if expr.result == 2 else 4
    return Value(f"fib {keys} {name}", render.presence if expr.flags & FIB_PRESENT else shown, length)


def numgen(expr: Numgen) -> Value:
    """`numgen random mod 2`."""
    offset = f" offset {expr.offset}" if expr.offset else ""
    return Value(f"numgen {'random' if expr.type else 'inc'} mod {expr.modulus}{offset}", render.host)


def hash_(expr: Hash, writer: Writer) -> Value:
    """`jhash ip saddr mod 2`, `symhash mod 2`."""
    offset = f" offset {expr.offset}" if expr.offset else ""
    if expr.type == 1 or expr.sreg is None:
        return Value(f"symhash mod {expr.modulus}{offset}", render.host)
    seed = f" seed 0x{expr.seed:x}" if expr.seed else ""
    key = concatenation(writer.key(expr.sreg, expr.length))
    return Value(f"jhash {key} mod {expr.modulus}{seed}{offset}", render.host)


def socket(expr: Socket) -> Value:
    """`socket transparent`."""
    name = symbols.word(SOCKET_KEYS, expr.key)
    level = f" level {expr.level}" if expr.key == 3 else ""
    shown = render.mark if expr.key == 1 else render.network if expr.key != 3 else render.host
    return Value(f"socket {name}{level}", shown, 1 if expr.key in (0, 2) else 8 if expr.key == 3 else 4)


def rt(expr: Rt) -> Value:
    """`rt mtu`."""
    name = symbols.word(RT_KEYS, expr.key)
    shown = render.address if expr.key in (1, 2) else render.host
    return Value(f"rt {name}", shown, 16 if expr.key == 2 else 4)


def exthdr_name(expr: Exthdr) -> str:
    """`exthdr frag`, `tcp option maxseg size`: op 0 is IPv6, 1 TCP, 2 IPv4 options, 3 SCTP chunks, 4 DCCP."""
    kind = str(expr.type)
    if expr.op == 0:
        name = f"exthdr {EXTHDR_IPV6.get(expr.type, kind)}"
    elif expr.op == 1:
        name = f"tcp option {TCP_OPTIONS.get(expr.type, kind)}"
        if (expr.type, expr.offset, expr.length) == (2, 2, 2):
            return f"{name} size"
    else:
        name = f"{symbols.word(EXTHDR_OPS, expr.op)} {kind}"
    return name if expr.flags & 1 else f"{name} @{expr.offset * 8},{expr.length * 8}"


def exthdr(expr: Exthdr) -> Value:
    """An option or extension header, or whether there is one."""
    present = expr.flags & 1
    name = exthdr_name(expr)
    shown = render.presence if present else render.network
    return Value(name.removesuffix(" size") if present else name, shown, 1 if present else expr.length)


def bitwise(expr: Bitwise, writer: Writer) -> Value:
    """`meta mark & 0xff`, kept apart so that a comparison can become `ip saddr 10.0.0.0/9`."""
    value = writer.value(expr.sreg)
    if expr.op == 0 and value.mask is None and value.constant is None:
        return replace(value, mask=expr.mask, xor=expr.xor, length=expr.length)
    if expr.op == 0:
        masked = replace(value, text=expression(value), mask=expr.mask, xor=expr.xor)
        return replace(masked, length=expr.length, constant=None)
    sign = {1: "<<", 2: ">>", 3: "&", 4: "|", 5: "^"}.get(expr.op, "?")
    if expr.sreg2 is not None:
        right = expression(writer.value(expr.sreg2))
    else:
        right = str(int.from_bytes(expr.data, render.HOST)) if expr.op in (1, 2) else value.render(expr.data)
    text = f"{expression(value)} {sign} {right}"
    return Value(text, value.render, expr.length, rests_on=value.rests_on)


def byteorder(expr: Byteorder, writer: Writer) -> Value:
    """Nothing to see for a person: only constants turn round."""
    value = writer.value(expr.sreg)
    return replace(value, render=render.swapped(value.render, expr.size))


def lookup(expr: Lookup, writer: Writer) -> Value:
    """`tcp dport map @name`: what the map gives, an address or an address with a port (its length is not known)."""
    return Value(f"{concatenation(writer.key(expr.sreg))} map @{expr.set}", length=16)


def expression(value: Value) -> str:
    """The value as the right side of `set`, or as part of a key: bitwise spelled out, a constant printed."""
    if value.constant is not None:
        return value.render(value.constant)
    if value.mask is None:
        return value.text
    mask, xor = value.mask, value.xor
    ones = all(byte == 0xFF for byte in mask)
    if value.bit_field and not any(xor):
        name = fields.BIT_FIELDS.get((*value.bit_field, int.from_bytes(mask, "big")))
        if name:
            return name[0]
    if not any(xor):
        return value.text if ones else f"{value.text} & {value.render(mask)}"
    if ones:
        return f"{value.text} ^ {value.render(xor)}"
    if all(m ^ x == 0xFF for m, x in zip(mask, xor, strict=False)):
        return f"{value.text} | {value.render(xor)}"
    sign = "^" if any(m & x for m, x in zip(mask, xor, strict=False)) else "|"
    return f"{value.text} & {value.render(mask)} {sign} {value.render(xor)}"


def concatenation(parts: tuple[Value, ...]) -> str:
    """`ip daddr . meta l4proto . th dport`."""
    return " . ".join(expression(part) for part in parts)


def load(expr: Expr, writer: Writer) -> bool:
    """Put the value of `expr` into its register; False when it is not an expression that does."""
    match expr:
        case Payload():
            value = payload(expr, writer)
        case Meta():
            value = meta(expr)
        case Ct():
            value = ct(expr)
        case Fib():
            value = fib(expr)
        case Numgen():
            value = numgen(expr)
        case Hash():
            value = hash_(expr, writer)
        case Socket():
            value = socket(expr)
        case Rt():
            value = rt(expr)
        case Exthdr(dreg=int()):
            value = exthdr(expr)
        case Bitwise():
            value = bitwise(expr, writer)
        case Byteorder():
            value = byteorder(expr, writer)
        case Immediate(verdict=None):
            value = Value("", length=len(expr.data), constant=expr.data)
        case Lookup(dreg=int()):
            value = lookup(expr, writer)
        case _:
            return False
    if expr.dreg is not None:
        writer.load(expr.dreg, value)
    return True
