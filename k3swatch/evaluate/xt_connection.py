"""xtables' matches about a connection and its mark (xt_conntrack.c, xt_state.c, xt_connmark.c, xt_mark.c)."""

from __future__ import annotations

from k3swatch.evaluate.cells import big, blank, equal, masked
from k3swatch.evaluate.conntrack import UNTRACKED, state, status_bits
from k3swatch.evaluate.cube import YES, Kind, flag
from k3swatch.evaluate.header import source_address
from k3swatch.evaluate.machine import Context, Path
from k3swatch.evaluate.packet import has_connection
from k3swatch.evaluate.ranges import contains
from k3swatch.evaluate.xt_ports import ALWAYS, NEVER, Test, port_ranges, port_test
from k3swatch.model import xt


def mark(context: Context, spec: xt.Mark, path: Path) -> list[Test]:
    """mark_mt, connmark_mt."""
    if spec.conntrack and not has_connection(context.scene, path.packet):
        return [NEVER]
    mark = path.packet.ctmark if spec.conntrack else path.packet.mark
    mask = spec.mask.to_bytes(4, "little")
    cells = tuple(masked(cell, m, 0) for cell, m in zip(mark, mask, strict=True))
    return [(equal(cells, spec.value.to_bytes(4, "little"), path.cube), not spec.invert)]


def _state_bits(context: Context, path: Path) -> int:
    """XT_CONNTRACK_STATE_*: its own, and what NAT has done by now."""
    packet = path.packet
    bits = state(context.scene, packet)
    if not has_connection(context.scene, packet):
        return 256 if bits == UNTRACKED else bits
    return bits | (64 if packet.snatted else 0) | (128 if packet.dialled else 0)


def state_match(context: Context, spec: xt.State, path: Path) -> list[Test]:
    """state_mt."""
    return [ALWAYS if bool(spec.mask & _state_bits(context, path)) != spec.invert else NEVER]


_STATE, _PROTO, _ORIGSRC, _ORIGDST, _REPLSRC, _REPLDST, _STATUS, _EXPIRES = (1 << i for i in range(8))
_ORIGSRC_PORT, _ORIGDST_PORT, _REPLSRC_PORT, _REPLDST_PORT, _DIRECTION = (1 << i for i in range(8, 13))


def conntrack(context: Context, spec: xt.Conntrack, path: Path) -> list[Test]:
    """conntrack_mt."""
    scene, packet = context.scene, path.packet
    tests: list[Test] = []
    bits = _state_bits(context, path)
    if spec.match & _STATE:
        hit = bool(spec.state_mask & bits)
        tests.append(ALWAYS if hit != bool(spec.invert & _STATE) else NEVER)
    if spec.match & ~_STATE == 0:
        return tests
    if not has_connection(scene, packet):
        return [*tests, NEVER]
    if spec.match & _PROTO:
        hit = spec.protocol == scene.protocol.number
        tests.append(ALWAYS if hit != bool(spec.invert & _PROTO) else NEVER)
    length = scene.family.length
    source = source_address(scene, packet) if scene.from_client else big(scene.saddr, length)
    before = blank("ct original saddr", Kind.ENVIRONMENT, length) if packet.snatted else source
    daddr, dport = packet.dialled or (packet.daddr, packet.dport)
    pairs = (
        (_ORIGSRC, spec.origsrc, before),
        (_ORIGDST, spec.origdst, tuple(daddr)),
        (_REPLSRC, spec.replsrc, tuple(packet.daddr)),
        (_REPLDST, spec.repldst, source),
    )
    for bit, (address, mask), cells in pairs:
        if spec.match & bit:
            shown = tuple(masked(cell, m, 0) for cell, m in zip(cells, mask[:length], strict=True))
            wanted = bytes(a & m for a, m in zip(address[:length], mask[:length], strict=True))
            tests.append((equal(shown, wanted, path.cube), not spec.invert & bit))
    if spec.match & _STATUS:
        # EXPECTED, SEEN_REPLY, ASSURED, CONFIRMED; NONE is no bit, and matches nothing
        hit = bool(spec.status_mask & status_bits(scene))
        tests.append(ALWAYS if hit != bool(spec.invert & _STATUS) else NEVER)
    for bit, ports, port in (
        (_ORIGSRC_PORT, spec.origsrc_port, None),
        (_ORIGDST_PORT, spec.origdst_port, dport),
        (_REPLSRC_PORT, spec.replsrc_port, packet.dport),
        (_REPLDST_PORT, spec.repldst_port, None),
    ):
        if spec.match & bit:
            ranges, invert = port_ranges((ports,)), bool(spec.invert & bit)
            if port is None:
                tests.append(port_test(context, big(scene.sport, 2), ranges, invert))
            else:
                tests.append(ALWAYS if contains(ranges, port) != invert else NEVER)
    if spec.match & _DIRECTION:
        tests.append(ALWAYS if scene.from_client != bool(spec.invert & _DIRECTION) else NEVER)
    if spec.match & _EXPIRES:
        words = f"ct expires{scene.turn.value}"
        tests.append(([(flag(words, Kind.ENVIRONMENT), YES)], not spec.invert & _EXPIRES))
    return tests
