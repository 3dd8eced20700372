"""Source NAT: what it does to a packet, and whom it leaves as he is.

Follows nf_nat_setup_info (net/netfilter/nf_nat_core.c), nf_nat_masquerade.c, inet_select_addr (net/ipv4/devinet.c) and
ipv6_dev_get_saddr (net/ipv6/addrconf.c).
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from k3swatch.evaluate.cells import Byte, Cells, big, known
from k3swatch.evaluate.cube import Box, Kind, Var
from k3swatch.evaluate.header import SADDR, environment
from k3swatch.evaluate.machine import Context, Path, ended, maybe
from k3swatch.evaluate.packet import Packet, Scene, is_local
from k3swatch.evaluate.ranges import Ranges, normal, size
from k3swatch.model.expr import Code, Verdict
from k3swatch.model.port import family_of
from k3swatch.model.words import Family, Vantage

Ports = tuple[int, int] | str | None  # None: kept; a string: not to be known
# NF_NAT_RANGE_*, uapi/linux/netfilter/nf_nat.h
PROTO_RANDOM, PROTO_RANDOM_FULLY = 4, 16


def source_nat(
    context: Context, path: Path, address: Cells | None, ports: Ports, flags: int = 0
) -> list[Path]:
    """From `address` (None: not to be known) and port from here on; the verdict is accept. Who comes from there already
    stays as he is (IPS_SRC_NAT is not set), and no other chain is asked about him either; with a port at random nobody
    does. `flags`: NF_NAT_RANGE_*.
    """
    scene = context.scene
    at_random = flags & (PROTO_RANDOM | PROTO_RANDOM_FULLY)
    ports = "at random" if at_random else ports
    same = known(address) if address is not None and not isinstance(ports, str) else None
    ways = [path]
    if same is not None and not path.packet.patch:
        own = int.from_bytes(same)
        box: Box = [
            (scene.saddr, ((own, own),)),
            *([(scene.sport, (ports,))] if isinstance(ports, tuple) else []),
        ]
        inside, outside = path.cube.split(box)
        ways = [path.fork(cube) for cube in outside]
        if inside is not None:
            way = path.fork(inside)
            way.packet = replace(way.packet, sourced=True)
            ways.append(ended(way, Verdict(Code.ACCEPT)))
    written = _source(scene, address)
    if ports is not None:
        written |= {(2, n): cell for n, cell in enumerate(_port(ports))}
    renamed = tuple((*place, byte) for place, byte in sorted(written.items(), key=lambda item: item[0]))
    alias = (known(address) if address is not None else None) or b""
    for way in ways:
        if not way.packet.sourced:
            now = way.packet.overwritten(written)
            way.packet = replace(now, snatted=True, sourced=True, alias=alias, renamed=renamed)
            ended(way, Verdict(Code.ACCEPT))
    return ways


def _port(ports: tuple[int, int] | str) -> Cells:
    """The port it comes from then: one of the range."""
    if isinstance(ports, tuple) and ports[0] == ports[1]:
        return tuple(ports[0].to_bytes(2))
    words = "sport after source NAT"
    base: Ranges = ((0, 65535),) if isinstance(ports, str) else (ports,)
    return big(Var(f"{words} {base}", base, Kind.ENVIRONMENT, words), 2)


def _source(scene: Scene, address: Cells | None = None) -> dict[tuple[int, int], Byte]:
    """The source address as source NAT leaves it, in the bytes of the header; None: not to be known."""
    cells = address or environment(f"{scene.family} saddr after source NAT", scene.family.length)
    return {(1, SADDR[scene.family] + n): cell for n, cell in enumerate(cells)}


def masquerade(context: Context, path: Path, ports: Ports, flags: int = 0) -> list[Path]:
    """From an address of the interface that it leaves by. Processes of this host may have that already."""
    scene, packet = context.scene, path.packet
    if scene.vantage is Vantage.EXTERNAL:
        return source_nat(context, path, None, ports, flags)
    candidates = _candidates(scene)
    address = _loopback(scene, packet) or _only(scene, candidates)
    if address is not None or not candidates:
        return source_nat(context, path, tuple(address) if address else None, ports, flags)
    words = f"{scene.family} saddr after masquerading"
    chosen = big(Var(words, candidates, Kind.ENVIRONMENT, words), scene.family.length)
    if ports is not None or flags & (PROTO_RANDOM | PROTO_RANDOM_FULLY):
        return source_nat(context, path, chosen, ports, flags)
    inside, outside = path.cube.split([(scene.saddr, candidates)])
    ways = [way for cube in outside for way in source_nat(context, path.fork(cube), chosen, None)]
    for way in (
        maybe(path.fork(inside), "masquerading leaves its source as it is") if inside is not None else ()
    ):
        if way.verdict is None:
            way.packet = replace(way.packet, sourced=True)
            ways.append(ended(way, Verdict(Code.ACCEPT)))
        else:
            way.verdict = None
            ways += source_nat(context, way, chosen, None)
    return ways


def _only(scene: Scene, candidates: Ranges) -> bytes | None:
    """The one there is to choose."""
    return candidates[0][0].to_bytes(scene.family.length) if size(candidates) == 1 else None


def _loopback(scene: Scene, packet: Packet) -> bytes | None:
    """What IPv6 takes for packets to this host itself: the address that they go to (RFC 6724, section 5, rule 1)."""
    local = scene.family is Family.IP6 and is_local(scene.host, packet.daddr)
    return packet.daddr if local and not ipaddress.ip_address(packet.daddr).is_link_local else None


def _candidates(scene: Scene) -> Ranges:
    """Addresses that it may choose: which of an interface's is not told apart, and loopback borrows others'."""
    index = scene.oif.base[0][0] if scene.oif is not None else 0
    loopback = index in scene.host.loopbacks
    return normal(
        [
            (int(entry.address), int(entry.address))
            for entry in scene.host.addresses
            if family_of(entry.address) is scene.family and (loopback or entry.interface == index)
        ]
    )
