"""TPROXY: the packet keeps its addresses and is given to a local socket all the same.

Follows nft_tproxy.c, xt_TPROXY.c and nf_tproxy_get_sock_v4/v6: the socket is the one that would get a packet to the
target, and it has to be transparent. What comes in by a bridge with br_netfilter is asked before it gets to IP, which
takes the socket away again (ip_rcv_core).
"""

from __future__ import annotations

from dataclasses import replace

from k3swatch.evaluate.cells import masked
from k3swatch.evaluate.cube import Cube, Kind
from k3swatch.evaluate.machine import Context, Path, ended, maybe, with_mark
from k3swatch.evaluate.mapping import read_address, read_ports, redirect_address
from k3swatch.evaluate.outcome import Fate, Target
from k3swatch.evaluate.packet import TPROXIED, Turn, Turned, is_local
from k3swatch.evaluate.ranges import normal
from k3swatch.evaluate.sourcenat import Ports
from k3swatch.model import xt
from k3swatch.model.expr import Code, Tproxy, Verdict
from k3swatch.model.port import ListeningSocket
from k3swatch.model.words import Family, Mechanism


def tproxy(context: Context, expr: Tproxy, path: Path) -> list[Path]:
    """nft_tproxy_eval: breaks when no transparent socket listens; taking the packet is no verdict."""
    if expr.family not in (0, context.scene.family.nfproto):
        return [ended(path)]
    address = read_address(path, expr.addr, context.scene.family.length)
    return _give(context, path, address, read_ports(path, expr.port, expr.port))


def xt_tproxy(context: Context, spec: xt.XtTproxy, path: Path) -> list[Path]:
    """tproxy_tg4, tproxy_tg6: with a socket the mark is set and the packet accepted, without one it is dropped."""
    ways = _give(context, path, spec.addr, (spec.port, spec.port) if spec.port else None)
    mask, value = (~spec.mark_mask & 0xFFFFFFFF).to_bytes(4, "little"), spec.mark_value.to_bytes(4, "little")
    for way in ways:
        if way.verdict is not None:
            way.verdict = Verdict(Code.DROP)
            continue
        mark = tuple(masked(c, m, v) for c, m, v in zip(way.packet.mark, mask, value, strict=True))
        with_mark(way, mark)
        ended(way, Verdict(Code.ACCEPT))
    return ways


def _give(context: Context, path: Path, address: bytes | None, ports: Ports) -> list[Path]:
    """The ways on: with a socket still open, without one ended. Later packets belong to the socket of the first."""
    if context.scene.turn is not Turn.FIRST:
        return [path]
    if address is None or isinstance(ports, str):
        context.emit(Fate.UNKNOWN, path.packet, path.cube, Mechanism.TPROXY, why="tproxy target is computed")
        return [path]
    low = address if any(address) else redirect_address(context, path.packet.daddr)
    port = ports[0] if ports and ports[0] else path.packet.dport
    taken = _taken(context, low, port)
    if taken is False:
        return [ended(path)]
    ways = [path] if taken else maybe(path, f"a transparent socket listens on port {port}", Kind.OPAQUE)
    away = port != path.packet.dport or not is_local(context.scene.host, low)
    lost: list[Path] = []
    for way in ways:
        inside = None if way.verdict is not None else _by_bridge(context, way, lost)
        if inside is None:
            continue
        way.cube, way.packet = inside, replace(way.packet, given=True)
        if away and way.packet.shadow is None:
            _away(context, way, Target(low, low, port, port))
    return [*ways, *lost]


def _by_bridge(context: Context, way: Path, lost: list[Path]) -> Cube | None:
    """What keeps its socket; who loses it again, going on as if nothing had been given, is added to `lost`."""
    scene = context.scene
    bridges = normal([(index, index) for index in scene.host.showing(scene.family)])
    if not bridges or scene.iif is None:
        return way.cube
    inside, outside = way.cube.split([(scene.iif, bridges)])
    if inside is None:
        return way.cube
    if not outside:
        return None
    lost.append(way.fork(inside))
    (rest,) = outside
    return rest


def _away(context: Context, way: Path, target: Target) -> None:
    """The packet goes on, to be marked, dropped or translated, and is that socket's from here on."""
    turned = way.packet.turned
    if turned is not None and turned.mechanism is Mechanism.TPROXY:
        return  # the first one is told
    context.emit(Fate.MAPPED, way.packet, way.cube, Mechanism.TPROXY, target)
    if turned is None:
        way.packet = replace(way.packet, turned=Turned(context.path, Mechanism.TPROXY, target))
    else:
        way.packet = replace(way.packet, shadow=TPROXIED)


def _taken(context: Context, address: bytes, port: int) -> bool | None:
    """Whether the socket that listens there is transparent; None when that is not to be known."""
    sockets = context.scene.host.sockets
    if sockets is None:
        return None
    protocol, family = context.scene.protocol, context.scene.family
    there = [s for s in sockets if s.port == port and s.protocol is protocol and _takes(s, address, family)]
    bound = [s for s in there if s.address.packed == address] or there
    answers = {s.transparent if s.interface == 0 else None for s in bound}
    if answers == {True}:
        return True
    return None if answers - {False} else False


def _takes(socket: ListeningSocket, address: bytes, family: Family) -> bool:
    if socket.address.packed == address:
        return True
    both = socket.address.version == 6 and not socket.v6only
    return int(socket.address) == 0 and (socket.address.version == (4 if family is Family.IP else 6) or both)
