"""The meaning of xtables matches (nft_compat's, and those of iptables-legacy rules).

Follows the `match` functions of net/netfilter/xt_*.c and net/ipv4/netfilter/ipt_*.c. A match answers with a box and
whether it must hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k3swatch.evaluate import ebtables
from k3swatch.evaluate.cells import equal, masked, within
from k3swatch.evaluate.cube import YES, Box, Kind, Var, flag
from k3swatch.evaluate.discovery import packet_type
from k3swatch.evaluate.fib import (
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_UNICAST,
    destination_type,
    interface_cells,
    source_type,
)
from k3swatch.evaluate.header import destination_address, load_payload, source_address
from k3swatch.evaluate.machine import Context, Path, maybe, split
from k3swatch.evaluate.native import listeners_of
from k3swatch.evaluate.packet import Discovery, owner_of
from k3swatch.evaluate.ranges import contains
from k3swatch.evaluate.xt_connection import conntrack, mark, state_match
from k3swatch.evaluate.xt_ports import ALWAYS, NEVER, Test, multiport, ports
from k3swatch.model import xt
from k3swatch.model.expr import XtMatch
from k3swatch.model.words import Family, Vantage


def match(context: Context, expr: XtMatch, path: Path) -> list[Path]:
    """nft_match_eval: the rule goes on where the match holds."""
    arp = context.scene.protocol is Discovery.ARP  # ebtables' `arp` never holds for a packet of IP
    if isinstance(expr.spec, xt.Environment) and (expr.spec.holds is None or arp):
        # one that counts is the rule's own; two of the others are the same test when all their bytes are
        which = context.rule_id if expr.name in _METERS else expr.info.hex()
        identity = f"{expr.name} {expr.revision} {which}{context.scene.turn.value}"
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


def _addrtype(context: Context, spec: xt.Addrtype, path: Path) -> list[Test]:
    scene = context.scene
    tests: list[Test] = []
    if spec.source:
        kind = None if spec.limit_in or spec.limit_out else source_type(scene, path.packet)
        if kind is None:
            words = f"source is of type {spec.source:#x}{context.scene.side}"
            identity = f"{spec}{context.scene.side}"
            tests.append(([(flag(words, Kind.ENVIRONMENT, identity), YES)], not spec.invert_source))
        else:
            hit = _is_type(scene.family, spec.source, kind == RTN_LOCAL)
            tests.append(ALWAYS if hit != spec.invert_source else NEVER)
    if spec.destination:
        tests.append(_destination_type(context, spec, path))
    return tests


def _is_type(family: Family, types: int, local: bool) -> bool:
    """Whether an address that is local, or else a neighbour's, is of `types`.

    For IPv4 any one of them will do (match_type). For IPv6 unicast is what is not multicast, our own addresses too,
    and where a route has to be asked, only that counts (match_type6).
    """
    if family is Family.IP:
        return bool(types >> (RTN_LOCAL if local else RTN_UNICAST) & 1)
    if types & (_UNSPEC | _MULTICAST):
        return False
    if types & (_LOCAL | _ANYCAST | _UNREACHABLE):
        return bool(types & _LOCAL) and local
    return True


_UNSPEC, _LOCAL, _ANYCAST, _MULTICAST, _UNREACHABLE = (1 << bit for bit in (0, 2, 4, 5, 7))  # XT_ADDRTYPE_*


def _destination_type(context: Context, spec: xt.Addrtype, path: Path) -> Test:
    scene, daddr = context.scene, path.packet.daddr
    kind = destination_type(scene, path.packet)
    if kind is None or (kind == RTN_LOCAL and not scene.from_client and (spec.limit_in or spec.limit_out)):
        words = f"destination is of type {spec.destination:#x}{scene.side}"
        flagged = flag(words, Kind.ENVIRONMENT, f"{spec}{scene.side}")
        return [(flagged, YES)], not spec.invert_destination
    if kind == RTN_MULTICAST:  # match_type6
        return ALWAYS if (spec.destination == _MULTICAST) != spec.invert_destination else NEVER
    local = kind == RTN_LOCAL
    here, there = (_is_type(scene.family, spec.destination, each) for each in (True, False))
    if local and spec.limit_in and scene.iif is not None and scene.host.interfaces:
        owner = owner_of(scene.host, daddr)
        if here != there:
            return [(scene.iif, ((owner, owner),))], here != spec.invert_destination
    if local and spec.limit_out and owner_of(scene.host, daddr) != scene.loopback[0]:
        local = False
    return ALWAYS if (here if local else there) != spec.invert_destination else NEVER


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


def _owner(context: Context, spec: xt.Owner, path: Path) -> list[Test]:
    uid, gid, socket = 1, 2, 4
    if context.scene.protocol is Discovery.ND and not context.scene.from_client:
        # of a socket of the kernel's (ipv6.ndisc_sk), which has no file and so no owner
        socketless = spec.match & socket and spec.invert & socket
        return [NEVER if socketless or (spec.match ^ spec.invert) & (uid | gid) else ALWAYS]
    if context.scene.uid is None:
        # owner_mt: without a socket only "! --socket-exists" and friends hold
        return [ALWAYS if not (spec.match ^ spec.invert) & spec.match else NEVER]
    tests: list[Test] = []
    if spec.match & socket and spec.invert & socket:
        return [NEVER]
    if spec.match & uid:
        tests.append(([(context.scene.uid, (spec.uid,))], not spec.invert & uid))
    if spec.match & gid:
        words = "gid" if context.scene.from_client else "gid of the server"
        var = Var(words, ((0, 2**32 - 1),), context.scene.uid.kind, words)
        tests.append(([(var, (spec.gid,))], not spec.invert & gid))
    return tests


def _iprange(context: Context, spec: xt.IpRange, path: Path) -> list[Test]:
    length = context.scene.family.length
    tests: list[Test] = []
    if spec.source is not None:
        low, high = (side[:length] for side in spec.source)
        source = source_address(context.scene, path.packet)
        tests.append((within(source, low, high, path.cube), not spec.invert_source))
    if spec.destination is not None:
        low, high = (side[:length] for side in spec.destination)
        goes = destination_address(context.scene, path.packet)
        tests.append((within(goes, low, high, path.cube), not spec.invert_destination))
    return tests


def _environment(context: Context, spec: xt.Environment, path: Path) -> list[Test]:
    return [ALWAYS if spec.holds else NEVER]


def _pkttype(context: Context, spec: xt.PktType, path: Path) -> list[Test]:
    """pkttype_mt: a packet for us is PACKET_HOST; one that comes over loopback counts by its destination: unicast."""
    return [ALWAYS if (spec.type == packet_type(context.scene)) != spec.invert else NEVER]


def _icmp(context: Context, spec: xt.Icmp, path: Path) -> list[Test]:
    """icmp6_match: type and code of the packet; of neighbour discovery the code is 0."""
    scene = context.scene
    if spec.protocol != scene.protocol.number:
        return [NEVER]
    kind = load_payload(scene, path.packet, 2, 0, 1) or ()
    box: Box | None = [] if spec.type == xt.ANY_TYPE else equal(kind, bytes([spec.type]), path.cube)
    if spec.type != xt.ANY_TYPE and not contains((spec.codes,), 0):
        box = None
    return [(box, not spec.invert)]


def _rpfilter(context: Context, spec: xt.RpFilter, path: Path) -> list[Test]:
    """rpfilter_mt: packets of ours pass; for others only routing knows."""
    scene = context.scene
    if scene.iif is not None and scene.iif.base == ((scene.loopback[0],) * 2,):
        return [ALWAYS if not spec.invert else NEVER]
    words = f"reverse path exists{scene.side}"
    return [([(flag(words, Kind.ENVIRONMENT), YES)], not spec.invert)]


def _socket(context: Context, spec: xt.XtSocket, path: Path) -> list[Test]:
    words = f"a socket takes it{context.scene.turn.value}"
    found = listeners_of(context.scene, path.packet)
    if found and not spec.flags & 1:
        return [ALWAYS]
    if found and all(each.transparent is False for each in found):
        return [NEVER]
    return [([(flag(words, Kind.ENVIRONMENT, f"{spec} {words}"), YES)], True)]


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
        (spec.source, source_address(scene, packet), 8),
        (spec.destination, destination_address(scene, packet), 16),
    ):
        shown = tuple(masked(cell, m, 0) for cell, m in zip(cells, mask[:length], strict=True))
        tests.append((equal(shown, address[:length], path.cube), not spec.invert & bit))
    for pattern, cells, bit in (
        (spec.in_interface, interface_cells(scene, scene.iif, "name", 16), 1),
        (spec.out_interface, interface_cells(scene, scene.oif, "name", 16), 2),
    ):
        if pattern:
            name = pattern.encode("utf-8", "surrogateescape")
            wanted = name[:-1] if pattern.endswith("+") else name.ljust(16, b"\0")
            tests.append((equal(cells[: len(wanted)], wanted, path.cube), not spec.invert & bit))
    if spec.protocol:
        hit = spec.protocol == scene.protocol.number
        tests.append(ALWAYS if hit != bool(spec.invert & 0x40) else NEVER)
    return tests


_METERS = frozenset({"limit", "hashlimit", "recent", "quota", "connlimit", "connbytes", "nfacct", "rateest"})

_MATCHES: dict[type, Callable[[Context, Any, Path], list[Test]]] = {
    xt.Comment: lambda context, spec, path: [],
    xt.Ports: ports,
    xt.Multiport: multiport,
    xt.Addrtype: _addrtype,
    xt.Mark: mark,
    xt.Statistic: _statistic,
    xt.State: state_match,
    xt.Conntrack: conntrack,
    xt.Owner: _owner,
    xt.IpRange: _iprange,
    xt.PhysDev: _physdev,
    xt.Environment: _environment,
    xt.IpHeader: _ip_header,
    xt.EtherIp: ebtables.ip,
    xt.PktType: _pkttype,
    xt.Icmp: _icmp,
    xt.RpFilter: _rpfilter,
    xt.XtSocket: _socket,
}
