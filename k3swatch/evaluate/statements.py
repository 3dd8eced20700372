"""Statements of nf_tables that decide or change what later rules see: reject, queue, marks, overwriting, notrack."""

from __future__ import annotations

from dataclasses import replace

from k3swatch.evaluate import frames
from k3swatch.evaluate.cells import Byte, Cells, known
from k3swatch.evaluate.cube import Kind
from k3swatch.evaluate.header import DADDR, SADDR, load_payload
from k3swatch.evaluate.machine import MAPPED, REJECTED, Context, Path, ended, maybe, meter, with_mark
from k3swatch.evaluate.outcome import Fate
from k3swatch.evaluate.packet import RAW_CONNTRACK, SAME_PRIORITY, Discovery, Turn, has_connection
from k3swatch.evaluate.queues import queued
from k3swatch.model.expr import (
    Code,
    Connlimit,
    CtSet,
    Dynset,
    Flow,
    Fwd,
    Limit,
    MetaSet,
    PayloadSet,
    Queue,
    Quota,
    Reject,
    Verdict,
)
from k3swatch.model.words import Family, Mechanism, Protocol


def reject(context: Context, expr: Reject, path: Path) -> list[Path]:
    """nft_reject_*_eval: always a drop, with an answer to the sender."""
    return [ended(path, Verdict(REJECTED))]


def queue(context: Context, expr: Queue, path: Path) -> list[Path]:
    """nft_queue_eval, nft_queue_sreg_eval."""
    bypass = bool(expr.flags & 1)  # NFT_QUEUE_FLAG_BYPASS
    if expr.sreg is None:
        return queued(context, path, expr.num, expr.total, bypass)
    number = known(path.read(expr.sreg, 2))
    if number is not None:
        return queued(context, path, int.from_bytes(number, "little"), 1, bypass)
    context.emit(Fate.UNKNOWN, path.packet, path.cube, why="handed to a program (nfqueue), which decides")
    return [ended(path, Verdict(Code.ACCEPT))]


def meta_set(context: Context, expr: MetaSet, path: Path) -> list[Path]:
    """nft_meta_set_eval, nft_meta_bridge_set_eval: marks, whose packet it is, and whether a bridge takes it."""
    mark, packet_type, broute = 3, 19, 35
    if expr.key == mark:
        return with_mark(path, path.read(expr.sreg, 4))
    if expr.key == packet_type:
        return frames.packet_type(context, path.read(expr.sreg, 1), path)
    if expr.key == broute:
        return frames.broute(context, path.read(expr.sreg, 1), path)
    return [path]


def ct_set(context: Context, expr: CtSet, path: Path) -> list[Path]:
    """nft_ct_set_eval, nft_ct_set_zone_eval: without a connection only the zone of one to come can be chosen."""
    if expr.key == 3 and has_connection(context.scene, path.packet):
        return with_mark(path, path.read(expr.sreg, 4), conntrack=True)
    if expr.key == 17 and expr.direction is None:
        return in_zone(context, path, path.read(expr.sreg, 2))
    return [path]


def in_zone(context: Context, path: Path, zone: Cells) -> list[Path]:
    """From here on conntrack looks for the packet's connection in another zone; not for neighbour discovery's
    (nf_conntrack_icmpv6_error takes no template).
    """
    if context.scene.priority < RAW_CONNTRACK:
        tracked = not isinstance(context.scene.protocol, Discovery)
        path.packet = replace(path.packet, zone=zone, tracked=tracked)
    return [path]


def payload_set(context: Context, expr: PayloadSet, path: Path) -> list[Path]:
    """nft_payload_set_eval: what is overwritten is seen by all that follows. For the destination it is NAT without a
    connection; for what makes it a first packet of its protocol, nothing can be said any more.
    """
    scene, packet = context.scene, path.packet
    if expr.base == 0:
        return frames.overwrite(context, expr.offset, path.read(expr.sreg, expr.length), path)
    if scene.turn is not Turn.FIRST:
        return _overwritten_later(context, expr, path)
    start = DADDR[scene.family]
    address: list[Byte] = list(packet.daddr)
    port: list[Byte] = list(packet.dport.to_bytes(2))
    written: dict[tuple[int, int], Byte] = {}
    for position, cell in enumerate(path.read(expr.sreg, expr.length), expr.offset):
        if expr.base == 1 and start <= position < start + len(address):
            address[position - start] = cell
        elif expr.base == 2 and position in (2, 3):
            port[position - 2] = cell
        elif load_payload(scene, packet, expr.base, position, 1) != (cell,):
            written[expr.base, position] = cell
    daddr, dport = known(address), known(port)
    if daddr is None or dport is None or written.keys() & _ESSENTIAL[scene.family]:
        why = (
            "the destination is overwritten"
            if daddr is None or dport is None
            else "the header is overwritten"
        )
        context.emit(Fate.UNKNOWN, packet, path.cube, Mechanism.DNAT, why=why)
        return [path]
    if (daddr, int.from_bytes(dport)) != (packet.daddr, packet.dport):
        packet = replace(packet, daddr=daddr, dport=int.from_bytes(dport), sent=context.path)
    path.packet = packet.overwritten(written) if written else packet
    return [path]


def _overwritten_later(context: Context, expr: PayloadSet, path: Path) -> list[Path]:
    """In packets of a connection that exists: what tells whose they are had better stay."""
    scene, packet = context.scene, path.packet
    written = {
        (expr.base, position): cell
        for position, cell in enumerate(path.read(expr.sreg, expr.length), expr.offset)
        if load_payload(scene, packet, expr.base, position, 1) != (cell,)
    }
    addresses = range(SADDR[scene.family], DADDR[scene.family] + scene.family.length)
    theirs = {(1, position) for position in addresses} | {(2, position) for position in range(4)}
    if written.keys() & (theirs | _ESSENTIAL[scene.family]):
        why = f"the header{scene.turn.value} is overwritten"
        context.emit(Fate.UNKNOWN, packet, path.cube, why=why)
        return [path]
    path.packet = packet.overwritten(written) if written else packet
    return [path]


# header, offset: the protocol; TCP's flags
_ESSENTIAL = {Family.IP: {(1, 9), (2, 13)}, Family.IP6: {(1, 6), (2, 13)}}


def notrack(context: Context, expr: object, path: Path) -> list[Path]:
    """nft_notrack_eval: without a connection there is no NAT. Too late once conntrack has seen the packet."""
    if context.scene.priority > RAW_CONNTRACK:
        return [path]
    ways = [path] if context.scene.priority < RAW_CONNTRACK else maybe(path, SAME_PRIORITY, Kind.OPAQUE)
    for way in ways:
        if way.verdict is None:
            way.packet = replace(way.packet, tracked=False, untracked=context.path)
    return ways


def dynset(context: Context, expr: Dynset, path: Path) -> list[Path]:
    """nft_dynset_eval: goes on when the element could be added and its own expressions (a limit) let it."""
    if getattr(expr, "exprs", ()):
        return meter(context, path, f"meter @{expr.set} lets it pass")
    return [path]


def limit(context: Context, expr: Limit, path: Path) -> list[Path]:
    """nft_limit_eval."""
    return meter(context, path, f"within limit {expr.rate}/{expr.unit}s", inverted=bool(expr.flags & 1))


def quota(context: Context, expr: Quota, path: Path) -> list[Path]:
    """nft_quota_eval."""
    return meter(context, path, f"within quota {expr.bytes} bytes", inverted=bool(expr.flags & 1))


def connlimit(context: Context, expr: Connlimit, path: Path) -> list[Path]:
    """nft_connlimit_eval."""
    return meter(context, path, f"more than {expr.count} connections", inverted=bool(expr.flags & 1))


def flow(context: Context, expr: Flow, path: Path) -> list[Path]:
    """nft_flow_offload_eval: breaks unless both ends have been heard of and the flowtable takes the connection. What
    follows is then forwarded on the interface it comes in on, and no later rule sees it.
    """
    if context.scene.turn is Turn.FIRST:
        return [ended(path)]
    words = f"offloaded to flowtable {expr.table}"
    ways = maybe(path, words, identity=f"{words} {context.family} {context.table}")
    for way in ways:
        if way.verdict is None:
            way.packet = replace(way.packet, offloaded=True)
            ended(way, Verdict(Code.ACCEPT))
    return ways


def fwd(context: Context, expr: Fwd, path: Path) -> list[Path]:
    """nft_fwd_netdev_eval: out by another interface, and gone; what is there is not known."""
    device = None if expr.dev is None else known(path.read(expr.dev, 4))
    names = {interface.index: interface.name for interface in context.scene.host.interfaces}
    name = names.get(int.from_bytes(device, "little")) if device is not None else None
    why = f"sent out of {name or 'another interface'} as it is (fwd)"
    context.emit(Fate.UNKNOWN, path.packet, path.cube, why=why)
    return [ended(path, Verdict(MAPPED))]


def synproxy(context: Context, expr: object, path: Path) -> list[Path]:
    """nft_synproxy_eval, synproxy_tg4: the kernel answers a SYN itself, and opens the connection if it was no flood.

    Whether what it opens then passes the same rules, and with which options, cannot be told from one packet.
    """
    if context.scene.turn is not Turn.FIRST or context.scene.protocol is not Protocol.TCP:
        return [path]
    why = "answered by SYNPROXY in the server's place; whether it then passes connections on cannot be told"
    context.emit(Fate.UNKNOWN, path.packet, path.cube, why=why)
    return [ended(path, Verdict(Code.ACCEPT))]


def on(context: Context, expr: object, path: Path) -> list[Path]:
    """Statements that change nothing we look at: counter, log, last, dup, masquerade (source only)."""
    return [path]
