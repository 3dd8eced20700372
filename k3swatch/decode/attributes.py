"""Netlink attributes: one bounds-checked way to walk them, one error whose message reads as a path.

Follows `include/net/netlink.h` (nla_ok, nla_next, NLATYPE_MASK). Lengths and types are in host byte order,
the integers of nf_tables in network order. A stray byte, a length that does not fit, a missing attribute:
DecodeError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from k3swatch.errors import DecodeError

HEADER = struct.Struct("=HH")
TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


def walk(data: bytes, where: str, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type and payload of every attribute of `data` from `start`; `where` begins the message of an error."""
    end = len(data)
    while start < end:
        if end - start < 4:
            raise DecodeError(f"{where}: {end - start} stray bytes after the last attribute")
        length, kind = HEADER.unpack_from(data, start)
        if length < 4 or start + length > end:
            raise DecodeError(f"{where}: attribute {kind & TYPE_MASK}: length {length}, have {end - start}")
        yield kind & TYPE_MASK, data[start + 4 : start + length]
        start += length + 3 & ~3


def attributes(data: bytes, where: str, start: int = 0) -> list[tuple[int, bytes]]:
    """All of `walk` at once: half as dear, for what there are thousands of."""
    found: list[tuple[int, bytes]] = []
    end, header = len(data), HEADER.unpack_from
    while start + 4 <= end:
        length, kind = header(data, start)
        if length < 4 or start + length > end:
            break
        found.append((kind & TYPE_MASK, data[start + 4 : start + length]))
        start += length + 3 & ~3
    if start < end:
        found.extend(walk(data, where, start))  # says what is wrong
    return found


def text(value: bytes, where: str) -> str:
    """A kernel name (table, chain, set, ...): up to the first NUL, as the kernel reads it.

    Names are what we ask the kernel for, so one that is not UTF-8 is an error, never a look-alike.
    """
    try:
        return value.partition(b"\0")[0].decode()
    except UnicodeDecodeError:
        raise DecodeError(f"{where}: name {value[:32]!r} is not UTF-8") from None


def display(value: bytes) -> str:
    """Text that is only shown (comments, log prefixes): never fails, what is not UTF-8 becomes `\\xNN`."""
    return value.partition(b"\0")[0].decode(errors="backslashreplace")


class Attributes:
    """One level of attributes by type; the last of a type counts, as in nla_parse.

    With `known`, a type above it is an error: a kernel that sends an attribute we have never heard of means
    something by it. Getters raise DecodeError for a missing attribute or a wrong length.
    """

    __slots__ = ("_values", "where")

    def __init__(self, data: bytes, where: str, known: int | None = None) -> None:
        self.where = where
        self._values = dict(attributes(data, where))
        if known is not None and self._values and max(self._values) > known:
            raise DecodeError(f"{where}: attribute {max(self._values)} is not known")

    def __contains__(self, kind: int) -> bool:
        return kind in self._values

    def raw(self, kind: int) -> bytes:
        """The payload as it is."""
        try:
            return self._values[kind]
        except KeyError:
            raise DecodeError(f"{self.where}: attribute {kind} is missing") from None

    def raw_or_empty(self, kind: int) -> bytes:
        """The payload as it is; nothing where there is none."""
        return self._values.get(kind, b"")

    def _integer(self, kind: int, size: int, default: int | None) -> int:
        value = self._values.get(kind)
        if value is None and default is not None:
            return default
        value = self.raw(kind)
        if len(value) != size:
            raise DecodeError(f"{self.where}: attribute {kind}: {len(value)} bytes, want {size}")
        return int.from_bytes(value, "big")

    def u8(self, kind: int, default: int | None = None) -> int:
        """One byte; `default`, when given, stands for a missing attribute (as in all integers below)."""
        return self._integer(kind, 1, default)

    def be16(self, kind: int, default: int | None = None) -> int:
        """A 16-bit integer in network order."""
        return self._integer(kind, 2, default)

    def be32(self, kind: int, default: int | None = None) -> int:
        """A 32-bit integer in network order."""
        return self._integer(kind, 4, default)

    def be64(self, kind: int, default: int | None = None) -> int:
        """A 64-bit integer in network order."""
        return self._integer(kind, 8, default)

    def text(self, kind: int) -> str:
        """A name; see `text`."""
        return text(self.raw(kind), f"{self.where}: attribute {kind}")

    def nested(self, kind: int, where: str, known: int | None = None) -> Attributes:
        """The attributes inside an attribute."""
        return Attributes(self.raw(kind), f"{self.where}: {where}", known)
