"""What `meta` loads of a packet: its marks, interfaces, protocol, type, the socket it is of.

Follows nft_meta_get_eval (net/netfilter/nft_meta.c) and nft_meta_bridge_get_eval.
"""

from __future__ import annotations

from k3swatch.evaluate.cells import Cells, blank, little
from k3swatch.evaluate.cube import Kind, Var
from k3swatch.evaluate.discovery import packet_type
from k3swatch.evaluate.fib import interface_cells
from k3swatch.evaluate.header import environment, ether_type
from k3swatch.evaluate.machine import Context, Path, ended
from k3swatch.evaluate.packet import Discovery, Scene, Turn
from k3swatch.model.expr import Meta

IFNAMSIZ = 16
NFPROTO_ARP = 3


def meta(context: Context, expr: Meta, path: Path) -> list[Path]:
    """nft_meta_get_eval; keys are enum nft_meta_keys."""
    scene, packet = context.scene, path.packet
    cells: Cells | None
    match expr.key:
        case 1:  # protocol
            cells = tuple(ether_type(scene))
        case 3:
            cells = packet.mark
        case 4:
            cells = little(scene.iif, 4) if scene.iif is not None else (0, 0, 0, 0)
        case 5:
            cells = little(scene.oif, 4) if scene.oif is not None else (0, 0, 0, 0)
        case 6:
            cells = interface_cells(scene, scene.iif, "name", IFNAMSIZ)
        case 7:
            cells = interface_cells(scene, scene.oif, "name", IFNAMSIZ)
        case 8:
            cells = None if scene.iif is None else interface_cells(scene, scene.iif, "type", 2)
        case 9:
            cells = None if scene.oif is None else interface_cells(scene, scene.oif, "type", 2)
        case 10:
            cells = None if scene.uid is None else little(scene.uid, 4)
        case 11:
            cells = None if scene.uid is None else environment(f"gid{scene.side}", 4)
        case 12:
            cells = (0,)
        case 15:
            cells = (NFPROTO_ARP if scene.protocol is Discovery.ARP else scene.family.nfproto,)
        case 16:
            cells = None if scene.protocol is Discovery.ARP else (scene.protocol.number,)
        case 17 | 18 if context.scene.bridge:
            cells = _bridge_name(scene, expr.key)
        case 19:
            cells = (packet_type(scene),)
        case 21:
            cells = None if scene.iif is None else interface_cells(scene, scene.iif, "group", 4)
        case 22:
            cells = None if scene.oif is None else interface_cells(scene, scene.oif, "group", 4)
        case 24:
            cells = little(Var(f"random {context.rule_id}", ((0, 2**32 - 1),), Kind.CHANCE, "random"), 4)
        case 26:
            cells = None if scene.iif is None else interface_cells(scene, scene.iif, "kind", IFNAMSIZ)
        case 27:
            cells = None if scene.oif is None else interface_cells(scene, scene.oif, "kind", IFNAMSIZ)
        case _:
            cells = _other_meta(expr.key, scene.turn)
    if cells is None:
        return [ended(path)]
    path.write(expr.dreg, cells)
    return [path]


def _bridge_name(scene: Scene, key: int) -> Cells:
    """nft_meta_bridge_get_eval: of the bridge that the port it comes by (17) or leaves by (18) belongs to."""
    way = scene.iif if key == 17 else scene.oif
    names = [each.name for each in scene.host.interfaces if each.index == scene.bridge and way is not None]
    return tuple("".join(names).encode("utf-8", "surrogateescape").ljust(IFNAMSIZ, b"\0"))


# enum nft_meta_keys beyond those decided above, with their length in a register
_META = {
    0: ("length", 4), 2: ("priority", 4), 13: ("rtclassid", 4), 14: ("secmark", 4), 17: ("ibrname", 16),
    18: ("obrname", 16), 20: ("cpu", 4), 23: ("cgroup", 4), 25: ("ipsec", 1), 30: ("time", 8), 31: ("day", 1),
    32: ("hour", 4), 33: ("sdif", 4), 34: ("sdifname", 16),
}  # fmt: skip


def _other_meta(key: int, turn: Turn) -> Cells:
    if key in _META:
        name, length = _META[key]
        return environment(f"meta {name}{turn.value}", length)
    return blank(f"meta key {key}", Kind.OPAQUE, 4)
