"""Statements of nf_tables that decide or change what later rules see: nat, redirect, tproxy, reject, marks, notrack."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from k3swatch.evaluate.cells import Cells, known
from k3swatch.evaluate.machine import REJECTED, Context, Path, ended, meter, rewrite, with_mark
from k3swatch.evaluate.outcome import Fate, Target
from k3swatch.evaluate.packet import RAW_CONNTRACK, is_local, owner_of
from k3swatch.model.expr import (
    Connlimit,
    CtSet,
    Dynset,
    Limit,
    MetaSet,
    Nat,
    PayloadSet,
    Queue,
    Quota,
    Redir,
    Reject,
    Tproxy,
    Verdict,
)
from k3swatch.model.port import family_of
from k3swatch.model.words import Family, Mechanism, Vantage

NETMAP = 64  # NF_NAT_RANGE_NETMAP, uapi/linux/netfilter/nf_nat.h


def nat(context: Context, expr: Nat, path: Path) -> list[Path]:
    """nft_nat_eval: DNAT; in an inet table only for packets of its own family (nft_nat_inet_eval)."""
    if expr.type != 1 or expr.family not in (0, 1, context.scene.family.nfproto):
        return [ended(path)] if expr.type != 1 else [path]
    length = context.scene.family.length
    low = _address(path, expr.addr_min, length)
    high = _address(path, expr.addr_max, length) if expr.addr_max != expr.addr_min else low
    ports = _ports(path, expr.proto_min, expr.proto_max)
    netmap = bool(expr.flags & NETMAP)
    return map_to(context, path, low, high, ports, netmap)


def map_to(
    context: Context,
    path: Path,
    low: bytes | None,
    high: bytes | None,
    ports: tuple[int, int] | str | None,
    netmap: bool = False,
    mechanism: Mechanism = Mechanism.DNAT,
) -> list[Path]:
    """A mapping to addresses `low`..`high` (empty: kept) and `ports` (None: kept; a string: not to be known)."""
    packet = path.packet
    if low is None or high is None or isinstance(ports, str):
        return rewrite(context, path, mechanism, None, "the destination is computed from the packet")
    if netmap:
        mechanism = Mechanism.NETMAP
        mask = bytes(0xFF & ~(a ^ b) for a, b in zip(low, high, strict=True))
        low = high = bytes((a & m) | (d & ~m & 0xFF) for a, m, d in zip(low, mask, packet.daddr, strict=True))
    first, last = ports if ports else (packet.dport, packet.dport)
    target = Target(low or packet.daddr, high or packet.daddr, first, last)
    return rewrite(context, path, mechanism, target)


def _address(path: Path, register: int | None, length: int) -> bytes | None:
    """Address bytes; empty when the rule leaves it alone, None when not to be known."""
    return b"" if register is None else known(path.read(register, length))


def _ports(path: Path, low: int | None, high: int | None) -> tuple[int, int] | str | None:
    if low is None:
        return None
    first = known(path.read(low, 2))
    last = known(path.read(high, 2)) if high is not None else first
    if first is None or last is None:
        return "computed"
    return int.from_bytes(first), int.from_bytes(last)


def redir(context: Context, expr: Redir, path: Path) -> list[Path]:
    """nft_redir_eval."""
    return redirect_to(context, path, _ports(path, expr.proto_min, expr.proto_max))


def redirect_to(context: Context, path: Path, ports: tuple[int, int] | str | None) -> list[Path]:
    """nf_nat_redirect_ipv4/6: to 127.0.0.1 (::1) for our own packets, else to the arriving interface's address.

    Which interface a packet arrives on is not known; it is taken to be the one that has the dialled address.
    """
    low = redirect_address(context, path.packet.daddr)
    return map_to(context, path, low, low, ports, mechanism=Mechanism.REDIRECT)


def redirect_address(context: Context, daddr: bytes) -> bytes:
    """The address a redirect ends at."""
    family = context.scene.family
    if context.scene.vantage is Vantage.LOCAL:
        return ipaddress.ip_address("127.0.0.1" if family is Family.IP else "::1").packed
    owner = owner_of(context.scene.host, daddr)
    for entry in context.scene.host.addresses:
        scoped = entry.address.is_link_local and family is Family.IP6
        if entry.interface == owner and family_of(entry.address) is family and not scoped:
            return entry.address.packed
    return daddr


def tproxy(context: Context, expr: Tproxy, path: Path) -> list[Path]:
    """nft_tproxy_eval: breaks when no socket listens at the target, else the packet is that socket's."""
    if expr.family not in (0, context.scene.family.nfproto):
        return [ended(path)]
    address = _address(path, expr.addr, context.scene.family.length)
    ports = _ports(path, expr.port, expr.port)
    return tproxy_to(context, path, address, ports)


def tproxy_to(
    context: Context, path: Path, address: bytes | None, ports: tuple[int, int] | str | None
) -> list[Path]:
    """Hand the packet to a local socket, and go on (it is no verdict)."""
    if address is None or isinstance(ports, str):
        context.emit(Fate.UNKNOWN, path.packet, path.cube, Mechanism.TPROXY, why="tproxy target is computed")
        return [path]
    packet = path.packet
    low = address if address and any(address) else redirect_address(context, packet.daddr)
    port = ports[0] if ports and ports[0] else packet.dport
    if _listening(context, low, port) is False:
        return [ended(path)]
    if packet.shadow is None and (port != packet.dport or not is_local(context.scene.host, low)):
        context.emit(Fate.MAPPED, packet, path.cube, Mechanism.TPROXY, Target(low, low, port, port))
        path.packet = replace(packet, shadow=(-1, 0))
    return [path]


def _listening(context: Context, address: bytes, port: int) -> bool | None:
    sockets = context.scene.host.sockets
    if sockets is None:
        return None
    return any(
        s.port == port
        and s.protocol is context.scene.protocol
        and (s.address.packed == address or int(s.address) == 0)
        for s in sockets
    )


def reject(context: Context, expr: Reject, path: Path) -> list[Path]:
    """nft_reject_*_eval: always a drop, with an answer to the sender."""
    return [ended(path, Verdict(REJECTED))]


def queue(context: Context, expr: Queue, path: Path) -> list[Path]:
    """nft_queue_eval: a program in user space decides."""
    context.emit(
        Fate.UNKNOWN, path.packet, path.cube, why=f"handed to a program (nfqueue {expr.num}), which decides"
    )
    return [path]


def meta_set(context: Context, expr: MetaSet, path: Path) -> list[Path]:
    """nft_meta_set_eval: only the mark is seen by rules that decide."""
    if expr.key == 3:
        return with_mark(path, path.read(expr.sreg, 4))
    return [path]


def ct_set(context: Context, expr: CtSet, path: Path) -> list[Path]:
    """nft_ct_set_eval."""
    if expr.key == 3:
        return with_mark(path, path.read(expr.sreg, 4), conntrack=True)
    return [path]


def payload_set(context: Context, expr: PayloadSet, path: Path) -> list[Path]:
    """nft_payload_set_eval: rewriting the destination is NAT without a connection."""
    scene, packet = context.scene, path.packet
    start = 16 if scene.family is Family.IP else 24
    end = expr.offset + expr.length
    on_address = expr.base == 1 and expr.offset < start + scene.family.length and end > start
    on_port = expr.base == 2 and expr.offset < 4 and end > 2
    if not (on_address or on_port):
        return [path]
    image: list[object] = list(packet.daddr) if on_address else list(packet.dport.to_bytes(2))
    origin = start if on_address else 2
    cells: Cells = path.read(expr.sreg, expr.length)
    for position, cell in enumerate(cells):
        if 0 <= expr.offset + position - origin < len(image):
            image[expr.offset + position - origin] = cell
    value = known(image)  # type: ignore[arg-type]
    if value is None:
        context.emit(Fate.UNKNOWN, packet, path.cube, Mechanism.DNAT, why="the destination is overwritten")
        return [path]
    port = packet.dport if on_address else int.from_bytes(value)
    address = value if on_address else packet.daddr
    context.emit(Fate.MAPPED, packet, path.cube, Mechanism.DNAT, Target(address, address, port, port))
    path.packet = replace(packet, shadow=packet.shadow or (-1, 0))
    return [path]


def notrack(context: Context, expr: object, path: Path) -> list[Path]:
    """nft_notrack_eval: without a connection there is no NAT. Too late once conntrack has seen the packet."""
    if context.scene.priority < RAW_CONNTRACK:
        path.packet = replace(path.packet, tracked=False)
    return [path]


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


def on(context: Context, expr: object, path: Path) -> list[Path]:
    """Statements that change nothing we look at: counter, log, last, dup, masquerade (source only), synproxy."""
    return [path]
