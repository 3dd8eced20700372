"""NAT: what a mapping does to a packet, for nf_tables' statements and xtables' targets alike.

Follows nf_nat_setup_info, get_unique_tuple and nf_nat_l4proto_unique_tuple (net/netfilter/nf_nat_core.c),
nf_nat_redirect.c, nft_nat.c, nft_masq.c, nft_redir.c.
"""

from __future__ import annotations

import ipaddress

from k3swatch.evaluate.cells import known
from k3swatch.evaluate.cube import Box, Cube, Kind, Var
from k3swatch.evaluate.machine import Context, Path, rewrite
from k3swatch.evaluate.outcome import Target
from k3swatch.evaluate.packet import Scene, is_local, owner_of
from k3swatch.evaluate.sourcenat import PROTO_RANDOM, PROTO_RANDOM_FULLY, Ports, masquerade, source_nat
from k3swatch.model import xt
from k3swatch.model.expr import Ct, CtSet, Expr, Masq, Nat, Redir, XtMatch, XtTarget
from k3swatch.model.port import family_of
from k3swatch.model.words import Family, Mechanism, Vantage

# NF_NAT_RANGE_*, uapi/linux/netfilter/nf_nat.h
NETMAP = 64
MOST_LOCAL = 16  # addresses of ours told apart in one range

_TRACKING = (Nat, Masq, Redir, Ct, CtSet)
_XT_TRACKING = (xt.XtZone, xt.NatRange, xt.Conntrack, xt.State, xt.XtNotrack)


def nat(context: Context, expr: Nat, path: Path) -> list[Path]:
    """nft_nat_eval; in an inet table only for packets of its own family (nft_nat_inet_eval)."""
    if expr.family not in (0, 1, context.scene.family.nfproto):
        return [path]
    length = context.scene.family.length
    ports = read_ports(path, expr.proto_min, expr.proto_max)
    if expr.type != 1:
        one = expr.addr_min is not None and expr.addr_max in (None, expr.addr_min)
        address = path.read(expr.addr_min or 0, length) if one else None
        return source_nat(context, path, address, ports, expr.flags)
    low = read_address(path, expr.addr_min, length)
    high = read_address(path, expr.addr_max, length) if expr.addr_max != expr.addr_min else low
    return map_to(context, path, low, high, ports, expr.flags)


def masq(context: Context, expr: Masq, path: Path) -> list[Path]:
    """nft_masq_eval."""
    return masquerade(context, path, read_ports(path, expr.proto_min, expr.proto_max), expr.flags)


def redir(context: Context, expr: Redir, path: Path) -> list[Path]:
    """nft_redir_eval."""
    return redirect_to(context, path, read_ports(path, expr.proto_min, expr.proto_max), expr.flags)


def needs_conntrack(expr: Expr) -> bool:
    """Whether a rule with it makes the kernel track connections; without, nat chains are never asked."""
    if isinstance(expr, XtMatch | XtTarget):
        return isinstance(expr.spec, _XT_TRACKING)
    return isinstance(expr, _TRACKING)


def read_address(path: Path, register: int | None, length: int) -> bytes | None:
    """Address bytes; empty when the rule leaves it alone, None when not to be known."""
    return b"" if register is None else known(path.read(register, length))


def read_ports(path: Path, low: int | None, high: int | None) -> Ports:
    """The first and last port."""
    if low is None:
        return None
    first = known(path.read(low, 2))
    last = known(path.read(high, 2)) if high is not None else first
    if first is None or last is None:
        return "computed"
    return int.from_bytes(first), int.from_bytes(last)


def map_to(
    context: Context,
    path: Path,
    low: bytes | None,
    high: bytes | None,
    ports: Ports,
    flags: int = 0,
    mechanism: Mechanism = Mechanism.DNAT,
) -> list[Path]:
    """A mapping to addresses `low`..`high` (empty: kept, None: not to be known) and `ports`."""
    packet = path.packet
    if low is None or high is None or isinstance(ports, str):
        return rewrite(context, path, mechanism, None, "the destination is computed from the packet")
    if flags & NETMAP:
        mechanism = Mechanism.NETMAP
        mask = bytes(0xFF & ~(a ^ b) for a, b in zip(low, high, strict=True))
        low = high = bytes((a & m) | (d & ~m & 0xFF) for a, m, d in zip(low, mask, packet.daddr, strict=True))
    first, last = sorted(ports) if ports else (packet.dport, packet.dport)
    at_random = flags & (PROTO_RANDOM | PROTO_RANDOM_FULLY)
    if first <= packet.dport <= last and not at_random:
        first = last = packet.dport  # get_unique_tuple: what is in the range already stays as it is
    return _spread(context, path, mechanism, Target(low or packet.daddr, high or packet.daddr, first, last))


def _spread(context: Context, path: Path, mechanism: Mechanism, target: Target) -> list[Path]:
    """To each of our own addresses in the range, at the port dialled, by itself; then to all the others.

    find_best_ips_proto takes the address by a hash of the source; a port at random is any of the range.
    """
    ways: list[Path] = []
    cubes = [path.cube]
    for box, exact in _own(context, path, target):
        rest = []
        for cube in cubes:
            inside, outside = cube.split(box)
            rest.extend(outside)
            if inside is not None:
                ways.extend(rewrite(context, path.fork(inside), mechanism, exact))
        cubes = rest
    for cube in cubes:
        ways.extend(rewrite(context, path.fork(cube), mechanism, target))
    return ways


def _own(context: Context, path: Path, target: Target) -> list[tuple[Box, Target]]:
    """Where a range ends at an address of this host and the port dialled, and by what luck."""
    host, port = context.scene.host, path.packet.dport
    if target.low == target.high and target.port_low == target.port_high:
        return []
    if not target.port_low <= port <= target.port_high:
        return []
    if target.low == target.high:
        own = [target.low] if is_local(host, target.low) else []
    else:
        size = len(target.low)
        own = [a for a in host.owners if len(a) == size and target.low <= a <= target.high][:MOST_LOCAL]
    start, count = int.from_bytes(target.low), int.from_bytes(target.high) - int.from_bytes(target.low)
    address = Var(f"address {context.rule_id}", ((0, count),), Kind.CHANCE, "by source")
    ports = target.port_high - target.port_low
    chosen = Var(f"port {context.rule_id}", ((0, ports),), Kind.CHANCE, "at random")
    place = port - target.port_low
    found: list[tuple[Box, Target]] = []
    for each in own:
        index = int.from_bytes(each) - start
        box: Box = [(address, ((index, index),))] if count else []
        box += [(chosen, ((place, place),))] if ports else []
        found.append((box, Target(each, each, port, port)))
    return found


def redirect_to(context: Context, path: Path, ports: Ports, flags: int = 0) -> list[Path]:
    """nf_nat_redirect_ipv4/6: to 127.0.0.1 (::1) for our own packets, else to the arriving interface's address.

    Where it stays at its port, every interface is looked at: what comes later may ask for the address. Where it does
    not, the interface is taken to be the one that has the dialled address: the answer is the same.
    """
    scene, packet = context.scene, path.packet
    stays = ports is None or (not isinstance(ports, str) and ports[0] <= packet.dport <= ports[1])
    if scene.vantage is Vantage.EXTERNAL and scene.iif is not None and stays:
        ways: list[Path] = []
        cubes = [path.cube]
        for interface in scene.host.interfaces:
            address = interface_address(context, interface.index)
            if address is None:
                continue
            rest = []
            for cube in cubes:
                inside, outside = cube.split([(scene.iif, ((interface.index, interface.index),))])
                rest.extend(outside)
                if inside is not None:
                    way = path.fork(inside)
                    ways.extend(map_to(context, way, address, address, ports, flags, Mechanism.REDIRECT))
            cubes = rest
    else:
        ways, cubes = [], [path.cube]
    low = redirect_address(context, packet.daddr)
    for cube in cubes:
        ways.extend(map_to(context, path.fork(cube), low, low, ports, flags, Mechanism.REDIRECT))
    return ways


def redirected(scene: Scene, address: bytes, cube: Cube) -> list[tuple[bytes, Cube]]:
    """Where a redirect that is told with one `address` really ends: at that of the interface a packet comes by."""
    if scene.vantage is Vantage.LOCAL or scene.iif is None:
        return [(address, cube)]
    found: list[tuple[bytes, Cube]] = []
    cubes = [cube]
    for interface in scene.host.interfaces:
        own = _first_address(scene, interface.index)
        if own is None or own == address:
            continue
        rest: list[Cube] = []
        for each in cubes:
            inside, outside = each.split([(scene.iif, ((interface.index, interface.index),))])
            rest.extend(outside)
            found += [(own, inside)] if inside is not None else []
        cubes = rest
    return [*found, *((address, each) for each in cubes)]


def redirect_address(context: Context, daddr: bytes) -> bytes:
    """The address a redirect ends at, when it comes by the interface that has the dialled one."""
    if context.scene.vantage is Vantage.LOCAL:
        loopback = "127.0.0.1" if context.scene.family is Family.IP else "::1"
        return ipaddress.ip_address(loopback).packed
    return interface_address(context, owner_of(context.scene.host, daddr)) or daddr


def interface_address(context: Context, index: int) -> bytes | None:
    """The first address of an interface that a packet from outside may be sent to."""
    return _first_address(context.scene, index)


def _first_address(scene: Scene, index: int) -> bytes | None:
    family = scene.family
    for entry in scene.host.addresses:
        scoped = entry.address.is_link_local and family is Family.IP6
        usable = not scoped and not entry.address.is_loopback
        if entry.interface == index and family_of(entry.address) is family and usable:
            return entry.address.packed
    return None
