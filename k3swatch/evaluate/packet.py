"""The hypothetical packet: the first one of a connection to a protected port, as the kernel would see it.

`Scene` is what does not change on its way (vantage, source, interfaces, the host); `Packet` is what rules can change.
Loads answer with cells: known bytes where the packet has them, unknowns where connections differ.
Follows nft_payload_eval, nft_meta_get_eval, nft_ct_get_eval, nft_fib4_eval/nft_fib6_eval (net/netfilter).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from k3swatch.evaluate.cells import Byte, Cells, Part, big, blank, known, little, table
from k3swatch.evaluate.cube import Kind, Var
from k3swatch.evaluate.ranges import Ranges, normal, subtract
from k3swatch.model.port import Address, Host, family_of
from k3swatch.model.ruleset import Rule
from k3swatch.model.words import Family, Protocol, Vantage

RTN_UNICAST, RTN_LOCAL = 1, 2  # enum rtn_type, uapi/linux/rtnetlink.h
OIFNAME = 2  # enum nft_fib_result
SADDR = {Family.IP: 12, Family.IP6: 8}  # offsets in the network header
DADDR = {Family.IP: 16, Family.IP6: 24}
RAW_CONNTRACK = -200  # NF_IP_PRI_CONNTRACK: before it no rule sees a connection


def _place(item: tuple[tuple[int, int], Byte]) -> tuple[int, int]:
    return item[0]


@dataclass(frozen=True, slots=True)
class Packet:
    """What rules on the way can change. `shadow` names the chain whose mapping already won, None while open."""

    daddr: bytes
    dport: int
    mark: Cells
    ctmark: Cells = (0, 0, 0, 0)
    zone: Cells = (0, 0)
    tracked: bool = True
    dialled: tuple[bytes, int] | None = None  # where it was going when NAT sent it somewhere else
    snatted: bool = False  # NAT has set up its source
    patch: tuple[
        tuple[int, int, Byte], ...
    ] = ()  # bytes that were overwritten: header, offset, what is there now
    sent: tuple[Rule, ...] = ()  # the path of the rule that overwrote the destination, without a connection
    shadow: tuple[int, int] | None = None  # (group of tied chains, chain within it) that decided before

    def mapped(self, daddr: bytes, dport: int) -> Packet:
        """As NAT sends it on. An identity mapping leaves no trace (IPS_DST_NAT is not set)."""
        there = (self.daddr, self.dport)
        return self if there == (daddr, dport) else replace(self, daddr=daddr, dport=dport, dialled=there)

    def overwritten(self, written: dict[tuple[int, int], Byte]) -> Packet:
        """With other bytes in its headers."""
        bytes_now = {(base, offset): byte for base, offset, byte in self.patch} | written
        return replace(
            self, patch=tuple((*place, byte) for place, byte in sorted(bytes_now.items(), key=_place))
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """Who sends the packet, and where it is being looked at."""

    host: Host
    vantage: Vantage
    family: Family
    protocol: Protocol
    saddr: Var
    sport: Var
    mark: Var
    iif: Var | None  # None where there is no input interface (output hook)
    uid: Var = field(default=Var("uid", ((0, 2**32 - 1),), Kind.FIELD, "uid"))
    hook: int = 0
    priority: int = 0

    def first_packet(self, daddr: bytes, dport: int) -> Packet:
        """The packet before any rule."""
        return Packet(daddr, dport, little(self.mark, 4))

    @property
    def loopback(self) -> tuple[int, str]:
        """Index and name of the loopback interface."""
        for interface in self.host.interfaces:
            if interface.loopback:
                return interface.index, interface.name
        return 1, "lo"


def scene(
    host: Host,
    vantage: Vantage,
    family: Family,
    protocol: Protocol,
    *,
    source: Address | None = None,
    source_port: int | None = None,
) -> Scene:
    """A scene with everything unknown that differs between connections; `source` narrows it to one sender.

    From outside nobody can send from an address of ours (fib_validate_source drops such packets as martians), and a
    process of this host can only send from one (or any of 127.0.0.0/8).
    """
    bits = family.length * 8
    pairs = [(int(a), int(a)) for a in host.local() if family_of(a) is family]
    if family is Family.IP:
        pairs.append((127 << 24, (128 << 24) - 1))
    own = normal(pairs)
    if source is not None:
        addresses: Ranges = ((int(source), int(source)),)
    elif vantage is Vantage.LOCAL:
        addresses = own or ((0, 2**bits - 1),)
    else:
        addresses = subtract(((0, 2**bits - 1),), own)
    ports: Ranges = ((0, 65535),) if source_port is None else ((source_port, source_port),)
    indexes = sorted(i.index for i in host.interfaces if not i.loopback)
    iif = None
    if vantage is Vantage.EXTERNAL:
        base: Ranges = normal([(index, index) for index in indexes]) or ((1, 2**31 - 1),)
        iif = Var("iif", base, Kind.FIELD, "iif")
    return Scene(
        host,
        vantage,
        family,
        protocol,
        Var("saddr", addresses, Kind.FIELD, f"{family} saddr"),
        Var("sport", ports, Kind.FIELD, f"{protocol} sport"),
        Var("mark", ((0, 2**32 - 1),), Kind.FIELD, "mark"),
        iif,
    )


SAME_PRIORITY = "whether connection tracking runs before a chain of its own priority"


def has_connection(scene: Scene, packet: Packet) -> bool:
    """Whether conntrack has given the packet a connection by now."""
    return scene.priority > RAW_CONNTRACK and packet.tracked


def source_address(scene: Scene, packet: Packet) -> Cells:
    """The address it comes from, as it is by now."""
    cells = load_payload(scene, packet, 1, SADDR[scene.family], scene.family.length)
    assert cells is not None
    return cells


def source_port(scene: Scene, packet: Packet) -> Cells:
    """The port it comes from, as it is by now."""
    cells = load_payload(scene, packet, 2, 0, 2)
    assert cells is not None
    return cells


def source_type(scene: Scene, packet: Packet) -> int | None:
    """RTN_* of the address it comes from; None when that is not to be known."""
    if not packet.patch:
        return RTN_LOCAL if scene.vantage is Vantage.LOCAL else RTN_UNICAST
    address = known(source_address(scene, packet))
    if address is None:
        return None
    return RTN_LOCAL if is_local(scene.host, address) else RTN_UNICAST


def environment(words: str, length: int) -> Cells:
    """Bytes that are understood but not to be known from here."""
    return blank(words, Kind.ENVIRONMENT, length)


def load_payload(scene: Scene, packet: Packet, base: int, offset: int, length: int) -> Cells | None:
    """Bytes of the packet; None where the kernel would break (no such header)."""
    if base == 0 and scene.vantage is Vantage.LOCAL:
        return None
    image = {0: _link, 1: _network, 2: _transport}.get(base)
    if image is None:
        return environment(f"@ih,{offset * 8},{length * 8}", length)
    cells = image(scene, packet)
    if packet.patch:
        over = {position: byte for header, position, byte in packet.patch if header == base}
        cells = tuple(over.get(position, cell) for position, cell in enumerate(cells))
    if offset + length <= len(cells):
        return cells[offset : offset + length]
    name = {0: "ll", 1: "nh", 2: "th"}[base]
    return environment(f"@{name},{offset * 8},{length * 8}", length)


_DF = Part(Var("ip df", ((0, 255),), Kind.ENVIRONMENT, "ip df"), 0, mask=0x40)


_ECN = Var("tcp ecn", ((0, 255),), Kind.FIELD, "tcp flags ecn | cwr")


def _link(scene: Scene, packet: Packet) -> Cells:
    ethertype = (0x08, 0x00) if scene.family is Family.IP else (0x86, 0xDD)
    return (
        *big(Var("ether daddr", ((0, 2**48 - 1),), Kind.FIELD, "ether daddr"), 6),
        *big(Var("ether saddr", ((0, 2**48 - 1),), Kind.FIELD, "ether saddr"), 6),
        *ethertype,
    )


def _network(scene: Scene, packet: Packet) -> Cells:
    saddr = big(scene.saddr, scene.family.length)
    if scene.family is Family.IP:
        return (
            0x45,
            *environment("ip dscp", 1),
            *environment("ip length", 2),
            *environment("ip id", 2),
            _DF,  # a first packet is no fragment: only DF may be set
            0,
            *environment("ip ttl", 1),
            scene.protocol.number,
            *environment("ip checksum", 2),
            *saddr,
            *packet.daddr,
        )
    return (
        Part(Var("ip6 dscp", ((0, 15),), Kind.ENVIRONMENT, "ip6 dscp"), 0, mask=0x0F, flip=0x60),
        *environment("ip6 flowlabel", 3),
        *environment("ip6 length", 2),
        scene.protocol.number,  # a first packet has no extension headers
        *environment("ip6 hoplimit", 1),
        *saddr,
        *packet.daddr,
    )


def _transport(scene: Scene, packet: Packet) -> Cells:
    ports = (*big(scene.sport, 2), *packet.dport.to_bytes(2))
    if scene.protocol is Protocol.UDP:
        return (*ports, *environment("udp length", 2), *environment("udp checksum", 2))
    return (
        *ports,
        *environment("tcp sequence", 4),
        0, 0, 0, 0,  # a SYN acknowledges nothing
        *environment("tcp doff", 1),
        Part(_ECN, 0, mask=0xC0, flip=0x02),  # SYN, and ECE and CWR when the client would like ECN (RFC 3168)
        *environment("tcp window", 2),
        *environment("tcp checksum", 2),
        0, 0,
    )  # fmt: skip


def interface_cells(scene: Scene, what: str, length: int) -> Cells:
    """Bytes about the input interface that depend on which one it is."""
    if scene.iif is None:
        return (0,) * length
    rows: dict[int, bytes] = {}
    for interface in scene.host.interfaces:
        rows[interface.index] = {
            "name": interface.name.encode("utf-8", "surrogateescape"),
            "group": interface.group.to_bytes(4, "little"),
            "type": interface.type.to_bytes(2, "little"),
            "kind": interface.kind.encode("utf-8", "surrogateescape"),
        }[what]
    if not rows:
        return blank(f"iif{what}", Kind.FIELD, length)
    return table(scene.iif, rows, length)


def load_fib(scene: Scene, packet: Packet, result: int, flags: int) -> Cells:
    """`fib`: only the address type is known; routes are not read here."""
    address_type, saddr, iif, oif = 3, 1, 8, 16
    words = _fib_words(result, flags)
    if result != address_type:
        return environment(words, 16 if result == OIFNAME else 4)
    if flags & saddr and flags & (iif | oif):
        return environment(words, 4)
    if flags & saddr:
        kind = source_type(scene, packet)
        return environment(words, 4) if kind is None else tuple(kind.to_bytes(4, "little"))
    if not is_local(scene.host, packet.daddr):
        return tuple(RTN_UNICAST.to_bytes(4, "little"))
    if flags & iif and scene.iif is not None and scene.host.interfaces:
        owner = owner_of(scene.host, packet.daddr)
        rows = {
            interface.index: (RTN_LOCAL if interface.index == owner else RTN_UNICAST).to_bytes(4, "little")
            for interface in scene.host.interfaces
        }
        return table(scene.iif, rows, 4)
    if (
        flags & oif
        and scene.vantage is Vantage.LOCAL
        and owner_of(scene.host, packet.daddr) != scene.loopback[0]
    ):
        return tuple(RTN_UNICAST.to_bytes(4, "little"))
    return tuple(RTN_LOCAL.to_bytes(4, "little"))


def _fib_words(result: int, flags: int) -> str:
    names = {1: "saddr", 2: "daddr", 4: "mark", 8: "iif", 16: "oif"}
    key = " . ".join(name for bit, name in names.items() if flags & bit)
    return f"fib {key} {({1: 'oif', 2: 'oifname', 3: 'type'}).get(result, result)}"


def is_local(host: Host, address: bytes) -> bool:
    """Whether packets to `address` end on this host (all of 127.0.0.0/8 does)."""
    if len(address) == 4 and address[0] == 127:
        return True
    return address in host.owners


def owner_of(host: Host, address: bytes) -> int:
    """The index of the interface that has `address`; loopback's 1 when none does."""
    return host.owners.get(address, 1)
