"""What the daemon takes from itself once it has started: no program, no BPF object, no perf event any more.

The loader child is the only thing that ever needs to be executed. When it has handed over the probe, a seccomp
filter is laid over every thread: whoever takes over the process after that starts no shell and loads no BPF program.
The probe's maps stay usable, through their descriptors, with the commands that read and write elements.

Follows seccomp(2), capabilities(7), `uapi/linux/{seccomp,filter,audit,bpf,capability}.h`.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from k3swatch.errors import SourceError, Unsupported

# what loading a probe takes: PERFMON and BPF, on kernels before 5.8 (and for memlock 5.11) SYS_ADMIN and SYS_RESOURCE
LOADER_CAPABILITIES = (38, 39, 21, 24)

# MAP_{LOOKUP,UPDATE,DELETE}_ELEM, MAP_GET_NEXT_KEY, OBJ_GET_INFO_BY_FD, PROG_QUERY: reading, and the probe's own maps
_BPF_COMMANDS = (1, 2, 3, 4, 15, 16)


class _Abi(NamedTuple):
    """System call numbers of one architecture (AUDIT_ARCH_*); all of these are little-endian."""

    arch: int
    seccomp: int
    bpf: int
    refused: tuple[int, ...]  # execve, execveat, perf_event_open


_GENERIC = (277, 280, (221, 281, 241))
_ARM = _Abi(0x40000028, 383, 386, (11, 387, 364))
_ABIS = {  # by machine and pointer size: a 32-bit Python may run on a 64-bit kernel
    ("x86_64", 8): _Abi(0xC000003E, 317, 321, (59, 322, 298)),
    ("aarch64", 8): _Abi(0xC00000B7, *_GENERIC),
    ("riscv64", 8): _Abi(0xC00000F3, *_GENERIC),
    ("aarch64", 4): _ARM,
    ("armv8l", 4): _ARM,
    ("armv7l", 4): _ARM,
}

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, JGE, BPF_RET|K
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data
_X32 = 0x40000000  # numbers from here on are x86-64's other ABI
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO

_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _TSYNC = 38, 1, 1
_CAPABILITY_VERSION_3 = 0x20080522


class _Program(ct.Structure):
    """struct sock_fprog."""

    _fields_ = (("len", ct.c_ushort), ("filter", ct.c_char_p))


def forbid_exec() -> None:
    """Refuse (EPERM) execve, execveat, perf_event_open and loading BPF to all threads of this process, for ever.

    Raises Unsupported where this machine's call numbers are not known, SourceError when the kernel declines.
    """
    machine = (os.uname().machine, struct.calcsize("P"))
    if machine not in _ABIS:
        raise Unsupported(f"seccomp: the system calls of {machine[0]} are not known here")
    abi = _ABIS[machine]
    code = assemble(abi.arch, abi.refused, abi.bpf)
    libc = ct.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise SourceError(f"no_new_privs: {os.strerror(ct.get_errno())}")
    program = _Program(len(code) // 8, code)
    failed = libc.syscall(abi.seccomp, _SET_MODE_FILTER, _TSYNC, ct.byref(program))
    if failed:  # -1, or the thread that could not be had
        raise SourceError(f"seccomp: {os.strerror(ct.get_errno()) if failed < 0 else f'thread {failed}'}")


def assemble(arch: int, refused: Sequence[int], bpf: int) -> bytes:
    """The filter as struct sock_filter[]: everything else stays allowed, which is for the unit's filter to say."""
    lines: list[tuple[int, int, str, str]] = [
        (_LOAD, _ARCH, "", ""),
        (_EQUAL, arch, "", "refuse"),
        (_LOAD, _NUMBER, "", ""),
        (_AT_LEAST, _X32, "refuse", ""),
        *((_EQUAL, number, "refuse", "") for number in refused),
        (_EQUAL, bpf, "", "allow"),
        (_LOAD, _FIRST_ARGUMENT, "", ""),
        *((_EQUAL, command, "allow", "") for command in _BPF_COMMANDS),
        (_RETURN, _REFUSE, "", ""),
        (_RETURN, _ALLOW, "", ""),
    ]
    target = {"refuse": len(lines) - 2, "allow": len(lines) - 1}
    return b"".join(
        struct.pack("=HBBI", code, *(target[to] - at - 1 if to else 0 for to in (true, false)), k)
        for at, (code, k, true, false) in enumerate(lines)
    )


def give_up(capabilities: Sequence[int], works: Callable[[], object]) -> bool:
    """Take capabilities from this thread for good, if `works` still does without; False when they had to stay.

    `works` says no by raising SourceError: before 5.19 a kernel with unprivileged BPF switched off asks for CAP_BPF at
    every access to a map, and only trying tells. Threads that run already keep theirs; what those would be good
    for, `forbid_exec` refuses to them as well.
    """
    effective, permitted, _ = _capabilities()
    keep = ~sum(1 << number for number in capabilities)
    _set_capabilities(effective & keep, permitted)
    try:
        works()
    except SourceError:
        _set_capabilities(effective, permitted)
        return False
    _set_capabilities(effective & keep, permitted & keep)
    return True


def _capabilities() -> tuple[int, int, int]:
    header, data = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), ct.create_string_buffer(24)
    if ct.CDLL(None, use_errno=True).capget(header, data) != 0:
        raise SourceError(f"capget: {os.strerror(ct.get_errno())}")
    words = struct.unpack("=6I", data.raw)  # effective, permitted, inheritable; the low halves come first
    low, high = words[:3], words[3:]
    return (low[0] | high[0] << 32, low[1] | high[1] << 32, low[2] | high[2] << 32)


def _set_capabilities(effective: int, permitted: int) -> None:
    """Inheritable ones go: nothing is executed any more."""
    words = (effective, permitted, 0)
    data = struct.pack("=6I", *(word & 0xFFFFFFFF for word in words), *(word >> 32 for word in words))
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if ct.CDLL(None, use_errno=True).capset(header, data) != 0:
        raise SourceError(f"capset: {os.strerror(ct.get_errno())}")
