"""What is in the headers of a packet: known bytes where it has them, unknowns where connections differ.

Follows nft_payload_eval (net/netfilter/nft_payload.c) and the headers of RFC 791, 8200, 9293 and 768.
"""

from __future__ import annotations

from k3swatch.evaluate.cells import Byte, Cells, Part, big, blank, table
from k3swatch.evaluate.cube import Kind, Var
from k3swatch.evaluate.discovery import MAC, arp, group, neighbour
from k3swatch.evaluate.packet import NAT_DST, Discovery, Packet, Scene, Turn
from k3swatch.model.ruleset import OUTPUT, PREROUTING
from k3swatch.model.words import Family, Protocol

SADDR = {Family.IP: 12, Family.IP6: 8}  # offsets in the network header
DADDR = {Family.IP: 16, Family.IP6: 24}
TRANSLATED = "with source NAT to"  # words for the address that answers go to before it is undone
BY_ALIAS = "where source NAT's address is by"  # words for the interface that leads there
TRANSPORT = 2  # NFT_PAYLOAD_TRANSPORT_HEADER
PSH = 8  # of TCP's flags


def source_address(scene: Scene, packet: Packet) -> Cells:
    """The address it comes from, as it is by now."""
    if not packet.patch:
        return _addresses(scene, packet)[0]
    cells = load_payload(scene, packet, 1, SADDR[scene.family], scene.family.length)
    assert cells is not None
    return cells


def source_port(scene: Scene, packet: Packet) -> Cells:
    """The port it comes from, as it is by now."""
    cells = load_payload(scene, packet, 2, 0, 2)
    assert cells is not None
    return cells


def destination_address(scene: Scene, packet: Packet) -> Cells:
    """The address it goes to, as it is by now."""
    if not packet.patch:
        return tuple(packet.daddr) if scene.from_client else _addresses(scene, packet)[1]
    cells = load_payload(scene, packet, 1, DADDR[scene.family], scene.family.length)
    assert cells is not None
    return cells


def destination_port(scene: Scene, packet: Packet) -> Cells:
    """The port it goes to, as it is by now."""
    if scene.from_client and not packet.patch:
        return tuple(packet.dport.to_bytes(2))
    cells = load_payload(scene, packet, 2, 2, 2)
    assert cells is not None
    return cells


def environment(words: str, length: int) -> Cells:
    """Bytes that are understood but not to be known from here."""
    return blank(words, Kind.ENVIRONMENT, length)


def load_payload(scene: Scene, packet: Packet, base: int, offset: int, length: int) -> Cells | None:
    """Bytes of the packet; None where the kernel would break (no such header)."""
    looped = scene.iif is None or scene.iif.base == ((scene.loopback[0],) * 2,)
    if base == 0 and scene.top is None and looped:
        return None
    if scene.protocol is Discovery.ARP and base == 2:
        return None  # nft_set_pktinfo_unspec
    plain = base == 1 and not packet.patch and scene.protocol is not Discovery.ARP
    if plain and SADDR[scene.family] <= offset:  # nothing is asked for more often
        addresses = [cell for cells in _addresses(scene, packet) for cell in cells]
        offset_in, end = offset - SADDR[scene.family], offset - SADDR[scene.family] + length
        if end <= len(addresses):
            return tuple(addresses[offset_in:end])
    image = {0: _link, 1: _network, 2: _transport}.get(base)
    if image is None:
        return environment(f"@ih,{offset * 8},{length * 8}{scene.turn.value}", length)
    cells = image(scene, packet)
    if packet.patch:
        over = {position: byte for header, position, byte in packet.patch if header == base}
        cells = tuple(over.get(position, cell) for position, cell in enumerate(cells))
    if offset + length <= len(cells):
        return cells[offset : offset + length]
    name = {0: "ll", 1: "nh", 2: "th"}[base]
    return environment(f"@{name},{offset * 8},{length * 8}{scene.turn.value}", length)


def _link(scene: Scene, packet: Packet) -> Cells:
    """Ours is the address of the interface that IP sees; what is forwarded still has the header it came with."""
    ours, theirs = ("ether daddr", "ether saddr") if scene.iif is not None else ("ether saddr", "ether daddr")
    known = {each.index: each.mac for each in scene.host.interfaces if len(each.mac) == MAC}
    interface = scene.top or scene.iif
    mine = (
        table(interface, known, MAC) if known and interface is not None else _hardware(f"{ours}{scene.side}")
    )
    other = _hardware(f"{theirs}{scene.side}")
    if interface is not None and interface.base == ((scene.loopback[0],) * 2,):
        mine = other = (0,) * MAC
    asked = group(scene, packet)
    mine = mine if asked is None else tuple(asked)
    ethertype = ether_type(scene)
    return (*mine, *other, *ethertype) if scene.iif is not None else (*other, *mine, *ethertype)


def ether_type(scene: Scene) -> bytes:
    """ETH_P_*, in network order."""
    if scene.protocol is Discovery.ARP:
        return b"\x08\x06"
    return b"\x08\x00" if scene.family is Family.IP else b"\x86\xdd"


def _hardware(words: str) -> Cells:
    return big(Var(words, ((0, 2**48 - 1),), Kind.FIELD, words), MAC)


def _addresses(scene: Scene, packet: Packet) -> tuple[Cells, Cells]:
    """Where from and where to."""
    length = scene.family.length
    client = big(scene.saddr, length)
    if scene.from_client:
        return client, tuple(packet.daddr)
    if _still_translated(scene, packet) and packet.alias:
        client = tuple(packet.alias)
    elif _still_translated(scene, packet):
        client = big(Var(TRANSLATED, ((0, 2 ** (8 * length) - 1),), Kind.ENVIRONMENT, TRANSLATED), length)
    return tuple(packet.daddr), client


def _still_translated(scene: Scene, packet: Packet) -> bool:
    """Whether an answer still goes to what source NAT made of the client (nf_nat_packet)."""
    return packet.snatted and scene.hook in (PREROUTING, OUTPUT) and scene.priority < NAT_DST


def _network(scene: Scene, packet: Packet) -> Cells:
    saddr, daddr = _addresses(scene, packet)
    turn = scene.turn.value
    if scene.protocol is Discovery.ARP:
        return arp(scene, packet)
    if scene.family is Family.IP:
        return (
            0x45,
            *environment(f"ip dscp{turn}", 1),
            *environment(f"ip length{turn}", 2),
            *environment(f"ip id{turn}", 2),
            # no fragment: only DF may be set
            Part(Var(f"ip df{turn}", ((0, 255),), Kind.ENVIRONMENT, f"ip df{turn}"), 0, mask=0x40),
            0,
            *environment(f"ip ttl{turn}", 1),
            scene.protocol.number,
            *environment(f"ip checksum{turn}", 2),
            *saddr,
            *daddr,
        )
    return (
        Part(Var(f"ip6 dscp{turn}", ((0, 15),), Kind.ENVIRONMENT, f"ip6 dscp{turn}"), 0, 0x0F, 0x60),
        *environment(f"ip6 flowlabel{turn}", 3),
        *environment(f"ip6 length{turn}", 2),
        scene.protocol.number,  # no extension headers
        *((255,) if scene.protocol is Discovery.ND else environment(f"ip6 hoplimit{turn}", 1)),
        *saddr,
        *daddr,
    )


def _transport(scene: Scene, packet: Packet) -> Cells:
    if scene.protocol is Discovery.ND:
        return neighbour(scene, packet)
    server, client = tuple(packet.dport.to_bytes(2)), big(scene.sport, 2)
    if not scene.from_client and _still_translated(scene, packet):
        renamed = {offset: byte for base, offset, byte in packet.renamed if base == TRANSPORT}
        client = tuple(renamed.get(offset, cell) for offset, cell in enumerate(client))
    ports: Cells = (*client, *server) if scene.from_client else (*server, *client)
    turn = scene.turn.value
    if scene.protocol is Protocol.UDP:
        return (*ports, *environment(f"udp length{turn}", 2), *environment(f"udp checksum{turn}", 2))
    first = scene.turn is Turn.FIRST
    acknowledged: Cells = (0, 0, 0, 0) if first else environment(f"tcp ackseq{turn}", 4)
    return (
        *ports,
        *environment(f"tcp sequence{turn}", 4),
        *acknowledged,
        *environment(f"tcp doff{turn}", 1),
        tcp_flags(scene),
        *environment(f"tcp window{turn}", 2),
        *environment(f"tcp checksum{turn}", 2),
        0, 0,
    )  # fmt: skip


_ECN = {  # ECE and CWR when the client would like ECN, and ECE when the server does, too (RFC 3168)
    Turn.FIRST: Part(Var("tcp ecn", ((0, 255),), Kind.FIELD, "tcp flags ecn | cwr"), 0, 0xC0, 0x02),
    Turn.ANSWER: Part(Var("tcp ecn answer", ((0, 255),), Kind.FIELD, "tcp flags ecn"), 0, 0x40, 0x12),
}


def tcp_flags(scene: Scene) -> Byte:
    """The byte of TCP's flags: SYN, SYN and ACK, ACK; later ones have PSH, too, where they end what one end says."""
    return _ECN.get(scene.turn) or Part(pushed(scene.turn), 0, PSH, 0x10)


def pushed(turn: Turn) -> Var:
    """Whether a later packet has PSH: PSH or 0."""
    words = f"tcp flags psh{turn.value}"
    return Var(words, ((0, 0), (PSH, PSH)), Kind.FIELD, words)
