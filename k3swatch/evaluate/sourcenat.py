"""Source NAT: what it does to a packet, and whom it leaves as he is.

Follows nf_nat_setup_info (net/netfilter/nf_nat_core.c), nf_nat_masquerade.c, inet_select_addr (net/ipv4/devinet.c) and
ipv6_dev_get_saddr (net/ipv6/addrconf.c).
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from k3swatch.evaluate.cells import Byte, Cells, big, known
from k3swatch.evaluate.cube import Kind, Var
from k3swatch.evaluate.header import SADDR, environment
from k3swatch.evaluate.machine import Context, Path, ended, maybe
from k3swatch.evaluate.packet import Packet, Scene, is_local
from k3swatch.evaluate.ranges import Ranges, normal, size
from k3swatch.model.expr import Code, Verdict
from k3swatch.model.port import family_of
from k3swatch.model.words import Family, Vantage

Ports = tuple[int, int] | str | None  # None: kept; a string: not to be known


def source_nat(context: Context, path: Path, address: Cells | None, ports: Ports) -> list[Path]:
    """From `address` (None: not to be known) and port from here on; the verdict is accept. Who comes from there already
    stays as he is (IPS_SRC_NAT is not set), and no other chain is asked about him either.
    """
    same = known(address) if address is not None and ports is None and not path.packet.patch else None
    ways = [path]
    if same is not None:
        own = int.from_bytes(same)
        inside, outside = path.cube.split([(context.scene.saddr, ((own, own),))])
        ways = [path.fork(cube) for cube in outside]
        if inside is not None:
            way = path.fork(inside)
            way.packet = replace(way.packet, sourced=True)
            ways.append(ended(way, Verdict(Code.ACCEPT)))
    written = unknown_source(context.scene, address)
    if isinstance(ports, str) or (ports and ports[0] != ports[1]):
        written |= {(2, n): cell for n, cell in enumerate(environment("sport after source NAT", 2))}
    elif ports:
        written |= {(2, n): byte for n, byte in enumerate(ports[0].to_bytes(2))}
    alias = (known(address) if address is not None else None) or b""
    for way in ways:
        if not way.packet.sourced:
            written_to = way.packet.overwritten(written)
            way.packet = replace(written_to, snatted=True, sourced=True, alias=alias)
            ended(way, Verdict(Code.ACCEPT))
    return ways


def unknown_source(scene: Scene, address: Cells | None = None) -> dict[tuple[int, int], Byte]:
    """The source address as source NAT leaves it, in the bytes of the header; None: not to be known."""
    cells = address or environment(f"{scene.family} saddr after source NAT", scene.family.length)
    return {(1, SADDR[scene.family] + n): cell for n, cell in enumerate(cells)}


def masquerade(context: Context, path: Path, ports: Ports) -> list[Path]:
    """From an address of the interface that it leaves by. Processes of this host may have that already."""
    scene, packet = context.scene, path.packet
    if scene.vantage is Vantage.EXTERNAL or ports is not None:
        return source_nat(context, path, None, ports)
    candidates = _candidates(scene)
    address = _loopback(scene, packet) or _only(scene, candidates)
    if address is not None or not candidates:
        return source_nat(context, path, tuple(address) if address else None, None)
    words = f"{scene.family} saddr after masquerading"
    chosen = big(Var(words, candidates, Kind.ENVIRONMENT, words), scene.family.length)
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
