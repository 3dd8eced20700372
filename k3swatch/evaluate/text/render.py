"""Constants as nft prints them: one function per datatype, bytes of a register in, text out. Never raises."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from k3swatch.evaluate.text import symbols

Render = Callable[[bytes], str]

HOST: Final = "little"  # as all of evaluate: K3s runs on no other


def hexadecimal(data: bytes) -> str:
    """`0x1f90`, whatever the length."""
    return "0x" + data.hex() if data else "0x0"


def network(data: bytes) -> str:
    """An integer in network order, decimal: ports, lengths."""
    return str(int.from_bytes(data, "big"))


def host(data: bytes) -> str:
    """An integer in host order, decimal."""
    return str(int.from_bytes(data, HOST))


def mark(data: bytes) -> str:
    """A mark: host order, eight hexadecimal digits."""
    return f"0x{int.from_bytes(data, HOST):08x}"


def tc_handle(data: bytes) -> str:
    """A traffic class `1:20`."""
    number = int.from_bytes(data, HOST)
    return {0: "none", 0xFFFFFFFF: "root"}.get(number, f"{number >> 16:x}:{number & 0xFFFF:x}")


def ipv4(data: bytes) -> str:
    """An IPv4 address; fewer bytes are its prefix, `10.42.0.0/24` (a load of three bytes)."""
    if len(data) > 4:
        return hexadecimal(data)
    text = str(IPv4Address(data.ljust(4, b"\0")))
    return text if len(data) == 4 else f"{text}/{8 * len(data)}"


def ipv6(data: bytes) -> str:
    """An IPv6 address; fewer bytes are its prefix."""
    if len(data) > 16:
        return hexadecimal(data)
    text = str(IPv6Address(data.ljust(16, b"\0")))
    return text if len(data) == 16 else f"{text}/{8 * len(data)}"


def address(data: bytes) -> str:
    """IPv4 or IPv6 by length."""
    return ipv4(data) if len(data) == 4 else ipv6(data) if len(data) == 16 else hexadecimal(data)


def ether(data: bytes) -> str:
    """`02:42:ac:11:00:02`."""
    return data.hex(":")


def interface(data: bytes) -> str:
    """A quoted interface name; without a NUL it is a prefix, `"eth*"`."""
    name, nul, _ = data.partition(b"\0")
    return f'"{name.decode(errors="backslashreplace")}{"" if nul else "*"}"'


def quoted(data: bytes) -> str:
    """A NUL-padded string."""
    return f'"{data.partition(bytes(1))[0].decode(errors="backslashreplace")}"'


def duration(data: bytes) -> str:
    """Milliseconds in host order, `1h30s`."""
    seconds = int.from_bytes(data, HOST) // 1000
    parts = []
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if seconds >= unit:
            parts.append(f"{seconds // unit}{name}")
            seconds %= unit
    return "".join(parts) or "0s"


def hour(data: bytes) -> str:
    """Seconds of the day in host order, `"08:00"`; UTC, as the kernel has it."""
    seconds = int.from_bytes(data, HOST)
    rest = f":{seconds % 60:02}" if seconds % 60 else ""
    return f'"{seconds // 3600:02}:{seconds // 60 % 60:02}{rest}"'


def presence(data: bytes) -> str:
    """Whether something was found."""
    return "exists" if any(data) else "missing"


def symbol(table: dict[int, str], order: str = "big", fallback: str = "d") -> Render:
    """A number that has a word; formatted by `fallback` when it has none."""

    def render(data: bytes) -> str:
        number = int.from_bytes(data, HOST if order == "host" else "big")
        return table.get(number) or format(number, fallback)

    return render


def flags(table: dict[int, str], order: str = "big") -> Render:
    """A set of bits, `established,related`."""

    def render(data: bytes) -> str:
        number = int.from_bytes(data, HOST if order == "host" else "big")
        return symbols.bits(number, table)

    return render


protocol: Final = symbol(symbols.PROTOCOLS)
nfproto: Final = symbol(symbols.NFPROTOS)
ethertype: Final = symbol(symbols.ETHERTYPES)
pkttype: Final = symbol(symbols.PKTTYPES)
ct_state: Final = flags(symbols.CT_STATES, "host")
ct_status: Final = flags(symbols.CT_STATUSES, "host")
tcp_flags: Final = flags(symbols.TCP_FLAGS)
addrtype: Final = symbol(dict(enumerate(symbols.ADDRTYPES)), "host")
direction: Final = symbol({0: "original", 1: "reply"})
dscp: Final = symbol(symbols.DSCPS, fallback="#04x")
device_type: Final = symbol(symbols.DEVICE_TYPES, "host")
day: Final = symbol(symbols.DAYS)


def swapped(render: Render, size: int) -> Render:
    """The same datatype after `byteorder` turned every unit of `size` bytes round."""

    def turn(data: bytes) -> str:
        return render(b"".join(data[at : at + size][::-1] for at in range(0, len(data), size)))

    return turn
