"""Tiny BPF programs as bytecode, loaded and attached through libbpf, without a compiler."""

from __future__ import annotations

import ctypes as ct
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from k3swatch.sources.libbpf import library

SCHED_CLS, XDP, CGROUP_SKB, CGROUP_SOCK_ADDR, SK_LOOKUP, NETFILTER = 3, 6, 8, 18, 30, 32  # enum bpf_prog_type
# enum bpf_attach_type
INET_INGRESS, INET_EGRESS, CONNECT4, ATTACH_SK_LOOKUP, ATTACH_NETFILTER, TCX_INGRESS = 0, 1, 10, 36, 45, 46
SOCKMAP = 15
XDP_DROP, XDP_PASS, TC_DROP, TC_OK = 1, 2, 2, 0


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """struct bpf_insn."""
    return struct.pack("=BBhi", code, src << 4 | dst, off, imm)


def mov(dst: int, imm: int) -> bytes:
    return insn(0xB7, dst, imm=imm)


def copy(dst: int, src: int) -> bytes:
    return insn(0xBF, dst, src)


def call(helper: int) -> bytes:
    return insn(0x85, imm=helper)


EXIT = insn(0x95)


def answer(number: int) -> bytes:
    """The program that only returns `number`."""
    return mov(0, number) + EXIT


def steal(sockmap: int, port: int) -> bytes:
    """sk_lookup: connections to `port` go to the socket in the map."""
    assign = (
        copy(1, 6) + copy(2, 0) + copy(7, 0) + mov(3, 0) + call(124)  # bpf_sk_assign
        + copy(1, 7) + call(86)  # bpf_sk_release
    )  # fmt: skip
    look = (
        insn(0x62, 10, off=-4, imm=0)  # *(u32 *)(r10 - 4) = 0
        + insn(0x18, 1, 1, imm=sockmap) + insn(0)  # r1 = map
        + copy(2, 10) + insn(0x07, 2, imm=-4) + call(1)  # bpf_map_lookup_elem
        + insn(0x15, 0, off=len(assign) // 8, imm=0)
    )  # fmt: skip
    start = copy(6, 1) + insn(0x61, 2, 6, off=60)  # bpf_sk_lookup.local_port
    return start + insn(0x55, 2, off=len(look + assign) // 8, imm=port) + look + assign + answer(1)


def redial(address: bytes, port: int, to: bytes) -> bytes:
    """cgroup connect4: who dials address:port gets the same port of another address."""
    number, other = (struct.unpack("=I", one)[0] for one in (address, to))
    change = insn(0xB4, 2, imm=_signed(other)) + insn(0x63, 1, 2, off=4)  # user_ip4
    return (
        insn(0x61, 2, 1, off=24)  # user_port
        + insn(0x55, 2, off=2 + len(change) // 8 + 1, imm=int.from_bytes(port.to_bytes(2), "little"))
        + insn(0x61, 2, 1, off=4)
        + insn(0xB4, 3, imm=_signed(number))
        + insn(0x5D, 2, 3, off=len(change) // 8)
        + change
        + answer(1)
    )


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


class _LoadOptions(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected", ct.c_uint32),
        ("rest", ct.c_char * 96),
    )


@contextmanager
def loaded(kind: int, name: str, code: bytes, expected: int = 0) -> Iterator[int]:
    """The descriptor of a program."""
    options = _LoadOptions(ct.sizeof(_LoadOptions), 0, expected)
    fd = library().bpf_prog_load(kind, name.encode(), b"GPL", code, len(code) // 8, ct.byref(options))
    assert fd >= 0, f"{name}: {os.strerror(ct.get_errno())}"
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def linked(program: int, target: int, attach_type: int) -> Iterator[None]:
    """Attached by a link to a descriptor (network namespace, control group) or an interface's index."""
    fd = library().bpf_link_create(program, target, attach_type, None)
    assert fd >= 0, os.strerror(ct.get_errno())
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def sockmap(socket: int) -> Iterator[int]:
    """A map whose only element is this socket."""
    fd = library().bpf_map_create(SOCKMAP, b"k3w", 4, 8, 1, None)
    assert fd >= 0, os.strerror(ct.get_errno())
    try:
        failed = library().bpf_map_update_elem(fd, bytes(4), struct.pack("=Q", socket), ct.c_uint64(0))
        assert not failed, os.strerror(ct.get_errno())
        yield fd
    finally:
        os.close(fd)


def attach_xdp(interface: int, program: int) -> None:
    """In generic mode; goes with the interface."""
    failed = library().bpf_xdp_attach(interface, program, 2, None)  # XDP_FLAGS_SKB_MODE
    assert not failed, os.strerror(-failed)


class _Hook(ct.Structure):
    _fields_ = (("sz", ct.c_size_t), ("ifindex", ct.c_int), ("point", ct.c_int), ("parent", ct.c_uint32))


class _Tc(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t), ("fd", ct.c_int), ("flags", ct.c_uint32), ("id", ct.c_uint32),
        ("handle", ct.c_uint32), ("priority", ct.c_uint32),
    )  # fmt: skip


def attach_tc(interface: int, program: int, point: int = 1) -> None:
    """A direct-action filter under clsact, 1 on the way in, 2 on the way out; goes with the interface."""
    hook = _Hook(ct.sizeof(_Hook), interface, point, 0)
    failed = library().bpf_tc_hook_create(ct.byref(hook))
    assert failed in (0, -17), os.strerror(-failed)
    options = _Tc(ct.sizeof(_Tc), program)
    failed = library().bpf_tc_attach(ct.byref(hook), ct.byref(options))
    assert not failed, os.strerror(-failed)
