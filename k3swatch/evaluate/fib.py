"""What the kernel's tables say of a packet's addresses and interfaces: their types, names, groups.

Follows nft_fib4_eval, nft_fib6_eval, inet_addr_type and nft_meta_get_eval. Only address types are known.
"""

from __future__ import annotations

from k3swatch.evaluate.cells import Cells, blank, known, table
from k3swatch.evaluate.cube import Kind, Var
from k3swatch.evaluate.header import destination_address, environment, source_address
from k3swatch.evaluate.packet import Discovery, Packet, Scene, Turn, is_local, owner_of
from k3swatch.model.words import Vantage

RTN_UNICAST, RTN_LOCAL, RTN_MULTICAST = 1, 2, 5  # enum rtn_type, uapi/linux/rtnetlink.h
_MULTICAST = 0xFF  # how such an address of IPv6 begins
OIFNAME = 2  # enum nft_fib_result


def source_type(scene: Scene, packet: Packet) -> int | None:
    """RTN_* of the address it comes from; None when that is not to be known."""
    return _type(scene, packet, source_address(scene, packet), not scene.from_client)


def destination_type(scene: Scene, packet: Packet) -> int | None:
    """RTN_* of the address it goes to; None when that is not to be known."""
    return _type(scene, packet, destination_address(scene, packet), scene.from_client)


def _type(scene: Scene, packet: Packet, address: Cells, server: bool) -> int | None:
    value = known(address)
    if value is not None and value[0] == _MULTICAST and isinstance(scene.protocol, Discovery):
        return None if scene.turn is not Turn.FIRST else RTN_MULTICAST
    if value is not None:
        return RTN_LOCAL if is_local(scene.host, value) else RTN_UNICAST
    if server or packet.patch or (packet.snatted and not scene.from_client):
        return None
    return RTN_LOCAL if scene.vantage is Vantage.LOCAL else RTN_UNICAST


def interface_cells(scene: Scene, of: Var | None, what: str, length: int) -> Cells:
    """Bytes about the interface `of` (the scene's input or output) that depend on which one it is."""
    if of is None:
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
        return blank(f"{of.name} {what}", Kind.FIELD, length)
    return table(of, rows, length)


def load_fib(scene: Scene, packet: Packet, result: int, flags: int) -> Cells:
    """`fib`: only the address type is known; routes are not read here."""
    address_type, saddr, iif, oif = 3, 1, 8, 16
    words = _words(result, flags) + scene.side
    if result != address_type:
        return environment(words, 16 if result == OIFNAME else 4)
    if flags & saddr and flags & (iif | oif):
        return environment(words, 4)
    kind = source_type(scene, packet) if flags & saddr else destination_type(scene, packet)
    if kind is None or (flags & (iif | oif) and not scene.from_client):
        return environment(words, 4)
    local_interface = flags & iif and scene.iif is not None and scene.host.interfaces
    if flags & saddr or kind != RTN_LOCAL or not flags & (iif | oif):
        return tuple(kind.to_bytes(4, "little"))
    if local_interface and scene.iif is not None:
        owner = owner_of(scene.host, packet.daddr)
        rows = {
            interface.index: (RTN_LOCAL if interface.index == owner else RTN_UNICAST).to_bytes(4, "little")
            for interface in scene.host.interfaces
        }
        return table(scene.iif, rows, 4)
    elsewhere = owner_of(scene.host, packet.daddr) != scene.loopback[0]
    if flags & oif and scene.vantage is Vantage.LOCAL and elsewhere:
        return tuple(RTN_UNICAST.to_bytes(4, "little"))
    return tuple(RTN_LOCAL.to_bytes(4, "little"))


def _words(result: int, flags: int) -> str:
    names = {1: "saddr", 2: "daddr", 4: "mark", 8: "iif", 16: "oif"}
    key = " . ".join(name for bit, name in names.items() if flags & bit)
    return f"fib {key} {({1: 'oif', 2: 'oifname', 3: 'type'}).get(result, result)}"
