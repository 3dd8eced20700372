"""What a match of xtables answers with, and those about ports and TCP's flags (xt_tcpudp.c, xt_multiport.c)."""

from __future__ import annotations

from k3swatch.evaluate.cells import Cells, big, equal, known, masked, undecided
from k3swatch.evaluate.cube import YES, Box, Kind, flag
from k3swatch.evaluate.header import destination_port, source_port, tcp_flags
from k3swatch.evaluate.machine import Context, Path
from k3swatch.evaluate.ranges import Ranges, contains, normal
from k3swatch.model import xt

Test = tuple[Box | None, bool]  # None: cannot hold; the flag: whether it must hold
ALWAYS: Test = ([], True)
NEVER: Test = (None, True)


def port_ranges(ranges: tuple[tuple[int, int], ...]) -> Ranges:
    """Ports as ranges, empty ones left out."""
    return normal([(low, high) for low, high in ranges if low <= high])


def _destination_port(context: Context, path: Path, ranges: Ranges, invert: bool) -> Test:
    return port_test(context, destination_port(context.scene, path.packet), ranges, invert)


def _source_port(context: Context, path: Path, ranges: Ranges, invert: bool) -> Test:
    return port_test(context, source_port(context.scene, path.packet), ranges, invert)


def port_test(context: Context, cells: Cells, ranges: Ranges, invert: bool) -> Test:
    """Whether a port of the packet, as it is by now, is in the ranges."""
    if cells == big(context.scene.sport, 2):
        return [(context.scene.sport, ranges)], not invert
    value = known(cells)
    if value is None:
        return undecided(cells, f"in {ranges}"), not invert
    return ALWAYS if contains(ranges, int.from_bytes(value)) != invert else NEVER


def ports(context: Context, spec: xt.Ports, path: Path) -> list[Test]:
    """tcp_mt, udp_mt."""
    if spec.protocol != context.scene.protocol.number:
        return [NEVER]
    tests = [
        _source_port(context, path, port_ranges((spec.source,)), spec.invert_source),
        _destination_port(context, path, port_ranges((spec.destination,)), spec.invert_destination),
    ]
    if spec.flags_mask or spec.invert_flags:
        shown = masked(tcp_flags(context.scene), spec.flags_mask & 0xFF, 0)
        tests.append((equal((shown,), bytes([spec.flags_compare & 0xFF]), path.cube), not spec.invert_flags))
    if spec.option:
        words = f"tcp option {spec.option}{context.scene.turn.value}"
        tests.append(([(flag(words, Kind.ENVIRONMENT), YES)], not spec.invert_option))
    return tests


def multiport(context: Context, spec: xt.Multiport, path: Path) -> list[Test]:
    """multiport_mt."""
    ranges = port_ranges(spec.ranges)
    if spec.which == 0:
        return [_source_port(context, path, ranges, spec.invert)]
    if spec.which == 1:
        return [_destination_port(context, path, ranges, spec.invert)]
    # either: the server's end is known, and decides where it is one of them
    server, client = _destination_port, _source_port
    if not context.scene.from_client:
        server, client = client, server
    hit = server(context, path, ranges, False)
    return [client(context, path, ranges, spec.invert)] if hit[0] is None else [(hit[0], not spec.invert)]
