"""The meaning of what ebtables' rules are made of, in nf_tables' bridge family and in its own tables.

Follows ebt_ip.c, ebt_ip6.c, ebt_dnat.c, ebt_snat.c, ebt_redirect.c, ebt_mark.c of net/bridge/netfilter.
"""

from __future__ import annotations

from k3swatch.evaluate import frames
from k3swatch.evaluate.cells import equal, masked, within
from k3swatch.evaluate.cube import YES, Box, Kind, flag
from k3swatch.evaluate.discovery import MAC
from k3swatch.evaluate.header import destination_address, destination_port, source_address, source_port
from k3swatch.evaluate.machine import Context, Path, ended, with_mark
from k3swatch.model import xt
from k3swatch.model.expr import Code, Verdict

SOURCE, DESTINATION, PROTOCOL, SPORT, DPORT = 0x01, 0x02, 0x08, 0x10, 0x20  # EBT_IP_*, EBT_IP6_*


def ip(context: Context, spec: xt.EtherIp, path: Path) -> list[tuple[Box | None, bool]]:
    """ebt_ip_mt, ebt_ip6_mt: the rule has asked for the Ethernet type before (ebt_ip_mt_check)."""
    scene, packet = context.scene, path.packet
    if len(spec.source[0]) != scene.family.length:
        return [(None, True)]
    tests: list[tuple[Box | None, bool]] = []
    for (address, mask), cells, bit in (
        (spec.source, source_address(scene, packet), SOURCE),
        (spec.destination, destination_address(scene, packet), DESTINATION),
    ):
        if spec.asked & bit:
            shown = tuple(masked(cell, part, 0) for cell, part in zip(cells, mask, strict=True))
            tests.append((equal(shown, address, path.cube), not spec.inverted & bit))
    if spec.asked & PROTOCOL:
        hit = spec.protocol == scene.protocol.number
        tests.append(([] if hit else None, not spec.inverted & PROTOCOL))
    for (low, high), cells, bit in (
        (spec.sport, source_port(scene, packet), SPORT),
        (spec.dport, destination_port(scene, packet), DPORT),
    ):
        if spec.asked & bit:
            box = within(cells, low.to_bytes(2), high.to_bytes(2), path.cube) if low <= high else None
            tests.append((box, not spec.inverted & bit))
    if spec.rest:
        words = f"ebtables ip {spec.rest}{scene.turn.value}"
        tests.append(([(flag(words, Kind.ENVIRONMENT), YES)], True))
    return tests


def target(context: Context, spec: xt.EtherNat | xt.EtherMark, path: Path) -> list[Path]:
    """What it does, then its verdict."""
    if isinstance(spec, xt.EtherMark):
        keep, flip = (number.to_bytes(4, "little") for number in (~spec.clear & 0xFFFFFFFF, spec.flip))
        cells = tuple(masked(c, m, f) for c, m, f in zip(path.packet.mark, keep, flip, strict=True))
        ways = with_mark(path, cells)
    elif spec.target == "redirect":
        ways = [path]  # it is for the bridge already
    else:
        ways = frames.overwrite(context, 0 if spec.target == "dnat" else MAC, tuple(spec.mac), path)
    decided = spec.code != Code.CONTINUE
    return [ended(way, Verdict(spec.code)) if way.verdict is None and decided else way for way in ways]
