"""The few calls of libbpf.so.1 that k3swatch makes, through ctypes: maps, the ring buffer, programs, BTF.

Everything here raises SourceError (NotPermitted for EPERM) with the name of the call that failed. Nothing is
loaded at import: `library()` opens the shared object the first time it is asked for.
"""

from __future__ import annotations

import ctypes as ct
import errno
import functools
import os
import sys
from collections.abc import Iterable

from k3swatch.errors import NotPermitted, SourceError, Unsupported

BPF_ANY, BPF_NOEXIST = 0, 1  # uapi/linux/bpf.h

RingBufferCallback = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_void_p, ct.c_size_t)

_INT, _U32, _PTR, _STR = ct.c_int, ct.c_uint32, ct.c_void_p, ct.c_char_p

# name: (result, arguments), after bpf/bpf.h, bpf/btf.h and bpf/libbpf.h of libbpf 1.0
_SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "bpf_map_lookup_elem": (_INT, [_INT, _STR, _PTR]),
    "bpf_map_update_elem": (_INT, [_INT, _STR, _STR, ct.c_uint64]),
    "bpf_map_delete_elem": (_INT, [_INT, _STR]),
    "bpf_map_get_next_key": (_INT, [_INT, _STR, _PTR]),
    "bpf_obj_get_info_by_fd": (_INT, [_INT, _PTR, _PTR]),
    "bpf_prog_load": (_INT, [_INT, _STR, _STR, _STR, ct.c_size_t, _PTR]),
    "bpf_prog_query": (_INT, [_INT, _INT, _U32, _PTR, _PTR, _PTR]),
    "bpf_prog_get_fd_by_id": (_INT, [_U32]),
    "bpf_prog_test_run_opts": (_INT, [_INT, _PTR]),
    "bpf_raw_tracepoint_open": (_INT, [_STR, _INT]),
    "bpf_btf_get_next_id": (_INT, [_U32, _PTR]),
    "bpf_btf_get_fd_by_id": (_INT, [_U32]),
    "libbpf_num_possible_cpus": (_INT, []),
    "libbpf_set_print": (_PTR, [_PTR]),
    "ring_buffer__new": (_PTR, [_INT, RingBufferCallback, _PTR, _PTR]),
    "ring_buffer__consume": (_INT, [_PTR]),
    "ring_buffer__epoll_fd": (_INT, [_PTR]),
    "ring_buffer__free": (None, [_PTR]),
    "btf__load_vmlinux_btf": (_PTR, []),
    "btf__load_module_btf": (_PTR, [_STR, _PTR]),
    "btf__find_by_name_kind": (ct.c_int32, [_PTR, _STR, _U32]),
    "btf__type_by_id": (_PTR, [_PTR, _U32]),
    "btf__name_by_offset": (_STR, [_PTR, _U32]),
    "btf__resolve_size": (ct.c_int64, [_PTR, _U32]),
    "btf__free": (None, [_PTR]),
}


@functools.cache
def library() -> ct.CDLL:
    """libbpf.so.1 with its signatures declared; Unsupported when it is not installed."""
    try:
        lib = ct.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise Unsupported(f"libbpf: {error}", hint="install the package libbpf1") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.libbpf_set_print(None)  # it would write to stderr by itself; every failure is raised below
    return lib


def failure(what: str, code: int | None = None) -> SourceError:
    """The error for a call that failed with errno `code` (by default the current one)."""
    number = ct.get_errno() if code is None else code
    message = f"{what}: {os.strerror(number)}"
    if number in (errno.EPERM, errno.EACCES):
        return NotPermitted(message, hint="needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN")
    return SourceError(message)


def update(fd: int, key: bytes, value: bytes, flags: int = BPF_ANY) -> bool:
    """Write one map element. False when BPF_NOEXIST was asked for and it exists."""
    if library().bpf_map_update_elem(fd, key, value, flags) == 0:
        return True
    if flags == BPF_NOEXIST and ct.get_errno() == errno.EEXIST:
        return False
    raise failure("map update")


def lookup(fd: int, key: bytes, size: int) -> bytes | None:
    """One map element's value of `size` bytes; None when there is none."""
    value = ct.create_string_buffer(size)
    if library().bpf_map_lookup_elem(fd, key, value) == 0:
        return value.raw
    if ct.get_errno() == errno.ENOENT:
        return None
    raise failure("map lookup")


def delete(fd: int, key: bytes) -> None:
    """Remove one map element; one that is gone already is no error."""
    if library().bpf_map_delete_elem(fd, key) != 0 and ct.get_errno() != errno.ENOENT:
        raise failure("map delete")


def keys(fd: int, size: int, limit: int) -> list[bytes]:
    """The keys of a map, `size` bytes each; at most `limit`, so that a changing map cannot hold us."""
    found: list[bytes] = []
    current: bytes | None = None
    following = ct.create_string_buffer(size)
    while len(found) < limit:
        if library().bpf_map_get_next_key(fd, current, following) != 0:
            if ct.get_errno() == errno.ENOENT:
                break
            raise failure("map walk")
        current = following.raw
        found.append(current)
    return found


def replace_keys(fd: int, wanted: Iterable[bytes], size: int) -> None:
    """Make a map hold exactly these keys of `size` bytes, value 1; new ones come before old ones go."""
    new, present = set(wanted), set(keys(fd, size, 1 << 16))
    for key in new - present:
        update(fd, key, b"\x01")
    for key in present - new:
        delete(fd, key)


def per_cpu(fd: int, index: int) -> int:
    """One counter of an array per CPU, all of them added up."""
    size = 8 * int(library().libbpf_num_possible_cpus())
    return sum(memoryview(lookup(fd, index.to_bytes(4, sys.byteorder), size) or b"").cast("Q"))


class Ring:
    """The reader of a ring buffer map."""

    def __init__(self, fd: int) -> None:
        self._records: list[bytes] = []
        self._callback = RingBufferCallback(self._collect)  # must outlive the ring buffer
        self._handle = library().ring_buffer__new(fd, self._callback, None, None)
        if not self._handle:
            raise failure("ring buffer")

    def fileno(self) -> int:
        """Readable when records wait: the epoll descriptor of libbpf's ring buffer."""
        return int(library().ring_buffer__epoll_fd(self._handle))

    def records(self) -> list[bytes]:
        """The records that wait, oldest first; never blocks."""
        if library().ring_buffer__consume(self._handle) < 0:
            raise failure("ring buffer consume")
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        """Free it; the map stays its owner's."""
        if self._handle:
            library().ring_buffer__free(self._handle)
            self._handle = None

    def _collect(self, _context: int | None, data: int | None, size: int) -> int:
        self._records.append(ct.string_at(data or 0, size))
        return 0
