"""The packets that ask for an address before anything can be sent to it: ARP (RFC 826), neighbour discovery (RFC 4861).

They are walked as a connection's are, with a `Scene.protocol` of their own: the first is the question, of somebody on
the same link (a gateway, mostly), the answer ours. Nothing tracks them: NAT is not asked.
"""

from __future__ import annotations

from k3swatch.evaluate.cells import Cells, big, blank
from k3swatch.evaluate.cube import Kind
from k3swatch.evaluate.packet import Discovery, Packet, Scene, Turn

MAC = 6  # bytes of an Ethernet address
HOST, BROADCAST, MULTICAST = 0, 1, 2  # PACKET_*, uapi/linux/if_packet.h
SOLICITATION, ADVERTISEMENT = 135, 136  # NDISC_NEIGHBOUR_*, net/ndisc.h
_REQUEST, _REPLY = 1, 2  # ARPOP_*


def solicited_node(address: bytes) -> bytes:
    """The group that an IPv6 address is asked for in (RFC 4291, 2.7.1)."""
    return b"\xff\x02" + bytes(9) + b"\x01\xff" + address[-3:]


def group(scene: Scene, packet: Packet) -> bytes | None:
    """The Ethernet destination of a question; None for any other packet."""
    if scene.turn is not Turn.FIRST or not isinstance(scene.protocol, Discovery):
        return None
    return b"\xff" * MAC if scene.protocol is Discovery.ARP else b"\x33\x33" + packet.daddr[-4:]


def packet_type(scene: Scene) -> int:
    """PACKET_*: whom a packet is for, as the driver sees it (eth_type_trans)."""
    if scene.turn is not Turn.FIRST or not isinstance(scene.protocol, Discovery):
        return HOST
    return BROADCAST if scene.protocol is Discovery.ARP else MULTICAST


def arp(scene: Scene, packet: Packet) -> Cells:
    """An ARP packet for IPv4 over Ethernet."""
    ours, theirs = tuple(packet.daddr), big(scene.saddr, 4)
    question = scene.turn is Turn.FIRST
    addresses = (
        (*_hardware("arp sender", scene), *theirs, *bytes(MAC), *ours)
        if question
        else (*_hardware("arp sender", scene), *ours, *_hardware("arp target", scene), *theirs)
    )
    return (0, 1, 8, 0, MAC, 4, 0, _REQUEST if question else _REPLY, *addresses)


def neighbour(scene: Scene, packet: Packet) -> Cells:
    """A solicitation or an advertisement, with its one option: the link-layer address of who sends it."""
    turn, question = scene.turn.value, scene.turn is Turn.FIRST
    flags = (0,) if question else _environment(f"icmpv6 flags{turn}", 1)
    target = _environment("icmpv6 target", 16) if question else tuple(packet.daddr)
    return (
        SOLICITATION if question else ADVERTISEMENT, 0, *_environment(f"icmpv6 checksum{turn}", 2),
        *flags, 0, 0, 0, *target, 1 if question else 2, 1, *_hardware("icmpv6 option", scene),
    )  # fmt: skip


def _hardware(words: str, scene: Scene) -> Cells:
    return _environment(f"{words} hardware address{scene.turn.value}", MAC)


def _environment(words: str, length: int) -> Cells:
    return blank(words, Kind.ENVIRONMENT, length)
