"""The meaning of xtables matches and targets (nft_compat's, and those of iptables-legacy rules).

Follows the `match`/`target` functions of net/netfilter/xt_*.c and net/ipv4/netfilter/ipt_*.c. A match answers with a
box and whether it must hold; a target with the ways the rule ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k3swatch.evaluate.cells import big, equal, little, masked, within
from k3swatch.evaluate.cube import YES, Box, Kind, Var, flag
from k3swatch.evaluate.machine import REJECTED, Context, Path, ended, maybe, split, unreadable, with_mark
from k3swatch.evaluate.outcome import Fate
from k3swatch.evaluate.packet import (
    RAW_CONNTRACK,
    RTN_LOCAL,
    RTN_UNICAST,
    interface_cells,
    is_local,
    owner_of,
)
from k3swatch.evaluate.ranges import Ranges, normal
from k3swatch.evaluate.statements import NETMAP, map_to, notrack, redirect_to, tproxy_to
from k3swatch.model import xt
from k3swatch.model.expr import Code, Verdict, XtMatch, XtTarget
from k3swatch.model.words import Family, Mechanism, Vantage

Test = tuple[Box | None, bool]  # None: cannot hold; the flag: whether it must hold
ALWAYS: Test = ([], True)
NEVER: Test = (None, True)


def match(context: Context, expr: XtMatch, path: Path) -> list[Path]:
    """nft_match_eval: the rule goes on where the match holds."""
    if isinstance(expr.spec, xt.Environment) and expr.spec.holds is None:
        # one that counts is the rule's own; two of the others are the same test when all their bytes are
        which = context.rule_id if expr.name in _METERS else expr.info.hex()
        identity = f"{expr.name} {expr.revision} {which}"
        return maybe(path, expr.spec.words, identity=identity)
    tester = _MATCHES.get(type(expr.spec))
    if tester is None:
        words = f"xt {expr.name} (not understood)"
        return maybe(path, words, Kind.OPAQUE, identity=f"{words} {context.rule_id}")
    paths = [path]
    for box, wanted in tester(context, expr.spec, path):
        following: list[Path] = []
        for one in paths:
            if one.verdict is not None:
                following.append(one)
            else:
                following.extend(split(one, box, wanted))
        paths = following
    return paths


def port_ranges(ranges: tuple[tuple[int, int], ...]) -> Ranges:
    """Ports as ranges, empty ones left out."""
    return normal([(low, high) for low, high in ranges if low <= high])


def _port_test(context: Context, path: Path, which: str, ranges: Ranges, invert: bool) -> Test:
    if which == "destination":
        hit = any(low <= path.packet.dport <= high for low, high in ranges)
        return ALWAYS if hit != invert else NEVER
    return [(context.scene.sport, ranges)], not invert


def _ports(context: Context, spec: xt.Ports, path: Path) -> list[Test]:
    if spec.protocol != context.scene.protocol.number:
        return [NEVER]
    tests = [
        _port_test(context, path, "source", port_ranges((spec.source,)), spec.invert_source),
        _port_test(context, path, "destination", port_ranges((spec.destination,)), spec.invert_destination),
    ]
    if spec.flags_mask or spec.invert_flags:
        syn = 0x02
        hit = syn & spec.flags_mask == spec.flags_compare
        tests.append(ALWAYS if hit != spec.invert_flags else NEVER)
    if spec.option:
        tests.append(([(flag(f"tcp option {spec.option}", Kind.ENVIRONMENT), YES)], not spec.invert_option))
    return tests


def _multiport(context: Context, spec: xt.Multiport, path: Path) -> list[Test]:
    ranges = port_ranges(spec.ranges)
    if spec.which == 0:
        return [_port_test(context, path, "source", ranges, spec.invert)]
    hit = any(low <= path.packet.dport <= high for low, high in ranges)
    if spec.which == 1 or hit:
        return [ALWAYS if hit != spec.invert else NEVER]
    return [_port_test(context, path, "source", ranges, spec.invert)]


def _addrtype(context: Context, spec: xt.Addrtype, path: Path) -> list[Test]:
    scene = context.scene
    tests: list[Test] = []
    if spec.source:
        kind = RTN_LOCAL if scene.vantage is Vantage.LOCAL else RTN_UNICAST
        tests.append(ALWAYS if bool(spec.source >> kind & 1) != spec.invert_source else NEVER)
    if spec.destination:
        tests.append(_destination_type(context, spec, path))
    return tests


def _destination_type(context: Context, spec: xt.Addrtype, path: Path) -> Test:
    scene, daddr = context.scene, path.packet.daddr
    kind = RTN_LOCAL if is_local(scene.host, daddr) else RTN_UNICAST
    if kind == RTN_LOCAL and spec.limit_in and scene.iif is not None and scene.host.interfaces:
        owner = owner_of(scene.host, daddr)
        wanted_local = bool(spec.destination >> RTN_LOCAL & 1)
        wanted_other = bool(spec.destination >> RTN_UNICAST & 1)
        if wanted_local != wanted_other:
            return [(scene.iif, ((owner, owner),))], wanted_local != spec.invert_destination
    if kind == RTN_LOCAL and spec.limit_out and owner_of(scene.host, daddr) != scene.loopback[0]:
        kind = RTN_UNICAST
    return ALWAYS if bool(spec.destination >> kind & 1) != spec.invert_destination else NEVER


def _mark(context: Context, spec: xt.Mark, path: Path) -> list[Test]:
    if spec.conntrack and (context.scene.priority <= RAW_CONNTRACK or not path.packet.tracked):
        return [NEVER]
    mark = path.packet.ctmark if spec.conntrack else path.packet.mark
    mask = spec.mask.to_bytes(4, "little")
    cells = tuple(masked(cell, m, 0) for cell, m in zip(mark, mask, strict=True))
    return [(equal(cells, spec.value.to_bytes(4, "little"), path.cube), not spec.invert)]


def _statistic(context: Context, spec: xt.Statistic, path: Path) -> list[Test]:
    if spec.mode == 0:
        if spec.probability >= 1.0 or spec.probability <= 0.0:
            return [ALWAYS if (spec.probability >= 1.0) != spec.invert else NEVER]
        words = f"at random ({spec.probability:.0%})"
    else:
        if spec.every <= 1:
            return [ALWAYS if not spec.invert else NEVER]
        words = f"one in {spec.every}"
    var = Var(f"statistic {context.rule_id}", ((0, 1),), Kind.CHANCE, words)
    return [([(var, YES)], not spec.invert)]


def _state_bits(context: Context, path: Path) -> int:
    """XT_CONNTRACK_STATE_* of a first packet."""
    if not path.packet.tracked:
        return 256
    return 8 if context.scene.priority > RAW_CONNTRACK else 1


def _state(context: Context, spec: xt.State, path: Path) -> list[Test]:
    return [ALWAYS if bool(spec.mask & _state_bits(context, path)) != spec.invert else NEVER]


_STATE, _PROTO, _ORIGSRC, _ORIGDST, _REPLSRC, _REPLDST, _STATUS, _EXPIRES = (1 << i for i in range(8))
_ORIGSRC_PORT, _ORIGDST_PORT, _REPLSRC_PORT, _REPLDST_PORT, _DIRECTION = (1 << i for i in range(8, 13))


def _conntrack(context: Context, spec: xt.Conntrack, path: Path) -> list[Test]:
    scene, packet = context.scene, path.packet
    tests: list[Test] = []
    bits = _state_bits(context, path)
    if packet.mapped:
        bits |= 128  # XT_CONNTRACK_STATE_DNAT
    if spec.match & _STATE:
        hit = bool(spec.state_mask & bits)
        tests.append(ALWAYS if hit != bool(spec.invert & _STATE) else NEVER)
    if spec.match & ~_STATE == 0:
        return tests
    if scene.priority <= RAW_CONNTRACK or not packet.tracked:
        return [*tests, NEVER]
    if spec.match & _PROTO:
        hit = spec.protocol == scene.protocol.number
        tests.append(ALWAYS if hit != bool(spec.invert & _PROTO) else NEVER)
    length = scene.family.length
    source, destination = big(scene.saddr, length), tuple(packet.daddr)
    pairs = (
        (_ORIGSRC, spec.origsrc, source),
        (_ORIGDST, spec.origdst, destination),
        (_REPLSRC, spec.replsrc, destination),
        (_REPLDST, spec.repldst, source),
    )
    for bit, (address, mask), cells in pairs:
        if spec.match & bit:
            shown = tuple(masked(cell, m, 0) for cell, m in zip(cells, mask[:length], strict=True))
            wanted = bytes(a & m for a, m in zip(address[:length], mask[:length], strict=True))
            tests.append((equal(shown, wanted, path.cube), not spec.invert & bit))
    if spec.match & _STATUS:
        none_yet = spec.status_mask == 0
        tests.append(ALWAYS if none_yet != bool(spec.invert & _STATUS) else NEVER)
    for bit, ports, which in (
        (_ORIGSRC_PORT, spec.origsrc_port, "source"),
        (_ORIGDST_PORT, spec.origdst_port, "destination"),
        (_REPLSRC_PORT, spec.replsrc_port, "destination"),
        (_REPLDST_PORT, spec.repldst_port, "source"),
    ):
        if spec.match & bit:
            tests.append(_port_test(context, path, which, port_ranges((ports,)), bool(spec.invert & bit)))
    if spec.match & _DIRECTION:
        tests.append(ALWAYS if not spec.invert & _DIRECTION else NEVER)
    if spec.match & _EXPIRES:
        tests.append(([(flag("ct expires", Kind.ENVIRONMENT), YES)], not spec.invert & _EXPIRES))
    return tests


def _owner(context: Context, spec: xt.Owner, path: Path) -> list[Test]:
    uid, gid, socket = 1, 2, 4
    if context.scene.vantage is not Vantage.LOCAL:
        # owner_mt: without a socket only "! --socket-exists" and friends hold
        return [ALWAYS if not (spec.match ^ spec.invert) & spec.match else NEVER]
    tests: list[Test] = []
    if spec.match & socket and spec.invert & socket:
        return [NEVER]
    if spec.match & uid:
        tests.append(([(context.scene.uid, (spec.uid,))], not spec.invert & uid))
    if spec.match & gid:
        var = Var("gid", ((0, 2**32 - 1),), Kind.FIELD, "gid")
        tests.append(([(var, (spec.gid,))], not spec.invert & gid))
    return tests


def _iprange(context: Context, spec: xt.IpRange, path: Path) -> list[Test]:
    length = context.scene.family.length
    tests: list[Test] = []
    if spec.source is not None:
        low, high = (side[:length] for side in spec.source)
        tests.append((within(big(context.scene.saddr, length), low, high, path.cube), not spec.invert_source))
    if spec.destination is not None:
        low, high = (side[:length] for side in spec.destination)
        hit = low <= path.packet.daddr <= high
        tests.append(ALWAYS if hit != spec.invert_destination else NEVER)
    return tests


def _environment(context: Context, spec: xt.Environment, path: Path) -> list[Test]:
    return [ALWAYS if spec.holds else NEVER]


def _pkttype(context: Context, spec: xt.PktType, path: Path) -> list[Test]:
    """pkttype_mt: a packet for us is PACKET_HOST; one that comes over loopback counts by its destination: unicast."""
    return [ALWAYS if (spec.type == 0) != spec.invert else NEVER]


def _rpfilter(context: Context, spec: xt.RpFilter, path: Path) -> list[Test]:
    """rpfilter_mt: packets of ours pass; for others only routing knows."""
    if context.scene.vantage is Vantage.LOCAL:
        return [ALWAYS if not spec.invert else NEVER]
    return [([(flag("reverse path exists", Kind.ENVIRONMENT), YES)], not spec.invert)]


def _socket(context: Context, spec: xt.XtSocket, path: Path) -> list[Test]:
    return [([(flag("a socket takes it", Kind.ENVIRONMENT, str(spec)), YES)], True)]


def _physdev(context: Context, spec: xt.PhysDev, path: Path) -> list[Test]:
    if context.scene.vantage is Vantage.LOCAL:
        return [NEVER if not spec.invert else ([(flag("bridged", Kind.ENVIRONMENT, str(spec)), YES)], True)]
    return [([(flag(f"bridged in {spec.physin or '*'}", Kind.ENVIRONMENT, str(spec)), YES)], True)]


def _ip_header(context: Context, spec: xt.IpHeader, path: Path) -> list[Test]:
    """ip_packet_match: IPT_INV_VIA_IN 1, VIA_OUT 2, TOS 4, SRCIP 8, DSTIP 0x10, FRAG 0x20, PROTO 0x40."""
    scene, packet = context.scene, path.packet
    length = scene.family.length
    tests: list[Test] = []
    if spec.flags & 1 and scene.family is Family.IP and not spec.invert & 0x20:
        return [NEVER]  # IPT_F_FRAG: only fragments after the first
    for (address, mask), cells, bit in (
        (spec.source, big(scene.saddr, length), 8),
        (spec.destination, tuple(packet.daddr), 16),
    ):
        shown = tuple(masked(cell, m, 0) for cell, m in zip(cells, mask[:length], strict=True))
        tests.append((equal(shown, address[:length], path.cube), not spec.invert & bit))
    for pattern, cells, bit in (
        (spec.in_interface, interface_cells(scene, "name", 16), 1),
        (spec.out_interface, _out_name(context), 2),
    ):
        if pattern:
            name = pattern.encode("utf-8", "surrogateescape")
            wanted = name[:-1] if pattern.endswith("+") else name.ljust(16, b"\0")
            tests.append((equal(cells[: len(wanted)], wanted, path.cube), not spec.invert & bit))
    if spec.protocol:
        hit = spec.protocol == scene.protocol.number
        tests.append(ALWAYS if hit != bool(spec.invert & 0x40) else NEVER)
    return tests


def _out_name(context: Context) -> tuple[int, ...]:
    local = context.scene.vantage is Vantage.LOCAL and context.scene.iif is None
    return tuple((context.scene.loopback[1].encode() if local else b"").ljust(16, b"\0"))


_METERS = frozenset({"limit", "hashlimit", "recent", "quota", "connlimit", "connbytes", "nfacct", "rateest"})

_MATCHES: dict[type, Callable[[Context, Any, Path], list[Test]]] = {
    xt.Comment: lambda context, spec, path: [],
    xt.Ports: _ports,
    xt.Multiport: _multiport,
    xt.Addrtype: _addrtype,
    xt.Mark: _mark,
    xt.Statistic: _statistic,
    xt.State: _state,
    xt.Conntrack: _conntrack,
    xt.Owner: _owner,
    xt.IpRange: _iprange,
    xt.PhysDev: _physdev,
    xt.Environment: _environment,
    xt.IpHeader: _ip_header,
    xt.PktType: _pkttype,
    xt.RpFilter: _rpfilter,
    xt.XtSocket: _socket,
}


def target(context: Context, expr: XtTarget, path: Path) -> list[Path]:
    """nft_target_eval_xt: targets that do not decide go on (XT_CONTINUE)."""
    spec = expr.spec
    if isinstance(spec, xt.NatRange):
        return _nat(context, spec, path)
    if isinstance(spec, xt.SetMark):
        return _set_mark(spec, path)
    if isinstance(spec, xt.XtTproxy):
        ways = tproxy_to(context, path, spec.addr, (spec.port, spec.port) if spec.port else None)
        # tproxy_tg4: the mark is set and the packet accepted when a socket was found
        return [ended(way, Verdict(Code.ACCEPT)) if way.verdict is None else way for way in ways]
    if isinstance(spec, xt.XtReject):
        return [ended(path, Verdict(REJECTED))]
    if isinstance(spec, xt.XtNotrack):
        return notrack(context, expr, path)
    if isinstance(spec, xt.XtStandard):
        return [ended(path, Verdict(spec.code, spec.chain))]
    if isinstance(spec, xt.XtQueue):
        words = f"handed to a program (nfqueue {spec.num}), which decides"
        context.emit(Fate.UNKNOWN, path.packet, path.cube, why=words)
        return [ended(path, Verdict(Code.ACCEPT))]
    if isinstance(spec, xt.AnyMark):
        after = Var(f"mark {context.rule_id}", ((0, 2**32 - 1),), Kind.ENVIRONMENT, spec.words)
        return with_mark(path, little(after, 4))
    if isinstance(spec, xt.XtNpt) and spec.target == "DNPT":
        why = "the IPv6 prefix of the destination is rewritten (DNPT)"
        context.emit(Fate.UNKNOWN, path.packet, path.cube, Mechanism.NETMAP, why=why)
        return [path]
    if isinstance(spec, xt.Harmless | xt.XtSynproxy | xt.XtNpt):
        return [path]
    return unreadable(context, f"xt target {expr.name}", path, last=True)


def _nat(context: Context, spec: xt.NatRange, path: Path) -> list[Path]:
    ips, proto, offset = 1, 2, 32
    if spec.target in ("SNAT", "MASQUERADE"):
        return [ended(path, Verdict(Code.ACCEPT))]
    ports = spec.port if spec.flags & proto else None
    if spec.target == "REDIRECT":
        return redirect_to(context, path, ports)
    length = context.scene.family.length
    low, high = (side[:length] for side in spec.addr) if spec.flags & ips else (b"", b"")
    if spec.flags & offset and ports is not None and ports[0] != ports[1]:
        # nf_nat_l4proto_unique_tuple: the dialled port's distance from the base, within the range
        distance = (path.packet.dport - spec.base_port) % (ports[1] - ports[0] + 1)
        ports = (ports[0] + distance, ports[0] + distance)
    netmap = spec.target == "NETMAP" or bool(spec.flags & NETMAP)
    return map_to(context, path, low, high, ports, netmap, Mechanism.DNAT)


def _set_mark(spec: xt.SetMark, path: Path) -> list[Path]:
    """mark_tg, connmark_tg: set, save to or restore from the connection."""
    mask, flip = (~spec.clear & 0xFFFFFFFF).to_bytes(4, "little"), spec.flip.to_bytes(4, "little")
    if not spec.conntrack or spec.op == 0:
        mark = path.packet.ctmark if spec.conntrack else path.packet.mark
        cells = tuple(masked(c, m, f) for c, m, f in zip(mark, mask, flip, strict=True))
        return with_mark(path, cells, spec.conntrack)
    source = path.packet.mark if spec.op == 1 else path.packet.ctmark
    whole = spec.nfmask & 0xFFFFFFFF == 0xFFFFFFFF and spec.clear in (0, 0xFFFFFFFF) and not spec.shift
    if whole:
        return with_mark(path, source, conntrack=spec.op == 1)
    unknown = Var(f"mark after {spec}", ((0, 2**32 - 1),), Kind.ENVIRONMENT, "mark restored in part")
    return with_mark(path, little(unknown, 4), conntrack=spec.op == 1)
