"""iptables-legacy tables, read whole through getsockopt. Only those that exist: asking for another creates
it.

Follows `uapi/linux/netfilter_ipv4/ip_tables.h` and its IPv6 twin. There is no event when they change and no
generation, but one table is always read as it was at one moment. All of it is about the network namespace
of the calling thread.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from pathlib import Path
from typing import Final, NamedTuple

from k3swatch.errors import Interrupted, NotPermitted, SourceError
from k3swatch.sources.netlink import failure

_NAMES: Final = {"ip": "ip_tables_names", "ip6": "ip6_tables_names"}
_SOCKETS: Final = {"ip": (socket.AF_INET, socket.IPPROTO_IP), "ip6": (socket.AF_INET6, socket.IPPROTO_IPV6)}
_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_* and IP6T_SO_* alike
_INFO = struct.Struct("=32s52x")  # struct ipt_getinfo; the size of the entries is its last word
_ENTRIES = struct.Struct("=32sI4x")  # struct ipt_get_entries, before the entries
_LARGEST = 64 << 20
_TRIES = 5

_libc = ctypes.CDLL(None, use_errno=True)  # socket.getsockopt cannot pass anything in


class LegacyBlob(NamedTuple):
    """One table: struct ipt_getinfo (hooks, offsets of their chains) and the entries, family `ip` or `ip6`."""

    family: str
    table: str
    info: bytes
    entries: bytes


def legacy_table_names() -> tuple[tuple[str, str], ...]:
    """Family and name of the tables that exist; empty where iptables-legacy was never used."""
    found: list[tuple[str, str]] = []
    for family, name in _NAMES.items():
        path = Path("/proc/thread-self/net", name)
        try:
            names = path.read_text(encoding="ascii", errors="backslashreplace")
        except FileNotFoundError:
            continue  # no ip_tables in this kernel
        except PermissionError as error:
            raise NotPermitted(
                f"{path}: {error.strerror}",
                hint="the group root may read it, and who has CAP_DAC_READ_SEARCH",
            ) from error
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error
        found += [(family, table) for table in names.split()]
    return tuple(found)


def _getsockopt(family: str, option: int, buffer: ctypes.Array[ctypes.c_char], what: str) -> None:
    domain, level = _SOCKETS[family]
    try:
        with socket.socket(domain, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            length = ctypes.c_uint32(len(buffer))
            failed = _libc.getsockopt(sock.fileno(), level, option, buffer, ctypes.byref(length))
            number = ctypes.get_errno()
    except OSError as error:
        raise failure(what, error.errno or 0) from error
    if failed:
        raise Interrupted(f"{what}: it changed") if number == errno.EAGAIN else failure(what, number)


def read_legacy_info(family: str, table: str) -> bytes:
    """Struct ipt_getinfo of a table that exists: 27 microseconds, and any change in size shows."""
    info = ctypes.create_string_buffer(_INFO.pack(table.encode()), _INFO.size)
    _getsockopt(family, _GET_INFO, info, f"iptables-legacy {family} {table}")
    return info.raw


def read_legacy_table(family: str, table: str) -> LegacyBlob:
    """A table that exists, whole. NotPermitted, Interrupted when it never holds still, SourceError."""
    what = f"iptables-legacy {family} {table}"
    for attempt in range(_TRIES):
        info = read_legacy_info(family, table)
        (size,) = struct.unpack_from("=I", info, _INFO.size - 4)
        if size > _LARGEST:
            raise SourceError(f"{what}: {size >> 20} MB, at most {_LARGEST >> 20}")
        buffer = ctypes.create_string_buffer(_ENTRIES.pack(table.encode(), size), _ENTRIES.size + size)
        try:
            _getsockopt(family, _GET_ENTRIES, buffer, what)
        except Interrupted:
            if attempt == _TRIES - 1:
                raise
        else:
            return LegacyBlob(family, table, info, bytes(memoryview(buffer)[_ENTRIES.size :]))
    raise AssertionError("the last attempt returns or raises")
