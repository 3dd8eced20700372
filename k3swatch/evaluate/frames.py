"""Statements about the frame that a packet comes in: what is overwritten of its Ethernet header, whose it is, and
whether a bridge takes it.

A bridge forwards by the Ethernet destination as it is after its prerouting chains; only what is addressed to the
bridge (or a port of it) is taken in (br_handle_frame_finish). Follows nft_payload_set_eval, nft_meta_set_eval,
nft_meta_bridge_set_eval and ebt_dnat.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from k3swatch.evaluate.cells import Byte, known
from k3swatch.evaluate.discovery import MAC
from k3swatch.evaluate.header import load_payload
from k3swatch.evaluate.machine import MAPPED, Context, Path, ended
from k3swatch.evaluate.outcome import Fate
from k3swatch.evaluate.packet import Scene
from k3swatch.model.expr import Verdict
from k3swatch.model.ruleset import PREROUTING
from k3swatch.model.words import Mechanism, Protocol

PACKET_HOST = 0  # uapi/linux/if_packet.h
ETHERTYPE = range(12, 14)


def overwrite(context: Context, offset: int, cells: Sequence[Byte], path: Path) -> list[Path]:
    """The bytes from `offset` of the Ethernet header are `cells` from here on."""
    scene, packet = context.scene, path.packet
    if scene.top is None:
        return [path]  # IP does not look at it any more
    written = {
        (0, position): cell
        for position, cell in enumerate(cells, offset)
        if load_payload(scene, packet, 0, position, 1) != (cell,)
    }
    places = {position for _, position in written}
    incoming = scene.iif is not None
    if places & set(ETHERTYPE):
        why = (
            f"the Ethernet type{scene.turn.value} is overwritten: it is no packet of {scene.family} any more"
        )
        context.emit(Fate.UNKNOWN, packet, path.cube, why=why)
        return [ended(path, Verdict(MAPPED))]
    if places & set(range(MAC)):
        receiver = _receiver(offset, cells, scene, path)
        if not incoming:
            why = (
                f"the Ethernet destination{scene.turn.value} is overwritten: whoever has that address gets it"
            )
            context.emit(Fate.UNKNOWN, packet, path.cube, why=why)
            return [ended(path, Verdict(MAPPED))]
        bridge = _decides(scene)
        if bridge and not (receiver and receiver in _ours(scene, bridge)):
            return _away(context, receiver, path)
    path.packet = packet.overwritten(written) if written else packet
    return [path]


def _receiver(offset: int, cells: Sequence[Byte], scene: Scene, path: Path) -> bytes | None:
    """The Ethernet destination as it is then; None when it is not to be known."""
    address = list(load_payload(scene, path.packet, 0, 0, MAC) or ())
    for position, cell in enumerate(cells, offset):
        if position < len(address):
            address[position] = cell
    return known(address)


def _decides(scene: Scene) -> int:
    """The bridge that has yet to decide by the destination; 0 when none has."""
    if scene.bridge:
        return scene.bridge if scene.hook == PREROUTING and scene.oif is None else 0
    device = scene.iif.base[0][0] if scene.iif is not None else 0
    bridges = {each.index for each in scene.host.interfaces if each.kind == "bridge"}
    masters = [
        each.master for each in scene.host.interfaces if each.index == device and each.master in bridges
    ]
    return masters[0] if masters else 0


def _ours(scene: Scene, bridge: int) -> set[bytes]:
    """What a bridge takes for itself: its own address, and its ports'."""
    return {each.mac for each in scene.host.interfaces if bridge in (each.index, each.master) and each.mac}


def _away(context: Context, receiver: bytes | None, path: Path) -> list[Path]:
    names = {each.index: each.name for each in context.scene.host.interfaces}
    bridge = names.get(_decides(context.scene), "the bridge")
    turn = context.scene.turn.value
    if receiver is None or receiver[0] & 1:
        why = f"the Ethernet destination{turn} is overwritten before {bridge} looks at it: whose it is is not known"
        context.emit(Fate.UNKNOWN, path.packet, path.cube, why=why)
    else:
        why = (
            f"{bridge} forwards it to the Ethernet address {receiver.hex(':')}, otherwise addressed as it was"
        )
        context.emit(Fate.ROUTED, path.packet, path.cube, Mechanism.DNAT, why=why)
    return [ended(path, Verdict(MAPPED))]


def packet_type(context: Context, cells: Sequence[Byte], path: Path) -> list[Path]:
    """`meta pkttype set`: what is not for this host is dropped by IP, TCP or ip_forward (ip_rcv_core, tcp_v4_rcv)."""
    scene, kind = context.scene, known(cells)
    again = scene.top is not None and not scene.bridge and _decides(scene)  # br_handle_frame says whose it is
    if kind == bytes([PACKET_HOST]) or again or scene.iif is None:
        return [path]
    why = f"its packet type is set{scene.turn.value}: it does not count as a packet to this host any more"
    sure = kind is not None and scene.protocol is Protocol.TCP
    context.emit(Fate.DROPPED if sure else Fate.UNKNOWN, path.packet, path.cube, why=why)
    return [ended(path, Verdict(MAPPED))]


def broute(context: Context, cells: Sequence[Byte], path: Path) -> list[Path]:
    """`meta broute set 1`: the bridge passes it on as if the port were none (nf_hook_bridge_pre), and IP sees it arrive
    on the port itself.
    """
    if known(cells) == b"\0":
        return [path]
    why = f"routed instead of bridged{context.scene.turn.value} (broute): rules see it arrive on the bridge's port"
    context.emit(Fate.UNKNOWN, path.packet, path.cube, why=why)
    return [ended(path, Verdict(MAPPED))]
