"""What conntrack knows of a packet's connection by now, as `ct` and xt_conntrack ask for it.

Follows nft_ct_get_eval (net/netfilter/nft_ct.c), nf_conntrack_in and nf_conntrack_proto_tcp.c.
"""

from __future__ import annotations

from k3swatch.evaluate.cells import Cells, Part
from k3swatch.evaluate.cube import Kind, Var
from k3swatch.evaluate.header import environment, source_address, source_port
from k3swatch.evaluate.machine import Context, Path, ended, maybe
from k3swatch.evaluate.packet import (
    RAW_CONNTRACK,
    SAME_PRIORITY,
    Discovery,
    Packet,
    Scene,
    Turn,
    has_connection,
    of_connection,
)
from k3swatch.model.expr import Ct
from k3swatch.model.words import Family, Vantage

# NF_CT_STATE_BIT(IP_CT_NEW), (IP_CT_ESTABLISHED), NF_CT_STATE_INVALID_BIT, ..._UNTRACKED_BIT
NEW, ESTABLISHED, INVALID, UNTRACKED = 8, 2, 1, 64


def ct(context: Context, expr: Ct, path: Path) -> list[Path]:
    """nft_ct_get_eval."""
    scene, packet = context.scene, path.packet
    seen = has_connection(scene, packet)
    length = _CT.get(expr.key, 4)
    if scene.priority == RAW_CONNTRACK and packet.tracked:
        path.write(expr.dreg, environment(f"ct key {expr.key}", length))
        return maybe(path, SAME_PRIORITY, Kind.OPAQUE)
    if expr.key == 0:
        value = state(scene, packet)
        path.write(expr.dreg, tuple(value.to_bytes(4, "little")))
        return [path]
    if not seen or _OF_FAMILY.get(expr.key, scene.family) is not scene.family:
        return [ended(path)]
    cells = _tuple_key(scene, packet, expr.key) if expr.direction in (None, 0) else None
    if cells is None:
        fixed: dict[int, Cells] = {
            1: (int(not scene.from_client),),
            2: _status(scene, packet),
            3: packet.ctmark,
            7: (scene.family.nfproto,),
            10: (scene.protocol.number,),
            17: packet.zone,
        }
        cells = fixed.get(expr.key)
    words = f"ct key {expr.key}{scene.turn.value}"
    path.write(expr.dreg, cells if cells is not None else environment(words, length))
    return [path]


def state(scene: Scene, packet: Packet) -> int:
    """The bit of `ct state`; xt_conntrack has the same for all but untracked. An answer that conntrack has no
    connection for is invalid (tcp_new), a later packet of the client begins one (nf_conntrack_tcp_loose).
    """
    if not packet.tracked:
        return UNTRACKED if not isinstance(scene.protocol, Discovery) or _icmpv6_seen(scene) else INVALID
    if scene.priority < RAW_CONNTRACK:
        return INVALID
    if not of_connection(packet):
        waiting = (
            packet.begun and packet.home == packet.zone
        )  # for an answer: an ACK does not fit (tcp_conntracks)
        return NEW if scene.from_client and not waiting else INVALID
    return NEW if scene.turn is Turn.FIRST else ESTABLISHED


def _icmpv6_seen(scene: Scene) -> bool:
    """nf_conntrack_icmpv6_error leaves neighbour discovery untracked when it gets it; ARP it never gets."""
    return scene.protocol is Discovery.ND and scene.priority > RAW_CONNTRACK


_CT = {
    1: 1,
    6: 16,
    7: 1,
    8: 16,
    9: 16,
    10: 1,
    11: 2,
    12: 2,
    13: 16,
    14: 8,
    15: 8,
    16: 8,
    17: 2,
    21: 16,
    22: 16,
}
_OF_FAMILY = {19: Family.IP, 20: Family.IP, 21: Family.IP6, 22: Family.IP6}  # NFT_CT_{SRC,DST}_IP, _IP6
SEEN_REPLY, ASSURED, CONFIRMED, SRC_NAT, DST_NAT = 2, 4, 8, 16, 32  # enum ip_conntrack_status
_STATUS = Var("ct status", ((0, 0x1FF),), Kind.ENVIRONMENT, "ct status")


def _status(scene: Scene, packet: Packet) -> Cells:
    """The status bits; not known: whether NAT has been looked for yet (bits 7 and 8), and what SNAT changed."""
    value = status_bits(scene) | (DST_NAT if packet.dialled else 0)
    open_bits = 0x80 | (SRC_NAT if packet.snatted else 0)
    return (Part(_STATUS, 0, open_bits, value), Part(_STATUS, 1, 0x01), 0, 0)


def status_bits(scene: Scene) -> int:
    """The bits of the status that say how far the connection is."""
    if scene.turn is not Turn.FIRST:
        return CONFIRMED | SEEN_REPLY | (0 if scene.turn is Turn.ANSWER else ASSURED)
    looped = scene.vantage is Vantage.LOCAL and scene.iif is not None
    return CONFIRMED if looped else 0  # it has passed postrouting


def _tuple_key(scene: Scene, packet: Packet, key: int) -> Cells | None:
    """Keys of the original tuple: addresses and ports as the client dialled them."""
    daddr, dport = packet.dialled or (packet.daddr, packet.dport)
    if key in (8, 11, 19, 21):
        if packet.snatted or not scene.from_client:
            return None
        return source_port(scene, packet) if key == 11 else source_address(scene, packet)
    if key in (9, 20, 22):
        return tuple(daddr)
    return tuple(dport.to_bytes(2)) if key == 12 else None
