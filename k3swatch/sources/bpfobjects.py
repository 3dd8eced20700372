"""Which BPF programs are attached where, through bpf(2): BPF_PROG_QUERY, and their names where root asks.

CAP_NET_ADMIN is enough to ask what is attached (bpf_prog_query); names, tags and owners want CAP_SYS_ADMIN
(bpf_prog_get_fd_by_id).
"""

from __future__ import annotations

import ctypes as ct
import errno
import os

from k3swatch.sources.libbpf import failure, library

# enum bpf_attach_type of uapi/linux/bpf.h
CGROUP_INET_INGRESS, CGROUP_INET_EGRESS = 0, 1
CGROUP_INET4_CONNECT, CGROUP_INET6_CONNECT, CGROUP_UDP4_SENDMSG, CGROUP_UDP6_SENDMSG = 10, 11, 14, 15
SK_LOOKUP, TCX_INGRESS, TCX_EGRESS = 36, 46, 47

MOST = 64  # programs at one place: BPF_CGROUP_MAX_PROGS, BPF_MPROG_MAX
INFO = 80  # the part of struct bpf_prog_info up to the name

_ABSENT = (errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV, errno.EBADF)


def query(target: int, attach_type: int) -> list[int]:
    """Ids of the programs attached there; `target` is a descriptor (control group, network namespace) or the index of
    an interface. Empty on kernels that do not have such a place. Raises NotPermitted, SourceError.
    """
    ids, count, flags = (ct.c_uint32 * MOST)(), ct.c_uint32(MOST), ct.c_uint32()
    failed = library().bpf_prog_query(target, attach_type, 0, ct.byref(flags), ids, ct.byref(count))
    if failed:
        number = ct.get_errno()
        if number in _ABSENT:
            return []
        if number != errno.ENOSPC:  # there are more: these are enough
            raise failure("bpf(BPF_PROG_QUERY)", number)
    return list(ids[: min(count.value, MOST)])


def query_netns(attach_type: int) -> list[int]:
    """The same for the network namespace of this thread."""
    return _query_path("/proc/thread-self/ns/net", attach_type)


def query_cgroup(path: str, attach_types: tuple[int, ...]) -> dict[int, list[int]]:
    """The programs attached to one control group itself, by attach type; nothing when it is gone meanwhile."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        return {kind: ids for kind in attach_types if (ids := query(fd, kind))}
    finally:
        os.close(fd)


def _query_path(path: str, attach_type: int) -> list[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return query(fd, attach_type)
    finally:
        os.close(fd)


def info(program: int) -> bytes | None:
    """The first INFO bytes of struct bpf_prog_info; None when it is gone or only root may ask."""
    fd = library().bpf_prog_get_fd_by_id(program)
    if fd < 0:
        return None
    try:
        found, length = ct.create_string_buffer(INFO), ct.c_uint32(INFO)
        failed = library().bpf_obj_get_info_by_fd(fd, found, ct.byref(length))
        return None if failed else found.raw
    finally:
        os.close(fd)
