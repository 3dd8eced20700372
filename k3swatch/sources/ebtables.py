"""ebtables-legacy tables, read whole through getsockopt. Only those in use: to ask for another would make it.

Follows `uapi/linux/netfilter_bridge/ebtables.h` and copy_everything_to_user (net/bridge/netfilter/ebtables.c).
"""

from __future__ import annotations

import ctypes as ct
import errno
import socket
from typing import Final

from k3swatch.errors import SourceError
from k3swatch.sources.netlink import failure

_GET_INFO, _GET_ENTRIES = 128, 129  # EBT_SO_*
_LARGEST: Final = 64 << 20
_TRIES, _LONGEST = 5, 1 << 20
MODULES: Final = "/proc/modules"
TABLES: Final = ("broute", "filter", "nat")


class _Replace(ct.Structure):
    """struct ebt_replace"""

    _fields_ = (
        ("name", ct.c_char * 32),
        ("valid_hooks", ct.c_uint),
        ("nentries", ct.c_uint),
        ("entries_size", ct.c_uint),
        ("hook_entry", ct.c_void_p * 6),
        ("num_counters", ct.c_uint),
        ("counters", ct.c_void_p),
        ("entries", ct.c_void_p),
    )


_libc = ct.CDLL(None, use_errno=True)  # socket.getsockopt cannot pass anything in


def ruled_tables() -> tuple[str, ...]:
    """The tables that have rules in some network namespace: do_replace_finish counts those as users of the module.
    SourceError.
    """
    try:
        with open(MODULES, "rb") as file:
            lines = file.read(_LONGEST).splitlines()
    except FileNotFoundError:
        return ()  # a kernel without modules
    except OSError as error:
        raise SourceError(f"{MODULES}: {error.strerror}") from error
    fields = [line.split() for line in lines]
    used = {each[0] for each in fields if len(each) > 2 and each[2].isdigit() and int(each[2])}
    return tuple(table for table in TABLES if f"ebtable_{table}".encode() in used)


def read_ebtables(table: str) -> bytes:
    """The entries of a table that exists: chains and rules, one after the other. NotPermitted, SourceError."""
    what = f"ebtables-legacy {table}"
    for _ in range(_TRIES):
        info = _Replace(name=table.encode())
        _getsockopt(_GET_INFO, info, ct.sizeof(info), what)
        if info.entries_size > _LARGEST:
            raise SourceError(f"{what}: {info.entries_size >> 20} MB, at most {_LARGEST >> 20}")
        entries = ct.create_string_buffer(max(info.entries_size, 1))
        wanted = _Replace(
            name=table.encode(),
            nentries=info.nentries,
            entries_size=info.entries_size,
            entries=ct.cast(entries, ct.c_void_p),
        )
        try:
            # the length counts what goes to `entries`, too
            _getsockopt(_GET_ENTRIES, wanted, ct.sizeof(wanted) + info.entries_size, what)
        except SourceError as error:
            if getattr(error, "errno", 0) != errno.EINVAL:  # it has changed since
                raise
        else:
            return entries.raw[: info.entries_size]
    raise SourceError(f"{what}: changed in each of {_TRIES} attempts to read it")


def _getsockopt(option: int, buffer: _Replace, size: int, what: str) -> None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            length = ct.c_uint32(size)
            failed = _libc.getsockopt(
                sock.fileno(), socket.IPPROTO_IP, option, ct.byref(buffer), ct.byref(length)
            )
            number = ct.get_errno()
    except OSError as error:
        raise failure(what, error.errno or 0) from error
    if failed:
        raise failure(what, number)
