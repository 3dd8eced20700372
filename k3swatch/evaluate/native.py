"""The meaning of nf_tables' own matches: loads, comparisons, arithmetic. One function an expression.

`meta` is in `metadata`, `ct` in `conntrack`, statements that decide (nat, reject, tproxy, ...) in `statements` and
`mapping`, set lookups in `lookups`, xtables' in `xtables`; `handlers` has the whole list.
"""

from __future__ import annotations

from k3swatch.evaluate.cells import (
    Byte,
    Cells,
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
from k3swatch.evaluate.fib import load_fib
from k3swatch.evaluate.header import environment, load_payload
from k3swatch.evaluate.machine import Context, Path, ended, maybe, split
from k3swatch.evaluate.packet import Discovery, Packet, Scene, Turn, is_local
from k3swatch.evaluate.queues import handed
from k3swatch.model.expr import (
    Bitwise,
    Byteorder,
    Cmp,
    Exthdr,
    Fib,
    Hash,
    Immediate,
    Numgen,
    Payload,
    Range,
    Rt,
    Socket,
)
from k3swatch.model.port import ListeningSocket


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
    scene, turn = context.scene, context.scene.turn.value
    path.write(expr.dreg, environment(f"socket {names.get(expr.key, expr.key)} {expr.level}{turn}", 8))
    found = listeners_of(scene, path.packet)
    transparent = {each.transparent for each in found}
    if expr.key == 0 and len(transparent) == 1 and None not in transparent:
        path.write(expr.dreg, (int(True in transparent),))
    return [path] if found else maybe(path, f"a socket takes it{turn}")


def listeners_of(scene: Scene, packet: Packet) -> list[ListeningSocket]:
    """Whose connection it is: of a later packet that is for this host the socket is found for sure
    (nf_sk_lookup_slow_v4); the first one's is not, where it listens on any address. Empty: not to be known.
    """
    if scene.turn is not Turn.NEXT or not is_local(scene.host, packet.daddr):
        return []
    return [
        each
        for each in scene.host.sockets or ()
        if (each.port, each.protocol) == (packet.dport, scene.protocol)
    ]


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
