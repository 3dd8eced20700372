"""What the probe must know of the running kernel's structs, from its BTF: offsets, function ids, drop reasons.

In: /sys/kernel/btf through libbpf. Out: the -D macros of bpf/*.h. `nf_conn` is in the BTF of the module
nf_conntrack, split on top of vmlinux's, or in vmlinux where conntrack is built in. Runs in the loader child.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from k3swatch.errors import NotPermitted, SourceError, Unsupported
from k3swatch.sources import libbpf

BTF_DIRECTORY = Path("/sys/kernel/btf")

# BTF_KIND_* (uapi/linux/btf.h)
ARRAY, STRUCT, UNION, ENUM, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC = 3, 4, 5, 6, 8, 9, 10, 11, 12
TYPE_TAG = 18
_QUALIFIERS = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)

# macro of bpf/kernel.h and bpf/packet.h: (struct, member; a number indexes an array; `a|b` is whichever there is)
OFFSETS: dict[str, tuple[str, str]] = {
    "SKB_NFCT": ("sk_buff", "_nfct"),
    "SKB_HEAD": ("sk_buff", "head"),
    "SKB_NETWORK_HEADER": ("sk_buff", "network_header"),
    "SKB_PROTOCOL": ("sk_buff", "protocol"),
    "SKB_DEV": ("sk_buff", "dev"),
    "SKB_SK": ("sk_buff", "sk"),
    "DEV_NET": ("net_device", "nd_net.net"),
    "SKB_IIF": ("sk_buff", "skb_iif"),
    "SOCK_NET": ("sock", "__sk_common.skc_net.net"),
    "SOCK_STATE": ("sock", "__sk_common.skc_state"),
    "SOCK_PORT": ("sock", "__sk_common.skc_num"),
    "SOCK_RCV_SADDR": ("sock", "__sk_common.skc_rcv_saddr"),
    "SOCK_V6_RCV_SADDR": ("sock", "__sk_common.skc_v6_rcv_saddr|skc_rcv_saddr"),  # kernels without IPv6
    "SOCK_DPORT": ("sock", "__sk_common.skc_dport"),
    "SOCK_DADDR": ("sock", "__sk_common.skc_daddr"),
    "SOCK_V6_DADDR": ("sock", "__sk_common.skc_v6_daddr|skc_daddr"),
    "REQUEST_LISTENER": ("sock", "__sk_common.skc_listener"),  # rsk_listener of struct request_sock
    "SOCK_SOCKET": ("sock", "sk_socket"),
    "SOCKET_INODE": ("socket_alloc", "vfs_inode.i_ino"),  # struct socket is its first member
    "NET_INUM": ("net", "ns.inum"),
    "CT_ORIGINAL": ("nf_conn", "tuplehash.0.tuple"),
    "CT_REPLY": ("nf_conn", "tuplehash.1.tuple"),
    "CT_NET": ("nf_conn", "ct_net.net"),
    "CT_TCP_END": ("nf_conn", "proto.tcp.seen.0.td_end"),
    "TUPLE_SRC": ("nf_conntrack_tuple", "src.u3"),
    "TUPLE_SRC_PORT": ("nf_conntrack_tuple", "src.u"),
    "TUPLE_L3NUM": ("nf_conntrack_tuple", "src.l3num"),
    "TUPLE_DST": ("nf_conntrack_tuple", "dst.u3"),
    "TUPLE_DST_PORT": ("nf_conntrack_tuple", "dst.u"),
    "TUPLE_PROTONUM": ("nf_conntrack_tuple", "dst.protonum"),
}

# macro of bpf/packet.h, where IPVS is loaded
IPVS_OFFSETS: dict[str, tuple[str, str]] = {
    "IPVS_IPVS": ("ip_vs_conn", "ipvs"),
    "IPVS_NET": ("netns_ipvs", "net"),
    "IPVS_DAF": ("ip_vs_conn", "daf"),
    "IPVS_DADDR": ("ip_vs_conn", "daddr"),
    "IPVS_DPORT": ("ip_vs_conn", "dport"),
}

# macro of bpf/doer.c
DOER_OFFSETS: dict[str, tuple[str, str]] = {
    "NET_INUM": ("net", "ns.inum"),
    "NSPROXY_NET": ("nsproxy", "net_ns"),
    "SOCK_NET": ("sock", "__sk_common.skc_net.net"),
    "SOCK_PORT": ("sock", "__sk_common.skc_num"),
    "SOCK_SOCKET": ("sock", "sk_socket"),
    "SOCKET_INODE": ("socket_alloc", "vfs_inode.i_ino"),  # struct socket is its first member
    "TASK_TGID": ("task_struct", "tgid"),
    "TASK_COMM": ("task_struct", "comm"),
    "TASK_STARTED": ("task_struct", "start_boottime"),
    "TASK_REAL_PARENT": ("task_struct", "real_parent"),
    "TASK_GROUP_LEADER": ("task_struct", "group_leader"),
    "TASK_NSPROXY": ("task_struct", "nsproxy"),
    "TASK_MM": ("task_struct", "mm"),
    "TASK_CGROUPS": ("task_struct", "cgroups"),
    "MM_ARG_START": ("mm_struct", "arg_start"),
    "MM_ARG_END": ("mm_struct", "arg_end"),
    "BPRM_FILENAME": ("linux_binprm", "filename"),
    "CSS_SET_CGROUP": ("css_set", "dfl_cgrp"),
    "CGROUP_NODE": ("cgroup", "kn"),
    "NODE_NAME": ("kernfs_node", "name"),
    "NODE_PARENT": ("kernfs_node", "parent|__parent"),  # renamed in 6.15
}

_REASON_PREFIX = "SKB_DROP_REASON_"


class Btf:
    """One BTF: vmlinux, or a module's on top of `base`."""

    def __init__(self, module: str | None = None, base: Btf | None = None) -> None:
        self._lib = libbpf.library()
        self._base = base  # a split BTF points into its base, which must outlive it
        if module is None:
            self._handle = self._lib.btf__load_vmlinux_btf()
        else:
            self._handle = self._lib.btf__load_module_btf(module.encode(), base._handle if base else None)
        if not self._handle:
            raise libbpf.failure(f"BTF of {module or 'vmlinux'}")

    def find(self, name: str, kind: int) -> int:
        """The id of a named type; Unsupported when this kernel has none."""
        found = int(self._lib.btf__find_by_name_kind(self._handle, name.encode(), kind))
        if found < 0:
            raise Unsupported(f"BTF: no {name} in this kernel")
        return found

    def offset(self, struct_name: str, path: str) -> int:
        """Byte offset of a member, given as a dotted path; a number in it indexes an array, `a|b` is either."""
        type_id, total = self.find(struct_name, STRUCT), 0
        for part in path.split("."):
            members = (self._member(type_id, name) for name in part.split("|"))
            step = (
                self._index(type_id, int(part))
                if part.isdigit()
                else next((each for each in members if each is not None), None)
            )
            if step is None:
                raise Unsupported(f"BTF: struct {struct_name} has no {path} in this kernel")
            total, type_id = total + step[0], step[1]
        return total

    def enumerators(self, name: str) -> dict[int, str]:
        """Value -> name of an enum."""
        type_id = self.find(name, ENUM)
        _, info, _ = self._header(type_id)
        raw = ct.string_at(self._address(type_id) + 12, (info & 0xFFFF) * 8)
        return {value: self._name(name_offset) for name_offset, value in struct.iter_unpack("=Ii", raw)}

    def _address(self, type_id: int) -> int:
        address = self._lib.btf__type_by_id(self._handle, type_id)
        if not address:
            raise SourceError(f"BTF: no type {type_id}")
        return int(address)

    def _header(self, type_id: int) -> tuple[int, int, int]:
        """struct btf_type: name_off, info, size or type."""
        return struct.unpack("=III", ct.string_at(self._address(type_id), 12))

    def _name(self, offset: int) -> str:
        return (self._lib.btf__name_by_offset(self._handle, offset) or b"").decode("ascii", "replace")

    def _resolve(self, type_id: int) -> tuple[int, int]:
        """The id and kind below typedefs and qualifiers."""
        for _ in range(32):
            _, info, target = self._header(type_id)
            kind = info >> 24 & 0x1F
            if kind not in _QUALIFIERS:
                return type_id, kind
            type_id = target
        raise SourceError(f"BTF: type {type_id} has no end")

    def _members(self, type_id: int) -> Iterator[tuple[str, int, int]]:
        """Name, type and byte offset of each member (struct btf_member; with kind_flag the low 24 bits count)."""
        _, info, _ = self._header(type_id)
        raw = ct.string_at(self._address(type_id) + 12, (info & 0xFFFF) * 12)
        mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
        for name_offset, member_type, bits in struct.iter_unpack("=III", raw):
            yield self._name(name_offset), member_type, (bits & mask) // 8

    def _member(self, type_id: int, name: str) -> tuple[int, int] | None:
        """Offset and type of a member, also through anonymous structs and unions."""
        type_id, kind = self._resolve(type_id)
        if kind not in (STRUCT, UNION):
            return None
        for member, member_type, offset in self._members(type_id):
            if member == name:
                return offset, member_type
            if not member:
                inner = self._member(member_type, name)
                if inner is not None:
                    return offset + inner[0], inner[1]
        return None

    def _index(self, type_id: int, index: int) -> tuple[int, int] | None:
        """Offset and type of an array element (struct btf_array: type, index_type, nelems)."""
        type_id, kind = self._resolve(type_id)
        if kind != ARRAY:
            return None
        element, _, count = struct.unpack("=III", ct.string_at(self._address(type_id) + 12, 12))
        if index >= count:
            return None
        return index * int(self._lib.btf__resolve_size(self._handle, element)), element


def load(module: str) -> Btf:
    """The BTF that describes `module`: its own where it is loaded as one, else vmlinux's. Unsupported: no BTF."""
    if not (BTF_DIRECTORY / "vmlinux").exists():
        raise Unsupported("this kernel has no BTF", hint="needs CONFIG_DEBUG_INFO_BTF")
    vmlinux = Btf()
    return Btf(module, vmlinux) if module != "vmlinux" and (BTF_DIRECTORY / module).exists() else vmlinux


def doer_offsets() -> dict[str, int]:
    """Every macro of bpf/doer.c. Unsupported when a member is missing."""
    vmlinux = load("vmlinux")
    return {macro: vmlinux.offset(name, path) for macro, (name, path) in DOER_OFFSETS.items()}


def offsets(btf: Btf) -> dict[str, int]:
    """Every macro that bpf/probe.c needs. Unsupported when a member is missing, or nf_conntrack is not loaded."""
    try:
        btf.find("nf_conn", STRUCT)
    except Unsupported as error:
        hint = "modprobe nf_conntrack; the systemd unit does"
        raise Unsupported(
            "conntrack is not loaded, or this kernel describes no modules", hint=hint
        ) from error
    return {macro: btf.offset(name, path) for macro, (name, path) in OFFSETS.items()}


def ipvs_offsets() -> dict[str, int]:
    """Every macro that bpf/probe.c needs to see what IPVS decides. Unsupported when it is not loaded."""
    try:
        described = load("ip_vs")
        return {macro: described.offset(name, path) for macro, (name, path) in IPVS_OFFSETS.items()}
    except Unsupported as error:
        raise Unsupported(f"IPVS is not loaded, or this kernel describes no modules: {error}") from error


def drop_reasons(btf: Btf) -> dict[int, str]:
    """Value -> short name of enum skb_drop_reason; empty before kernel 5.17, whose kfree_skb gives no reason."""
    try:
        reasons = btf.enumerators("skb_drop_reason")
    except Unsupported:
        return {}
    return {value: name.removeprefix(_REASON_PREFIX) for value, name in reasons.items()}


class _BtfInfo(ct.Structure):
    """struct bpf_btf_info, uapi/linux/bpf.h."""

    _fields_ = (
        ("btf", ct.c_uint64),
        ("btf_size", ct.c_uint32),
        ("id", ct.c_uint32),
        ("name", ct.c_uint64),
        ("name_len", ct.c_uint32),
        ("kernel_btf", ct.c_uint32),
    )


def object_fd(module: str) -> int:
    """A file descriptor of a loaded module's BTF, for attach_btf_obj_fd; 0 where it is built into the kernel.

    NotPermitted without CAP_SYS_ADMIN, which both commands ask for (kernel/bpf/syscall.c), whatever CAP_BPF allows.
    """
    if not (BTF_DIRECTORY / module).exists():
        return 0
    lib = libbpf.library()
    number = ct.c_uint32(0)
    while lib.bpf_btf_get_next_id(number, ct.byref(number)) == 0:
        fd = lib.bpf_btf_get_fd_by_id(number)
        if fd < 0:
            if ct.get_errno() == errno.ENOENT:  # gone since
                continue
            raise NotPermitted("the BTF of a module is for CAP_SYS_ADMIN only")
        name = ct.create_string_buffer(64)
        info = _BtfInfo(name=ct.addressof(name), name_len=len(name))
        size = ct.c_uint32(ct.sizeof(info))
        if lib.bpf_obj_get_info_by_fd(fd, ct.byref(info), ct.byref(size)) != 0:
            raise libbpf.failure("BTF info")
        if info.kernel_btf and name.value == module.encode():
            return int(fd)
        os.close(fd)
    if ct.get_errno() != errno.ENOENT:  # not the end of the list
        raise NotPermitted("the BTF of a module is for CAP_SYS_ADMIN only")
    raise Unsupported(f"BTF of {module} is not loaded")
