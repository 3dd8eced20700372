"""The meaning of nf_tables' own matches: loads, comparisons, arithmetic. One function an expression.

Statements that decide (nat, reject, tproxy, ...) are in `statements`, set lookups in `lookups`, xtables' in `xtables`.
"""

from __future__ import annotations

from k3swatch.evaluate.cells import (
    Byte,
    Cells,
    Part,
    blank,
    describe,
    doubt,
    equal,
    known,
    little,
    masked,
    table,
    within,
)
from k3swatch.evaluate.cube import Kind, Var
from k3swatch.evaluate.discovery import packet_type
from k3swatch.evaluate.fib import interface_cells, load_fib
from k3swatch.evaluate.header import environment, ether_type, load_payload, source_address, source_port
from k3swatch.evaluate.machine import Context, Path, ended, maybe, split
from k3swatch.evaluate.packet import (
    RAW_CONNTRACK,
    SAME_PRIORITY,
    Discovery,
    Packet,
    Scene,
    Turn,
    has_connection,
)
from k3swatch.evaluate.queues import handed
from k3swatch.model.expr import (
    Bitwise,
    Byteorder,
    Cmp,
    Ct,
    Exthdr,
    Fib,
    Hash,
    Immediate,
    Meta,
    Numgen,
    Payload,
    Range,
    Rt,
    Socket,
)
from k3swatch.model.words import Family, Vantage

IFNAMSIZ = 16


def immediate(context: Context, expr: Immediate, path: Path) -> list[Path]:
    """nft_immediate_eval."""
    if expr.dreg == 0 and expr.verdict is not None:
        return handed(context, path, expr.verdict)
    path.write(expr.dreg, expr.data)
    return [path]


def payload(context: Context, expr: Payload, path: Path) -> list[Path]:
    """nft_payload_eval: breaks when the packet has no such header."""
    cells = load_payload(context.scene, path.packet, expr.base, expr.offset, expr.length)
    if cells is None:
        return [ended(path)]
    path.write(expr.dreg, cells)
    return [path]


def cmp(context: Context, expr: Cmp, path: Path) -> list[Path]:
    """nft_cmp_eval: memcmp, so an order is that of big-endian bytes."""
    cells, data = path.read(expr.sreg, len(expr.data)), expr.data
    if expr.op in (0, 1):
        return split(path, equal(cells, data, path.cube), expr.op == 0)
    zero = bytes(len(data))
    if expr.op in (2, 5):  # lt, gte: below or not
        if data == zero:
            return split(path, None, expr.op == 2)
        below = (int.from_bytes(data) - 1).to_bytes(len(data))
        return split(path, within(cells, zero, below, path.cube), expr.op == 2)
    if expr.op in (3, 4):  # lte, gt
        return split(path, within(cells, zero, data, path.cube), expr.op == 3)
    return maybe(path, f"{describe(cells)} cmp op {expr.op}", Kind.OPAQUE)


def range_(context: Context, expr: Range, path: Path) -> list[Path]:
    """nft_range_eval."""
    cells = path.read(expr.sreg, len(expr.low))
    return split(path, within(cells, expr.low, expr.high, path.cube), expr.op == 0)


def bitwise(context: Context, expr: Bitwise, path: Path) -> list[Path]:
    """nft_bitwise_eval."""
    cells = path.read(expr.sreg, expr.length)
    result: Cells
    if expr.op == 0:
        mask = expr.mask.ljust(expr.length, b"\0")
        flip = expr.xor.ljust(expr.length, b"\0")
        result = tuple(masked(c, m, x) for c, m, x in zip(cells, mask, flip, strict=False))
    else:
        value = known(cells)
        right = expr.data if expr.sreg2 is None else known(path.read(expr.sreg2, expr.length))
        result = _computed(expr, cells, value, right)
    path.write(expr.dreg, result)
    return [path]


def _computed(expr: Bitwise, cells: Cells, value: bytes | None, right: bytes | None) -> Cells:
    words = f"{describe(cells)} {({1: '<<', 2: '>>', 3: '&', 4: '|', 5: '^'}).get(expr.op, '?')}"
    if right is None:
        return blank(f"{words} ...", doubt(cells), expr.length)
    words += f" 0x{right.hex()}"
    if expr.op in (1, 2):
        if value is None or expr.length > 4:
            return blank(words, doubt(cells), expr.length)
        number, shift = int.from_bytes(value, "little"), int.from_bytes(right[:4], "little")
        number = number << shift if expr.op == 1 else number >> shift
        return tuple((number & (2 ** (8 * expr.length) - 1)).to_bytes(expr.length, "little"))
    right = right.ljust(expr.length, b"\0")
    pairs = zip(cells, right, strict=False)
    if expr.op == 3:
        return tuple(masked(c, r, 0) for c, r in pairs)
    if expr.op == 4:
        return tuple(masked(c, 0xFF & ~r, r) for c, r in pairs)
    if expr.op == 5:
        return tuple(masked(c, 0xFF, r) for c, r in pairs)
    return blank(words, Kind.OPAQUE, expr.length)


def byteorder(context: Context, expr: Byteorder, path: Path) -> list[Path]:
    """nft_byteorder_eval on a little-endian machine: both directions reverse every unit."""
    cells = path.read(expr.sreg, expr.length)
    result: list[Byte] = []
    for start in range(0, expr.length, expr.size):
        result.extend(reversed(cells[start : start + expr.size]))
    path.write(expr.dreg, result)
    return [path]


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


NFPROTO_ARP = 3
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
    if not packet.connected:
        return NEW if scene.from_client else INVALID
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


def fib(context: Context, expr: Fib, path: Path) -> list[Path]:
    """nft_fib*_eval."""
    if context.scene.protocol is Discovery.ARP:
        return [ended(path)]
    if expr.flags & 32:  # NFTA_FIB_F_PRESENT: only whether there is a route
        path.write(expr.dreg, table(_route(context, expr), {0: b"\0", 1: b"\1"}, 1))
        return [path]
    path.write(expr.dreg, load_fib(context.scene, path.packet, expr.result, expr.flags))
    return [path]


def _route(context: Context, expr: Fib) -> Var:
    words = ("reverse path exists" if expr.flags & 1 else "route exists") + context.scene.side
    return Var(f"fib {expr.flags}{context.scene.side}", ((0, 1),), Kind.ENVIRONMENT, words)


def numgen(context: Context, expr: Numgen, path: Path) -> list[Path]:
    """nft_ng_random_eval, nft_ng_inc_eval: any of `modulus` values."""
    base = ((expr.offset, expr.offset + max(expr.modulus, 1) - 1),)
    how = "random" if expr.type else "in turn"
    path.write(expr.dreg, little(Var(f"numgen {context.rule_id}", base, Kind.CHANCE, how), 4))
    return [path]


def hash_(context: Context, expr: Hash, path: Path) -> list[Path]:
    """nft_jhash_eval, nft_symhash_eval: any of `modulus` values, by source."""
    base = ((expr.offset, expr.offset + max(expr.modulus, 1) - 1),)
    path.write(expr.dreg, little(Var(f"hash {context.rule_id}", base, Kind.CHANCE, "by hash"), 4))
    return [path]


def socket(context: Context, expr: Socket, path: Path) -> list[Path]:
    """nft_socket_eval: breaks when no socket takes the packet."""
    names = {0: "transparent", 1: "mark", 2: "wildcard", 3: "cgroupv2"}
    turn = context.scene.turn.value
    path.write(expr.dreg, environment(f"socket {names.get(expr.key, expr.key)} {expr.level}{turn}", 8))
    return maybe(path, f"a socket takes it{turn}")


def rt(context: Context, expr: Rt, path: Path) -> list[Path]:
    """nft_rt_get_eval."""
    path.write(expr.dreg, environment(f"rt key {expr.key}{context.scene.side}", 16))
    return [path]


def exthdr(context: Context, expr: Exthdr, path: Path) -> list[Path]:
    """nft_exthdr_*_eval: an option that may be there or not."""
    if expr.dreg is None:
        return [path]  # writes or strips an option: no decision
    words = f"option {expr.type} @{expr.offset} op {expr.op} flags {expr.flags}{context.scene.turn.value}"
    path.write(expr.dreg, environment(words, max(expr.length, 1)))
    return [path]
