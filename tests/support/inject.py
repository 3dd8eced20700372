"""A system call made by another process that runs already: what the kernel answers to *it*, filters and all.

ptrace(2): the process is stopped, led once through the `syscall` instruction that it waits in, and put back as it was.
x86-64 only, as the machines are that the tests run on.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

EXECVE, EXECVEAT = 59, 322
FORBIDDEN = (EXECVE, EXECVEAT)  # with no path: EFAULT where nothing forbids them
_SINGLESTEP, _GETREGS, _SETREGS, _DETACH, _SEIZE, _INTERRUPT = 9, 12, 13, 17, 0x4206, 0x4207
_SYSCALL = b"\x0f\x05"
_NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)


class _Registers(ctypes.Structure):
    """struct user_regs_struct, sys/user.h."""

    _fields_ = tuple((name, ctypes.c_ulonglong) for name in _NAMES)


def _ptrace(request: int, pid: int, data: object = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    if libc.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"ptrace {request} of {pid}")


@contextmanager
def _stopped(pid: int) -> Iterator[_Registers]:
    """The thread stands still; its registers, which are put back."""
    _ptrace(_SEIZE, pid)
    try:
        _ptrace(_INTERRUPT, pid)
        os.waitpid(pid, 0x40000000)  # __WALL: threads, too
        registers = _Registers()
        _ptrace(_GETREGS, pid, ctypes.byref(registers))
        try:
            yield registers
        finally:
            _ptrace(_SETREGS, pid, ctypes.byref(registers))
    finally:
        _ptrace(_DETACH, pid)


def call(pid: int, number: int, *arguments: int) -> int:
    """What system call `number` answers in thread `pid` when that waits next: its result, or minus errno."""
    assert platform.machine() == "x86_64", "registers of x86-64"
    end = time.monotonic() + 10
    while (answer := _call_now(pid, number, *arguments)) is None:
        assert time.monotonic() < end, f"thread {pid} never waits"
        time.sleep(0.02)
    return answer


def _call_now(pid: int, number: int, *arguments: int) -> int | None:
    """None: it computes just now, there is no `syscall` before where it stands."""
    with _stopped(pid) as before, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(before.rip - len(_SYSCALL))
        if memory.read(len(_SYSCALL)) != _SYSCALL:
            return None
        made = _Registers.from_buffer_copy(before)
        made.rip -= len(_SYSCALL)
        made.orig_rax = 2**64 - 1  # none is to be begun again
        made.rax = number
        made.rdi, made.rsi, made.rdx, made.r10, made.r8, made.r9 = (*arguments, *[0] * (6 - len(arguments)))
        _ptrace(_SETREGS, pid, ctypes.byref(made))
        _ptrace(_SINGLESTEP, pid)
        _, status = os.waitpid(pid, 0x40000000)
        assert os.WIFSTOPPED(status), f"it ended: {status:#x}"
        assert os.WSTOPSIG(status) == signal.SIGTRAP, f"it was stopped by {os.WSTOPSIG(status)}"
        after = _Registers()
        _ptrace(_GETREGS, pid, ctypes.byref(after))
        return ctypes.c_longlong(after.rax).value


def threads(pid: int) -> list[int]:
    """The threads of a process."""
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
