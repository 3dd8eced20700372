"""xtables matches and targets in nft's words where nft has any, else `xt ...`; a blob we do not read is opaque."""

from __future__ import annotations

from collections.abc import Iterator

from k3swatch.evaluate.text import render, symbols, xt_bridge
from k3swatch.evaluate.text.compare import prefix
from k3swatch.evaluate.text.writer import LAYER3, LAYER4, Writer
from k3swatch.evaluate.text.xt_connection import connection, state
from k3swatch.evaluate.text.xt_targets import nat, set_mark, tproxy, verdict
from k3swatch.evaluate.text.xt_words import ALL, span, unless
from k3swatch.model import xt
from k3swatch.model.expr import XtMatch, XtTarget

ANY_PORT = (0, 65535)
SIDES = ("sport", "dport")


def write(expr: XtMatch | XtTarget, writer: Writer) -> None:
    """Say what one match or target does."""
    match expr.spec:
        case None:
            writer.say(f"opaque({expr.name})")
        case xt.Comment():
            pass
        case xt.Ports() | xt.Multiport():
            transport(expr.spec, writer)
        case xt.IpHeader():
            header(expr.spec, writer)
        case xt.XtNotrack() | xt.XtSynproxy() | xt.XtQueue() | xt.XtReject() | xt.XtStandard():
            writer.say(verdict(expr.spec, writer))
        case _:
            writer.say(words(expr.spec, writer))


def words(spec: xt.XtSpec, writer: Writer) -> str:
    """Everything that needs no more than the family."""
    match spec:
        case xt.Environment() | xt.Harmless() | xt.AnyMark() | xt.XtZone():
            return f"xt {spec.words}"
        case xt.Addrtype():
            return addrtype(spec)
        case xt.Mark():
            return mark(spec)
        case xt.SetMark():
            return set_mark(spec)
        case xt.State():
            return state(spec)
        case xt.Conntrack():
            return connection(spec)
        case xt.NatRange():
            return nat(spec, writer)
        case xt.XtTproxy():
            return tproxy(spec)
        case xt.Statistic():
            return statistic(spec)
        case xt.Owner():
            return owner(spec)
        case xt.IpRange():
            return iprange(spec)
        case xt.PhysDev():
            return physdev(spec)
        case xt.PktType():
            return f"meta pkttype {unless(spec.invert)}{symbols.PKTTYPES.get(spec.type, str(spec.type))}"
        case xt.Icmp():
            name = "icmpv6" if spec.protocol == xt.ICMPV6 else "icmp"
            code = "" if spec.codes == (0, 255) else f" code {span(spec.codes)}"
            which = "any" if spec.type == xt.ANY_TYPE else f"type {spec.type}{code}"
            return f"xt {name} {unless(spec.invert)}{which}"
        case xt.RpFilter():
            keys = ["saddr"] + ["mark"] * bool(spec.flags & 2) + ["iif"] * (not spec.flags & 1)
            return f"fib {' . '.join(keys)} oif {'missing' if spec.invert else 'exists'}"
        case xt.XtSocket():
            return "xt socket" + " transparent" * (spec.flags & 1) + " nowildcard" * bool(spec.flags & 2)
        case xt.EtherIp():
            return xt_bridge.ip(spec)
        case xt.EtherNat() | xt.EtherMark():
            return xt_bridge.target(spec)
        case xt.XtNpt():
            source, target = (
                f"{render.ipv6(prefix)}/{bits}" for prefix, bits in (spec.source, spec.destination)
            )
            return f"xt {spec.target} {source} to {target}"
    return f"opaque({type(spec).__name__})"


def transport(spec: xt.Ports | xt.Multiport, writer: Writer) -> None:
    """`tcp dport 6443`, `tcp dport { 6443, 80 }`, `tcp flags syn / fin,syn,rst,ack`."""
    number = spec.protocol if isinstance(spec, xt.Ports) else writer.layer4
    name = symbols.PROTOCOLS.get(number or 0, "th")
    for text in ports(spec, name) if isinstance(spec, xt.Ports) else multiport(spec, name):
        if number == writer.layer4 and text.startswith(name):
            writer.name(LAYER4)
        writer.say(text)


def multiport(spec: xt.Multiport, name: str) -> Iterator[str]:
    """`tcp dport { 6443, 8000-8999 }`; `--ports` asks for either end, which nft has no word for."""
    shown = ", ".join(span(ends) for ends in spec.ranges)
    shown = shown if len(spec.ranges) == 1 else f"{{ {shown} }}"
    key = f"{name} {symbols.word(SIDES, spec.which)}" if spec.which in (0, 1) else "xt multiport ports"
    yield f"{key} {unless(spec.invert)}{shown}"


def ports(spec: xt.Ports, name: str) -> Iterator[str]:
    """What `-m tcp` and `-m udp` ask; nothing when they only stand beside `-p`."""
    if spec.source != ANY_PORT or spec.invert_source:
        yield f"{name} sport {unless(spec.invert_source)}{span(spec.source)}"
    if spec.destination != ANY_PORT or spec.invert_destination:
        yield f"{name} dport {unless(spec.invert_destination)}{span(spec.destination)}"
    if spec.flags_mask or spec.invert_flags:
        compare, mask = (
            symbols.bits(bits, symbols.TCP_FLAGS) for bits in (spec.flags_compare, spec.flags_mask)
        )
        yield f"tcp flags {unless(spec.invert_flags)}{compare} / {mask}"
    if spec.option:
        yield f"tcp option {spec.option} {'missing' if spec.invert_option else 'exists'}"


def header(spec: xt.IpHeader, writer: Writer) -> None:
    """The part every legacy rule begins with. Invert bits are IPT_INV_*."""
    via_in, via_out, source, destination, protocol = (spec.invert & bit for bit in (1, 2, 8, 16, 64))
    for key, name, inverted in (
        ("iifname", spec.in_interface, via_in),
        ("oifname", spec.out_interface, via_out),
    ):
        if name:
            shown = name[:-1] + "*" if name.endswith("+") else name
            writer.say(f'{key} {unless(inverted)}"{shown}"')
    family = "ip6" if spec.family == 10 else "ip"
    for key, (address, mask), inverted in (
        ("saddr", spec.source, source),
        ("daddr", spec.destination, destination),
    ):
        if any(mask) or inverted:
            writer.say(f"{family} {key} {unless(inverted)}{prefix(address, mask)}")
    if spec.protocol:
        text = f"meta l4proto {unless(protocol)}{symbols.PROTOCOLS.get(spec.protocol, str(spec.protocol))}"
        if protocol:
            writer.say(text)
        else:
            writer.depend(LAYER4, spec.protocol, text)
    writer.know(LAYER3, spec.family)


def addrtype(spec: xt.Addrtype) -> str:
    """`fib saddr type != broadcast fib daddr type local`."""
    device = " . iif" if spec.limit_in else " . oif" if spec.limit_out else ""
    parts = []
    for key, mask, invert in (
        ("saddr", spec.source, spec.invert_source),
        ("daddr", spec.destination, spec.invert_destination),
    ):
        if mask:
            kinds = [symbols.ADDRTYPES[bit] for bit in range(len(symbols.ADDRTYPES)) if mask & 1 << bit]
            kinds += [f"{mask >> 12 << 12:#x}"] if mask >> 12 else []
            shown = kinds[0] if len(kinds) == 1 else f"{{ {', '.join(kinds)} }}"
            parts.append(f"fib {key}{device} type {unless(invert)}{shown}")
    return " ".join(parts)


def mark(spec: xt.Mark) -> str:
    """`meta mark & 0x00004000 == 0x00004000`."""
    name = "ct mark" if spec.conntrack else "meta mark"
    if spec.mask == ALL:
        return f"{name} {unless(spec.invert)}0x{spec.value:08x}"
    return f"{name} & 0x{spec.mask:08x} {'!=' if spec.invert else '=='} 0x{spec.value:08x}"


def statistic(spec: xt.Statistic) -> str:
    """`xt statistic random probability 0.5`: nft has words for it that tell a person less."""
    if spec.mode == 0:
        return f"xt statistic random probability {unless(spec.invert)}{spec.probability:.6g}"
    return f"xt statistic nth {unless(spec.invert)}one in {spec.every}, packet {spec.packet}"


def owner(spec: xt.Owner) -> str:
    """`meta skuid 1000-1005 meta skgid != 5`."""
    parts = []
    for bit, name, ends in ((1, "meta skuid", spec.uid), (2, "meta skgid", spec.gid)):
        if spec.match & bit:
            parts.append(f"{name} {unless(spec.invert & bit)}{span(ends)}")
    if spec.match & 4:
        parts.append(f"xt owner {'no socket' if spec.invert & 4 else 'socket exists'}")
    return " ".join(parts)


def iprange(spec: xt.IpRange) -> str:
    """`ip saddr 10.0.0.1-10.0.0.9`."""
    parts = []
    for key, ends, invert in (
        ("saddr", spec.source, spec.invert_source),
        ("daddr", spec.destination, spec.invert_destination),
    ):
        if ends is not None:
            family = "ip6" if len(ends[0]) == 16 else "ip"
            low, high = (render.address(end) for end in ends)
            parts.append(f"{family} {key} {unless(invert)}{low}-{high}")
    return " ".join(parts)


def physdev(spec: xt.PhysDev) -> str:
    """`xt physdev in "eth0" != bridged`; bits are XT_PHYSDEV_OP_*."""
    parts = []
    asked = (
        (1, f'in "{spec.physin}"'),
        (2, f'out "{spec.physout}"'),
        (4, "bridged"),
        (8, "is in"),
        (16, "is out"),
    )
    for bit, name in asked:
        if spec.bitmask & bit:
            parts.append(f"{unless(spec.invert & bit)}{name}")
    return "xt physdev " + " ".join(parts)
