"""Comparisons of a register with constants: `tcp dport 6443`, `ip saddr != 10.0.0.0/9`, `ct state new`."""

from __future__ import annotations

from k3swatch.evaluate.text import fields, render, symbols
from k3swatch.evaluate.text.loads import concatenation, expression
from k3swatch.evaluate.text.verdict import verdict
from k3swatch.evaluate.text.writer import SLOT, Value, Writer, slots
from k3swatch.model.expr import Cmp, Lookup, Range
from k3swatch.model.ruleset import Element

EQ, LTE, GTE = 0, 3, 5
OPERATORS = ("==", "!=", "<", "<=", ">", ">=")  # enum nft_cmp_ops
LOOKUP_INVERTED = 1  # NFT_LOOKUP_F_INV


def cmp(expr: Cmp, writer: Writer) -> None:
    """A register against one constant."""
    value, data = writer.value(expr.sreg), expr.data
    sign = symbols.word(OPERATORS, expr.op)
    if value.establishes and expr.op == EQ and value.mask is None:
        number = int.from_bytes(data, "big")
        if value.text == "meta protocol":
            number = {0x0800: 2, 0x86DD: 10}.get(number, 0)
        writer.depend(value.establishes, number, f"{value.text} {value.render(data)}")
    elif len(value.fields) > 1 and expr.op == EQ and value.mask is None:
        for field in value.fields:
            writer.say(f"{field.name} {field.render(data[: field.length])}")
            data = data[field.length :]
    elif value.mask is not None:
        writer.say(masked(value, sign, data))
    elif expr.op == LTE and writer.said[-1:] == [f"{value.text} >= {writer.low}"]:
        writer.said[-1] = f"{value.text} {writer.low}-{value.render(data)}"
    else:
        constant = value.render(data)
        writer.say(f"{value.text} {'' if sign == '==' else sign + ' '}{constant}")
        writer.low = constant if expr.op == GTE else ""


def masked(value: Value, sign: str, data: bytes) -> str:
    """A comparison after bitwise, in the shortest of nft's forms for the datatype."""
    mask, xor = value.mask or b"", value.xor
    unless = "" if sign == "==" else f"{sign} "
    if sign not in ("==", "!=") or any(xor) or len(mask) != len(data):
        return f"{expression(value)} {sign} {value.render(data)}"
    if value.render in (render.ipv4, render.ipv6) and (ones := leading_ones(mask)) is not None:
        return f"{value.text} {unless}{value.render(data)}/{ones}"
    if value.bit_field and (found := fields.BIT_FIELDS.get((*value.bit_field, int.from_bytes(mask, "big")))):
        name, shift, shown = found
        return f"{name} {unless}{shown((int.from_bytes(data, 'big') >> shift).to_bytes(len(data), 'big'))}"
    bits = value.bitset or value.render is render.tcp_flags
    if bits and not any(data):
        return f"{value.text} {'' if sign == '!=' else '! '}{value.render(mask)}"
    if value.render is render.tcp_flags:
        return f"{value.text} {unless}{value.render(data)} / {value.render(mask)}"
    return f"{expression(value)} {sign} {value.render(data)}"


def leading_ones(mask: bytes) -> int | None:
    """Length of the prefix a mask stands for; None when its ones are not all in front."""
    number, size = int.from_bytes(mask, "big"), 8 * len(mask)
    ones = number.bit_count()
    return ones if number == ((1 << ones) - 1) << (size - ones) else None


def prefix(address: bytes, mask: bytes) -> str:
    """`10.42.0.0/24`; a mask with holes in full."""
    ones = leading_ones(mask)
    if ones == 8 * len(address):
        return render.address(address)
    return f"{render.address(address)}/{render.address(mask) if ones is None else ones}"


def range_(expr: Range, writer: Writer) -> None:
    """A register against a range: `tcp dport 6400-6500`."""
    value = writer.value(expr.sreg)
    unless = "!= " if expr.op else ""
    low, high = value.render(expr.low), value.render(expr.high)
    writer.say(f"{expression(value)} {unless}{low}-{high}")


def lookup(expr: Lookup, writer: Writer) -> None:
    """A key in a set, or the verdict a map has for it."""
    parts = writer.key(expr.sreg)
    unless = "!= " if expr.flags & LOOKUP_INVERTED else ""
    word = "vmap " if expr.dreg == 0 else ""
    writer.say(f"{concatenation(parts)} {unless}{word}{named(expr.set, parts, writer)}")


def named(name: str, parts: tuple[Value, ...], writer: Writer) -> str:
    """`@name`, or what is in it: `{ 22, 80, 6440-6450 }`, `{ 0 : goto a, 1 : goto b }`."""
    found = writer.members(name) if writer.members else None
    if found is None:
        return f"@{name}"
    return f"{{ {', '.join(member(one, parts) for one in found)} }}"


def member(element: Element, parts: tuple[Value, ...]) -> str:
    """One element: every part of a concatenated key is padded to a whole register."""
    shown, at = [], 0
    for part in parts:
        low, high = (key[at : at + part.length] for key in (element.low, element.high))
        shown.append(ends(low, high, part))
        at += SLOT * slots(part.length)
    key = "*" if element.catchall else " . ".join(shown)
    return f"{key} : {verdict(element.verdict)}" if element.verdict else key


def ends(low: bytes, high: bytes, value: Value) -> str:
    """A value, a prefix or a range."""
    if low == high:
        return value.render(low)
    mask = bytes(a ^ b ^ 0xFF for a, b in zip(low, high, strict=False))
    hosts = bytes(byte ^ 0xFF for byte in mask)
    whole = not any(a & b for a, b in zip(low, hosts, strict=False)) and leading_ones(mask) is not None
    if value.render in (render.ipv4, render.ipv6) and whole:
        return prefix(low, mask)
    return f"{value.render(low)}-{value.render(high)}"
